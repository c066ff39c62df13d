"""Record batches as a broker reads them.

Owns: the parse of the v2 format, byte by byte, with the checks that Apache Kafka makes before it appends, and what it
answers where one fails. Refuses to know sequences, offsets of the log, and `kafka_client.wire`.

Invariant: what `read_batch` returns is one whole batch, its CRC right, its counts consistent, its records readable to
the last byte. What a broker takes although no client should send it stands in `ParsedBatch.oddities`.

Non-obvious, all seen on Kafka 4.1: the checks come in stages, and the stage decides how much the answer tells
(`Stage`). Offset deltas of records and unknown attributes are not looked at, a wrong max timestamp is corrected, and
what a decompressor trips over is UNKNOWN_SERVER_ERROR.

Source: https://kafka.apache.org/documentation/#recordbatch; the checks are those of ProduceRequest.validateRecords,
UnifiedLog.analyzeAndValidateRecords, LogValidator and DefaultRecordBatch.
"""

import enum
import struct
from dataclasses import dataclass

import crc32c

from kafka_client.testing.inflate import CODECS, Inflated, inflate
from kafka_client.testing.records import Headers, ParsedRecord, RecordsBroken, parse_records

__all__ = ["BatchRejected", "Headers", "ParsedBatch", "ParsedRecord", "Rules", "Stage", "read_batch", "validate"]

HEADER = struct.Struct(">qiibIhiqqqhii")
HEADER_BYTES = HEADER.size
assert HEADER_BYTES == 61
#: Where the CRC's range begins: the attributes.
CRC_FROM = 21
LENGTH_PREFIX = 12
#: The length of a batch in the oldest format; a smaller one is no batch at all.
LEAST_LENGTH = 14
HEADER_UP_TO_MAGIC = 17

UNKNOWN_SERVER_ERROR = -1
CORRUPT_MESSAGE = 2
MESSAGE_TOO_LARGE = 10
INVALID_TIMESTAMP = 32
TRANSACTIONAL_ID_AUTHORIZATION_FAILED = 53
UNSUPPORTED_COMPRESSION_TYPE = 76
INVALID_RECORD = 87

CODEC_BITS = 0x07
LOG_APPEND_TIME = 0x08
TRANSACTIONAL = 0x10
CONTROL = 0x20
NO_TIMESTAMP = -1


class Stage(enum.Enum):
    """Where a broker finds the fault: it decides what the answer tells."""

    REQUEST = "request"
    """Before anything else: every partition of the request is answered the same."""
    PARTITION = "partition"
    """Before the partition's leader is looked for: the code alone."""
    APPEND = "append"
    """While appending, by one of the errors beside which nothing is told: the code alone."""
    LOG = "log"
    """While appending, by any other error: ``log_start_offset`` is told."""


