"""Row K7, and what of idempotence can be told apart: record batches built from keys and values, without a broker.

Owns: the loops over the builders of this library, aiokafka (Cython) and kafka-python. Refuses to know: what the figures
are held against.

The builders take turns in one process, half a second each: they share its caches and its clock speed. Time is CPU time.
"""

from collections.abc import Callable
from time import process_time, time_ns

from aiokafka.record.default_records import DefaultRecordBatchBuilder as AiokafkaBuilder  # type: ignore[import-untyped]
from kafka.record.default_records import DefaultRecordBatchBuilder as KafkaPythonBuilder  # type: ignore[import-untyped]

from kafka_client.wire.record_batch import NO_PRODUCER_ID, encode_batch, encode_record_tail
from tests.bench.kafka.meter import Figures, Meter
from tests.bench.kafka.spec import Spec, payloads

__all__ = ["BATCH", "WORKLOADS"]

BATCH = 1000
_KEY = b"user-00000000@example.com"
_HEADERS = [("node", b"collector-1")]


def encoding(spec: Spec, meter: Meter) -> Figures:
    """Records a second of one core, by builder: whole (from key and value) and only what sealing a batch costs."""
    values = (payloads() * 2)[:BATCH]
    tails = [encode_record_tail(None, value) for value in values]
    stamps = [time_ns() // 1_000_000] * BATCH
    loops: dict[str, Callable[[], object]] = {
        "ours_plain": lambda: _ours(values, stamps, None, ()),
        "ours_full": lambda: _ours(values, stamps, _KEY, _HEADERS),
        "ours_seal": lambda: encode_batch(tails, stamps, producer_id=7, producer_epoch=0, base_sequence=0),
        "ours_seal_without_ids": lambda: encode_batch(tails, stamps, producer_id=NO_PRODUCER_ID),
        "aiokafka_plain": lambda: _aiokafka(values, stamps, None, []),
        "aiokafka_full": lambda: _aiokafka(values, stamps, _KEY, _HEADERS),
        "kafka_python_plain": lambda: _kafka_python(values, stamps, None, []),
        "kafka_python_full": lambda: _kafka_python(values, stamps, _KEY, _HEADERS),
    }
    for build in loops.values():
        build()
    turns = 3
    each_s = spec.measure_s / turns / len(loops)
    built = dict.fromkeys(loops, 0)
    used_s = dict.fromkeys(loops, 0.0)
    for _ in range(turns):
        for name, build in loops.items():
            started = now = process_time()
            while now - started < each_s:
                for _ in range(10):
                    build()
                built[name] += 10 * BATCH
                now = process_time()
            used_s[name] += now - started
    return {name: built[name] / used_s[name] for name in loops}


def _ours(
    values: list[bytes], stamps: list[int], key: bytes | None, headers: list[tuple[str, bytes]] | tuple[()]
) -> bytes:
    return encode_batch(
        [encode_record_tail(key, value, headers) for value in values],
        stamps,
        producer_id=7,
        producer_epoch=0,
        base_sequence=0,
    )


def _aiokafka(values: list[bytes], stamps: list[int], key: bytes | None, headers: list[tuple[str, bytes]]) -> object:
    builder = AiokafkaBuilder(
        magic=2,
        compression_type=0,
        is_transactional=0,
        producer_id=7,
        producer_epoch=0,
        base_sequence=0,
        batch_size=1_000_000,
    )
    for offset, value in enumerate(values):
        builder.append(offset, stamps[offset], key, value, headers)
    return builder.build()


def _kafka_python(
    values: list[bytes], stamps: list[int], key: bytes | None, headers: list[tuple[str, bytes]]
) -> object:
    builder = KafkaPythonBuilder(
        magic=2,
        compression_type=0,
        is_transactional=0,
        producer_id=7,
        producer_epoch=0,
        base_sequence=0,
        batch_size=1_000_000,
    )
    for offset, value in enumerate(values):
        builder.append(offset, stamps[offset], key, value, headers)
    return builder.build()


WORKLOADS: dict[str, Callable[[Spec, Meter], Figures | None]] = {"encoding": encoding}
