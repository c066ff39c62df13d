"""Kafka's primitive types: bytes to values and back.

Owns: the encodings of numbers, strings, arrays and tagged fields, in their plain and their compact ("flexible",
KIP-482) forms. Refuses to know: any message, any socket.

Invariant: whatever a peer sends ends in a value or in `ProtocolError`; never in IndexError, struct.error, a negative
slice or an allocation larger than the bytes received. Unknown tagged fields are returned or skipped, never refused: a
broker that adds one tag must not break a response (KIP-951 did add some).

Source: https://kafka.apache.org/protocol.html#protocol_types, KIP-482.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from struct import Struct
from struct import error as struct_error
from typing import TypeAlias, TypeVar

from kafka_client.errors import ProtocolError

__all__ = [
    "NULL_UUID",
    "Buffer",
    "Reader",
    "Writer",
    "uvarint_bytes",
    "varint_bytes",
]

T = TypeVar("T")
Buffer: TypeAlias = bytes | bytearray | memoryview

#: The topic id of a topic that has none.
NULL_UUID = bytes(16)

_INT8 = Struct(">b")
_INT16 = Struct(">h")
_UINT16 = Struct(">H")
_INT32 = Struct(">i")
_UINT32 = Struct(">I")
_INT64 = Struct(">q")

# A varint of 32 bits has at most 5 bytes, one of 64 bits at most 10 (7 bits a byte).
_VARINT_MAX_BYTES = 5
_VARLONG_MAX_BYTES = 10


def uvarint_bytes(value: int) -> bytes:
    """Encode ``value`` (>= 0) in groups of seven bits, least significant first, as protocol buffers do."""
    if value < 0x80:
        if value < 0:
            raise ValueError(f"{value} is negative")
        return _ONE_BYTE[value]
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def varint_bytes(value: int) -> bytes:
    """Encode a signed ``value`` of up to 64 bits as zigzag varint (``varint`` and ``varlong`` share the encoding)."""
    return uvarint_bytes(value << 1 if value >= 0 else (~value << 1) | 1)


_ONE_BYTE = [bytes((value,)) for value in range(0x80)]


class Reader:
    """Reads one message from ``data``, left to right.

    ``flexible`` chooses the compact forms of strings, bytes and arrays, and whether `tags` finds any.
    """

    __slots__ = ("_data", "_end", "_position", "flexible")

    def __init__(self, data: Buffer, *, flexible: bool = False) -> None:
        self._data = memoryview(data)
        self._end = len(data)
        self._position = 0
        self.flexible = flexible

    def __repr__(self) -> str:
        return f"<Reader at {self._position} of {self._end} bytes{' flexible' if self.flexible else ''}>"

    @property
    def position(self) -> int:
        """Bytes read so far."""
        return self._position

    @property
    def remaining(self) -> int:
        """Bytes not read yet."""
        return self._end - self._position

    def take(self, count: int) -> memoryview:
        """The next ``count`` bytes, as a view."""
        start = self._position
        stop = start + count
        if count < 0 or stop > self._end:
            raise ProtocolError(f"{count} bytes claimed at byte {start}, {self._end - start} are there")
        self._position = stop
        return self._data[start:stop]

    def rest(self) -> memoryview:
        """Everything not read yet."""
        return self.take(self._end - self._position)

    def unpack(self, layout: Struct) -> tuple[int, ...]:
        """Several fixed-width numbers at once; ``layout`` is big-endian."""
        try:
            values = layout.unpack_from(self._data, self._position)
        except struct_error as error:
            raise self._underflow(layout.size) from error
        self._position += layout.size
        return values

    def unpack_many(self, layout: Struct, at_most: int) -> Iterator[tuple[int, ...]]:
        """Look ahead at repetitions of ``layout``, as many as are there and ``at_most``; `skip` reads them."""
        times = min(at_most, self.remaining // layout.size)
        return layout.iter_unpack(self._data[self._position : self._position + times * layout.size])

    def skip(self, count: int) -> None:
        """Pass over ``count`` bytes that `unpack_many` has shown to be there."""
        self._position += count

    def skip_if(self, expected: bytes) -> bool:
        """Pass over ``expected`` if it comes next: the short way past members that are nearly always empty."""
        stop = self._position + len(expected)
        if self._data[self._position : stop] != expected:
            return False
        self._position = stop
        return True

    def int8(self) -> int:
        return self._number(_INT8)

    def int16(self) -> int:
        return self._number(_INT16)

    def uint16(self) -> int:
        return self._number(_UINT16)

    def int32(self) -> int:
        return self._number(_INT32)

    def uint32(self) -> int:
        return self._number(_UINT32)

    def int64(self) -> int:
        return self._number(_INT64)

    def boolean(self) -> bool:
        return self._number(_INT8) != 0

    def uuid(self) -> bytes:
        """Sixteen bytes."""
        return bytes(self.take(16))

    def uvarint(self) -> int:
        """An unsigned varint of 32 bits."""
        return self._uvarint(_VARINT_MAX_BYTES)

    def varint(self) -> int:
        """A zigzag varint of 32 bits."""
        value = self._uvarint(_VARINT_MAX_BYTES)
        return (value >> 1) ^ -(value & 1)

    def varlong(self) -> int:
        """A zigzag varint of 64 bits."""
        value = self._uvarint(_VARLONG_MAX_BYTES)
        return (value >> 1) ^ -(value & 1)

    def nullable_string(self) -> str | None:
        length = self.uvarint() - 1 if self.flexible else self.int16()
        if length < 0:
            return None
        try:
            return str(self.take(length), "utf-8")
        except UnicodeDecodeError as error:
            raise ProtocolError(f"a string at byte {self._position - length} is not UTF-8: {error.reason}") from error

    def string(self) -> str:
        return self._present(self.nullable_string(), "string")

    def nullable_bytes(self) -> memoryview | None:
        length = self.uvarint() - 1 if self.flexible else self.int32()
        return None if length < 0 else self.take(length)

    def bytes_(self) -> memoryview:
        return self._present(self.nullable_bytes(), "bytes")

    def nullable_array(self, read_item: Callable[["Reader"], T]) -> tuple[T, ...] | None:
        """An array whose items ``read_item`` reads; None for a null array."""
        count = self.array_count()
        return None if count < 0 else tuple([read_item(self) for _ in range(count)])

    def array_count(self) -> int:
        """How many items follow; -1 for a null array."""
        count = self.uvarint() - 1 if self.flexible else self.int32()
        # Every item of every message has at least one byte: a larger count is a lie, and would be an allocation.
        if count > self._end - self._position:
            raise ProtocolError(f"an array of {count} items is claimed where {self.remaining} bytes are left")
        return count

    def array(self, read_item: Callable[["Reader"], T]) -> tuple[T, ...]:
        """An array; a null one is read as an empty one, as some brokers send it where the schema forbids it."""
        return self.nullable_array(read_item) or ()

    def int32_array(self) -> tuple[int, ...]:
        count = self.uvarint() - 1 if self.flexible else self.int32()
        if count <= 0:
            return ()
        if count * 4 > self._end - self._position:
            raise ProtocolError(f"an array of {count} numbers is claimed where {self.remaining} bytes are left")
        return self.unpack(Struct(f">{count}i"))

    def tags(self) -> dict[int, memoryview]:
        """The tagged fields that end a flexible structure, by tag; none in a message that is not flexible."""
        if not self.flexible:
            return {}
        count = self.uvarint()
        if count == 0:
            return {}
        if count * 2 > self.remaining:
            raise ProtocolError(f"{count} tagged fields are claimed where {self.remaining} bytes are left")
        found = {}
        for _ in range(count):
            tag = self.uvarint()
            found[tag] = self.take(self.uvarint())
        return found

    def skip_tags(self) -> None:
        """Pass over the tagged fields that end a flexible structure."""
        if self.flexible:
            self.tags()

    def _number(self, layout: Struct) -> int:
        position = self._position
        try:
            value: int = layout.unpack_from(self._data, position)[0]
        except struct_error as error:
            raise self._underflow(layout.size) from error
        self._position = position + layout.size
        return value

    def _uvarint(self, max_bytes: int) -> int:
        data, position = self._data, self._position
        value = shift = 0
        try:
            for index in range(position, position + max_bytes):
                byte = data[index]
                value |= (byte & 0x7F) << shift
                if byte < 0x80:
                    self._position = index + 1
                    return value
                shift += 7
        except IndexError as error:
            raise self._underflow(1) from error
        raise ProtocolError(f"a varint at byte {position} has more than {max_bytes} bytes")

    def _underflow(self, wanted: int) -> ProtocolError:
        return ProtocolError(f"{wanted} bytes expected at byte {self._position}, {self.remaining} are there")

    def _present(self, value: T | None, kind: str) -> T:
        if value is None:
            raise ProtocolError(f"a null {kind} before byte {self._position} where the protocol allows none")
        return value


class Writer:
    """Gathers one message; `parts` is what to join.

    Large values (record batches) are kept as they are and copied once, by the join.
    """

    __slots__ = ("flexible", "parts")

    def __init__(self, *, flexible: bool = False) -> None:
        self.parts: list[Buffer] = []
        self.flexible = flexible

    def finish(self) -> bytes:
        return b"".join(self.parts)

    def raw(self, value: Buffer) -> None:
        """Bytes that are encoded already, or a UUID."""
        self.parts.append(value)

    def int8(self, value: int) -> None:
        self.parts.append(_INT8.pack(value))

    def int16(self, value: int) -> None:
        self.parts.append(_INT16.pack(value))

    def int32(self, value: int) -> None:
        self.parts.append(_INT32.pack(value))

    def int64(self, value: int) -> None:
        self.parts.append(_INT64.pack(value))

    def boolean(self, value: bool) -> None:
        self.parts.append(b"\x01" if value else b"\x00")

    def uvarint(self, value: int) -> None:
        self.parts.append(uvarint_bytes(value))

    def nullable_string(self, value: str | None) -> None:
        if value is None:
            self.parts.append(b"\x00" if self.flexible else b"\xff\xff")
            return
        encoded = value.encode()
        if not self.flexible and len(encoded) > 0x7FFF:
            raise ValueError(f"a string of {len(encoded)} bytes; the protocol ends at {0x7FFF}")
        self.parts.append(uvarint_bytes(len(encoded) + 1) if self.flexible else _INT16.pack(len(encoded)))
        self.parts.append(encoded)

    def string(self, value: str) -> None:
        self.nullable_string(value)

    def nullable_bytes(self, value: Buffer | None) -> None:
        if value is None:
            self.parts.append(b"\x00" if self.flexible else b"\xff\xff\xff\xff")
            return
        self.parts.append(uvarint_bytes(len(value) + 1) if self.flexible else _INT32.pack(len(value)))
        self.parts.append(value)

    def bytes_(self, value: Buffer) -> None:
        self.nullable_bytes(value)

    def array_length(self, count: int | None) -> None:
        """What stands before the items; None for a null array."""
        if self.flexible:
            self.parts.append(b"\x00" if count is None else uvarint_bytes(count + 1))
        else:
            self.parts.append(_INT32.pack(-1 if count is None else count))

    def array(self, items: Sequence[T], write_item: Callable[[T], None]) -> None:
        self.array_length(len(items))
        for item in items:
            write_item(item)

    def string_array(self, items: Iterable[str]) -> None:
        self.array(list(items), self.string)

    def int32_array(self, items: Sequence[int]) -> None:
        self.array(items, self.int32)

    def no_tags(self) -> None:
        """End a structure; we send no tagged fields."""
        if self.flexible:
            self.parts.append(b"\x00")
