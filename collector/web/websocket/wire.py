"""How a websocket's messages get in and out: many at a time where the server can do that, else one by one.

Owns: the interface, and its plain ASGI form. Refuses to know: what a message means, which server carries it.

A server of ours offers the interface itself in ``scope["extensions"]`` and then reads whole reads of the socket, and
writes what is ready in one piece without a task in between. Every other server is used as ASGI says.

Invariants: messages come in the order in which they were sent; a message that was handed over to be sent goes out
before the next one and before the close frame.
"""

from collections.abc import Sequence
from typing import Protocol, TypeAlias

from collector.ingest.nursery import DeadlineGrid
from collector.web.asgi_types import Message, Receive, Scope, Send

__all__ = ["EXTENSION", "AsgiWire", "Received", "Wire", "wire_of"]

#: The key in ``scope["extensions"]`` under which a server offers its `Wire`.
EXTENSION = "collector.websocket"

#: One whole message: its payload, and whether it is text. Text is valid UTF-8.
Received: TypeAlias = tuple[bytes, bool]


class Wire(Protocol):
    """One accepted websocket. One task receives; one at a time sends."""

    @property
    def ready(self) -> bool:
        """Whether `send_now` may be called: nothing waits before what it would send."""
        ...

    @property
    def grid(self) -> DeadlineGrid | None:
        """Where the deadlines of its messages may be armed; None: nobody looks at any."""
        ...

    async def receive(self) -> Sequence[Received]:
        """Wait for messages; returns all that came in one piece, in order, and nothing when the connection is gone.

        On cancellation: nothing is lost.
        """
        ...

    def send_now(self, payloads: Sequence[bytes], *, text: bool) -> bool:
        """Send these messages without waiting; False: not all of it could be sent, `send` is to follow. See `ready`.

        Never raises for a connection that is gone: `receive` says so.
        """
        ...

    async def send(self, payloads: Sequence[bytes], *, text: bool) -> None:
        """Send these messages, if any, behind what is being sent; returns when all of it is sent.

        Never raises for a connection that is gone.

        On cancellation: some may have been sent, in part as well; nothing more may be.
        """
        ...

    async def close(self, code: int) -> None:
        """Send the close frame, behind everything else; `receive` goes on until the client has answered it.

        On cancellation: it may have been sent.
        """
        ...


class AsgiWire:
    """Over plain ASGI: one message a call, and the server decides how long a call takes."""

    ready = False
    grid = None

    def __init__(self, receive: Receive, send: Send) -> None:
        self._receive = receive
        self._send = send

    async def receive(self) -> Sequence[Received]:
        """As `Wire.receive`; one message at most."""
        message = await self._receive()
        if message["type"] == "websocket.disconnect":
            return ()
        text: str | None = message.get("text")
        return ((text.encode(), True),) if text is not None else ((message.get("bytes") or b"", False),)

    def send_now(self, payloads: Sequence[bytes], *, text: bool) -> bool:
        """Never called, because this is never ``ready``."""
        raise AssertionError("plain ASGI cannot send without waiting")

    async def send(self, payloads: Sequence[bytes], *, text: bool) -> None:  # noqa: ASYNC910  # who sends nothing waits next
        """As `Wire.send`."""
        for payload in payloads:
            message: Message = {"type": "websocket.send"}
            if text:
                message["text"] = payload.decode()
            else:
                message["bytes"] = payload
            await self._send(message)

    async def close(self, code: int) -> None:
        """As `Wire.close`."""
        await self._send({"type": "websocket.close", "code": code, "reason": ""})


def wire_of(scope: Scope, receive: Receive, send: Send) -> Wire:
    """The server's own, where it offers one."""
    own: Wire | None = (scope.get("extensions") or {}).get(EXTENSION)
    return AsgiWire(receive, send) if own is None else own
