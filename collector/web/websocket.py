"""One websocket session of the subprotocol ``collector.v1``.

Owns: the handshake, the order of messages, credit, draining, how a session ends. Refuses to know: how events are parsed
(the dialects) and sent (ingest), and which server carries the frames.

    session ─┬ reader   parses and queues each message synchronously, in order of arrival (trio shuffles tasks)
             ├ writer   sends what the outbox gathers
             ├ drain    waits for the process to drain
             └[waiters] one task a message, each with its own request nursery and deadline

Invariants: records are queued in the order of their messages; every message is answered once and its credit given back;
the reader reads until the connection is gone, also while the session closes, because the server must never wait for us
(design §7, the leak); a client that hangs up is not a timeout: what came in whole is worked to its deadline.
"""

import trio

from collector.dialects.base import ClientFault, Dialect, DialectRequest, Encoding, Parsed
from collector.ingest.enqueue import Patience, Work
from collector.ingest.nursery import FreshNursery
from collector.ingest.verdict import Status, Verdict, first_word
from collector.lifecycle import Phase
from collector.log import get_logger
from collector.web.admission import Reservation, Shed
from collector.web.answers import plain, retry_after_s
from collector.web.asgi_types import Message, Receive, Scope, Send
from collector.web.context import context_of
from collector.web.handle import ConnectionHandle, handle_of
from collector.web.head import RequestHead, key_of_authorization, timeout_of
from collector.web.services import Services, now_ms
from collector.web.websocket_frames import PATH, SUBPROTOCOL, FrameFault, TrackFrame, decode_track, encode
from collector.web.websocket_outbox import Outbox

__all__ = ["serve_websocket"]

log = get_logger("websocket")

