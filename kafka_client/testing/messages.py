"""Kafka's messages for the fake cluster, written from kio's schemas.

Owns: reading requests (kio's own decoder) and writing answers (a walk over kio's schema classes). Refuses to know what
a message means.

Nothing here is shared with `kafka_client.wire`: the fake must not repeat a mistake of the client that it judges. kio's
own encoder is not used because it cannot write what a broker of tomorrow sends: tags and error codes that no schema
names yet.

Invariant: an answer has exactly the members that its version's schema asks for; a missing one is a `KeyError` here,
never a silent default, unless the schema itself names a default.
"""

import dataclasses
import enum
import functools
import struct
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

from kio.index import KioIndexError, load_entity_schema, load_request_schema, load_response_schema
from kio.serial import entity_reader
from kio.serial._introspect import (
    EntityField,
    EntityTupleField,
    PrimitiveField,
    PrimitiveTupleField,
    classify_field,
    is_optional,
)
from kio.serial.errors import SerialError
from kio.static.constants import EntityType

__all__ = [
    "VERSIONS_OF_KAFKA_4_1",
    "Api",
    "BadRequest",
    "Value",
    "decode_answer",
    "decode_header",
    "decode_request",
    "encode_answer",
    "encode_request",
]

Value: TypeAlias = "int | str | bytes | uuid.UUID | Sequence[Value] | Mapping[str, Value] | None"
Write: TypeAlias = Callable[[bytearray, Value], None]


class Api(enum.IntEnum):
    """The API keys that the fake answers."""

    PRODUCE = 0
    FETCH = 1
    LIST_OFFSETS = 2
    METADATA = 3
    FIND_COORDINATOR = 10
    SASL_HANDSHAKE = 17
    API_VERSIONS = 18
    CREATE_TOPICS = 19
    INIT_PRODUCER_ID = 22
    DESCRIBE_CONFIGS = 32
    SASL_AUTHENTICATE = 36


#: What Apache Kafka 4.1 offers of them. Source: clients/src/main/resources/common/message/*Request.json.
VERSIONS_OF_KAFKA_4_1: Mapping[Api, tuple[int, int]] = {
    # Versions 0 to 2 are announced for the sake of old librdkafka and refused all the same (KIP-896).
    Api.PRODUCE: (0, 13),
    Api.FETCH: (4, 18),
    Api.LIST_OFFSETS: (1, 10),
    Api.METADATA: (0, 13),
    Api.FIND_COORDINATOR: (0, 6),
    Api.SASL_HANDSHAKE: (0, 1),
    Api.API_VERSIONS: (0, 4),
    Api.CREATE_TOPICS: (2, 7),
    Api.INIT_PRODUCER_ID: (0, 5),
    Api.DESCRIBE_CONFIGS: (1, 4),
    Api.SASL_AUTHENTICATE: (0, 2),
}

#: A tag that no schema uses, and what it carries: a client must skip it wherever tags may stand.
UNKNOWN_TAG = b"\x01\xe7\x07\x05later"  # one tag, number 999, five bytes


class BadRequest(Exception):
    """The bytes are not this request; a broker closes the connection."""


@dataclasses.dataclass(frozen=True, slots=True)
class Header:
    """A request's header, and where its body begins."""

    api_key: int
    version: int
    correlation_id: int
    client_id: str | None
    body_at: int


def decode_header(frame: bytes) -> Header:
    """Read the request header; raises `BadRequest`. Its version is the schema's, flexible or not."""
    if len(frame) < 8:
        raise BadRequest(f"a frame of {len(frame)} bytes has no room for a request header")
    api_key, version, correlation_id = struct.unpack_from(">hhi", frame)
    # A version of ApiVersions newer than we know is still answered (KIP-511), so its header is read as the newest.
    known = min(version, 4) if api_key == Api.API_VERSIONS else version
    try:
        schema = load_request_schema(api_key, known)
        reader = entity_reader(load_entity_schema("request_header", 2 if schema.__flexible__ else 1, EntityType.header))
        header, size = reader(frame, 0)
    except (KioIndexError, SerialError, ValueError, KeyError, IndexError, TypeError) as error:
        raise BadRequest(f"header of api {api_key} version {version}: {error}") from error
    client_id: str | None = getattr(header, "client_id", None)
    return Header(api_key, version, correlation_id, client_id, size)


