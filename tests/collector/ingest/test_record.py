"""The record: members and their order, the body byte for byte, key, headers, ids."""

import base64
import json
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any, Literal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.config import Config, KafkaConfig, KeysConfig
from collector.dialects import Event, Parsed, Rejection
from collector.ingest.bad_record import ORIGINAL_MAX_BYTES, bad_record
from collector.ingest.record import Client, RecordContext, encode_events, new_node
from collector.times import moment_of
from kafka_client.outcome import Record

RECEIVED_AT_MS = 1_800_000_000_123
MEMBERS = [
    *["v", "id", "api", "type", "app", "received_at", "sent_at", "timestamp", "ip", "user_agent", "flags", "batch"],
    *["encoding", "body"],
]


class Value(msgspec.Struct):
    """The value as a consumer would read it, with the body as it stands there."""

    body: msgspec.Raw


def context(client: Client | None = None, **changes: Any) -> RecordContext:
    given = {"received_at_ms": RECEIVED_AT_MS, "request_id": "r-1", "node": "node-1"}
    return RecordContext(**{**given, "client": (client or Client()).members, **changes})


def event(**changes: Any) -> Event:
    given = {"position": 0, "type": "track", "id": "m-1", "identity": "alice", "timestamp": None, "body": b"{}"}
    return Event(**{**given, **changes})


def build_records(
    events: Sequence[Event],
    whole: Parsed,
    seen: RecordContext,
    first_seq: int,
    config: Config,
    doubtful: Collection[int] = (),
) -> list[Record]:
    return encode_events(events, whole, seen, first_seq, config, doubtful).records()


def build_record(one: Event, whole: Parsed, seen: RecordContext, seq: int, config: Config) -> Record:
    return build_records((one,), whole, seen, seq, config)[0]


def parsed(*events: Event, **changes: Any) -> Parsed:
    return Parsed(**{"api": "segment", "app": "shop", "events": events, **changes})


def test_value_has_every_member_in_order() -> None:
    one = event(timestamp=moment_of(RECEIVED_AT_MS - 5), body=b'{ "b":1, "a":2 }')
    whole = parsed(one, sent_at_ms=RECEIVED_AT_MS - 1500, batch=b'{"context":{}}')
    seen = context(Client(ip="192.0.2.0", user_agent='curl/8 "x"', bot=False, dnt=True))
    record = build_record(one, whole, seen, 7, Config())
    assert record.value == (
        b'{"v":1,"id":"m-1","api":"segment","type":"track","app":"shop","received_at":"2027-01-15T08:00:00.123Z",'
        b'"sent_at":"2027-01-15T07:59:58.623Z","timestamp":"2027-01-15T08:00:00.118Z","ip":"192.0.2.0",'
        b'"user_agent":"curl/8 \\"x\\"","flags":{"bot":false,"dnt":true,"gpc":null,"skew_ms":1500},'
        b'"batch":{"context":{}},"encoding":"json","body":{ "b":1, "a":2 }}'
    )
    assert record.topic == "events"
    assert record.key == b"alice"
    assert record.headers == (("message-id", b"m-1"), ("node", b"node-1"), ("seq", b"7"))
    assert record.timestamp_ms == RECEIVED_AT_MS
    assert record.partition is None


def test_value_is_null_where_nothing_is_known() -> None:
    record = build_record(event(identity=None), parsed(event()), context(), 1, Config())
    assert record.value is not None
    value = json.loads(record.value)
    assert list(value) == MEMBERS
    assert value["flags"] == {"bot": None, "dnt": None, "gpc": None, "skew_ms": None}
    for name in ("sent_at", "timestamp", "ip", "user_agent", "batch"):
        assert value[name] is None
    assert record.key is None


@pytest.mark.parametrize(
    "body",
    [
        b'{"a":1,"a":2}',
        b'\t{ "a"\n:\r1 } ',
        b'{"a":"\\u00e9\\/\\ud83d"}',
        b'{"a":123456789012345678901234567890,"b":1.0E+2,"c":-0}',
        '{"a":"é😀\u2028"}'.encode(),
    ],
)
def test_body_is_the_clients_bytes(body: bytes) -> None:
    record = build_record(event(body=body), parsed(event()), context(), 1, Config())
    assert record.value is not None
    assert record.value.endswith(b'"encoding":"json","body":' + body + b"}")
    if b"\\ud83d" not in body:
        assert bytes(msgspec.json.decode(record.value, type=Value).body) == body.strip()


