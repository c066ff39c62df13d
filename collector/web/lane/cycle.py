# flake8: noqa: ASYNC910
# A request costs one checkpoint, where its connection waits for it; more would cost 2 µs each.
"""One request and its answer: the ``receive`` and ``send`` that the application is given.

Owns: how much of the request the application has, how much of the answer it gave. Refuses to know: how bytes come and
go (the connection does), what happens to the connection afterwards.

Invariants: head and body of an answer that comes in one piece are one write; after the end of the answer, or of the
client, ``receive`` says ``http.disconnect``, and says it at once only once: who asks again waits for the answer's end,
so that a task that asks for ever does not spin. ``send`` after the client has gone does nothing.
"""

import enum
from typing import TYPE_CHECKING

import trio

from collector.web.asgi_types import Message
from collector.web.lane.answer import AnswerHead, plain_answer
from collector.web.lane.request import Refusal, Request

if TYPE_CHECKING:
    from collector.web.lane.connection import Connection

__all__ = ["Cycle", "Stage"]

_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_CHUNKED = b"transfer-encoding: chunked\r\n"


class Stage(enum.IntEnum):
    """How far the answer is."""

    NONE = 0
    STARTED = 1
    """The application has said the head; nothing was written."""
    STREAMING = 2
    """The head was written, and perhaps some of the body."""
    ENDED = 3


_NONE, _STARTED, _STREAMING, _ENDED = Stage


