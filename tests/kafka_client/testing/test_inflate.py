"""What Kafka's decompressors take and refuse, as seen on the real one."""

import gzip
import struct

import cramjam
import pytest
import zstandard

from kafka_client.testing.inflate import inflate

PLAIN = b"hello" * 50


def lz4_frame(*, linked: bool) -> bytes:
    compressor = cramjam.lz4.Compressor(block_linked=linked)
    compressor.compress(PLAIN)
    return bytes(compressor.finish())


WHOLE = {
    "gzip": gzip.compress(PLAIN),
    "snappy": bytes(cramjam.snappy.compress_raw(PLAIN)),
    "lz4": lz4_frame(linked=False),
    "zstd": zstandard.ZstdCompressor().compress(PLAIN),
}


@pytest.mark.parametrize("codec", WHOLE)
def test_whole_data_is_read(codec: str) -> None:
    found = inflate(codec, WHOLE[codec])
    assert (found.data, found.error, found.tail_bytes) == (PLAIN, None, 0)


def test_xerial_blocks_are_read_one_by_one() -> None:
    block = WHOLE["snappy"]
    framed = b"\x82SNAPPY\0" + struct.pack(">ii", 1, 1) + 2 * (struct.pack(">i", len(block)) + block)
    assert inflate("snappy", framed).data == PLAIN * 2
    cut = inflate("snappy", framed[:-3])
    assert cut.data == PLAIN
    assert cut.error == "snappy: a block reaches beyond the end"


@pytest.mark.parametrize(("codec", "tail_bytes"), [("gzip", 4), ("lz4", 4), ("snappy", None), ("zstd", None)])
def test_bytes_after_the_end_pass_in_some_codecs(codec: str, tail_bytes: int | None) -> None:
    found = inflate(codec, WHOLE[codec] + b"tail")
    assert (found.error is None, found.tail_bytes) == (tail_bytes is not None, tail_bytes or 0)


@pytest.mark.parametrize("codec", WHOLE)
@pytest.mark.parametrize("data", ["cut", "junk"])
def test_broken_data_is_an_error(codec: str, data: str) -> None:
    error = inflate(codec, WHOLE[codec][:-5] if data == "cut" else b"junk" * 5).error
    assert error is not None
    assert error.startswith(f"{codec}: ")


def test_dependent_blocks_are_refused() -> None:
    assert inflate("lz4", lz4_frame(linked=True)).error == "lz4: dependent blocks"


@pytest.mark.parametrize(
    ("at", "byte", "error"),
    [(4, 0xE4, "unknown frame descriptor"), (5, 0x30, "unknown frame descriptor"), (0, 0, "not an lz4 frame")],
)
def test_frames_of_lz4_that_nobody_knows_are_refused(at: int, byte: int, error: str) -> None:
    frame = bytearray(WHOLE["lz4"])
    frame[at] = byte
    assert error in (inflate("lz4", bytes(frame)).error or "")
