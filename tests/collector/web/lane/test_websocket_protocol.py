"""A websocket's frames as bytes, many of them written by hand: RFC 6455 section 5, RFC 7692."""

import os
import struct
import tracemalloc
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.frames import Frame, Opcode
from websockets.protocol import CLIENT, OPEN, Protocol

from collector.web.lane.websocket_protocol import Frames, Handshake, HandshakeFault, server_frame

TEXT, BINARY, CONTINUED, CLOSE, PING, PONG = 0x1, 0x2, 0x0, 0x8, 0x9, 0xA
FINAL, COMPRESSED = 0x80, 0x40

HEADERS = [
    (b"host", b"x"),
    (b"upgrade", b"websocket"),
    (b"connection", b"keep-alive, Upgrade"),
    (b"sec-websocket-version", b"13"),
    (b"sec-websocket-key", b"dGhlIHNhbXBsZSBub25jZQ=="),
]
OFFER = (b"sec-websocket-extensions", b"permessage-deflate; client_max_window_bits")


def frame(payload: bytes = b"", opcode: int = TEXT, *, flags: int = FINAL, masked: bool = True) -> bytes:
    """One frame of a client; RFC 6455 section 5.2."""
    length = len(payload)
    if length < 126:
        size = struct.pack("!B", length)
    elif length < 65536:
        size = struct.pack("!BH", 126, length)
    else:
        size = struct.pack("!BQ", 127, length)
    if not masked:
        return bytes([flags | opcode]) + size + payload
    mask = os.urandom(4)
    body = bytes(byte ^ mask[place % 4] for place, byte in enumerate(payload))
    return bytes([flags | opcode, size[0] | 0x80]) + size[1:] + mask + body


def closing(code: int, reason: bytes = b"") -> bytes:
    return frame(struct.pack("!H", code) + reason, CLOSE)


def frames(max_bytes: int = 1000, *, deflate: bool = False) -> Frames:
    return Frames(max_bytes, Handshake("GET", "/", [*HEADERS, OFFER], deflate))


def told(received: Frames) -> int | None:
    """The code of the close frame that the client is sent, if it is sent one."""
    for data in received.to_send:
        if data[0] == FINAL | CLOSE:
            return struct.unpack("!H", data[2:4])[0]
    return None


def test_messages_of_one_read_are_handed_over_together_in_order() -> None:
    whole = frame(b"one") + frame(b"\x00two", BINARY) + frame("drei ü".encode())
    assert frames().receive(whole) == [(b"one", True), (b"\x00two", False), ("drei ü".encode(), True)]


@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 65535, 65536, 70_000])
def test_message_of_any_length_form_comes_byte_by_byte_or_whole(size) -> None:
    payload = bytes(65 + place % 26 for place in range(size))
    data = frame(payload)
    assert frames(100_000).receive(data) == [(payload, True)]
    if size > 1000:
        return
    received = frames()
    messages = [message for place in range(len(data)) for message in received.receive(data[place : place + 1])]
    assert messages == [(payload, True)]


def test_thousand_messages_in_one_read() -> None:
    data = b"".join(frame(b"%d" % number) for number in range(1000))
    assert frames().receive(data) == [(b"%d" % number, True) for number in range(1000)]


def test_fragments_become_one_message_with_control_frames_between_them() -> None:
    received = frames()
    data = frame(b"a", flags=0) + frame(b"p", PING) + frame(b"", CONTINUED, flags=0) + frame(b"", PONG)
    assert received.receive(data + frame(b"b", CONTINUED) + frame(b"c")) == [(b"ab", True), (b"c", True)]
    assert received.to_send == [b"\x8a\x01p"]


def test_a_character_may_be_split_between_fragments() -> None:
    both = "ü".encode()
    assert frames().receive(frame(both[:1], flags=0) + frame(both[1:], CONTINUED)) == [(both, True)]


