"""This library as a contender: `kafka_client`, in its default configuration but for what the options name."""

from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from itertools import cycle
from math import ceil, inf
from time import perf_counter

import trio

from collector.ingest.nursery import RearmedNursery
from kafka_client import Delivered, Delivery, Producer, ProducerConfig, Record, SecurityConfig, open_producer
from tests.bench.kafka.meter import SAMPLE_EVERY, Figures, Meter
from tests.bench.kafka.spec import Spec, payloads

__all__ = ["WORKLOADS", "config_of", "open_warm"]

#: The deadline of one request in K3, as the collector's: none of them expires here.
DEADLINE_S = 4.0
#: The grid of the lazily armed deadline: late by at most this, never early.
GRID_S = 0.25


def config_of(spec: Spec) -> ProducerConfig:
    """The configuration; ``codec`` is the only option that is not the default."""
    security = SecurityConfig() if spec.ca_file is None else SecurityConfig(protocol="SSL", ssl_cafile=spec.ca_file)
    codec = spec.options.get("codec")
    if codec is None:
        return ProducerConfig(bootstrap_servers=spec.bootstrap_servers, security=security)
    return ProducerConfig(bootstrap_servers=spec.bootstrap_servers, security=security, compression=codec)  # type: ignore[arg-type]  # checked by it


@asynccontextmanager
async def open_warm(spec: Spec, config: ProducerConfig | None = None) -> AsyncIterator[Producer]:
    """A producer that knows the topic and has its producer id. On cancellation: it is closed without grace."""
    async with open_producer(config or config_of(spec)) as producer:
        for partition in range(spec.partitions):
            await producer.send(Record(spec.topic, b"warm", partition=partition))
        yield producer


def partitions_of(spec: Spec) -> "cycle[int | None]":
    """The partitions to name, in turn; None leaves the choice to the client."""
    return cycle(range(spec.partitions) if spec.word("partition", "picked") == "given" else [None])


def check(delivery: Delivery) -> None:
    """A benchmark of records that were not delivered would measure something else."""
    outcome = delivery.outcomes[0]
    if not isinstance(outcome, Delivered):
        raise RuntimeError(f"not delivered: {outcome}")


async def pipelined(spec: Spec, meter: Meter) -> None:
    """One delivery a record, a window of them open at once, each outcome looked at, in one task.

    After every ``between`` records the event loop gets its turn.

    On cancellation: the open deliveries are taken back with the producer.
    """
    window, between = spec.number("window", 10_000), spec.number("between", 250)
    values, partitions = cycle(payloads()), partitions_of(spec)
    topic = spec.topic
    open_deliveries: deque[Delivery] = deque()
    stamps: deque[float] = deque()
    queued = settled = 0
    async with open_warm(spec) as producer:
        while True:
            for _ in range(between):
                if queued % SAMPLE_EVERY == 0:
                    stamps.append(perf_counter())
                open_deliveries.append(producer.delivery((Record(topic, next(values), partition=next(partitions)),)))
                queued += 1
            if len(open_deliveries) < window:
                await trio.lowlevel.checkpoint()
            else:
                await open_deliveries[0].wait()
            before = settled
            while open_deliveries and not open_deliveries[0].unsettled:
                with open_deliveries.popleft() as delivery:
                    check(delivery)
                if settled % SAMPLE_EVERY == 0:
                    meter.latencies.append(perf_counter() - stamps.popleft())
                settled += 1
            meter.records += settled - before
            if meter.over():
                return await producer.close(0)


