"""What the operator sees: loop lag, GC share, task tree, metrics, dashboard.

Owns: reading and showing. Refuses to know: how to change anything. Everything it shows comes from ``statistics()`` of
the other rooms and from its own probes.
"""

from .monitor import Monitor, Readiness, Stage
from .opening import open_monitor

__all__ = ["Monitor", "Readiness", "Stage", "open_monitor"]
