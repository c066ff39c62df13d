"""Two oracles that know nothing of our codec: Apache Kafka's own message schemas, and kio.

The schemas (the JSON files from which Kafka generates its Java classes; kafka-python ships them) are interpreted here,
both ways, for any version; kio reads everything that passes through, which checks the interpreter.
"""

import importlib.util
import json
import re
import struct
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import strategies as st
from kio.index import load_request_schema, load_response_schema
from kio.schema.errors import ErrorCode
from kio.serial import entity_reader

from kafka_client.wire import (
    api_versions,
    create_topics,
    describe_configs,
    fetch,
    init_producer_id,
    list_offsets,
    metadata,
    produce,
    sasl_authenticate,
    sasl_handshake,
)
from kafka_client.wire.frames import API_NAMES

MESSAGES = (
    api_versions,
    create_topics,
    describe_configs,
    fetch,
    init_producer_id,
    list_offsets,
    metadata,
    produce,
    sasl_authenticate,
    sasl_handshake,
)

# Found, not imported: importing kafka-python runs all of it.
_FOUND = importlib.util.find_spec("kafka")
assert _FOUND is not None
assert _FOUND.origin is not None
SCHEMAS = Path(_FOUND.origin).parent / "protocol" / "schemas" / "resources"

NUMBERS = {"int8": ">b", "int16": ">h", "int32": ">i", "int64": ">q", "bool": ">?"}
Value = Any
Schema = Mapping[str, Any]


def within(version: int, versions: str) -> bool:
    """Whether ``version`` is in "3+", "0-12", "5" or "none"."""
    if versions == "none":
        return False
    low, _, high = versions.replace("+", "-9999").partition("-")
    return int(low) <= version <= int(high or low)


def uvarint(value: int) -> bytes:
    out = b""
    while value > 0x7F:
        out += bytes((value & 0x7F | 0x80,))
        value >>= 7
    return out + bytes((value,))