def test_fragments_of_one_byte_cost_no_more_memory_than_their_message() -> None:
    received = frames(1_000_000)
    many = b"".join(frame(b"a", CONTINUED, flags=0) for _ in range(1000))
    received.receive(frame(b"a", flags=0))
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for _ in range(20):
            received.receive(many)
        grown = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert grown < 60_000
    assert received.receive(frame(b"z", CONTINUED)) == [(b"a" * 20_001 + b"z", True)]


def test_empty_fragments_without_end_keep_nothing() -> None:
    received = frames(10)
    received.receive(frame(b"", flags=0))
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for _ in range(2000):
            assert received.receive(frame(b"", CONTINUED, flags=0)) == []
        assert tracemalloc.get_traced_memory()[0] - before < 20_000
    finally:
        tracemalloc.stop()


def test_pings_are_answered_with_what_they_say_in_order() -> None:
    received = frames()
    assert received.receive(frame(b"1", PING) + frame(b"x" * 125, PING)) == []
    assert received.to_send == [b"\x8a\x011", b"\x8a\x7d" + b"x" * 125]


BROKEN = [
    ("reserved bit", frame(b"x", flags=FINAL | 0x40), 1002),
    ("reserved opcode", frame(b"x", 0x3), 1002),
    ("reserved control opcode", frame(b"", 0xB), 1002),
    ("unmasked", frame(b"x", masked=False), 1002),
    ("control frame too long", frame(b"x" * 126, PING), 1002),
    ("fragmented control frame", frame(b"x", PING, flags=0), 1002),
    ("continuation of nothing", frame(b"x", CONTINUED), 1002),
    ("message within a message", frame(b"x", flags=0) + frame(b"y"), 1002),
    ("close within a message is none of a kind", frame(b"x", flags=0) + closing(1000), 1002),
    ("close with one byte", frame(b"x", CLOSE), 1002),
    ("close with a code that may not be sent", closing(1005), 1002),
    ("close with a code below all", closing(999), 1002),
    ("close with a code that nobody has", closing(2999), 1002),
    ("close with a reason that is no text", closing(1000, b"\xff"), 1007),
    ("text that is none", frame(b"\xff\xfe"), 1007),
    ("text that is none, in fragments", frame(b"ok", flags=0) + frame(b"\xc3", CONTINUED), 1007),
    ("surrogate in text", frame(b"\xed\xa0\x80"), 1007),
    ("too long", frame(b"x" * 1001), 1009),
    ("too long in fragments", frame(b"x" * 600, flags=0) + frame(b"x" * 401, CONTINUED), 1009),
]


@pytest.mark.parametrize(("data", "code"), [case[1:] for case in BROKEN], ids=[case[0] for case in BROKEN])
def test_fault_ends_it_with_its_code_after_what_was_good(data, code) -> None:
    received = frames()
    assert received.receive(frame(b"good") + data + frame(b"more")) == [(b"good", True)]
    assert (received.ended, received.close_code, told(received)) == (True, code, code)
    assert received.receive(frame(b"and more")) == []


def test_length_above_the_limit_is_refused_before_the_message_comes() -> None:
    received = frames()
    assert received.receive(frame(b"x" * 10_000)[:10]) == []
    assert told(received) == 1009
    received = frames()
    assert received.receive(b"\x81\xff" + b"\xff" * 8 + b"mask") == []
    assert told(received) == 1009


def test_limit_itself_is_allowed() -> None:
    assert frames().receive(frame(b"x" * 1000)) == [(b"x" * 1000, True)]
    halves = frame(b"x" * 500, flags=0) + frame(b"x" * 500, CONTINUED)
    assert frames().receive(halves) == [(b"x" * 1000, True)]


@pytest.mark.parametrize(
    ("data", "code", "echo"),
    [
        (closing(1000, b"bye"), 1000, b"\x88\x05\x03\xe8bye"),
        (closing(4999), 4999, b"\x88\x02\x13\x87"),
        (frame(b"", CLOSE), 1005, b"\x88\x00"),
    ],
)
def test_close_of_the_client_is_echoed_and_ends_it(data, code, echo) -> None:
    received = frames()
    assert received.receive(frame(b"last") + data + frame(b"late")) == [(b"last", True)]
    assert (received.ended, received.close_code, received.to_send) == (True, code, [echo])


