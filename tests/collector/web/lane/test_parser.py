"""The parser of the lane: what its requests say, when a body is complete, how a connection goes over or ends.

What it must refuse is in ``tests/smuggling``.
"""

import time
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collector.config import LimitsConfig
from collector.web.lane import parser as parser_module
from collector.web.lane.known_heads import KnownHeads
from collector.web.lane.parser import HTTP2_PREFACE, MAX_AHEAD, RequestParser
from collector.web.lane.request import Request
from tests.smuggling.case import LIMITS
from tests.smuggling.generator import connections
from tests.smuggling.test_corpus import CORPUS

POST = (
    b"POST /api/track?x=1 HTTP/1.1\r\nHost: example.com:8080\r\ncontent-type:application/json\r\n"
    b"X-Mixed-Case: \t two words \t\r\nX-MIXED-case: again\r\nX-Empty:\r\nContent-Length: 5\r\n\r\n"
)
GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
CHUNKED = b"POST /c HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
WEBSOCKET = (
    b"GET /v1/ws HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
H2C = (
    b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"
    b"HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n\r\n"
)


def make_parser(*, http2: bool = False, **limits: int) -> RequestParser:
    return RequestParser(LimitsConfig(**limits), http2=http2)


def parsed(raw: bytes, *, http2: bool = False) -> Request:
    """The one request of ``raw``."""
    parser = make_parser(http2=http2)
    parser.feed(raw)
    assert parser.refusal is None
    (request,) = parser.requests
    return request


def told(parser: RequestParser) -> list[tuple[object, ...]]:
    """Everything that a parser says of its requests, and how it ended."""
    requests: list[tuple[object, ...]] = [
        (
            each.method, each.target, each.http_version, each.headers, each.content_length, each.chunked,
            each.keep_alive, each.expect_continue, each.upgrade, each.body_bytes, each.complete, b"".join(each.pieces),
        )
        for each in parser.requests
    ]  # fmt: skip
    refusal = parser.refusal.status if parser.refusal else None
    return [*requests, (refusal, parser.rest, parser.prior_knowledge, parser.started, parser.held)]


def cut(raw: bytes, at: list[int]) -> Iterator[bytes]:
    """``raw`` cut at these places, wherever they are."""
    places = sorted({place % (len(raw) + 1) for place in at})
    for start, end in zip([0, *places], [*places, len(raw)], strict=True):
        yield raw[start:end]


def test_request_says_what_was_sent() -> None:
    request = parsed(POST + b"hello")

    assert (request.method, request.target, request.http_version) == ("POST", b"/api/track?x=1", "1.1")
    assert request.headers == [
        (b"host", b"example.com:8080"),
        (b"content-type", b"application/json"),
        (b"x-mixed-case", b"two words"),
        (b"x-mixed-case", b"again"),
        (b"x-empty", b""),
        (b"content-length", b"5"),
    ]
    assert (request.content_length, request.chunked, request.keep_alive) == (5, False, True)
    assert (request.complete, request.body_bytes, request.take()) == (True, 5, b"hello")
    assert request.take() == b""


def test_body_in_pieces_is_taken_as_it_comes() -> None:
    parser = make_parser()
    parser.feed(POST + b"he")
    (request,) = parser.requests
    assert (request.complete, request.take(), parser.started) == (False, b"he", False)

    parser.feed(b"l")
    parser.feed(b"lo" + GET)

    assert (request.complete, request.body_bytes, request.take()) == (True, 5, b"llo")
    assert [each.target for each in parser.requests] == [b"/api/track?x=1", b"/"]


def test_body_of_a_request_that_was_taken_out_still_comes() -> None:
    parser = make_parser()
    parser.feed(CHUNKED + b"3\r\nab")
    request = parser.requests.popleft()
    parser.feed(b"c\r\n0\r\n\r\n" + GET)

    assert (request.complete, request.take(), len(parser.requests)) == (True, b"abc", 1)


def test_requests_of_one_read_come_in_order() -> None:
    parser = make_parser()
    parser.feed(b"".join(b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n" % number for number in range(10)) + POST)

    assert [each.target for each in parser.requests] == [*(b"/%d" % number for number in range(10)), b"/api/track?x=1"]
    assert [each.complete for each in parser.requests] == [True] * 10 + [False]


@pytest.mark.parametrize(
    ("version", "connection", "keep_alive"),
    [
        (b"1.1", b"", True),
        (b"1.1", b"Connection: close\r\n", False),
        (b"1.1", b"Connection: Keep-Alive, CLOSE\r\n", False),
        (b"1.1", b"Connection: x\r\nConnection: close\r\n", False),
        (b"1.1", b"Connection: closed\r\n", True),
        (b"1.0", b"", False),
        (b"1.0", b"Connection: Keep-Alive\r\n", True),
        (b"1.0", b"Connection: keep-alive, close\r\n", False),
    ],
)
def test_keep_alive_is_what_connection_and_version_say(version: bytes, connection: bytes, keep_alive: bool) -> None:
    assert parsed(b"GET / HTTP/" + version + b"\r\nHost: a\r\n" + connection + b"\r\n").keep_alive is keep_alive


@pytest.mark.parametrize(
    ("version", "expect", "expected"),
    [(b"1.1", b"100-Continue", True), (b"1.0", b"100-continue", False), (b"1.1", b"200-ok", False)],
)
def test_expect_continue_is_for_1_1(version: bytes, expect: bytes, expected: bool) -> None:
    raw = b"POST / HTTP/" + version + b"\r\nHost: a\r\nExpect: " + expect + b"\r\nContent-Length: 1\r\n\r\n"
    assert parsed(raw).expect_continue is expected


def test_websocket_upgrade_leaves_the_rest_alone() -> None:
    parser = make_parser()
    parser.feed(GET + WEBSOCKET + b"\x81\x85")
    parser.feed(GET)

    assert [each.upgrade for each in parser.requests] == [None, "websocket"]
    assert parser.requests[1].complete
    assert (parser.rest, parser.started, parser.refusal, parser.prior_knowledge) == (
        b"\x81\x85" + GET,
        False,
        None,
        False,
    )


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"GET", b"POST"),
        (b"HTTP/1.1", b"HTTP/1.0"),
        (b"keep-alive, Upgrade", b"keep-alive"),
        (b"Upgrade: websocket", b"Upgrade: websockets"),
        (b"Upgrade: websocket\r\n", b""),
        (b"Upgrade: websocket", b"Upgrade: h2c"),
    ],
)
def test_websocket_upgrade_of_another_kind_is_none(old: bytes, new: bytes) -> None:
    assert parsed(WEBSOCKET.replace(old, new)).upgrade is None


