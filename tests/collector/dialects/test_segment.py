"""Segment: keys in all places, every type, what is refused in which words, the clock's skew."""

import base64
import json
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from collector.config import LimitsConfig
from collector.dialects import ClientFault, Parsed
from collector.dialects.segment import Segment

from .conftest import RECEIVED_AT_MS, Call, ms_of

TRACK = {"type": "track", "event": "x", "userId": "u"}
#: RECEIVED_AT_MS, written.
RECEIVED_AT = "2027-01-15T08:00:00.123Z"


def basic(text: str) -> dict[str, str]:
    return {"authorization": "Basic " + base64.b64encode(text.encode()).decode()}


def only_rejection(parsed: Parsed) -> tuple[str, str]:
    assert not parsed.events
    (rejection,) = parsed.rejections
    return rejection.code, rejection.message


def test_single_track_of_an_sdk(segment: Call) -> None:
    body = (
        b'{"anonymousId": null, "context": {"library": {"name": "analytics-python", "version": "2.3.4"}}, "event": "e",'
        b' "integrations": {}, "messageId": "m-1", "properties": {"a" : 1}, "timestamp": "2027-01-15T07:59:00+00:00",'
        b' "type": "track", "userId": "alice", "writeKey": "w", "sentAt": "2027-01-15T07:59:59.123Z"}'
    )
    parsed = segment("/v1/track", body)
    (event,) = parsed.events
    assert (parsed.api, parsed.app, parsed.single, parsed.batch) == ("segment", "shop", True, None)
    assert (event.type, event.id, event.identity, event.body) == ("track", "m-1", "alice", body)
    # The client's clock is 1.000 s behind: received 08:00:00.123, sent 07:59:59.123.
    assert parsed.sent_at_ms == RECEIVED_AT_MS - 1000
    assert ms_of(event) == RECEIVED_AT_MS - 60_123 + 1000


def test_batch_slices_each_event_and_keeps_the_rest_of_the_top_level(segment: Call) -> None:
    pieces = [
        b'{ "type":"track" ,"event":"\\u0041","userId":"a","messageId":"m1","properties":{"n":1e400}}',
        b'{"type":"page","anonymousId":"anon","userId":null,"context":null,"properties":{}}',
        b'{"type":"alias","previousId":"anon","userId":7}',
    ]
    body = b'{"batch":[%b, %b\n,%b],"writeKey":"w","context":{ "ip" : "1.2.3.4"},"sentAt":"%b","x":1}' % (
        *pieces,
        RECEIVED_AT.encode(),
    )
    parsed = segment("/v1/batch", body)
    assert not parsed.rejections
    assert [event.body for event in parsed.events] == pieces
    assert [event.type for event in parsed.events] == ["track", "page", "alias"]
    assert [event.identity for event in parsed.events] == ["a", "anon", "7"]
    assert [event.id for event in parsed.events] == ["m1", None, None]
    assert parsed.batch == b'{"context":{ "ip" : "1.2.3.4"},"sentAt":"%b","x":1}' % RECEIVED_AT.encode()
    assert (parsed.sent_at_ms, parsed.single) == (RECEIVED_AT_MS, False)


@pytest.mark.parametrize("path", ["/v1/batch", "/v1/import", "/v1/b"])
def test_every_batch_route_takes_a_batch(segment: Call, path: str) -> None:
    assert len(segment(path, {"writeKey": "w", "batch": [TRACK, TRACK]}).events) == 2


