"""The rooms of one collector around its spool and its producer, opened and closed in their order.

Owns: what is opened inside what, how the rooms are connected, what the monitor shows of them. Refuses to know: how any
of them works, listeners, signals.

    open_rooms()
     ├[S] spool        the writer of this process's file
     └[P] producer     connections to the brokers
        └[I] ingest    the clock of Kafka's shares; replay: spool → producer

The exit goes from the inside out. The replay ends first: what it has in work is acknowledged, or goes back into the
spool. Then the producer: each batch that is not acknowledged ends unknown, and says so of its held rows, so that the
spool, which is open until everybody else is gone, writes them down as what may be in the log.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import trio

from collector.brokers import producer_config
from collector.config import Config
from collector.dialects import make_dialects
from collector.ingest.diversion import Diversion
from collector.ingest.enqueue import Ingest, ProducerLike
from collector.ingest.ledger import Ledger
from collector.ingest.replay import Replay
from collector.ingest.shares import KafkaShares
from collector.ingest.ways import Ways
from collector.keys import ConfiguredKeys
from collector.lifecycle import Lifecycle
from collector.monitor import Monitor
from collector.producer_log import ProducerLog
from collector.spool.base import SpoolStatistics
from collector.spool.spool import DiskSpool, open_spool
from collector.spool_control import offer_control
from collector.web.admission import Admission
from collector.web.gate import BodyGate
from collector.web.services import Node, Services
from kafka_client.config import Connector
from kafka_client.observe import BatchEnded
from kafka_client.producer import Producer, open_producer

__all__ = ["Rooms", "make_services", "open_rooms"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rooms:
    """What `open_rooms` opened."""

    services: Services
    producer: Producer
    spool: DiskSpool | None
    """None: ``[spool] path`` is empty."""
    diversion: Diversion | None
    replay: Replay | None
    _end_replay: Callable[[], Awaitable[None]]

    async def close(self, grace_s: float) -> None:
        """End the replay, then the producer with this grace; the spool stays open until the block is left.

        On cancellation: the grace is over at once; everything is settled before this returns.
        """
        try:
            await self._end_replay()
        finally:
            await self.producer.close(grace_s)  # noqa: ASYNC102  # cancelled, it settles everything all the same

    def spool_statistics(self) -> SpoolStatistics | None:
        """The spool's account; after the block was left too."""
        return None if self.spool is None else self.spool.statistics()


def make_services(
    config: Config,
    monitor: Monitor,
    producer: ProducerLike,
    *,
    node: Node | None = None,
    spool: DiskSpool | None = None,
    diversion: Diversion | None = None,
) -> Services:
    """The rooms around one producer and, where there is one, one spool, connected."""
    max_lag_s = config.limits.max_lag_s
    lifecycle = Lifecycle(
        max_lag_s=max_lag_s,
        lag=lambda: monitor.lag_s,
        spool_filled=None if spool is None else lambda: _filled(spool.statistics()),
    )
    ledger = Ledger()
    ways = None
    # Without a share of the time for the disk it would only ever be too late.
    if spool is not None and diversion is not None and config.deadlines.spool_s > 0:
        shares = KafkaShares(config.deadlines.kafka_s)
        ways = Ways(spool, diversion, shares, by_key=config.spool.order == "key")
    ingest = Ingest(config=config, producer=producer, ledger=ledger, late=monitor.late_resolution, ways=ways)
    ledger.look_back = ingest.look_back
    return Services(
        config=config,
        node=node or Node(),
        monitor=monitor,
        lifecycle=lifecycle,
        ledger=ledger,
        admission=Admission(bound_bytes=config.limits.in_work_bytes, lagging=lambda: monitor.overdue_s > max_lag_s),
        ingest=ingest,
        keys=ConfiguredKeys.from_config(config.keys),
        dialects=make_dialects(config.limits),
    )


def _filled(statistics: SpoolStatistics) -> float:
    return (statistics.bytes + statistics.pending_bytes) / statistics.max_bytes


