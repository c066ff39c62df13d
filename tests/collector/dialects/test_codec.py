"""Well-formed or not, sliced byte for byte: the fast way, the slow way, and the standard library as the judge."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.dialects import ClientFault
from collector.dialects.codec import JSON, MSGPACK, NESTING_MAX, batch_level, codec_of, deeper_than
from collector.dialects.scan import Number
from collector.dialects.surrogates import mask_of

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
    assert JSON.items(members["y"], 2) == [odd, odd]


def test_duplicate_names_the_last_one_counts_as_in_every_browser() -> None:
    assert {name: bytes(raw) for name, raw in JSON.members(b'{"a":1,"a":2,"\\u0061":3}').items()} == {"a": b"3"}


def test_lone_surrogates_are_sliced_like_anything_else() -> None:
    piece = b'{"text":"cut \\ud83d","\\udc00":1}'
    members = JSON.members(b'{"other":"\\uD83D", "events": [ %b , {"ok" : 1}, "\\ud83d\\ude00" ] }' % piece)
    assert bytes(members["other"]) == b'"\\uD83D"'
    assert JSON.items(members["events"], 9) == [piece, b'{"ok" : 1}', b'"\\ud83d\\ude00"']
    assert JSON.look(members["other"]) == "\ud83d"


def test_byte_order_mark_is_ignored() -> None:
    assert JSON.checked(b'\xef\xbb\xbf{"a":1}') == b'{"a":1}'


def test_look_decodes_scalars_and_names_the_rest() -> None:
    digits = "1" * 5000
    for raw, value in {
        '"a\\u00e9"': "aé",
        '"\\udc00"': "\udc00",
        " true\n": True,
        "false": False,
        "null": None,
        '{"a":[1,{}]}': {},
        "[[[1]]]": [],
        "-1.5e400": Number("-1.5e400"),
        digits: Number(digits),
    }.items():
        assert JSON.look(raw.encode()) == value
        assert isinstance(JSON.look(raw.encode()), Number) is isinstance(value, Number)


def test_looks_takes_the_first_items_only() -> None:
    assert JSON.looks(b'[1,"a",2.5]', 2) == [1, "a"]
    assert JSON.looks(b'[1e400,"\\ud800",{"a":1},[1],true,null, 5 ]', 9) == [
        *[Number("1e400"), "\ud800", {}, [], True, None, Number("5")]
    ]
    assert JSON.looks(b'["\\ud800",%b]' % (b"1" * 5000), 1) == ["\ud800"]
    assert JSON.looks(b'["\\ud800",%b]' % (b"1" * 5000), 9) == ["\ud800", Number("1" * 5000)]
    assert JSON.looks(b"[]", 9) == []
    assert JSON.looks(b"[ null ]", 9) == [None]


def test_items_of_something_else_is_none() -> None:
    for raw in (b"{}", b"1", b"null", b'"\\ud800"'):
        assert JSON.items(raw, 9) is None
    assert JSON.items(b"[]", 9) == []
    assert JSON.items(b"[ ]", 0) == []
    assert JSON.items(b'["\\ud800"]', 9) == [b'"\\ud800"']


@pytest.mark.parametrize(
    "raw",
    [
        b"[1,2,3]",
        b'["\\ud800",{},{}]',
        b"[" + b"{}," * 400_000 + b"{}]",
        b"[" + b"{}," * 400_000 + b'{"a":"\\ud800"}]',
    ],
)
def test_too_many_items_are_a_fault(raw: bytes) -> None:
    with pytest.raises(ClientFault) as caught:
        JSON.items(raw, 2)
    assert caught.value.code == "too_many"


def test_half_a_megabyte_of_tiny_things_is_not_sliced() -> None:
    with pytest.raises(ClientFault) as caught:
        JSON.items(b"[" + b"1," * 400_000 + b"1]", 1000)
    assert caught.value.code == "invalid_field"
    # As many commas within events are fine.
    piece = b'{"a":[' + b"1," * 1000 + b"1]}"
    assert JSON.items(b"[" + b",".join([piece] * 500) + b"]", 1000) == [piece] * 500


def test_large_batch_says_little_beside_its_array() -> None:
    filler = b'"x":"' + b"y" * 600_000 + b'"'
    with pytest.raises(ClientFault) as caught:
        JSON.members(b'{"batch":[],' + filler + b"}", 500_000)
    assert caught.value.code == "too_large"
    assert len(JSON.members(b'{"batch":[{' + filler + b"}]}", 500_000)) == 1
    assert len(JSON.members(b'{"batch":[],' + filler + b"}")) == 2


def test_more_halves_than_anybody_cuts_are_refused() -> None:
    JSON.members(b'{"a":"' + b"\\ud800" * 10_000 + b'"}')
    with pytest.raises(ClientFault, match="10000 halves"):
        JSON.members(b'{"a":"' + b"\\ud800" * 10_001 + b'"}')


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        (rb'"\ud83d"', rb'"\ue83d"'),
        (rb'"\uD83Dx\uDc00"', rb'"\uE83Dx\uEc00"'),
        (rb'"\ud83d\ud83d\ude00\ude00"', rb'"\ue83d\ud83d\ude00\uee00"'),
        (rb'"\\ud83d\u0064\ud8"', None),
        (rb'"\ud83d\ue83d"', rb'"\uf83d\ue83d"'),
        (rb'"\ud83d\ue83d\uFfff"', rb'"\ua83d\ue83d\uFfff"'),
        (rb'"\ud83d\ue83d\uFfff\uabcd"', None),
        (rb'"\ud83d\ude00"', None),
        (b"{}", None),
    ],
)
def test_mask_changes_halves_alone_and_can_be_undone(text: bytes, masked: bytes | None) -> None:
    mask = mask_of(text)
    assert (None if mask is None else mask.text) == masked
    if mask is not None:
        assert mask.undone(mask.text) == text


escapes = st.lists(
    st.sampled_from(
        [
            rb"\ud83d",
            rb"\uDBFF",
            rb"\ude00",
            rb"\uDC00",
            rb"\\",
            rb"\ue83d",
            rb"\uF8ff",
            rb"\u0041",
            b"ud83d",
            b"x",
            b'\\"',
        ]
    ),
    max_size=12,
).map(b"".join)


@given(st.lists(escapes, min_size=1, max_size=4), escapes, st.booleans())
def test_texts_with_halves_are_sliced_byte_for_byte(texts: list[bytes], name: bytes, big: bool) -> None:
    pieces = [b'{"%b" :"%b"}' % (name, text) for text in texts]
    filler = b"y" * 70_000 if big else b""
    body = b'{"f":"%b","events":[%b],"%b":1}' % (filler, b" , ".join(pieces), name)
    try:
        members = JSON.members(body)
    except ClientFault:
        # Only where no letter is free, or a half hides behind an escaped backslash, and only in a large body.
        assert big
        assert rb"\\" in body or (rb"\ue83d" in body and rb"\uF8ff" in body)
        return
    found = JSON.items(members["events"], 4)
    assert found == pieces
    assert [*members] == list(json.loads(body))
    if name:
        assert [*JSON.members(found[0])] == list(json.loads(pieces[0]))


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
    fast = JSON.items(body, 9)
    # A lone surrogate at the end makes msgspec refuse the whole array.
    slow = JSON.items(body[:-1].rstrip() + (b"," if values else b"") + b'"\\ud800"]', 9)
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
        try:
            members = codec.members(codec.checked(body))
            for raw in members.values():
                codec.items(raw, 5)
                codec.look(raw)
                codec.as_json(raw)
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
    assert MSGPACK.items(members["y"], 2) == [piece, b"\x01"]
    assert MSGPACK.items(members["x"], 2) is None
    assert MSGPACK.looks(members["y"], 1) == [{"a": 1, "b": b"\x00\xff", "c": [1.5, None]}]
    assert (MSGPACK.look(members["x"]), MSGPACK.look(members["y"])) == ({}, [])
    assert [MSGPACK.look(msgspec.msgpack.encode(value)) for value in ("x", 1.5, None, True)] == ["x", 1.5, None, True]
    with pytest.raises(ClientFault) as caught:
        MSGPACK.items(members["y"], 1)
    assert caught.value.code == "too_many"
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


@pytest.mark.parametrize("size", [0, 1, 15, 16, 65535, 65536])
def test_msgpack_arrays_are_counted_by_their_head(size: int) -> None:
    raw = msgspec.msgpack.encode([1] * size)
    assert MSGPACK.items(raw, size) == [b"\x01"] * size
    with pytest.raises(ClientFault):
        MSGPACK.items(raw, size - 1)


def test_msgpack_maps_of_many_members_are_refused() -> None:
    with pytest.raises(ClientFault) as caught:
        MSGPACK.members(msgspec.msgpack.encode({str(number): 1 for number in range(10_001)}))
    assert caught.value.code == "too_large"


def test_batch_level_rebuilds_what_is_left_and_bounds_its_copies() -> None:
    members = JSON.members(b'{ "context": { "a" : 1 }, "sentAt":"x", "\\ud800": 2 }')
    assert batch_level(JSON, members, 10, 1000) == b'{"context":{ "a" : 1 },"sentAt":"x","\\ud800":2}'
    assert batch_level(JSON, {}, 10, 0) == b"{}"
    with pytest.raises(ClientFault) as caught:
        batch_level(JSON, members, 100, 1000)
    assert caught.value.code == "too_large"