def test_body_that_cannot_stand_in_json_is_base64() -> None:
    record = build_record(event(body=b"\x81\xff"), parsed(event(), encoding="msgpack"), context(), 1, Config())
    assert record.value is not None
    value = json.loads(record.value)
    assert value["encoding"] == "base64"
    assert base64.b64decode(value["body"]) == b"\x81\xff"


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("identity", "é".encode()),
        ("app+identity", "shop:é".encode()),
        ("hash", b"4a99557e4033c3539de2eb65472017cad5f9557f7a0625a09f1c3f6e2ba69c4c"),
        ("none", None),
    ],
)
def test_key_is_made_as_configured(
    key: Literal["identity", "app+identity", "hash", "none"], expected: bytes | None
) -> None:
    config = replace(Config(), kafka=KafkaConfig(key=key))
    assert build_record(event(identity="é"), parsed(event()), context(), 1, config).key == expected
    assert build_record(event(identity=None), parsed(event()), context(), 1, config).key is None


def test_ids_that_clients_leave_out_are_hashes_of_request_and_position() -> None:
    events = [event(id=None, position=position) for position in (0, 1, 5)]
    whole = parsed(*events)

    def ids(records: list[Any]) -> list[bytes]:
        return [dict(record.headers)["message-id"] for record in records]

    first = ids(build_records(events, whole, context(), 1, Config()))
    assert len(set(first)) == 3
    assert all(len(id_) == 32 for id_ in first)
    # In one run, in two, or alone: the same ids; in another request others.
    apart = build_records(events[:1], whole, context(), 1, Config()) + build_records(
        events[1:], whole, context(), 2, Config()
    )
    assert ids(apart) == first
    assert ids([build_record(events[2], whole, context(), 3, Config())]) == first[2:]
    assert not set(first) & set(ids(build_records(events, whole, context(request_id="r-2"), 1, Config())))
    assert json.loads(apart[0].value or b"")["id"].encode() == first[0]


def test_records_are_numbered_in_order_and_repeats_are_marked() -> None:
    events = [event(position=position) for position in range(3)]
    records = build_records(events, parsed(*events), context(maybe_duplicate=True), 41, Config())
    assert [dict(record.headers)["seq"] for record in records] == [b"41", b"42", b"43"]
    assert all(record.headers[-1] == ("maybe-duplicate", b"1") for record in records)
    assert build_records([], parsed(), context(), 1, Config()) == []


def test_time_beyond_the_calendar_is_null() -> None:
    for ms in (-(10**17), 10**17):
        record = build_record(event(timestamp=moment_of(ms)), parsed(event(), sent_at_ms=ms), context(), 1, Config())
        value = json.loads(record.value or b"")
        assert value["timestamp"] is None
        assert value["sent_at"] is None
        assert value["flags"]["skew_ms"] == RECEIVED_AT_MS - ms


@given(st.text(), st.text(), st.text(alphabet=st.characters(codec="latin-1")), st.binary(max_size=9), st.text())
def test_any_text_gives_valid_json_with_every_member(id_: str, app: str, agent: str, raw: bytes, request: str) -> None:
    agent += raw.decode(errors="surrogateescape")
    seen = context(Client.from_headers(None, agent, None, None), request_id=request, node=new_node())
    record = build_record(event(id=id_ or None, identity=app), parsed(event(), app=app), seen, 1, Config())
    value = json.loads((record.value or b"").decode())
    assert list(value) == MEMBERS
    assert value["app"] == app
    if id_:
        assert value["id"] == id_
        assert record.headers[0][1] == id_.encode()


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, (None, None, None, None)),
        ({"user-agent": "Mozilla/5.0 (compatible; Googlebot/2.1)"}, ("Mozilla", True, None, None)),
        ({"user-agent": "Mozilla/5.0 HeadlessChrome/120"}, ("Mozilla", True, None, None)),
        ({"user-agent": "Mozilla/5.0 (X11; CUBOT) Firefox/130"}, ("Mozilla", False, None, None)),
        ({"dnt": "1", "sec-gpc": "1"}, (None, None, True, True)),
        ({"dnt": "0", "sec-gpc": "0"}, (None, None, False, False)),
        ({"dnt": "unspecified", "sec-gpc": ""}, (None, None, None, None)),
    ],
)
def test_client_is_what_the_headers_say(headers: dict[str, str], expected: tuple[Any, ...]) -> None:
    field = headers.get
    seen = Client.from_headers(None, field("user-agent"), field("dnt"), field("sec-gpc"))
    agent = None if seen.user_agent is None else seen.user_agent[:7]
    assert (agent, seen.bot, seen.dnt, seen.gpc) == expected


def test_user_agent_is_cut() -> None:
    assert Client.from_headers(None, "x" * 9999, None, None).user_agent == "x" * 512


def test_nodes_differ() -> None:
    assert new_node() != new_node()


def rejection(original: bytes, **changes: Any) -> Rejection:
    given = {"position": 3, "code": "invalid_field", "message": "event is a number", "original": original}
    return Rejection(**{**given, **changes})