@pytest.mark.parametrize(
    ("path", "kind", "needs"),
    [
        ("/v1/track", "track", {"event": "x"}),
        ("/v1/t", "track", {"event": "x"}),
        ("/v1/identify", "identify", {"traits": {"a": 1}}),
        ("/v1/i", "identify", {}),
        ("/v1/page", "page", {"name": "Home"}),
        ("/v1/p", "page", {}),
        ("/v1/screen", "screen", {}),
        ("/v1/s", "screen", {}),
        ("/v1/group", "group", {"groupId": "g"}),
        ("/v1/g", "group", {"groupId": 5}),
        ("/v1/alias", "alias", {"previousId": "p"}),
        ("/v1/a", "alias", {"previousId": "p"}),
    ],
)
def test_path_of_a_single_call_decides_its_type(segment: Call, path: str, kind: str, needs: dict[str, Any]) -> None:
    for said in ({}, {"type": kind}, {"type": "track"}, {"type": None}):
        (event,) = segment(path, {"writeKey": "w", "userId": "u", **needs, **said}).events
        assert (event.type, event.identity) == (kind, "u")
    if needs and kind != "identify" and kind != "page":
        assert only_rejection(segment(path, {"writeKey": "w", "userId": "u"}))[0] == "missing_field"


@pytest.mark.parametrize("body", [b'{"series":[]}', b"", b"\xff", b"{", b"[" * 1000])
def test_metrics_of_the_browser_are_counted_whatever_they_are(segment: Call, body: bytes) -> None:
    parsed = segment("/v1/m", body)
    assert parsed.accept_only
    assert not parsed.events


@pytest.mark.parametrize(
    ("body", "headers", "query", "credential"),
    [
        ({"writeKey": "w"}, {}, {}, None),
        ({}, basic("w:"), {}, None),
        ({}, basic("w"), {}, None),
        ({}, basic("w:ignored"), {}, None),
        ({}, {"authorization": "basic  dzo"}, {}, None),
        ({}, {}, {"writeKey": "w"}, None),
        ({}, {}, {}, "w"),
        ({"writeKey": "w"}, basic("wrong:"), {"writeKey": "wrong"}, None),
        ({}, basic("w:"), {"writeKey": "wrong"}, None),
        ({"writeKey": "wrong"}, basic("wrong:"), {}, "w"),
        ({"writeKey": None}, basic("w:"), {}, None),
        ({"writeKey": ""}, {}, {"writeKey": "w"}, None),
        ({}, {"authorization": "Bearer w"}, {"writeKey": "w"}, None),
        ({}, {"authorization": "Basic !!!"}, {"writeKey": "w"}, None),
        ({}, {"authorization": "Basic"}, {"writeKey": "w"}, None),
        ({}, {"authorization": "Basic \udce9"}, {"writeKey": "w"}, None),
        ({}, {"authorization": "Basic /////w=="}, {"writeKey": "w"}, None),
        ({}, basic(":"), {"writeKey": "w"}, None),
    ],
)
def test_write_key_first_hit_wins(
    segment: Call, body: dict[str, Any], headers: dict[str, str], query: dict[str, str], credential: str | None
) -> None:
    for path, whole in (("/v1/track", {**TRACK, **body}), ("/v1/batch", {"batch": [TRACK], **body})):
        parsed = segment(path, whole, headers=headers, query=query, credential=credential)
        assert parsed.app == "shop"
        assert len(parsed.events) == 1
        assert not parsed.rejections


@pytest.mark.parametrize(
    ("body", "headers", "query", "code"),
    [
        ({}, {}, {}, "invalid_key"),
        ({"writeKey": "wrong"}, basic("w:"), {"writeKey": "w"}, "invalid_key"),
        ({}, basic("wrong:"), {"writeKey": "w"}, "invalid_key"),
        ({}, {}, {"writeKey": "wrong"}, "invalid_key"),
        ({"writeKey": 5}, {}, {}, "invalid_field"),
        ({"writeKey": {}}, {}, {}, "invalid_field"),
        ({"writeKey": "\ud800"}, {}, {}, "invalid_key"),
    ],
)
def test_bad_write_key_is_a_fault_of_the_request(
    segment: Call, body: dict[str, Any], headers: dict[str, str], query: dict[str, str], code: str
) -> None:
    for path, whole in (("/v1/track", {**TRACK, **body}), ("/v1/batch", {"batch": [TRACK], **body})):
        with pytest.raises(ClientFault) as caught:
            segment(path, whole, headers=headers, query=query)
        assert caught.value.code == code


