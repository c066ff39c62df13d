"""Figures of a benchmark: medians, spreads, ratios, and what they are held against.

Owns: the arithmetic between measured runs and a verdict. Refuses to know: what was measured, and how it is shown.

Ratios are formed round by round and only then summarised. Rounds interleave the contenders (A B A B), so that what a
shared machine does to one round it does to both sides of its ratio; the median over rounds of a ratio is steadier than
the ratio of two medians.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Literal

__all__ = [
    "Bound",
    "Spread",
    "Verdict",
    "at_least",
    "at_most",
    "below",
    "judge",
    "percentile",
    "ratios",
    "spread_of",
]

Verdict = Literal["met", "missed", "not measured"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """One figure over several runs."""

    median: float
    low: float
    high: float
    runs: int

    @property
    def relative(self) -> float:
        """Half the range as a share of the median: 0.05 is ± 5 %."""
        return (self.high - self.low) / 2 / abs(self.median) if self.median else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Bound:
    """What a figure is held against."""

    relation: Literal[">=", "<=", "<"]
    value: float
    unit: str = "×"

    def holds(self, figure: float) -> bool:
        """Whether the figure keeps the bound."""
        match self.relation:
            case ">=":
                return figure >= self.value
            case "<=":
                return figure <= self.value
            case "<":
                return figure < self.value

    def __str__(self) -> str:
        sign = {">=": "≥", "<=": "≤", "<": "<"}[self.relation]
        return f"{sign} {self.value:g} {self.unit}".rstrip()


def at_least(value: float, unit: str = "×") -> Bound:
    """A ratio's lower bound."""
    return Bound(relation=">=", value=value, unit=unit)


def at_most(value: float, unit: str = "×") -> Bound:
    """An upper bound."""
    return Bound(relation="<=", value=value, unit=unit)


def below(value: float, unit: str = "%") -> Bound:
    """An upper bound that is not reached."""
    return Bound(relation="<", value=value, unit=unit)


def spread_of(values: Sequence[float]) -> Spread:
    """Median, lowest and highest of one or more runs.

    Raises:
        ValueError: there is none.
    """
    if not values:
        raise ValueError("no run has given this figure")
    return Spread(median=median(values), low=min(values), high=max(values), runs=len(values))


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> list[float]:
    """Ours / theirs, round by round; a round that only one side finished is left out."""
    return [mine / other for mine, other in zip(ours, theirs, strict=False) if other]


def percentile(ordered: Sequence[float], share: float) -> float:
    """The smallest value that at least this share (0 to 1) of the ordered values does not exceed; NaN of nothing."""
    if not ordered:
        return math.nan
    return ordered[min(len(ordered) - 1, max(0, math.ceil(share * len(ordered)) - 1))]


def judge(figure: Spread | None, bound: Bound | None) -> Verdict | None:
    """Whether the median keeps the bound; None where there is no bound."""
    if bound is None:
        return None
    if figure is None or math.isnan(figure.median):
        return "not measured"
    return "met" if bound.holds(figure.median) else "missed"
