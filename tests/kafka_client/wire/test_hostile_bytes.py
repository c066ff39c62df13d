"""What no broker should send, in every version of every message: a value or `ProtocolError`, and nothing allocated."""

import struct
import tracemalloc
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kafka_client.errors import ProtocolError
from kafka_client.wire import api_versions, create_topics, metadata, produce

few = settings(max_examples=4, deadline=None)

#: Lengths that nobody means: of the plain forms, and of the compact ones (2**31 - 1 and 2**32 - 1).
ABSURD = (b"\x7f\xff\xff\xff", b"\x7f\xff", b"\x80\x00\x00\x00", b"\xff\xff\xff\xff\x07", b"\xff\xff\xff\xff\x0f")
#: What one decoding may take at its peak: a Python object weighs up to 100 times the byte that it was read from.
ALLOWED_BYTES = 64 * 1024


def drawn(codec: Any, message: ModuleType, version: int, data: st.DataObject) -> bytes:
    """A response of the broker, as Kafka's schema encodes it."""
    oracle = codec(message.__name__.rpartition(".")[2].title().replace("_", ""), "Response", version)
    encoded: bytes = oracle.encode(data.draw(oracle.values()))
    return encoded


def only_its_error_code_is_read(message: ModuleType, encoded: bytes) -> bool:
    return message is api_versions and encoded[:2] != b"\0\0"


@given(data=st.data())
@few
def test_response_cut_short_at_every_byte_is_a_protocol_error(
    codec: Any, message: ModuleType, version: int, data: st.DataObject
) -> None:
    encoded = drawn(codec, message, version, data)
    end = 2 if only_its_error_code_is_read(message, encoded) else len(encoded)
    for cut in range(end):
        with pytest.raises(ProtocolError):
            message.decode_response(encoded[:cut], version)


@given(data=st.data())
@few
def test_response_with_bytes_after_its_end_is_read_as_without(
    codec: Any, message: ModuleType, version: int, data: st.DataObject
) -> None:
    encoded = drawn(codec, message, version, data)
    more = encoded + data.draw(st.binary(min_size=1, max_size=20))
    assert message.decode_response(more, version) == message.decode_response(encoded, version)


@given(data=st.data())
@few
def test_response_with_bytes_changed_is_a_value_or_a_protocol_error(
    codec: Any, message: ModuleType, version: int, data: st.DataObject
) -> None:
    encoded = drawn(codec, message, version, data)
    for _ in range(10):
        changed = bytearray(encoded)
        for _ in range(data.draw(st.integers(1, 3))):
            changed[data.draw(st.integers(0, len(encoded) - 1))] = data.draw(st.integers(0, 255))
        value_or_protocol_error(message, bytes(changed), version)


@given(data=st.data())
@few
def test_response_of_random_bytes_is_a_value_or_a_protocol_error(
    message: ModuleType, version: int, data: st.DataObject
) -> None:
    for _ in range(10):
        value_or_protocol_error(message, data.draw(st.binary(max_size=120)), version)


def value_or_protocol_error(message: ModuleType, body: bytes, version: int) -> None:
    try:
        message.decode_response(body, version)
    except ProtocolError:
        pass


@given(data=st.data())
@settings(max_examples=2, deadline=None)
def test_response_with_an_absurd_length_anywhere_allocates_nothing(
    codec: Any, message: ModuleType, version: int, data: st.DataObject
) -> None:
    encoded = drawn(codec, message, version, data)[:200]
    places = data.draw(st.lists(st.integers(0, len(encoded) - 1), min_size=20, max_size=30))
    tracemalloc.start()
    try:
        for at in {*range(min(30, len(encoded))), *places}:
            for absurd in ABSURD:
                tracemalloc.reset_peak()
                before, _ = tracemalloc.get_traced_memory()
                value_or_protocol_error(message, encoded[:at] + absurd + encoded[at + len(absurd) :], version)
                _, peak = tracemalloc.get_traced_memory()
                assert peak - before < ALLOWED_BYTES, (at, absurd)
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("absurd", [b"\xff\xff\xff\xff\x0f", b"\xff\xff\xff\xff\x07", b"\x80\x80\x80\x80\x01"])
def test_absurd_number_of_tagged_fields_is_a_protocol_error(absurd: bytes) -> None:
    body = b"\0\0" + b"\1" + bytes(4) + absurd  # ApiVersions v3: no error, no keys, no throttling, so many tags
    with pytest.raises(ProtocolError, match="tagged fields are claimed"):
        api_versions.decode_response(body, 3)


def test_null_where_the_schema_forbids_it_is_an_empty_array_or_a_protocol_error() -> None:
    assert api_versions.decode_response(b"\0\0" + b"\0" + bytes(4) + b"\0", 3).versions == {}
    null_name = bytes(4) + struct.pack(">i", 1) + b"\xff\xff"
    with pytest.raises(ProtocolError, match="null string"):
        create_topics.decode_response(null_name, 2)


def test_name_that_is_not_utf8_is_a_protocol_error() -> None:
    body = bytes(4) + struct.pack(">ii", 1, 7) + b"\0\2\xff\xfe"  # Metadata v4: one broker, number 7, its host
    with pytest.raises(ProtocolError, match="is not UTF-8"):
        metadata.decode_response(body, 4)


@pytest.mark.parametrize("version", range(produce.MIN_VERSION, produce.MAX_VERSION + 1))
def test_produce_success_is_read_the_short_way_as_the_long_one(codec: Any, version: int) -> None:
    part = {
        "index": 3,
        "error_code": 0,
        "base_offset": 7,
        "log_append_time_ms": -1,
        "log_start_offset": 0,
        "record_errors": [],
        "error_message": None,
        "current_leader": None,
    }
    topic = {"name": "t", "topic_id": bytes(range(16))}
    value = {
        "responses": [topic | {"partition_responses": [part, part | {"index": 4, "unknown_tags": {9: b"x"}}]}],
        "throttle_time_ms": 5,
        "node_endpoints": None,
    }
    response = produce.decode_response(codec("Produce", "Response", version).encode(value), version)
    short, long = response.partitions
    assert (short.partition, long.partition, response.throttle_time_ms) == (3, 4, 5)
    for result in (short, long):
        assert (result.error_code, result.base_offset, result.log_append_time_ms) == (0, 7, -1)
        assert result.log_start_offset == (0 if version >= 5 else -1)
        assert (result.record_errors, result.error_message, result.current_leader) == ((), None, None)


@pytest.mark.parametrize("name", ["my_app", "  ", "ümläut", "-.-", "a b.c_", "", "kafka-client"])
def test_api_versions_names_who_asks_as_the_broker_takes_it(codec: Any, name: str) -> None:
    request = api_versions.ApiVersionsRequest(client_software_name=name, client_software_version=name)
    found = codec("ApiVersions", "Request", 3).decode(api_versions.encode_request(request, 3))
    expected = {"my_app": "my-app", "ümläut": "ml-ut", "a b.c_": "a-b.c", "kafka-client": "kafka-client"}
    assert found["client_software_name"] == found["client_software_version"] == expected.get(name, "unknown")
