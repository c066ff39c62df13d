"""One websocket session of the subprotocol ``collector.v1``.

Owns: the handshake, the order of messages, credit, draining, how a session ends. Refuses to know: how events are parsed
(the dialects) and sent (ingest), who waits for them (`collector.web.websocket.waiters`), and which server carries the
frames (`collector.web.websocket.wire`).

    session    reads; parses and queues what one read brought, synchronously, in order of arrival (trio shuffles tasks)
     ├[waiters] one for the messages of one read that have the same deadline, in a request nursery of its own
     ├ writer   started when something cannot be sent at once: under plain ASGI always, else for a client that is slow
     └ end      started when the session closes: cuts a client that does not answer

Invariants: records are queued in the order of their messages; every message is answered once and its credit given back;
the session reads until the connection is gone, also while it closes, because the server must never wait for us
(design §7, the leak); a client that hangs up is not a timeout: what came in whole is worked to its deadline.
"""

from collections.abc import Sequence

import trio

from collector.dialects.base import ClientFault, Encoding
from collector.ingest.enqueue import FailedInWork
from collector.ingest.verdict import Status, Verdict, first_word
from collector.lifecycle import Phase
from collector.log import get_logger
from collector.web.admission import Shed
from collector.web.answers import plain, retry_after_s
from collector.web.asgi_types import Message, Receive, Scope, Send
from collector.web.handle import ConnectionHandle, handle_of
from collector.web.head import RequestHead
from collector.web.services import Services
from collector.web.websocket.frames import PATH, SUBPROTOCOL, FrameFault, ServerFrame, TrackFrame, decode_track, encode
from collector.web.websocket.message import Intake, TrackMessage
from collector.web.websocket.outbox import Outbox
from collector.web.websocket.waiters import Waiters
from collector.web.websocket.wire import Received, Wire, wire_of

__all__ = ["serve_websocket"]

log = get_logger("websocket")

#: What is counted for a message that ended so; `Status.word` makes it anew.
_WORDS = {status: status.word for status in Status}

#: How long a client may take to answer our close frame before its connection is cut.
CLOSE_WAIT_S = 2.0

#: Close codes. Source: RFC 6455 section 7.4.1, and the IANA registry for 1012.
PROTOCOL_ERROR, TOO_BIG, SERVICE_RESTART = 1002, 1009, 1012


async def serve_websocket(services: Services, scope: Scope, receive: Receive, send: Send) -> None:
    """Serve one websocket connection from its handshake to its end.

    On cancellation: messages that were not sealed are withdrawn; the server closes the connection.
    """
    await receive()  # websocket.connect
    head = services.heads.read(scope)
    offered = list(scope.get("subprotocols") or ())
    if head.path != PATH:
        await _refuse(send, 404, f"not found; websockets are served at {PATH}")
    elif offered and SUBPROTOCOL not in offered:
        await _refuse(send, 400, f"no common subprotocol: this server speaks {SUBPROTOCOL}")
    elif services.lifecycle.phase >= Phase.DRAINING:
        await _refuse(send, 503, "draining")
    else:
        accept: Message = {"type": "websocket.accept", "subprotocol": SUBPROTOCOL if offered else None, "headers": []}
        await send(accept)
        await Session(services, head, wire_of(scope, receive, send), handle_of(scope)).run()


async def _refuse(send: Send, status: int, text: str) -> None:
    answer = plain(status, text)
    headers = [
        (b"content-type", answer.content_type.encode()),
        (b"content-length", str(len(answer.body)).encode()),
        (b"connection", b"close"),
    ]
    if status == 503:
        headers.append((b"retry-after", str(retry_after_s()).encode()))
    await send({"type": "websocket.http.response.start", "status": status, "headers": headers})
    await send({"type": "websocket.http.response.body", "body": answer.body})


