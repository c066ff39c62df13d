"""ListOffsets (2): where a partition begins, ends, or was at some time.

Owns: versions 1 to 11. Refuses to know: tiers of storage; 11 differs from 10 only in what may be asked about those.

Source: ListOffsetsRequest.json, ListOffsetsResponse.json of Apache Kafka 4.3; KIP-79, KIP-1023.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from .frames import is_flexible
from .primitives import Buffer, Reader, Writer

__all__ = [
    "API_KEY",
    "EARLIEST",
    "LATEST",
    "MAX_VERSION",
    "MIN_VERSION",
    "ListOffsetsRequest",
    "ListOffsetsResponse",
    "PartitionOffset",
    "decode_response",
    "encode_request",
]

API_KEY = 2
MIN_VERSION = 1
MAX_VERSION = 11

#: In place of a timestamp.
EARLIEST = -2
LATEST = -1

_CONSUMER = -1  # replica id of one that is not a replica
_READ_COMMITTED = 1
_NO_LEADER_EPOCH = -1
_REMOTE_TIMEOUT_MS = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class ListOffsetsRequest:
    """Topic → (partition, timestamp in ms or `EARLIEST` or `LATEST`)."""

    topics: Mapping[str, Sequence[tuple[int, int]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class PartitionOffset:
    """The first offset at or after the time asked for; -1 if there is none."""

    topic: str
    partition: int
    error_code: int
    timestamp_ms: int
    offset: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ListOffsetsResponse:
    """One result a partition."""

    partitions: Sequence[PartitionOffset]
    throttle_time_ms: int = 0


def encode_request(request: ListOffsetsRequest, version: int) -> bytes:
    writer = Writer(flexible=is_flexible(API_KEY, version))
    writer.int32(_CONSUMER)
    if version >= 2:
        writer.int8(_READ_COMMITTED)
    writer.array_length(len(request.topics))
    for topic, partitions in request.topics.items():
        writer.string(topic)
        writer.array_length(len(partitions))
        for partition, timestamp in partitions:
            writer.int32(partition)
            if version >= 4:
                writer.int32(_NO_LEADER_EPOCH)
            writer.int64(timestamp)
            writer.no_tags()
        writer.no_tags()
    if version >= 10:
        writer.int32(_REMOTE_TIMEOUT_MS)
    writer.no_tags()
    return writer.finish()


def decode_response(body: Buffer, version: int) -> ListOffsetsResponse:
    """Decode an answer; raises `ProtocolError`."""
    reader = Reader(body, flexible=is_flexible(API_KEY, version))
    throttle_time_ms = reader.int32() if version >= 2 else 0
    found: list[PartitionOffset] = []

    def read_topic(reader: Reader) -> None:
        topic = reader.string()
        found.extend(reader.array(lambda reader: _read_partition(reader, version, topic)))
        reader.skip_tags()

    reader.array(read_topic)
    reader.skip_tags()
    return ListOffsetsResponse(partitions=found, throttle_time_ms=throttle_time_ms)


def _read_partition(reader: Reader, version: int, topic: str) -> PartitionOffset:
    partition = reader.int32()
    error_code = reader.int16()
    timestamp = reader.int64()
    offset = reader.int64()
    if version >= 4:
        reader.int32()  # leader_epoch
    reader.skip_tags()
    return PartitionOffset(
        topic=topic, partition=partition, error_code=error_code, timestamp_ms=timestamp, offset=offset
    )
