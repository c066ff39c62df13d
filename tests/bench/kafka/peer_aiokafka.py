"""aiokafka as a contender: on uvloop, with the settings that served it best here."""

import asyncio
import gc
import ssl
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from itertools import cycle
from time import perf_counter

from aiokafka import AIOKafkaProducer  # type: ignore[import-untyped]  # it has no types

from tests.bench.kafka.meter import SAMPLE_EVERY, Figures, Meter, Stopwatch, ask
from tests.bench.kafka.spec import RECORD_BYTES, Spec, numbered_payload, payloads
from tests.bench.machine import resident_bytes

__all__ = ["WORKLOADS", "open_warm"]


@asynccontextmanager
async def open_warm(spec: Spec, **more: object) -> AsyncIterator[AIOKafkaProducer]:
    """A producer that knows the topic and has its producer id. On cancellation: it is stopped."""
    tls = None if spec.ca_file is None else ssl.create_default_context(cafile=spec.ca_file)
    codec = spec.word("codec", "none")
    settings: dict[str, object] = {
        "bootstrap_servers": spec.bootstrap_servers,
        "acks": "all",
        "enable_idempotence": True,
        "linger_ms": spec.number("linger_ms", 0),
        "max_batch_size": spec.number("batch_bytes", 131_072),
        "compression_type": None if codec == "none" else codec,
        "security_protocol": "PLAINTEXT" if tls is None else "SSL",
        "ssl_context": tls,
    }
    producer = AIOKafkaProducer(**(settings | more))
    await producer.start()
    try:
        for partition in range(spec.partitions):
            await producer.send_and_wait(spec.topic, b"warm", partition=partition)
        yield producer
    finally:
        await producer.stop()


def partitions_of(spec: Spec) -> "cycle[int | None]":
    """The partitions to name, in turn; None leaves the choice to the client."""
    return cycle(range(spec.partitions) if spec.word("partition", "picked") == "given" else [None])


async def pipelined(spec: Spec, meter: Meter) -> None:
    """``send()`` for each record, a window of futures open at once, each result looked at, in one task.

    After every ``between`` records the event loop gets its turn.
    """
    window, between = spec.number("window", 10_000), spec.number("between", 250)
    values, partitions = cycle(payloads()), partitions_of(spec)
    topic = spec.topic
    futures: deque[asyncio.Future[object]] = deque()
    stamps: deque[float] = deque()
    queued = settled = 0
    async with open_warm(spec) as producer:
        while True:
            for _ in range(between):
                if queued % SAMPLE_EVERY == 0:
                    stamps.append(perf_counter())
                futures.append(await producer.send(topic, next(values), partition=next(partitions)))
                queued += 1
            if len(futures) < window:
                await asyncio.sleep(0)
            else:
                await futures[0]
            before = settled
            while futures and futures[0].done():
                futures.popleft().result()
                if settled % SAMPLE_EVERY == 0:
                    meter.latencies.append(perf_counter() - stamps.popleft())
                settled += 1
            meter.records += settled - before
            if meter.over():
                return


async def in_turn(spec: Spec, meter: Meter) -> None:
    """``tasks`` tasks, each in turn ``send_and_wait``."""
    values, partitions = cycle(payloads()), partitions_of(spec)
    topic = spec.topic

    async def send_in_turn(producer: AIOKafkaProducer) -> None:
        while True:
            started = perf_counter()
            await producer.send_and_wait(topic, next(values), partition=next(partitions))
            meter.latencies.append(perf_counter() - started)
            meter.records += 1
            if meter.over():
                return

    async with open_warm(spec) as producer:
        async with asyncio.TaskGroup() as group:
            for _ in range(spec.number("tasks", 64)):
                group.create_task(send_in_turn(producer))


async def cancel_tasks(spec: Spec, meter: Meter) -> Figures:
    """Start ``count`` tasks that wait for one record each at a stopped broker, and cancel them all."""
    count = spec.number("count", 5_000)
    async with open_warm(spec) as producer:
        ask("pause")
        started = perf_counter()
        tasks = [
            asyncio.create_task(producer.send_and_wait(spec.topic, numbered_payload(number))) for number in range(count)
        ]
        await asyncio.sleep(0)
        queueing_s = perf_counter() - started
        await asyncio.sleep(0.2)
        cancelling = Stopwatch()
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        took = cancelling.figures(count)
        ask("resume")
        return took | {"queueing_s": queueing_s}


async def memory_single(spec: Spec, meter: Meter) -> Figures:
    """Resident memory of ``count`` queued records and their futures, in batches large enough to take them all."""
    count = spec.number("count", 100_000)
    room = 2 * count * RECORD_BYTES
    async with open_warm(spec, max_batch_size=room, max_request_size=room) as producer:
        ask("pause")
        gc.collect()
        before = resident_bytes()
        futures = [await producer.send(spec.topic, numbered_payload(number)) for number in range(count)]
        await asyncio.sleep(0.2)
        gc.collect()
        each = (resident_bytes() - before) / count
        queued = sum(not future.done() for future in futures)
        ask("resume")
        return {"count": count, "bytes_each": each, "beyond_bytes": each - RECORD_BYTES, "queued": queued}


WORKLOADS: dict[str, Callable[[Spec, Meter], Coroutine[None, None, Figures | None]]] = {
    "pipelined": pipelined,
    "in_turn": in_turn,
    "cancel_tasks": cancel_tasks,
    "memory_single": memory_single,
}