def named(field: Schema) -> str:
    """``TopicData`` as ``topic_data``."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", field["name"]).lower()


class Cursor:
    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0

    def take(self, count: int) -> bytes:
        assert 0 <= count <= len(self.data) - self.at
        self.at += count
        return self.data[self.at - count : self.at]

    def number(self, layout: str) -> int:
        return struct.unpack(layout, self.take(struct.calcsize(layout)))[0]

    def uvarint(self) -> int:
        value = shift = 0
        while True:
            byte = self.take(1)[0]
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value


class Codec:
    """One message in one version, by Kafka's schema."""

    def __init__(self, name: str, kind: str, version: int) -> None:
        text = (SCHEMAS / f"{name}{kind}.json").read_text()
        self.schema = json.loads(re.sub(r"^\s*//.*$", "", text, flags=re.MULTILINE))
        self.version = version
        self.kind = kind
        self.flexible = within(version, self.schema["flexibleVersions"])

    # What a message may be

    def values(self, *, tame: bool = False) -> "st.SearchStrategy[dict[str, Value]]":
        """Messages; ``tame`` ones have only what kio takes: known error codes, times near today, no unknown tags."""
        return self._struct_values(self.schema["fields"], tame)

    def _struct_values(self, fields: list[Schema], tame: bool) -> "st.SearchStrategy[dict[str, Value]]":
        members = {}
        for field in fields:
            if not within(self.version, field["versions"]):
                continue
            members[named(field)] = self._field_values(field, tame)
        if self.flexible and not tame:
            unknown = st.dictionaries(st.integers(50, 2**31 - 1), st.binary(max_size=9), max_size=2)
            members["unknown_tags"] = unknown
        return st.fixed_dictionaries(members)

    def _field_values(self, field: Schema, tame: bool) -> "st.SearchStrategy[Value]":
        kind = field["type"]
        if kind.startswith("[]"):
            strategy: st.SearchStrategy[Value] = st.lists(self._plain_values(kind[2:], field, tame), max_size=3)
        else:
            strategy = self._plain_values(kind, field, tame)
        if within(self.version, field.get("nullableVersions", "none")):
            strategy |= st.none()
        return strategy

    def _plain_values(self, kind: str, field: Schema, tame: bool) -> "st.SearchStrategy[Value]":
        if tame and "ErrorCode" in field["name"]:
            return st.sampled_from([int(code) for code in ErrorCode])
        if tame and kind in ("int32", "int64") and field["name"].endswith("Ms"):
            return st.integers(0, 1_800_000_000)
        if kind == "bool":
            return st.booleans()
        if kind in NUMBERS:
            bits = 8 * struct.calcsize(NUMBERS[kind]) - 1
            return st.integers(-(2**bits), 2**bits - 1)
        if kind == "string":
            return st.text(max_size=8)
        if kind in ("bytes", "records"):
            return st.binary(max_size=200)
        if kind == "uuid":
            return st.binary(min_size=16, max_size=16)
        return self._struct_values(field["fields"], tame)

    # Bytes and back

    def encode(self, value: Mapping[str, Value]) -> bytes:
        return self._encode_struct(self.schema["fields"], value)

    def decode(self, data: bytes) -> dict[str, Value]:
        """All of ``data``."""
        cursor = Cursor(data)
        value = self._decode_struct(self.schema["fields"], cursor)
        assert cursor.at == len(data), "bytes after the end of the message"
        return value

    def _encode_struct(self, fields: list[Schema], value: Mapping[str, Value]) -> bytes:
        out, tags = b"", dict(value.get("unknown_tags", {}))
        for field in fields:
            if not within(self.version, field["versions"]):
                continue
            tagged = within(self.version, field.get("taggedVersions", "none"))
            if tagged and value[named(field)] is None:
                continue
            encoded = self._encode_field(field, value[named(field)])
            if tagged:
                tags[field["tag"]] = encoded
            else:
                out += encoded
        if self.flexible:
            out += uvarint(len(tags))
            for tag in sorted(tags):
                out += uvarint(tag) + uvarint(len(tags[tag])) + tags[tag]
        return out

    def _encode_field(self, field: Schema, value: Value) -> bytes:
        kind = field["type"]
        if kind.startswith("[]"):
            if value is None:
                return self._length(-1, ">i")
            return self._length(len(value), ">i") + b"".join(
                self._encode_plain(kind[2:], field, item) for item in value
            )
        return self._encode_plain(kind, field, value)

    def _encode_plain(self, kind: str, field: Schema, value: Value) -> bytes:
        if kind in NUMBERS:
            return struct.pack(NUMBERS[kind], value)
        if kind == "uuid":
            return value
        if kind in ("string", "bytes", "records"):
            layout = ">h" if kind == "string" else ">i"
            if value is None:
                return self._length(-1, layout)
            raw = value.encode() if kind == "string" else value
            return self._length(len(raw), layout) + raw
        return self._encode_struct(field["fields"], value)

    def _length(self, length: int, layout: str) -> bytes:
        return uvarint(length + 1) if self.flexible else struct.pack(layout, length)

    def _decode_struct(self, fields: list[Schema], cursor: Cursor) -> dict[str, Value]:
        value = {}
        for field in fields:
            if within(self.version, field["versions"]) and "taggedVersions" not in field:
                value[named(field)] = self._decode_field(field, cursor)
        if self.flexible:
            assert cursor.uvarint() == 0, "we send no tagged fields"
        return value

    def _decode_field(self, field: Schema, cursor: Cursor) -> Value:
        kind = field["type"]
        if kind.startswith("[]"):
            count = self._read_length(cursor, ">i")
            if count < 0:
                assert within(self.version, field.get("nullableVersions", "none")), field["name"]
                return None
            return [self._decode_plain(kind[2:], field, cursor) for _ in range(count)]
        return self._decode_plain(kind, field, cursor)

    def _decode_plain(self, kind: str, field: Schema, cursor: Cursor) -> Value:
        if kind in NUMBERS:
            return cursor.number(NUMBERS[kind])
        if kind == "uuid":
            return cursor.take(16)
        if kind in ("string", "bytes", "records"):
            length = self._read_length(cursor, ">h" if kind == "string" else ">i")
            if length < 0:
                assert within(self.version, field.get("nullableVersions", "none")), field["name"]
                return None
            raw = cursor.take(length)
            return raw.decode() if kind == "string" else raw
        return self._decode_struct(field["fields"], cursor)

    def _read_length(self, cursor: Cursor, layout: str) -> int:
        return cursor.uvarint() - 1 if self.flexible else cursor.number(layout)

    # The second opinion

    def read_by_kio(self, data: bytes) -> object:
        """``data`` as kio reads it, to its last byte."""
        load = load_request_schema if self.kind == "Request" else load_response_schema
        value, size = entity_reader(load(self.schema["apiKey"], self.version))(data, 0)
        assert size == len(data)
        return value


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test that asks for ``message`` and ``version`` runs for every version of every message that we speak."""
    if {"message", "version"} <= set(metafunc.fixturenames):
        every = [
            pytest.param(message, version, id=f"{API_NAMES[message.API_KEY]} v{version}")
            for message in MESSAGES
            for version in range(message.MIN_VERSION, message.MAX_VERSION + 1)
        ]
        metafunc.parametrize(("message", "version"), every)


@pytest.fixture(scope="session")
def messages() -> tuple[ModuleType, ...]:
    """Every message that we speak, as a module of ``kafka_client.wire``."""
    return MESSAGES


@pytest.fixture(scope="session")
def codec() -> type[Codec]:
    """``codec("Produce", "Response", 13)``."""
    return Codec
