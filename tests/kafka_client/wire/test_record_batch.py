"""Record batches: golden bytes, round trips, kio's reader, and everything that a log may have done to them."""

import datetime
import struct
from typing import Any

import crc32c
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from kio.records.readers import read_batch

from kafka_client.errors import ProtocolError
from kafka_client.wire.compression import Codec
from kafka_client.wire.record_batch import (
    BATCH_OVERHEAD_BYTES,
    PLAIN_VALUES_BELOW_BYTES,
    RECORD_OVERHEAD_MAX_BYTES,
    DecodedBatch,
    decode_batches,
    encode_batch,
    encode_record_tail,
    plain_size,
    record_key,
    renumber_batch,
)

NOW_MS = 1_700_000_000_000
CODECS: tuple[Codec, ...] = ("none", "gzip", "snappy", "lz4", "zstd")
every_codec = pytest.mark.parametrize("codec", CODECS)

some_bytes = st.binary(max_size=40) | st.none()
record_contents = st.tuples(
    some_bytes, some_bytes, st.lists(st.tuples(st.text(max_size=5), st.binary(max_size=9) | st.none()), max_size=3)
)


def with_crc(batch: bytearray) -> bytes:
    """``batch`` with the checksum that its bytes now have."""
    struct.pack_into(">I", batch, 17, crc32c.crc32c(bytes(batch[21:])))
    return bytes(batch)


def one_batch(count: int = 3, codec: Codec = "none", **numbers: int) -> bytes:
    tails = [encode_record_tail(None, b"value-%d" % index * 20) for index in range(count)]
    return encode_batch(tails, [NOW_MS] * count, codec=codec, **numbers)


def test_batch_golden_bytes() -> None:
    # Put together by hand from the layout in Kafka's documentation; the CRC by an independent table-driven CRC-32C.
    batch = encode_batch(
        [encode_record_tail(b"k", b"v", [("h", b"x")]), encode_record_tail(None, None)],
        [NOW_MS, NOW_MS + 1],
        producer_id=5,
        producer_epoch=2,
        base_sequence=9,
    )
    body = (
        "0000"  # attributes
        "00000001"  # last offset delta
        "0000018bcfe56800"  # base timestamp
        "0000018bcfe56801"  # max timestamp
        "0000000000000005"  # producer id
        "0002"  # producer epoch
        "00000009"  # base sequence
        "00000002"  # records
        "18"
        "00"
        "00"
        "00"
        "026b"
        "0276"
        "02"
        "0268"
        "0278"
        "0c"
        "00"
        "02"
        "02"
        "01"
        "01"
        "00"
    )
    body_bytes = bytes.fromhex(body)
    head = bytes.fromhex("0000000000000000" + f"{9 + len(body_bytes):08x}" + "ffffffff" + "02")
    assert batch == head + slow_crc32c(body_bytes).to_bytes(4, "big") + body_bytes


