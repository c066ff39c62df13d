"""Faults: what can go wrong between a client and a cluster, one method each.

Owns: which fault meets which request. Refuses to know how a broker works; `kafka_client.testing.connection` and the
``apis`` carry out what the `Plan` says.

Every method adds a `Fault` and returns it. By default a fault meets Produce requests, once. Selection (keywords):

    api         an `Api`; None meets every API
    broker      only this broker's number
    topic, partition
                only requests that carry a batch for it
    times       how often (1); None = for ever
    skip        let this many pass first (0)
    when        a function of the `RequestSeen`: only where it is true

What no fault met got what a healthy Apache Kafka gives: ``RequestSeen.injected`` is then false. Each method says under
"Real:" whether a real broker does such a thing, and when.

A fault is over when its ``times`` are used up, when `Fault.remove` is called, at the end of its ``with`` block, or by
`Faults.clear`. ``hits`` counts what it met. All faults that match a request act on it together.
"""

import math
from collections.abc import Callable, Sequence
from typing import Literal, Unpack

from kafka_client.testing.fault import Fault, Selection
from kafka_client.testing.messages import Api
from kafka_client.testing.plan import PartitionAnswer, Plan
from kafka_client.testing.seen import RequestSeen

__all__ = ["Fault", "Faults", "Selection"]

Where = Literal["network", "broker", "replicas"]


