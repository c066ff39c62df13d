"""Compressed records as Apache Kafka's readers take them: what they refuse, and what they let pass.

Owns: the framing of the four codecs. Refuses to know what a record is.

Invariant: like the broker's streams, `inflate` gives what could be read before an error beside that error: a reader
that stops earlier never sees it.

Non-obvious, all seen on Kafka 4.1: bytes after the end of a gzip stream or an lz4 frame pass unseen, after zstd or
snappy they do not; an lz4 frame whose blocks depend on each other is refused.
"""

import struct
import zlib
from dataclasses import dataclass

import cramjam
import zstandard

__all__ = ["CODECS", "Inflated", "inflate"]

CODECS = {0: "none", 1: "gzip", 2: "snappy", 3: "lz4", 4: "zstd"}
MAX_INFLATED_BYTES = 256 * 1024 * 1024
#: snappy-java's stream format, which Kafka's own producer writes; brokers read a raw block as well.
XERIAL_MAGIC = b"\x82SNAPPY\x00"
XERIAL_HEADER_BYTES = 16
LZ4_MAGIC = 0x184D2204
LZ4_BLOCK_MAX_BYTES = {4: 64 * 1024, 5: 256 * 1024, 6: 1024 * 1024, 7: 4 * 1024 * 1024}


@dataclass(frozen=True, slots=True)
class Inflated:
    """What could be read; why no more, if that is an error; and what was left behind the end."""

    data: bytes
    error: str | None = None
    tail_bytes: int = 0


def inflate(codec: str, data: bytes) -> Inflated:
    """Decompress; never raises."""
    out = bytearray()
    tail = 0
    try:
        match codec:
            case "gzip":
                tail = _gzip(data, out)
            case "snappy":
                _snappy(data, out)
            case "lz4":
                tail = _lz4(data, out)
            case "zstd":
                _zstd(data, out)
            case _:
                out += data
    except (zlib.error, cramjam.DecompressionError, zstandard.ZstdError, ValueError, struct.error) as error:
        return Inflated(bytes(out), f"{codec}: {error}")
    return Inflated(bytes(out), tail_bytes=tail)


def _gzip(data: bytes, out: bytearray) -> int:
    reader = zlib.decompressobj(wbits=31)
    out += reader.decompress(data, MAX_INFLATED_BYTES)
    if not reader.eof:
        raise ValueError("the stream ends too early")
    return len(reader.unused_data)


def _snappy(data: bytes, out: bytearray) -> None:
    if not data.startswith(XERIAL_MAGIC):
        out += bytes(cramjam.snappy.decompress_raw(data))
        return
    at = XERIAL_HEADER_BYTES
    while at < len(data):
        (size,) = struct.unpack_from(">i", data, at)
        at += 4
        if size < 0 or at + size > len(data):
            raise ValueError("a block reaches beyond the end")
        out += bytes(cramjam.snappy.decompress_raw(data[at : at + size]))
        at += size


def _lz4(data: bytes, out: bytearray) -> int:
    magic, flags, descriptor = struct.unpack_from("<IBB", data)
    if magic != LZ4_MAGIC:
        raise ValueError(f"not an lz4 frame: {magic:#x}")
    if not flags & 0x20:
        raise ValueError("dependent blocks")
    if (flags >> 6) != 1 or (descriptor >> 4) & 7 not in LZ4_BLOCK_MAX_BYTES:
        raise ValueError(f"unknown frame descriptor {flags:#x} {descriptor:#x}")
    room = LZ4_BLOCK_MAX_BYTES[(descriptor >> 4) & 7]
    at = 6 + (8 if flags & 0x08 else 0) + 1  # magic, flags, descriptor, content size, header checksum
    while True:
        (size,) = struct.unpack_from("<I", data, at)
        at += 4
        if size == 0:
            break
        plain, size = bool(size & 0x80000000), size & 0x7FFFFFFF
        if at + size > len(data):
            raise ValueError("a block reaches beyond the end")
        block = data[at : at + size]
        if plain:
            out += block
        else:
            buffer = bytearray(room)
            out += buffer[: cramjam.lz4.decompress_block_into(block, buffer)]
        at += size + (4 if flags & 0x10 else 0)
    at += 4 if flags & 0x04 else 0
    if at > len(data):
        raise ValueError("the content checksum is missing")
    return len(data) - at


def _zstd(data: bytes, out: bytearray) -> None:
    reader = zstandard.ZstdDecompressor().decompressobj()
    if data:
        out += reader.decompress(data)
        if not reader.eof:
            raise ValueError("the frame ends too early")
        if reader.unused_data:
            raise ValueError("not a frame after the first")
