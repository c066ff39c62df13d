"""What a server of ours tells the application about the connection that it runs on.

Owns: the key under which it stands in ``scope["state"]``. Refuses to know: sockets.
"""

from typing import Protocol

import trio

from collector.web.asgi_types import Scope

__all__ = ["STATE_KEY", "ConnectionHandle", "handle_of"]

STATE_KEY = "collector.connection"


class ConnectionHandle(Protocol):
    """One connection, as far as the application may touch it."""

    @property
    def gone(self) -> trio.Event:
        """Set when nothing more can be read from the connection and everything that was read has been handed over."""
        ...

    def abort(self) -> None:
        """Cut the connection now, unread and unsent bytes with it. Synchronous, idempotent."""
        ...


def handle_of(scope: Scope) -> ConnectionHandle | None:
    """The handle of this connection; None under a server that is not ours."""
    handle: ConnectionHandle | None = (scope.get("state") or {}).get(STATE_KEY)
    return handle