class Faults:
    """The faults of one cluster."""

    def __init__(self) -> None:
        self._active: list[Fault] = []
        self._stalls: list[Fault] = []
        self._refusing: dict[int | None, float] = {}
        self._black_holes: set[int | None] = set()

    def __repr__(self) -> str:
        return f"<Faults {self._active}>"

    @property
    def active(self) -> list[Fault]:
        """Those that still wait for a request."""
        return list(self._active)

    def clear(self) -> None:
        """Remove every fault, release every stall, accept connections again."""
        for fault in [*self._active, *self._stalls]:
            fault.release()
        self._stalls.clear()
        self._refusing.clear()
        self._black_holes.clear()

    def forget(self, fault: Fault) -> None:
        """Drop it from the list (called by the fault)."""
        if fault in self._active:
            self._active.remove(fault)

    def plan_for(self, request: RequestSeen) -> Plan:
        """What is to happen to this request (called by the broker)."""
        plan = Plan()
        for fault in list(self._active):
            fault.meet(request, plan)
        return plan

    def _add(
        self, name: str, apply: Callable[[Plan, RequestSeen, Fault], None], selection: Selection, api: Api | None = None
    ) -> Fault:
        if api is not None:
            selection = {"api": api, **selection}
        fault = Fault(self, name, apply, selection)
        self._active.append(fault)
        return fault

    # Time

    def delay(self, seconds: float, *, where: Where = "network", **selection: Unpack[Selection]) -> Fault:
        """Answer ``seconds`` later.

        Args:
            where: ``"network"``: the request is served at once and its answer travels; later ones are served meanwhile.
                ``"broker"``: it waits before it is served, and everything behind it on its connection waits too.
                ``"replicas"``: it is appended at once, answered later, and everything behind it on its connection waits
                for that answer, as a real broker does.

        Real: all three. The channel of a connection is muted while its request is worked on or waits for replicas.
        """

        def apply(plan: Plan, _request: RequestSeen, _fault: Fault) -> None:
            match where:
                case "network":
                    plan.travel_s += seconds
                case "broker":
                    plan.busy_s += seconds
                case "replicas":
                    plan.replicas_s += seconds

        return self._add(f"delay({seconds:g}, {where})", apply, selection)

    def stall(self, *, append: bool = True, **selection: Unpack[Selection]) -> Fault:
        """Never answer, and serve nothing more on that connection, until `Fault.release`; the connection stays open.

        ``append=False`` does not serve the request before the release either.

        Real: a broker that hangs (a long collection, a dead disk) or was stopped; null records in a Produce request.
        """

        def apply(plan: Plan, _request: RequestSeen, fault: Fault) -> None:
            plan.gates.append(fault.released)
            plan.skip_processing |= not append

        self._stalls.append(self._add("stall", apply, selection))
        return self._stalls[-1]

    def throttle(self, milliseconds: int, **selection: Unpack[Selection]) -> Fault:
        """Answer with ``throttle_time_ms`` (KIP-219). A request that arrives before it is over is a violation.

        Real: with quotas configured; the broker then does not read from the connection for that long.
        """
        return self._add(
            f"throttle({milliseconds})", lambda plan, _r, _f: setattr(plan, "throttle_ms", milliseconds), selection
        )

    # Lost connections

    def close_before(self, *, reset: bool = False, **selection: Unpack[Selection]) -> Fault:
        """Close the connection instead of serving the request: nothing is appended.

        Real: a broker that goes down, a proxy or firewall in between, a request that the broker cannot read.
        """

        def apply(plan: Plan, _request: RequestSeen, _fault: Fault) -> None:
            plan.close_before = True
            plan.reset |= reset

        return self._add("close_before", apply, selection)

    def drop_answer(self, *, reset: bool = False, **selection: Unpack[Selection]) -> Fault:
        """Serve the request, then close the connection instead of answering: the lost acknowledgement.

        Real: a broker that goes down after the append, or the network in between.
        """

        def apply(plan: Plan, _request: RequestSeen, _fault: Fault) -> None:
            plan.close_after = True
            plan.reset |= reset

        return self._add("drop_answer", apply, selection)

    # Error codes

    def fail(
        self,
        code: int,
        *,
        message: str | None = None,
        record_errors: Sequence[tuple[int, str | None]] = (),
        leader: tuple[int, int] | None = None,
        base_offset: int | None = None,
        **selection: Unpack[Selection],
    ) -> Fault:
        """Answer an error code; nothing is appended, ``base_offset`` is -1 unless given (some clones say 0).

        For Produce it is the code of the batches meant; for other APIs that of the whole answer (Metadata before
        version 13 and ListOffsets: of each topic or partition).

        Args:
            record_errors: (index, message) pairs (KIP-467).
            leader: (broker, epoch) to name as the current leader (KIP-951), version 10 and later.

        Real: each code where its cause is given; but a repetition is answered with success and not with 46, and
        brokers with KIP-360 take any first sequence instead of saying 59. A ``base_offset`` of 0 beside an error comes
        from clones only.
        """
        return self._answer(code, False, message, record_errors, leader, base_offset, selection)

    def append_and_fail(
        self,
        code: int,
        *,
        message: str | None = None,
        leader: tuple[int, int] | None = None,
        base_offset: int | None = None,
        **selection: Unpack[Selection],
    ) -> Fault:
        """Append, then answer an error code all the same, with the true base offset unless another is given.

        Real: 3, 6, 7 and 20 while acks=all waits for replicas (DelayedProduce; `FakeCluster.hold_replication` does it
        without a fault), 56 when the disk fails then.
        """
        return self._answer(code, True, message, (), leader, base_offset, selection)

    def _answer(
        self,
        code: int,
        append: bool,
        message: str | None,
        record_errors: Sequence[tuple[int, str | None]],
        leader: tuple[int, int] | None,
        base_offset: int | None,
        selection: Selection,
    ) -> Fault:
        def apply(plan: Plan, request: RequestSeen, fault: Fault) -> None:
            if request.api is not Api.PRODUCE:
                plan.code = code
                return
            for batch in request.batches:
                if fault.selects(batch.topic, batch.partition):
                    plan.partitions[batch.topic, batch.partition] = PartitionAnswer(
                        code, append, message, record_errors, leader, base_offset
                    )

        return self._add(f"{'append_and_fail' if append else 'fail'}({code})", apply, selection)

    # Answers that are not what they should be

    def dribble(self, *, chunk_bytes: int = 1, interval_s: float = 0.0, **selection: Unpack[Selection]) -> Fault:
        """Write the answer in pieces, with a pause after each.

        Real: TCP may cut anywhere; slow networks and small windows do.
        """

        def apply(plan: Plan, _request: RequestSeen, _fault: Fault) -> None:
            plan.chunk_bytes, plan.chunk_interval_s = chunk_bytes, interval_s

        return self._add(f"dribble({chunk_bytes})", apply, selection)

    def truncate(self, size_bytes: int, **selection: Unpack[Selection]) -> Fault:
        """Write only so much of the answer's frame (its length prefix included), then close the connection.

        Real: a broker that goes down while it writes.
        """
        return self._add(
            f"truncate({size_bytes})", lambda plan, _r, _f: setattr(plan, "truncate_bytes", size_bytes), selection
        )

    def unknown_tags(self, **selection: Unpack[Selection]) -> Fault:
        """Put a tag that no schema names wherever tags may stand; a client must skip it.

        Real: brokers of tomorrow (KIP-482); KIP-951 came so.
        """
        return self._add("unknown_tags", lambda plan, _r, _f: setattr(plan, "unknown_tags", True), selection)

    def replace_body(self, body: bytes, **selection: Unpack[Selection]) -> Fault:
        """Serve the request, then answer these bytes after the header. Real: never; clones and proxies."""
        return self._add("replace_body", lambda plan, _r, _f: setattr(plan, "body", body), selection)

    def shift_correlation(self, by: int = 1, **selection: Unpack[Selection]) -> Fault:
        """Answer with a wrong correlation id. Real: never; broken proxies."""
        return self._add("shift_correlation", lambda plan, _r, _f: setattr(plan, "correlation_shift", by), selection)

    def omit_partition(self, **selection: Unpack[Selection]) -> Fault:
        """Append, but leave the batches meant out of the Produce answer. Real: never; clones."""

        def apply(plan: Plan, request: RequestSeen, fault: Fault) -> None:
            plan.omit |= {(b.topic, b.partition) for b in request.batches if fault.selects(b.topic, b.partition)}

        return self._add("omit_partition", apply, selection)

    def repeat_partition(self, **selection: Unpack[Selection]) -> Fault:
        """Put the batches meant into the Produce answer twice. Real: never; clones."""

        def apply(plan: Plan, request: RequestSeen, fault: Fault) -> None:
            plan.repeat |= {(b.topic, b.partition) for b in request.batches if fault.selects(b.topic, b.partition)}

        return self._add("repeat_partition", apply, selection)

    def no_brokers(self, **selection: Unpack[Selection]) -> Fault:
        """Answer Metadata without any broker.

        Real: a broker that has just started and has not heard of the others.
        """
        return self._add(
            "no_brokers", lambda plan, _r, _f: setattr(plan, "no_brokers", True), selection, api=Api.METADATA
        )

    def zero_topic_ids(self, **selection: Unpack[Selection]) -> Fault:
        """Answer Metadata with topic ids of zero. Real: never; some proxies and clones (franz-go #1312)."""
        return self._add(
            "zero_topic_ids", lambda plan, _r, _f: setattr(plan, "zero_topic_ids", True), selection, api=Api.METADATA
        )

    def no_partitions(self, **selection: Unpack[Selection]) -> Fault:
        """Answer Metadata with topics that have no partitions and no error.

        Real: not on record for Apache Kafka; franz-go takes it for a failed refresh, and so should a client.
        """
        return self._add(
            "no_partitions", lambda plan, _r, _f: setattr(plan, "no_partitions", True), selection, api=Api.METADATA
        )

    def give_identity(self, *, producer_id: int | None = None, epoch: int = 0, **selection: Unpack[Selection]) -> Fault:
        """Answer InitProducerId with this identity; None: a fresh producer id.

        Real: without a transactional id the epoch is always 0 and the producer id fresh; another epoch is the short way
        to the end of the epochs, 32767.
        """
        return self._add(
            f"give_identity({producer_id}, {epoch})",
            lambda plan, _r, _f: setattr(plan, "identity", (producer_id, epoch)),
            selection,
            api=Api.INIT_PRODUCER_ID,
        )

    # Connecting

    def refuse_connects(self, *, broker: int | None = None, times: int | None = None) -> None:
        """Refuse connections (to one broker, or to all) so many times, or until `accept_connects`.

        Real: a broker that is down, or not up yet.
        """
        self._refusing[broker] = math.inf if times is None else times

    def black_hole_connects(self, *, broker: int | None = None) -> None:
        """Let connection attempts hang until they are given up, or until `accept_connects` (in memory only).

        Real: a host that is down, or a firewall that drops: nobody answers the first packet.
        """
        self._black_holes.add(broker)

    def accept_connects(self) -> None:
        """Undo `refuse_connects` and `black_hole_connects` for new attempts."""
        self._refusing.clear()
        self._black_holes.clear()

    def connect_refused(self, broker: int) -> bool:
        """Whether this attempt is refused (called by the cluster)."""
        for key in (broker, None):
            if self._refusing.get(key, 0) > 0:
                self._refusing[key] -= 1
                return True
        return False

    def connect_black_holed(self, broker: int) -> bool:
        """Whether this attempt hangs (called by the cluster)."""
        return broker in self._black_holes or None in self._black_holes