def slow_crc32c(data: bytes) -> int:
    """RFC 3720, appendix B.4, bit by bit."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


@every_codec
@given(
    st.lists(st.tuples(record_contents, st.integers(-(10**6), 10**6)), min_size=1, max_size=80),
    st.integers(-1, 2**31 - 1),
)
@settings(max_examples=40, deadline=None)
def test_batch_round_trip(codec: Codec, rows: list[Any], base_sequence: int) -> None:
    tails = [encode_record_tail(*contents) for contents, _ in rows]
    times = [NOW_MS + shift for _, shift in rows]
    data = encode_batch(tails, times, producer_id=7, producer_epoch=3, base_sequence=base_sequence, codec=codec)
    [batch] = decode_batches(data)
    assert [(one.key, one.value, list(one.headers)) for one in batch.records] == [contents for contents, _ in rows]
    assert [one.timestamp_ms for one in batch.records] == times
    assert [one.offset for one in batch.records] == list(range(len(rows)))
    assert (batch.producer_id, batch.producer_epoch, batch.base_sequence) == (7, 3, base_sequence)
    assert (batch.base_timestamp_ms, batch.max_timestamp_ms) == (times[0], max(times))
    assert len(data) <= BATCH_OVERHEAD_BYTES + sum(len(tail) + RECORD_OVERHEAD_MAX_BYTES for tail in tails)


@given(st.lists(record_contents, min_size=1, max_size=20))
@example([(None, b"x" * 9000, [])])
@settings(max_examples=40, deadline=None)
def test_batch_reads_back_by_kio(contents: list[Any]) -> None:
    contents = [(key, value, [(name, body or b"") for name, body in headers]) for key, value, headers in contents]
    data = encode_batch([encode_record_tail(*one) for one in contents], [NOW_MS] * len(contents), producer_id=7)
    batch, size = read_batch(data, 0)
    assert size == len(data)
    assert [(one.key, one.value) for one in batch.records] == [(key, value) for key, value, _ in contents]
    assert batch.records[0].timestamp == datetime.datetime.fromtimestamp(NOW_MS / 1000, datetime.UTC)
    assert [[(header.key, header.value) for header in one.headers] for one in batch.records] == [
        [(name.encode(), body) for name, body in headers] for _, _, headers in contents
    ]


@pytest.mark.parametrize("count", [1, 63, 64, 65, 8191, 8192, 8193, 16384, 16385])
@pytest.mark.parametrize("within_ms", [1, 2, 64, 65, 20_000])
@pytest.mark.parametrize("plain", [True, False])
def test_batch_at_the_edges_of_the_tables_round_trips(count: int, within_ms: int, plain: bool) -> None:
    # Offset deltas change their width at 64 and 8192; the table of them ends at 16384. Timestamp deltas do so at 64.
    times = [NOW_MS + index % within_ms for index in range(count)]
    values = [b"v" * (55 + index % 10) for index in range(count)]
    tails = values if plain else [encode_record_tail(b"k", value) for value in values]
    [batch] = decode_batches(encode_batch(tails, times, plain=plain))
    assert [one.offset for one in batch.records] == list(range(count))
    assert [one.timestamp_ms for one in batch.records] == times
    assert [one.value for one in batch.records] == values


@pytest.mark.parametrize(
    "size", [0, 1, 63, 64, 8165, 8166, 8167, 8170, 8171, 8172, 8179, 8180, 8181, 8191, 8192, 100_000]
)
def test_values_at_the_edges_of_the_tables_round_trip(size: int) -> None:
    tails = [
        encode_record_tail(None, b"v" * size),
        encode_record_tail(b"k" * size, b"v" * size, [("n" * (size % 300), b"h" * size)]),
    ]
    [batch] = decode_batches(encode_batch(tails, [NOW_MS, NOW_MS - 5]))
    assert [one.value for one in batch.records] == [b"v" * size] * 2
    assert batch.records[1].key == b"k" * size
    assert batch.records[1].headers == (("n" * (size % 300), b"h" * size),)


def test_header_names_beyond_those_remembered_are_encoded_all_the_same() -> None:
    for index in range(1100):
        tail = encode_record_tail(None, b"", [(f"header-{index}", b"")])
        assert f"header-{index}".encode() in tail


def test_batch_base_timestamp_given_is_what_deltas_count_from() -> None:
    [batch] = decode_batches(encode_batch([encode_record_tail(None, b"v")], [NOW_MS], base_timestamp_ms=NOW_MS - 10))
    assert (batch.base_timestamp_ms, batch.records[0].timestamp_ms) == (NOW_MS - 10, NOW_MS)


@pytest.mark.parametrize(("tails", "times"), [([], []), ([b"x"], []), ([b"x"], [1, 2])])
def test_batch_without_records_or_times_is_refused(tails: list[bytes], times: list[int]) -> None:
    with pytest.raises(ValueError, match="at least one"):
        encode_batch(tails, times)


@every_codec
def test_batch_smaller_than_the_threshold_or_grown_by_compression_is_not_compressed(codec: Codec) -> None:
    [small] = decode_batches(
        encode_batch([encode_record_tail(None, b"a" * 900)], [NOW_MS], codec=codec, compression_min_bytes=1024)
    )
    [grown] = decode_batches(encode_batch([encode_record_tail(None, b"")], [NOW_MS], codec=codec))
    [large] = decode_batches(one_batch(codec=codec))
    assert (small.codec, grown.codec, large.codec) == ("none", "none", codec)


@every_codec
def test_renumbered_batch_differs_in_producer_and_sequence_alone(codec: Codec) -> None:
    before = one_batch(codec=codec, producer_id=1, producer_epoch=1, base_sequence=1)
    after = renumber_batch(before, producer_id=2**40, producer_epoch=32767, base_sequence=2**31 - 1)
    assert after == one_batch(codec=codec, producer_id=2**40, producer_epoch=32767, base_sequence=2**31 - 1)
    assert after[BATCH_OVERHEAD_BYTES:] == before[BATCH_OVERHEAD_BYTES:]


def test_the_same_range_encoded_again_is_the_same_bytes() -> None:
    assert one_batch(codec="zstd", producer_id=1) == one_batch(codec="zstd", producer_id=1)


# What Fetch returns


@given(st.integers(0, 400))
def test_batches_cut_short_are_left_out(cut: int) -> None:
    whole = one_batch(2)
    stream = whole + whole
    kept = decode_batches((stream)[: len(stream) - cut] if cut else stream)
    assert len(kept) == max(0, 2 - -(-cut // len(whole)))


def test_batch_from_the_middle_of_a_compacted_log_keeps_its_offsets() -> None:
    data = bytearray(one_batch(3))
    struct.pack_into(">q", data, 0, 1000)
    struct.pack_into(">i", data, 12, 17)
    struct.pack_into(">i", data, 23, 9)  # last offset delta: records after it were compacted away
    [batch] = decode_batches(with_crc(data))
    assert [one.offset for one in batch.records] == [1000, 1001, 1002]
    assert (batch.next_offset, batch.leader_epoch) == (1010, 17)


def test_batch_with_log_append_time_has_it_on_every_record() -> None:
    data = bytearray(one_batch(2))
    struct.pack_into(">h", data, 21, 0x08)
    struct.pack_into(">q", data, 35, NOW_MS + 99)
    [batch] = decode_batches(with_crc(data))
    assert [one.timestamp_ms for one in batch.records] == [NOW_MS + 99] * 2
    assert batch.is_log_append_time


def test_transactional_and_control_batches_say_so() -> None:
    data = bytearray(one_batch(1))
    struct.pack_into(">h", data, 21, 0x30)
    [batch] = decode_batches(with_crc(data))
    assert (batch.is_transactional, batch.is_control, batch.is_log_append_time) == (True, True, False)


def damaged(batch: bytes, layout: str, at: int, value: int, *, crc: bool = True) -> bytes:
    data = bytearray(batch)
    struct.pack_into(layout, data, at, value)
    return with_crc(data) if crc else bytes(data)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (damaged(one_batch(), ">B", 80, 0, crc=False), "fails its checksum"),
        (damaged(one_batch(), ">b", 16, 1), "has magic 1"),
        (damaged(one_batch(), ">i", 8, 10), "claims a length of 10"),
        (damaged(one_batch(), ">i", 8, -5), "claims a length of -5"),
        (damaged(one_batch(), ">h", 21, 0x07), "unknown codec"),
        (damaged(one_batch(), ">i", 57, 2**31 - 1), "claims 2147483647 records"),
        (damaged(one_batch(), ">i", 57, -1), "claims -1 records"),
        (damaged(one_batch(), ">i", 57, 4), "expected at byte"),
        (damaged(encode_batch([encode_record_tail(None, b"v")], [NOW_MS]), ">B", 61, 0x10), "claims 8 bytes and has 7"),
        (damaged(one_batch(codec="zstd"), ">q", 61, 0), "broken zstd data"),
        (with_crc(bytearray(encode_batch([b"\x01\x01\x03"], [NOW_MS]))), "claims -2 headers"),
        (with_crc(bytearray(encode_batch([b"\x01\x01\x02\x01\x00"], [NOW_MS]))), "a header without a name"),
    ],
)
def test_broken_batch_is_a_protocol_error(data: bytes, message: str) -> None:
    with pytest.raises(ProtocolError, match=message):
        decode_batches(data)


def test_checksum_unchecked_when_asked() -> None:
    data = damaged(one_batch(), ">I", 17, 0, crc=False)
    [batch] = decode_batches(data, check_crc=False)
    assert len(batch.records) == 3


@given(st.data())
@settings(max_examples=200, deadline=None)
def test_batch_with_one_byte_changed_is_a_value_or_a_protocol_error(data: st.DataObject) -> None:
    batch = bytearray(one_batch(codec=data.draw(st.sampled_from(CODECS))))
    batch[data.draw(st.integers(0, len(batch) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        found: list[DecodedBatch] = decode_batches(batch, check_crc=False, max_bytes=10_000)
    except ProtocolError:
        return
    assert all(isinstance(one, DecodedBatch) for one in found)


@given(key=some_bytes | st.binary(min_size=64, max_size=9000), value=some_bytes)
@settings(deadline=None)
def test_key_of_an_encoded_record_is_the_one_that_went_in(key: bytes | None, value: bytes | None) -> None:
    assert record_key(encode_record_tail(key, value)) == key


def test_key_of_an_encoded_record_with_a_length_of_two_bytes() -> None:
    assert record_key(encode_record_tail(b"k" * 64, b"v", [("h", b"x")])) == b"k" * 64


@pytest.mark.parametrize("size", [0, 1, 63, 64, 65, 8166, 8167, 8170, 8171, PLAIN_VALUES_BELOW_BYTES - 1])
@pytest.mark.parametrize("times", [[NOW_MS] * 3, [NOW_MS, NOW_MS + 1, NOW_MS + 9_000], [NOW_MS, NOW_MS - 1, NOW_MS]])
def test_values_of_plain_records_become_the_same_batch_as_their_tails(size: int, times: list[int]) -> None:
    values = [bytes([65 + index]) * size for index in range(3)]
    tails = [encode_record_tail(None, value) for value in values]
    assert [plain_size(value) for value in values] == [len(tail) for tail in tails]
    assert encode_batch(values, times, plain=True) == encode_batch(tails, times)


def test_plain_batch_beyond_every_table_is_the_same_too() -> None:
    values = [b"v" * (PLAIN_VALUES_BELOW_BYTES - 1 - index % 3) for index in range(17_000)]
    times = [NOW_MS] * len(values)
    tails = [encode_record_tail(None, value) for value in values]
    assert encode_batch(values, times, plain=True) == encode_batch(tails, times)
