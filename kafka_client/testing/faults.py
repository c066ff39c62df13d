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
        """

        def apply(plan: Plan, _request: RequestSeen, fault: Fault) -> None:
            plan.gates.append(fault.released)
            plan.skip_processing |= not append

        self._stalls.append(self._add("stall", apply, selection))
        return self._stalls[-1]

    def throttle(self, milliseconds: int, **selection: Unpack[Selection]) -> Fault:
        """Answer with ``throttle_time_ms`` (KIP-219). A request that arrives before it is over is a violation."""
        return self._add(
            f"throttle({milliseconds})", lambda plan, _r, _f: setattr(plan, "throttle_ms", milliseconds), selection
        )

    # Lost connections

    def close_before(self, *, reset: bool = False, **selection: Unpack[Selection]) -> Fault:
        """Close the connection instead of serving the request: nothing is appended."""

        def apply(plan: Plan, _request: RequestSeen, _fault: Fault) -> None:
            plan.close_before = True
            plan.reset |= reset

        return self._add("close_before", apply, selection)

    def drop_answer(self, *, reset: bool = False, **selection: Unpack[Selection]) -> Fault:
        """Serve the request, then close the connection instead of answering: the lost acknowledgement."""

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
        """Append, then answer an error code all the same, with the true base offset unless another is given."""
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
        """Write the answer in pieces, with a pause after each."""

        def apply(plan: Plan, _request: RequestSeen, _fault: Fault) -> None:
            plan.chunk_bytes, plan.chunk_interval_s = chunk_bytes, interval_s

        return self._add(f"dribble({chunk_bytes})", apply, selection)

    def truncate(self, size_bytes: int, **selection: Unpack[Selection]) -> Fault:
        """Write only so much of the answer's frame (its length prefix included), then close the connection."""
        return self._add(
            f"truncate({size_bytes})", lambda plan, _r, _f: setattr(plan, "truncate_bytes", size_bytes), selection
        )

    def unknown_tags(self, **selection: Unpack[Selection]) -> Fault:
        """Put a tag that no schema names wherever tags may stand; a client must skip it."""
        return self._add("unknown_tags", lambda plan, _r, _f: setattr(plan, "unknown_tags", True), selection)

    def replace_body(self, body: bytes, **selection: Unpack[Selection]) -> Fault:
        """Serve the request, then answer these bytes after the header."""
        return self._add("replace_body", lambda plan, _r, _f: setattr(plan, "body", body), selection)

    def shift_correlation(self, by: int = 1, **selection: Unpack[Selection]) -> Fault:
        """Answer with a wrong correlation id."""
        return self._add("shift_correlation", lambda plan, _r, _f: setattr(plan, "correlation_shift", by), selection)

    def omit_partition(self, **selection: Unpack[Selection]) -> Fault:
        """Append, but leave the batches meant out of the Produce answer."""

        def apply(plan: Plan, request: RequestSeen, fault: Fault) -> None:
            plan.omit |= {(b.topic, b.partition) for b in request.batches if fault.selects(b.topic, b.partition)}

        return self._add("omit_partition", apply, selection)

    def repeat_partition(self, **selection: Unpack[Selection]) -> Fault:
        """Put the batches meant into the Produce answer twice."""

        def apply(plan: Plan, request: RequestSeen, fault: Fault) -> None:
            plan.repeat |= {(b.topic, b.partition) for b in request.batches if fault.selects(b.topic, b.partition)}

        return self._add("repeat_partition", apply, selection)

    def no_brokers(self, **selection: Unpack[Selection]) -> Fault:
        """Answer Metadata without any broker."""
        return self._add(
            "no_brokers", lambda plan, _r, _f: setattr(plan, "no_brokers", True), selection, api=Api.METADATA
        )

    def zero_topic_ids(self, **selection: Unpack[Selection]) -> Fault:
        """Answer Metadata with topic ids of zero, as some proxies and clones do."""
        return self._add(
            "zero_topic_ids", lambda plan, _r, _f: setattr(plan, "zero_topic_ids", True), selection, api=Api.METADATA
        )

    # Connecting

    def refuse_connects(self, *, broker: int | None = None, times: int | None = None) -> None:
        """Refuse connections (to one broker, or to all) so many times, or until `accept_connects`."""
        self._refusing[broker] = math.inf if times is None else times

    def black_hole_connects(self, *, broker: int | None = None) -> None:
        """Let connection attempts hang until they are given up, or until `accept_connects` (in memory only)."""
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
