"""A kept request on the way that requests take: dialect, record, producer.

Owns: making the request again as it was, with its time and its id, and the delivery of some of them in their order.
Refuses to know: files, cursors, who is told.

Invariants: what `Feeder.prepare` says depends on the line and the configuration alone, so a line that is sent twice
makes the same records; `Feeder.deliver` hands the events over in the order of the lines.

What does not apply to a request that was answered long ago: its client's deadline, shedding, rate limits
(``[quota]``). What does: keys, sizes, the dialect's rules.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import trio

from collector.dialects.base import ClientFault, DialectRequest, Parsed
from collector.ingest.record import RecordContext
from collector.ingest.verdict import Verdict
from collector.last_resort.kept import KeptRequest
from collector.web.admission import Admission
from collector.web.asgi_types import Message
from collector.web.body import RequestBody
from collector.web.context import context_of
from collector.web.head import Headers, RequestHead
from collector.web.inflate import inflater_for
from collector.web.services import Services

__all__ = ["Feeder", "Prepared"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """One request, understood, nothing of it sent."""

    parsed: Parsed
    context: RecordContext
    body_bytes: int
    """Of its body, inflated."""


class Feeder:
    """Feeds requests back.

    Args:
        services: The collector's rooms around one producer, without a spool: what is kept is on a disk already.
    """

    def __init__(self, services: Services) -> None:
        self._services = services
        self._admission = Admission(bound_bytes=services.config.limits.in_work_bytes, lagging=lambda: False)

    def __repr__(self) -> str:
        return f"<Feeder {self._services.ledger!r}>"

    async def prepare(self, kept: KeptRequest, *, maybe_duplicate: bool) -> Prepared:
        """Parse a request as it came, received when it was.

        Raises:
            ClientFault: The whole of it is bad; a client would have heard 400.

        On cancellation: nothing was done.
        """
        services = self._services
        head = RequestHead(
            method=kept.method,
            path=kept.path,
            query_string=kept.query_string,
            headers=Headers.of(kept.headers),
            ip=kept.ip,
            request_id=kept.request_id,
        )
        match = services.routes.find(head.method, head.path)
        if match is None or match.route is None:
            raise ClientFault("unknown_path", f"no dialect takes {head.method} {head.path}")
        query = head.query()
        inflater = inflater_for(head.headers.get("content-encoding", ""))

        async def receive() -> Message:
            await trio.lowlevel.checkpoint()
            return {"type": "http.request", "body": kept.body, "more_body": False}

        with self._admission.reserve(len(kept.body)) as reservation:
            body = await RequestBody(receive).read(reservation, inflater, services.config.limits)
        request = DialectRequest(
            method=head.method,
            path=head.path,
            query=query,
            headers=head.headers,
            body=body,
            received_at_ms=kept.received_at_ms,
            request_id=head.request_id,
        )
        return Prepared(
            parsed=match.dialect.parse(match.route, request, services.keys),
            context=context_of(
                head,
                kept.received_at_ms,
                node=services.node.name,
                config=services.config,
                maybe_duplicate=maybe_duplicate,
            ),
            body_bytes=len(body),
        )

    async def deliver(self, requests: Sequence[Prepared], patience_s: float) -> list[Verdict]:
        """Hand over the events of these requests and wait for their outcomes, ``patience_s`` for all; a verdict each.

        On cancellation: what was not sealed is withdrawn.
        """
        until = trio.current_time() + patience_s
        works = [self._services.ingest.begin(request.parsed, request.context, until) for request in requests]
        try:
            async with trio.open_nursery() as nursery:
                nursery.cancel_scope.deadline = until
                for work in works:
                    await work.enqueue_in_steps()
                    nursery.start_soon(work.wait, name="replay: one request")
        finally:
            verdicts = [work.settle() for work in works]
        return verdicts
