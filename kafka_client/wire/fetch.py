"""Fetch (1): records of one partition from one offset on.

Owns: versions 4 to 18, always one partition and no fetch session. Refuses to know: what is in the records, consumer
groups, followers.

Source: FetchRequest.json, FetchResponse.json of Apache Kafka 4.1; KIP-74, KIP-227, KIP-516.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from .frames import is_flexible
from .primitives import Buffer, Reader, Writer

__all__ = [
    "API_KEY",
    "MAX_VERSION",
    "MIN_VERSION",
    "FetchRequest",
    "FetchResponse",
    "FetchedPartition",
    "decode_response",
    "encode_request",
]

API_KEY = 1
MIN_VERSION = 4
MAX_VERSION = 18
#: From here on topics are named by their ids alone.
FIRST_VERSION_WITH_TOPIC_IDS = 13

_CONSUMER = -1
_READ_COMMITTED = 1
_NO_SESSION = 0
_SESSIONLESS_EPOCH = -1
_NO_EPOCH = -1
_NO_OFFSET = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchRequest:
    """The broker answers when ``min_bytes`` are there or ``max_wait_ms`` is over. ``topic_id``: from version 13 on."""

    topic: str
    topic_id: bytes | None
    partition: int
    offset: int
    max_wait_ms: int
    min_bytes: int = 1
    max_bytes: int = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchedPartition:
    """``records`` is a sequence of record batches, the last one possibly cut short, the first possibly beginning before
    the offset asked for. ``high_watermark`` is where what all replicas have ends."""

    partition: int
    error_code: int
    high_watermark: int
    log_start_offset: int
    records: memoryview


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchResponse:
    """``error_code`` stands for the whole request."""

    partitions: Sequence[FetchedPartition]
    error_code: int = 0
    throttle_time_ms: int = 0


def encode_request(request: FetchRequest, version: int) -> bytes:
    writer = Writer(flexible=is_flexible(API_KEY, version))
    if version <= 14:
        writer.int32(_CONSUMER)
    writer.int32(request.max_wait_ms)
    writer.int32(request.min_bytes)
    writer.int32(request.max_bytes)
    writer.int8(_READ_COMMITTED)
    if version >= 7:
        writer.int32(_NO_SESSION)
        writer.int32(_SESSIONLESS_EPOCH)
    writer.array_length(1)
    if version < FIRST_VERSION_WITH_TOPIC_IDS:
        writer.string(request.topic)
    elif request.topic_id is None:
        raise ValueError(f"Fetch v{version} names topics by id, and {request.topic!r} has none")
    else:
        writer.raw(request.topic_id)
    writer.array_length(1)
    writer.int32(request.partition)
    if version >= 9:
        writer.int32(_NO_EPOCH)  # current_leader_epoch
    writer.int64(request.offset)
    if version >= 12:
        writer.int32(_NO_EPOCH)  # last_fetched_epoch
    if version >= 5:
        writer.int64(_NO_OFFSET)  # log_start_offset, for followers
    writer.int32(request.max_bytes)
    writer.no_tags()
    writer.no_tags()
    if version >= 7:
        writer.array_length(0)  # forgotten topics
    if version >= 11:
        writer.string("")  # rack_id
    writer.no_tags()
    return writer.finish()


def decode_response(body: Buffer, version: int) -> FetchResponse:
    """Decode an answer; raises `ProtocolError`. ``records`` are views of ``body``."""
    reader = Reader(body, flexible=is_flexible(API_KEY, version))
    throttle_time_ms = reader.int32()
    error_code = 0
    if version >= 7:
        error_code = reader.int16()
        reader.int32()  # session_id
    partitions: list[FetchedPartition] = []

    def read_topic(reader: Reader) -> None:
        if version < FIRST_VERSION_WITH_TOPIC_IDS:
            reader.string()
        else:
            reader.uuid()
        partitions.extend(reader.array(lambda reader: _read_partition(reader, version)))
        reader.skip_tags()

    reader.array(read_topic)
    reader.skip_tags()
    return FetchResponse(partitions=partitions, error_code=error_code, throttle_time_ms=throttle_time_ms)


def _read_partition(reader: Reader, version: int) -> FetchedPartition:
    partition = reader.int32()
    error_code = reader.int16()
    high_watermark = reader.int64()
    reader.int64()  # last_stable_offset
    log_start_offset = reader.int64() if version >= 5 else -1
    reader.array(_skip_aborted)
    if version >= 11:
        reader.int32()  # preferred_read_replica
    records = reader.nullable_bytes()
    reader.skip_tags()
    return FetchedPartition(
        partition=partition,
        error_code=error_code,
        high_watermark=high_watermark,
        log_start_offset=log_start_offset,
        records=memoryview(b"") if records is None else records,
    )


def _skip_aborted(reader: Reader) -> None:
    reader.int64()  # producer_id
    reader.int64()  # first_offset
    reader.skip_tags()
