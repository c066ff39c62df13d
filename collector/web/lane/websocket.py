# flake8: noqa: ASYNC910
# A message costs one checkpoint, where its connection waits for it; more would cost 2 µs each.
"""One websocket of the lane: in the connection's own task, without a task or a timer beside it.

Owns: the order of the handshake, what is read and written when, the closing of both sides. Refuses to know: frames
(`collector.web.lane.websocket_protocol`), the subprotocol, when a ping is due (`collector.web.lane.websocket_pings`).

The application runs inline and its `receive` reads the socket, so what nobody takes stays in the kernel and slows the
client down. It is plain ASGI; who knows the extension `collector.web.websocket.wire.EXTENSION` gets all messages of one
read at once, and may send without a checkpoint.

Invariants: one task at a time waits for the socket to take bytes, and everybody who has to wait waits for it; who pings
without reading is not read; a connection that ended is read (and what comes is dropped) until the client closes it, at
most `CLOSE_WAIT_S`, because closing it with bytes unread resets it, and the client would not see why.

Where it differs from the stock server: a message that comes before the handshake is answered waits, within bounds.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from math import inf

import trio

from collector.ingest.nursery import DeadlineGrid
from collector.log import get_logger
from collector.web.asgi_types import AsgiApp, Message, Scope
from collector.web.lane.answer import AnswerHead, plain_answer
from collector.web.lane.transport import Transport
from collector.web.lane.websocket_protocol import CloseCode, Frames, Handshake, server_frame
from collector.web.websocket.wire import EXTENSION, Received

__all__ = ["CLOSE_WAIT_S", "QUIET_S", "LaneWebsocket", "WebsocketSettings"]

log = get_logger("websocket")

#: How long a client may take to close its side when we have closed ours.
CLOSE_WAIT_S = 2.0

#: A client that sends nothing for so long has read that we do not listen any more, or waits for our end.
QUIET_S = 0.2

#: What may come before the handshake is answered. Clients wait for that answer.
EARLY_MAX_BYTES = 64 * 1024

PING = b"\x89\x00"
"""Empty. Source: RFC 6455 section 5.5.2."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WebsocketSettings:
    """Of all websockets of one server."""

    message_bytes: int
    """The most that one message may have, inflated."""
    ping_s: float
    deflate: bool


