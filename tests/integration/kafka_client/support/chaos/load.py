"""The load: callers by the thousand that come at a steady pace whatever the cluster does, and of whom many leave.

Owns: who calls how, when, and for how long they wait. Refuses to know: faults, and what is in the topic.

Theory. The pace is open: calls are made at their times and do not wait for each other, so a fault meets as many new
records as good times do. The call of `Producer.delivery` is made by the pacing task (its order is the order of the
queues); a task of its own then waits. `Producer.send` is called by its own task, whose first step Trio may shuffle;
such records carry no key that another record has.
"""

import heapq
import itertools
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

import trio

from kafka_client import Delivery, NotSent, NotSentError, Outcome, Producer, Unknown, UnknownOutcomeError

from .books import Books

__all__ = ["Load", "LoadPlan"]

#: From this share of the records on, a load whose fault is not over goes slowly, ever more so.
LEFT_FOR_LATER = 0.75

#: Records handed over between two checkpoints.
SLICE = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadPlan:
    """How many of what. Shares are of the callers."""

    records: int = 200_000
    seconds: float = 10.0
    """Over which they are spread evenly, if the fault is over by then: some come after it in any case."""
    cancelled: float = 0.2
    """Who is cancelled, or takes back a part, after 0.2 ms to 3 s."""
    with_deadline: float = 0.3
    deadline_s: tuple[float, float] = (0.5, 4.0)
    keyed: float = 0.5
    keys: int = 499
    value_bytes: tuple[int, int] = (20, 280)
    single: float = 0.8
    """Who hands over one record; of the rest three in four up to 30, one in four up to 600."""
    named_partition: float = 0.03


