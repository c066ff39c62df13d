"""One HTTP request, from its head to its answer: stages 1 to 9 of design §6.

Owns: the order of the stages, and the rim at which a bug in one request ends. Refuses to know: sockets, what an event
is (the dialects do), what Kafka is (ingest does).

Invariants: exactly one answer, and only after the request nursery has closed, because inside it the answer would be
cancelled too; every request that reaches a dialect's route is in the ledger once, as events or as unparsed; a refused
body is read and thrown away (bounded) before the answer, so that the connection lives on.

Non-obvious: a client that hangs up is not a timeout. ``http.disconnect`` before the body is complete
ends the request; after that nobody listens to it, the work runs to its deadline.

What it costs: where the server has the whole body and bounds its sends (`web.handle`), a request opens no cancel scope
of its own (9 µs each), and parks once. Each level of awaiting costs 0.15 µs in a request that parks, each object of a
Python class 0.15 to 0.25; so the stages are few coroutines, and what is made for every request is a msgspec Struct.
What repeats from request to request is remembered in bytes: the client's part of a record, the fields of an answer.
"""

from collections.abc import Mapping
from typing import assert_never

import trio

from collector.dialects.base import Answer, ClientFault, DialectRequest
from collector.ingest.enqueue import Patience, Work
from collector.ingest.nursery import EXTENSION, FreshNursery, RequestNursery
from collector.ingest.verdict import Verdict
from collector.log import get_logger
from collector.web.admission import Reservation, Shed
from collector.web.answers import answer_for, unavailable
from collector.web.asgi_types import Message, Receive, Scope, Send
from collector.web.body import ClientGone, RequestBody, send_parked
from collector.web.context import context_of
from collector.web.gate import LARGE_BYTES
from collector.web.handle import BOUNDED_SEND, WHOLE_BODY
from collector.web.head import timeout_of
from collector.web.inflate import Inflater, inflater_for
from collector.web.pages import page_for
from collector.web.routing import Match
from collector.web.services import Services, now_ms
from collector.web.websocket.frames import PATH as WEBSOCKET_PATH

__all__ = ["Exchange"]

log = get_logger("web")

_NO_QUERY: Mapping[str, str] = {}


class BodyTooSlow(Exception):
    """The body was not complete in time: 400, and the connection is closed."""


