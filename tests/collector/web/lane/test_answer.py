"""The head of an answer, as bytes."""

import pytest

from collector.web.lane.answer import MAX_FIELDS, MAX_VALUES, AnswerHead, _Fields, plain_answer

DATE = b"date: now\r\n"


def encoded(*headers: tuple[bytes, bytes], status: int = 200, keep_alive: bool = True) -> bytes:
    return AnswerHead(status, headers).encode(DATE, b"", b"body", keep_alive=keep_alive, http_1_0=False)


def test_fields_are_written_in_their_order_and_the_body_behind_them() -> None:
    said = encoded((b"x-a", b"1"), (b"Content-Length", b"4"), (b"x-a", b"2"))
    assert said == b"HTTP/1.1 200 OK\r\nx-a: 1\r\nContent-Length: 4\r\nx-a: 2\r\ndate: now\r\n\r\nbody"
    assert encoded(status=299).startswith(b"HTTP/1.1 299 \r\n")


def test_what_is_the_servers_to_say_is_not_the_applications() -> None:
    head = AnswerHead(200, [(b"Connection", b"Close"), (b"Transfer-Encoding", b"chunked"), (b"content-length", b"7")])
    assert (head.close, head.length) == (True, 7)
    said = head.encode(DATE, b"", b"", keep_alive=False, http_1_0=False)
    assert said == b"HTTP/1.1 200 OK\r\ncontent-length: 7\r\ndate: now\r\nconnection: close\r\n\r\n"
    assert not AnswerHead(200, [(b"connection", b"keep-alive")]).close


def test_headers_may_be_any_pairs() -> None:
    pairs: list[list[bytes]] = [[b"x-a", b"1"]]
    head = AnswerHead(200, pairs)  # type: ignore[arg-type]  # what ASGI allows
    assert b"x-a: 1\r\n" in head.encode(DATE, b"", b"", keep_alive=True, http_1_0=False)


@pytest.mark.parametrize(
    "field",
    [
        (b"x", b"a\r\nb: c"),
        (b"x", b"a\nb"),
        (b"x", b"a\rb"),
        (b"x\r\n", b"a"),
        (b"x", b"\0"),
        (b"", b"a"),
        (b"x:y", b"a"),
        (b"content-length", b"-1"),
        (b"content-length", b""),
    ],
)
def test_field_that_would_break_the_framing_is_refused_every_time(field: tuple[bytes, bytes]) -> None:
    for _ in range(2):
        with pytest.raises(ValueError):
            AnswerHead(200, [field])


@pytest.mark.parametrize("status", [0, 100, 101, 199, 1000])
def test_status_that_is_none_is_refused(status: int) -> None:
    with pytest.raises(ValueError):
        AnswerHead(status, [])


def test_fields_that_differ_from_answer_to_answer_are_not_remembered_without_end() -> None:
    fields = _Fields()
    for number in range(1000):
        assert fields[b"x-request-id", b"%d" % number][0] == b"x-request-id: %d\r\n" % number
    assert len(fields) == MAX_VALUES
    assert fields[b"x-request-id", b"1"][0] == b"x-request-id: 1\r\n"
    for number in range(5000):
        fields[b"x-%d" % number, b"1"]
    assert len(fields) == MAX_FIELDS


def test_answer_of_the_servers_own_is_whole_and_the_last() -> None:
    assert plain_answer(408, "too slow", DATE) == (
        b"HTTP/1.1 408 Request Timeout\r\ncontent-type: text/plain; charset=utf-8\r\ncontent-length: 9\r\n"
        b"date: now\r\nconnection: close\r\n\r\ntoo slow\n"
    )