def decode_request(api: Api, version: int, frame: bytes, at: int) -> object:
    """Read a request's body, all of it; an instance of kio's class for it. Raises `BadRequest`."""
    try:
        request, size = entity_reader(load_request_schema(api, version))(frame, at)
    except (KioIndexError, SerialError, ValueError, KeyError, IndexError, TypeError) as error:
        raise BadRequest(f"{api.name} version {version}: {error}") from error
    if at + size != len(frame):
        raise BadRequest(f"{api.name} version {version}: {len(frame) - at - size} bytes after the end of the request")
    return request


def encode_answer(
    api: Api, version: int, correlation_id: int, answer: Mapping[str, Value], *, unknown_tags: bool = False
) -> bytes:
    """One whole answer frame after its length: header and body.

    Args:
        answer: The members by kio's names; durations and times as int milliseconds, error codes as int. Members that
            this version lacks are ignored, so one mapping serves all versions.
        unknown_tags: Put a tag that no schema names wherever tags may stand.
    """
    schema = load_response_schema(api, version)
    out = bytearray(struct.pack(">i", correlation_id))
    # ApiVersions always has the old answer header: the client cannot know yet what the broker speaks (KIP-511).
    if schema.__flexible__ and api is not Api.API_VERSIONS:
        out += UNKNOWN_TAG if unknown_tags else b"\0"
    _struct_writer(schema, unknown_tags)(out, answer)
    return bytes(out)


def encode_request(
    api: int, version: int, correlation_id: int, client_id: str | None, request: Mapping[str, Value]
) -> bytes:
    """One whole request frame after its length: header and body; members as in `encode_answer`."""
    schema = load_request_schema(api, version)
    out = bytearray(struct.pack(">hhi", api, version, correlation_id))
    # The client id keeps the old form of a string in the flexible header (KIP-482).
    _primitive_writer("string", False)(out, client_id)
    if schema.__flexible__:
        out += b"\0"
    _struct_writer(schema, False)(out, request)
    return bytes(out)


def decode_answer(api: int, version: int, frame: bytes) -> object:
    """Read an answer's frame, all of it; an instance of kio's class for it. Raises `BadRequest`."""
    schema = load_response_schema(api, version)
    at = 5 if schema.__flexible__ and api != Api.API_VERSIONS else 4
    try:
        answer, size = entity_reader(schema)(frame, at)
    except (SerialError, ValueError, KeyError, IndexError, TypeError) as error:
        raise BadRequest(f"answer to api {api} version {version}: {error}") from error
    if at + size != len(frame):
        raise BadRequest(f"answer to api {api} version {version}: {len(frame) - at - size} bytes after its end")
    return answer


def write_uvarint(out: bytearray, value: int) -> None:
    while value > 0x7F:
        out.append((value & 0x7F) | 0x80)
        value >>= 7
    out.append(value)


@functools.cache
def _struct_writer(schema: type, unknown_tags: bool) -> Write:
    flexible: bool = vars(schema)["__flexible__"]
    plain: list[tuple[str, Write, Value]] = []
    tagged: list[tuple[int, str, Write]] = []
    for member in dataclasses.fields(schema):
        tag = member.metadata.get("tag")
        write = _member_writer(member, flexible, unknown_tags, nullable=tag is None and is_optional(member))
        if tag is None:
            plain.append((member.name, write, _default(member)))
        else:
            tagged.append((int(tag), member.name, write))
    tagged.sort()

    def write_struct(out: bytearray, value: Value) -> None:
        if not isinstance(value, Mapping):
            raise TypeError(f"{schema.__name__}: a mapping is needed, not {value!r}")
        for name, write, default in plain:
            try:
                write(out, value[name] if default is _NO_DEFAULT else value.get(name, default))
            except KeyError:
                raise KeyError(f"{schema.__module__}.{schema.__name__}: {name} is missing") from None
        if flexible:
            _write_tags(out, value)

    def _write_tags(out: bytearray, value: Mapping[str, Value]) -> None:
        present = [(tag, name, write) for tag, name, write in tagged if name in value]
        write_uvarint(out, len(present) + unknown_tags)
        for tag, name, write in present:
            content = bytearray()
            write(content, value[name])
            write_uvarint(out, tag)
            write_uvarint(out, len(content))
            out += content
        if unknown_tags:
            out += UNKNOWN_TAG[1:]

    return write_struct


