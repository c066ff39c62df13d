"""Frames and headers, however the stream is cut."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kafka_client.errors import ProtocolError
from kafka_client.wire.frames import FrameSplitter, decode_response_header, encode_request_frame


def frame(content: bytes) -> bytes:
    return len(content).to_bytes(4, "big") + content


def test_request_header_v1_golden_bytes() -> None:
    # length 11 | api 17 | version 1 | correlation 7 | "c" | body
    assert encode_request_frame(17, 1, 7, "c", b"\xaa\xbb").hex() == "0000000d0011000100000007000163aabb"


def test_request_header_v2_has_its_tags_after_the_plain_client_id() -> None:
    assert encode_request_frame(0, 9, 7, "c", [b"\xaa", b"\xbb"]).hex() == ("0000000e000000090000000700016300aabb")


def test_response_header_v1_skips_tags() -> None:
    assert decode_response_header(bytes.fromhex("00000007010501ffaabb"), 0, 9) == (7, b"\xaa\xbb")


def test_response_header_of_api_versions_is_v0_in_every_version() -> None:
    assert decode_response_header(bytes.fromhex("000000070023"), 18, 4) == (7, b"\x00\x23")


@given(st.lists(st.binary(min_size=4, max_size=50), max_size=8), st.data())
def test_splitter_gives_the_same_frames_however_the_stream_is_cut(contents: list[bytes], data: st.DataObject) -> None:
    stream = b"".join(map(frame, contents))
    splitter = FrameSplitter(1000)
    found: list[bytes] = []
    while stream:
        cut = data.draw(st.integers(1, len(stream)))
        found += map(bytes, splitter.feed(stream[:cut]))
        stream = stream[cut:]
    assert found == contents
    assert splitter.held_bytes == 0


def test_splitter_keeps_frames_apart_from_later_reads() -> None:
    splitter = FrameSplitter(1000)
    first = splitter.feed(frame(b"abcd") + frame(b"efgh")[:5])
    second = splitter.feed(frame(b"efgh")[5:])
    assert [bytes(one) for one in first + second] == [b"abcd", b"efgh"]
    assert repr(splitter) == "<FrameSplitter 0 of 4 bytes>"


@pytest.mark.parametrize(
    ("stream", "message"),
    [
        (b"\x00\x00\x03\xe9abcd", "1001 bytes is claimed; at most 1000"),
        (b"\xff\xff\xff\xff", "-1 bytes is claimed"),
        (b"\x00\x00\x00\x03", "3 bytes is claimed"),
        (b"HTTP/1.1 400 Bad Request", "answers in HTTP"),
        (b"\x15\x03\x03\x00\x02\x02\x46", "wants security.protocol SSL"),
    ],
)
def test_splitter_absurd_length_is_a_protocol_error_that_guesses_why(stream: bytes, message: str) -> None:
    with pytest.raises(ProtocolError, match=message):
        FrameSplitter(1000).feed(stream)
