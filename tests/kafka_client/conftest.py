"""Fixtures for everything that runs a producer against the strict fake cluster."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pytest
import trio

from kafka_client import (
    Delivered,
    Delivery,
    NotSent,
    Outcome,
    Producer,
    ProducerConfig,
    ProducerObserver,
    Record,
    Unknown,
    open_producer,
)
from kafka_client.testing.cluster import FakeCluster, open_fake_cluster


class Scenario:
    """A producer, its cluster, and the books: what was handed over against what is in the log."""

    def __init__(self, cluster: FakeCluster, producer: Producer) -> None:
        self.cluster = cluster
        self.producer = producer
        self.deliveries: list[tuple[Delivery, Sequence[Record]]] = []
        self.resolved: dict[bytes | None, Outcome] = {}
        self.may_duplicate: set[bytes | None] = set()

    def deliver(
        self, *values: bytes, topic: str = "events", key: bytes | None = None, partition: int | None = 0
    ) -> Delivery:
        """Queue records with these values; values are unique, they are how the log is searched."""
        records = [Record(topic, value, key=key, partition=partition) for value in values]
        delivery = self.producer.delivery(records)
        delivery.on_resolved(lambda index, outcome: self._resolved(records[index].value, outcome))
        self.deliveries.append((delivery, records))
        return delivery

    def _resolved(self, value: bytes | None, outcome: Outcome) -> None:
        assert value not in self.resolved, "on_resolved was called twice for one record"
        self.resolved[value] = outcome

    async def outcome(self, value: bytes, **where: object) -> Outcome | None:
        """Deliver one record and wait for it."""
        with self.deliver(value, **where) as delivery:  # type: ignore[arg-type]
            await delivery.wait()
        return delivery.outcomes[0]

    def base_sequences(self, partition: int = 0, topic: str = "events") -> list[tuple[int, int, int]]:
        """(epoch, base sequence, count) of every batch that reached a broker, in order."""
        return [
            (batch.epoch, batch.base_sequence, batch.count)
            for batch in self.cluster.seen.batches
            if batch.topic == topic and batch.partition == partition
        ]

    async def settle(self) -> None:
        """Wait until nothing is queued, waiting or sealed."""
        # A poll: on virtual time it costs nothing, and it leaves the hook of close() alone.
        while not self.producer._dispatch.quiet:  # noqa: ASYNC110
            await trio.sleep(0.01)
        await trio.testing.wait_all_tasks_blocked()

    def check_books(self) -> None:
        """acked ⊆ log, NotSent ∩ log = ∅, nothing twice, the order of what was acknowledged."""
        for topic in self.cluster.topics:
            values = self.cluster.values(topic)
            for value in set(values):
                assert values.count(value) == 1 or value in self.may_duplicate, f"{value!r} is in the log twice"
        for delivery, records in self.deliveries:
            for record, outcome in zip(records, delivery.outcomes, strict=True):
                values = self.cluster.values(record.topic)
                final = self.resolved.get(record.value, outcome) if isinstance(outcome, Unknown) else outcome
                match final:
                    case Delivered():
                        assert record.value in values, f"{record.value!r} was acknowledged and is not in the log"
                        if final.offset >= 0:
                            tp = final.partition
                            assert self.cluster.log(tp.topic, tp.partition)[final.offset].value == record.value
                    case NotSent():
                        assert record.value not in values, f"{record.value!r} is NotSent and in the log"
                    case None:
                        raise AssertionError(f"{record.value!r} has no outcome")

    def check_idle(self) -> None:
        """Both accounts 0, nobody waits, nothing is due."""
        statistics = self.producer.statistics()
        assert statistics.queue_bytes == 0
        assert statistics.queued_records == 0
        assert statistics.waiting_bytes == 0
        assert statistics.waiting_deliveries == 0
        assert statistics.waiters == 0
        assert statistics.in_flight_bytes == 0
        assert statistics.in_flight_batches == 0
        assert statistics.detached_batches == 0
        assert statistics.detached_records == 0
        assert statistics.detached_bytes == 0
        assert statistics.due_times == 0


OpenScenario = Callable[..., AbstractAsyncContextManager[Scenario]]


@pytest.fixture
def scenario() -> OpenScenario:
    """``async with scenario(partitions=1, brokers=1, **config) as s``; the books are checked at the end.

    Tests take ``autojump_clock`` beside it: pytest-trio looks for the clock among a test's own arguments only.
    """

    @asynccontextmanager
    async def open_scenario(
        *,
        partitions: int = 1,
        brokers: int = 1,
        cluster: dict[str, object] | None = None,
        observer: ProducerObserver | None = None,
        settle: bool = True,
        tolerated: Callable[[str], bool] = lambda violation: False,
        **config: object,
    ) -> AsyncIterator[Scenario]:
        async with open_fake_cluster(brokers=brokers, topics={"events": partitions}, **(cluster or {})) as fake:  # type: ignore[arg-type]
            settings = ProducerConfig(bootstrap_servers=fake.bootstrap_servers, **config)  # type: ignore[arg-type]
            async with open_producer(settings, connector=fake.connector, observer=observer) as producer:
                opened = Scenario(fake, producer)
                yield opened
                if settle:
                    await opened.settle()
                    opened.check_idle()
            opened.check_idle()
            opened.check_books()
            assert [violation for violation in fake.seen.violations if not tolerated(violation)] == []

    return open_scenario