REJECTED: dict[str, tuple[dict[str, Any], str, str]] = {
    "no type": ({"type": None}, "missing_field", "type is none of track, identify"),
    "unknown type": ({"type": "Track"}, "invalid_field", "type is none of track, identify"),
    "type a number": ({"type": 1}, "invalid_field", "type is a number"),
    "no event": ({"event": None}, "missing_field", "event is missing"),
    "empty event": ({"event": ""}, "missing_field", "event is missing"),
    "event an object": ({"event": {}}, "invalid_field", "event is an object"),
    "event too long": ({"event": "x" * 1025}, "too_long", "event has 1025 characters"),
    "nobody": ({"userId": None}, "missing_field", "userId or anonymousId is needed"),
    "empty ids": ({"userId": "", "anonymousId": ""}, "missing_field", "userId or anonymousId is needed"),
    "userId an object": ({"userId": {}}, "invalid_field", "userId is an object"),
    "userId a boolean": ({"userId": True}, "invalid_field", "userId is a boolean"),
    "userId a fraction": ({"userId": 1.5}, "invalid_field", "userId is a fraction"),
    "userId too long": ({"userId": "x" * 1025}, "too_long", "userId has 1025 characters"),
    "userId half a surrogate pair": ({"userId": "\udc00"}, "invalid_field", "half of a surrogate pair"),
    "anonymousId an array": ({"anonymousId": []}, "invalid_field", "anonymousId is an array"),
    "messageId of 100": ({"messageId": "m" * 100}, "too_long", "messageId has 100 characters; at most 99"),
    "messageId a number": ({"messageId": 5}, "invalid_field", "messageId is a number"),
    "properties an array": ({"properties": []}, "invalid_field", "properties is an array; expected an object"),
    "traits a string": ({"traits": "x"}, "invalid_field", "traits is a string; expected an object"),
    "context a number": ({"context": 5}, "invalid_field", "context is a number; expected an object"),
    "integrations a boolean": ({"integrations": True}, "invalid_field", "integrations is a boolean"),
    "timestamp a number": ({"timestamp": 5}, "invalid_field", "timestamp is a number; expected an ISO 8601"),
    "timestamp prose": ({"timestamp": "now"}, "invalid_field", "timestamp is no ISO 8601 time"),
    "originalTimestamp prose": ({"originalTimestamp": "now"}, "invalid_field", "originalTimestamp is no ISO 8601 time"),
    "group without groupId": ({"type": "group"}, "missing_field", "groupId is missing"),
    "alias without previousId": ({"type": "alias"}, "missing_field", "previousId is missing"),
    "alias without userId": (
        {"type": "alias", "previousId": "p", "userId": None, "anonymousId": "a"},
        "missing_field",
        "userId is needed",
    ),
    "too deep": ({"properties": json.loads('{"a":' * 130 + "1" + "}" * 130)}, "too_deep", "deeper than 128 levels"),
}


@pytest.mark.parametrize(("change", "code", "words"), REJECTED.values(), ids=REJECTED.keys())
def test_bad_event_of_a_batch_is_rejected_and_its_neighbours_are_not(
    segment: Call, change: dict[str, Any], code: str, words: str
) -> None:
    bad = {**TRACK, **change}
    parsed = segment("/v1/batch", {"writeKey": "w", "batch": [TRACK, bad, TRACK]})
    assert [event.position for event in parsed.events] == [0, 2]
    (rejection,) = parsed.rejections
    assert (rejection.position, rejection.code) == (1, code)
    assert words in rejection.message
    assert rejection.original == json.dumps(bad).encode()
    kind = bad["type"] if bad["type"] in ("group", "alias") else "track"
    if "type" not in change or kind != "track":
        single = only_rejection(segment(f"/v1/{kind}", {**bad, "writeKey": "w"}))
        assert single == (rejection.code, rejection.message)


