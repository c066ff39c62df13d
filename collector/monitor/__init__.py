"""What the operator sees: loop lag, GC share, task tree, metrics, dashboard.

Owns: reading and showing, and the door for an operator's orders. Refuses to know: how to change anything. Everything
it shows comes from ``statistics()`` of the other rooms and from its own probes; every order is carried out by the room
that offered it.
"""

from .monitor import Monitor, Order, OrderRefused, Readiness, Stage
from .opening import open_monitor

__all__ = ["Monitor", "Order", "OrderRefused", "Readiness", "Stage", "open_monitor"]
