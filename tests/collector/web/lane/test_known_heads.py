"""Heads that came before: they are read once, and mean the same every time."""

from dataclasses import replace

from collector.config import LimitsConfig
from collector.web.lane.known_heads import MAX_HEAD_BYTES, MAX_HEADS, KnownHeads, known_heads
from collector.web.lane.parser import RequestParser
from collector.web.lane.request import Request


def request_of(*headers: tuple[bytes, bytes]) -> Request:
    request = Request()
    request.method, request.target, request.headers = "POST", b"/x", list(headers)
    request.content_length = 3
    return request


def test_head_is_known_from_its_second_time_on() -> None:
    heads = KnownHeads()
    for _ in range(2):
        assert heads.find(b"head") is None
        heads.remember(b"head", request_of((b"a", b"b")))
    found = heads.find(b"head")
    assert found is not None
    assert (found.method, found.target, found.headers, found.content_length) == ("POST", b"/x", [(b"a", b"b")], 3)


def test_what_is_done_to_a_request_is_not_known_of_the_next() -> None:
    heads = KnownHeads()
    first = request_of((b"a", b"b"))
    heads.remember(b"head", first)
    heads.remember(b"head", first)
    for request in (first, heads.find(b"head")):
        assert request is not None
        request.pieces.append(b"body")
        request.complete = True
        request.headers.append((b"c", b"d"))
    again = heads.find(b"head")
    assert again is not None
    assert (again.pieces, again.complete, again.headers) == ([], False, [(b"a", b"b")])


def test_heads_that_are_numbered_or_large_are_not_kept() -> None:
    heads = KnownHeads()
    for number in range(10_000):
        heads.remember(b"head %d" % number, request_of())
    assert repr(heads).startswith("<KnownHeads 0 known, ")
    for _ in range(2):
        heads.remember(bytes(MAX_HEAD_BYTES + 1), request_of())
    assert heads.find(bytes(MAX_HEAD_BYTES + 1)) is None


def test_memory_is_bounded() -> None:
    heads = KnownHeads()
    for number in range(3 * MAX_HEADS):
        for _ in range(2):
            heads.remember(b"head %d" % number, request_of())
        assert len(heads._requests) <= MAX_HEADS


def test_limits_that_differ_know_different_heads() -> None:
    limits = LimitsConfig()
    assert known_heads(limits) is known_heads(replace(limits, body_bytes=1))
    assert known_heads(limits) is not known_heads(replace(limits, head_fields=3))


def test_known_and_unknown_heads_take_turns_on_one_connection() -> None:
    parser = RequestParser(LimitsConfig())
    same = b"POST /known HTTP/1.1\r\nhost: x\r\ncontent-length: 4\r\n\r\nbody"
    chunked = b"POST /known HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n"
    for number in range(6):
        other = b"POST /other HTTP/1.1\r\nhost: x\r\nx-number: %d\r\ncontent-length: 4\r\n\r\nbody" % number
        for data in (same, other, chunked, same, other):
            for cut in (len(data), 30, len(data) - 2):
                parser.feed(data[:cut])
                parser.feed(data[cut:])
                request = parser.requests.popleft()
                assert parser.refusal is None
                assert (request.complete, request.take()) == (True, b"body")
                assert (b"x-number" in dict(request.headers)) == (data is other)