_NO_DEFAULT = "\0no default"


def _default(member: "dataclasses.Field[object]") -> Value:
    if member.default is dataclasses.MISSING or not isinstance(member.default, int | str | bytes | tuple | None):
        # kio's own conversions (a duration, a time, an error code) have their zero as default.
        kind = member.metadata.get("kafka_type")
        if member.default is dataclasses.MISSING or kind not in ("timedelta_i32", "timedelta_i64"):
            return _NO_DEFAULT
        return 0
    if member.default is None and member.metadata.get("kafka_type") == "datetime_i64":
        return -1
    return member.default


def _member_writer(member: "dataclasses.Field[object]", flexible: bool, unknown_tags: bool, *, nullable: bool) -> Write:
    kind = classify_field(member)
    if isinstance(kind, EntityTupleField):
        return _array_writer(_struct_writer(kind.type_, unknown_tags), flexible)
    if isinstance(kind, EntityField):
        inner = _struct_writer(kind.type_, unknown_tags)
        return _nullable_struct_writer(inner) if nullable else inner
    if isinstance(kind, PrimitiveTupleField):
        return _array_writer(_primitive_writer(member.metadata["kafka_type"], flexible), flexible)
    assert isinstance(kind, PrimitiveField)
    return _primitive_writer(member.metadata["kafka_type"], flexible)


def _array_writer(item: Write, flexible: bool) -> Write:
    def write_array(out: bytearray, value: Value) -> None:
        if value is None:
            out += b"\0" if flexible else b"\xff\xff\xff\xff"
            return
        assert isinstance(value, Sequence)
        assert not isinstance(value, str | bytes)
        if flexible:
            write_uvarint(out, len(value) + 1)
        else:
            out += struct.pack(">i", len(value))
        for each in value:
            item(out, each)

    return write_array


def _nullable_struct_writer(inner: Write) -> Write:
    def write_nullable(out: bytearray, value: Value) -> None:
        out += b"\xff" if value is None else b"\x01"
        if value is not None:
            inner(out, value)

    return write_nullable


_NUMBERS = {
    "int8": ">b",
    "int16": ">h",
    "int32": ">i",
    "int64": ">q",
    "uint16": ">H",
    "uint32": ">I",
    "float64": ">d",
    "bool": ">?",
    "error_code": ">h",
    "timedelta_i32": ">i",
    "timedelta_i64": ">q",
    "datetime_i64": ">q",
}


def _primitive_writer(kafka_type: str, flexible: bool) -> Write:
    if kafka_type in _NUMBERS:
        pack = struct.Struct(_NUMBERS[kafka_type]).pack

        def write_number(out: bytearray, value: Value) -> None:
            out += pack(value)

        return write_number
    if kafka_type == "uuid":

        def write_uuid(out: bytearray, value: Value) -> None:
            assert value is None or isinstance(value, uuid.UUID)
            out += bytes(16) if value is None else value.bytes

        return write_uuid
    assert kafka_type in ("string", "bytes", "records"), kafka_type
    length = ">h" if kafka_type == "string" else ">i"

    def write_bytes(out: bytearray, value: Value) -> None:
        assert value is None or isinstance(value, str | bytes)
        content = value.encode() if isinstance(value, str) else value
        if flexible:
            write_uvarint(out, 0 if content is None else len(content) + 1)
        else:
            out += struct.pack(length, -1 if content is None else len(content))
        out += content or b""

    return write_bytes
