"""Record batch v2: what Produce carries and Fetch returns.

Owns: the layout of a batch and its records, its CRC32C, and the sizes that tell when a batch is full. Refuses to know:
who sends it, when, and why it is sent again.

A record is split in two so that the costly part is done once, when it is queued, and the rest in one join when the
batch is sealed, whoever was withdrawn in between:

    record = length | attributes | timestamp delta | offset delta | tail        (length: varint of what follows)
             └──────────────── sealing, from tables ──────────────┘   └ `encode_record_tail`: key, value, headers

A *plain* record, with a value and neither key nor headers, is not copied before the batch is: where all of a batch are
plain, their values stand for the tails, and sealing puts around them what is the same for every length.

Invariant: a batch's bytes depend on nothing but its arguments: encoding the same range again gives the same records, so
a repeated batch has the same (first, last) sequence and count, by which alone the broker recognises it.

Non-obvious: sealing runs at C speed (map, slices, one join); a loop of Python over the records would be four times as
slow. Deltas count from the first record's timestamp, so that they are small and their varints come from a table.

A truncated last batch is normal in a Fetch answer, which is cut at a byte count; it is left out.

Source: https://kafka.apache.org/documentation/#recordbatch; DefaultRecordBatch.java, DefaultRecord.java.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from operator import add
from struct import Struct

import crc32c

from kafka_client.errors import ProtocolError

from .compression import CODEC_IDS, CODEC_NAMES, Codec, compress, decompress
from .primitives import Buffer, Reader, varint_bytes
from .record_tail import LENGTHS, LENGTHS_KEPT, NULL, encode_record_tail, length_of, record_key

__all__ = [
    "BATCH_OVERHEAD_BYTES",
    "NO_PRODUCER_ID",
    "PLAIN_VALUES_BELOW_BYTES",
    "RECORD_OVERHEAD_MAX_BYTES",
    "DecodedBatch",
    "DecodedRecord",
    "decode_batches",
    "encode_batch",
    "encode_record_tail",
    "plain_size",
    "plain_sizes",
    "record_key",
    "renumber_batch",
]

MAGIC = 2
NO_PRODUCER_ID = -1

#: baseOffset, batchLength, partitionLeaderEpoch, magic, crc | attributes, lastOffsetDelta, baseTimestamp, maxTimestamp,
#: producerId, producerEpoch, baseSequence, count. The CRC covers what follows it.
BEFORE_CRC = Struct(">qiib")
AFTER_CRC = Struct(">hiqqqhii")
CRC = Struct(">I")
CRC_OFFSET = BEFORE_CRC.size
ATTRIBUTES_OFFSET = CRC_OFFSET + CRC.size
_PRODUCER = Struct(">qhi")
_PRODUCER_OFFSET = ATTRIBUTES_OFFSET + 2 + 4 + 8 + 8
#: What a batch has beside its records.
BATCH_OVERHEAD_BYTES = ATTRIBUTES_OFFSET + AFTER_CRC.size
#: batchLength counts from partitionLeaderEpoch on.
LENGTH_COUNTS_FROM = 12
#: A record's length (5), attributes (1), timestamp delta (10) and offset delta (5), at their longest.
RECORD_OVERHEAD_MAX_BYTES = 21

# Tables: offset deltas of batches up to 16 K records, timestamp deltas up to 8 s, record lengths up to 8 KiB. Beyond
# them varints are computed. 1.5 MB in all.
_OFFSETS_KEPT = 16 * 1024
_DELTAS_KEPT = 8 * 1024

_OFFSET_DELTAS = [varint_bytes(delta) for delta in range(_OFFSETS_KEPT)]
#: With attributes and a timestamp delta of 0 before them.
_OFFSET_DELTAS_AT_BASE = [b"\x00\x00" + encoded for encoded in _OFFSET_DELTAS]
#: attributes (always 0) and timestamp delta
_TIMESTAMP_DELTAS = [b"\x00" + varint_bytes(delta) for delta in range(_DELTAS_KEPT)]
#: With the end of a plain record before them.
_LENGTHS_AFTER_PLAIN = [b"\x00" + encoded for encoded in LENGTHS]

#: The first offset deltas that take two bytes, and three.
_SHORT_OFFSETS, _MIDDLE_OFFSETS = 64, 8 * 1024
#: Tails up to here have their records' lengths in tables: with two bytes of attributes and timestamp delta before them,
#: and an offset delta of one byte, of two, of three.
_SIZES_KEPT = LENGTHS_KEPT - RECORD_OVERHEAD_MAX_BYTES
_LENGTHS_OF_TAILS = [LENGTHS[2 + size :] for size in (1, 2, 3)]

#: A value shorter than this can stand for the tail of its record, if that has neither key nor headers.
PLAIN_VALUES_BELOW_BYTES = LENGTHS_KEPT

_NO_KEY_PREFIXES = [NULL + encoded for encoded in LENGTHS]
_PLAIN_SIZES = [len(prefix) + length + 1 for length, prefix in enumerate(_NO_KEY_PREFIXES)]
_LENGTHS_OF_PLAIN = [
    [_LENGTHS_AFTER_PLAIN[2 + size + plain] for plain in _PLAIN_SIZES[:_SIZES_KEPT]] for size in (1, 2, 3)
]
# glibc gives each block above 128 KiB pages of its own, and faulting them in takes eight times as long as filling them
# (237 against 29 µs for a batch of 300 kB). It stops doing so up to the size of the largest such block freed so far:
# this one, as large as the largest request (ProducerConfig.request_max_bytes). Never touched, so it costs no memory.
bytes(4 * 1024 * 1024)


def plain_size(value: bytes) -> int:
    """The length of a plain record's tail."""
    return _PLAIN_SIZES[len(value)]


