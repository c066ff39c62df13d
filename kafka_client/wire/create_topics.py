"""CreateTopics (19): make topics.

Owns: versions 2 to 7. Refuses to know: replica assignments by hand.

Source: CreateTopicsRequest.json, CreateTopicsResponse.json of Apache Kafka 4.1.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from .frames import is_flexible
from .primitives import NULL_UUID, Buffer, Reader, Writer

__all__ = [
    "API_KEY",
    "MAX_VERSION",
    "MIN_VERSION",
    "CreateTopicsRequest",
    "CreateTopicsResponse",
    "CreatedTopic",
    "NewTopic",
    "decode_response",
    "encode_request",
]

API_KEY = 19
MIN_VERSION = 2
MAX_VERSION = 7


@dataclass(frozen=True, slots=True, kw_only=True)
class NewTopic:
    """A topic to make. -1 takes the broker's default, from version 4 on."""

    name: str
    partitions: int = -1
    replication_factor: int = -1
    configs: Sequence[tuple[str, str | None]] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateTopicsRequest:
    """``validate_only`` checks and makes nothing."""

    topics: Sequence[NewTopic]
    timeout_ms: int
    validate_only: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class CreatedTopic:
    """What became of one topic; ``partitions`` is -1 where the broker does not say."""

    name: str
    id: bytes
    error_code: int
    error_message: str | None
    partitions: int = -1
    replication_factor: int = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateTopicsResponse:
    """One result a topic."""

    topics: Sequence[CreatedTopic]
    throttle_time_ms: int = 0


def encode_request(request: CreateTopicsRequest, version: int) -> bytes:
    writer = Writer(flexible=is_flexible(API_KEY, version))
    writer.array_length(len(request.topics))
    for topic in request.topics:
        writer.string(topic.name)
        writer.int32(topic.partitions)
        writer.int16(topic.replication_factor)
        writer.array_length(0)  # assignments
        writer.array_length(len(topic.configs))
        for name, value in topic.configs:
            writer.string(name)
            writer.nullable_string(value)
            writer.no_tags()
        writer.no_tags()
    writer.int32(request.timeout_ms)
    writer.boolean(request.validate_only)
    writer.no_tags()
    return writer.finish()


def decode_response(body: Buffer, version: int) -> CreateTopicsResponse:
    """Decode an answer; raises `ProtocolError`."""
    reader = Reader(body, flexible=is_flexible(API_KEY, version))
    throttle_time_ms = reader.int32()
    topics = reader.array(lambda reader: _read_topic(reader, version))
    reader.skip_tags()
    return CreateTopicsResponse(topics=topics, throttle_time_ms=throttle_time_ms)


def _read_topic(reader: Reader, version: int) -> CreatedTopic:
    name = reader.string()
    topic_id = reader.uuid() if version >= 7 else NULL_UUID
    error_code = reader.int16()
    error_message = reader.nullable_string()
    partitions = replication_factor = -1
    if version >= 5:
        partitions = reader.int32()
        replication_factor = reader.int16()
        reader.array(_skip_config)
    reader.skip_tags()
    return CreatedTopic(
        name=name,
        id=topic_id,
        error_code=error_code,
        error_message=error_message,
        partitions=partitions,
        replication_factor=replication_factor,
    )


def _skip_config(reader: Reader) -> None:
    reader.string()  # name
    reader.nullable_string()  # value
    reader.boolean()  # read_only
    reader.int8()  # config_source
    reader.boolean()  # is_sensitive
    reader.skip_tags()
