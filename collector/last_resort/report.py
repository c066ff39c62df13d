"""What one replay of a file did, for people.

Owns: the counts, the numbers of lines that have a name in the report, its words. Refuses to know: how any came about.

Invariant: memory is bounded however many lines are no good.
"""

from collections import Counter
from dataclasses import dataclass, field

from collector.ingest.verdict import ranges
from collector.last_resort.cursor import OpenLine

__all__ = ["Lines", "Report"]

#: Lines whose numbers are remembered; the others are counted.
NUMBERED_LINES = 1000

LINES_TEXT_BYTES = 500


@dataclass(slots=True)
class Lines:
    """Some lines of the file: how many, and the numbers of the first."""

    count: int = 0
    numbers: list[int] = field(default_factory=list)

    def add(self, number: int) -> None:
        self.count += 1
        if len(self.numbers) < NUMBERED_LINES:
            self.numbers.append(number)

    def __str__(self) -> str:
        more = self.count - len(self.numbers)
        return "line " + ranges(sorted(self.numbers), LINES_TEXT_BYTES) + (f" and {more} more" if more else "")


@dataclass(slots=True, kw_only=True)
class Report:
    """What one run did. Lines count from 1; events are those of this run."""

    before: int = 0
    """Lines that were done when it began."""
    fed: int = 0
    refused: Lines = field(default_factory=Lines)
    """Requests that a client would have heard 400 for, as a whole."""
    broken: Lines = field(default_factory=Lines)
    """Pieces that are no whole line of nginx's."""
    events: "Counter[str]" = field(default_factory=Counter)
    """By the words of the ledger: delivered, rejected, not_sent, unknown, …"""
    left: tuple[OpenLine, ...] = ()
    """Lines that are to be fed back again."""
    reason: str = ""
    """Why the first of them is left."""
    cursor_fault: str = ""
    """Why the cursor could not be written any more; ``left`` is then what the one on the disk says."""
    next_line: int = 1
    """The first that nobody has looked at."""
    behind_bytes: int = 0
    """At the end of the file, not fed back: what came meanwhile, and a line without its end."""
    stopped: bool = False
    """Somebody asked it to stop."""

    @property
    def done(self) -> bool:
        """Nothing is left or unknown: there is no reason to come again."""
        return not (self.left or self.stopped or self.cursor_fault)

    @property
    def lossless(self) -> bool:
        """And nothing may be lost that was answered 200: each line of this run was one, and was accepted."""
        return self.done and not self.refused.count and not self.broken.count

    def lines(self) -> list[str]:
        """The report for people."""
        events = {name: self.events[name] for name in ("delivered", "rejected", "not_sent", "unknown")}
        events |= {name: count for name, count in self.events.items() if count and name not in events}
        said = [
            f"lines: {self.fed} fed back, {self.refused.count} refused, {self.broken.count} broken, {len(self.left)} "
            f"left; {self.before} were done before",
            "events: " + ", ".join(f"{name.replace('_', ' ')} {count}" for name, count in events.items()),
        ]
        if self.refused.count:
            said.append(f"refused: {self.refused}; nginx answered 200, and this file keeps them")
        if self.broken.count:
            said.append(f"broken: {self.broken}; each may have been an event, of which this file keeps what there is")
        left = ranges([line.number for line in self.left], LINES_TEXT_BYTES)
        if self.cursor_fault:
            again = f"feeds line {left} back again and " if left else ""
            said.append(
                f"cursor: {self.cursor_fault}. Run it again when that is mended: it {again}goes on with line "
                f"{self.next_line}"
            )
        elif left:
            said.append(f"left: line {left} ({self.reason}); run it again")
        if self.behind_bytes:
            said.append(f"not looked at yet: {self.behind_bytes} bytes at the end")
        return said
