"""One HTTP request, from its head to its answer: stages 1 to 9 of design §6.

Owns: the order of the stages, and the rim at which a bug in one request ends. Refuses to know: sockets, what an event
is (the dialects do), what Kafka is (ingest does).

Invariants: exactly one answer, and only after the request nursery has closed, because inside it the answer would be
cancelled too; every request that reaches a dialect's route is in the ledger once, as events or as unparsed; a refused
body is read and thrown away (bounded) before the answer, so that the connection lives on.

Non-obvious: a client that hangs up is not a timeout. ``http.disconnect`` before the body is complete
ends the request; after that nobody listens to it, the work runs to its deadline.
"""

import trio

from collector.dialects.base import Answer, ClientFault, Dialect, DialectRequest, Parsed, Route
from collector.ingest.enqueue import Patience, Until, Work
from collector.ingest.nursery import EXTENSION, FreshNursery, RequestNursery
from collector.ingest.verdict import Verdict
from collector.log import get_logger
from collector.web.admission import Reservation, Shed
from collector.web.answers import answer_for, unavailable
from collector.web.asgi_types import Receive, Scope, Send
from collector.web.body import ClientGone, RequestBody, send_parked
from collector.web.context import context_of
from collector.web.head import timeout_of
from collector.web.inflate import Inflater, inflater_for
from collector.web.pages import page_for
from collector.web.services import Services, now_ms
from collector.web.websocket_frames import PATH as WEBSOCKET_PATH

__all__ = ["Exchange"]

log = get_logger("web")


class BodyTooSlow(Exception):
    """The body was not complete in time: 400, and the connection is closed."""


