"""Metadata (3): who the brokers are and who leads which partition.

Owns: versions 4 to 13: 4 is the first that does not create topics by asking, 7 has leader epochs, 9 is flexible, 10 has
topic ids, 13 a top-level error (KIP-1102). Refuses to know: which of two answers is newer (cluster/).

Non-obvious: a large cluster's answer has tens of thousands of partitions. So a partition is a named tuple (built in a
third of a frozen dataclass's time) and is read at one go, in the shape that the partition before it had: the numbers of
replicas hardly ever change within a topic. Measured for 4 800 partitions: 22 ms field by field, 5 ms so. `decode_steps`
pauses every `STEP_PARTITIONS`, and passes over a topic whose bytes are those of an earlier answer in the same version:
an entry tells its own length, so one that begins with the whole of another is that other.

Source: MetadataRequest.json, MetadataResponse.json of Apache Kafka 4.1.
"""

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from struct import Struct
from typing import NamedTuple

from .frames import is_flexible
from .primitives import NULL_UUID, Buffer, Reader, Writer

__all__ = [
    "API_KEY",
    "MAX_VERSION",
    "MIN_VERSION",
    "STEP_PARTITIONS",
    "BrokerMetadata",
    "MetadataRequest",
    "MetadataResponse",
    "PartitionMetadata",
    "TopicEntry",
    "TopicMetadata",
    "decode_response",
    "decode_steps",
    "encode_request",
]

API_KEY = 3
MIN_VERSION = 4
MAX_VERSION = 13
#: So many partitions are read between two pauses: half a millisecond.
STEP_PARTITIONS = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class MetadataRequest:
    """``topics`` by name; None asks for all, an empty sequence for the brokers alone."""

    topics: Sequence[str] | None
    allow_auto_topic_creation: bool = False


@dataclass(frozen=True, slots=True)
class BrokerMetadata:
    """One broker and where it listens."""

    id: int
    host: str
    port: int
    rack: str | None = None


class PartitionMetadata(NamedTuple):
    """One partition. ``leader`` and ``leader_epoch`` are -1 where there is none."""

    index: int  # type: ignore[assignment]  # hides tuple.index, which nobody asks of a partition
    error_code: int
    leader: int
    leader_epoch: int
    replicas: tuple[int, ...]
    isr: tuple[int, ...]
    offline: tuple[int, ...]


