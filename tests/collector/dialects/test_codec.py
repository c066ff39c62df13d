"""Well-formed or not, sliced byte for byte: the fast way, the slow way, and the standard library as the judge."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.dialects import ClientFault
from collector.dialects.codec import JSON, MSGPACK, NESTING_MAX, Number, batch_level, codec_of, deeper_than

BROKEN = {
    "empty": b"",
    "only whitespace": b" \n",
    "nan": b'{"a":NaN}',
    "infinity": b'{"a":-Infinity}',
    "newline in a string": b'{"a":"x\ny"}',
    "nul in a string": b'{"a":"x\x00y"}',
    "newline in a name": b'{"a\n":1}',
    "bad escape": b'{"a":"\\q"}',
    "bad unicode escape": b'{"a":"\\u12G4"}',
    "short unicode escape": b'{"a":"\\u12"}',
    "leading zero": b'{"a":01}',
    "plus": b'{"a":+1}',
    "no digit after the point": b'{"a":1.}',
    "no digit before the point": b'{"a":.5}',
    "lone minus": b'{"a":-}',
    "no exponent": b'{"a":1e}',
    "hex": b'{"a":0x1}',
    "trailing comma in an object": b'{"a":1,}',
    "trailing comma in an array": b'{"a":[1,]}',
    "two commas": b'{"a":[1,,2]}',
    "no colon": b'{"a" 1}',
    "name without quotes": b"{a:1}",
    "single quotes": b"{'a':1}",
    "trailing text": b'{"a":1} x',
    "trailing nul": b'{"a":1}\x00',
    "form feed": b'{\x0c"a":1}',
    "no-break space": b'{"a":\xc2\xa01}',
    "python's true": b'{"a":True}',
    "half a word": b'{"a":tru}',
    "wrong bracket": b'{"a":[1}}',
    "comment": b'{/**/"a":1}',
    "cut": b'{"a":{"b":"c',
    "two objects": b"{}{}",
}

BAD_UTF8 = {
    "in a string": b'{"a":"\xff"}',
    "in a name": b'{"\xff":1}',
    "overlong": b'{"a":"\xc0\xaf"}',
    "surrogate": b'{"a":"\xed\xa0\x80"}',
    "cut": b'{"a":"\xc3',
    "utf-16": '{"a":1}'.encode("utf-16"),
    "latin-1": '{"a":"é"}'.encode("latin-1"),
    "nested": b'{"a":{"b":{"c":"\x80"}}}',
}


@pytest.mark.parametrize("body", BROKEN.values(), ids=BROKEN.keys())
def test_broken_json_is_refused_at_the_top_and_in_what_is_skipped(body: bytes) -> None:
    for text in (body, b'{"ok":1,"skipped":%b}' % body, b'{"skipped":[%b]}' % body):
        if text.strip() and text != b'{"skipped":[]}' and text != b'{"skipped":[ \n]}':
            with pytest.raises(ClientFault) as caught:
                JSON.members(JSON.checked(text))
            assert caught.value.code == "invalid_json"


@pytest.mark.parametrize("body", BAD_UTF8.values(), ids=BAD_UTF8.keys())
def test_bad_utf8_is_refused_before_anything_is_sliced(body: bytes) -> None:
    with pytest.raises(ClientFault) as caught:
        JSON.checked(body)
    assert caught.value.code == "invalid_utf8"
    assert "at byte" in caught.value.message


@pytest.mark.parametrize("depth", [100_000, 300_000])
@pytest.mark.parametrize("brackets", [(b"[", b"]"), (b'{"a":', b"}")])
def test_nesting_beyond_the_scanners_is_a_fault_and_not_a_crash(depth: int, brackets: tuple[bytes, bytes]) -> None:
    inner = brackets[0] * depth + b"1" + brackets[1] * depth
    with pytest.raises(ClientFault) as caught:
        JSON.members(b'{"a":%b}' % inner)
    assert caught.value.code == "too_deep"
    with pytest.raises(ClientFault) as caught:
        JSON.value(inner)
    assert caught.value.code == "too_deep"


@pytest.mark.parametrize("body", [b"[]", b"1", b'"x"', b"null", b" [1] "])
def test_json_of_another_kind_is_told_from_broken_json(body: bytes) -> None:
    with pytest.raises(ClientFault) as caught:
        JSON.members(body)
    assert caught.value.code == "invalid_body"


def test_slices_are_the_clients_bytes() -> None:
    odd = b'{ "b" :\t1,\n"a":"\\u0041\\/" , "a" : 123456789012345678901234567890 , "n":1.0e+2}'
    body = b' \r\n{ "x" : %b\t, "y":[ %b ,%b\n]} \n' % (odd, odd, odd)
    members = JSON.members(body)
    assert bytes(members["x"]) == odd
    assert JSON.items(members["y"]) == [odd, odd]


def test_duplicate_names_the_last_one_counts_as_in_every_browser() -> None:
    assert {name: bytes(raw) for name, raw in JSON.members(b'{"a":1,"a":2,"\\u0061":3}').items()} == {"a": b"3"}


def test_lone_surrogates_are_sliced_like_anything_else() -> None:
    piece = b'{"text":"cut \\ud83d","\\udc00":1}'
    members = JSON.members(b'{"other":"\\uD83D", "events": [ %b , {"ok" : 1}, "\\ud83d\\ude00" ] }' % piece)
    assert bytes(members["other"]) == b'"\\uD83D"'
    assert JSON.items(members["events"]) == [piece, b'{"ok" : 1}', b'"\\ud83d\\ude00"']
    assert JSON.value(members["other"]) == "\ud83d"


def test_byte_order_mark_is_ignored() -> None:
    assert JSON.checked(b'\xef\xbb\xbf{"a":1}') == b'{"a":1}'


def test_numbers_stay_text_in_the_close_look() -> None:
    digits = b"1" * 5000
    assert JSON.value(b"[1,-1.5e400,%b,true]" % digits) == [
        Number("1"),
        Number("-1.5e400"),
        Number(digits.decode()),
        True,
    ]


def test_items_of_something_else_is_none() -> None:
    for raw in (b"{}", b"1", b"null", b'"\\ud800"'):
        assert JSON.items(raw) is None
    assert JSON.items(b"[]") == []
    assert JSON.items(b" [ ] ") == []
    assert JSON.items(b'["\\ud800"]') == [b'"\\ud800"']


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(st.text(), json_values, max_size=5), st.sampled_from([None, 1]), st.booleans())
def test_members_are_the_members_whatever_the_spelling(value: dict[str, Any], indent: int | None, ascii_: bool) -> None:
    body = json.dumps(value, indent=indent, ensure_ascii=ascii_).encode(errors="surrogatepass")
    members = JSON.members(JSON.checked(body))
    assert {name: json.loads(bytes(raw)) for name, raw in members.items()} == value
    for name, raw in members.items():
        assert bytes(raw) in body
        assert json.loads(json.dumps(value[name])) == json.loads(bytes(raw))


@given(st.lists(json_values, max_size=5), st.sampled_from([None, 1]))
def test_slow_way_slices_as_the_fast_one(values: list[Any], indent: int | None) -> None:
    body = json.dumps(values, indent=indent).encode()
    fast = JSON.items(body)
    # A lone surrogate at the end makes msgspec refuse the whole array.
    slow = JSON.items(body[:-1].rstrip() + (b"," if values else b"") + b'"\\ud800"]')
    assert fast is not None
    assert slow == [*fast, b'"\\ud800"']


@given(st.text(alphabet='{}[]":,\\ \n0129.-+eEtrufalsn\x00é', max_size=40) | st.binary(max_size=40))
def test_accepts_exactly_what_the_standard_library_calls_json(text: str | bytes) -> None:
    body = b'{"a":' + (text.encode() if isinstance(text, str) else text) + b"}"

    def refuse(_: str) -> None:
        raise ValueError

    try:
        expected = json.loads(body.decode(), parse_constant=refuse, parse_int=str, parse_float=str)
    except ValueError:
        with pytest.raises(ClientFault):
            JSON.members(JSON.checked(body))
    else:
        assert JSON.members(JSON.checked(body)).keys() == expected.keys()


@given(st.binary(max_size=200))
def test_any_bytes_end_in_slices_or_a_fault(body: bytes) -> None:
    for codec in (JSON, MSGPACK):
        for slicer in (codec.members, codec.items, codec.value, codec.as_json):
            try:
                slicer(codec.checked(body))  # type: ignore[operator]  # a join of signatures
            except ClientFault:
                pass


def test_deeper_than_counts_levels_and_not_brackets() -> None:
    assert not deeper_than(b"[" * NESTING_MAX + b"]" * NESTING_MAX, NESTING_MAX)
    assert deeper_than(b"[" * (NESTING_MAX + 1) + b"]" * (NESTING_MAX + 1), NESTING_MAX)
    assert not deeper_than(b"[" + b",".join([b"[{}]"] * 1000) + b"]", 3)
    assert deeper_than(b"[" + b",".join([b"[{}]"] * 1000) + b"]", 2)
    assert not deeper_than(b'{"a":"' + b"[" * 1000 + b'\\"[{"}', 1)


@given(json_values, st.integers(0, 6))
def test_deeper_than_agrees_with_a_walk(value: Any, levels: int) -> None:
    def depth(value: Any) -> int:
        if isinstance(value, dict):
            return 1 + max(map(depth, value.values()), default=0)
        if isinstance(value, list):
            return 1 + max(map(depth, value), default=0)
        return 0

    assert deeper_than(json.dumps(value).encode(), levels) is (depth(value) > levels)


def test_msgpack_is_sliced_and_translated() -> None:
    piece = msgspec.msgpack.encode({"a": 1, "b": b"\x00\xff", "c": [1.5, None]})
    body = msgspec.msgpack.encode({"x": msgspec.Raw(piece), "y": [msgspec.Raw(piece), 1]})
    members = MSGPACK.members(body)
    assert bytes(members["x"]) == piece
    assert MSGPACK.items(members["y"]) == [piece, b"\x01"]
    assert MSGPACK.items(members["x"]) is None
    assert json.loads(MSGPACK.as_json(piece)) == {"a": 1, "b": "AP8=", "c": [1.5, None]}
    assert codec_of("msgpack") is MSGPACK


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "invalid_msgpack"),
        (b"\xc1", "invalid_msgpack"),
        (b"\x81\xa1a", "invalid_msgpack"),
        (b"\x90", "invalid_body"),
        (b"\x81\x01\x01", "invalid_body"),
        (b"\x81\xa1\xff\x01", "invalid_msgpack"),
        (b"\x81\xa1a" + b"\x91" * 100_000, "too_deep"),
    ],
)
def test_bad_msgpack_is_a_fault(body: bytes, code: str) -> None:
    with pytest.raises(ClientFault) as caught:
        MSGPACK.members(body)
    assert caught.value.code == code


def test_batch_level_rebuilds_what_is_left_and_bounds_its_copies() -> None:
    members = JSON.members(b'{ "context": { "a" : 1 }, "sentAt":"x", "\\ud800": 2 }')
    assert batch_level(JSON, members, 10, 1000) == b'{"context":{ "a" : 1 },"sentAt":"x","\\ud800":2}'
    assert batch_level(JSON, {}, 10, 0) == b"{}"
    with pytest.raises(ClientFault) as caught:
        batch_level(JSON, members, 100, 1000)
    assert caught.value.code == "too_large"
