"""The beginning and the end of a replay, in the log.

Owns: when the two lines are worth writing. Refuses to know: why it begins and ends.

Invariant: a replay that begins again and again costs two lines in `LOG_S`.
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
        self._began: tuple[float, int] | None = None

    def __repr__(self) -> str:
        return f"<ReplayLog {'of one under way' if self._began else 'at rest'}>"

    def replaying(self, now: float, delivered: int, spool: SpoolStatistics) -> None:
        """A chunk is under way; ``delivered`` rows were delivered before it."""
        if self._began is None and now - self._logged_at >= LOG_S:
            self._began, self._logged_at = (now, delivered), now
            log.info("replaying", rows=spool.rows, bytes=spool.bytes, oldest_age_s=round(spool.oldest_age_s, 1))

    def empty(self, now: float, delivered: int) -> None:
        """Nothing is in the spool."""
        if self._began is not None:
            (began_at, before), self._began = self._began, None
            log.info("the spool is empty", replayed=delivered - before, took_s=round(now - began_at, 1))
