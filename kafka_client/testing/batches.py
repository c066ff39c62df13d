"""Record batches as a strict broker reads them.

Owns: the parse of the v2 format, byte by byte, with every check that Apache Kafka makes before it appends. Refuses to
know sequences, offsets of the log, and `kafka_client.wire`.

Invariant: what `parse_produced` returns is one whole batch, its CRC right, its counts consistent, its records readable
to the last byte.

Source: https://kafka.apache.org/documentation/#recordbatch; the checks are those of LogValidator, ProduceRequest and
DefaultRecordBatch.ensureValid.
"""

import struct
from dataclasses import dataclass

import cramjam
import crc32c
import zstandard

__all__ = ["BatchRejected", "ParsedBatch", "ParsedRecord", "parse_produced"]

HEADER = struct.Struct(">qiibIhiqqqhii")
HEADER_BYTES = HEADER.size
assert HEADER_BYTES == 61
#: Where the CRC's range begins: the attributes.
CRC_FROM = 21
LENGTH_PREFIX = 12
MAX_INFLATED_BYTES = 256 * 1024 * 1024

CODECS = {0: "none", 1: "gzip", 2: "snappy", 3: "lz4", 4: "zstd"}

CORRUPT_MESSAGE = 2
INVALID_TIMESTAMP = 32
UNSUPPORTED_FOR_MESSAGE_FORMAT = 43
INVALID_TXN_STATE = 48
UNSUPPORTED_COMPRESSION_TYPE = 76
INVALID_RECORD = 87

Headers = tuple[tuple[str, bytes | None], ...]


class BatchRejected(Exception):
    """A broker answers ``code`` and appends nothing; ``records`` are (index, message) pairs (KIP-467)."""

    def __init__(self, code: int, message: str, records: tuple[tuple[int, str | None], ...] = ()) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.records = records


@dataclass(frozen=True, slots=True)
class ParsedRecord:
    """One record of a batch; ``index`` is its place in it."""

    index: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: Headers


@dataclass(frozen=True, slots=True)
class ParsedBatch:
    """One batch that passed every check; ``raw`` are its bytes."""

    raw: bytes
    codec: str
    producer_id: int
    producer_epoch: int
    base_sequence: int
    max_timestamp_ms: int
    records: tuple[ParsedRecord, ...]

    @property
    def last_sequence(self) -> int:
        """The last record's sequence; after 2³¹−1 comes 0. -1 without a producer id."""
        if self.producer_id < 0:
            return -1
        return (self.base_sequence + len(self.records) - 1) & 0x7FFFFFFF


def parse_produced(data: bytes | None, *, produce_version: int, earliest_ms: int, latest_ms: int) -> ParsedBatch:
    """Read the one batch of a partition in a Produce request; raises `BatchRejected`.

    Args:
        data: The records member of the request.
        produce_version: zstd needs version 7.
        earliest_ms, latest_ms: The window for CreateTime (``message.timestamp.before.max.ms``, ``….after.max.ms``).
    """
    if not data:
        raise BatchRejected(INVALID_RECORD, "a Produce request must carry exactly one record batch per partition")
    if len(data) < HEADER_BYTES:
        raise BatchRejected(CORRUPT_MESSAGE, f"{len(data)} bytes are less than a record batch's header")
    (
        _base_offset,
        length,
        _leader_epoch,
        magic,
        crc,
        attributes,
        last_offset_delta,
        base_timestamp,
        max_timestamp,
        producer_id,
        producer_epoch,
        base_sequence,
        count,
    ) = HEADER.unpack_from(data)
    if magic != 2:
        raise BatchRejected(INVALID_RECORD, f"magic {magic}: Produce requests with version 3 or later need magic 2")
    if length + LENGTH_PREFIX < HEADER_BYTES or length + LENGTH_PREFIX > len(data):
        raise BatchRejected(CORRUPT_MESSAGE, f"the batch claims {length + LENGTH_PREFIX} bytes of {len(data)}")
    if length + LENGTH_PREFIX < len(data):
        raise BatchRejected(INVALID_RECORD, "more than one record batch for one partition in a Produce request")
    computed = crc32c.crc32c(data[CRC_FROM:])
    if computed != crc:
        raise BatchRejected(CORRUPT_MESSAGE, f"CRC is {crc:#010x}, computed {computed:#010x}")
    codec = _check_header(
        attributes, last_offset_delta, producer_id, producer_epoch, base_sequence, count, produce_version
    )
    body = _inflate(codec, data[HEADER_BYTES:])
    records = _parse_records(body, count, base_timestamp)
    stamps = [record.timestamp_ms for record in records]
    if max(stamps) != max_timestamp:
        raise BatchRejected(INVALID_RECORD, f"max timestamp is {max_timestamp}, the records' is {max(stamps)}")
    late = tuple(
        (record.index, f"timestamp {record.timestamp_ms} is out of {earliest_ms}…{latest_ms}")
        for record in records
        if not earliest_ms <= record.timestamp_ms <= latest_ms
    )
    if late:
        raise BatchRejected(INVALID_TIMESTAMP, "one or more records have an invalid timestamp", late)
    return ParsedBatch(data, codec, producer_id, producer_epoch, base_sequence, max_timestamp, records)


