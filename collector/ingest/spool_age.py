"""Old events in the spool are an alarm, and nothing else: no row is ever deleted for its age.

Owns: whether the alarm stands, and its two lines in the log. Refuses to know: why nothing leaves the spool.
"""

from collector.log import get_logger
from collector.spool.base import SpoolStatistics

__all__ = ["AgeAlarm"]

log = get_logger("spool")

#: The alarm is over when the oldest row is younger than this part of the bound.
OVER = 0.8


class AgeAlarm:
    """Stands from ``bound_s`` on; said once, however long it stands."""

    def __init__(self, bound_s: float) -> None:
        self._bound_s = bound_s
        self.stands = False

    def __repr__(self) -> str:
        return f"<AgeAlarm {'stands' if self.stands else 'off'}>"

    def look(self, statistics: SpoolStatistics) -> None:
        """Take one reading; synchronous, cheap."""
        age_s = statistics.oldest_age_s
        if age_s > self._bound_s and not self.stands:
            self.stands = True
            log.error(
                "the spool holds old events",
                oldest_age_s=round(age_s),
                bound_s=self._bound_s,
                rows=statistics.rows,
                bytes=statistics.bytes,
            )
        elif age_s < OVER * self._bound_s and self.stands:
            self.stands = False
            log.info("the spool holds no old events any more", oldest_age_s=round(age_s), rows=statistics.rows)
