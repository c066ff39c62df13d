import json

import msgspec
import pytest

from collector.client import EventError
from collector.client.events import HEAP, SEGMENT, api_of, encode_event

ODD = b'{ "type" :"track",\n "event":"caf\\u00e9", "messageId":"m1","n":123456789012345678901234567890, "a":1,"a":2}'


def test_an_event_with_an_id_leaves_byte_for_byte() -> None:
    assert encode_event(ODD, SEGMENT) == ODD
    assert encode_event(ODD.decode(), SEGMENT) == ODD


def test_an_event_without_an_id_is_given_one_and_keeps_its_other_bytes() -> None:
    raw = ODD.replace(b'"messageId":"m1",', b"")
    encoded = encode_event(raw, SEGMENT)
    assert encoded.endswith(raw[1:])
    first, second = (json.loads(encode_event(raw, SEGMENT))["messageId"] for _ in range(2))
    assert first != second


def test_an_explicit_null_as_id_is_replaced_not_doubled() -> None:
    encoded = encode_event(b'{"event":"e","identity":"i","idempotency_key":null}', HEAP)
    assert encoded.count(b"idempotency_key") == 1
    assert json.loads(encoded)["idempotency_key"]


def test_the_smallest_object_gets_an_id() -> None:
    assert list(json.loads(encode_event(b"{ }", HEAP))) == ["idempotency_key"]


def test_a_mapping_is_encoded() -> None:
    assert json.loads(encode_event({"type": "track", "messageId": "x"}, SEGMENT)) == {"type": "track", "messageId": "x"}


@pytest.mark.parametrize(
    ("event", "message"),
    [
        (b"[1]", "not a JSON object"),
        (b'{"a":', "not a JSON object"),
        (b'{"a":\xff}', "not a JSON object"),
        (b"[" * 100_000, "not a JSON object"),
        ({"a": object()}, "cannot be written as JSON"),
        (b'{"event":"e"}', 'has no "type"'),
    ],
)
def test_what_cannot_be_sent_is_refused_here(event: bytes, message: str) -> None:
    with pytest.raises(EventError, match=message):
        encode_event(event, SEGMENT)


def test_bodies_are_the_dialects_own() -> None:
    assert SEGMENT.body([b'{"a":1}', b'{"b":2}'], 'k"') == b'{"writeKey":"k\\"","batch":[{"a":1},{"b":2}]}'
    assert HEAP.body([b"{}"], "app") == b'{"app_id":"app","events":[{}]}'
    assert msgspec.json.decode(HEAP.message_body([b"{}", b"{}"])) == {"events": [{}, {}]}
    assert SEGMENT.message_body([b"{}"]) == b'{"batch":[{}]}'


def test_an_unknown_dialect_names_what_is_allowed() -> None:
    with pytest.raises(EventError, match="'posthog' is not a dialect this client speaks; allowed: segment, heap"):
        api_of("posthog")