@asynccontextmanager
async def open_rooms(
    config: Config, monitor: Monitor, *, connector: Connector | None = None, spool_file: Path | None = None
) -> AsyncIterator[Rooms]:
    """Open the rooms; returns before the first contact with a broker, and whatever is wrong with the disk.

    Leaving the block normally is `Rooms.close` with ``drain_s``; leaving it by an exception or a cancellation closes
    with no grace.

    Args:
        connector: how the producer reaches brokers; None is TCP.
        spool_file: this one of the spool's directory; None: the first that nobody has, or a new one.

    Raises:
        ConfigError: the configuration cannot work.
    """
    node = Node()
    observer = _Observer(config.kafka.topic)
    async with AsyncExitStack() as stack:
        spool = None
        if config.spool.path is not None:
            spool = await stack.enter_async_context(
                open_spool(config, node=node.name, admin=monitor.admin_address, file=spool_file)
            )
        producer = await stack.enter_async_context(
            open_producer(producer_config(config), connector=connector, observer=observer)
        )
        # Before the first event, which is diverted only if it was asked for in vain for ``stall_s``.
        for topic in (config.kafka.topic, config.kafka.bad_topic):
            if topic is not None:
                producer.want_topic(topic)
        diversion = replay = None
        if spool is not None:
            diversion = _diversion(config, producer, spool, lag_s=lambda: monitor.lag_s)
        services = make_services(config, monitor, producer, node=node, spool=spool, diversion=diversion)
        await stack.enter_async_context(_open_gate(services.gate))
        end_replay: Callable[[], Awaitable[None]] = trio.lowlevel.checkpoint
        if spool is not None and diversion is not None:
            replay = observer.replay = Replay(
                config=config,
                spool=spool,
                producer=producer,
                diversion=diversion,
                lag_s=lambda: monitor.lag_s,
            )
            ways = services.ingest.ways
            if ways is not None:
                ways.rows_came = replay.rows_came
            end_replay = await stack.enter_async_context(_running(replay, None if ways is None else ways.shares))
        rooms = Rooms(
            services=services,
            producer=producer,
            spool=spool,
            diversion=diversion,
            replay=replay,
            _end_replay=end_replay,
        )
        _watch(rooms)
        yield rooms
        await rooms.close(config.shutdown.drain_s)


def _diversion(config: Config, producer: Producer, spool: DiskSpool, lag_s: Callable[[], float]) -> Diversion:
    return Diversion(
        producer,
        topic=config.kafka.topic,
        stall_s=config.deadlines.stall_s,
        usable=lambda: spool.statistics().state == "ok",
        lag_s=lag_s,
    )


@asynccontextmanager
async def _running(replay: Replay, shares: KafkaShares | None) -> AsyncIterator[Callable[[], Awaitable[None]]]:
    """The tasks of [I] for as long as the block lasts; yields what ends the replay earlier. A bug in one cancels the
    block."""
    failure: Exception | None = None
    scope, ended = trio.CancelScope(), trio.Event()

    async def run() -> None:
        try:
            with scope:
                await replay.run()
        finally:
            ended.set()

    async def end() -> None:
        scope.cancel(reason="the replay is to end")
        await ended.wait()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run, name="replay")
        if shares is not None:
            nursery.start_soon(shares.run, name="ingest: Kafka's shares")
        try:
            yield end
        except Exception as error:
            # The caller's, passed on as it is below: the nursery would put it into a group.
            failure = error
        nursery.cancel_scope.cancel(reason="the block is left")
    if failure is not None:
        raise failure


@asynccontextmanager
async def _open_gate(gate: BodyGate) -> AsyncIterator[None]:
    """Let large bodies take turns while the block runs."""
    failure: Exception | None = None
    async with trio.open_nursery() as nursery:
        nursery.start_soon(gate.run, name="web: the gate of large bodies")
        try:
            yield
        except Exception as error:
            # The caller's, passed on as it is below: the nursery would put it into a group.
            failure = error
        nursery.cancel_scope.cancel(reason="the block is left")
    if failure is not None:
        raise failure


class _Observer(ProducerLog):
    """The log, and the replay, which wants to know at once that a partition answers."""

    def __init__(self, topic: str) -> None:
        super().__init__()
        self._topic = topic
        self.replay: Replay | None = None

    def batch_ended(self, event: BatchEnded) -> None:
        if self.replay is not None and event.outcome == "delivered" and event.topic == self._topic:
            self.replay.answered(event.partition)


def _watch(rooms: Rooms) -> None:
    """Let the monitor show what the rooms count."""
    services = rooms.services
    monitor, lifecycle = services.monitor, services.lifecycle
    monitor.watch("ledger", services.ledger.statistics)
    monitor.watch("retry_memory", services.ingest.memory.statistics)
    monitor.watch("admission", services.admission.statistics)
    monitor.watch("producer", rooms.producer.statistics)
    if rooms.spool is not None:
        monitor.watch("spool", rooms.spool.statistics)
    if rooms.replay is not None:
        monitor.watch("replay", rooms.replay.statistics)
    if rooms.spool is not None and rooms.replay is not None:
        offer_control(monitor, rooms.spool, rooms.replay)
    if rooms.diversion is not None:
        monitor.watch("diversion", rooms.diversion.statistics)
    monitor.watch_readiness(lambda: (lifecycle.status() == "ready", lifecycle.status()))