class TopicEntry(NamedTuple):
    """One topic's part of an answer as it came. Equal ones say the same."""

    version: int
    data: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class TopicMetadata:
    """One topic. ``id`` is sixteen zero bytes where the broker has none or is too old to say."""

    name: str | None
    id: bytes
    error_code: int
    is_internal: bool
    partitions: Sequence[PartitionMetadata]
    entry: TopicEntry | None = field(default=None, repr=False, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class MetadataResponse:
    """One snapshot of the cluster. ``error_code`` 129 asks to start again from the bootstrap servers (KIP-1102)."""

    brokers: Sequence[BrokerMetadata]
    controller_id: int
    cluster_id: str | None
    topics: Sequence[TopicMetadata]
    error_code: int = 0
    throttle_time_ms: int = 0
    unchanged: Sequence[str] = ()
    """Topics that `decode_steps` passed over: their entries are the known ones."""


def encode_request(request: MetadataRequest, version: int) -> bytes:
    writer = Writer(flexible=is_flexible(API_KEY, version))
    writer.array_length(None if request.topics is None else len(request.topics))
    for topic in request.topics or ():
        if version >= 10:
            writer.raw(NULL_UUID)
        writer.nullable_string(topic)
        writer.no_tags()
    writer.boolean(request.allow_auto_topic_creation)
    if 8 <= version <= 10:
        writer.boolean(False)  # include_cluster_authorized_operations
    if version >= 8:
        writer.boolean(False)  # include_topic_authorized_operations
    writer.no_tags()
    return writer.finish()


def decode_response(body: Buffer, version: int) -> MetadataResponse:
    """Decode an answer; raises `ProtocolError`."""
    steps = decode_steps(body, version, lambda name: None)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            response: MetadataResponse = end.value
            return response


def decode_steps(
    body: Buffer, version: int, known: Callable[[str], TopicEntry | None]
) -> Generator[None, None, MetadataResponse]:
    """Decode an answer, pausing where something else may be done first; raises `ProtocolError`.

    Args:
        known: the entry of a topic that need not be decoded again.
    """
    data = bytes(body)
    reader = Reader(data, flexible=is_flexible(API_KEY, version))
    throttle_time_ms = reader.int32()
    brokers = reader.array(_read_broker)
    cluster_id = reader.nullable_string()
    controller_id = reader.int32()
    topics: list[TopicMetadata] = []
    unchanged: list[str] = []
    for _ in range(reader.array_count()):
        start = reader.position
        error_code = reader.int16()
        name = reader.nullable_string()
        entry = None if name is None else known(name)
        if name is not None and entry is not None and entry.version == version and data.startswith(entry.data, start):
            reader.skip(start + len(entry.data) - reader.position)
            unchanged.append(name)
            yield
            continue
        topic_id = reader.uuid() if version >= 10 else NULL_UUID
        is_internal = reader.boolean()
        partitions = yield from _read_partitions(reader, version)
        if version >= 8:
            reader.int32()  # topic_authorized_operations
        reader.skip_tags()
        topics.append(
            TopicMetadata(
                name=name,
                id=topic_id,
                error_code=error_code,
                is_internal=is_internal,
                partitions=partitions,
                entry=TopicEntry(version, data[start : reader.position]),
            )
        )
    if 8 <= version <= 10:
        reader.int32()  # cluster_authorized_operations
    error_code = reader.int16() if version >= 13 else 0
    reader.skip_tags()
    return MetadataResponse(
        brokers=brokers,
        controller_id=controller_id,
        cluster_id=cluster_id,
        topics=topics,
        error_code=error_code,
        throttle_time_ms=throttle_time_ms,
        unchanged=unchanged,
    )


def _read_broker(reader: Reader) -> BrokerMetadata:
    broker = BrokerMetadata(reader.int32(), reader.string(), reader.int32(), reader.nullable_string())
    reader.skip_tags()
    return broker


def _read_partitions(reader: Reader, version: int) -> Generator[None, None, Sequence[PartitionMetadata]]:
    found: list[PartitionMetadata] = []
    count = reader.array_count()
    while len(found) < count:
        partition = _read_partition(reader, version)
        found.append(partition)
        shape = (len(partition.replicas), len(partition.isr), len(partition.offline))
        if reader.flexible and max(shape) < _ONE_BYTE_COUNTS:
            _read_alike(reader, shape, min(count, len(found) + STEP_PARTITIONS), found)
        yield
    return tuple(found)


def _read_alike(reader: Reader, shape: tuple[int, int, int], count: int, found: list[PartitionMetadata]) -> None:
    """Read partitions for as long as they have ``shape``, up to ``count`` in ``found``."""
    layout = _layout(*shape)
    replicas, isr, offline = (number + 1 for number in shape)  # as compact counts are written
    isr_at = 4 + replicas
    offline_at = isr_at + isr
    append, make = found.append, PartitionMetadata._make
    for values in reader.unpack_many(layout, count - len(found)):
        if values[4] != replicas or values[isr_at] != isr or values[offline_at] != offline or values[-1] != 0:
            return
        reader.skip(layout.size)
        append(
            make(
                (
                    values[1],
                    values[0],
                    values[2],
                    values[3],
                    values[5:isr_at],
                    values[isr_at + 1 : offline_at],
                    values[offline_at + 1 : -1],
                )
            )
        )


# Compact counts (one more than the number) from 128 on have two bytes.
_ONE_BYTE_COUNTS = 127


@lru_cache(maxsize=64)
def _layout(replicas: int, isr: int, offline: int) -> Struct:
    """A partition of a flexible version without tagged fields, each count being one byte."""
    return Struct(f">hiiiB{replicas}iB{isr}iB{offline}iB")


def _read_partition(reader: Reader, version: int) -> PartitionMetadata:
    error_code = reader.int16()
    index = reader.int32()
    leader = reader.int32()
    leader_epoch = reader.int32() if version >= 7 else -1
    replicas = reader.int32_array()
    isr = reader.int32_array()
    offline = reader.int32_array() if version >= 5 else ()
    reader.skip_tags()
    return PartitionMetadata(index, error_code, leader, leader_epoch, replicas, isr, offline)
