"""The bytes of one connection, as the lane and its websockets use them.

Owns: the interface. Refuses to know: HTTP, which of the two transports (a socket of the reactor's, a TLS stream of
trio's) is behind it.
"""

from typing import Protocol

__all__ = ["Transport"]


class Transport(Protocol):
    """One task reads; one task at a time writes."""

    async def receive(self) -> bytes:
        """The next bytes, at most ``read_ahead_bytes``; empty at the client's end.

        Raises:
            trio.BrokenResourceError: the connection is broken, or was aborted.

        On cancellation: nothing is lost.
        """
        ...

    def send_now(self, data: bytes) -> bool:
        """Send ``data`` whole without waiting; False: nothing or not all of it could be sent, `send` has the rest.

        After False the next call must be ``await send(b"")``, or more data, which goes behind the rest.
        Raises `trio.BrokenResourceError`.
        """
        ...

    async def send(self, data: bytes) -> None:
        """Send the rest of `send_now` and ``data``, within ``send_timeout_s``.

        Raises:
            trio.BrokenResourceError: the connection is broken, or the client did not read in time; it is aborted then.

        On cancellation: part of it was sent; the connection must be aborted.
        """
        ...

    def abort(self) -> None:
        """Cut the connection now. Synchronous, idempotent; whoever waits in `receive` or `send` hears of it."""
        ...