def test_websocket_upgrade_from_a_list_is_one() -> None:
    assert parsed(WEBSOCKET.replace(b"Upgrade: websocket", b"upgrade: h2c, WebSocket")).upgrade == "websocket"


def test_h2c_is_told_where_http2_is_configured() -> None:
    assert parsed(H2C, http2=True).upgrade == "h2c"
    assert parsed(H2C).upgrade is None
    assert parsed(H2C.replace(b", HTTP2-Settings", b""), http2=True).upgrade is None


@pytest.mark.parametrize("size", [1, 5, 23, 24, 100])
def test_http2_preface_is_handed_over_with_what_follows(size: int) -> None:
    parser = make_parser(http2=True)
    raw = HTTP2_PREFACE + b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"
    for start in range(0, len(raw), size):
        parser.feed(raw[start : start + size])

    assert (parser.prior_knowledge, parser.rest, parser.refusal, len(parser.requests)) == (True, raw, None, 0)


def test_http2_preface_behind_a_request_is_refused() -> None:
    parser = make_parser(http2=True)
    parser.feed(GET)
    parser.requests.clear()
    parser.feed(HTTP2_PREFACE)

    assert parser.refusal is not None
    assert (parser.refusal.status, parser.prior_knowledge) == (505, False)


def test_http2_preface_that_goes_on_otherwise_is_refused() -> None:
    parser = make_parser(http2=True)
    parser.feed(HTTP2_PREFACE[:18])
    assert parser.refusal is None
    parser.feed(b"XX")

    assert parser.refusal is not None
    assert parser.refusal.status == 505


def test_started_is_a_head_that_has_begun() -> None:
    parser = make_parser()
    assert not parser.started
    parser.feed(b"\r\n")
    assert not parser.started
    parser.feed(b"G")
    assert parser.started
    parser.feed(GET[1:])
    assert not parser.started
    parser.feed(POST)
    assert not parser.started
    parser.feed(b"hello" + GET[:-1])
    assert parser.started
    parser.feed(b"\n")
    assert not parser.started


@pytest.mark.parametrize(
    ("raw", "status"), [(b"", None), (GET, None), (POST, None), (GET[:-1], 400), (POST + b"helloG", 400)]
)
def test_end_within_a_head_is_refused(raw: bytes, status: int | None) -> None:
    parser = make_parser()
    parser.feed(raw)
    parser.at_end()

    assert (parser.refusal.status if parser.refusal else None) == status


def test_refusal_ends_the_parsing_and_keeps_nothing() -> None:
    parser = make_parser()
    parser.feed(GET + b"GET  / HTTP/1.1\r\n" + GET)
    first = parser.refusal
    parser.feed(GET)
    parser.at_end()

    assert parser.refusal is first is not None
    assert (len(parser.requests), parser.started, parser.rest, parser._carry) == (1, False, b"", b"")


def test_refusal_within_a_body_leaves_it_incomplete() -> None:
    parser = make_parser()
    parser.feed(CHUNKED + b"3\r\nabc\r\nno size")

    (request,) = parser.requests
    assert parser.refusal is not None
    assert (request.complete, request.take()) == (False, b"abc")


