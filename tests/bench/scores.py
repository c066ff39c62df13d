"""From measured runs to checks: which figure of ours over which of theirs.

Owns: that both sides of a ratio come from the same round. Refuses to know: what the figures mean.
"""

from collections.abc import Sequence

from tests.bench.figures import Bound, ratios, spread_of
from tests.bench.report import SATURATED, Check, Measured

__all__ = ["Scores", "failed_note"]


def failed_note(measured: Sequence[Measured]) -> str | None:
    """A sentence on the requests that were refused or lost, and are in no rate."""
    counts = {each.name: sum(each.values("failed")) for each in measured}
    named = "; ".join(f"{name}: {count:.0f}" for name, count in counts.items() if count)
    return f"Refused or lost, and in no rate: {named}." if named else None


class Scores:
    """What the runs of one group gave, by the contender's name."""

    def __init__(self, measured: Sequence[Measured]) -> None:
        self._measured = {each.name: each for each in measured}

    def ratio(
        self,
        what: str,
        ours: str,
        theirs: str,
        key: str = "rate",
        must: Bound | None = None,
        stretch: Bound | None = None,
    ) -> Check:
        """One of our figures over one of theirs, round by round; a rate also by CPU time, theirs over ours."""
        found = ratios(self.values(ours, key), self.values(theirs, key))
        by_cpu = ratios(self.values(theirs, "cpu_us"), self.values(ours, "cpu_us")) if key == "rate" else []
        return Check(
            what=what,
            figure=spread_of(found) if found else None,
            must=must,
            stretch=stretch,
            by_cpu=spread_of(by_cpu) if by_cpu else None,
        )

    def cost(self, what: str, with_it: str, without: str, must: Bound) -> Check:
        """By how much CPU time a record rises, in percent."""
        found = [100 * (ratio - 1) for ratio in ratios(self.values(with_it, "cpu_us"), self.values(without, "cpu_us"))]
        return Check(what=what, figure=spread_of(found) if found else None, must=must, unit="%", digits=1)

    def figure(
        self, what: str, name: str, key: str, unit: str, must: Bound | None = None, stretch: Bound | None = None
    ) -> Check:
        """One of our figures as it is."""
        found = self.values(name, key)
        figure = spread_of(found) if found else None
        return Check(what=what, figure=figure, must=must, stretch=stretch, unit=unit)

    def unsaturated(self) -> str | None:
        """A sentence on the contenders whose rates are not their own, because their process had time left."""
        names = [
            name
            for name, each in self._measured.items()
            if (share := each.spread("cpu_share")) is not None and share.median < SATURATED
        ]
        if not names:
            return None
        return (
            f"Not saturated: {'; '.join(names)}. Such a rate is the broker's, the window's, or that of whoever else "
            "used the machine: take the ratios by CPU time."
        )

    def values(self, name: str, key: str) -> list[float]:
        """One figure of one contender, run by run; empty where it did not take part."""
        return self._measured[name].values(key) if name in self._measured else []
