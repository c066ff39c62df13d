"""The bytes of one connection, as the lane and its websockets use them.

Owns: the interface. Refuses to know: HTTP, which of the two transports (a socket of the reactor's, TLS over one) is
behind it.
"""

import socket
from typing import Protocol

__all__ = ["Transport"]


class Transport(Protocol):
    """One task reads; one task at a time writes."""

    @property
    def socket(self) -> socket.socket:
        """What it runs on: for addresses and options, not for bytes."""
        ...

    @property
    def pending(self) -> bool:
        """The last `send_now` returned False, and nobody has sent the rest yet."""
        ...

    async def receive(self) -> bytes:
        """The next bytes; empty at the client's end, or when `interrupt` was called.

        Raises:
            trio.BrokenResourceError: the connection is broken, or was aborted.
            trio.BusyResourceError: somebody else is waiting here.

        On cancellation: nothing is lost. Not always a checkpoint; a client that sends without a pause meets one.
        """
        ...

    def receive_now(self) -> bytes | None:
        """What has come already, empty at the client's end; None: nothing. Only while nobody waits in `receive`.

        Raises `trio.BrokenResourceError`.
        """
        ...

    def interrupt(self) -> bool:
        """Let whoever waits in `receive` have ``b""``; whether anybody did. The connection stays as it is."""
        ...

    def send_now(self, data: bytes) -> bool:
        """Send ``data`` whole without waiting; False: nothing or not all of it could be sent, `send` has the rest.

        After False the next call must be ``await send(b"")``, or more data, which goes behind the rest.
        Raises `trio.BrokenResourceError`.
        """
        ...

    async def send(self, data: bytes) -> None:
        """Send the rest of `send_now` and ``data``, waiting up to ``send_timeout_s`` whenever the client reads nothing.

        Raises:
            trio.BrokenResourceError: the connection is broken, or the client did not read in time; it is aborted then.

        On cancellation: part of it was sent; the connection is aborted.
        """
        ...

    def end(self) -> None:
        """Say that nothing more will be sent (FIN); reading goes on. Synchronous, idempotent, never raises."""
        ...

    def abort(self) -> None:
        """Close the connection now. Synchronous, idempotent; whoever waits in `receive` or `send` hears of it."""
        ...