async def batches(spec: Spec, meter: Meter) -> None:
    """``send_many`` of ``batch`` records, in turn, by as many tasks as keep ``window`` records open.

    On cancellation: what is open is taken back.
    """
    size = spec.number("batch", 500)
    values = cycle(payloads())
    topic = spec.topic

    async def send_in_turn(producer: Producer) -> None:
        partitions = partitions_of(spec)
        while True:
            started = perf_counter()
            outcomes = await producer.send_many(
                [Record(topic, next(values), partition=next(partitions)) for _ in range(size)]
            )
            meter.latencies.append(perf_counter() - started)
            if not all(isinstance(outcome, Delivered) for outcome in outcomes):
                raise RuntimeError(f"not delivered: {outcomes[0]}")
            meter.records += size
            if meter.over():
                return

    async with open_warm(spec) as producer:
        async with trio.open_nursery() as nursery:
            for _ in range(max(1, spec.number("window", 10_000) // size)):
                nursery.start_soon(send_in_turn, producer)


async def in_turn(spec: Spec, meter: Meter) -> None:
    """``tasks`` tasks, each sending one record and waiting for it, under no deadline.

    On cancellation: as `batches`.
    """

    async def work(send: Callable[[], Awaitable[None]]) -> None:
        while True:
            await send()
            if meter.over():
                return

    await _tasks(spec, meter, work)


async def in_turn_move_on(spec: Spec, meter: Meter) -> None:
    """As `in_turn`, with `trio.move_on_after` around each. On cancellation: as `batches`."""

    async def work(send: Callable[[], Awaitable[None]]) -> None:
        while True:
            with trio.move_on_after(DEADLINE_S) as scope:
                await send()
            if scope.cancelled_caught:
                raise RuntimeError("a deadline expired")
            if meter.over():
                return

    await _tasks(spec, meter, work)


async def in_turn_fresh(spec: Spec, meter: Meter) -> None:
    """As `in_turn`, with a fresh nursery that has a deadline for each. On cancellation: as `batches`."""

    async def work(send: Callable[[], Awaitable[None]]) -> None:
        while True:
            async with trio.open_nursery() as nursery:
                nursery.cancel_scope.deadline = trio.current_time() + DEADLINE_S
                await send()
            if nursery.cancel_scope.cancelled_caught:
                raise RuntimeError("a deadline expired")
            if meter.over():
                return

    await _tasks(spec, meter, work)


async def in_turn_rearmed(spec: Spec, meter: Meter) -> None:
    """As `in_turn`, with one nursery a task, as the collector's own: armed before each, disarmed after it.

    On cancellation: as `batches`.
    """

    async def unfinished() -> None:
        await trio.lowlevel.checkpoint()
        raise RuntimeError("a deadline expired")

    async def work(send: Callable[[], Awaitable[None]]) -> None:
        async with trio.open_nursery() as nursery:
            carrier = RearmedNursery(nursery)
            while not meter.over():
                await carrier.run(trio.current_time() + DEADLINE_S, send, unfinished)
        if carrier.unfinished is not None:
            await carrier.unfinished()

    await _tasks(spec, meter, work)


async def in_turn_lazy(spec: Spec, meter: Meter) -> None:
    """As `in_turn_rearmed`, but the deadline is rounded up to a grid, set when it changes, and not cleared between.

    On cancellation: as `batches`.
    """

    async def work(send: Callable[[], Awaitable[None]]) -> None:
        async with trio.open_nursery() as nursery:
            scope = nursery.cancel_scope
            armed = inf
            while not meter.over():
                deadline = ceil((trio.current_time() + DEADLINE_S) / GRID_S) * GRID_S
                if deadline != armed:
                    scope.deadline = armed = deadline
                await send()
                if scope.cancel_called:
                    raise RuntimeError("a deadline expired")

    await _tasks(spec, meter, work)


async def _tasks(spec: Spec, meter: Meter, work: Callable[[Callable[[], Awaitable[None]]], Awaitable[None]]) -> None:
    values, partitions = cycle(payloads()), partitions_of(spec)
    topic = spec.topic

    async with open_warm(spec) as producer:

        async def send() -> None:
            started = perf_counter()
            await producer.send(Record(topic, next(values), partition=next(partitions)))
            meter.latencies.append(perf_counter() - started)
            meter.records += 1

        async with trio.open_nursery() as nursery:
            for _ in range(spec.number("tasks", 64)):
                nursery.start_soon(work, send)


WORKLOADS: dict[str, Callable[[Spec, Meter], Awaitable[Figures | None]]] = {
    "pipelined": pipelined,
    "batches": batches,
    "in_turn": in_turn,
    "in_turn_move_on": in_turn_move_on,
    "in_turn_fresh": in_turn_fresh,
    "in_turn_rearmed": in_turn_rearmed,
    "in_turn_lazy": in_turn_lazy,
}