def test_own_close_is_sent_once_and_messages_come_until_the_client_answers_it() -> None:
    received = frames()
    received.close(1012)
    received.close(1000)
    assert received.to_send == [b"\x88\x02\x03\xf4"]
    assert not received.open
    assert received.receive(frame(b"on its way")) == [(b"on its way", True)]
    assert not received.ended
    assert received.receive(closing(1012)) == []
    assert (received.ended, received.close_code) == (True, 1012)
    assert len(received.to_send) == 1


def test_connection_that_is_lost_ended_abnormally() -> None:
    received = frames()
    received.receive(frame(b"half", flags=0))
    received.lost()
    assert (received.ended, received.close_code, received.to_send) == (True, 1006, [])


# Compression


def deflated(payload: bytes, level: int = 9) -> bytes:
    compressor = zlib.compressobj(level, zlib.DEFLATED, -15)
    return (compressor.compress(payload) + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4]


def test_deflated_messages_are_inflated_each_by_itself() -> None:
    received = frames(deflate=True)
    data = frame(deflated(b"hello " * 50), flags=FINAL | COMPRESSED) + frame(b"plain")
    assert received.receive(data * 2) == [(b"hello " * 50, True), (b"plain", True)] * 2


def test_deflated_message_in_fragments() -> None:
    whole = deflated(b"hello " * 100)
    data = frame(whole[:5], flags=COMPRESSED) + frame(b"", PING) + frame(whole[5:], CONTINUED)
    assert frames(deflate=True).receive(data) == [(b"hello " * 100, True)]


@pytest.mark.parametrize("pieces", [1, 3, 50])
def test_deflate_bomb_is_told_1009_and_never_inflated_beyond_the_limit(pieces) -> None:
    limit = 100_000
    bomb = deflated(bytes(64 * 1024 * 1024))
    assert len(bomb) < limit
    step = len(bomb) // pieces + 1
    cut = [bomb[start : start + step] for start in range(0, len(bomb), step)]
    data = frame(cut[0], BINARY, flags=COMPRESSED | (FINAL if pieces == 1 else 0))
    data += b"".join(frame(piece, CONTINUED, flags=0) for piece in cut[1:])
    received = frames(limit, deflate=True)
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        assert received.receive(data) == []
        peak = tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()
    assert told(received) == 1009
    assert peak < len(data) + 4 * limit


def test_deflated_rubbish_is_told_1002() -> None:
    received = frames(deflate=True)
    assert received.receive(frame(b"\xff\xff\xff\xff", flags=FINAL | COMPRESSED)) == []
    assert told(received) == 1002


def test_deflate_is_negotiated_without_context_takeover_and_only_where_it_is_on() -> None:
    on = Handshake("GET", "/", [*HEADERS, OFFER], True).response(None)
    assert b"sec-websocket-extensions: permessage-deflate; " in on
    assert b"client_no_context_takeover" in on
    assert b"server_no_context_takeover" in on
    assert b"extensions" not in Handshake("GET", "/", [*HEADERS, OFFER], False).response(None)
    assert b"extensions" not in Handshake("GET", "/", HEADERS, True).response(None)


# The handshake


def test_accept_token_is_the_rfcs() -> None:
    # RFC 6455 section 1.3.
    response = Handshake("GET", "/", HEADERS, False).response("collector.v1", [(b"x-a", b"b")])
    assert response.startswith(b"HTTP/1.1 101 Switching Protocols\r\n")
    assert b"\r\nsec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n" in response
    assert b"\r\nsec-websocket-protocol: collector.v1\r\n" in response
    assert response.endswith(b"\r\nx-a: b\r\n\r\n")


