"""What the log says of how full the spool is: before it refuses, when it does, and when there is room again.

Owns: the levels, when a line is worth writing. Refuses to know: what is refused, and why there is room.

Invariants: a level is said once, and left before it is said again; a spool that fills and empties again and again costs
each line once in `LOG_S`.
"""

import math

from collector.log import get_logger

__all__ = ["FILLING", "FillLog"]

log = get_logger("spool")

FILLING = 0.8
"""Of ``max_bytes``: time to do something."""

NO_LONGER_FILLING = 0.7

LOG_S = 60.0

WHAT_TO_DO = "see why Kafka is away; `collector spool ls` shows the rows; raise [spool] max_bytes if the disk has room"


class FillLog:
    """Of one spool."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._full_at = self._filling_at = -math.inf
        self._says_full = self._says_filling = False
        self.refused = 0
        """Since it was said that there is room. While it is full events are rarely offered, see ledger A."""

    def __repr__(self) -> str:
        return f"<FillLog {'full' if self._says_full else 'filling' if self._says_filling else 'with room'}>"

    def look(self, now: float, *, full: bool, rows: int, used_bytes: int) -> None:
        """Say what has changed. Cheap; to be called often: what was too soon to be said is said later."""
        part = used_bytes / self._max_bytes
        if full and not self._says_full and now >= self._full_at + LOG_S:
            self._says_full = self._says_filling = True
            self._full_at = self._filling_at = now
            log.error(
                "the spool is full: what Kafka does not take either is answered 503",
                rows=rows,
                bytes=used_bytes,
                max_bytes=self._max_bytes,
                to_do=WHAT_TO_DO,
            )
        elif not full and self._says_full:
            self._says_full = False
            refused, self.refused = self.refused, 0
            log.info(
                "the spool has room again", rows=rows, bytes=used_bytes, max_bytes=self._max_bytes, rows_refused=refused
            )
        elif not self._says_filling and part >= FILLING and now >= self._filling_at + LOG_S:
            self._says_filling, self._filling_at = True, now
            log.warning(
                f"the spool is {part:.0%} full",
                rows=rows,
                bytes=used_bytes,
                max_bytes=self._max_bytes,
                to_do=WHAT_TO_DO,
            )
        elif self._says_filling and part < NO_LONGER_FILLING:
            self._says_filling = False
