"""A replay between a spool in memory and the strict fake cluster, on virtual time."""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field, replace
from types import MappingProxyType

import pytest
import trio

from collector.brokers import producer_config
from collector.config import Config, KafkaConfig, LimitsConfig, SpoolConfig
from collector.ingest.diversion import Diversion
from collector.ingest.replay import Replay
from collector.spool.base import Receipt, SpoolRow, SpoolStatistics, Stored
from collector.spool.spool import DiskSpool, open_spool
from kafka_client import Producer, ProducerObserver, open_producer
from kafka_client.observe import BatchEnded
from kafka_client.outcome import Record
from kafka_client.testing import FakeCluster, open_fake_cluster
from kafka_client.wire.murmur2 import key_hash

#: Sent to each partition before a test begins, so that leaders and sequences are known.
WARM = b"warm-up"


class Bell(ProducerObserver):
    def __init__(self) -> None:
        self.replay: Replay | None = None

    def batch_ended(self, event: BatchEnded) -> None:
        if self.replay is not None and event.outcome == "delivered":
            self.replay.answered(event.partition)


@dataclass
class Room:
    """What a test sees."""

    cluster: FakeCluster
    producer: Producer
    spool: DiskSpool
    diversion: Diversion
    replay: Replay
    nursery: trio.Nursery
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)

    def values(self) -> list[bytes | None]:
        return [value for value in self.cluster.values("events") if value != WARM]

    async def store(self, *values: bytes, key: bytes | None = None, held: bool = False) -> Receipt:
        """Put events into the spool; their ids follow from the order, from 1."""
        return await self.put(
            [Record("events", value, key, (("message-id", value),), 1) for value in values], held=held
        )

    async def put(self, records: Sequence[Record], *, held: bool = False) -> Receipt:
        """Put records into the spool, and say so as ingest does."""
        receipt = self.spool.submit(
            [
                SpoolRow(
                    record=record,
                    app="app",
                    key_hash=None if record.key is None else key_hash(record.key),
                    held=held,
                )
                for record in records
            ]
        )
        await receipt.wait()
        assert all(outcome == Stored() for outcome in receipt.outcomes)
        self.replay.rows_came()
        return receipt

    def say(self, **changed: object) -> None:
        """Let the spool's statistics say this beside the truth."""
        truth = type(self.spool).statistics

        def statistics() -> SpoolStatistics:
            return replace(truth(self.spool), **changed)  # type: ignore[arg-type]

        self.spool.statistics = statistics  # type: ignore[method-assign]

    def start(self) -> None:
        """Let the replay run; ``scope`` ends it."""

        async def run() -> None:
            with self.scope:
                await self.replay.run()

        self.nursery.start_soon(run)

    async def until(self, condition: Callable[[], object], within_s: float = 60.0) -> None:
        with trio.fail_after(within_s):
            await trio.lowlevel.checkpoint()
            while not condition():  # noqa: ASYNC110  # what a test waits for has no event
                await trio.sleep(0.005)

    async def until_empty(self, within_s: float = 60.0) -> None:
        await self.until(lambda: self.spool.statistics().rows == 0, within_s)


OpenRoom = Callable[..., AbstractAsyncContextManager[Room]]


@pytest.fixture
def open_room() -> OpenRoom:
    """``async with open_room(partitions=1, spool={…}, limits={…}) as room``; its ledger balances at the end."""

    @asynccontextmanager
    async def open_(
        *,
        partitions: int = 1,
        brokers: int = 1,
        spool: dict[str, object] | None = None,
        limits: dict[str, object] | None = None,
        start: bool = True,
        warm: bool = True,
        lag_s: Callable[[], float] = lambda: 0.0,
        other_topics: Mapping[str, int] = MappingProxyType({}),
    ) -> AsyncIterator[Room]:
        async with open_fake_cluster(brokers=brokers, topics={"events": partitions, **other_topics}) as cluster:
            config = Config(
                kafka=KafkaConfig(bootstrap_servers=tuple(cluster.bootstrap_servers), compression="none"),
                spool=replace(SpoolConfig(path=":memory:"), **(spool or {})),  # type: ignore[arg-type]
                limits=replace(LimitsConfig(), **(limits or {})),  # type: ignore[arg-type]
            )
            bell = Bell()
            async with (
                open_producer(producer_config(config), connector=cluster.connector, observer=bell) as producer,
                open_spool(config, node="n") as rows,
                trio.open_nursery() as nursery,
            ):
                diversion = Diversion(producer, topic="events", stall_s=config.deadlines.stall_s)
                replay = bell.replay = Replay(
                    config=config, spool=rows, producer=producer, diversion=diversion, lag_s=lag_s
                )
                if warm:
                    for partition in range(partitions):
                        with producer.delivery([Record("events", WARM, partition=partition)]) as delivery:
                            await delivery.wait()
                room = Room(cluster, producer, rows, diversion, replay, nursery)
                if start:
                    room.start()
                yield room
                room.scope.cancel(reason="the test has ended")
                cluster.faults.clear()
                for number in cluster.brokers:
                    cluster.resume_broker(number)
                assert room.spool.statistics().difference == 0
            assert cluster.seen.violations == []

    return open_
