"""Reading one request's body: bounded, under admission, inflated on the way; or throwing it away.

Owns: how far the body has been read. Refuses to know: what it says, who answers.

Invariants: not more than the limit plus one chunk is ever held, as sent and inflated alike; admission grows before
memory does; `complete` is true exactly when the server has handed over the body's end, which is when a connection can
be used again.
"""

from collections.abc import Sequence

import trio
from msgspec import Struct

from collector.config import LimitsConfig
from collector.dialects.base import ClientFault
from collector.web.admission import Reservation
from collector.web.asgi_types import Message, Receive, Send
from collector.web.inflate import GZIP_MAGIC, Inflater

__all__ = ["ClientGone", "RequestBody"]

#: Inflated bytes between two checkpoints: ~1 ms of work.
CHECKPOINT_BYTES = 256 * 1024


class ClientGone(Exception):
    """The client hung up before its body was complete: nobody is answered, nothing is enqueued."""


class RequestBody(Struct, eq=False):
    """The body of one request, read at most once."""

    receive: Receive
    whole: bytes | None = None
    """The body, where the server has all of it already and nobody has taken it yet."""
    complete: bool = False
    gone: bool = False
    read_bytes: int = 0

    def __repr__(self) -> str:
        state = "gone" if self.gone else "complete" if self.complete else "open"
        return f"<RequestBody {state}, {self.read_bytes} bytes read>"

    async def _chunk(self) -> bytes:
        """The next piece as it was sent; empty at the end, or when an empty piece was sent.

        On cancellation: nothing is lost, the server still holds the piece.
        """
        if self.whole is not None:
            return self._take(self.whole)  # noqa: ASYNC910  # there is nothing to wait for
        message = await self.receive()
        if message["type"] == "http.disconnect":
            self.gone = True
            raise ClientGone
        chunk: bytes = message.get("body", b"")
        self.read_bytes += len(chunk)
        self.complete = not message.get("more_body", False)
        return chunk

    def _take(self, whole: bytes) -> bytes:
        self.whole = None
        self.read_bytes = len(whole)
        self.complete = True
        return whole

    def at_hand(self, reservation: Reservation, limits: LimitsConfig) -> bytes | None:
        """The body, where the server has all of it and it is not compressed; None: `read` it. Raises as that."""
        whole = self.whole
        if whole is None or whole.startswith(GZIP_MAGIC):
            return None
        size = len(whole)
        if size > limits.body_bytes:
            self._take(whole)
            raise _too_large(limits)
        reservation.grow_to(size)
        return self._take(whole)

    async def read(self, reservation: Reservation, inflater: Inflater | None, limits: LimitsConfig) -> bytes:
        """Read and inflate the whole body.

        Returns:
            The body as the client meant it. gzip is recognised without its header too: no JSON starts like it.

        Raises:
            ClientGone: hung up before the end.
            ClientFault: larger than ``limits.body_bytes``, or broken compression.
            Shed: admission has no room for it to grow.

        On cancellation: what was read is dropped; the reservation is the caller's to close.
        """
        pieces: list[bytes] = []
        size = since_checkpoint = 0
        while not self.complete:
            chunk = await self._chunk()
            if self.read_bytes > limits.body_bytes:
                raise _too_large(limits)
            if inflater is None and self.read_bytes == len(chunk) and chunk.startswith(GZIP_MAGIC):
                inflater = Inflater("gzip")
            for piece in (chunk,) if inflater is None else inflater.feed(chunk):
                size += len(piece)
                if size > limits.body_bytes:
                    raise _too_large(limits)
                reservation.grow_to(size)
                pieces.append(piece)
                since_checkpoint += len(piece)
                if inflater is not None and since_checkpoint > CHECKPOINT_BYTES:
                    since_checkpoint = 0
                    await trio.lowlevel.checkpoint()
        if inflater is not None and self.read_bytes:
            inflater.finish()
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)  # noqa: ASYNC910  # a body is at least one message

    async def discard(self, limits: LimitsConfig) -> None:  # noqa: ASYNC910  # a complete body needs no waiting
        """Read what is left and throw it away, for at most ``discard_bytes`` and ``discard_s``.

        Closing on an unread body resets the connection, and nginx says 502 then; so a refused client is listened to for
        a while first. `complete` tells afterwards whether it was enough to keep the connection.

        On cancellation: the rest is unread.
        """
        until = self.read_bytes + limits.discard_bytes
        with trio.move_on_after(limits.discard_s):  # noqa: ASYNC912  # as above
            try:
                while not self.complete and not self.gone and self.read_bytes <= until:
                    await self._chunk()
            except ClientGone:
                return  # noqa: ASYNC910  # receive() was one

    async def park(self) -> None:
        """Take whatever the server still has for us, for ever: it must never wait for us while we answer.

        Non-obvious: Hypercorn's stock stack holds ten messages. If the answer is sent while they are full, the reader
        waits for room, the end of the answer waits to say ``http.disconnect``, and neither ever ends (design §7).

        On cancellation: ends; used only under the block that writes the answer.
        """
        while True:
            await self.receive()


async def send_parked(body: RequestBody, send_all: Send, messages: Sequence[Message]) -> None:
    """Send ``messages``; while the body is unread, with a task parked in ``receive()`` until the last one was taken.

    On cancellation: the answer is cut off; the server closes the connection.
    """
    if body.complete or body.gone:
        for message in messages:
            await send_all(message)
        return  # noqa: ASYNC910  # at least two messages
    async with trio.open_nursery() as nursery:
        nursery.start_soon(body.park, name="web: parked in receive()")
        for message in messages:
            await send_all(message)
        nursery.cancel_scope.cancel(reason="the answer is sent")


def _too_large(limits: LimitsConfig) -> ClientFault:
    return ClientFault("too_large", f"the body is larger than {limits.body_bytes} bytes")
