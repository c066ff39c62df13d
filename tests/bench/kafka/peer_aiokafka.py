"""aiokafka as a contender: on uvloop, with the settings that served it best here."""

import asyncio
import ssl
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from itertools import cycle
from time import perf_counter

from aiokafka import AIOKafkaProducer  # type: ignore[import-untyped]  # it has no types

from tests.bench.kafka.meter import SAMPLE_EVERY, Meter
from tests.bench.kafka.spec import Spec, payloads

__all__ = ["RATES", "open_warm"]


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
    """``send()`` for each record, a window of futures open at once, each result looked at, in one task."""
    window = spec.number("window", 10_000)
    values, partitions = cycle(payloads()), partitions_of(spec)
    topic = spec.topic
    futures: deque[asyncio.Future[object]] = deque()
    stamps: deque[float] = deque()
    queued = settled = 0
    async with open_warm(spec) as producer:
        while True:
            while len(futures) < window:
                if queued % SAMPLE_EVERY == 0:
                    stamps.append(perf_counter())
                futures.append(await producer.send(topic, next(values), partition=next(partitions)))
                queued += 1
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


RATES: dict[str, Callable[[Spec, Meter], Coroutine[None, None, None]]] = {"pipelined": pipelined, "in_turn": in_turn}
