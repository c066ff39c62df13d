"""One scenario: a topic, a producer under load, a fault in the middle, and every check afterwards.

Owns: the order of these, and the row of figures that is printed. Refuses to know: what the fault is.
"""

import random
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import trio

from collector.devtools.leftovers import AssertNothingLeft
from collector.devtools.proxy import Proxy, open_proxy
from collector.monitor.tasks import all_tasks
from kafka_client import (
    BatchRetried,
    BrokerConnected,
    BrokerDisconnected,
    BrokerThrottled,
    Delivered,
    NotSent,
    Producer,
    ProducerConfig,
    ProducerObserver,
    Unknown,
    open_producer,
)

from .books import Books, Found, read_back
from .load import Load, LoadPlan
from .nodes import Nodes

__all__ = ["Row", "Scenario", "Seen"]

CLOSE_GRACE_S = 5.0


class Seen(ProducerObserver):
    """What the producer told of itself."""

    def __init__(self) -> None:
        self.connected_total: Counter[int] = Counter()
        self.codes: Counter[int | None] = Counter()
        """Of failed attempts; None: the connection was lost."""
        self.lost_total = 0
        """Connections for Produce that could not be opened or ended with something to do."""
        self.throttled_s = 0.0

    def connected(self, event: BrokerConnected) -> None:
        self.connected_total[event.broker] += 1

    def disconnected(self, event: BrokerDisconnected) -> None:
        self.lost_total += not event.idle

    def throttled(self, event: BrokerThrottled) -> None:
        self.throttled_s += event.pause_s

    def batch_retried(self, event: BatchRetried) -> None:
        self.codes[event.code] += 1

    @property
    def reconnects(self) -> int:
        """Connections for Produce beyond the first to each broker."""
        return sum(self.connected_total.values()) - len(self.connected_total)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of the table."""

    scenario: str
    records: int
    delivered: int
    not_sent: int
    unknown: int
    untold: int
    late_delivered: int
    late_not_sent: int
    duplicates: int
    reconnects: int
    epoch_bumps: int
    seconds: float
    codes: str


@dataclass(slots=True)
class Scenario:
    """Made by the fixture `scenario`; `run` does it all."""

    name: str
    nodes: Nodes
    rows: list[Row] = field(repr=False)
    partitions: int = 12
    settings: dict[str, str] = field(default_factory=dict)
    """Of the topic."""
    plan: LoadPlan = field(default_factory=LoadPlan)
    fault_after_s: float = 2.0
    seen: Seen = field(default_factory=Seen)
    books: Books = field(init=False, repr=False)
    load: Load = field(init=False, repr=False)
    producer: Producer = field(init=False, repr=False)
    proxy: Proxy = field(init=False)
    found: list[Found] = field(init=False, repr=False)

    @property
    def topic(self) -> str:
        return self.books.topic

    async def run(
        self,
        fault: Callable[["Scenario"], Awaitable[None]],
        *,
        through_proxy: bool = False,
        patient_are_delivered: bool = True,
        whole: bool = True,
        check: Callable[["Scenario"], None] | None = None,
        **config: Any,
    ) -> Row:
        """Run the load with ``fault`` in its midst, then check everything.

        Args:
            fault: started after `fault_after_s`; it takes back what it did.
            through_proxy: `proxy` stands between the producer and the brokers.
            patient_are_delivered: whoever waited without a deadline was told Delivered.
            whole: wait until the cluster is whole before the topic is read.
            check: instead of `Books.check`, after the topic was read.
            config: more of `ProducerConfig`.
        """
        await self._new_topic()
        started = trio.current_time()
        left = AssertNothingLeft()
        settings = ProducerConfig(bootstrap_servers=self.nodes.bootstrap_servers, **config)
        async with open_proxy(self.nodes.addresses) as self.proxy:
            connector = self.proxy.connector if through_proxy else None
            left.start_over()
            async with open_producer(settings, connector=connector, observer=self.seen) as self.producer:
                self.load = Load(self.producer, self.books, self.plan, self.partitions, random.Random(self.name))
                await self.load.warm_up()
                async with trio.open_nursery() as nursery:
                    over = trio.Event()
                    nursery.start_soon(self._fault_in_time, fault, over)
                    await self.load.run(over)
                await self._settle()
                self._check_statistics()
                closing = trio.current_time()
                await self.producer.close(CLOSE_GRACE_S)
                assert trio.current_time() - closing < CLOSE_GRACE_S + 0.5
            await left()
            ours = [task.name for task in all_tasks() if task.name.startswith(("kafka ", "read from "))]
            assert not ours, f"tasks of the closed producer: {ours}"
        statistics = self.producer.statistics()
        seconds = trio.current_time() - started
        if whole:
            await trio.to_thread.run_sync(self.nodes.wait_whole, self.topic)
        self.found = await trio.to_thread.run_sync(read_back, self.nodes.bootstrap_servers, self.topic)
        (check or self._check)(self)
        if patient_are_delivered:
            self._check_patient()
        numbers = Counter(one.value[:9] for one in self.found)
        row = Row(
            scenario=self.name,
            records=len(self.books.records),
            delivered=self.books.count(Delivered),
            not_sent=self.books.count(NotSent),
            unknown=self.books.count(Unknown),
            untold=len(self.books.untold),
            late_delivered=self.books.count_late(Delivered),
            late_not_sent=self.books.count_late(NotSent),
            duplicates=sum(count - 1 for count in numbers.values()),
            reconnects=self.seen.reconnects,
            epoch_bumps=statistics.epoch_bumps_total,
            seconds=seconds,
            codes=" ".join(
                f"{'lost' if code is None else code}×{count}"
                for code, count in sorted(self.seen.codes.items(), key=str)
            ),
        )
        self.rows.append(row)
        return row

    async def _new_topic(self) -> None:
        topic = "".join(c if c.isalnum() else "-" for c in self.name)
        self.books = Books(topic)
        await trio.to_thread.run_sync(self.nodes.wait_whole)
        await trio.to_thread.run_sync(self.nodes.make_topic, topic, self.partitions, self.settings)
        await trio.to_thread.run_sync(self.nodes.wait_whole, topic)

    async def _fault_in_time(self, fault: Callable[["Scenario"], Awaitable[None]], over: trio.Event) -> None:
        await trio.sleep(self.fault_after_s)
        await fault(self)
        over.set()

    async def _settle(self) -> None:
        """Batches of which nobody waits any more may still be on their way."""
        with trio.move_on_after(20):
            await trio.lowlevel.checkpoint()
            while self.producer.statistics().in_flight_batches:  # noqa: ASYNC110  # there is no event for it
                await trio.sleep(0.05)

    def _check_statistics(self) -> None:
        statistics = self.producer.statistics()
        books = self.books
        told = statistics.delivered_total + statistics.not_sent_total + statistics.unknown_total
        assert told == len(books.records), f"{told} outcomes of {len(books.records)} records were counted"
        late = statistics.late_delivered_total + statistics.late_not_sent_total + statistics.late_unknown_total
        assert late <= statistics.unknown_total
        still = [
            f"{name}={value}"
            for name in (
                "queue_bytes",
                "queued_records",
                "waiting_bytes",
                "waiting_deliveries",
                "waiters",
                "in_flight_bytes",
                "in_flight_batches",
                "detached_batches",
                "detached_records",
                "detached_bytes",
                "due_times",
            )
            if (value := getattr(statistics, name))
        ]
        assert not still, f"left: {still}"
        assert not statistics.operator_errors, statistics.operator_errors

    def _check(self, _: "Scenario") -> None:
        self.books.check(self.found)

    def _check_patient(self) -> None:
        told = self.books.told
        impatient = Counter(
            str(told[n]) for n in self.load.patient if n not in self.books.untold and not isinstance(told[n], Delivered)
        )
        untold = [n for n in self.load.patient if n in self.books.untold]
        assert not impatient, f"callers without a deadline were told {impatient.most_common(5)}"
        assert not untold, f"{len(untold)} send() without a deadline ended Unknown"
