"""How many connections one server has, and may have.

Owns: the count, the bound, and who is told when a connection is not accepted. Refuses to know: which of the servers a
connection belongs to, and what it carries.

Invariant: `ConnectionLimits.open` never holds more than the bound.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

__all__ = ["Abortable", "ConnectionLimits", "ConnectionStatistics"]


class Abortable(Protocol):
    """A connection, as far as its end is concerned."""

    def abort(self) -> None:
        """Cut it now. Synchronous, idempotent."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionStatistics:
    """Connections from clients."""

    open: int
    bound: int
    opened_total: int
    turned_away_total: int


class ConnectionLimits:
    """The connections of one server."""

    def __init__(self, bound: int) -> None:
        self.bound = bound
        self.behind: Callable[[], bool] = lambda: False
        """Whether the loop is so late that who has not been accepted yet is refused."""
        self.refused: Callable[[int], object] = lambda size: None
        """Told how many bytes such a one had sent."""
        self.open: set[Abortable] = set()
        self.opened_total = 0
        self.turned_away_total = 0

    def __repr__(self) -> str:
        return f"<ConnectionLimits {len(self.open)}/{self.bound}>"

    def take(self, connection: Abortable) -> bool:
        """Count ``connection`` in; False: there are as many as may be, and it is to be turned away."""
        if len(self.open) >= self.bound:
            self.turned_away_total += 1
            return False
        self.open.add(connection)
        self.opened_total += 1
        return True

    def give_back(self, connection: Abortable) -> None:
        """Count ``connection`` out. Idempotent."""
        self.open.discard(connection)

    def statistics(self) -> ConnectionStatistics:
        """The connections as they are now."""
        return ConnectionStatistics(
            open=len(self.open),
            bound=self.bound,
            opened_total=self.opened_total,
            turned_away_total=self.turned_away_total,
        )

    def abort_all(self) -> None:
        """Cut every connection: what is left when the time to drain is over."""
        for connection in list(self.open):
            connection.abort()
