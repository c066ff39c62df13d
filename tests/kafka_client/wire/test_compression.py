"""Codecs: the framings that Java, librdkafka and franz-go read, and bounds that hold whatever the data claims."""

import gzip
import os

import cramjam
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from kafka_client.errors import ProtocolError
from kafka_client.wire.compression import CODEC_IDS, CODEC_NAMES, Codec, compress, decompress

CODECS: tuple[Codec, ...] = ("none", "gzip", "snappy", "lz4", "zstd")
every_codec = pytest.mark.parametrize("codec", CODECS)
real_codecs = pytest.mark.parametrize("codec", CODECS[1:])


def xerial(*blocks: bytes) -> bytes:
    """snappy-java's framing: magic, version 1, compatible with 1, then blocks with their lengths."""
    out = b"\x82SNAPPY\0" + b"\0\0\0\1" + b"\0\0\0\1"
    for block in blocks:
        packed = bytes(cramjam.snappy.compress_raw(block))
        out += len(packed).to_bytes(4, "big") + packed
    return out


@every_codec
@given(data=st.binary(max_size=500), times=st.integers(1, 900))
@settings(max_examples=30, deadline=None)
def test_round_trip(codec: Codec, data: bytes, times: int) -> None:
    data *= times
    assert decompress(codec, compress(codec, data), len(data)) == data


@every_codec
def test_round_trip_of_what_cannot_be_compressed(codec: Codec) -> None:
    data = os.urandom(200_000)
    assert decompress(codec, compress(codec, data), len(data)) == data


def test_codec_numbers_are_kafkas() -> None:
    assert dict(CODEC_IDS) == {"none": 0, "gzip": 1, "snappy": 2, "lz4": 3, "zstd": 4}
    assert all(CODEC_NAMES[number] == name for name, number in CODEC_IDS.items())


def test_lz4_frames_have_independent_blocks() -> None:
    # Java: "Dependent block stream is unsupported (BLOCK_INDEPENDENCE must be set)". FLG bit 5 says so; the header is
    # the one that KafkaLZ4BlockOutputStream writes.
    packed = compress("lz4", b"0123456789" * 30_000)
    assert packed[:7].hex() == "04224d18604082"
    assert packed[-4:] == bytes(4)
    # An independent decoder agrees, the header's checksum included.
    assert bytes(cramjam.lz4.decompress(packed)) == b"0123456789" * 30_000


def test_snappy_is_one_raw_block() -> None:
    packed = compress("snappy", b"a" * 100_000)
    assert bytes(cramjam.snappy.decompress_raw(packed)) == b"a" * 100_000


def test_snappy_in_xerials_framing_is_read() -> None:
    assert decompress("snappy", xerial(b"a" * 40_000, b"", b"b" * 7), 40_007) == b"a" * 40_000 + b"b" * 7


def test_gzip_of_several_members_is_read() -> None:
    assert decompress("gzip", gzip.compress(b"abc") + gzip.compress(b"def"), 6) == b"abcdef"


def test_zstd_without_a_content_size_is_read() -> None:
    # Java's producer streams, so its frames do not say how large their content is.
    stream = zstandard.ZstdCompressor().compressobj()
    packed = stream.compress(b"abc" * 50_000) + stream.flush()
    assert decompress("zstd", packed, 150_000) == b"abc" * 50_000


@every_codec
def test_data_larger_than_allowed_is_a_protocol_error(codec: Codec) -> None:
    packed = compress(codec, b"x" * 100_000)
    with pytest.raises(ProtocolError, match="more than 99999 bytes"):
        decompress(codec, packed, 99_999)


def test_xerial_data_larger_than_allowed_is_a_protocol_error() -> None:
    with pytest.raises(ProtocolError, match="more than 59 bytes"):
        decompress("snappy", xerial(b"x" * 30, b"y" * 30), 59)


@real_codecs
def test_data_cut_short_is_a_protocol_error(codec: Codec) -> None:
    packed = compress(codec, bytes(range(256)) * 400)
    with pytest.raises(ProtocolError, match=f"{codec} data in a record batch"):
        decompress(codec, packed[: len(packed) // 2], 200_000)


@real_codecs
def test_garbage_is_a_protocol_error(codec: Codec) -> None:
    with pytest.raises(ProtocolError):
        decompress(codec, b"\xff" * 100, 1_000_000)


def test_xerial_block_cut_short_is_a_protocol_error() -> None:
    with pytest.raises(ProtocolError, match="ends early"):
        decompress("snappy", xerial(b"x" * 30)[:-1], 100)