class Session:
    """One accepted websocket."""

    def __init__(self, services: Services, head: RequestHead, wire: Wire, handle: ConnectionHandle | None) -> None:
        self._services = services
        self._head = head
        self._wire = wire
        self._handle = handle
        self._limits = services.config.limits
        self._intake = Intake(services, head)
        self._outbox = Outbox()
        self._encoding: Encoding = "json"
        self._last_id = 0
        self._used_bytes = 0
        self._messages = 0
        self._close_code: int | None = None
        self._ending = False
        self._closing = False
        self._writing = False
        self._gone = trio.Event()

    def __repr__(self) -> str:
        state = "gone" if self._gone.is_set() else "ending" if self._ending else "open"
        return f"<Session {self._head.request_id} {state}, {self._messages} messages in work, {self._used_bytes} bytes>"

    async def run(self) -> None:
        """Live until the connection is gone and every message in work has its outcome.

        On cancellation: messages in work are withdrawn where they still can be.
        """
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            self._waiters = Waiters(nursery, self._wire.grid, self._settle, self._message_failed)
            self._hello()
            forget_drain = self._services.lifecycle.when_reached(Phase.DRAINING, self._drain)
            try:
                await self._read()
            finally:
                forget_drain()
                self._gone.set()
                self._end(None)
                self._waiters.close()
                self._outbox.wake()

    def _hello(self) -> None:
        hello = {
            "op": "hello",
            "v": 1,
            "max_bytes": self._limits.websocket_message_bytes,
            "credit": self._limits.websocket_credit_bytes,
            "ping_s": self._services.config.http.ping_s,
        }
        self._outbox.say(hello)
        try:
            self._intake.read_query()
        except ClientFault as fault:
            self._outbox.say({"op": "error", "code": fault.code, "message": fault.message})
            self._end(PROTOCOL_ERROR)
        self._flush()

    async def _read(self) -> None:
        while received := await self._wire.receive():
            if self._closing:
                continue
            self._take(received)
            if not self._outbox.empty:
                self._flush()
                if self._outbox.crowded:
                    await self._outbox.wait_room()

    # What is to be sent

    def _flush(self) -> None:
        """Send what there is to be said, or have it sent."""
        if self._gone.is_set():
            return
        outbox, wire = self._outbox, self._wire
        if wire.ready and not self._closing:
            payloads: Sequence[bytes] | None = outbox.take_usual() if self._encoding == "json" else None
            if payloads is None:
                payloads = self._encoded(outbox.take())
            sent = not payloads or wire.send_now(payloads, text=self._encoding == "json")
            if sent and not outbox.due:
                return
        if self._writing:
            outbox.wake()
        else:
            self._writing = True
            self._nursery.start_soon(self._write, name="websocket: writer")

    async def _write(self) -> None:  # noqa: ASYNC910  # it is started with something to send
        outbox, wire = self._outbox, self._wire
        while not self._gone.is_set():
            closing = self._closing
            payloads = self._encoded(outbox.take(everything=closing))
            if payloads or not wire.ready:
                await wire.send(payloads, text=self._encoding == "json")
            if closing:  # nothing may be sent after this, so the writer sends it and ends
                await wire.close(self._close_code or 1000)
                return
            await outbox.wait_something()

    def _encoded(self, frames: Sequence[ServerFrame]) -> list[bytes]:
        return [encode(frame, self._encoding) for frame in frames]

    # How it ends

    def _drain(self) -> None:
        self._outbox.say({"op": "drain", "retry_after_s": retry_after_s()})
        self._end(SERVICE_RESTART)
        self._flush()

    def _end(self, code: int | None) -> None:
        """Take no more messages; close with ``code`` when those in work are answered (None: the client is gone)."""
        if not self._ending:
            self._ending = True
            self._close_code = code
            self._close_if_done()

    def _close_if_done(self) -> None:
        if self._closing or self._gone.is_set() or (self._messages and self._close_code != TOO_BIG):
            return
        self._closing = True
        self._nursery.start_soon(self._cut, name="websocket: end")
        self._flush()

    async def _cut(self) -> None:
        """Give the client time to answer our close frame, then cut the connection."""
        with trio.move_on_after(CLOSE_WAIT_S):
            await self._gone.wait()
        if not self._gone.is_set() and self._handle is not None:
            self._handle.abort()

    # The messages of one read

    def _take(self, received: Sequence[Received]) -> None:
        """Everything up to the open deliveries, without a checkpoint: messages are queued in order of arrival."""
        self._intake.begin_read()
        if len(received) == 1:
            ((payload, text),) = received
            alone = self._on_frame(payload, "json" if text else "msgpack")
            if alone is not None:
                self._waiters.wait_for((alone,), alone.deadline)
            return
        together: dict[float, list[TrackMessage]] = {}
        for payload, text in received:
            if self._closing:
                break
            message = self._on_frame(payload, "json" if text else "msgpack")
            if message is not None:
                together.setdefault(message.deadline, []).append(message)
        for deadline, messages in together.items():
            self._waiters.wait_for(messages, deadline)

    def _on_frame(self, data: bytes, encoding: Encoding) -> TrackMessage | None:
        size = len(data)
        if size > self._limits.websocket_message_bytes:
            self._end(TOO_BIG)
            return None
        self._encoding = encoding
        try:
            frame = decode_track(data, encoding)
        except FrameFault as fault:
            if fault.id is None:
                self._outbox.say({"op": "error", "code": fault.code, "message": fault.message})
            elif self._follows(fault.id):
                self._services.ledger.unparsed(size)
                self._named(fault.id, size, "rejected", code=fault.code, message=fault.message)
            return None
        if not self._follows(frame.id):
            return None
        if self._ending:
            self._busy(frame.id, size, "draining", "this connection is about to close")
        elif self._used_bytes + size > self._limits.websocket_credit_bytes:
            self._busy(frame.id, size, "credit", "sent more than the credit that was left")
        else:
            return self._track(frame, size, encoding)
        return None

    def _follows(self, id_: int) -> bool:
        """Take the next message's id; one that does not follow the last ends the session."""
        if id_ == self._last_id + 1:
            self._last_id = id_
            return True
        if self._close_code is None:
            message = f"id {id_} does not follow {self._last_id}: ids start at 1 and grow by one"
            self._outbox.say({"op": "error", "code": "invalid_id", "message": message})
        self._end(PROTOCOL_ERROR)
        return False

    def _track(self, frame: TrackFrame, size: int, encoding: Encoding) -> TrackMessage | None:
        services = self._services
        try:
            message = self._intake.open(frame, size, encoding)
        except Shed as shed:
            services.monitor.shed(shed.reason)
            self._busy(frame.id, size, shed.reason, str(shed))
        except ClientFault as fault:
            services.ledger.unparsed(size)
            self._named(frame.id, size, "rejected", code=fault.code, message=fault.message)
        except Exception as error:  # the rim of one request: a bug is logged and answered, the session goes on
            log.exception("a message failed", request_id=self._head.request_id, id=frame.id)
            services.monitor.error("message")
            if not isinstance(error, FailedInWork):
                services.ledger.unparsed(size)
            self._named(frame.id, size, "unknown", code="internal", message="internal error")
        else:
            self._used_bytes += size
            self._messages += 1
            return message
        return None

    def _message_failed(self) -> None:
        self._services.monitor.error("message")

    # One message's end

    def _settle(self, messages: Sequence[TrackMessage]) -> None:
        """These are not waited for any more: their answers go into the outbox."""
        monitor = self._services.monitor
        now = self._services.clock()
        for message in messages:
            verdict = message.work.settle()
            message.reservation.close()
            size = message.size_bytes
            self._used_bytes -= size
            self._messages -= 1
            monitor.stage("acknowledge", now - message.started)
            status = verdict.worst
            if status <= Status.SPOOLED:
                self._outbox.settled(message.id, size, status, now)
                monitor.websocket_ack(_WORDS[status])
            else:
                self._answer(message.id, size, verdict, message.single)
        if self._ending:
            self._close_if_done()
        self._flush()

    def _answer(self, id_: int, size: int, verdict: Verdict, single: bool) -> None:
        status, counts = verdict.worst, verdict.counts
        members: dict[str, object] = {"code": first_word(verdict.reason).lower(), "message": verdict.reason}
        if status is Status.REJECTED and verdict.fault is not None:
            members = {"code": verdict.fault.code, "message": verdict.fault.message}
        if not single:
            members["counts"] = {
                "delivered": counts.delivered + counts.deduplicated,
                "spooled": counts.spooled,
                "rejected": counts.rejected,
                "not_sent": counts.not_sent,
                "unknown": counts.unknown,
            }
        self._outbox.named(id_, size, status.word, members)
        self._services.monitor.websocket_ack(status.word)

    def _busy(self, id_: int, size: int, code: str, message: str) -> None:
        self._services.ledger.unparsed(size)
        self._named(id_, size, "busy", code=code, message=message)

    def _named(self, id_: int, size: int, status: str, *, code: str, message: str) -> None:
        self._outbox.named(id_, size, status, {"code": code, "message": message})
        self._services.monitor.websocket_ack(status)