@dataclass(slots=True)
class Load:
    """One run of a plan."""

    producer: Producer
    books: Books
    plan: LoadPlan
    partitions: int
    rng: random.Random
    patient: list[int] = field(default_factory=list)
    """Records whose callers waited to the end, however long."""
    alone_told_at: dict[int, float] = field(default_factory=dict)
    """When somebody who waited for this record alone was told."""
    handed_at: list[tuple[float, int]] = field(default_factory=list)
    """(time, how many records had been handed over by then), once a slice."""
    callers: int = 0
    callers_cancelled: int = 0
    _leaving: list[tuple[float, int, Callable[[], object]]] = field(default_factory=list)
    _numbers: "itertools.count[int]" = field(default_factory=itertools.count)

    @property
    def handed(self) -> int:
        """Records handed over so far."""
        return len(self.books.records)

    def handed_by(self, time: float) -> int:
        """How many records had been handed over at this time."""
        return max((count for at, count in self.handed_at if at <= time), default=0)

    async def warm_up(self) -> None:
        """One record to each partition, so that every connection is open and every partition has been acknowledged."""
        numbers = [self.books.new(20, None, partition, False) for partition in range(self.partitions)]
        await self._wait(self._deliver(numbers), numbers, trio.CancelScope())
        self.patient += numbers

    async def run(self, fault_over: trio.Event) -> None:
        """Make every call, and return when every caller has been told."""
        before = trio.current_time()
        first = self.handed
        share = 0.0
        async with trio.open_nursery() as nursery:
            async with trio.open_nursery() as callers:
                nursery.start_soon(self._cancel_in_time)
                while (left := first + self.plan.records - self.handed) > 0:
                    now = trio.current_time()
                    slow = 1.0 if share < LEFT_FOR_LATER or fault_over.is_set() else (1.0 - share) / 8
                    share, before = min(1.0, share + slow * (now - before) / self.plan.seconds), now
                    due = math.ceil(first + share * self.plan.records)
                    until = min(due, self.handed + SLICE)
                    while self.handed < until and left > 0:
                        self._call(callers)
                    self.handed_at.append((trio.current_time(), self.handed))
                    await trio.sleep(0.002)
            nursery.cancel_scope.cancel(reason="every caller has been told")

    def _call(self, callers: trio.Nursery) -> None:
        rng, plan = self.rng, self.plan
        self.callers += 1
        scope = trio.CancelScope()
        dice = rng.random()
        leaves = dice < plan.cancelled
        if leaves:
            self.callers_cancelled += 1
        elif dice < plan.cancelled + plan.with_deadline:
            scope.deadline = trio.current_time() + rng.uniform(*plan.deadline_s)
        count = self._count()
        if count == 1 and rng.random() < 0.5:
            key = b"alone-%d" % self.handed if rng.random() < plan.keyed else None
            number = self.books.new(rng.randint(*plan.value_bytes), key, None, False)
            if leaves:
                self._leave_later(partial(scope.cancel, reason="the caller has left"))
            callers.start_soon(self._send, number, scope)
            numbers: Sequence[int] = (number,)
        else:
            numbers = self._records(count)
            delivery = self._deliver(numbers)
            if leaves and count > 1 and rng.random() < 0.5:
                self._leave_later(partial(delivery.withdraw, rng.sample(range(count), count // 2)))
            elif leaves:
                self._leave_later(partial(scope.cancel, reason="the caller has left"))
            callers.start_soon(self._wait, delivery, numbers, scope)
        if not leaves and scope.deadline == math.inf:
            self.patient += numbers

    def _count(self) -> int:
        dice = self.rng.random()
        if dice < self.plan.single:
            return 1
        return self.rng.randint(2, 30) if dice < 0.75 + self.plan.single / 4 else self.rng.randint(100, 600)

    def _records(self, count: int) -> list[int]:
        rng, plan, books = self.rng, self.plan, self.books
        size = rng.randint(*plan.value_bytes)
        partition = rng.randrange(self.partitions) if rng.random() < plan.named_partition else None
        keyed = rng.random() < plan.keyed
        key = b"key-%d" % rng.randrange(plan.keys)
        mixed = rng.random() < 0.5
        numbers = []
        for step in range(count):
            if mixed and step % 3 == 0:
                key = b"key-%d" % rng.randrange(plan.keys)
            numbers.append(books.new(size, key if keyed else None, partition, step == 0))
        return numbers

    def _deliver(self, numbers: Sequence[int]) -> Delivery:
        records = self.books.records
        delivery = self.producer.delivery([records[number] for number in numbers])

        def resolved(index: int, outcome: Outcome) -> None:
            self.books.resolved(numbers[index], outcome)

        delivery.on_resolved(resolved)
        return delivery

    async def _wait(self, delivery: Delivery, numbers: Sequence[int], scope: trio.CancelScope) -> None:
        with delivery, scope:
            await delivery.wait()
        self.books.tell(numbers, delivery.outcomes)
        if len(numbers) == 1:
            self.alone_told_at[numbers[0]] = trio.current_time()

    async def _send(self, number: int, scope: trio.CancelScope) -> None:  # noqa: ASYNC910  # `send` is a checkpoint
        books = self.books
        outcome: Outcome | None = None
        with scope:
            try:
                outcome = await self.producer.send(books.records[number])
            except NotSentError as error:
                outcome = NotSent(str(error))
            except UnknownOutcomeError as error:
                outcome = Unknown(str(error))
        if outcome is None or isinstance(outcome, Unknown):
            books.untold.add(number)  # `send` does not tell what became of it later
        else:
            books.tell((number,), (outcome,))
            self.alone_told_at[number] = trio.current_time()

    def _leave_later(self, leave: Callable[[], object]) -> None:
        after_s = 0.0002 * 15_000 ** self.rng.random()  # 0.2 ms to 3 s, each power of ten as likely as the others
        heapq.heappush(self._leaving, (trio.current_time() + after_s, next(self._numbers), leave))

    async def _cancel_in_time(self) -> None:
        while True:
            now = trio.current_time()
            while self._leaving and self._leaving[0][0] <= now:
                heapq.heappop(self._leaving)[2]()
            await trio.sleep(0.001)