class Exchange:
    """One request of one connection."""

    def __init__(self, services: Services, scope: Scope, receive: Receive, send: Send) -> None:
        self._services = services
        self._send = send
        self._head = services.heads.read(scope)
        self._body = RequestBody(receive)
        self._http1 = not str(scope.get("http_version", "1.1")).startswith("2")
        self._nursery: RequestNursery = (scope.get("extensions") or {}).get(EXTENSION) or FreshNursery()
        self._api = "none"
        self._target: tuple[Dialect, Route] | None = None
        self._verdict: Verdict | None = None
        self._counted = False

    def __repr__(self) -> str:
        return f"<Exchange {self._head!r} {self._body!r}>"

    async def serve(self) -> None:  # noqa: ASYNC910  # nobody is left to be answered
        """Work the request and answer it.

        On cancellation: what was enqueued and not sealed is withdrawn, the ledger has its verdict, nobody is answered.
        """
        answer: Answer | None
        try:
            answer = await self._decide()
        except Exception:  # the rim of one request: a bug in it is one logged error and one 503, and nobody else's
            log.exception("a request failed", request_id=self._head.request_id, api=self._api)
            self._services.monitor.error("request")
            self._count_unparsed()
            dialect, route = self._target or (None, None)
            answer = unavailable(dialect, route, "internal error", self._verdict)
        if answer is not None:
            await self._respond(answer)

    async def _decide(self) -> Answer | None:
        head, services = self._head, self._services
        if head.method == "OPTIONS":
            await self._body.discard(services.config.limits)
            return Answer(status=200, body=b"")
        # The websocket path begins like a dialect's and is none.
        match = None if head.path == WEBSOCKET_PATH else services.routes.find(head.method, head.path)
        if match is None:
            await self._body.discard(services.config.limits)
            return page_for(head.method, head.path, services.lifecycle, services.routes)
        self._api = match.dialect.name
        if match.route is None:
            await self._body.discard(services.config.limits)
            self._count_unparsed()
            if match.methods:
                fault = ClientFault("wrong_method", f"{head.path} takes {', '.join(match.methods)}, not {head.method}")
            else:
                fault = ClientFault("unknown_path", f"there is no {head.path}")
            return match.dialect.refused(None, fault)
        self._target = (match.dialect, match.route)
        return await self._track(match.dialect, match.route)

    async def _track(self, dialect: Dialect, route: Route) -> Answer | None:
        services = self._services
        try:
            return await self._admitted(dialect, route)
        except ClientGone:
            self._count_unparsed()
            return None  # noqa: ASYNC910  # receive() was one
        except BodyTooSlow:
            self._count_unparsed()
            seconds = services.config.http.body_timeout_s
            return dialect.refused(  # noqa: ASYNC910  # 30 s have passed
                route, ClientFault("incomplete_body", f"the body was not complete after {seconds:g} s")
            )
        except ClientFault as fault:
            await self._body.discard(services.config.limits)
            self._count_unparsed()
            return dialect.refused(route, fault)
        except Shed as shed:
            services.monitor.shed(shed.reason)
            await self._body.discard(services.config.limits)
            self._count_unparsed()
            return unavailable(dialect, route, str(shed))

    async def _admitted(self, dialect: Dialect, route: Route) -> Answer:
        """Stages 1 to 8. Raises `ClientFault`, `Shed`, `ClientGone`, `BodyTooSlow` before anything is enqueued."""
        head, services, limits = self._head, self._services, self._services.config.limits
        query = head.query()
        timeout_s = timeout_of(head.headers.get("x-collector-timeout-ms"))
        inflater = inflater_for(head.headers.get("content-encoding", ""))
        if head.content_length > limits.body_bytes:
            raise ClientFault("too_large", f"the body is larger than {limits.body_bytes} bytes")
        credential = head.credential(query)
        tenant = services.keys.app_of_write_key(credential) if credential else None
        with services.admission.reserve(head.content_length, tenant) as reservation:
            started = trio.current_time()
            body = await self._read(reservation, inflater)
            complete = trio.current_time()
            services.monitor.stage("body", complete - started)
            until = Patience.of(services.config.deadlines, timeout_s).until(services.monitor.lag_s)
            received_at_ms = now_ms()
            request = DialectRequest(
                method=head.method,
                path=head.path,
                query=query,
                headers=head.headers,
                body=body,
                received_at_ms=received_at_ms,
                request_id=head.request_id,
            )
            parsed = dialect.parse(route, request, services.keys)
            services.monitor.stage("parse", trio.current_time() - complete)
            reservation.assign(parsed.app)
            services.check_quota(parsed, received_at_ms)
            await self._enqueue(parsed, received_at_ms, until)
        return self._judged()

    async def _read(self, reservation: Reservation, inflater: Inflater | None) -> bytes:
        config = self._services.config
        with trio.move_on_after(config.http.body_timeout_s):
            return await self._body.read(reservation, inflater, config.limits)
        raise BodyTooSlow

    async def _enqueue(self, parsed: Parsed, received_at_ms: int, until: Until) -> None:
        """Stages 4 to 8, in the request nursery; `_verdict` has the result, however it ends."""
        services = self._services
        context = context_of(self._head, received_at_ms, node=services.node.name, config=services.config)
        work: Work = services.ingest.begin(parsed, context, until.kafka_at)
        self._counted = True
        queued = started = trio.current_time()

        async def enqueue_and_wait() -> None:
            nonlocal queued
            await work.enqueue_in_steps()
            queued = trio.current_time()
            services.monitor.stage("enqueue", queued - started)
            await work.wait()

        try:
            await self._nursery.run(until.work_at, enqueue_and_wait, self._respond_unfinished)
        finally:
            self._verdict = work.settle()
            services.monitor.stage("acknowledge", trio.current_time() - queued)

    def _judged(self) -> Answer:
        assert self._target is not None
        assert self._verdict is not None
        return answer_for(*self._target, self._verdict)

    async def _respond_unfinished(self) -> None:
        """For a server whose nursery could not be left here: the verdict is there, the answer is not."""
        await self._respond(self._judged())

    async def _respond(self, answer: Answer) -> None:
        """Stage 9. Under the stock server the send timeout is the kernel's: it shields its sends from any deadline."""
        services, head = self._services, self._head
        started = trio.current_time()
        headers = [
            (b"content-type", answer.content_type.encode("latin-1")),
            (b"content-length", str(len(answer.body)).encode()),
            (b"x-request-id", head.request_id.encode("latin-1")),
        ]
        headers += [(name.encode("latin-1"), value.encode("utf-8")) for name, value in answer.headers]
        headers += services.cors.headers(head.headers.get("origin"))
        if head.method == "OPTIONS":
            headers += services.cors.preflight(head.headers.get("access-control-request-headers", ""))
        if self._http1 and not (services.lifecycle.keep_alive and self._body.complete):
            headers.append((b"connection", b"close"))
        services.monitor.answered(self._api, answer.status)
        with trio.move_on_after(services.config.http.send_timeout_s):
            await send_parked(
                self._body,
                self._send,
                [
                    {"type": "http.response.start", "status": answer.status, "headers": headers},
                    {"type": "http.response.body", "body": answer.body},
                ],
            )
        services.monitor.stage("answer", trio.current_time() - started)

    def _count_unparsed(self) -> None:
        if not self._counted:
            self._counted = True
            self._services.ledger.unparsed(self._body.read_bytes)