def test_refusal_repeats_little_of_what_was_sent() -> None:
    parser = make_parser()
    parser.feed(GET[:-2] + b"\xff" * 20_000 + b"\r\n\r\n")

    assert parser.refusal is not None
    assert len(str(parser.refusal)) < 400
    assert str(parser.refusal).isascii()


def test_what_follows_the_last_request_is_not_kept() -> None:
    parser = make_parser()
    parser.feed(b"GET / HTTP/1.0\r\n\r\n" + GET)
    for _ in range(10):
        parser.feed(b"x" * 65536)

    assert (len(parser.requests), parser._carry, parser.rest, parser.refusal) == (1, b"", b"", None)


def test_trailers_are_read_and_thrown_away() -> None:
    parser = make_parser()
    parser.feed(CHUNKED + b"0\r\nAuthorization: Basic YTo=\r\nContent-Length: 9\r\n\r\n" + GET)

    first, second = parser.requests
    assert first.headers == [(b"host", b"a"), (b"transfer-encoding", b"chunked")]
    assert second.headers == [(b"host", b"a")]


def test_requests_ahead_are_bounded_and_go_on_when_asked() -> None:
    parser = make_parser()
    parser.feed(b"".join(b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n" % number for number in range(150)) + GET[:5])
    assert (len(parser.requests), parser.held, parser.started) == (MAX_AHEAD, True, False)

    targets = []
    while parser.requests:
        targets.append(parser.requests.popleft().target)
        if not parser.requests and parser.held:
            parser.feed(b"")

    assert targets == [b"/%d" % number for number in range(150)]
    assert (parser.held, parser.started) == (False, True)


def test_head_byte_by_byte_costs_no_more_than_its_bytes() -> None:
    parser = make_parser()
    raw = GET[:-2] + b"X: " + b"x" * 30_000 + b"\r\n\r\n"
    started = time.process_time()
    for byte in raw:
        parser.feed(bytes([byte]))

    assert len(parser.requests) == 1
    assert time.process_time() - started < 1.0, "looking through it again for each byte took 1.8 s, this takes 0.13 s"


def test_remembered_lines_and_names_are_bounded() -> None:
    parser = make_parser()
    for number in range(5000):
        parser.feed(b"GET /%d HTTP/1.1\r\nHost: host%d\r\nX-%d: a\r\n\r\n" % (number, number, number))
        parser.requests.clear()
    parser.feed(b"GET /" + b"x" * 2000 + b" HTTP/1.1\r\nHost: a\r\n" + b"X" * 2000 + b": a\r\n\r\n")

    assert parser.refusal is None
    for remembered in (parser_module._request_lines, parser_module._lower):
        assert len(remembered) <= 1024
        assert max(map(len, remembered)) <= 256


def test_quick_reading_and_strict_reading_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    raws = [case.sent for case in CORPUS]
    raws += [raw for raw, _ in (next(generated) for generated in [connections(seed=3)] for _ in range(500))]

    def tell(raw: bytes) -> list[tuple[object, ...]]:
        parser = RequestParser(LIMITS)
        parser.feed(raw)
        return told(parser)

    for raw in raws:
        tell(raw)  # what comes twice is remembered
    quick = [tell(raw) for raw in raws]
    monkeypatch.setattr(KnownHeads, "find", lambda self, head: None)
    unremembered = [tell(raw) for raw in raws]
    monkeypatch.setattr(RequestParser, "_read_quickly", lambda self, head: None)
    strict = [tell(raw) for raw in raws]

    assert quick == unremembered
    assert unremembered == strict


@settings(max_examples=150, deadline=None)
@given(seed=st.integers(0, 2**32), at=st.lists(st.integers(0, 2**16), max_size=12))
def test_any_cut_of_random_connections_says_the_same(seed: int, at: list[int]) -> None:
    raw, _ = next(connections(seed))
    whole, pieces = RequestParser(LIMITS), RequestParser(LIMITS)
    whole.feed(raw)
    for piece in cut(raw, at):
        pieces.feed(piece)

    assert told(pieces) == told(whole)


@settings(max_examples=300, deadline=None)
@given(
    data=st.lists(
        st.one_of(
            st.binary(max_size=40),
            st.sampled_from(
                [GET, POST, CHUNKED, WEBSOCKET, H2C, HTTP2_PREFACE, b"5\r\nhello\r\n", b"0\r\n\r\n", b"\r\n"]
            ),
        ),
        max_size=8,
    ),
    at=st.lists(st.integers(0, 2**10), max_size=6),
    http2=st.booleans(),
)
def test_any_bytes_never_raise_and_are_bounded(data: list[bytes], at: list[int], http2: bool) -> None:
    raw = b"".join(data)
    whole, pieces = RequestParser(LIMITS, http2=http2), RequestParser(LIMITS, http2=http2)
    whole.feed(raw)
    for piece in cut(raw, at):
        pieces.feed(piece)
        assert len(pieces._carry) <= LIMITS.head_bytes + 2
    assert told(pieces) == told(whole)
    pieces.at_end()
