"""Playing a program: one producer, one strict fake cluster, one `trio.run` on virtual time.

Owns: carrying out steps, the callers' tasks, healing, the endings. Refuses to know: what must hold (`books`, `taps`).

Invariant: a program has one course. Whatever decides by chance is seeded from it: Trio's shuffling of ready tasks, the
producer's jitter; the wall clock is virtual too.
"""

import random
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch

import trio
import trio._core._run as trio_run
from trio.testing import MockClock

from kafka_client import (
    Delivered,
    Producer,
    ProducerConfig,
    ProducerObserver,
    Record,
    open_producer,
)
from kafka_client.observe import BatchEnded, IdentityChanged, LeaderChanged, OperatorError
from kafka_client.testing import (
    VERSIONS_OF_KAFKA_4_1,
    Api,
    FakeCluster,
    Seen,
    open_fake_cluster,
)

from .books import Books
from .callers import Callers
from .disturber import Disturber
from .program import Deliver, Program, Rest, Setup, Step, Withdraw
from .stage import EPOCH_S, Stage, delivery_of
from .taps import Taps

__all__ = ["play"]

#: How long a producer may need to come to rest when everything is healed: its slowest timers together, and reserve.
REST_S = 400.0


def play(program: Program, coverage: Counter[str] | None = None) -> Seen:
    """Run the program; returns what the brokers saw.

    Raises:
        AssertionError: an invariant does not hold. What the producer raises comes out as it is.
    """
    coverage = Counter() if coverage is None else coverage
    with _one_course(program.setup.seed):
        return trio.run(_Play(program, coverage).run, clock=MockClock(autojump_threshold=0.0))


@contextmanager
def _one_course(seed: int) -> Iterator[None]:
    chance = random.Random(seed)
    with (
        patch.object(trio_run, "_ALLOW_DETERMINISTIC_SCHEDULING", True),
        patch.object(trio_run, "_r", random.Random(seed)),
        patch.object(time, "time_ns", lambda: round((EPOCH_S + trio.current_time()) * 1e9)),
        patch.object(time, "time", lambda: EPOCH_S + trio.current_time()),
        patch.object(uuid, "uuid4", lambda: uuid.UUID(int=chance.getrandbits(128), version=4)),
    ):
        yield


class _Watch(ProducerObserver):
    def __init__(self, coverage: Counter[str]) -> None:
        self._coverage = coverage

    def batch_ended(self, event: BatchEnded) -> None:
        self._coverage[f"batch: {event.outcome}"] += 1

    def identity_changed(self, event: IdentityChanged) -> None:
        if event.epoch == 32767:
            self._coverage["identity: epoch 32767"] += 1

    def leader_changed(self, event: LeaderChanged) -> None:
        self._coverage["leader: none" if event.leader is None else "leader: another"] += 1

    def operator_error(self, error: OperatorError) -> None:
        self._coverage["operator: entered"] += 1

    def operator_error_cleared(self, error: OperatorError) -> None:
        self._coverage["operator: cleared"] += 1


class _Raised(Exception):
    """What the program's block is left with."""


