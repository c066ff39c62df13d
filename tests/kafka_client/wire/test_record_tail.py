"""The tail of a record, whole and in pieces."""

from hypothesis import given
from hypothesis import strategies as st

from kafka_client.wire.record_tail import (
    LENGTHS_KEPT,
    NULL,
    decode_record_tail,
    encode_record_tail,
    length_of,
    record_key,
    sized,
)

CONTENTS = st.none() | st.binary(max_size=300) | st.just(b"x" * (LENGTHS_KEPT + 1))
HEADERS = st.lists(st.tuples(st.text(max_size=20), st.none() | st.binary(max_size=100)), max_size=4).map(tuple)


@given(CONTENTS, CONTENTS, HEADERS)
def test_tail_is_read_as_it_was_written(key, value, headers) -> None:
    tail = encode_record_tail(key, value, headers)
    assert decode_record_tail(tail) == (key, value, headers)
    assert record_key(tail) == key


@given(CONTENTS, CONTENTS, HEADERS)
def test_tail_is_its_pieces(key, value, headers) -> None:
    def piece(content: bytes | None) -> bytes:
        return NULL if content is None else sized(content)

    pieces = [piece(key), piece(value), length_of(len(headers))]
    for name, content in headers:
        pieces += [sized(name.encode()), piece(content)]
    assert b"".join(pieces) == encode_record_tail(key, value, headers)