def plain_sizes(lengths: Iterable[int]) -> list[int]:
    """`plain_size` of values of these lengths."""
    return list(map(_PLAIN_SIZES.__getitem__, lengths))


def encode_batch(
    tails: Sequence[bytes],
    timestamps_ms: Sequence[int],
    *,
    producer_id: int = NO_PRODUCER_ID,
    producer_epoch: int = -1,
    base_sequence: int = -1,
    codec: Codec = "none",
    compression_min_bytes: int = 0,
    base_timestamp_ms: int | None = None,
    plain: bool = False,
) -> bytes:
    """Encode one batch of one or more records, with CreateTime timestamps.

    Args:
        tails: `encode_record_tail` of each record, in order; or their values.
        timestamps_ms: one for each record, milliseconds since the Unix epoch.
        base_sequence: the first record's sequence number; the others follow, wrapping to 0 after 2**31 - 1.
        codec: applied where the records have at least ``compression_min_bytes`` and become smaller by it.
        base_timestamp_ms: what deltas count from; None takes the first record's.
        plain: ``tails`` are the values of plain records, each shorter than `PLAIN_VALUES_BELOW_BYTES`.
    """
    count = len(tails)
    if count == 0 or count != len(timestamps_ms):
        raise ValueError(f"{count} records with {len(timestamps_ms)} timestamps; expected as many, at least one")
    base = timestamps_ms[0] if base_timestamp_ms is None else base_timestamp_ms
    stamps = set(timestamps_ms)
    records = _join_records(tails, timestamps_ms, stamps, base, plain)
    attributes = 0
    if codec != "none" and len(records) >= compression_min_bytes:
        packed = compress(codec, records)
        if len(packed) < len(records):
            records, attributes = packed, CODEC_IDS[codec]

    head = AFTER_CRC.pack(attributes, count - 1, base, max(stamps), producer_id, producer_epoch, base_sequence, count)
    crc = crc32c.crc32c(records, crc32c.crc32c(head))
    length = BATCH_OVERHEAD_BYTES - LENGTH_COUNTS_FROM + len(records)
    return b"".join((BEFORE_CRC.pack(0, length, -1, MAGIC), CRC.pack(crc), head, records))


def renumber_batch(batch: bytes, *, producer_id: int, producer_epoch: int, base_sequence: int) -> bytes:
    """The same batch under another producer id, epoch and first sequence; the records are not touched.

    Only for a batch that is proved not to be in the log by answers.
    """
    head = bytearray(batch[:BATCH_OVERHEAD_BYTES])
    _PRODUCER.pack_into(head, _PRODUCER_OFFSET, producer_id, producer_epoch, base_sequence)
    records = memoryview(batch)[BATCH_OVERHEAD_BYTES:]
    crc = crc32c.crc32c(records, crc32c.crc32c(memoryview(head)[ATTRIBUTES_OFFSET:]))
    CRC.pack_into(head, CRC_OFFSET, crc)
    return b"".join((head, records))