def _check_header(
    attributes: int,
    last_offset_delta: int,
    producer_id: int,
    producer_epoch: int,
    base_sequence: int,
    count: int,
    produce_version: int,
) -> str:
    if attributes & ~0x7 & ~0x10:
        if attributes & 0x20:
            raise BatchRejected(INVALID_RECORD, "clients may not write control batches")
        raise BatchRejected(INVALID_RECORD, f"attributes {attributes:#06x}: a producer sets the codec only")
    if attributes & 0x10:
        raise BatchRejected(INVALID_TXN_STATE, "a transactional batch without a transaction")
    codec = CODECS.get(attributes & 0x7)
    if codec is None:
        raise BatchRejected(CORRUPT_MESSAGE, f"codec {attributes & 7} does not exist")
    if codec == "zstd" and produce_version < 7:
        raise BatchRejected(UNSUPPORTED_COMPRESSION_TYPE, "zstd needs Produce version 7")
    if count <= 0 or last_offset_delta != count - 1:
        raise BatchRejected(INVALID_RECORD, f"{count} records with last offset delta {last_offset_delta}")
    if producer_id < -1 or (producer_id >= 0 and (producer_epoch < 0 or base_sequence < 0)):
        raise BatchRejected(
            INVALID_RECORD, f"producer id {producer_id} with epoch {producer_epoch}, sequence {base_sequence}"
        )
    if producer_id == -1 and (producer_epoch, base_sequence) != (-1, -1):
        raise BatchRejected(INVALID_RECORD, f"no producer id, but epoch {producer_epoch}, sequence {base_sequence}")
    return codec


def _inflate(codec: str, data: bytes) -> bytes:
    try:
        match codec:
            case "gzip":
                return bytes(cramjam.gzip.decompress(data))
            case "lz4":
                return bytes(cramjam.lz4.decompress(data))
            case "zstd":
                with zstandard.ZstdDecompressor().stream_reader(data, read_across_frames=False) as reader:
                    return reader.read(MAX_INFLATED_BYTES)
            case "snappy":
                return _inflate_snappy(data)
            case _:
                return data
    except (cramjam.DecompressionError, zstandard.ZstdError, ValueError, struct.error) as error:
        raise BatchRejected(CORRUPT_MESSAGE, f"{codec}: {error}") from error


#: snappy-java's stream format, which Kafka's own producer writes; brokers read a raw block as well.
XERIAL_MAGIC = b"\x82SNAPPY\x00"


def _inflate_snappy(data: bytes) -> bytes:
    if not data.startswith(XERIAL_MAGIC):
        return bytes(cramjam.snappy.decompress_raw(data))
    out = bytearray()
    at = 16
    while at < len(data):
        (size,) = struct.unpack_from(">i", data, at)
        at += 4
        if size < 0 or at + size > len(data):
            raise ValueError("a block reaches beyond the end")
        out += bytes(cramjam.snappy.decompress_raw(data[at : at + size]))
        at += size
    return bytes(out)


class _Cursor:
    """A place in the records' bytes."""

    __slots__ = ("at", "data")

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0

    def varint(self) -> int:
        shift = value = 0
        while True:
            if self.at >= len(self.data):
                raise BatchRejected(CORRUPT_MESSAGE, "the records end inside a number")
            byte = self.data[self.at]
            self.at += 1
            value |= (byte & 0x7F) << shift
            if not byte & 0x80:
                return (value >> 1) ^ -(value & 1)
            shift += 7
            if shift > 63:
                raise BatchRejected(CORRUPT_MESSAGE, "a variable-length number is too long")

    def take(self, size: int) -> bytes:
        if size < 0 or self.at + size > len(self.data):
            raise BatchRejected(CORRUPT_MESSAGE, f"{size} bytes are claimed, {len(self.data) - self.at} are left")
        self.at += size
        return self.data[self.at - size : self.at]

    def nullable(self) -> bytes | None:
        size = self.varint()
        return None if size == -1 else self.take(size)


def _parse_records(body: bytes, count: int, base_timestamp: int) -> tuple[ParsedRecord, ...]:
    cursor = _Cursor(body)
    records = []
    for index in range(count):
        size = cursor.varint()
        end = cursor.at + size
        if size < 0 or end > len(body):
            raise BatchRejected(CORRUPT_MESSAGE, f"record {index} claims {size} bytes")
        if cursor.take(1) != b"\0":
            raise BatchRejected(INVALID_RECORD, f"record {index}: attributes are not 0", ((index, "attributes"),))
        timestamp = base_timestamp + cursor.varint()
        delta = cursor.varint()
        if delta != index:
            raise BatchRejected(INVALID_RECORD, f"record {index} has offset delta {delta}", ((index, "offset delta"),))
        key = cursor.nullable()
        value = cursor.nullable()
        headers = []
        for _ in range(cursor.varint()):
            name = cursor.take(cursor.varint())
            try:
                headers.append((name.decode(), cursor.nullable()))
            except UnicodeDecodeError as error:
                raise BatchRejected(INVALID_RECORD, f"record {index}: header name {name!r}: {error}") from error
        if cursor.at != end:
            raise BatchRejected(CORRUPT_MESSAGE, f"record {index} ends {end - cursor.at} bytes before its length says")
        records.append(ParsedRecord(index, timestamp, key, value, tuple(headers)))
    if cursor.at != len(body):
        raise BatchRejected(CORRUPT_MESSAGE, f"{len(body) - cursor.at} bytes after the last record")
    return tuple(records)
