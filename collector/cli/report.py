"""``collector report ledger``: what became of every event, over time.

Owns: the table, its intervals and totals. Refuses to know: how the ledgers count; it reads what the admin listener
keeps (``/debug/ledgers``: the last three minutes by the second, the last day by the minute).

Each line is what happened in one interval; *in work*, *rows* and the differences are as they were at its end. Totals
are since the collector started (ledger A) and since its spool file began (ledger B).
"""

import argparse
import json
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

import msgspec

from .main import Mendable
from .settings import add_config_argument, load, read_dev_info

__all__ = ["add_arguments", "intervals", "run", "seconds"]

TIMEOUT_S = 5.0

#: Lines that fit a screen; the interval is chosen by it.
LINES = 20

#: Intervals that people can think in, in seconds.
STEPS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400)

#: As they were at the end of the interval; everything else is counted up.
GAUGES = frozenset({"in_work", "difference", "rows", "rows_difference"})

#: A column's name here, its title, and whether it is shown where it is 0 throughout.
_EVENTS = (
    ("received", "received", True),
    ("delivered", "delivered", True),
    ("spooled", "spooled", True),
    ("rejected", "rejected", True),
    ("not_sent", "refused", True),
    ("unknown", "unknown", True),
    ("deduplicated", "deduplicated", True),
    ("dropped", "dropped", True),
    ("in_work", "in work", True),
    ("difference", "difference A", True),
)
_ROWS = (
    ("rows_in", "rows in", True),
    ("replayed", "replayed", True),
    ("resolved", "resolved", True),
    ("dead", "dead", True),
    ("rows_dropped", "dropped", True),
    ("rows_lost", "lost", False),
    ("rows", "now", True),
    ("rows_difference", "difference B", True),
)

_DURATION = re.compile(r"(\d+(?:\.\d+)?)(s|m|h|d)?\Z")
_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


