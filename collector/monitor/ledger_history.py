"""Both ledgers over time: readings of the last three minutes one a second, of the last day one a minute.

Owns: which numbers are kept, and for how long. Refuses to know: how the ledgers count, and how a report looks.

Invariant: bounded: 180 and 1440 readings of some twenty numbers, about 1 MB. Counters are kept as they were read: what
happened between two readings is their difference, whichever of them are gone meanwhile.
"""

from collections import deque
from typing import NamedTuple

from .ledger_view import OUTCOMES, LedgerView

__all__ = ["COLUMNS", "LedgerHistory", "Reading"]

FINE_READINGS = 180
COARSE_READINGS = 1440
COARSE_S = 60.0

#: Of ledger B: the name here, and the field of the spool's statistics.
_ROWS = {
    "rows_in": "rows_in_total",
    "replayed": "replayed_total",
    "resolved": "resolved_total",
    "dead": "dead_total",
    "rows_dropped": "dropped_total",
    "rows_lost": "lost_total",
    "rows": "rows",
    "rows_difference": "difference",
}

#: What a reading's values are, in order: ledger A in events, then ledger B in rows.
COLUMNS = ("received", *OUTCOMES, "in_work", "difference", *_ROWS)


class Reading(NamedTuple):
    """Both ledgers at one moment."""

    at: float
    """Seconds since 1970."""
    values: tuple[int | None, ...]
    """By `COLUMNS`; None where there is no such ledger."""


class LedgerHistory:
    """Fed by the sampler."""

    def __init__(self) -> None:
        self._fine: deque[Reading] = deque(maxlen=FINE_READINGS)
        self._coarse: deque[Reading] = deque(maxlen=COARSE_READINGS)

    def __repr__(self) -> str:
        return f"<LedgerHistory {len(self._coarse)} minutes, {len(self._fine)} seconds>"

    def note(self, at: float, ledger: object, spool: object) -> None:
        """Keep what the statistics of ledger A and of the spool say; None for one that is not there."""
        values: list[int | None] = [None] * (len(COLUMNS) - len(_ROWS))
        if ledger is not None:
            view = LedgerView.of(ledger)
            counts = (view.received, *(view.outcomes[name] for name in OUTCOMES), view.in_work, view.difference)
            values = [int(count) for count in counts]
        values += [None if spool is None else getattr(spool, field, None) for field in _ROWS.values()]
        reading = Reading(at, tuple(values))
        self._fine.append(reading)
        if not self._coarse or at - self._coarse[-1].at >= COARSE_S or at < self._coarse[-1].at:
            self._coarse.append(reading)

    def readings(self, since: float = 0.0) -> list[Reading]:
        """All after ``since``, ascending: minutes first, then the last seconds."""
        first = self._fine[0].at if self._fine else float("inf")
        return [
            reading for reading in (*(one for one in self._coarse if one.at < first), *self._fine) if reading.at > since
        ]