class BatchRejected(Exception):
    """A broker answers ``code`` and appends nothing.

    Attributes:
        message: For a human reader of the test; the client is told it only where ``told``.
        records: (index, message) pairs (KIP-467).
    """

    def __init__(
        self,
        code: int,
        message: str,
        records: tuple[tuple[int, str | None], ...] = (),
        *,
        stage: Stage = Stage.PARTITION,
        told: bool = False,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.records = records
        self.stage = stage
        self.told = told


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What a topic demands of batches now. Times are milliseconds since the epoch.

    Attributes:
        max_bytes: ``max.message.bytes``, of the compressed batch with its header.
        earliest_ms, latest_ms: The window for CreateTime (``message.timestamp.before.max.ms``, ``….after.max.ms``).
        append_time_ms: What LogAppendTime writes; None where producers' times are kept.
        compacted: Every record needs a key.
    """

    max_bytes: int
    earliest_ms: int
    latest_ms: int
    append_time_ms: int | None
    compacted: bool


@dataclass(frozen=True, slots=True)
class ParsedBatch:
    """One batch that can be read; ``raw`` are its bytes, without what followed it."""

    raw: bytes
    codec: str
    producer_id: int
    producer_epoch: int
    base_sequence: int
    max_timestamp_ms: int
    records: tuple[ParsedRecord, ...]
    oddities: tuple[str, ...]
    claims_log_append_time: bool
    deltas_in_order: bool

    @property
    def last_sequence(self) -> int:
        """The last record's sequence; after 2³¹−1 comes 0. -1 without a producer id."""
        if self.producer_id < 0:
            return -1
        return (self.base_sequence + len(self.records) - 1) & 0x7FFFFFFF


def _first_batch(data: bytes) -> bytes | None:
    """The first batch's bytes; None where what there is is not one batch long."""
    if len(data) < LENGTH_PREFIX:
        return None
    (length,) = struct.unpack_from(">i", data, 8)
    if length < LEAST_LENGTH:
        raise BatchRejected(CORRUPT_MESSAGE, f"the batch claims a length of {length}", told=True)
    if len(data) < HEADER_UP_TO_MAGIC:
        return None
    if data[16] > 2:
        raise BatchRejected(CORRUPT_MESSAGE, f"magic {data[16]} is unknown", told=True)
    return data[: LENGTH_PREFIX + length] if LENGTH_PREFIX + length <= len(data) else None


def read_batch(data: bytes, produce_version: int) -> ParsedBatch:
    """Read the one batch of a partition in a Produce request; raises `BatchRejected`.

    Args:
        data: The records member of the request.
        produce_version: zstd needs version 7.
    """
    try:
        raw = _first_batch(data)
    except BatchRejected as rejected:
        rejected.stage = Stage.REQUEST
        raise
    if raw is None:
        raise BatchRejected(INVALID_RECORD, f"{len(data)} bytes hold no whole record batch")
    attributes = int.from_bytes(raw[21:23]) if len(raw) >= CRC_FROM + 2 else 0
    if raw[16] == 2 and attributes & TRANSACTIONAL:
        raise BatchRejected(
            TRANSACTIONAL_ID_AUTHORIZATION_FAILED, "a transactional batch without a transaction", stage=Stage.REQUEST
        )
    if raw[16] != 2:
        raise BatchRejected(INVALID_RECORD, f"magic {raw[16]}: Produce 3 and later needs magic 2")
    if attributes & CODEC_BITS == 4 and produce_version < 7:
        raise BatchRejected(UNSUPPORTED_COMPRESSION_TYPE, "zstd needs Produce version 7 (KIP-110)")
    try:
        second = _first_batch(data[len(raw) :])
    except BatchRejected as rejected:
        rejected.told = False
        raise
    if second is not None:
        raise BatchRejected(INVALID_RECORD, "more than one record batch for one partition in a Produce request")
    if len(raw) < HEADER_BYTES:
        raise BatchRejected(CORRUPT_MESSAGE, f"{len(raw)} bytes are less than a batch's header", stage=Stage.APPEND)
    left = len(data) - len(raw)
    return _read_whole(raw, (f"{left} bytes after the batch",) if left else ())


def _read_whole(raw: bytes, odd: tuple[str, ...]) -> ParsedBatch:
    (
        _base_offset,
        _length,
        _leader_epoch,
        _magic,
        crc,
        attributes,
        last_offset_delta,
        base_timestamp,
        max_timestamp,
        producer_id,
        producer_epoch,
        base_sequence,
        count,
    ) = HEADER.unpack_from(raw)
    computed = crc32c.crc32c(raw[CRC_FROM:])
    if computed != crc:
        raise BatchRejected(CORRUPT_MESSAGE, f"CRC is {crc:#010x}, computed {computed:#010x}", stage=Stage.APPEND)
    codec = CODECS.get(attributes & CODEC_BITS)
    if codec is None:
        raise BatchRejected(UNKNOWN_SERVER_ERROR, f"unknown codec {attributes & CODEC_BITS}", stage=Stage.LOG)
    if count <= 0 or last_offset_delta + 1 != count:
        raise BatchRejected(
            INVALID_RECORD, f"{count} records, but the last offset delta is {last_offset_delta}", stage=Stage.LOG
        )
    if attributes & CONTROL:
        raise BatchRejected(INVALID_RECORD, "clients are not allowed to write control records", stage=Stage.LOG)
    if producer_id >= 0 and base_sequence < 0:
        raise BatchRejected(INVALID_RECORD, f"producer id {producer_id} with sequence {base_sequence}", stage=Stage.LOG)
    inflated = inflate(codec, raw[HEADER_BYTES:])
    try:
        records, odd_records = parse_records(inflated.data, count, base_timestamp, more=inflated.error is not None)
    except RecordsBroken as broken:
        code = INVALID_RECORD
        if (broken.ran_out and inflated.error is not None) or broken.unreadable:
            code = UNKNOWN_SERVER_ERROR
        raise BatchRejected(
            code, str(broken) + (f" ({inflated.error})" * bool(inflated.error)), stage=Stage.LOG
        ) from broken
    if inflated.error is not None:
        raise BatchRejected(UNKNOWN_SERVER_ERROR, inflated.error, stage=Stage.LOG)
    newest = max(NO_TIMESTAMP, *(record.timestamp_ms for record in records))
    odd += odd_records + _oddities(attributes, inflated, (producer_id, producer_epoch, base_sequence))
    if newest != max_timestamp:
        odd += (f"max timestamp is {max_timestamp}, the records' is {newest}",)
    return ParsedBatch(
        raw,
        codec,
        producer_id,
        producer_epoch,
        base_sequence,
        newest,
        records,
        odd,
        bool(attributes & LOG_APPEND_TIME),
        all(record.offset_delta == record.index for record in records),
    )


def _oddities(attributes: int, inflated: Inflated, producer: tuple[int, int, int]) -> tuple[str, ...]:
    odd = []
    if attributes & ~(CODEC_BITS | TRANSACTIONAL | CONTROL):
        odd.append(f"attributes {attributes:#06x}")
    if inflated.tail_bytes:
        odd.append(f"{inflated.tail_bytes} bytes after the compressed records")
    producer_id, epoch, sequence = producer
    if (producer_id < 0 and producer != (-1, -1, -1)) or (producer_id >= 0 and epoch < 0):
        odd.append(f"producer id {producer_id} with epoch {epoch}, sequence {sequence}")
    return tuple(odd)


def validate(batch: ParsedBatch, rules: Rules) -> None:
    """Check the records against a topic's rules; raises `BatchRejected`, which names every bad record."""
    bad: list[tuple[int, str | None]] = []
    code = INVALID_RECORD
    for record in batch.records:
        if rules.compacted and record.key is None:
            bad.append((record.index, "a compacted topic cannot take a message without a key"))
        elif rules.append_time_ms is None and record.timestamp_ms != NO_TIMESTAMP:
            if not rules.earliest_ms <= record.timestamp_ms <= rules.latest_ms:
                wording = f"timestamp {record.timestamp_ms} is out of {rules.earliest_ms}…{rules.latest_ms}"
                bad.append((record.index, wording))
                code = INVALID_TIMESTAMP
        elif batch.claims_log_append_time:
            bad.append((record.index, "a producer does not set the timestamp type to LogAppendTime"))
            code = INVALID_TIMESTAMP
    if bad:
        raise BatchRejected(
            code, f"{len(bad)} records are refused: {bad[0][1]}", tuple(bad), stage=Stage.LOG, told=True
        )
    if batch.codec != "none" and not batch.deltas_in_order:
        raise BatchRejected(
            UNKNOWN_SERVER_ERROR, "offset deltas of compressed records are not 0, 1, 2 …", stage=Stage.LOG
        )