class Answer(msgspec.Struct, frozen=True):
    """What ``/debug/ledgers`` says."""

    now: float
    started_at: float
    pid: int
    columns: list[str]
    readings: list[list[float | None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One interval."""

    start: float
    end: float
    values: dict[str, int | None]
    """Counters: what was added in it; gauges: at its end. None: there is no such ledger."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command line of `collector report`."""
    reports = parser.add_subparsers(dest="report", metavar="REPORT", required=True)
    ledger = reports.add_parser(
        "ledger",
        help="both ledgers over time: what clients were told, and what became of what was spooled",
        description="Both ledgers over time. received = delivered + spooled + rejected + refused + unknown + "
        "deduplicated + dropped + in work; rows in = replayed + resolved + dead + dropped + rows now. "
        "Each difference is 0.",
        epilog="exit codes: 0 both ledgers balance; 1 one does not; 2 no collector answers",
    )
    ledger.add_argument(
        "--since", type=seconds, metavar="TIME", default=600.0, help="how far back: 90, 30s, 10m, 2h, 1d (10m)"
    )
    ledger.add_argument("--every", type=seconds, metavar="TIME", help="the interval; by default what fits a screen")
    ledger.add_argument("--json", action="store_true", help="one JSON object: intervals and totals")
    ledger.add_argument(
        "--admin", metavar="URL", help="the admin listener; default: a running collector dev, or [admin]"
    )
    add_config_argument(ledger)


def seconds(text: str) -> float:
    """``90``, ``30s``, ``10m``, ``2h``, ``1d`` as seconds; for argparse."""
    found = _DURATION.match(text)
    if found is None or float(found[1]) <= 0:
        raise argparse.ArgumentTypeError(f"expected a time such as 90, 30s, 10m, 2h or 1d, got {text!r}")
    return float(found[1]) * _UNITS[found[2] or "s"]


def run(arguments: argparse.Namespace) -> int:
    """The command; 1 where a ledger does not balance."""
    admin = _admin_url(arguments)
    # One reading before the time asked for is the beginning of the first interval.
    answer = _ask(admin)
    since = answer.now - arguments.since
    every = arguments.every or _step(min(arguments.since, answer.now - answer.started_at))
    lines = list(intervals(answer, since, every))
    totals = _totals(answer)
    if arguments.json:
        print(json.dumps(_as_json(answer, lines, totals, every)))
    else:
        _print(answer, lines, totals, admin)
    sys.stdout.flush()
    return 1 if totals.get("difference") or totals.get("rows_difference") else 0


def _admin_url(arguments: argparse.Namespace) -> str:
    if arguments.admin is not None:
        url = str(arguments.admin).rstrip("/")
        return url if "://" in url else f"http://{url}"
    dev = read_dev_info() if arguments.config is None else None
    return dev.admin if dev is not None else f"http://{load(arguments).admin.bind}"


def _ask(admin: str) -> Answer:
    import httpx  # noqa: ASYNC127  # as `collector.client.http`

    try:
        reply = httpx.get(f"{admin}/debug/ledgers", timeout=TIMEOUT_S, trust_env=False)
        reply.raise_for_status()
        return msgspec.json.decode(reply.content, type=Answer)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise Mendable(
            f"{admin}: no collector answers ({error or type(error).__name__}): start `collector dev` here or "
            "`collector serve`, or name its admin listener with --admin or --config"
        ) from error
    except msgspec.MsgspecError as error:
        raise Mendable(f"{admin}: what answers is no collector's admin listener: {error}") from error


def _step(span_s: float) -> float:
    return next((step for step in STEPS if span_s / step <= LINES), STEPS[-1])


def intervals(answer: Answer, since: float, every: float) -> Iterator[Line]:
    """The readings after ``since``, as intervals of ``every`` seconds that end on whole ones, oldest first.

    The first begins with the last reading before it, or with zeros where the collector had not started. Where readings
    are rarer than the intervals, an interval is as long as they are apart.
    """
    names = answer.columns
    # The first reading of a process may be older than its rooms.
    readings = [reading for reading in answer.readings if reading[1] is not None]
    before: list[float | None] = [answer.started_at, *([0] * len(names))]
    # Ledger B is older than the process: it begins with what the first reading says.
    first_row = names.index("rows_in") + 1
    if readings:
        before[first_row:] = readings[0][first_row:]
    last = before
    for reading in readings:
        at = _at(reading)
        if at <= since:
            before = last = reading
            continue
        if _at(last) > _at(before) and _at(last) // every != at // every:
            yield _line(names, before, last)
            before = last
        last = reading
    if last is not before:
        yield _line(names, before, last)


def _at(reading: Sequence[float | None]) -> float:
    assert reading[0] is not None
    return reading[0]


def _line(names: Sequence[str], before: Sequence[float | None], after: Sequence[float | None]) -> Line:
    values: dict[str, int | None] = {}
    for name, was, now in zip(names, before[1:], after[1:], strict=True):
        values[name] = None if now is None else int(now if name in GAUGES else now - (was or 0))
    return Line(start=_at(before), end=_at(after), values=values)


def _totals(answer: Answer) -> dict[str, int | None]:
    if not answer.readings:
        return dict.fromkeys(answer.columns)
    last = answer.readings[-1][1:]
    return {name: None if value is None else int(value) for name, value in zip(answer.columns, last, strict=True)}


def _as_json(answer: Answer, lines: Sequence[Line], totals: dict[str, int | None], every: float) -> dict[str, object]:
    return {
        "now": answer.now,
        "started_at": answer.started_at,
        "pid": answer.pid,
        "every_s": every,
        "intervals": [{"start": line.start, "end": line.end, **line.values} for line in lines],
        "totals": totals,
    }


def _print(answer: Answer, lines: Sequence[Line], totals: dict[str, int | None], admin: str) -> None:
    started = datetime.fromtimestamp(answer.started_at).astimezone()
    print(f"{admin}, pid {answer.pid}, started {started:%Y-%m-%d %H:%M:%S %Z}")
    clock = "%H:%M:%S" if not lines or lines[-1].end - lines[0].start < 43_200 else "%d %b %H:%M"
    for title, columns, total in (
        ("Ledger A: what clients were told, in events", _EVENTS, "since start"),
        ("Ledger B: what became of what was spooled, in rows", _ROWS, "of the file"),
    ):
        print()
        if totals.get(columns[0][0]) is None:
            print(f"{title}: there is none")
            continue
        shown = [(name, head) for name, head, always in columns if always or totals.get(name)]
        table = [["until", *(head for _, head in shown)]]
        for line in lines:
            at = datetime.fromtimestamp(line.end).strftime(clock)
            table.append([at, *(_cell(line.values[name]) for name, _ in shown)])
        table.append([total, *(_cell(totals[name]) for name, _ in shown)])
        print(title)
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        for number, row in enumerate(table):
            if number in (1, len(table) - 1):
                print("  ".join("-" * width for width in widths))
            first, *rest = row
            print("  ".join([first.ljust(widths[0]), *map(str.rjust, rest, widths[1:])]).rstrip())
    for name, ledger in (("difference", "A"), ("rows_difference", "B")):
        if totals.get(name):
            print(
                f"\nLedger {ledger} does not balance: {totals[name]}. Events were lost from the books: this is a bug."
            )


def _cell(value: int | None) -> str:
    return "-" if value is None else f"{value:,}".replace(",", " ")
