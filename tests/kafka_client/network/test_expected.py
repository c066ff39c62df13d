"""The FIFO of answers, without a stream."""

from math import inf

import pytest

from kafka_client.errors import ProtocolError
from kafka_client.network.expected import ExpectedAnswers, Request


def request(bodies: list[bytes], timeout_s: float = 30.0) -> Request:
    return Request(3, 13, b"asked", lambda body: bodies.append(bytes(body)), timeout_s)


def answer(correlation_id: int, body: bytes) -> memoryview:
    return memoryview(correlation_id.to_bytes(4, "big") + b"\0" + body)


def test_answers_go_to_requests_in_order() -> None:
    expected, first, second = ExpectedAnswers("c"), [], []
    expected.register(request(first), 0.0)
    expected.register(request(second), 0.0)
    expected.take(answer(0, b"one"))
    expected.take(answer(1, b"two"))
    assert (first, second, len(expected)) == ([b"one"], [b"two"], 0)


def test_answer_with_another_correlation_id_is_a_protocol_error() -> None:
    expected: ExpectedAnswers = ExpectedAnswers("c")
    bodies: list[bytes] = []
    expected.register(request(bodies), 0.0)
    with pytest.raises(ProtocolError, match=r"answer 1 came where 0 \(Metadata\) was due"):
        expected.take(answer(1, b"one"))
    assert bodies == []


def test_answer_to_nothing_is_a_protocol_error() -> None:
    with pytest.raises(ProtocolError, match="was not sent"):
        ExpectedAnswers("c").take(answer(0, b""))


def test_correlation_id_wraps_to_zero() -> None:
    expected = ExpectedAnswers("c")
    expected._next_id = 2**31 - 1
    assert expected.register(request([]), 0.0)[8:12].hex() == "7fffffff"
    assert expected.register(request([]), 0.0)[8:12].hex() == "00000000"


def test_silence_counts_from_the_oldest_request_or_the_last_byte() -> None:
    expected = ExpectedAnswers("c")
    assert expected.silent_until() == inf
    expected.register(request([], 30.0), 10.0)
    expected.register(request([], 5.0), 11.0)
    assert expected.silent_until() == 40.0
    expected.heard(15.0)
    assert expected.silent_until() == 45.0
    expected.take(answer(0, b""))
    assert expected.silent_until() == 20.0


def test_oldest_and_its_age() -> None:
    expected = ExpectedAnswers("c")
    assert (expected.oldest, expected.oldest_age_s(5.0)) == (None, 0.0)
    first = request([])
    expected.register(first, 1.0)
    expected.register(request([]), 2.0)
    assert expected.oldest is first
    assert expected.oldest_age_s(5.0) == 4.0
    assert repr(expected) == "<ExpectedAnswers Metadata, Metadata>"
