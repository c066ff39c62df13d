"""The table: Markdown for people, JSON for programs.

Owns: how the figures look. Refuses to know: what they mean.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from tests.faults.rows import ROWS
from tests.faults.running import Result

__all__ = ["Line", "as_json", "as_markdown"]

#: The server that is not the baseline.
OURS = "collector"

_ROW_LINE = re.compile(r"\| (\w+)\. [^|]*\| ([^|]+?) \|")
_NOTE_LINE = re.compile(r"- row (\w+), ([^:]+): ")
_PLAYED_LINE = re.compile(r"- played ((?:row \w+(?: \(baseline\))?(?:, )?)+): (.*)")

HEADS = (
    "fault",
    "server",
    "sent",
    "200",
    "503",
    "other upstream errors",
    "no answer, no connection",
    "lost",
    "duplicates: marked, not",
    "ghosts: announced, denied, without a word",
    "p50, p99 ms",
    "memory MB",
    "in the spool",
    "holds",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One row on one server, and what of it does not hold."""

    row: str
    title: str
    server: str
    result: Result | None
    """None: it could not be played, and ``broken`` says why."""
    broken: Sequence[str]

    @property
    def name(self) -> str:
        """Of the row and the server."""
        return f"row {self.row}, {self.server}"


def as_markdown(played: str, lines: Sequence[Line], before: str = "") -> str:
    """The whole table, with what belongs beside it.

    Args:
        played: How: the command, the commit, the machine.
        before: What was printed earlier: rows that were not played now stay as they are there.
    """
    shown = _shown_in(before)
    runs = _runs_in(before)
    mine = [_short(line.row, line.server) for line in lines]
    runs = [(left, text) for names, text in runs if (left := [name for name in names if name not in mine])]
    runs.append((mine, played))
    for line in lines:
        cells = "| " + " | ".join(_cells(line)) + " |"
        shown[_short(line.row, line.server)] = [cells, *(f"- {note}" for note in _notes(line))]
    order = [_short(row.name, server) for row in ROWS for server in (OURS, "")]
    known = sorted(shown, key=lambda name: order.index(name) if name in order else len(order))
    heads = ["| " + " | ".join(cells) + " |" for cells in (HEADS, ["---"] * len(HEADS))]
    played_lines = [f"- played {', '.join(names)}: {text}" for names, text in runs if text]
    notes = [note for name in known for note in shown[name][1:]]
    return "\n".join([*heads, *(shown[name][0] for name in known), "", *played_lines, *notes]) + "\n"


def _short(row: str, server: str) -> str:
    return f"row {row}" if server == OURS else f"row {row} (baseline)"


def _shown_in(text: str) -> dict[str, list[str]]:
    """Of each row that is printed in a text, its line and its notes."""
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        if cells := _ROW_LINE.match(line):
            found[_short(cells[1], cells[2])] = [line]
        elif (note := _NOTE_LINE.match(line)) and (name := _short(note[1], note[2])) in found:
            found[name].append(line)
    return found


def _runs_in(text: str) -> list[tuple[list[str], str]]:
    matches = map(_PLAYED_LINE.match, text.splitlines())
    return [(match[1].split(", "), match[2]) for match in matches if match is not None]


def _cells(line: Line) -> list[str]:
    holds = f"**no**: {'; '.join(line.broken)}" if line.broken else "yes"
    first = [f"{line.row}. {line.title}", line.server]
    if line.result is None:
        return [*first, *["–"] * (len(HEADS) - 3), holds]
    result, account = line.result, line.result.account
    errors = ", ".join(f"{count} × {words}" for words, count in result.upstream.errors.items())
    other = ", ".join(f"{count} × {status}" for status, count in account.other.items())
    return [
        *first,
        f"{account.sent:,}",
        f"{account.ok:,} ({account.ok_share:.2%})",
        f"{account.unavailable:,}",
        ", ".join(filter(None, (errors, other))) or "0",
        f"{account.no_answer:,}, {account.not_connected:,}",
        f"**{account.lost_events:,}**" if account.lost_events else "0",
        f"{account.duplicates_marked:,}, {account.duplicates_unmarked:,}",
        f"{account.ghosts_announced:,}, {account.ghosts_unannounced:,}, {account.ghosts_without_word:,}",
        f"{_ms(account.p50_s)}, {_ms(account.p99_s)}",
        f"{result.highest_bytes / 1e6:.0f}",
        "–" if result.spool_rows is None else f"{result.spool_rows:,}",
        holds,
    ]


def _notes(line: Line) -> list[str]:
    result, name = line.result, line.name
    if result is None:
        return []
    found = []
    if result.outage_p99_s is not None and result.fsync_p99_s is not None:
        found.append(
            f"{name}: p99 of the {result.outage_answers:,} answers to what was sent from 2 s into it to its end "
            f"({result.outage_s:.0f} s) {_ms(result.outage_p99_s)} ms; "
            f"the disk's own fsync beside it p99 {_ms(result.fsync_p99_s)} ms"
        )
    if result.capacity is not None and result.goodput is not None:
        found.append(f"{name}: capacity {result.capacity:.0f} requests/s, goodput {result.goodput:.0f} requests/s")
    if result.account.rude_sent:
        found.append(f"{name}: {result.account.rude_sent:,} requests of rude clients beside these")
    if result.upstream.complaints:
        said = ", ".join(f"{count} × {words}" for words, count in sorted(result.upstream.complaints.items()))
        found.append(f"{name}: nginx's error log has {said}")
    return found + [f"{name}: {note}" for note in result.notes]


def _ms(seconds: float) -> str:
    return "–" if math.isnan(seconds) else f"{seconds * 1000:,.0f}" if seconds >= 0.01 else f"{seconds * 1000:.1f}"


def as_json(played: str, lines: Sequence[Line]) -> dict[str, object]:
    """All figures, as plain values; NaN becomes None, which JSON has."""
    rows = [
        {
            "row": line.row,
            "title": line.title,
            "server": line.server,
            "broken": list(line.broken),
            "figures": None if line.result is None else _plain(asdict(line.result)),
        }
        for line in lines
    ]
    return {"played": played, "rows": rows}


def _plain(value: dict[str, object]) -> dict[str, object]:
    found: dict[str, object] = {}
    for name, each in value.items():
        if isinstance(each, dict):
            found[name] = _plain({str(key): inner for key, inner in each.items()})
        else:
            found[name] = None if isinstance(each, float) and math.isnan(each) else each
    return found
