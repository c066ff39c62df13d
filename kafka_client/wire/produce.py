"""Produce (0): batches to partition leaders.

Owns: versions 3 to 13 of the message: 3 is the first with record batches v2, 9 is flexible, 10 names the new leader
(KIP-951), 13 replaces topic names by ids (KIP-516). Refuses to know: what is in a batch, and what an error code means.

Invariant: a request is built from parts; a batch's bytes are copied once, by the frame's join.

What is made for every batch is a msgspec Struct: a frozen dataclass takes ten times as long to make.

Source: ProduceRequest.json, ProduceResponse.json of Apache Kafka 4.1.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from struct import Struct

import msgspec

from .frames import is_flexible
from .primitives import Buffer, Reader, Writer

__all__ = [
    "API_KEY",
    "MAX_VERSION",
    "MIN_VERSION",
    "LeaderHint",
    "NodeEndpoint",
    "PartitionBatch",
    "PartitionResult",
    "ProduceRequest",
    "ProduceResponse",
    "RecordError",
    "decode_response",
    "encode_request",
    "encode_request_parts",
]

API_KEY = 0
MIN_VERSION = 3
MAX_VERSION = 13
#: From here on topics are named by their ids alone.
FIRST_VERSION_WITH_TOPIC_IDS = 13


class PartitionBatch(msgspec.Struct, frozen=True):
    """One record batch for one partition. ``topic_id`` is needed from version 13 on."""

    topic: str
    topic_id: bytes | None
    partition: int
    records: Buffer


class ProduceRequest(msgspec.Struct, frozen=True, kw_only=True):
    """At most one batch a partition; ``acks`` is always -1 here, the field exists for the wire."""

    batches: Sequence[PartitionBatch]
    timeout_ms: int
    acks: int = -1
    transactional_id: str | None = None


@dataclass(frozen=True, slots=True)
class RecordError:
    """Why one record had its batch dropped (KIP-467)."""

    batch_index: int
    message: str | None


@dataclass(frozen=True, slots=True)
class LeaderHint:
    """Who leads now, as the broker knows it (KIP-951). ``leader_id`` is -1 where it does not know either."""

    leader_id: int
    leader_epoch: int


@dataclass(frozen=True, slots=True)
class NodeEndpoint:
    """Where a leader that was named in a hint listens."""

    node_id: int
    host: str
    port: int
    rack: str | None


class PartitionResult(msgspec.Struct, frozen=True, kw_only=True):
    """One partition's answer. ``topic`` is None from version 13 on, ``topic_id`` before."""

    topic: str | None
    topic_id: bytes | None
    partition: int
    error_code: int
    base_offset: int
    """The first record's offset. Beside an error: >= 0 means that the batch was appended all the same."""
    log_append_time_ms: int = -1
    log_start_offset: int = -1
    record_errors: Sequence[RecordError] = ()
    error_message: str | None = None
    current_leader: LeaderHint | None = None


class ProduceResponse(msgspec.Struct, frozen=True, kw_only=True):
    """What became of each batch. A broker may leave a partition out or repeat it: the caller checks."""

    partitions: Sequence[PartitionResult]
    throttle_time_ms: int = 0
    node_endpoints: Sequence[NodeEndpoint] = ()


def encode_request(request: ProduceRequest, version: int) -> bytes:
    """The body in one piece; `encode_request_parts` saves a copy of the batches."""
    return b"".join(encode_request_parts(request, version))