ACCEPTED: dict[str, bytes] = {
    "cut in an emoji": b'"userId":"u","properties":{"t":"cut \\ud83d","\\udc00":1}',
    "numbers of any size": b'"userId":"u","properties":{"a":123456789012345678901234567890,"b":1e400,"c":-0.0}',
    "5000 digits": b'"userId":"u","properties":{"a":%b}' % (b"1" * 5000),
    "nulls": b'"userId":"u","anonymousId":null,"properties":null,"traits":null,"context":null,"integrations":null,'
    b'"timestamp":null,"originalTimestamp":null,"sentAt":null,"messageId":null',
    "messageId of 99": b'"userId":"u","messageId":"%b"' % (b"m" * 99),
    "empty messageId": b'"userId":"u","messageId":""',
    "numeric id": b'"userId":123456789012345678901234567890',
    "negative id": b'"userId":-5',
    "anonymous only": b'"anonymousId":"a"',
    "duplicate names, the last counts": b'"userId":{},"userId":"u"',
    "unknown members": b'"userId":"u","channel":"server","_metadata":{"x":[null,true]}',
    "64 levels": b'"userId":"u","context":%b1%b' % (b'{"a":' * 64, b"}" * 64),
}


@pytest.mark.parametrize("members", ACCEPTED.values(), ids=ACCEPTED.keys())
def test_good_event_is_accepted_byte_for_byte(segment: Call, members: bytes) -> None:
    body = b' {"writeKey":"w" , "event":"x",%b}\n' % members
    parsed = segment("/v1/track", body)
    assert not parsed.rejections
    assert parsed.events[0].body == body
    piece = b'{"type" : "track","event":"\\u00e9",%b}' % members
    parsed = segment("/v1/batch", b'{"batch":[%b,\r\n%b], "writeKey":"w"}' % (piece, piece))
    assert not parsed.rejections
    assert [event.body for event in parsed.events] == [piece, piece]


@pytest.mark.parametrize(
    ("ids", "identity"),
    [
        ({"userId": "u", "anonymousId": "a"}, "u"),
        ({"userId": "", "anonymousId": "a"}, "a"),
        ({"userId": "null", "anonymousId": "a"}, "a"),
        ({"userId": "undefined", "anonymousId": "a"}, "a"),
        ({"userId": 0, "anonymousId": "a"}, "a"),
        ({"userId": "anonymous"}, None),
        ({"userId": 0}, None),
        ({"userId": 12}, "12"),
        ({"userId": "Größe 😀"}, "Größe 😀"),
    ],
)
def test_identity_is_the_first_id_that_names_somebody(segment: Call, ids: dict[str, Any], identity: str | None) -> None:
    (event,) = segment("/v1/track", {"writeKey": "w", "event": "x", **ids}).events
    assert event.identity == identity


