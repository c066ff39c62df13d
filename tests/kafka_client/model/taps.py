"""Taps into the producer's insides: the ledger of what is in flight, hooks at exact moments, what was covered.

Owns: the wrapping of methods of `kafka_client.sending` for the time of one program. Refuses to know: what must come of
it (`books`), except for one rule that only shows in here: how many batches may be in flight.

A tap calls the original with the same arguments and changes nothing, with these exceptions: the sequences of a fresh
producer id start near 2³¹, and its epoch near 32767, as if it had been used for long; and UNKNOWN_PRODUCER_ID is told
with the log's start, as old brokers did (KIP-360).
"""

import functools
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import msgspec

from kafka_client.buffer.delivery import Delivery
from kafka_client.sending.answers import Answers
from kafka_client.sending.batch import SealedBatch
from kafka_client.sending.identity import ProducerIdentity, ProducerState
from kafka_client.sending.outbox import Outbox, Request
from kafka_client.sending.partition import PartitionState
from kafka_client.sending.window import Window

from .program import Setup

__all__ = ["Taps"]

SEALED, ANSWER, ANSWERED = "sealed", "answer", "answered"


class Taps:
    """One program's."""

    def __init__(self, coverage: Counter[str], setup: Setup) -> None:
        self.coverage = coverage
        self.log_start_told = False
        self._setup = setup
        self._hooks: dict[tuple[str, int], list[Callable[[], object]]] = defaultdict(list)
        self._kept: list[Delivery] = []
        self._in_flight: dict[PartitionState, list[SealedBatch]] = defaultdict(list)
        self._where: dict[SealedBatch, Outbox] = {}
        self._warm: dict[PartitionState, tuple[ProducerState, Outbox] | None] = {}
        self._deliveries: dict[Request, list[Delivery]] = {}

    def at(self, moment: str, delivery: Delivery, call: Callable[[], object]) -> None:
        """Call ``call`` once, when a batch with a record of the delivery is sealed, or is about to be answered, or
        was."""
        self._kept.append(delivery)  # its id stays its own
        self._hooks[moment, id(delivery)].append(call)

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Listen, within the block."""
        with ExitStack() as stack:
            for owner, name, tap in (
                (Outbox, "next_request", self._next_request),
                (Outbox, "answered", self._answered),
                (Outbox, "lost", self._lost),
                (PartitionState, "written", self._written),
                (Answers, "_carry_out", self._carry_out),
                (PartitionState, "_abandon", self._abandon),
                (ProducerIdentity, "assign", self._assign),
                (Window, "_close_gap", self._close_gap),
                (Window, "_restart", self._restart),
            ):
                stack.enter_context(patch.object(owner, name, _method(tap, getattr(owner, name))))
            yield

    def _run_hooks(self, moment: str, deliveries: list[Delivery]) -> None:
        for delivery in deliveries:
            for call in self._hooks.pop((moment, id(delivery)), ()):
                self.coverage[f"left at: {moment}"] += 1
                call()

    # Moments.

    def _next_request(self, original: Callable[..., Any], outbox: Outbox, now: float) -> Request | None:
        request: Request | None = original(outbox, now)
        if request is not None:
            found: dict[int, Delivery] = {}
            for _, batch in request.batches:
                for run in batch.runs:
                    if run.delivery is not None:
                        found[id(run.delivery)] = run.delivery
            self._deliveries[request] = list(found.values())
            self._run_hooks(SEALED, self._deliveries[request])
        return request

    def _answered(self, original: Callable[..., Any], outbox: Outbox, request: Request, *rest: Any) -> None:
        deliveries = self._deliveries.pop(request, [])
        self._run_hooks(ANSWER, deliveries)
        response, now, topic_ids = rest
        if self.log_start_told:
            partitions = [
                msgspec.structs.replace(result, log_start_offset=0) if result.error_code == 59 else result
                for result in response.partitions
            ]
            response = msgspec.structs.replace(response, partitions=partitions)
        codes: dict[tuple[str, int], int] = {}
        for result in response.partitions:
            topic = result.topic if result.topic is not None else topic_ids.get(result.topic_id, "")
            codes.setdefault((topic, result.partition), result.error_code)
        for partition, batch in request.batches:
            self._landed(partition, batch)
            code = codes.get((partition.tp.topic, partition.tp.partition))
            if code in (0, 46):
                self._warm[partition] = (batch.state, outbox)
            else:
                self._warm[partition] = None
        original(outbox, request, response, now, topic_ids)
        self._run_hooks(ANSWERED, deliveries)

    def _lost(self, original: Callable[..., Any], outbox: Outbox, *rest: Any) -> None:
        for request in outbox.requests:
            self._deliveries.pop(request, None)
            for partition, batch in request.batches:
                self._landed(partition, batch)
                self._warm[partition] = None
        original(outbox, *rest)

    def _assign(self, original: Callable[..., Any], identity: ProducerIdentity, state: ProducerState) -> None:
        original(identity, ProducerState(state.producer_id, self._setup.first_epoch))

    # In flight.

    def _written(self, original: Callable[..., Any], partition: PartitionState, batch: SealedBatch) -> None:
        original(partition, batch)
        flying = self._in_flight[partition]
        assert batch not in flying, f"{batch!r} is in flight twice"
        assert all(self._where[other] is partition.outbox for other in flying), "in flight to two leaders at once"
        if flying:
            warm = self._warm.get(partition)
            assert warm is not None, f"{len(flying) + 1} in flight in {partition.tp} without an OK before"
            assert warm == (batch.state, partition.outbox), f"{partition.tp}: OK under {warm}, now {batch!r}"
        flying.append(batch)
        assert partition.outbox is not None
        self._where[batch] = partition.outbox
        assert len(flying) <= 5, f"{len(flying)} in flight in {partition.tp}"
        self.coverage[f"in flight: {len(flying)}"] += 1
        if batch.attempts > 1:
            self.coverage["attempt: again"] += 1

    def _landed(self, partition: PartitionState, batch: SealedBatch) -> None:
        self._in_flight[partition].remove(batch)
        del self._where[batch]

    # Coverage.

    def _carry_out(self, original: Callable[..., Any], answers: Answers, *args: Any) -> None:
        decision, batch = args[0], args[1]
        self.coverage[f"step: {decision.step.name}"] += 1
        if batch.detached:
            self.coverage["answer: for a detached record"] += 1
        if batch.proved:
            self.coverage["answer: for a proved batch"] += 1
        original(answers, *args)

    def _abandon(self, original: Callable[..., Any], partition: PartitionState, batch: SealedBatch, now: float) -> None:
        self.coverage[f"abandoned: {batch.phase.name}{', tainted' if batch.tainted else ''}"] += 1
        original(partition, batch, now)

    def _close_gap(self, original: Callable[..., Any], window: Window) -> None:
        self.coverage["window: gap closed"] += 1
        original(window)

    def _restart(self, original: Callable[..., Any], window: Window, state: ProducerState, reason: str) -> None:
        before, held = window.state, bool(window.batches)
        original(window, state, reason)
        if before.producer_id == state.producer_id:
            self.coverage["identity: epoch bumped"] += 1
        else:
            self.coverage["identity: new id" if before.producer_id >= 0 else "identity: first"] += 1
            if not held:
                window.next_sequence = self._setup.first_sequence


def _method(tap: Callable[..., Any], original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def wrapper(owner: Any, *args: Any, **named: Any) -> Any:
        return tap(original, owner, *args, **named)

    return wrapper