def _join_records(
    tails: Sequence[bytes], timestamps_ms: Sequence[int], stamps: set[int], base: int, plain: bool
) -> bytes:
    """Lay the columns of the records beside each other and join them: what a part costs here is most of it."""
    count = len(tails)
    sizes = list(map(len, tails))
    deltas = {stamp: _timestamp_delta(stamp - base) for stamp in stamps}
    columns: list[Sequence[bytes]]
    if stamps == {base}:
        columns = [_offsets(_OFFSET_DELTAS_AT_BASE, count, b"\x00\x00")]
    else:
        columns = [list(map(deltas.__getitem__, timestamps_ms)), _offsets(_OFFSET_DELTAS, count, b"")]
    if count <= _OFFSETS_KEPT and max(sizes) < _SIZES_KEPT and max(map(len, deltas.values())) == 2:
        one, two, three = _LENGTHS_OF_PLAIN if plain else _LENGTHS_OF_TAILS
        lengths = list(map(one.__getitem__, sizes[:_SHORT_OFFSETS]))
        lengths += map(two.__getitem__, sizes[_SHORT_OFFSETS:_MIDDLE_OFFSETS])
        lengths += map(three.__getitem__, sizes[_MIDDLE_OFFSETS:])
    else:
        lengths = _lengths(columns, sizes, plain)
    columns.insert(0, lengths)
    if plain:
        columns.append(list(map(_NO_KEY_PREFIXES.__getitem__, sizes)))
    columns.append(tails)
    step = len(columns)
    parts: list[bytes] = [b""] * (step * count)
    for place, column in enumerate(columns):
        parts[place::step] = column
    if plain:
        # The number of headers, 0, ends a record and stands before the length of the next.
        parts[0] = parts[0][1:]
        parts.append(b"\x00")
    return b"".join(parts)


def _offsets(table: Sequence[bytes], count: int, before: bytes) -> Sequence[bytes]:
    if count <= _OFFSETS_KEPT:
        return table[:count]
    return [before + varint_bytes(delta) for delta in range(count)]


def _lengths(columns: Sequence[Sequence[bytes]], sizes: Sequence[int], plain: bool) -> list[bytes]:
    """The lengths of any records: with these columns between length and tail, and tails (values) of these sizes."""
    totals: Iterable[int] = map(_PLAIN_SIZES.__getitem__, sizes) if plain else sizes
    for column in columns:
        totals = map(add, totals, map(len, column))
    lengths = list(totals)
    if max(lengths) < LENGTHS_KEPT:
        return list(map((_LENGTHS_AFTER_PLAIN if plain else LENGTHS).__getitem__, lengths))
    return [_length_after_plain(length) if plain else length_of(length) for length in lengths]


def _timestamp_delta(delta: int) -> bytes:
    """With the attributes before it."""
    return _TIMESTAMP_DELTAS[delta] if 0 <= delta < _DELTAS_KEPT else b"\x00" + varint_bytes(delta)


def _length_after_plain(length: int) -> bytes:
    return b"\x00" + length_of(length)


_COMPRESSION_MASK = 0x07
_LOG_APPEND_TIME = 0x08
_TRANSACTIONAL = 0x10
_CONTROL = 0x20
#: Where a Fetch answer's batch may end up: far above any message.max.bytes in the field.
DECOMPRESSED_MAX_BYTES = 128 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class DecodedRecord:
    """One record as it stands in the log."""

    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodedBatch:
    """One batch: every field of its header, and its records."""

    base_offset: int
    leader_epoch: int
    crc: int
    codec: Codec
    is_log_append_time: bool
    is_transactional: bool
    is_control: bool
    last_offset_delta: int
    base_timestamp_ms: int
    max_timestamp_ms: int
    producer_id: int
    producer_epoch: int
    base_sequence: int
    records: tuple[DecodedRecord, ...]

    @property
    def next_offset(self) -> int:
        """Where the log goes on; compaction may have removed records before it."""
        return self.base_offset + self.last_offset_delta + 1