def bad(original: bytes, *, config: Config | None = None, encoding: str = "json", **changes: Any) -> dict[str, Any]:
    whole = parsed(encoding=encoding)
    seen = context(Client(ip="192.0.2.0", user_agent="curl"))
    record = bad_record(rejection(original, **changes), whole, seen, config or Config())
    assert (record.topic, record.key) == ("events-bad", None)
    value = json.loads((record.value or b"").decode())
    assert isinstance(value, dict)
    return value


def test_bad_record_says_why_and_where_with_the_original() -> None:
    assert bad(b'{"event": 5}') == {
        "v": 1,
        "api": "segment",
        "app": "shop",
        "received_at": "2027-01-15T08:00:00.123Z",
        "request_id": "r-1",
        "position": 3,
        "code": "invalid_field",
        "reason": "event is a number",
        "bytes": 12,
        "cut": False,
        "original": '{"event": 5}',
    }


@pytest.mark.parametrize(
    "original",
    [
        b'{"writeKey":"SECRET","event":5}',
        b'{"writekey" : "SECRET"}',
        b'{"app_id":\n"SECRET","x":1}',
        b'{"context":{"ip":"SECRET"}}',
        b'{"context":{"ip" : SECRET}}',
        b'{"api_key":"a\\"SECRET"}',
        b'{"writeKey":"SECRET',
        b'{"writeKey":"SECRET\\',
        b'not json "token": "SECRET" at all',
        b"x" * (ORIGINAL_MAX_BYTES - 20) + b'"writeKey":"SECRET"' + b"x" * 50,
    ],
)
def test_bad_record_holds_neither_keys_nor_addresses(original: bytes) -> None:
    value = bad(original)
    assert "SECRET" not in json.dumps(value)
    assert "removed" in value["original"]
    assert "192.0.2" not in json.dumps(value)


def test_bad_record_of_an_open_collector_has_no_app_since_that_is_the_key() -> None:
    assert bad(b"{}", config=replace(Config(), keys=KeysConfig(open=True)))["app"] is None


def test_bad_record_keeps_at_most_10_kb() -> None:
    value = bad("é".encode() * 20_000)
    assert value["original"] == "é" * 5000
    assert (value["cut"], value["bytes"]) == (True, 40_000)
    value = bad(b"x" + "é".encode() * 20_000)
    assert value["original"] == "x" + "é" * 4999
    assert bad(b"x" * 10_000)["cut"] is False


def test_bad_record_of_msgpack_is_translated_or_left_out() -> None:
    value = bad(msgspec.msgpack.encode({"writeKey": "SECRET", "a": b"\x00"}), encoding="msgpack")
    assert value["original"] == '{"writeKey":"removed","a":"AA=="}'
    assert bad(b"\xc1", encoding="msgpack")["original"] is None


@given(st.binary(max_size=300), st.text(alphabet=st.characters()), st.sampled_from(["json", "msgpack"]))
def test_bad_record_of_anything_is_json(original: bytes, message: str, encoding: str) -> None:
    bad(original, message=message, encoding=encoding)
    bad(original, message="\ud800", encoding=encoding)


def test_bad_record_of_backslashes_takes_no_time() -> None:
    for filler in (b"\\", b'"', b'\\"', b'"ip":', b" "):
        bad(filler * 20_000)


def test_bad_record_without_a_bad_topic_is_a_bug() -> None:
    with pytest.raises(ValueError, match="bad_topic"):
        bad(b"", config=replace(Config(), kafka=KafkaConfig(bad_topic=None)))


def test_numbers_grow_through_a_power_of_ten_and_doubtful_ones_say_so() -> None:
    events = [event(position=position, id=f"m-{position}") for position in range(5)]
    records = build_records(events, parsed(*events), context(node="100%"), 97, Config(), doubtful={1, 4})
    again = ("maybe-duplicate", b"1")
    assert [record.headers for record in records] == [
        (
            ("message-id", b"m-%d" % position),
            ("node", b"100%"),
            ("seq", b"%d" % (97 + position)),
            *([again] if position in (1, 4) else []),
        )
        for position in range(5)
    ]
    assert [len(json.loads(record.value or b"")) for record in records] == [len(MEMBERS)] * 5


def test_single_event_without_an_id_has_one_of_its_request() -> None:
    one = event(id=None)
    ids = [
        json.loads(build_record(one, parsed(one, single=True), context(request_id=name), 1, Config()).value or b"")[
            "id"
        ]
        for name in ("r-1", "r-1", "r-2")
    ]
    assert ids[0] == ids[1] != ids[2]
    assert all(len(id_) == 32 and int(id_, 16) for id_ in ids)
