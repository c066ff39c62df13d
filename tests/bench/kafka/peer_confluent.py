"""confluent-kafka as a contender: librdkafka with a delivery callback for each message, polled in the same thread."""

import gc
from collections.abc import Callable
from itertools import cycle

from confluent_kafka import KafkaError, Message, Producer

from tests.bench.kafka.meter import SAMPLE_EVERY, Figures, Meter, ask
from tests.bench.kafka.spec import RECORD_BYTES, Spec, numbered_payload, payloads
from tests.bench.machine import resident_bytes

__all__ = ["WORKLOADS", "Counter", "make_warm"]

#: So many are produced between two polls.
_BETWEEN_POLLS = 200


class Counter:
    """Counts acknowledgements."""

    def __init__(self, meter: Meter) -> None:
        self.done = 0
        self._meter = meter

    def acknowledged(self, error: KafkaError | None, message: Message) -> None:
        """The delivery callback. A bound method: calling an object with ``__call__`` would be dearer."""
        if error is not None:
            raise RuntimeError(f"not delivered: {error}")
        self.done += 1
        if self.done % SAMPLE_EVERY == 0:
            latency_s = message.latency()
            if latency_s is not None:
                self._meter.latencies.append(latency_s)


def make_warm(spec: Spec, **more: object) -> Producer:
    """A producer that knows the topic and has its producer id."""
    settings: dict[str, object] = {
        "bootstrap.servers": spec.bootstrap_servers,
        "acks": "all",
        "enable.idempotence": bool(spec.options.get("idempotence", True)),
        "linger.ms": spec.number("linger_ms", 2),
        "batch.size": spec.number("batch_bytes", 1_000_000),
        "batch.num.messages": 10_000,
        "queue.buffering.max.messages": 1_000_000,
        "queue.buffering.max.kbytes": 1_048_576,
        "compression.type": spec.word("codec", "none"),
        "log_level": 0,
    }
    if spec.ca_file is not None:
        settings |= {"security.protocol": "SSL", "ssl.ca.location": spec.ca_file}
    producer = Producer(settings | more)
    for partition in range(spec.partitions):
        producer.produce(spec.topic, b"warm", partition=partition)
    if producer.flush(30):
        raise RuntimeError("the warming records were not delivered")
    return producer


def pipelined(spec: Spec, meter: Meter) -> None:
    """``produce(on_delivery=…)`` for each record, a window of them open at once."""
    window = spec.number("window", 10_000)
    values = cycle(payloads())
    given = spec.word("partition", "picked") == "given"
    partitions = cycle(range(spec.partitions))
    topic = spec.topic
    producer = make_warm(spec)
    produce, poll = producer.produce, producer.poll
    counter = Counter(meter)
    acknowledged = counter.acknowledged
    queued = 0
    while True:
        if given:
            for _ in range(_BETWEEN_POLLS):
                produce(topic, next(values), partition=next(partitions), on_delivery=acknowledged)
        else:
            for _ in range(_BETWEEN_POLLS):
                produce(topic, next(values), on_delivery=acknowledged)
        queued += _BETWEEN_POLLS
        poll(0)
        while queued - counter.done >= window:
            poll(0.01)
        meter.records = counter.done
        if meter.over():
            return


def batches(spec: Spec, meter: Meter) -> None:
    """``produce_batch`` of ``batch`` records with a delivery callback for each message."""
    size, window = spec.number("batch", 500), spec.number("window", 10_000)
    values = cycle(payloads())
    topic = spec.topic
    producer = make_warm(spec)
    counter = Counter(meter)
    acknowledged = counter.acknowledged
    queued = 0
    while True:
        taken = producer.produce_batch(topic, [{"value": next(values)} for _ in range(size)], on_delivery=acknowledged)
        if taken != size:
            raise RuntimeError(f"{size - taken} records were not taken")
        queued += size
        producer.poll(0)
        while queued - counter.done >= window:
            producer.poll(0.01)
        meter.records = counter.done
        if meter.over():
            return


def memory_single(spec: Spec, meter: Meter) -> Figures:
    """Resident memory of ``count`` queued records with a delivery callback each."""
    count = spec.number("count", 100_000)
    producer = make_warm(spec)
    counter = Counter(meter)
    acknowledged = counter.acknowledged
    ask("pause")
    gc.collect()
    before = resident_bytes()
    for number in range(count):
        producer.produce(spec.topic, numbered_payload(number), on_delivery=acknowledged)
    producer.poll(0.2)
    gc.collect()
    each = (resident_bytes() - before) / count
    queued = len(producer)
    ask("resume")
    return {"count": count, "bytes_each": each, "beyond_bytes": each - RECORD_BYTES, "queued": queued}


WORKLOADS: dict[str, Callable[[Spec, Meter], Figures | None]] = {
    "pipelined": pipelined,
    "batches": batches,
    "memory_single": memory_single,
}
