"""The ledgers of all workers over time, as if they were one collector's.

Owns: the addition. Refuses to know: what the columns mean, but which of them belong to ledger B.

Each worker reads its books at moments of its own. At every moment of anybody's reading the sum takes the newest that
each of them had by then; before its first one ledger A is 0, and ledger B, which is a file's and older than the worker,
is what the first one says. A worker that is gone has taken its readings along: the sum is of those who run now.
"""

import os
import time
from bisect import bisect_right
from collections.abc import Sequence

from msgspec import Struct

__all__ = ["Ledgers", "added_up"]

_FIRST_OF_FILES = "rows_in"

STEP_S = 1.0
"""Readings are a second apart at the closest; the sum is read once for each such step."""


class Ledgers(Struct, frozen=True, kw_only=True):
    """What ``/debug/ledgers`` says: each reading is a moment (seconds since 1970) and a value a column."""

    now: float
    started_at: float
    pid: int
    columns: list[str]
    readings: list[list[float | None]]


def added_up(several: Sequence[Ledgers]) -> Ledgers:
    """The sum; empty where nobody answered."""
    columns = several[0].columns if several else []
    known = [
        _Readings(one) for one in several if one.columns == columns and any(r[1] is not None for r in one.readings)
    ]
    moments: dict[int, float] = {}
    for readings in known:
        for at in readings.moments:
            step = int(at // STEP_S)
            moments[step] = max(at, moments.get(step, at))
    return Ledgers(
        now=max((one.now for one in several), default=time.time()),
        started_at=min((one.started_at for one in several), default=time.time()),
        pid=os.getpid(),
        columns=columns,
        readings=[
            [at, *map(_sum, zip(*(readings.by(at) for readings in known), strict=True))]
            for _, at in sorted(moments.items())
        ],
    )


class _Readings:
    """Those of one worker."""

    def __init__(self, ledgers: Ledgers) -> None:
        # The first ones of a process may be older than its rooms.
        self._readings = [reading for reading in ledgers.readings if reading[1] is not None]
        self.moments = [reading[0] or 0.0 for reading in self._readings]
        first = ledgers.columns.index(_FIRST_OF_FILES)
        self._before: list[float | None] = [0.0] * first
        self._before += self._readings[0][1:][first:]

    def by(self, at: float) -> list[float | None]:
        """The values at a moment."""
        number = bisect_right(self.moments, at)
        return self._readings[number - 1][1:] if number else self._before


def _sum(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if known else None
