"""Numbers, strings, arrays: round trips, and every way in which a peer can lie."""

from struct import Struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kafka_client.errors import ProtocolError
from kafka_client.wire.primitives import Reader, Writer, uvarint_bytes, varint_bytes

int64s = st.integers(-(2**63), 2**63 - 1)
flexible_or_not = pytest.mark.parametrize("flexible", [False, True], ids=["plain", "compact"])


@pytest.mark.parametrize(
    ("value", "encoded"),
    [
        # Source: protocol buffers' encoding guide (150, 300) and the corners of one and two bytes.
        (0, "00"),
        (1, "01"),
        (127, "7f"),
        (128, "8001"),
        (150, "9601"),
        (300, "ac02"),
        (16383, "ff7f"),
        (16384, "808001"),
        (2**32 - 1, "ffffffff0f"),
    ],
)
def test_uvarint_golden_bytes(value: int, encoded: str) -> None:
    assert uvarint_bytes(value).hex() == encoded
    assert Reader(bytes.fromhex(encoded)).uvarint() == value


@pytest.mark.parametrize(
    ("value", "encoded"),
    [(0, "00"), (-1, "01"), (1, "02"), (-2, "03"), (63, "7e"), (-64, "7f"), (64, "8001"), (-(2**31), "ffffffff0f")],
)
def test_varint_golden_bytes(value: int, encoded: str) -> None:
    assert varint_bytes(value).hex() == encoded
    assert Reader(bytes.fromhex(encoded)).varint() == value


@given(int64s)
def test_varlong_round_trip(value: int) -> None:
    reader = Reader(varint_bytes(value))
    assert reader.varlong() == value
    assert reader.remaining == 0


def test_uvarint_negative_is_refused() -> None:
    with pytest.raises(ValueError, match="negative"):
        uvarint_bytes(-1)


@pytest.mark.parametrize(
    ("read", "data"), [("uvarint", b"\xff" * 6), ("varint", b"\xff" * 6), ("varlong", b"\xff" * 11)]
)
def test_varint_without_an_end_is_a_protocol_error(read: str, data: bytes) -> None:
    with pytest.raises(ProtocolError, match="has more than"):
        getattr(Reader(data), read)()


@pytest.mark.parametrize(
    "read", ["int8", "int16", "uint16", "int32", "uint32", "int64", "boolean", "uuid", "uvarint", "varint", "varlong"]
)
def test_number_beyond_the_end_is_a_protocol_error(read: str) -> None:
    with pytest.raises(ProtocolError, match="at byte 0, 0 are there"):
        getattr(Reader(b""), read)()


@given(st.integers(-(2**15), 2**15 - 1), st.integers(-(2**31), 2**31 - 1), int64s, st.booleans())
def test_numbers_round_trip(small: int, middle: int, large: int, flag: bool) -> None:
    writer = Writer()
    writer.int8(small % 128)
    writer.int16(small)
    writer.int32(middle)
    writer.int64(large)
    writer.boolean(flag)
    writer.uvarint(abs(middle))
    reader = Reader(writer.finish())
    assert (reader.int8(), reader.int16(), reader.int32(), reader.int64(), reader.boolean(), reader.uvarint()) == (
        small % 128,
        small,
        middle,
        large,
        flag,
        abs(middle),
    )


def test_unsigned_numbers_are_unsigned() -> None:
    assert Reader(b"\xff\xff").uint16() == 65535
    assert Reader(b"\xff\xff\xff\xff").uint32() == 2**32 - 1


@flexible_or_not
@given(st.text() | st.none(), st.binary() | st.none(), st.lists(st.integers(-(2**31), 2**31 - 1)))
def test_strings_bytes_and_arrays_round_trip(
    flexible: bool, text: str | None, data: bytes | None, numbers: list[int]
) -> None:
    writer = Writer(flexible=flexible)
    writer.nullable_string(text)
    writer.nullable_bytes(data)
    writer.int32_array(numbers)
    writer.string_array([str(number) for number in numbers])
    writer.array_length(None)
    writer.no_tags()
    reader = Reader(writer.finish(), flexible=flexible)
    assert reader.nullable_string() == text
    found = reader.nullable_bytes()
    assert (None if found is None else bytes(found)) == data
    assert reader.int32_array() == tuple(numbers)
    assert reader.array(Reader.string) == tuple(str(number) for number in numbers)
    assert reader.nullable_array(Reader.string) is None
    reader.skip_tags()
    assert reader.remaining == 0


@flexible_or_not
def test_null_where_none_is_allowed_is_a_protocol_error(flexible: bool) -> None:
    null = b"\x00" if flexible else b"\xff\xff\xff\xff"
    with pytest.raises(ProtocolError, match="a null string"):
        Reader(null, flexible=flexible).string()
    with pytest.raises(ProtocolError, match="a null bytes"):
        Reader(null, flexible=flexible).bytes_()


def test_null_array_where_none_is_allowed_is_empty() -> None:
    assert Reader(b"\x00", flexible=True).array(Reader.string) == ()
    assert Reader(b"\x00", flexible=True).int32_array() == ()


@flexible_or_not
def test_lengths_beyond_the_end_are_protocol_errors_without_an_allocation(flexible: bool) -> None:
    lie = b"\xff\xff\xff\xff\x07" if flexible else b"\x7f\xff\xff\xff"
    for read in ("string", "bytes_", "int32_array"):
        with pytest.raises(ProtocolError):
            getattr(Reader(lie, flexible=flexible), read)()
    with pytest.raises(ProtocolError, match="items is claimed"):
        Reader(lie, flexible=flexible).array(Reader.int8)


def test_string_not_utf8_is_a_protocol_error() -> None:
    with pytest.raises(ProtocolError, match="byte 2 is not UTF-8"):
        Reader(b"\x00\x01\xff").string()


def test_string_too_long_for_two_bytes_is_refused() -> None:
    with pytest.raises(ValueError, match="32768 bytes"):
        Writer().string("x" * 32768)


def test_tags_are_returned_by_number_and_end_where_they_say() -> None:
    reader = Reader(bytes.fromhex("020002abcd810101ef55"), flexible=True)
    assert {tag: bytes(content) for tag, content in reader.tags().items()} == {0: b"\xab\xcd", 129: b"\xef"}
    assert reader.int8() == 0x55


def test_tags_of_a_plain_message_take_nothing() -> None:
    reader = Reader(b"\x01")
    assert reader.tags() == {}
    assert reader.remaining == 1


def test_tags_more_than_there_are_bytes_is_a_protocol_error() -> None:
    with pytest.raises(ProtocolError, match="100 tagged fields"):
        Reader(b"\x64\x00\x00", flexible=True).tags()


def test_unpack_beyond_the_end_is_a_protocol_error() -> None:
    with pytest.raises(ProtocolError, match="8 bytes expected"):
        Reader(b"1234").unpack(Struct(">q"))


def test_reader_repr_shows_where_it_stands() -> None:
    reader = Reader(b"\x00\x01\x02", flexible=True)
    reader.int8()
    assert repr(reader) == "<Reader at 1 of 3 bytes flexible>"
    assert bytes(reader.rest()) == b"\x01\x02"