class LaneWebsocket:
    """One connection, from its handshake to its end; also the `collector.web.websocket.wire.Wire` of its session."""

    __slots__ = (
        "_accepted",
        "_answer_by",
        "_connected",
        "_drained",
        "_early",
        "_frames",
        "_handshake",
        "_queue",
        "_refusal",
        "_settings",
        "_transport",
        "_woken",
        "grid",
    )

    def __init__(
        self,
        transport: Transport,
        handshake: Handshake,
        early: bytes,
        settings: WebsocketSettings,
        grid: DeadlineGrid | None,
    ) -> None:
        self._transport = transport
        self._handshake = handshake
        self._settings = settings
        self._frames = Frames(settings.message_bytes, handshake)
        self._early = early
        self._answer_by = inf
        """When the client must have answered our close frame."""
        self._connected = False
        self._accepted = False
        self._refusal: list[bytes] | None = None
        """The answer that refuses the handshake, as far as it was given."""
        self._queue: deque[Received] | None = None
        """What was read and not taken yet; only for plain ASGI."""
        self._drained: trio.Event | None = None
        self._woken = False
        self.grid = grid

    def __repr__(self) -> str:
        state = "accepted" if self._accepted else "refused" if self._refusal is not None else "connecting"
        return f"<LaneWebsocket {state}, {self._frames!r}>"

    async def run(self, app: AsgiApp, scope: Scope) -> None:
        """Serve it with ``app``; ``scope`` is that of its request. Returns when the connection is to be closed.

        On cancellation: the connection is to be aborted.
        """
        scope = {
            **scope,
            "type": "websocket",
            "scheme": "wss" if scope.get("scheme") == "https" else "ws",
            "subprotocols": self._handshake.subprotocols,
            "extensions": {"websocket.http.response": {}, EXTENSION: self},
        }
        scope.pop("method", None)
        code = CloseCode.NORMAL
        try:
            await app(scope, self._asgi_receive, self._asgi_send)
        except Exception:  # the rim of one connection: a bug must not end the neighbours'
            log.exception("a websocket failed")
            code = CloseCode.INTERNAL_ERROR
        if self._accepted:
            await self._close(code)
        elif self._refusal is None:
            self._put(plain_answer(500, "internal error", b""))
        await self._finish()

    async def _finish(self) -> None:
        """Let the client read our last words; who had the time to answer our close frame gets no more."""
        with trio.move_on_at(min(self._answer_by, trio.current_time() + CLOSE_WAIT_S)):
            await self._drain()
            while self._accepted and not self._frames.ended:
                await self._read()
            if self._accepted and not self._frames.client_closed:
                await self._discard()
            self._transport.end()
            try:
                while await self._transport.receive():
                    pass
            except trio.BrokenResourceError:
                pass

    async def _discard(self) -> None:
        """Read on after we have ended it, until nothing comes any more.

        Our end of the connection would have a proxy close the client's as well, on bytes that it has not read yet: that
        is a reset, and our close frame is lost with it.
        """
        quiet = False
        while not quiet:
            with trio.move_on_after(QUIET_S) as scope:
                try:
                    quiet = not await self._transport.receive()
                except trio.BrokenResourceError:
                    return
            quiet = quiet or scope.cancelled_caught

    # As a wire.

    @property
    def ready(self) -> bool:
        """As `Wire.ready`."""
        return self._drained is None and not self._transport.pending

    async def receive(self) -> Sequence[Received]:
        """As `Wire.receive`."""
        frames = self._frames
        while not frames.ended:
            if not self._accepted or self._woken or self._early or self._answer_by < inf:
                messages = await self._read()
            else:
                # As `_read`, for what nearly always comes.
                try:
                    data = await self._transport.receive()
                except trio.BrokenResourceError:
                    frames.lost()
                    break
                if not data:
                    if not self._woken:
                        frames.lost()
                    continue
                messages = frames.receive(data)
                if frames.to_send or frames.ended:
                    await self._after_read()
            if messages:
                return messages
        return ()

    def send_now(self, payloads: Sequence[bytes], *, text: bool) -> bool:
        """As `Wire.send_now`."""
        if not self._frames.open:
            return True
        return self._put(b"".join([server_frame(payload, text=text) for payload in payloads]))

    async def send(self, payloads: Sequence[bytes], *, text: bool) -> None:
        """As `Wire.send`."""
        if payloads:
            self.send_now(payloads, text=text)
        await self._drain()

    async def close(self, code: int) -> None:
        """As `Wire.close`."""
        await self._close(code)

    # Reading.

    async def _read(self) -> Sequence[Received]:
        """One read of the socket, and the messages that are whole with it."""
        frames = self._frames
        if self._early and self._accepted:
            early, self._early = self._early, b""
            messages = frames.receive(early)
        else:
            data = await self._bytes()
            if not data:
                return ()
            if not self._accepted:
                self._keep_early(data)
                return ()
            messages = frames.receive(data)
        await self._after_read()
        return messages

    async def _after_read(self) -> None:
        if self._frames.to_send:
            await self._flush()
        if self._frames.client_closed:
            self._transport.end()

    async def _bytes(self) -> bytes:
        """What the client has sent; nothing when it is gone, or when there is something else to do."""
        try:
            if self._woken:
                data = b""
            elif self._answer_by == inf:
                data = await self._transport.receive()
            else:
                data = b""
                with trio.move_on_at(self._answer_by):
                    data = await self._transport.receive()
        except trio.BrokenResourceError:
            data = b""
            self._woken = False
        if self._woken:
            self._woken = False
            await self._drain()
        elif not data:
            self._frames.lost()
        return data

    def _keep_early(self, data: bytes) -> None:
        self._early += data
        if len(self._early) > EARLY_MAX_BYTES:
            self._frames.lost()
            self._transport.abort()

    # Writing.

    def ping(self) -> None:
        """Send a ping, unless something waits to be sent: then the client is not reading. Synchronous."""
        if self._accepted and self._frames.open and self.ready and not self._put(PING):
            self._wake()

    def _wake(self) -> None:
        """Have who reads look at what else there is: a ping to be sent, frames that were early."""
        self._woken = True
        self._transport.interrupt()

    def _put(self, data: bytes) -> bool:
        try:
            return self._transport.send_now(data)
        except trio.BrokenResourceError:
            self._frames.lost()
            self._transport.abort()  # who reads hears of it
            return True

    async def _close(self, code: int, reason: str = "") -> None:
        if self._frames.open:
            self._frames.close(code, reason)
            self._answer_by = trio.current_time() + CLOSE_WAIT_S
            self._wake()
        await self._flush()

    async def _flush(self) -> None:
        """Send what the frames have to say, behind everything else."""
        frames = self._frames
        if frames.to_send:
            data = b"".join(frames.to_send)
            frames.to_send.clear()
            self._put(data)
        await self._drain()

    async def _drain(self) -> None:
        """Wait until everything is sent, or the connection is gone."""
        if self._drained is not None:
            await self._drained.wait()
            return
        if not self._transport.pending:
            return
        drained = self._drained = trio.Event()
        try:
            await self._transport.send(b"")
        except trio.BrokenResourceError:
            self._frames.lost()
        finally:
            self._drained = None
            drained.set()

    # As ASGI.

    async def _asgi_receive(self) -> Message:
        if not self._connected:
            self._connected = True
            await trio.lowlevel.checkpoint()
            return {"type": "websocket.connect"}
        if self._queue is None:
            self._queue = deque()
        while not self._queue:
            if self._frames.ended:
                await trio.lowlevel.checkpoint()
                return {"type": "websocket.disconnect", "code": self._frames.close_code}
            self._queue.extend(await self.receive())
        payload, text = self._queue.popleft()
        if text:
            return {"type": "websocket.receive", "text": payload.decode(), "bytes": None}
        return {"type": "websocket.receive", "text": None, "bytes": payload}

    async def _asgi_send(self, message: Message) -> None:
        match message["type"]:
            case "websocket.accept" if not self._accepted and self._refusal is None:
                response = self._handshake.response(message.get("subprotocol"), list(message.get("headers") or ()))
                self._put(response)
                self._accepted = True
                if self._early:
                    self._wake()
                await self._drain()
            case "websocket.send" if self._accepted:
                text = message.get("text")
                payload = text.encode() if text is not None else message["bytes"]
                await self.send((payload,), text=text is not None)
            case "websocket.close" if self._accepted:
                await self._close(message.get("code") or CloseCode.NORMAL, message.get("reason") or "")
            case "websocket.close" if self._refusal is None:
                self._refusal = []
                self._put(plain_answer(403, "forbidden", b""))
                await self._drain()
            case "websocket.http.response.start" if not self._accepted and self._refusal is None:
                head = AnswerHead(message["status"], message.get("headers") or ())
                self._refusal = [head.encode(b"", b"", b"", keep_alive=False, http_1_0=False)]
            case "websocket.http.response.body" if self._refusal is not None:
                self._refusal.append(message.get("body") or b"")
                if not message.get("more_body"):
                    self._put(b"".join(self._refusal))
                    await self._drain()
            case other:
                raise RuntimeError(f"{other} is not expected here: {self!r}")
        await trio.lowlevel.checkpoint()
