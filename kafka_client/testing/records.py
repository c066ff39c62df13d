"""The records inside a batch, byte by byte.

Owns: their format and what a broker minds in it. Refuses to know batches and codecs.

Invariant: `parse_records` reads to the last byte or raises.

Source: DefaultRecord.readFrom and DefaultRecordBatch's iterators of Apache Kafka.
"""

from dataclasses import dataclass

__all__ = ["Headers", "ParsedRecord", "RecordsBroken", "parse_records"]

Headers = tuple[tuple[str, bytes | None], ...]
#: Seven bits each: what fits an int32.
VARINT_BYTES_MAX = 5
VARLONG_BYTES_MAX = 10


class RecordsBroken(Exception):
    """The bytes are not these records.

    Attributes:
        ran_out: They end too early.
        unreadable: A broker trips over them instead of refusing them.
    """

    def __init__(self, message: str, *, ran_out: bool = False, unreadable: bool = False) -> None:
        super().__init__(message)
        self.ran_out = ran_out
        self.unreadable = unreadable


@dataclass(frozen=True, slots=True)
class ParsedRecord:
    """One record of a batch; ``index`` is its place in it, ``offset_delta`` what it says itself."""

    index: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: Headers
    offset_delta: int


class _Cursor:
    """A place in the records' bytes."""

    __slots__ = ("at", "data")

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0

    def varint(self, max_bytes: int = VARINT_BYTES_MAX) -> int:
        shift = value = 0
        for _ in range(max_bytes):
            if self.at >= len(self.data):
                raise RecordsBroken("the records end inside a number", ran_out=True)
            byte = self.data[self.at]
            self.at += 1
            value |= (byte & 0x7F) << shift
            if not byte & 0x80:
                return (value >> 1) ^ -(value & 1)
            shift += 7
        raise RecordsBroken("a variable-length number is too long", unreadable=True)

    def take(self, size: int) -> bytes:
        if size < 0 or self.at + size > len(self.data):
            raise RecordsBroken(f"{size} bytes are claimed, {len(self.data) - self.at} are left")
        self.at += size
        return self.data[self.at - size : self.at]

    def nullable(self) -> bytes | None:
        size = self.varint()
        return None if size < 0 else self.take(size)


def parse_records(
    body: bytes, count: int, base_timestamp: int, *, more: bool
) -> tuple[tuple[ParsedRecord, ...], tuple[str, ...]]:
    """The records, and what is odd about them but passes. Raises `RecordsBroken`.

    Args:
        more: The bytes end where a decompressor failed, not where the records should.
    """
    cursor = _Cursor(body)
    records = []
    odd: list[str] = []
    for index in range(count):
        size = cursor.varint()
        end = cursor.at + size
        if end > len(body):
            raise RecordsBroken(f"record {index} claims {size} bytes", ran_out=True)
        if size < 0:
            raise RecordsBroken(f"record {index} claims {size} bytes")
        try:
            records.append(_parse_record(_Cursor(body[cursor.at : end]), index, base_timestamp, odd))
        except RecordsBroken as error:
            raise RecordsBroken(f"record {index}: {error}") from error
        cursor.at = end
    if cursor.at != len(body) and not more:
        raise RecordsBroken(f"{len(body) - cursor.at} bytes after the last record")
    return tuple(records), tuple(odd)


def _parse_record(cursor: _Cursor, index: int, base_timestamp: int, odd: list[str]) -> ParsedRecord:
    attributes = cursor.take(1)
    timestamp = base_timestamp + cursor.varint(VARLONG_BYTES_MAX)
    delta = cursor.varint()
    key = cursor.nullable()
    value = cursor.nullable()
    count = cursor.varint()
    if not 0 <= count <= len(cursor.data):
        raise RecordsBroken(f"{count} headers are claimed")
    headers = []
    for _ in range(count):
        name = cursor.take(cursor.varint())
        headers.append((name.decode(errors="replace"), cursor.nullable()))
        if headers[-1][0].encode() != name:
            odd.append(f"record {index} has a header whose name is not UTF-8: {name!r}")
    if cursor.at != len(cursor.data):
        raise RecordsBroken(f"{len(cursor.data) - cursor.at} bytes are left of its length")
    if attributes != b"\0":
        odd.append(f"record {index} has attributes {attributes!r}")
    if delta != index:
        odd.append(f"record {index} has offset delta {delta}")
    return ParsedRecord(index, timestamp, key, value, tuple(headers), delta)