class Cycle:
    """One request of a connection."""

    __slots__ = (
        "_body_told",
        "_chunked",
        "_connection",
        "_continued",
        "_disconnect_told",
        "_head",
        "_left",
        "_over",
        "keep_alive",
        "listening",
        "request",
        "stage",
    )

    def __init__(self, connection: "Connection", request: Request) -> None:
        self._connection = connection
        self.request = request
        self.stage: Stage = _NONE
        self.keep_alive = False
        """What the answer said about the connection."""
        self.listening = False
        """Somebody waits in `receive` for the end of the answer or of the client."""
        self._head: AnswerHead | None = None
        self._body_told = False
        self._continued = not request.expect_continue
        self._disconnect_told = False
        self._over: trio.Event | None = None
        self._chunked = False
        self._left: int | None = None
        """What the answer's Content-Length leaves of a streamed body."""

    def __repr__(self) -> str:
        return f"<Cycle {self.request!r}, answer {self.stage.name.lower()}>"

    async def receive(self) -> Message:
        """ASGI's ``receive``. Not always a checkpoint.

        On cancellation: nothing is lost.
        """
        request, connection = self.request, self._connection
        if not self._body_told:
            while True:
                if request.complete:
                    self._body_told = True
                    return {"type": "http.request", "body": request.take(), "more_body": False}
                if request.pieces:
                    return {"type": "http.request", "body": request.take(), "more_body": True}
                if self.stage == _ENDED or connection.at_end or connection.parser.refusal is not None:
                    return await self._disconnected()
                if not self._continued and self.stage == _NONE:
                    # Nobody reads the body who does not want it: so it is asked for here (RFC 9110, 10.1.1).
                    self._continued = True
                    await connection.write(_CONTINUE)
                await self._read()
        while self.stage != _ENDED and not connection.at_end:
            if connection.read_ahead():
                await self._read()
            else:
                await self._wait_over()
        return await self._disconnected()

    async def _read(self) -> None:
        self.listening = True
        try:
            await self._connection.read()
        finally:
            self.listening = False

    async def _wait_over(self) -> None:
        if self._over is None:
            self._over = trio.Event()
        await self._over.wait()

    async def _disconnected(self) -> Message:
        if self._disconnect_told and self.stage != _ENDED:
            await self._wait_over()
        elif self._disconnect_told:
            await trio.lowlevel.checkpoint()
        self._disconnect_told = True
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        """ASGI's ``send``. A checkpoint only where it has to wait for the client.

        Raises:
            RuntimeError: not the message that is due.
            ValueError: what cannot be sent: a broken field, a body that is not as long as it said.

        On cancellation: the connection is cut.
        """
        kind = message["type"]
        if kind == "http.response.body":
            data = self._encode(message.get("body", b""), more=message.get("more_body", False))
            connection = self._connection
            try:
                if data and not connection.transport.send_now(data):
                    await connection.transport.send(b"")
            except trio.BrokenResourceError:
                connection.broken()
            if self.stage == _ENDED:
                self._tell_over()
        elif kind == "http.response.start" and self.stage == _NONE:
            self._head = AnswerHead(int(message["status"]), message.get("headers", ()))
            self.stage = _STARTED
        else:
            raise RuntimeError(f"{kind} is not what comes now; the answer is {self.stage.name.lower()}")

    def _tell_over(self) -> None:
        if self._over is not None:
            self._over.set()
        if self.listening:
            self._connection.interrupt()

    def _encode(self, body: bytes, *, more: bool) -> bytes:
        """The bytes of one body message; moves the stage on."""
        if self.stage == _STARTED:
            return self._encode_first(body, more=more)
        if self.stage != _STREAMING:
            raise RuntimeError(f"http.response.body is not what comes now; the answer is {self.stage.name.lower()}")
        return self._encode_next(body, more=more)

    def _encode_first(self, body: bytes, *, more: bool) -> bytes:
        head, request, connection = self._head, self.request, self._connection
        assert head is not None
        if not request.complete and connection.parser.refusal is not None:
            return self._encode_refusal(connection.parser.refusal, more=more)
        framing = b""
        bodiless = head.bodiless or request.method == "HEAD"
        if head.length is None and not head.bodiless:
            if not more:
                framing = b"content-length: %d\r\n" % len(body)
            elif request.http_version == "1.1":
                framing = _CHUNKED
                self._chunked = not bodiless
        elif (
            not bodiless and head.length is not None and (len(body) > head.length if more else len(body) != head.length)
        ):
            # Before the stage moves on: nothing was written, so this can be answered.
            raise ValueError(f"content-length is {head.length}, the body has {len(body)} bytes")
        # Without a length and without chunks the end of the connection is the end of the body (RFC 9112, 6.3).
        endless = not framing and head.length is None and not bodiless
        # A client that waits to be told to go on may send its body or not; nobody could tell which (RFC 9110, 10.1.1).
        waits = not self._continued and not request.complete
        self.keep_alive = request.keep_alive and not (head.close or endless or waits) and connection.may_go_on()
        date, http_1_0 = connection.clock.date, request.http_version == "1.0"
        if not more:
            self.stage = _ENDED
            return head.encode(date, framing, b"" if bodiless else body, keep_alive=self.keep_alive, http_1_0=http_1_0)
        self.stage = _STREAMING
        if bodiless:
            # The application may go on; nothing of it is written.
            self._head = None
            body = b""
        else:
            self._left = head.length
            body = self._encode_next(body, more=True)
        return head.encode(date, framing, body, keep_alive=self.keep_alive, http_1_0=http_1_0)

    def _encode_refusal(self, refusal: Refusal, *, more: bool) -> bytes:
        """The body has proved broken: nobody is told that it was taken, whatever the application says of it."""
        self._head = None
        self.keep_alive = False
        self.stage = _STREAMING if more else _ENDED
        return plain_answer(refusal.status, refusal.reason, self._connection.clock.date)

    def _encode_next(self, body: bytes, *, more: bool) -> bytes:
        if not more:
            self.stage = _ENDED
        if self._head is None:
            return b""
        if self._left is not None:
            self._left -= len(body)
            if self._left < 0 or (self._left and not more):
                self.stage = _STREAMING
                raise ValueError("the body is not as long as content-length said")
        if not self._chunked:
            return body
        chunk = b"%x\r\n%b\r\n" % (len(body), body) if body else b""
        return chunk if more else chunk + b"0\r\n\r\n"