def decode_batches(
    data: Buffer, *, check_crc: bool = True, max_bytes: int = DECOMPRESSED_MAX_BYTES
) -> list[DecodedBatch]:
    """Decode the batches in ``data``; a last one that is cut short is left out.

    Args:
        max_bytes: what the records of one batch may become when decompressed.

    Raises:
        ProtocolError: for anything else that is not a sequence of batches v2.
    """
    view = memoryview(data)
    batches = []
    position = 0
    while len(view) - position >= BATCH_OVERHEAD_BYTES:
        base_offset, length, leader_epoch, magic = BEFORE_CRC.unpack_from(view, position)
        if length < BATCH_OVERHEAD_BYTES - LENGTH_COUNTS_FROM:
            raise ProtocolError(f"a record batch at byte {position} claims a length of {length}")
        stop = position + LENGTH_COUNTS_FROM + length
        if stop > len(view):
            break
        if magic != MAGIC:
            raise ProtocolError(
                f"a record batch at byte {position} has magic {magic}; 2 is the only one since Kafka 0.11"
            )
        batches.append(_decode_batch(view[position:stop], base_offset, leader_epoch, check_crc, max_bytes))
        position = stop
    return batches


def _decode_batch(
    view: memoryview, base_offset: int, leader_epoch: int, check_crc: bool, max_bytes: int
) -> DecodedBatch:
    (crc,) = CRC.unpack_from(view, CRC_OFFSET)
    if check_crc and crc32c.crc32c(view[ATTRIBUTES_OFFSET:]) != crc:
        raise ProtocolError(f"a record batch at offset {base_offset} fails its checksum")
    (
        attributes, last_offset_delta, base_timestamp, max_timestamp, producer_id, producer_epoch, base_sequence, count
    ) = AFTER_CRC.unpack_from(view, ATTRIBUTES_OFFSET)  # fmt: skip
    codec = CODEC_NAMES.get(attributes & _COMPRESSION_MASK)
    if codec is None:
        raise ProtocolError(f"a record batch at offset {base_offset} has an unknown codec: {attributes:#x}")
    records = Reader(decompress(codec, view[BATCH_OVERHEAD_BYTES:], max_bytes))
    if not 0 <= count <= records.remaining:
        raise ProtocolError(f"a record batch at offset {base_offset} claims {count} records")
    is_log_append_time = bool(attributes & _LOG_APPEND_TIME)
    fixed_timestamp = max_timestamp if is_log_append_time else None
    return DecodedBatch(
        base_offset=base_offset,
        leader_epoch=leader_epoch,
        crc=crc,
        codec=codec,
        is_log_append_time=is_log_append_time,
        is_transactional=bool(attributes & _TRANSACTIONAL),
        is_control=bool(attributes & _CONTROL),
        last_offset_delta=last_offset_delta,
        base_timestamp_ms=base_timestamp,
        max_timestamp_ms=max_timestamp,
        producer_id=producer_id,
        producer_epoch=producer_epoch,
        base_sequence=base_sequence,
        records=tuple([_decode_record(records, base_offset, base_timestamp, fixed_timestamp) for _ in range(count)]),
    )


def _decode_record(reader: Reader, base_offset: int, base_timestamp: int, fixed_timestamp: int | None) -> DecodedRecord:
    length = reader.varint()
    start = reader.position
    reader.int8()  # attributes: none are defined
    timestamp = base_timestamp + reader.varlong()
    offset = base_offset + reader.varint()
    key = _prefixed(reader)
    value = _prefixed(reader)
    count = reader.varint()
    if not 0 <= count <= reader.remaining:
        raise ProtocolError(f"the record at offset {offset} claims {count} headers")
    headers = []
    for _ in range(count):
        name = _prefixed(reader)
        if name is None:
            raise ProtocolError(f"the record at offset {offset} has a header without a name")
        headers.append((name.decode(errors="replace"), _prefixed(reader)))
    if reader.position - start != length:
        raise ProtocolError(f"the record at offset {offset} claims {length} bytes and has {reader.position - start}")
    return DecodedRecord(offset, timestamp if fixed_timestamp is None else fixed_timestamp, key, value, tuple(headers))


def _prefixed(reader: Reader) -> bytes | None:
    length = reader.varint()
    return None if length < 0 else bytes(reader.take(length))