def encode_request_parts(request: ProduceRequest, version: int) -> list[Buffer]:
    """The body as parts for `encode_request_frame`."""
    writer = Writer(flexible=is_flexible(API_KEY, version))
    writer.nullable_string(request.transactional_id)
    writer.int16(request.acks)
    writer.int32(request.timeout_ms)
    topics: dict[tuple[str, bytes | None], list[PartitionBatch]] = {}
    for batch in request.batches:
        topics.setdefault((batch.topic, batch.topic_id), []).append(batch)
    writer.array_length(len(topics))
    for (topic, topic_id), batches in topics.items():
        if version < FIRST_VERSION_WITH_TOPIC_IDS:
            writer.string(topic)
        elif topic_id is None:
            raise ValueError(f"Produce v{version} names topics by id, and {topic!r} has none")
        else:
            writer.raw(topic_id)
        writer.array_length(len(batches))
        for batch in batches:
            writer.int32(batch.partition)
            writer.bytes_(batch.records)
            writer.no_tags()
        writer.no_tags()
    writer.no_tags()
    return writer.parts


# index, error_code, base_offset, log_append_time_ms, and log_start_offset from version 5 on
_PARTITION_V3 = Struct(">ihqq")
_PARTITION_V5 = Struct(">ihqqq")
#: No record errors, a null message and no tagged fields, in a flexible version: how a success ends.
_NOTHING_TO_SAY = b"\x01\x00\x00"
_LEADER_HINT_TAG = 0
_NODE_ENDPOINTS_TAG = 0


def decode_response(body: Buffer, version: int) -> ProduceResponse:
    """Decode an answer; raises `ProtocolError`."""
    reader = Reader(body, flexible=is_flexible(API_KEY, version))
    results: list[PartitionResult] = []

    def read_topic(reader: Reader) -> None:
        topic = reader.string() if version < FIRST_VERSION_WITH_TOPIC_IDS else None
        topic_id = reader.uuid() if version >= FIRST_VERSION_WITH_TOPIC_IDS else None
        results.extend(reader.array(lambda reader: _read_partition(reader, version, topic, topic_id)))
        reader.skip_tags()

    reader.array(read_topic)
    throttle_time_ms = reader.int32()
    tags = reader.tags()
    endpoints: Sequence[NodeEndpoint] = ()
    if version >= 10 and _NODE_ENDPOINTS_TAG in tags:
        endpoints = Reader(tags[_NODE_ENDPOINTS_TAG], flexible=True).array(_read_endpoint)
    return ProduceResponse(partitions=results, throttle_time_ms=throttle_time_ms, node_endpoints=endpoints)


def _read_partition(reader: Reader, version: int, topic: str | None, topic_id: bytes | None) -> PartitionResult:
    log_start_offset = -1
    if version >= 5:
        partition, error_code, base_offset, log_append_time_ms, log_start_offset = reader.unpack(_PARTITION_V5)
    else:
        partition, error_code, base_offset, log_append_time_ms = reader.unpack(_PARTITION_V3)
    if reader.flexible and reader.skip_if(_NOTHING_TO_SAY):
        return PartitionResult(
            topic=topic,
            topic_id=topic_id,
            partition=partition,
            error_code=error_code,
            base_offset=base_offset,
            log_append_time_ms=log_append_time_ms,
            log_start_offset=log_start_offset,
        )
    record_errors: Sequence[RecordError] = ()
    error_message = None
    if version >= 8:
        record_errors = reader.array(_read_record_error)
        error_message = reader.nullable_string()
    tags = reader.tags()
    hint = None
    if version >= 10 and _LEADER_HINT_TAG in tags:
        nested = Reader(tags[_LEADER_HINT_TAG], flexible=True)
        hint = LeaderHint(nested.int32(), nested.int32())
    return PartitionResult(
        topic=topic,
        topic_id=topic_id,
        partition=partition,
        error_code=error_code,
        base_offset=base_offset,
        log_append_time_ms=log_append_time_ms,
        log_start_offset=log_start_offset,
        record_errors=record_errors,
        error_message=error_message,
        current_leader=hint,
    )


def _read_record_error(reader: Reader) -> RecordError:
    error = RecordError(reader.int32(), reader.nullable_string())
    reader.skip_tags()
    return error


def _read_endpoint(reader: Reader) -> NodeEndpoint:
    endpoint = NodeEndpoint(reader.int32(), reader.string(), reader.int32(), reader.nullable_string())
    reader.skip_tags()
    return endpoint
