"""The beginning and the end of a replay, in the log.

Owns: when the two lines are worth writing. Refuses to know: why it begins and ends.

Invariants: a replay that begins again and again costs two lines in `LOG_S`; its numbers are those of ledger B, and so
they add up: ``rows`` + ``more_came`` = all the others.
"""

from collector.log import get_logger
from collector.spool.base import SpoolStatistics

__all__ = ["ReplayLog"]

log = get_logger("replay")

LOG_S = 10.0


class ReplayLog:
    """Of one replay."""

    def __init__(self) -> None:
        self._logged_at = -LOG_S
        self._began: tuple[float, SpoolStatistics] | None = None

    def __repr__(self) -> str:
        return f"<ReplayLog {'of one under way' if self._began else 'at rest'}>"

    def replaying(self, now: float, spool: SpoolStatistics) -> None:
        """A chunk is under way."""
        if self._began is None and now - self._logged_at >= LOG_S:
            self._began, self._logged_at = (now, spool), now
            log.info("replaying", rows=spool.rows, bytes=spool.bytes, oldest_age_s=round(spool.oldest_age_s, 1))

    def empty(self, now: float, spool: SpoolStatistics) -> None:
        """Nothing is in the spool."""
        if self._began is not None:
            (began_at, before), self._began = self._began, None
            log.info(
                "the spool is empty",
                more_came=spool.rows_in_total - before.rows_in_total,
                replayed=spool.replayed_total - before.replayed_total,
                resolved=spool.resolved_total - before.resolved_total,
                dead=spool.dead_total - before.dead_total,
                dropped=spool.dropped_total - before.dropped_total,
                lost=spool.lost_total - before.lost_total,
                took_s=round(now - began_at, 1),
            )
