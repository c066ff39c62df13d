"""What all workers of a supervisor's life come to: the counts of its last log line, and its exit code.

Owns: the sums. Refuses to know: processes, and what is counted.

Ledger A is added up over every worker that there was: each event was told to a client by one of them. Ledger B is that
of files, which outlive workers and take each other's accounts over: only of the workers that drained at the end.

Of one that was killed its last beat is added, and it counts as ``unreported``: what it did after that, and what it had
in its hands, nobody knows.
"""

import signal
from collections import Counter
from dataclasses import dataclass

from collector.run import EXIT_DRAINED, EXIT_UNKNOWN

__all__ = ["EXIT_BUG", "EXIT_CONFIGURATION", "Totals", "WorkerEnd", "exit_code_of"]

EXIT_BUG = 1
EXIT_CONFIGURATION = 2

_CRASHES = frozenset(
    -number for number in (signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGILL, signal.SIGFPE, signal.SIGSYS)
)

#: From the mildest to the worst. The configuration of who never served has cost nobody anything.
_BY_WEIGHT = (EXIT_DRAINED, EXIT_CONFIGURATION, EXIT_UNKNOWN, EXIT_BUG)

_OF_FILES = "spool_"


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerEnd:
    """How one worker ended."""

    status: int
    """Its exit status; -N where signal N ended it."""
    counts: dict[str, int]
    """The last that it told."""
    reported: bool
    """It told them at its end."""
    served: bool
    """It was ready once."""


def exit_code_of(end: WorkerEnd) -> int:
    """What one worker's end says about its events."""
    if end.status == EXIT_BUG or end.status in _CRASHES:
        return EXIT_BUG
    if not end.served:
        return EXIT_CONFIGURATION if end.status == EXIT_CONFIGURATION else EXIT_DRAINED
    return end.status if end.reported and end.status in (EXIT_DRAINED, EXIT_UNKNOWN) else EXIT_UNKNOWN


class Totals:
    """The sums so far."""

    def __init__(self) -> None:
        self.workers = 0
        self.unreported = 0
        self.code = EXIT_DRAINED
        self._counts: Counter[str] = Counter()

    def __repr__(self) -> str:
        return f"<Totals {self.workers} workers, code {self.code}>"

    @property
    def counts(self) -> dict[str, int]:
        return dict(self._counts)

    def add(self, end: WorkerEnd, *, last: bool) -> None:
        """Count one worker.

        Args:
            last: it ended with the supervisor; nobody has its spool file after it.
        """
        self.workers += 1
        self.unreported += end.served and not end.reported
        code = exit_code_of(end)
        # Refused by a configuration, but not the first one: others serve, and it is tried again.
        if code != EXIT_CONFIGURATION:
            self.code = max(self.code, code, key=_BY_WEIGHT.index)
        for name, count in end.counts.items():
            if last or not (name.startswith(_OF_FILES) or name == "in_spool"):
                self._counts[name] += count
