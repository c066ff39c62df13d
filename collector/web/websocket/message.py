"""One track message of a websocket, from its frame to its events on their way.

Owns: what a connection's messages have in common, admission of a message, the moments of its deadline. Refuses to know:
ids and credit (the session), who waits for it (`collector.web.websocket.waiters`).

Invariant: a message that is not made holds nothing: no reservation, no record.
"""

from collections.abc import Mapping

from collector.dialects.base import ClientFault, Dialect, DialectRequest, Encoding, Parsed
from collector.ingest.enqueue import Patience, Until, Work
from collector.ingest.record import RecordContext
from collector.web.admission import Reservation
from collector.web.context import context_of
from collector.web.head import RequestHead, key_of_authorization, timeout_of
from collector.web.services import Services, now_ms
from collector.web.websocket.frames import TrackFrame

__all__ = ["Intake", "TrackMessage"]

#: A message in work holds its share of a task, a nursery and a delivery beside its bytes; admission counts so much.
MESSAGE_COST_BYTES = 4096


#: A message has its key in its frame or from its connection, and no query or headers of its own.
_NONE: Mapping[str, str] = {}


class TrackMessage:
    """A message in work."""

    __slots__ = ("deadline", "id", "reservation", "single", "size_bytes", "started", "work")

    def __init__(
        self,
        id_: int,
        size_bytes: int,
        reservation: Reservation,
        work: Work,
        *,
        started: float,
        deadline: float,
        single: bool,
    ) -> None:
        self.id = id_
        self.size_bytes = size_bytes
        self.reservation = reservation
        self.work = work
        self.deadline = deadline
        """On Trio's clock."""
        self.single = single
        self.started = started
        """When it was queued, on Trio's clock."""

    def __repr__(self) -> str:
        return f"<TrackMessage {self.id} {self.work!r}>"


class Intake:
    """Opens the messages of one connection."""

    def __init__(self, services: Services, head: RequestHead) -> None:
        self._services = services
        self._head = head
        self._key: str | None = None
        self._tenant: str | None = None
        self._context = context_of(head, 0, node=services.node.name, config=services.config)
        self._patience = Patience.of(services.config.deadlines)
        self._until: dict[int | None, Until] = {}
        self._received_at_ms = 0
        self._parsing_since = 0.0

    def read_query(self) -> None:
        """Look for the key of the whole connection. Raises `ClientFault` for an absurd query."""
        query, headers = self._head.query(), self._head.headers
        in_query = query.get("key") or query.get("writeKey")
        key = in_query or key_of_authorization(headers.get("authorization", "")) or headers.get("x-write-key")
        self._key = key or None

    def begin_read(self) -> None:
        """The messages that follow came together: they have one time of receipt and, by themselves, one deadline."""
        self._received_at_ms = now_ms()
        self._parsing_since = self._services.clock()
        self._until.clear()

    def open(self, frame: TrackFrame, size_bytes: int, encoding: Encoding) -> TrackMessage:
        """Parse and queue, without a checkpoint: messages are queued in order of arrival.

        Raises: `Shed`, `ClientFault`; nothing was queued then. `FailedInWork`: it is settled.
        """
        admission = self._services.admission
        # For the key of the last message, nearly always that of this one too; not while it may be refused for that.
        tenant = None if admission.contended else self._tenant
        reservation: Reservation | None = admission.reserve(size_bytes + MESSAGE_COST_BYTES, tenant)
        try:
            assert reservation is not None
            message = self._opened(frame, size_bytes, encoding, reservation)
            reservation = None
            return message
        finally:
            if reservation is not None:
                reservation.close()

    def until(self, frame: TrackFrame) -> Until:
        """The moments of this message; equal for all of one read that ask for the same time. Raises `ClientFault`."""
        asked = frame.deadline_ms
        until = self._until.get(asked)
        if until is None:
            patience = self._patience
            if asked is not None:
                patience = Patience.of(self._services.config.deadlines, timeout_of(asked))
            until = self._until[asked] = patience.until(self._parsing_since - self._services.monitor.lag_s)
        return until

    def _opened(self, frame: TrackFrame, size_bytes: int, encoding: Encoding, reservation: Reservation) -> TrackMessage:
        services, received_at_ms = self._services, self._received_at_ms
        dialect: Dialect | None = services.dialects.get(frame.api)
        if dialect is None:
            raise ClientFault("unknown_api", f"api is one of {', '.join(services.dialects)}")
        until = self.until(frame)
        body = bytes(frame.body)
        if not body:
            raise ClientFault("missing_field", "body is missing")
        route = dialect.message_route(body, encoding)
        request_id = f"{self._head.request_id}-{frame.id}"
        parsed: Parsed = dialect.parse(
            route,
            DialectRequest(
                method=route.method,
                path=route.path,
                query=_NONE,
                headers=_NONE,
                body=body,
                received_at_ms=received_at_ms,
                request_id=request_id,
                encoding=encoding,
                credential=frame.key or self._key,
            ),
            services.keys,
        )
        reservation.assign(parsed.app)
        self._tenant = parsed.app
        services.check_quota(parsed, received_at_ms)
        now = services.clock()
        services.monitor.stage("parse", now - self._parsing_since)
        self._parsing_since = now
        shared = self._context
        context = RecordContext(
            received_at_ms=received_at_ms,
            request_id=request_id,
            node=shared.node,
            client=shared.client,
            maybe_duplicate=frame.again,
        )
        work = services.ingest.open(parsed, context, until.kafka_at)
        return TrackMessage(
            frame.id, size_bytes, reservation, work, started=now, deadline=until.work_at, single=parsed.single
        )
