"""Heap: what is accepted, what is refused in which words, and that nothing is rewritten."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from collector.config import LimitsConfig
from collector.dialects import ClientFault, Parsed
from collector.dialects.heap import Heap

from .conftest import RECEIVED_AT_MS, Call, ms_of

GOOD = {"app_id": "11", "identity": "alice@example.com", "event": "Send Transactional Email"}


def only_rejection(parsed: Parsed) -> tuple[str, str]:
    assert not parsed.events
    (rejection,) = parsed.rejections
    return rejection.code, rejection.message


def test_single_event_of_the_public_example(heap: Call) -> None:
    body = (
        b'{\n  "app_id": "11",\n  "identity": "alice@example.com",\n  "event": "Send Transactional Email",\n'
        b'  "timestamp": "2017-03-10T22:21:56+00:00",\n  "properties": {\n    "subject": "Welcome to My App!",\n'
        b'    "variation": "A"\n  }\n}\n'
    )
    parsed = heap("/api/track", body)
    (event,) = parsed.events
    assert (parsed.api, parsed.app, parsed.single, parsed.batch, parsed.sent_at_ms) == (
        "heap",
        "shop",
        True,
        None,
        None,
    )
    assert (event.type, event.identity, event.id) == ("track", "alice@example.com", None)
    assert ms_of(event) == 1489184516000
    assert event.body == body


def test_bulk_slices_each_event_and_keeps_the_rest_of_the_top_level(heap: Call) -> None:
    pieces = [
        b'{ "identity":"a" ,"event":"x","event":"y" }',
        b'{"event":"\\u0041","user_id":"9007199254740991","properties":{"n":123456789012345678901234567890}}',
        b'{"identity":"b","event":"z","idempotency_key":"k-1","timestamp":"2017-03-10"}',
    ]
    body = b'{"lib":"ruby" , "events":[ %b,\n%b ,\t%b ],"app_id":"11"}' % tuple(pieces)
    parsed = heap("/api/track", body)
    assert not parsed.rejections
    assert [event.body for event in parsed.events] == pieces
    assert [event.position for event in parsed.events] == [0, 1, 2]
    assert [event.identity for event in parsed.events] == ["a", "9007199254740991", "b"]
    assert [event.id for event in parsed.events] == [None, None, "k-1"]
    assert [ms_of(event) for event in parsed.events] == [RECEIVED_AT_MS, RECEIVED_AT_MS, 1489104000000]
    assert (parsed.single, parsed.batch) == (False, b'{"lib":"ruby"}')


def test_bulk_with_nothing_else_has_an_empty_top_level(heap: Call) -> None:
    assert heap("/api/track", {"app_id": "11", "events": []}).batch == b"{}"


def test_bulk_rejects_the_bad_and_keeps_the_good(heap: Call) -> None:
    good = {"identity": "a", "event": "x"}
    bad = [
        1,
        None,
        [],
        "x",
        {},
        {"identity": "a"},
        {"identity": 1, "event": "x"},
        {"identity": "a", "event": "x" * 1025},
    ]
    parsed = heap("/api/track", {"app_id": "11", "events": [good, *bad, good]})
    assert [event.position for event in parsed.events] == [0, 9]
    assert [rejection.position for rejection in parsed.rejections] == list(range(1, 9))
    assert [rejection.code for rejection in parsed.rejections] == [
        *["invalid_body"] * 4,
        *["missing_field"] * 2,
        "invalid_field",
        "too_long",
    ]
    assert [json.loads(rejection.original) for rejection in parsed.rejections] == bad


REJECTED: dict[str, tuple[dict[str, Any], str, str]] = {
    "event missing": ({"event": None}, "missing_field", "event is missing"),
    "event empty": ({"event": ""}, "missing_field", "event is missing"),
    "event a number": ({"event": 5}, "invalid_field", "event is a number; expected a string"),
    "event too long": ({"event": "x" * 1025}, "too_long", "event has 1025 characters; at most 1024"),
    "identity missing": ({"identity": None}, "missing_field", "exactly one of identity and user_id"),
    "identity empty": ({"identity": ""}, "missing_field", "identity is empty"),
    "identity a number": ({"identity": 5}, "invalid_field", "identity is a number"),
    "identity an object": ({"identity": {}}, "invalid_field", "identity is an object"),
    "identity too long": ({"identity": "é" * 256}, "too_long", "identity has 256 characters; at most 255"),
    "identity half a surrogate pair": ({"identity": "\ud83d"}, "invalid_field", "half of a surrogate pair"),
    "identity and user_id": ({"user_id": "1"}, "missing_field", "exactly one of identity and user_id"),
    "user_id a number": ({"identity": None, "user_id": 1}, "invalid_field", "user_id is a number"),
    "user_id empty": ({"identity": None, "user_id": ""}, "invalid_field", "not a decimal number"),
    "user_id signed": ({"identity": None, "user_id": "-1"}, "invalid_field", "not a decimal number"),
    "user_id hex": ({"identity": None, "user_id": "1f"}, "invalid_field", "not a decimal number"),
    "user_id other digits": ({"identity": None, "user_id": "١٢"}, "invalid_field", "not a decimal number"),
    "user_id 2^53": ({"identity": None, "user_id": "9007199254740992"}, "invalid_field", "above 9007199254740991"),
    "user_id 5000 digits": ({"identity": None, "user_id": "1" * 5000}, "too_long", "user_id has 5000 characters"),
    "user_id 1000 digits": ({"identity": None, "user_id": "1" * 1000}, "invalid_field", "above"),
    "session_id an object": ({"session_id": {}}, "invalid_field", "session_id is an object"),
    "session_id a boolean": ({"session_id": True}, "invalid_field", "session_id is a boolean"),
    "properties an array": ({"properties": []}, "invalid_field", "properties is an array; expected an object"),
    "properties a string": ({"properties": "x"}, "invalid_field", "properties is a string"),
    "property an object": ({"properties": {"a": {}}}, "invalid_field", "a property is an object"),
    "property a boolean": ({"properties": {"a": True}}, "invalid_field", "a property is a boolean"),
    "property null": ({"properties": {"a": None}}, "invalid_field", "a property is null"),
    "property too long": ({"properties": {"a": "x" * 1025}}, "too_long", "a property has 1025 characters"),
    "property name too long": ({"properties": {"x" * 1025: 1}}, "too_long", "a property's name has 1025 characters"),
    "property array of objects": (
        {"properties": {"a": [1, {}]}},
        "invalid_field",
        "something beside numbers and strings",
    ),
    "property array of arrays": ({"properties": {"a": [[1]]}}, "invalid_field", "something beside numbers and strings"),
    "timestamp a number": ({"timestamp": 1489184516}, "invalid_field", "timestamp is a number; expected an ISO 8601"),
    "timestamp prose": ({"timestamp": "yesterday"}, "invalid_field", "timestamp is no ISO 8601 time"),
    "timestamp no such day": ({"timestamp": "2017-02-30T00:00:00Z"}, "invalid_field", "timestamp is no ISO 8601 time"),
    "timestamp long": ({"timestamp": "2017-03-10T" + "0" * 9999}, "invalid_field", "timestamp is no ISO 8601 time"),
    "idempotency_key a number": ({"idempotency_key": 5}, "invalid_field", "idempotency_key is a number"),
    "idempotency_key too long": ({"idempotency_key": "x" * 1025}, "too_long", "idempotency_key has 1025 characters"),
    "unknown member too deep": ({"x": json.loads("[" * 130 + "]" * 130)}, "too_deep", "deeper than 128 levels"),
}


@pytest.mark.parametrize(("change", "code", "words"), REJECTED.values(), ids=REJECTED.keys())
def test_bad_member_is_rejected_alone_and_in_bulk(heap: Call, change: dict[str, Any], code: str, words: str) -> None:
    found = only_rejection(heap("/api/track", {**GOOD, **change}))
    assert found[0] == code
    assert words in found[1]
    event = {name: value for name, value in {**GOOD, **change}.items() if name != "app_id"}
    good = {"identity": "a", "event": "x"}
    parsed = heap("/api/track", {"app_id": "11", "events": [good, event, good]})
    assert [event.position for event in parsed.events] == [0, 2]
    (rejection,) = parsed.rejections
    assert (rejection.position, rejection.code, rejection.message) == (1, *found)


ACCEPTED: dict[str, bytes] = {
    "longest event": b'"event":"%b"' % (b"x" * 1024),
    "event with an escape": b'"event":"\\u00e9\\n\\/"',
    "event cut in an emoji": b'"event":"cut \\ud83d"',
    "property cut in an emoji": b'"event":"x","properties":{"a":"\\udc00","\\ud800":["\\ud800"]}',
    "30 digits": b'"event":"x","properties":{"a":123456789012345678901234567890,"b":-0.1e-5,"c":1E+2}',
    "number beyond a double": b'"event":"x","properties":{"a":1e400,"b":[1e400]}',
    "5000 digits": b'"event":"x","properties":{"a":%b}' % (b"1" * 5000),
    "array longer than it will be": b'"event":"x","properties":{"a":["%b",1,"b"]}' % (b"x" * 3000),
    "longest property": b'"event":"x","properties":{"%b":"%b"}' % ((b"k" * 1024,) * 2),
    "1024 characters of 4 bytes": '"event":"{}"'.format("😀" * 1024).encode(),
    "nulls": b'"event":"x","properties":null,"session_id":null,"timestamp":null,"idempotency_key":null,"user_id":null',
    "numeric session": b'"event":"x","session_id":12345678901234567890',
    "unknown members": b'"event":"x","library":{"deep":[{"a":null}]},"z":[true,false]',
    "duplicate names, the last counts": b'"event":5,"event":"x"',
    "escaped name": b'"\\u0065vent":"x"',
    "empty properties": b'"event":"x","properties":{}',
    "128 levels": b'"event":"x","z":%b' % (b"[" * 127 + b"]" * 127),
}


@pytest.mark.parametrize("members", ACCEPTED.values(), ids=ACCEPTED.keys())
def test_good_member_is_accepted_alone_and_in_bulk_byte_for_byte(heap: Call, members: bytes) -> None:
    body = b' {"app_id":"11", "identity":"Alice" ,%b} ' % members
    parsed = heap("/api/track", body)
    assert not parsed.rejections
    assert (parsed.events[0].body, parsed.events[0].identity) == (body, "Alice")
    piece = b'{"identity":"Alice" ,%b}' % members
    parsed = heap("/api/track", b'{"app_id":"11","events":[{"identity":"a","event":"b"},%b]}' % piece)
    assert not parsed.rejections
    assert parsed.events[1].body == piece


@pytest.mark.parametrize(
    ("text", "ms"),
    [
        ("2017-03-10T22:21:56.789Z", 1489184516789),
        ("2017-03-10T22:21:56.789999Z", 1489184516789),
        ("2017-03-10T22:21:56.789123456Z", 1489184516789),
        ("2017-03-10t22:21:56z", 1489184516000),
        ("2017-03-10T23:21:56+01:00", 1489184516000),
        ("2017-03-10T23:21:56+0100", 1489184516000),
        ("2017-03-10T22:21:56", 1489184516000),
        ("2017-03-10 22:21:56", 1489184516000),
        ("20170310T222156Z", 1489184516000),
        ("2017-W10-5T22:21:56Z", 1489184516000),
        ("2017-03-10", 1489104000000),
        ("1969-12-31T23:59:59.999Z", -1),
        ("0001-01-01T00:00:00Z", -62135596800000),
        ("9999-12-31T23:59:59.999Z", 253402300799999),
    ],
)
def test_timestamp_in_any_usual_spelling(heap: Call, text: str, ms: int) -> None:
    (event,) = heap("/api/track", {**GOOD, "timestamp": text}).events
    assert ms_of(event) == ms


@pytest.mark.parametrize("identity", ["null", "undefined", "0", "anonymous"])
def test_identity_that_means_nobody_is_no_key(heap: Call, identity: str) -> None:
    (event,) = heap("/api/track", {**GOOD, "identity": identity}).events
    assert event.identity is None


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"event": "x", "identity": "a"}, "missing_field"),
        ({**GOOD, "app_id": None}, "missing_field"),
        ({**GOOD, "app_id": ""}, "missing_field"),
        ({**GOOD, "app_id": 11}, "invalid_field"),
        ({**GOOD, "app_id": ["11"]}, "invalid_field"),
        ({**GOOD, "app_id": "12"}, "invalid_key"),
        ({**GOOD, "app_id": "\ud800"}, "invalid_key"),
        ({"app_id": "11", "events": {}}, "invalid_field"),
        ({"app_id": "11", "events": None}, "invalid_field"),
        ({"app_id": "11", "events": "x"}, "invalid_field"),
        ({"app_id": "11", "events": [{}] * 1001}, "too_many"),
        ([], "invalid_body"),
        ("x", "invalid_body"),
        (b"", "invalid_json"),
        (b'{"app_id":"11","events":[', "invalid_json"),
        (b'{"app_id":"11","event":NaN}', "invalid_json"),
        (b'{"app_id":"11","event":"\xff"}', "invalid_utf8"),
        (b'{"app_id":"11","event":%b' % (b"[" * 100_000), "too_deep"),
        (b"\x1f\x8b\x08\x00", "invalid_utf8"),
    ],
)
def test_bad_request_is_a_fault_as_a_whole(heap: Call, body: object, code: str) -> None:
    with pytest.raises(ClientFault) as caught:
        heap("/api/track", body)
    assert caught.value.code == code


def test_event_beyond_its_bytes_is_rejected_and_its_neighbours_are_not(heap: Call) -> None:
    big = {"identity": "a", "event": "x", "blob": "y" * 2000}
    small = {"identity": "a", "event": "x"}
    parsed = heap("/api/track", {"app_id": "11", "events": [small, big, small]}, limits={"event_bytes": 1000})
    assert [event.position for event in parsed.events] == [0, 2]
    assert parsed.rejections[0].code == "too_large"
    assert (
        only_rejection(heap("/api/track", {**GOOD, "blob": "y" * 2000}, limits={"event_bytes": 1000}))[0] == "too_large"
    )


def test_top_level_that_would_be_copied_too_often_is_refused(heap: Call) -> None:
    body = {"app_id": "11", "lib": "x" * 1000, "events": [{"identity": "a", "event": "x"}] * 100}
    with pytest.raises(ClientFault) as caught:
        heap("/api/track", body, limits={"batch_copies_bytes": 50_000})
    assert caught.value.code == "too_large"


def test_1000_events_are_taken(heap: Call) -> None:
    parsed = heap("/api/track", {"app_id": "11", "events": [{"identity": "a", "event": "x"}] * 1000})
    assert len(parsed.events) == 1000


def test_credential_of_the_message_wins_over_the_body(heap: Call) -> None:
    assert heap("/api/track", {**GOOD, "app_id": "12"}, credential="11").app == "shop"
    with pytest.raises(ClientFault):
        heap("/api/track", GOOD, credential="12")


def test_open_keyring_makes_the_app_id_the_app(heap: Call) -> None:
    assert heap("/api/track", {**GOOD, "app_id": "any"}, open_to_all=True).app == "any"


@pytest.mark.parametrize(
    ("path", "body", "type_", "identity"),
    [
        ("/api/add_user_properties", {"identity": "a", "properties": {"age": 5}}, "add_user_properties", "a"),
        ("/api/add_user_properties", {"identity": "a"}, "add_user_properties", "a"),
        (
            "/api/add_account_properties",
            {"account_id": "Acme", "properties": {"x": "y"}},
            "add_account_properties",
            "Acme",
        ),
        ("/api/v1/identify", {"identity": "a", "user_id": "5", "timestamp": "2017-03-10"}, "identify", "a"),
        ("/api/identify", {"identity": "a", "properties": {}}, "identify", "a"),
    ],
)
def test_other_calls_are_accepted(heap: Call, path: str, body: dict[str, Any], type_: str, identity: str) -> None:
    parsed = heap(path, {"app_id": "11", **body})
    (event,) = parsed.events
    assert (event.type, event.identity) == (type_, identity)
    assert parsed.single


@pytest.mark.parametrize(
    ("path", "body", "words"),
    [
        ("/api/add_user_properties", {"properties": {}}, "identity is missing"),
        ("/api/add_user_properties", {"identity": "a", "properties": {"iD": 1}}, "may not be called iD"),
        ("/api/add_user_properties", {"identity": "a", "properties": {"user_id": 1}}, "may not be called user_id"),
        (
            "/api/add_user_properties",
            {"identity": "a", "properties": {"id": 1e300, "b": True}},
            "a property is a boolean",
        ),
        ("/api/add_account_properties", {"properties": {}}, "account_id is missing"),
        ("/api/add_account_properties", {"account_id": 5}, "account_id is a number"),
        ("/api/v1/identify", {"identity": "a"}, "user_id is missing"),
        ("/api/v1/identify", {"identity": "a", "user_id": "x"}, "user_id is not a decimal number"),
        ("/api/v1/identify", {"user_id": "5"}, "identity is missing"),
        ("/api/identify", {}, "identity is missing"),
    ],
)
def test_other_calls_reject_in_words(heap: Call, path: str, body: dict[str, Any], words: str) -> None:
    assert words in only_rejection(heap(path, {"app_id": "11", **body}))[1]


def test_close_look_forbids_the_same_property_names(heap: Call) -> None:
    body = b'{"app_id":"11","identity":"a","properties":{"ID":1e400}}'
    assert "may not be called ID" in only_rejection(heap("/api/add_user_properties", body))[1]


def test_bulk_of_users_and_of_accounts(heap: Call) -> None:
    users = [{"identity": "a", "properties": {"x": 1}}, {"identity": "b"}, {"properties": {"x": 1}}]
    parsed = heap("/api/add_user_properties", {"app_id": "11", "users": users})
    assert [event.identity for event in parsed.events] == ["a", "b"]
    assert [rejection.position for rejection in parsed.rejections] == [2]
    accounts = [{"account_id": "Acme", "properties": {"x": 1}}, {"identity": "b"}]
    parsed = heap("/api/add_account_properties", {"app_id": "11", "accounts": accounts})
    assert [event.identity for event in parsed.events] == ["Acme"]
    assert [rejection.position for rejection in parsed.rejections] == [1]
    with pytest.raises(ClientFault):
        heap("/api/add_user_properties", {"app_id": "11", "users": users * 400})


def test_msgpack_is_read_by_the_same_rules(heap: Call) -> None:
    event = {"identity": "a", "event": "x", "properties": {"n": 2**60, "f": 1.5, "l": ["a", 1]}}
    body = msgspec.msgpack.encode({"app_id": "11", **event})
    parsed = heap("/api/track", body, encoding="msgpack")
    assert (parsed.encoding, parsed.events[0].body, parsed.events[0].identity) == ("msgpack", body, "a")
    bad = {"identity": "a", "event": "x", "properties": {"b": True}}
    body = msgspec.msgpack.encode({"app_id": "11", "lib": b"\x00", "events": [event, bad]})
    parsed = heap("/api/track", body, encoding="msgpack")
    assert parsed.batch == b'{"lib":"AA=="}'
    assert parsed.events[0].body == msgspec.msgpack.encode(event)
    assert "a property is a boolean" in parsed.rejections[0].message


@pytest.mark.parametrize(
    ("body", "path"),
    [
        (b'{"event":"x"}', "/api/track"),
        (b'{"events":[]}', "/api/track"),
        (b'{"events":[],"x":"\\ud800"}', "/api/track"),
        (b'{"users":[]}', "/api/add_user_properties"),
        (b'{"identity":"a","properties":{}}', "/api/add_user_properties"),
        (b'{"accounts":[]}', "/api/add_account_properties"),
        (b'{"account_id":"a"}', "/api/add_account_properties"),
        (b'{"identity":"a","user_id":"5"}', "/api/v1/identify"),
    ],
)
def test_message_of_a_websocket_finds_its_route(body: bytes, path: str) -> None:
    assert Heap(LimitsConfig()).message_route(body, "json").path == path


def test_message_that_is_no_object_has_no_route() -> None:
    for body, code in ((b"[]", "invalid_body"), (b"{", "invalid_json"), (b'"\xff"', "invalid_utf8")):
        with pytest.raises(ClientFault) as caught:
            Heap(LimitsConfig()).message_route(body, "json")
        assert caught.value.code == code


def test_answers_are_in_heaps_form() -> None:
    dialect = Heap(LimitsConfig())
    route = dialect.routes[0]
    accepted = dialect.accepted(route)
    assert (accepted.status, accepted.body, accepted.content_type) == (200, b"{}", "application/json")
    refused = dialect.refused(route, ClientFault("invalid_field", "event is \ud800"))
    assert (refused.status, refused.body) == (400, b"invalid_field: event is ?\n")
    assert refused.content_type.startswith("text/plain")
    assert dialect.unavailable(None, "try again").status == 503


scalars = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | st.text(max_size=6)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
)
names = ["event", "identity", "user_id", "session_id", "properties", "timestamp", "idempotency_key", "other"]
good_values = st.sampled_from(["x", "5", "2017-03-10T00:00:00Z", {"a": 1, "b": ["c"]}, None])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(events=st.lists(st.dictionaries(st.sampled_from(names), good_values | values, max_size=6), max_size=4))
def test_close_look_and_typed_decoder_agree(heap: Call, events: list[dict[str, Any]]) -> None:
    """A member that msgspec alone refuses sends every event through the close look: the verdicts stay the same."""

    def told_of(events: list[dict[str, Any]]) -> list[object]:
        body = json.dumps({"app_id": "11", "events": events}).replace("Infinity", "1e999").encode()
        return told(heap("/api/track", body))

    def told(parsed: Parsed) -> list[object]:
        good = [(event.position, event.identity, event.id, ms_of(event)) for event in parsed.events]
        bad = [(rejection.position, rejection.code, rejection.message) for rejection in parsed.rejections]
        return [*good, *bad]

    assert told_of(events) == told_of([{"odd": "\ud800", **event} for event in events])