@pytest.mark.parametrize(
    ("times", "sent_at", "expected_ms"),
    [
        ({}, None, None),
        ({}, RECEIVED_AT, None),
        ({"timestamp": "2027-01-15T07:00:00.123Z"}, None, RECEIVED_AT_MS - 3_600_000),
        ({"timestamp": "2027-01-15T07:00:00.123Z"}, "2027-01-15T07:00:01.123Z", RECEIVED_AT_MS - 1000),
        (
            {"originalTimestamp": "2027-01-15T07:00:00.123Z", "timestamp": "2000-01-01"},
            RECEIVED_AT,
            RECEIVED_AT_MS - 3_600_000,
        ),
        (
            {"timestamp": "2027-01-15T09:00:00.123+01:00", "sentAt": "2027-01-15T08:00:02.123Z"},
            None,
            RECEIVED_AT_MS - 2000,
        ),
        ({"timestamp": "2027-01-15 08:00:00.123"}, "2027-01-15T08:00:00.123", RECEIVED_AT_MS),
    ],
)
def test_timestamp_is_corrected_by_the_clocks_skew(
    segment: Call, times: dict[str, str], sent_at: str | None, expected_ms: int | None
) -> None:
    parsed = segment("/v1/batch", {"writeKey": "w", "batch": [{**TRACK, **times}], "sentAt": sent_at})
    assert ms_of(parsed.events[0]) == expected_ms
    parsed = segment("/v1/track", {"writeKey": "w", **TRACK, **({"sentAt": sent_at} if sent_at else {}), **times})
    assert ms_of(parsed.events[0]) == expected_ms


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"writeKey": "w"}, "missing_field"),
        ({"writeKey": "w", "batch": None}, "invalid_field"),
        ({"writeKey": "w", "batch": {}}, "invalid_field"),
        ({"writeKey": "w", "batch": [], "sentAt": 5}, "invalid_field"),
        ({"writeKey": "w", "batch": [], "sentAt": "now"}, "invalid_field"),
        ({"writeKey": "w", "batch": [], "context": []}, "invalid_field"),
        ({"writeKey": "w", "batch": [], "integrations": 1}, "invalid_field"),
        ({"writeKey": "w", "batch": [], "context": json.loads('{"a":' * 130 + "1" + "}" * 130)}, "too_deep"),
        ({"writeKey": "w", "batch": [1] * 2501}, "too_many"),
        ([], "invalid_body"),
        (b"", "invalid_json"),
        (b'{"writeKey":"w","batch":[{"type":"track",}]}', "invalid_json"),
        (b'{"writeKey":"w","batch":[{"type":"track","properties":{"a":NaN}}]}', "invalid_json"),
        (b'{"writeKey":"w","batch":[{"type":"\xc3\x28"}]}', "invalid_utf8"),
        (b'{"writeKey":"w","batch":[' + b"[" * 100_000, "too_deep"),
        (b"data=e30%3D", "invalid_json"),
    ],
)
def test_bad_batch_is_a_fault_as_a_whole(segment: Call, body: object, code: str) -> None:
    with pytest.raises(ClientFault) as caught:
        segment("/v1/batch", body)
    assert caught.value.code == code


def test_all_bad_is_told_from_empty(segment: Call) -> None:
    parsed = segment("/v1/batch", {"writeKey": "w", "batch": [1, {}]})
    assert (len(parsed.events), len(parsed.rejections), parsed.single) == (0, 2, False)
    parsed = segment("/v1/batch", {"writeKey": "w", "batch": []})
    assert (len(parsed.events), len(parsed.rejections), parsed.batch) == (0, 0, b"{}")


def test_limits_of_bytes_and_numbers_are_the_operators(segment: Call) -> None:
    big = {**TRACK, "properties": {"blob": "y" * 2000}}
    parsed = segment("/v1/batch", {"writeKey": "w", "batch": [big, TRACK]}, limits={"event_bytes": 1000})
    assert [rejection.code for rejection in parsed.rejections] == ["too_large"]
    with pytest.raises(ClientFault):
        segment("/v1/batch", {"writeKey": "w", "batch": [TRACK] * 6}, limits={"batch_events": 5})
    with pytest.raises(ClientFault) as caught:
        segment(
            "/v1/batch",
            {"writeKey": "w", "context": {"x": "y" * 1000}, "batch": [TRACK] * 10},
            limits={"batch_copies_bytes": 9999},
        )
    assert caught.value.code == "too_large"


