"""The report of a benchmark: Markdown for people, JSON for programs.

Owns: how figures, ratios and verdicts look. Refuses to know: how they were measured.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field

from tests.bench.figures import Bound, Spread, Verdict, judge, spread_of

__all__ = ["SATURATED", "Check", "Column", "Measured", "Report", "Row", "as_json", "as_markdown"]


#: A core is never wholly a process's: from this share on it had no time left.
SATURATED = 0.9


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One figure of a table of measurements."""

    key: str
    title: str
    scale: float = 1.0
    digits: int = 1


@dataclass(slots=True, kw_only=True)
class Measured:
    """One contender and what its runs gave, in order of the rounds."""

    name: str
    settings: str = ""
    runs: list[Mapping[str, float]] = field(default_factory=list)

    def values(self, key: str) -> list[float]:
        """One figure of every run that has it."""
        return [run[key] for run in self.runs if key in run]

    def spread(self, key: str) -> Spread | None:
        """That figure over the runs; None where no run has it."""
        values = [value for value in self.values(key) if not math.isnan(value)]
        return spread_of(values) if values else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """A figure and what it is held against."""

    what: str
    figure: Spread | None
    must: Bound | None = None
    stretch: Bound | None = None
    unit: str = "×"
    digits: int = 2
    by_cpu: Spread | None = None
    """The same ratio from CPU time a record instead of rates: steadier where others use the machine too."""

    @property
    def verdicts(self) -> tuple[Verdict | None, Verdict | None]:
        """Of must and stretch; None where there is no such bound."""
        return judge(self.figure, self.must), judge(self.figure, self.stretch)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One row of the targets."""

    name: str
    title: str
    columns: Sequence[Column]
    measured: Sequence[Measured]
    checks: Sequence[Check]
    notes: Sequence[str] = ()
    sides: tuple[str, str] = ("producer", "broker")
    """What is measured, and what is on the other core."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """One whole run of the program."""

    title: str
    about: Mapping[str, str]
    rows: Sequence[Row]
    failures: Sequence[str] = ()
    """Contenders without figures, and why."""


def as_markdown(report: Report) -> str:
    """The report as people read it."""
    parts = [f"# {report.title}\n\n", "".join(f"- {name}: {text}\n" for name, text in report.about.items())]
    if report.failures:
        parts.append("\nFailed:\n\n" + "".join(f"- {each}\n" for each in report.failures))
    for row in report.rows:
        parts.append(f"\n## {row.name}: {row.title}\n\n")
        if row.measured:
            parts.append(_measured_table(row))
        if row.checks:
            parts.append("\n" + _checks_table(row.checks))
        parts.append("".join(f"\n{note}\n" for note in row.notes))
        settings: dict[str, list[str]] = {}
        for each in row.measured:
            if each.settings:
                settings.setdefault(each.settings, []).append(each.name)
        if settings:
            parts.append("\nSettings:\n\n")
            parts += [f"- {'; '.join(names)}: {text}\n" for text, names in settings.items()]
    return "".join(parts)


def as_json(report: Report) -> dict[str, object]:
    """The report with every run, as plain values; NaN becomes None, which JSON has."""
    return {
        "title": report.title,
        "about": dict(report.about),
        "failures": list(report.failures),
        "rows": [
            {
                "row": row.name,
                "title": row.title,
                "measured": [
                    {
                        "name": each.name,
                        "settings": each.settings,
                        "runs": [{key: _or_none(value) for key, value in run.items()} for run in each.runs],
                    }
                    for each in row.measured
                ],
                "checks": [_check_json(check) for check in row.checks],
                "notes": list(row.notes),
            }
            for row in report.rows
        ],
    }


def _check_json(check: Check) -> dict[str, object]:
    must, stretch = check.verdicts
    return {
        "what": check.what,
        "unit": check.unit,
        "figure": _spread_json(check.figure),
        "by_cpu": _spread_json(check.by_cpu),
        "must": None if check.must is None else str(check.must),
        "must_verdict": must,
        "stretch": None if check.stretch is None else str(check.stretch),
        "stretch_verdict": stretch,
    }


def _spread_json(spread: Spread | None) -> dict[str, float | None] | None:
    return None if spread is None else {name: _or_none(value) for name, value in asdict(spread).items()}


def _or_none(value: float) -> float | None:
    return None if math.isnan(value) else value


def _measured_table(row: Row) -> str:
    rated = any(each.spread("cpu_share") for each in row.measured)
    heads = ["", *(column.title for column in row.columns), *(["saturated"] if rated else [])]
    lines = []
    for each in row.measured:
        cells = [each.name]
        for column in row.columns:
            spread = each.spread(column.key)
            cells.append("–" if spread is None else show(spread, column.scale, column.digits))
        if rated:
            cells.append(_saturated(each, row.sides))
        lines.append(cells)
    return _table(heads, lines)


def _saturated(each: Measured, sides: tuple[str, str]) -> str:
    """Which side had no time left: only then is a rate the rate of that side."""
    subject, rest = each.spread("cpu_share"), each.spread("rest_share")
    if subject is None:
        return "–"
    said = f"{sides[0]} {subject.median:.0%}"
    if rest is not None:
        said += f", {sides[1]} {rest.median:.0%}"
    foreign = each.spread("foreign_share")
    if foreign is not None and foreign.median > 0.1:
        said += f", others on these cores {foreign.median:.0%}"
    if subject.median >= SATURATED:
        return f"**{sides[0]}** ({said})"
    if rest is not None and rest.median >= SATURATED:
        return f"**{sides[1]}** ({said})"
    return f"neither ({said})"


def _checks_table(checks: Sequence[Check]) -> str:
    by_cpu = any(check.by_cpu is not None for check in checks)
    lines = []
    for check in checks:
        must, stretch = check.verdicts
        figure = "–" if check.figure is None else f"{show(check.figure, 1.0, check.digits)} {check.unit}".rstrip()
        cells = [check.what, figure, _verdict(check.must, must), _verdict(check.stretch, stretch)]
        if by_cpu:
            cells.insert(2, "" if check.by_cpu is None else f"{show(check.by_cpu, 1.0, check.digits)} {check.unit}")
        lines.append(cells)
    return _table(["ours against", "figure", *(["by CPU time"] if by_cpu else []), "must", "stretch"], lines)


def _verdict(bound: Bound | None, verdict: Verdict | None) -> str:
    if bound is None:
        return ""
    return f"{bound} {verdict}" if verdict == "met" else f"{bound} **{verdict}**"


def show(spread: Spread, scale: float = 1.0, digits: int = 1) -> str:
    """The median, and the range in brackets where there were several runs."""
    middle = f"{spread.median * scale:,.{digits}f}"
    if spread.runs == 1 or spread.low == spread.high:
        return middle
    return f"{middle} ({spread.low * scale:,.{digits}f}–{spread.high * scale:,.{digits}f})"


def _table(heads: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    rule = ["---"] * len(heads)
    return "".join("| " + " | ".join(cells) + " |\n" for cells in [heads, rule, *lines])
