"""The tail of a record: key, value and headers; what depends on nothing but the record itself.

Owns: its layout, whole and in pieces: whoever writes a value into it piece by piece needs no copy of the value. Refuses
to know: the batch around it.

Source: https://kafka.apache.org/documentation/#recordbatch; DefaultRecord.java.
"""

from kafka_client.outcome import Headers

from .primitives import Reader, varint_bytes

__all__ = [
    "LENGTHS",
    "LENGTHS_KEPT",
    "NULL",
    "decode_record_tail",
    "encode_record_tail",
    "length_of",
    "record_key",
    "sized",
]

#: Varints of lengths up to here come from a table, 0.5 MB; beyond it they are computed.
LENGTHS_KEPT = 8 * 1024
LENGTHS = [varint_bytes(length) for length in range(LENGTHS_KEPT)]
NULL = varint_bytes(-1)
"""Instead of a length: there is none."""

_HEADER_NAMES: dict[str, bytes] = {}
_HEADER_NAMES_KEPT = 1024


def length_of(length: int) -> bytes:
    """A length, or the number of a record's headers, as it stands there."""
    return LENGTHS[length] if length < LENGTHS_KEPT else varint_bytes(length)


def sized(content: bytes) -> bytes:
    """Bytes with their length before them: a key, a value, a header's name or content."""
    return length_of(len(content)) + content


def encode_record_tail(key: bytes | None, value: bytes | None, headers: Headers = ()) -> bytes:
    """The part of a record that depends on nothing but itself. Headers may repeat a name and keep their order.

    Raises:
        TypeError: key, value or a header's content is no buffer of bytes, or a header's name no str.
    """
    if value is None:
        value, prefix = b"", NULL
    else:
        if value.__class__ is not bytes:
            _check_bytes(value)
        prefix = LENGTHS[len(value)] if len(value) < LENGTHS_KEPT else varint_bytes(len(value))
    if key is None:
        if not headers:
            return b"\x01%b%b\x00" % (prefix, value)
        key, key_prefix = b"", NULL
    else:
        if key.__class__ is not bytes:
            _check_bytes(key)
        key_prefix = LENGTHS[len(key)] if len(key) < LENGTHS_KEPT else varint_bytes(len(key))
        if not headers:
            return b"".join((key_prefix, key, prefix, value, b"\x00"))
    parts = [key_prefix, key, prefix, value, length_of(len(headers))]
    for name, content in headers:
        if content is None:
            parts += (_HEADER_NAMES.get(name) or _header_name(name), NULL)
        else:
            if content.__class__ is not bytes:
                _check_bytes(content)
            size = len(content)
            parts += (
                _HEADER_NAMES.get(name) or _header_name(name),
                LENGTHS[size] if size < LENGTHS_KEPT else varint_bytes(size),
                content,
            )
    return b"".join(parts)


def _check_bytes(content: object) -> None:
    """Its length is taken for its size: items wider than a byte would make a record that no broker can read."""
    if not isinstance(content, bytes | bytearray):
        with memoryview(content) as view:  # type: ignore[arg-type]  # TypeError is what is asked for
            if view.itemsize != 1 or view.ndim != 1:
                raise TypeError(f"a buffer of bytes, not of {view.ndim} dimensions with items of {view.itemsize} bytes")


def record_key(tail: bytes) -> bytes | None:
    """The key of an encoded record."""
    value = shift = at = 0
    while True:
        byte = tail[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            break
        shift += 7
    size = (value >> 1) ^ -(value & 1)
    return None if size < 0 else tail[at : at + size]


def decode_record_tail(tail: bytes) -> tuple[bytes | None, bytes | None, Headers]:
    """Key, value and headers of a tail that `encode_record_tail` could have made."""
    reader = Reader(tail)
    key, value = _content(reader), _content(reader)
    headers = tuple([((_content(reader) or b"").decode(), _content(reader)) for _ in range(reader.varint())])
    return key, value, headers


def _content(reader: Reader) -> bytes | None:
    length = reader.varint()
    return None if length < 0 else bytes(reader.take(length))


def _header_name(name: str) -> bytes:
    if not isinstance(name, str):
        raise TypeError(f"header name: a str, not {type(name).__name__}")
    encoded = name.encode()
    prefixed = varint_bytes(len(encoded)) + encoded
    if len(_HEADER_NAMES) < _HEADER_NAMES_KEPT:  # programs use few names; a bound against those that make them up
        _HEADER_NAMES[name] = prefixed
    return prefixed