class _Play:
    def __init__(self, program: Program, coverage: Counter[str]) -> None:
        self.program = program
        self.coverage = coverage
        self.taps = Taps(coverage, program.setup)
        self.cluster: FakeCluster
        self.books: Books
        self.timers: trio.Nursery
        self.callers: Callers
        self.disturber: Disturber

    async def run(self) -> Seen:
        setup = self.program.setup
        async with open_fake_cluster(
            brokers=setup.brokers,
            topics={f"t{number}": count for number, count in enumerate(setup.partitions)},
            versions={**VERSIONS_OF_KAFKA_4_1, Api.PRODUCE: (3, 12 if setup.versions == "names" else 13)},
            clock=time.time,
        ) as cluster:
            self.cluster = cluster
            with self.taps.installed():
                async with trio.open_nursery() as self.timers:
                    await self._in_producer()
                    self.timers.cancel_scope.cancel(reason="the program is over")
                self.disturber.heal()
                await trio.sleep(100)  # what was on its way arrives at the brokers
                self.books.check_idle()
                self.books.check_end()
            self._check_violations()
        self.coverage["programs"] += 1
        self.coverage["steps"] += len(self.program.steps)
        self._count()
        return self.cluster.seen

    async def _in_producer(self) -> None:
        program = self.program
        scope = trio.CancelScope()
        try:
            with scope:
                async with open_producer(
                    _config(program.setup, self.cluster),
                    connector=self.cluster.connector,
                    observer=_Watch(self.coverage),
                ) as producer:
                    producer._random.seed(program.setup.seed)
                    self._enter(producer)
                    for step in program.steps:
                        self._take(step)
                        if step.then_s:
                            await trio.sleep(step.then_s)
                        else:
                            await trio.lowlevel.checkpoint()
                        self.books.check_now()
                        if producer._budget.waiting_bytes:
                            self.coverage["waited in line"] += 1
                    match program.ending:
                        case "settle":
                            await self._settle()
                        case "close":
                            await self._close(program.grace_s)
                        case "cancel":
                            scope.cancel(reason="the program says so")
                            await trio.lowlevel.checkpoint()
                        case "raise":
                            raise _Raised
        except _Raised:
            pass
        with trio.fail_after(1):  # every waiter was woken; what a caller does afterwards takes no virtual time
            await trio.testing.wait_all_tasks_blocked(0.001)
        self.books.check_now()
        self.books.check_idle()
        waiting = [entry.number for entry in self.books.entries if not entry.ended and not entry.registered]
        assert self.books.producer.statistics().waiters == 0, f"deliveries {waiting} still wait"

    def _enter(self, producer: Producer) -> None:
        setup = self.program.setup
        self.books = Books(self.cluster, producer, names=setup.versions == "names")
        stage = Stage(setup, self.cluster, self.books, self.taps, self.coverage, self.timers)
        self.callers = Callers(stage)
        self.disturber = Disturber(stage)

    async def _settle(self) -> None:
        self.disturber.heal()
        producer = self.books.producer
        with trio.fail_after(REST_S):
            await trio.testing.wait_all_tasks_blocked()
            while self.callers.busy or not producer._dispatch.quiet:  # noqa: ASYNC110  # a poll: virtual time is cheap
                await trio.sleep(0.25)
        await trio.testing.wait_all_tasks_blocked()
        self.books.check_now()
        self.books.check_idle()
        with trio.fail_after(10):  # whatever has happened: it works again, everywhere
            await trio.lowlevel.checkpoint()
            for topic in list(self.cluster.topics.values()):
                for partition in range(len(topic.partitions)):
                    await self._probe(topic.name, partition)
        started = trio.current_time()
        await producer.close(grace_s=10)
        assert trio.current_time() == started, "close() waited although nothing was left"

    async def _probe(self, topic: str, partition: int) -> None:
        """Send until it is delivered: a connection attempt of before may hang yet, or an answer be on its way."""
        while True:
            entry = self.callers.call([Record(topic, b"%d-probe" % len(self.books.entries), partition=partition)])
            self.books.register(entry)
            delivery = delivery_of(entry)
            with delivery:
                await delivery.wait()
            entry.ended = True
            if isinstance(delivery.outcomes[0], Delivered):
                return

    async def _close(self, grace_s: float) -> None:
        started = trio.current_time()
        await self.books.producer.close(grace_s=grace_s)
        took = trio.current_time() - started
        assert took <= grace_s + 1e-6, f"close({grace_s}) took {took} s"
        self.coverage["close: in time" if took < grace_s else "close: grace used up"] += 1

    # Steps.

    def _take(self, step: Step) -> None:
        match step:
            case Rest():
                pass
            case Deliver():
                self.callers.deliver(step)
            case Withdraw():
                delivered = [entry for entry in self.books.entries if entry.delivery is not None]
                if delivered:
                    delivery_of(delivered[step.delivery % len(delivered)]).withdraw()
            case _:
                self.disturber.take(step)

    def _check_violations(self) -> None:
        violations = [each for each in self.cluster.seen.violations if not self._tolerated(each)]
        assert violations == []

    def _tolerated(self, violation: str) -> bool:
        # An answer that travels, or waits for a paused broker, tells of the throttle too late; and a client that gives
        # a request up half-way has no other way than to close.
        return violation.endswith("sent while throttled") or "of a frame unfinished" in violation

    def _count(self) -> None:
        for name, number in self.books.outcomes.items():
            self.coverage[f"outcome: {name}"] += number
        for entry in self.books.entries:
            self.coverage["deliveries"] += 1
            self.coverage["records"] += len(entry.records)
            for outcome in entry.told.values():
                reason = getattr(outcome, "reason", None)
                if reason is not None:
                    self.coverage[f"{type(outcome).__name__}: {reason.split(':')[0]}"] += 1
        for batch in self.cluster.seen.batches:
            if batch.duplicate:
                self.coverage["log: recognised a repetition"] += 1
            if batch.base_sequence + batch.count > 2**31:
                self.coverage["sequence: wrapped"] += 1
            if batch.error_code:
                self.coverage[f"code: {batch.error_code}"] += 1


def _config(setup: Setup, cluster: FakeCluster) -> ProducerConfig:
    produce_s, request_s, delivery_s, batch_s = setup.timeouts
    return ProducerConfig(
        bootstrap_servers=cluster.bootstrap_servers,
        compression=setup.compression,  # type: ignore[arg-type]
        batch_max_bytes=setup.batch,
        record_max_bytes=setup.record,
        request_max_bytes=setup.request,
        queue_max_bytes=setup.queue,
        max_waiting_bytes=setup.waiting,
        in_flight_max_bytes=setup.in_flight,
        in_flight_max_bytes_per_partition=setup.in_flight_per_partition,
        max_in_flight_per_partition=setup.pipelined,
        linger_s=setup.linger_s,
        produce_timeout_s=produce_s,
        request_timeout_s=request_s,
        delivery_timeout_s=delivery_s,
        batch_timeout_s=batch_s,
        connect_timeout_s=1.0,
        operator_retry_s=1.0,
        metadata_max_age_s=setup.max_age_s,
    )