class Exchange:
    """One request of one connection."""

    __slots__ = (
        "_acknowledged_at",
        "_began_at",
        "_body",
        "_bounded_send",
        "_complete_at",
        "_counted",
        "_enqueued_at",
        "_head",
        "_http_version",
        "_match",
        "_nursery",
        "_parsed_at",
        "_send",
        "_services",
        "_verdict",
        "_work",
    )

    def __init__(self, services: Services, scope: Scope, receive: Receive, send: Send) -> None:
        offered = scope.get("extensions") or {}
        self._services = services
        self._send = send
        self._head = services.heads.read(scope)
        self._body = RequestBody(receive, offered.get(WHOLE_BODY))
        self._nursery: RequestNursery = offered.get(EXTENSION) or FreshNursery()
        self._bounded_send = BOUNDED_SEND in offered
        self._http_version: str = scope.get("http_version", "1.1")
        self._match: Match | None = None
        self._work: Work | None = None
        self._verdict: Verdict | None = None
        self._counted = False
        # The moments between the stages, on Trio's clock; those after this one are set with it or after it.
        self._complete_at = -1.0

    def __repr__(self) -> str:
        return f"<Exchange {self._head!r} {self._body!r}>"

    async def serve(self) -> None:  # noqa: ASYNC910  # nobody is left to be answered
        """Work the request and answer it.

        On cancellation: what was enqueued and not sealed is withdrawn, the ledger has its verdict, nobody is answered.
        """
        answer: Answer | None
        head = self._head
        match = self._services.routes.find(head.method, head.path)
        try:
            try:
                if match is None or match.route is None:
                    answer = await self._beside(match)
                else:
                    self._match = match
                    answer = await self._track(match)
            except (ClientGone, BodyTooSlow, ClientFault, Shed) as stopped:
                answer = await self._stopped(stopped)
        except Exception:  # the rim of one request: a bug in it is one logged error and one 503, and nobody else's
            log.exception("a request failed", request_id=self._head.request_id, api=self._api)
            self._services.monitor.error("request")
            self._count_unparsed()
            answer = self._unavailable("internal error", self._verdict)
        if answer is not None:
            await self._respond(answer)

    @property
    def _api(self) -> str:
        return "none" if self._match is None else self._match.dialect.name

    async def _beside(self, match: Match | None) -> Answer:
        """What is no dialect's route: preflights, the few pages, and what is not here."""
        head, services = self._head, self._services
        await self._body.discard(services.config.limits)
        if head.method == "OPTIONS":
            return Answer(status=200, body=b"")
        # The websocket path begins like a dialect's and is none.
        if match is None or head.path == WEBSOCKET_PATH:
            return page_for(head.method, head.path, services.lifecycle, services.routes)
        self._match = match
        self._count_unparsed()
        if match.methods:
            fault = ClientFault("wrong_method", f"{head.path} takes {', '.join(match.methods)}, not {head.method}")
        else:
            fault = ClientFault("unknown_path", f"there is no {head.path}")
        return match.dialect.refused(None, fault)

    async def _stopped(self, why: ClientGone | BodyTooSlow | ClientFault | Shed) -> Answer | None:
        """What ends here was not enqueued; None: the client has hung up."""
        services, match = self._services, self._match
        assert match is not None
        if self._complete_at >= 0:
            services.monitor.stage("body", self._complete_at - self._began_at)
        answer: Answer | None
        match why:
            case ClientGone():
                answer = None
            case BodyTooSlow():
                seconds = services.config.http.body_timeout_s
                fault = ClientFault("incomplete_body", f"the body was not complete after {seconds:g} s")
                answer = match.dialect.refused(match.route, fault)
            case ClientFault():
                await self._body.discard(services.config.limits)
                answer = match.dialect.refused(match.route, why)
            case Shed():
                services.monitor.shed(why.reason)
                await self._body.discard(services.config.limits)
                answer = self._unavailable(str(why))
            case _:
                assert_never(why)
        self._count_unparsed()
        return answer  # noqa: ASYNC910  # there was one on the way here

    async def _track(self, match: Match) -> Answer:
        """Stages 1 to 8. Raises `ClientFault`, `Shed`, `ClientGone`, `BodyTooSlow` before anything is enqueued."""
        services, head, limits = self._services, self._head, self._services.config.limits
        field = head.headers.fields.get
        patience, query, tenant = services.patience, _NO_QUERY, None
        if head.query_string or field(b"authorization") is not None:
            query = head.query()
            if credential := head.credential(query):
                tenant = services.keys.app_of_write_key(credential)
        if (timeout_ms := field(b"x-collector-timeout-ms")) is not None:
            patience = Patience.of(services.config.deadlines, timeout_of(timeout_ms.decode("latin-1")))
        coding = field(b"content-encoding")
        inflater = None if coding is None else inflater_for(coding.decode("latin-1"))
        length = head.content_length
        if length > limits.body_bytes:
            raise ClientFault("too_large", f"the body is larger than {limits.body_bytes} bytes")
        reservation = services.admission.reserve(length, tenant)
        try:
            self._began_at = now = services.clock()
            body = self._body.at_hand(reservation, limits) if inflater is None else None
            if body is None:
                body = await self._read(reservation, inflater)
                now = services.clock()
            self._complete_at = now
            until = patience.until(now - services.monitor.lag_s)
            if len(body) >= LARGE_BYTES:
                await services.gate.enter(len(body))
            self._work = self._begin(match, query, body, reservation, until.kafka_at)
            try:
                await self._nursery.run(until.work_at, self._enqueue_and_wait, self._respond_judged)
            finally:
                self._verdict = self._work.settle()
                self._acknowledged_at = services.clock()
        finally:
            reservation.close()
        return self._judged()

    async def _read(self, reservation: Reservation, inflater: Inflater | None) -> bytes:
        config = self._services.config
        with trio.move_on_after(config.http.body_timeout_s):
            return await self._body.read(reservation, inflater, config.limits)
        raise BodyTooSlow

    def _begin(
        self, match: Match, query: Mapping[str, str], body: bytes, reservation: Reservation, kafka_at: float
    ) -> Work:
        """Stage 3: bytes to events, which are in the ledger from here on. Raises `ClientFault` or `Shed`."""
        services, head = self._services, self._head
        assert match.route is not None
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
        parsed = match.dialect.parse(match.route, request, services.keys)
        self._parsed_at = self._enqueued_at = services.clock()  # the latter until it is
        reservation.assign(parsed.app)
        services.check_quota(parsed, received_at_ms)
        context = context_of(head, received_at_ms, services.node.name, services.config)
        work = services.ingest.begin(parsed, context, kafka_at)
        self._counted = True
        return work

    async def _enqueue_and_wait(self) -> None:
        """Stages 4 to 8, in the request nursery."""
        work = self._work
        assert work is not None
        await work.enqueue_in_steps()
        self._enqueued_at = self._services.clock()
        await work.wait()

    def _judged(self) -> Answer:
        assert self._match is not None
        assert self._match.route is not None
        assert self._verdict is not None
        return answer_for(self._match.dialect, self._match.route, self._verdict)

    def _unavailable(self, why: str, verdict: Verdict | None = None) -> Answer:
        match = self._match
        return (
            unavailable(None, None, why, verdict)
            if match is None
            else unavailable(match.dialect, match.route, why, verdict)
        )

    async def _respond_judged(self) -> None:
        """For a server whose nursery could not be left here: the verdict is there, the answer is not."""
        await self._respond(self._judged())

    async def _respond(self, answer: Answer) -> None:
        """Stage 9. Under the stock server the send timeout is the kernel's: it shields its sends from any deadline."""
        services = self._services
        settled = self._verdict is not None
        began_at = self._acknowledged_at if settled else services.clock()
        services.monitor.answered(self._api, answer.status)
        start: Message = {
            "type": "http.response.start",
            "status": answer.status,
            "headers": self._headers(answer),
        }
        body: Message = {"type": "http.response.body", "body": answer.body}
        if self._bounded_send:
            await self._send(start)
            await self._send(body)
        else:
            with trio.move_on_after(services.config.http.send_timeout_s):
                await send_parked(self._body, self._send, [start, body])
        if settled:
            services.monitor.passed(
                self._began_at, self._complete_at, self._parsed_at, self._enqueued_at, began_at, services.clock()
            )
        else:
            services.monitor.stage("answer", services.clock() - began_at)

    def _headers(self, answer: Answer) -> list[tuple[bytes, bytes]]:
        services, head = self._services, self._head
        field = head.headers.fields.get
        headers = [*answer.fields, (b"x-request-id", head.request_id.encode("latin-1"))]
        if (origin := field(b"origin")) is not None:
            headers += services.cors.headers(origin)
        if head.method == "OPTIONS":
            headers += services.cors.preflight(head.headers.get("access-control-request-headers", ""))
        if not (services.lifecycle.keep_alive and self._body.complete) and not self._http_version.startswith("2"):
            headers.append((b"connection", b"close"))
        return headers

    def _count_unparsed(self) -> None:
        if not self._counted:
            self._counted = True
            self._services.ledger.unparsed(self._body.read_bytes)
