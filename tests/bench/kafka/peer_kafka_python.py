"""kafka-python as a contender: one thread calls ``send``, its own thread talks to the broker."""

from collections import deque
from collections.abc import Callable
from itertools import cycle
from time import perf_counter

from kafka import KafkaProducer  # type: ignore[import-untyped]  # it has no types

from tests.bench.kafka.meter import SAMPLE_EVERY, Meter
from tests.bench.kafka.spec import Spec, payloads

__all__ = ["WORKLOADS"]


def pipelined(spec: Spec, meter: Meter) -> None:
    """``send()`` for each record, a window of futures open at once, each result looked at."""
    window = spec.number("window", 10_000)
    values = cycle(payloads())
    partitions = cycle(range(spec.partitions) if spec.word("partition", "picked") == "given" else [None])
    topic = spec.topic
    producer = KafkaProducer(
        bootstrap_servers=spec.bootstrap_servers,
        acks="all",
        enable_idempotence=True,
        linger_ms=spec.number("linger_ms", 2),
        batch_size=spec.number("batch_bytes", 131_072),
    )
    producer.send(topic, b"warm").get(30)
    futures: deque[object] = deque()
    stamps: deque[float] = deque()
    queued = settled = 0
    while not meter.over():
        while len(futures) < window:
            if queued % SAMPLE_EVERY == 0:
                stamps.append(perf_counter())
            futures.append(producer.send(topic, next(values), partition=next(partitions)))
            queued += 1
        futures[0].get(30)  # type: ignore[attr-defined]  # untyped library
        before = settled
        while futures and futures[0].is_done:  # type: ignore[attr-defined]
            futures.popleft().get(0)  # type: ignore[attr-defined]
            if settled % SAMPLE_EVERY == 0:
                meter.latencies.append(perf_counter() - stamps.popleft())
            settled += 1
        meter.records += settled - before
    producer.close(5)


WORKLOADS: dict[str, Callable[[Spec, Meter], None]] = {"pipelined": pipelined}