#: A message in work holds a task, a nursery and a delivery beside its bytes; admission counts them as so much.
MESSAGE_COST_BYTES = 4096

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
        await Session(services, head, receive, send, handle_of(scope)).run()


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

    def __init__(
        self, services: Services, head: RequestHead, receive: Receive, send: Send, handle: ConnectionHandle | None
    ) -> None:
        self._services = services
        self._head = head
        self._receive = receive
        self._send = send
        self._handle = handle
        self._limits = services.config.limits
        self._query: dict[str, str] = {}
        self._outbox = Outbox()
        self._encoding: Encoding = "json"
        self._last_id = 0
        self._used_bytes = 0
        self._messages = 0
        self._close_code: int | None = None
        self._closing = False
        self._ending = trio.Event()
        self._gone = trio.Event()

    def __repr__(self) -> str:
        state = "gone" if self._gone.is_set() else "ending" if self._ending.is_set() else "open"
        return f"<Session {self._head.request_id} {state}, {self._messages} messages in work, {self._used_bytes} bytes>"

    async def run(self) -> None:
        """Live until the connection is gone and every message in work has its outcome.

        On cancellation: messages in work are withdrawn where they still can be.
        """
        try:
            self._query = self._head.query()
        except ClientFault as fault:
            self._outbox.say({"op": "error", "code": fault.code, "message": fault.message})
            self._end(PROTOCOL_ERROR)
        async with trio.open_nursery() as nursery:
            async with trio.open_nursery() as waiters:
                # The reader starts waiters only until `_ending`, before which the inner block does not end.
                nursery.start_soon(self._read, waiters, name="websocket: reader")  # noqa: ASYNC111
                nursery.start_soon(self._write, name="websocket: writer")
                nursery.start_soon(self._drain, name="websocket: drain")
                await self._ending.wait()
                if self._close_code == TOO_BIG:
                    await self._close()
            if not self._gone.is_set():
                await self._close()
            nursery.cancel_scope.cancel(reason="the session has ended")

    def _end(self, code: int | None) -> None:
        """Take no more messages; close with ``code`` when those in work are answered (None: the client is gone)."""
        if not self._ending.is_set():
            self._close_code = code
            self._ending.set()

    async def _close(self) -> None:
        """Have the writer send what is left and the close frame, and wait until the server has seen the end."""
        self._closing = True
        self._outbox.wake()
        with trio.move_on_after(CLOSE_WAIT_S):
            await self._gone.wait()
        if not self._gone.is_set() and self._handle is not None:
            self._handle.abort()
        await self._gone.wait()

    # The session's tasks

    async def _read(self, waiters: trio.Nursery) -> None:
        # The nursery is a parameter because a message's work outlives the reading of it, and the session waits for
        # both.
        while True:
            message = await self._receive()
            if message["type"] == "websocket.disconnect":
                break
            if self._closing:
                continue
            text = message.get("text")
            if text is not None:
                self._on_frame(text.encode(), "json", waiters)
            else:
                self._on_frame(message.get("bytes") or b"", "msgpack", waiters)
            await self._outbox.wait_room()
        self._gone.set()
        self._end(None)

    async def _write(self) -> None:
        await self._send(
            encode(
                {
                    "op": "hello",
                    "v": 1,
                    "max_bytes": self._limits.websocket_message_bytes,
                    "credit": self._limits.websocket_credit_bytes,
                    "ping_s": self._services.config.http.ping_s,
                },
                "json",
            )
        )
        while not self._gone.is_set():
            await self._outbox.wait_something()
            closing = self._closing
            for frame in self._outbox.take(everything=closing):
                await self._send(encode(frame, self._encoding))
            if closing:  # nothing may be sent after this, so the writer sends it and ends
                await self._send({"type": "websocket.close", "code": self._close_code or 1000, "reason": ""})
                return

    async def _drain(self) -> None:
        await self._services.lifecycle.wait_reached(Phase.DRAINING)
        self._outbox.say({"op": "drain", "retry_after_s": retry_after_s()})
        self._end(SERVICE_RESTART)

    # One message

    def _on_frame(self, data: bytes, encoding: Encoding, waiters: trio.Nursery) -> None:
        """Everything up to the open delivery, without a checkpoint: messages are queued in order of arrival."""
        size = len(data)
        if size > self._limits.websocket_message_bytes:
            self._end(TOO_BIG)
            return
        self._encoding = encoding
        try:
            frame = decode_track(data, encoding)
        except FrameFault as fault:
            if fault.id is None:
                self._outbox.say({"op": "error", "code": fault.code, "message": fault.message})
            elif self._follows(fault.id):
                self._services.ledger.unparsed(size)
                self._named(fault.id, size, "rejected", code=fault.code, message=fault.message)
            return
        if not self._follows(frame.id):
            return
        if self._ending.is_set():
            self._busy(frame.id, size, "draining", "this connection is about to close")
        elif self._used_bytes + size > self._limits.websocket_credit_bytes:
            self._busy(frame.id, size, "credit", "sent more than the credit that was left")
        else:
            self._track(frame, size, encoding, waiters)

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

    def _track(self, frame: TrackFrame, size: int, encoding: Encoding, waiters: trio.Nursery) -> None:
        services = self._services
        reservation: Reservation | None = None
        try:
            reservation = services.admission.reserve(size + MESSAGE_COST_BYTES)
            work, single, deadline = self._open(frame, encoding, reservation)
        except Shed as shed:
            services.monitor.shed(shed.reason)
            self._busy(frame.id, size, shed.reason, str(shed))
        except ClientFault as fault:
            services.ledger.unparsed(size)
            self._named(frame.id, size, "rejected", code=fault.code, message=fault.message)
        except Exception:  # the rim of one request: a bug in one message is logged and answered, the session goes on
            log.exception("a message failed", request_id=self._head.request_id, id=frame.id)
            services.monitor.error("message")
            services.ledger.unparsed(size)
            self._named(frame.id, size, "unknown", code="internal", message="internal error")
        else:
            self._used_bytes += size
            self._messages += 1
            held, reservation = reservation, None
            waiters.start_soon(self._settle, frame.id, size, held, work, single, deadline, name="websocket: message")
        finally:
            if reservation is not None:
                reservation.close()

    def _open(self, frame: TrackFrame, encoding: Encoding, reservation: Reservation) -> tuple[Work, bool, float]:
        services = self._services
        started = trio.current_time()
        dialect: Dialect | None = services.dialects.get(frame.api)
        if dialect is None:
            raise ClientFault("unknown_api", f"api is one of {', '.join(services.dialects)}")
        patience = Patience.of(services.config.deadlines, timeout_of(frame.deadline_ms))
        until = patience.until(services.monitor.lag_s)
        body = bytes(frame.body)
        if not body:
            raise ClientFault("missing_field", "body is missing")
        route = dialect.message_route(body, encoding)
        received_at_ms = now_ms()
        request_id = f"{self._head.request_id}-{frame.id}"
        parsed: Parsed = dialect.parse(
            route,
            DialectRequest(
                method=route.method,
                path=route.path,
                query={},
                headers={},
                body=body,
                received_at_ms=received_at_ms,
                request_id=request_id,
                encoding=encoding,
                credential=frame.key or self._key(),
            ),
            services.keys,
        )
        reservation.assign(parsed.app)
        services.check_quota(parsed, received_at_ms)
        services.monitor.stage("parse", trio.current_time() - started)
        context = context_of(
            self._head,
            received_at_ms,
            node=services.node.name,
            config=services.config,
            request_id=request_id,
            maybe_duplicate=frame.again,
        )
        return services.ingest.open(parsed, context, until.kafka_at), parsed.single, until.work_at

    def _key(self) -> str | None:
        """The key of the whole connection: in its query or in a header of its handshake."""
        headers = self._head.headers
        in_query = self._query.get("key") or self._query.get("writeKey")
        return in_query or key_of_authorization(headers.get("authorization", "")) or headers.get("x-write-key") or None

    async def _settle(  # noqa: ASYNC910  # work.wait() is one
        self, id_: int, size: int, reservation: Reservation, work: Work, single: bool, deadline: float
    ) -> None:
        """One message's waiting, in a nursery of its own, then its answer into the outbox."""
        services = self._services
        started = trio.current_time()
        try:
            await FreshNursery().run(deadline, work.wait, _nothing)
        except Exception:  # the rim of one request, as above
            log.exception("a message failed", request_id=self._head.request_id, id=id_)
            services.monitor.error("message")
        finally:
            verdict = work.settle()
            reservation.close()
            self._used_bytes -= size
            self._messages -= 1
            services.monitor.stage("acknowledge", trio.current_time() - started)
            self._answer(id_, size, verdict, single)

    def _answer(self, id_: int, size: int, verdict: Verdict, single: bool) -> None:
        status, counts = verdict.worst, verdict.counts
        if status <= Status.SPOOLED:
            self._outbox.settled(id_, size, status)
            self._services.monitor.websocket_ack(status.word)
            return
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


async def _nothing() -> None:
    """A message's nursery can always be left, so nothing has to be answered elsewhere."""
