"""DescribeConfigs (32): what a topic or a broker is configured as.

Owns: versions 1 to 4. Refuses to know: synonyms and documentation, which are not asked for.

Source: DescribeConfigsRequest.json, DescribeConfigsResponse.json of Apache Kafka 4.1; KIP-133.
"""

import enum
from collections.abc import Sequence
from dataclasses import dataclass

from .frames import is_flexible
from .primitives import Buffer, Reader, Writer

__all__ = [
    "API_KEY",
    "MAX_VERSION",
    "MIN_VERSION",
    "ConfigEntry",
    "DescribeConfigsRequest",
    "DescribeConfigsResponse",
    "DescribedResource",
    "Resource",
    "ResourceType",
    "decode_response",
    "encode_request",
]

API_KEY = 32
MIN_VERSION = 1
MAX_VERSION = 4


class ResourceType(enum.IntEnum):
    """What a configuration belongs to (ConfigResource.Type)."""

    TOPIC = 2
    BROKER = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Resource:
    """``keys`` None asks for all of them."""

    type: ResourceType
    name: str
    keys: Sequence[str] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DescribeConfigsRequest:
    """A broker's own configuration is only known to that broker."""

    resources: Sequence[Resource]


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigEntry:
    """One setting. ``value`` is None for secrets. ``source``: 1 the topic's own, 4 the broker's file, 5 the default."""

    name: str
    value: str | None
    read_only: bool
    source: int
    is_sensitive: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class DescribedResource:
    """What became of one resource. ``type`` is a number, since brokers may know more types than we do."""

    error_code: int
    error_message: str | None
    type: int
    name: str
    configs: Sequence[ConfigEntry]


@dataclass(frozen=True, slots=True, kw_only=True)
class DescribeConfigsResponse:
    """One result a resource."""

    resources: Sequence[DescribedResource]
    throttle_time_ms: int = 0


def encode_request(request: DescribeConfigsRequest, version: int) -> bytes:
    writer = Writer(flexible=is_flexible(API_KEY, version))
    writer.array_length(len(request.resources))
    for resource in request.resources:
        writer.int8(resource.type)
        writer.string(resource.name)
        if resource.keys is None:
            writer.array_length(None)
        else:
            writer.string_array(resource.keys)
        writer.no_tags()
    writer.boolean(False)  # include_synonyms
    if version >= 3:
        writer.boolean(False)  # include_documentation
    writer.no_tags()
    return writer.finish()


def decode_response(body: Buffer, version: int) -> DescribeConfigsResponse:
    """Decode an answer; raises `ProtocolError`."""
    reader = Reader(body, flexible=is_flexible(API_KEY, version))
    throttle_time_ms = reader.int32()
    resources = reader.array(lambda reader: _read_resource(reader, version))
    reader.skip_tags()
    return DescribeConfigsResponse(resources=resources, throttle_time_ms=throttle_time_ms)


def _read_resource(reader: Reader, version: int) -> DescribedResource:
    error_code = reader.int16()
    error_message = reader.nullable_string()
    resource_type = reader.int8()
    name = reader.string()
    configs = reader.array(lambda reader: _read_entry(reader, version))
    reader.skip_tags()
    return DescribedResource(
        error_code=error_code, error_message=error_message, type=resource_type, name=name, configs=configs
    )


def _read_entry(reader: Reader, version: int) -> ConfigEntry:
    name = reader.string()
    value = reader.nullable_string()
    read_only = reader.boolean()
    source = reader.int8()
    is_sensitive = reader.boolean()
    reader.array(_skip_synonym)
    if version >= 3:
        reader.int8()  # config_type
        reader.nullable_string()  # documentation
    reader.skip_tags()
    return ConfigEntry(name=name, value=value, read_only=read_only, source=source, is_sensitive=is_sensitive)


def _skip_synonym(reader: Reader) -> None:
    reader.string()  # name
    reader.nullable_string()  # value
    reader.int8()  # source
    reader.skip_tags()
