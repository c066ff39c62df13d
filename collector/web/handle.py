"""What a server of ours tells the application about the connection that it runs on.

Owns: the key under which it stands in ``scope["state"]``, and the keys in ``scope["extensions"]`` under which a server
says what the application need not do itself (`collector.ingest.nursery` has the one of the request nursery). Refuses to
know: sockets.
"""

from typing import Protocol

import trio

from collector.web.asgi_types import Scope

__all__ = ["BOUNDED_SEND", "STATE_KEY", "WHOLE_BODY", "ConnectionHandle", "handle_of"]

STATE_KEY = "collector.connection"

#: In ``scope["extensions"]``: the server ends a send that a client does not take by itself, and it never waits for the
#: application to take a body while that answers. A deadline around a send costs 9 µs.
BOUNDED_SEND = "collector.bounded_send"

#: In ``scope["extensions"]``: the body as it was sent, where all of it had come before the application was called.
#: `receive` tells it too, to who calls it.
WHOLE_BODY = "collector.whole_body"


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
