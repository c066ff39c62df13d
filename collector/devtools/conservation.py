"""Conservation: every event that a collector took is accounted for, in both ledgers, at the end of whatever was tested.

Owns: the sums, reckoned anew from the counters. Refuses to know: who counted.
"""

from collector.ingest.ledger import LedgerStatistics
from collector.spool.base import SpoolStatistics

__all__ = ["assert_conserved", "imbalances"]


def imbalances(ledger: LedgerStatistics, spool: SpoolStatistics | None) -> list[str]:
    """What does not add up, one line each.

    Source: the collector's promise. A, what clients were told: received = delivered + spooled + rejected + refused +
    unknown + deduplicated + dropped + in work. B, the spool's own: rows in = replayed + resolved + dead + dropped +
    rows now, and what a damaged file lost.
    """
    told = ledger.delivered_total + ledger.spooled_total + ledger.rejected_total + ledger.refused_total
    told += ledger.unknown_total + ledger.deduplicated_total + ledger.dropped_total
    found = []
    if ledger.received_total != told + ledger.in_work or ledger.difference:
        found.append(f"ledger A: {ledger.received_total} received, {told} told, {ledger.in_work} in work")
    if spool is not None:
        left = spool.replayed_total + spool.resolved_total + spool.dead_total + spool.dropped_total + spool.lost_total
        if spool.rows_in_total != left + spool.rows or spool.difference:
            found.append(f"ledger B: {spool.rows_in_total} rows in, {left} left, {spool.rows} now")
    return found


def assert_conserved(ledger: LedgerStatistics, spool: SpoolStatistics | None) -> None:
    """Raise AssertionError where a ledger of a collector that has ended does not balance, or something is in work."""
    found = imbalances(ledger, spool)
    if ledger.in_work:
        found.append(f"ledger A: {ledger.in_work} events are in work, and nobody is there any more")
    assert not found, "; ".join(found)
