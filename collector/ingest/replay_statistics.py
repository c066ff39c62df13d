"""What the replay says of itself.

Owns: the shape of one reading. Refuses to know: how the numbers come about.
"""

from dataclasses import dataclass
from typing import Literal, TypeAlias

__all__ = ["ReplayState", "ReplayStatistics"]

ReplayState: TypeAlias = Literal["idle", "replaying", "waiting", "paused", "stopped"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayStatistics:
    """One reading. Counts are rows, tries count each time."""

    state: ReplayState
    why: str
    """What it waits for; empty while it replays."""
    in_work_rows: int
    in_work_bytes: int
    share_bytes: int
    unresolved_rows: int
    """In work, outcome Unknown: their batches have not ended."""
    probing: int
    """Partitions with a probe under way."""
    delivered_total: int
    returned_total: int
    """Not in the log, or nobody knows: ready again."""
    unknown_total: int
    """Unknown at first, whatever became of them."""
    dead_total: int
    marked_total: int
    """Sent with ``maybe-duplicate: 1``."""
    chunks_total: int
    probes_total: int
    events_per_second: float
    """Delivered, over the last ten seconds."""
    time_to_empty_s: float | None
    """At this rate, new rows included; None while the spool does not shrink."""
    age_alarm: bool
    """The oldest row is older than ``spool.age_alarm_s``."""
