"""Frames: four bytes of length, a header, a body; and the cutting of a byte stream into them.

Owns: request headers v1 and v2, response headers v0 and v1, and which message has which. Refuses to know: bodies.

Invariant: `FrameSplitter` never holds more than one incomplete frame of at most ``max_bytes``, however its input
is cut.

Source: KIP-482; https://kafka.apache.org/protocol.html#protocol_messages; RequestHeader.json, ResponseHeader.json.
"""

from collections.abc import Sequence
from struct import Struct

from kafka_client.errors import ProtocolError

from .primitives import Buffer, Reader

__all__ = [
    "API_NAMES",
    "FIRST_FLEXIBLE",
    "FrameSplitter",
    "decode_response_header",
    "encode_request_frame",
    "is_flexible",
]

_HEADER = Struct(">ihhih")  # frame length, api key, api version, correlation id, length of the client id
_LENGTH = Struct(">i")
_CORRELATION_ID = Struct(">i")
_NEVER = 1 << 15

API_VERSIONS_KEY = 18

API_NAMES = {
    0: "Produce",
    1: "Fetch",
    2: "ListOffsets",
    3: "Metadata",
    17: "SaslHandshake",
    18: "ApiVersions",
    19: "CreateTopics",
    22: "InitProducerId",
    32: "DescribeConfigs",
    36: "SaslAuthenticate",
}
#: api key -> first version with compact forms and tagged fields.
FIRST_FLEXIBLE = {0: 9, 1: 12, 2: 6, 3: 9, 17: _NEVER, 18: 3, 19: 5, 22: 2, 32: 4, 36: 2}

# What the first byte of an answer gives away when the peer does not speak Kafka.
_TLS_ALERT = 0x15
_HTTP = b"HTTP"


def is_flexible(api_key: int, version: int) -> bool:
    """Whether this version has compact forms and tagged fields."""
    return version >= FIRST_FLEXIBLE[api_key]


def encode_request_frame(
    api_key: int, version: int, correlation_id: int, client_id: str, body: bytes | Sequence[Buffer]
) -> bytes:
    """One request as it goes to the socket. ``body`` may come in parts: they are copied once, here."""
    name = client_id.encode()
    parts: list[Buffer] = [b"", name]
    if version >= FIRST_FLEXIBLE[api_key]:
        parts.append(b"\x00")  # header v2: no tagged fields; the client id keeps its old form
    if isinstance(body, bytes):
        parts.append(body)
    else:
        parts.extend(body)
    length = _HEADER.size - _LENGTH.size + sum(map(len, parts))
    parts[0] = _HEADER.pack(length, api_key, version, correlation_id, len(name))
    return b"".join(parts)


def decode_response_header(frame: Buffer, api_key: int, version: int) -> tuple[int, memoryview]:
    """(correlation id, body) of a frame without its length.

    The header of an ApiVersions answer is always v0: a broker must be able to answer whatever it was asked (KIP-511).
    """
    reader = Reader(frame)
    correlation_id = reader.int32()
    if api_key != API_VERSIONS_KEY and version >= FIRST_FLEXIBLE[api_key]:
        reader.flexible = True
        reader.skip_tags()
    return correlation_id, reader.rest()


class FrameSplitter:
    """Cuts a stream of bytes into frames. ``max_bytes`` bounds the length that a frame may claim."""

    __slots__ = ("_buffer", "_max_bytes", "_wanted")

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._buffer = bytearray()
        self._wanted = _LENGTH.size  # bytes that complete the frame under way, its length included

    def __repr__(self) -> str:
        return f"<FrameSplitter {len(self._buffer)} of {self._wanted} bytes>"

    @property
    def held_bytes(self) -> int:
        """Bytes of an incomplete frame; 0 between frames."""
        return len(self._buffer)

    def feed(self, data: Buffer) -> list[memoryview]:
        """The frames that ``data`` completes, without their lengths. Raises `ProtocolError` for an absurd length."""
        if not self._buffer:
            # The usual case, whole frames in one read: no copy into the buffer.
            source: Buffer = data
        else:
            self._buffer += data
            if len(self._buffer) < self._wanted:
                return []
            source = bytes(self._buffer)
            self._buffer.clear()
        return self._split(memoryview(source))

    def _split(self, view: memoryview) -> list[memoryview]:
        frames = []
        position, end = 0, len(view)
        self._wanted = _LENGTH.size
        while end - position >= _LENGTH.size:
            length = _LENGTH.unpack_from(view, position)[0]
            if not _CORRELATION_ID.size <= length <= self._max_bytes:
                raise ProtocolError(self._explain(length, bytes(view[position : position + 4])))
            stop = position + _LENGTH.size + length
            if stop > end:
                self._wanted = stop - position
                break
            frames.append(view[position + _LENGTH.size : stop])
            position = stop
        if position < end:
            self._buffer += view[position:]
        return frames

    def _explain(self, length: int, head: bytes) -> str:
        if head == _HTTP:
            return "the peer answers in HTTP: this is not a Kafka listener"
        if head[0] == _TLS_ALERT:
            return "the peer answers with a TLS alert: this listener wants security.protocol SSL"
        return f"a frame of {length} bytes is claimed; at most {self._max_bytes} are taken (response_max_bytes)"