def test_subprotocols_of_several_fields_are_offered_in_order() -> None:
    offer = [(b"sec-websocket-protocol", b"a, b"), (b"sec-websocket-protocol", b"c")]
    assert Handshake("GET", "/", [*HEADERS, *offer], False).subprotocols == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        (b"sec-websocket-version", b"8"),
        (b"sec-websocket-version", None),
        (b"sec-websocket-key", None),
        (b"sec-websocket-key", b"dG9vIHNob3J0"),
        (b"sec-websocket-key", b"!!!"),
        (b"sec-websocket-key", b"\xff\xfe"),
        (b"connection", b"keep-alive"),
        (b"upgrade", b"h2c"),
        (b"sec-websocket-protocol", b"a b,"),
    ],
)
def test_handshake_that_is_none_is_refused(name, value) -> None:
    headers = [pair for pair in HEADERS if pair[0] != name] + ([(name, value)] if value is not None else [])
    with pytest.raises(HandshakeFault):
        Handshake("GET", "/", headers, False)


def test_handshake_with_two_keys_is_refused() -> None:
    with pytest.raises(HandshakeFault):
        Handshake("GET", "/", [*HEADERS, HEADERS[-1]], False)
    with pytest.raises(HandshakeFault):
        Handshake("POST", "/", HEADERS, False)


def test_header_with_a_line_break_is_not_sent() -> None:
    with pytest.raises(ValueError, match="line break"):
        Handshake("GET", "/", HEADERS, False).response(None, [(b"x", b"a\r\nb: c")])


# The short way for whole short frames, and the library's for everything


def test_short_way_is_taken_between_messages_and_only_there() -> None:
    received = frames()
    assert received._between, "the parser of `websockets` waits elsewhere now"
    for piece, between in [
        (frame(b"whole"), True),
        (frame(b"broken off")[:9], False),
        (b"", False),
        (frame(b"first", flags=0), False),
    ]:
        received = frames()
        if piece:
            received.receive(piece)
            assert received._between is between
    received.receive(frame(b"last", CONTINUED))
    assert received._between
    received.receive(closing(1000))
    assert not received._between


any_payload = st.one_of(
    st.binary(max_size=140), st.text(max_size=140).map(str.encode), st.binary(min_size=990, max_size=1010)
)
any_frame = st.builds(
    frame,
    any_payload,
    st.sampled_from([TEXT, TEXT, TEXT, BINARY, CONTINUED, PING, PONG, CLOSE, 0x3]),
    flags=st.sampled_from([FINAL, FINAL, FINAL, FINAL, 0, FINAL | 0x40, FINAL | 0x10]),
    masked=st.sampled_from([True] * 9 + [False]),
)


class LibraryOnly(Frames):
    """Never takes the short way."""

    def _between_messages(self) -> bool:
        return False


@given(st.lists(any_frame, max_size=8), st.lists(st.integers(1, 400), min_size=1, max_size=8), st.booleans())
def test_short_way_and_the_library_never_differ(sent, cuts, deflate) -> None:
    both = frames(deflate=deflate), LibraryOnly(1000, Handshake("GET", "/", [*HEADERS, OFFER], deflate))
    data, turn = b"".join(sent), 0
    told: tuple[list, list] = ([], [])
    while data:
        piece, data = data[: cuts[turn % len(cuts)]], data[cuts[turn % len(cuts)] :]
        turn += 1
        for received, heard in zip(both, told, strict=True):
            heard += received.receive(piece)
    assert told[0] == told[1]
    assert (both[0].ended, both[0].close_code, both[0].to_send) == (both[1].ended, both[1].close_code, both[1].to_send)


# What we send


@given(st.binary(max_size=300), st.booleans())
def test_frames_of_ours_are_read_by_a_client(payload, text) -> None:
    client = Protocol(CLIENT, state=OPEN)
    client.receive_data(server_frame(payload, text=text))
    (received,) = client.events_received()
    assert isinstance(received, Frame)
    assert (received.opcode, bytes(received.data), received.fin) == (Opcode(TEXT if text else BINARY), payload, True)


@pytest.mark.parametrize("size", [125, 126, 65535, 65536])
def test_lengths_of_our_frames_are_the_shortest_forms(size) -> None:
    assert server_frame(b"x" * size, text=True) == Frame(Opcode.TEXT, b"x" * size).serialize(mask=False)
