"""Ledger A as the monitor shows it: what came in, what clients were told, and that the two agree.

Owns: the names of the outcomes, in the order in which people read them. Refuses to know: how the ledger counts.
"""

from dataclasses import dataclass

__all__ = ["OUTCOMES", "LedgerView"]

OUTCOMES = ("delivered", "spooled", "rejected", "not_sent", "unknown", "deduplicated", "dropped")
# The ledger's own word where it differs from ``X-Collector-Outcome``'s.
_ENDS = ("", "_total", "_events", "_events_total")
_ALSO = {"not_sent": ("refused",), "dropped": ("dropped_by_rule",)}


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerView:
    """One reading of ledger A, in events."""

    received: float
    outcomes: dict[str, float]
    in_work: float

    @property
    def difference(self) -> float:
        """What the books do not explain; 0 at every moment between two steps of the loop."""
        return self.received - sum(self.outcomes.values()) - self.in_work

    @property
    def fields(self) -> frozenset[str]:
        """The fields of the statistics that this view stands for."""
        words = ["received", "in_work", "difference", *OUTCOMES, *(word for words in _ALSO.values() for word in words)]
        return frozenset(f"{word}{end}" for word in words for end in _ENDS)

    @classmethod
    def of(cls, statistics: object) -> "LedgerView":
        """Read it from the ledger's statistics; a field may be called ``x``, ``x_total`` or ``x_events``."""
        return cls(
            received=_number(statistics, "received"),
            outcomes={outcome: _number(statistics, outcome, *_ALSO.get(outcome, ())) for outcome in OUTCOMES},
            in_work=_number(statistics, "in_work"),
        )


def _number(statistics: object, *words: str) -> float:
    for word in words:
        for end in _ENDS:
            value = getattr(statistics, word + end, None)
            if isinstance(value, (int, float)):
                return float(value)
    return 0.0