def test_msgpack_is_read_by_the_same_rules(segment: Call) -> None:
    good = {**TRACK, "userId": 2**63, "properties": {"b": b"\x00", "deep": [[{}]]}}
    bad = {**TRACK, "context": "x"}
    body = msgspec.msgpack.encode({"writeKey": "w", "batch": [good, bad], "context": {"a": 1}, "sentAt": RECEIVED_AT})
    parsed = segment("/v1/batch", body, encoding="msgpack")
    assert [event.body for event in parsed.events] == [msgspec.msgpack.encode(good)]
    assert parsed.events[0].identity == str(2**63)
    assert "context is a string" in parsed.rejections[0].message
    assert parsed.batch == b'{"context":{"a":1},"sentAt":"%b"}' % RECEIVED_AT.encode()
    assert parsed.sent_at_ms == RECEIVED_AT_MS
    single = msgspec.msgpack.encode({"writeKey": "w", **good})
    assert segment("/v1/track", single, encoding="msgpack").events[0].body == single


@pytest.mark.parametrize(
    ("body", "path"),
    [
        (b'{"batch":[]}', "/v1/batch"),
        (b'{"batch":[],"x":"\\ud800"}', "/v1/batch"),
        (b'{"type":"page"}', "/v1/page"),
        (b'{"type":"alias","x":"\\ud800"}', "/v1/alias"),
        (b'{"event":"x"}', "/v1/track"),
        (b'{"event":"\\ud800"}', "/v1/track"),
        (b'{"type":null}', "/v1/track"),
    ],
)
def test_message_of_a_websocket_finds_its_route(body: bytes, path: str) -> None:
    assert Segment(LimitsConfig()).message_route(body, "json").path == path


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"[]", "invalid_body"),
        (b"{", "invalid_json"),
        (b'{"type":5}', "invalid_field"),
        (b'{"type":"nope"}', "invalid_field"),
        (b'{"type":"\\ud800"}', "invalid_field"),
        (b'"\xff"', "invalid_utf8"),
    ],
)
def test_message_without_a_route_is_a_fault(body: bytes, code: str) -> None:
    with pytest.raises(ClientFault) as caught:
        Segment(LimitsConfig()).message_route(body, "json")
    assert caught.value.code == code


def test_answers_are_in_segments_form() -> None:
    dialect = Segment(LimitsConfig())
    accepted = dialect.accepted(dialect.routes[0])
    assert (accepted.status, accepted.body, accepted.content_type) == (200, b'{"success": true}', "application/json")
    refused = dialect.refused(None, ClientFault("invalid_key", "no \ud800"))
    assert refused.status == 400
    assert json.loads(refused.body) == {"code": "invalid_key", "message": "no ?"}
    unavailable = dialect.unavailable(None, "try again")
    assert unavailable.status == 503
    assert json.loads(unavailable.body) == {"code": "unavailable", "message": "try again"}


names = ["type", "event", "userId", "anonymousId", "groupId", "previousId", "messageId", "properties", "timestamp"]
scalars = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | st.text(max_size=6)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
)
kinds = ["track", "page", "group", "alias", "identify"]
good_values = st.sampled_from([*kinds, "2027-01-15T00:00:00Z", {"a": 1}, {}, None, 5, 0])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    events=st.lists(
        st.fixed_dictionaries(
            {"type": st.sampled_from(kinds) | values},
            optional=dict.fromkeys(names[1:], good_values | values),
        ),
        max_size=4,
    )
)
def test_close_look_and_typed_decoder_agree(segment: Call, events: list[dict[str, Any]]) -> None:
    """A member that msgspec alone refuses sends every event through the close look: the verdicts stay the same."""

    def told_of(events: list[dict[str, Any]]) -> list[object]:
        body = json.dumps({"writeKey": "w", "batch": events}).replace("Infinity", "1e999").encode()
        parsed = segment("/v1/batch", body)
        good = [(event.position, event.type, event.identity, event.id, ms_of(event)) for event in parsed.events]
        bad = [(rejection.position, rejection.code, rejection.message) for rejection in parsed.rejections]
        return [*good, *bad]

    assert told_of(events) == told_of([{"odd": "\ud800", **event} for event in events])
