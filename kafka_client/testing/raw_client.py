"""A client without manners: any request in any version, any record batch, right or wrong, to the fake or to a broker.

Owns: one byte stream and the correlation ids on it. Refuses to know what a request means, and `kafka_client.wire`: what
the fake is judged by must not share the mistakes of the client that the fake judges.

Invariant: what `RawClient.call` returns was read to the last byte of the frame.

    async with open_fake_cluster(topics={"events": 1}) as cluster:
        client = RawClient(await cluster.connector("fake-1", 9092))
        answer = await client.call(Api.LIST_OFFSETS, 9, replica_id=-1, isolation_level=0, topics=[
            {"name": "events", "partitions": [{"partition_index": 0, "current_leader_epoch": -1, "timestamp": -1}]}])
        assert answer["topics"][0]["partitions"][0]["offset"] == 0
"""

import dataclasses
import datetime
import enum
import struct
from collections.abc import Sequence
from typing import TypeAlias

import crc32c
import trio

from kafka_client.testing.messages import Value, decode_answer, encode_request, write_uvarint

__all__ = ["Plain", "RawClient", "encode_batch", "encode_record"]

#: An answer: kio's names, codes and milliseconds as int, bytes as bytes.
Plain: TypeAlias = "dict[str, Plain] | list[Plain] | int | str | bytes | None"


def encode_varint(value: int) -> bytes:
    """Zigzag, as in a record."""
    out = bytearray()
    write_uvarint(out, (value << 1) ^ (value >> 63))
    return bytes(out)


def encode_record(
    value: bytes | None,
    *,
    index: int = 0,
    key: bytes | None = None,
    timestamp_delta: int = 0,
    attributes: int = 0,
) -> bytes:
    """One record, its length before it."""
    record = bytes([attributes]) + encode_varint(timestamp_delta) + encode_varint(index)
    for part in (key, value):
        record += encode_varint(-1) if part is None else encode_varint(len(part)) + part
    record += encode_varint(0)
    return encode_varint(len(record)) + record


def encode_batch(
    values: Sequence[bytes | None],
    *,
    timestamp_ms: int,
    key: bytes | None = None,
    producer_id: int = -1,
    epoch: int = -1,
    sequence: int = -1,
    attributes: int = 0,
    magic: int = 2,
    crc_shift: int = 0,
    count: int | None = None,
    last_offset_delta: int | None = None,
    max_timestamp_ms: int | None = None,
    timestamp_deltas: Sequence[int] | None = None,
    base_offset: int = 0,
    body: bytes | None = None,
) -> bytes:
    """One record batch, format 2; every member may be wrong.

    Args:
        timestamp_ms: Of the batch; ``timestamp_deltas`` of its records, 0 by default.
        crc_shift: Added to the right CRC.
        count, last_offset_delta, max_timestamp_ms: What fits the records by default.
        body: The records as they stand in the batch, compressed as ``attributes`` say; made of ``values`` by default.
    """
    deltas = [0] * len(values) if timestamp_deltas is None else timestamp_deltas
    if body is None:
        body = b"".join(
            encode_record(value, index=index, key=key, timestamp_delta=deltas[index])
            for index, value in enumerate(values)
        )
    number = len(values) if count is None else count
    tail = struct.pack(
        ">hiqqqhii",
        attributes,
        number - 1 if last_offset_delta is None else last_offset_delta,
        timestamp_ms,
        timestamp_ms + max(deltas, default=0) if max_timestamp_ms is None else max_timestamp_ms,
        producer_id,
        epoch,
        sequence,
        number,
    )
    crc = (crc32c.crc32c(tail + body) + crc_shift) & 0xFFFFFFFF
    return struct.pack(">qiibI", base_offset, 9 + len(tail) + len(body), 0, magic, crc) + tail + body


class RawClient:
    """One connection to one broker.

    Attributes:
        stream: Write to it what you like.
        correlation_id: Of the last request.
    """

    def __init__(self, stream: trio.abc.HalfCloseableStream) -> None:
        self.stream = stream
        self.correlation_id = 0
        self._received = bytearray()

    def __repr__(self) -> str:
        return f"<RawClient {self.stream!r} correlation_id={self.correlation_id}>"

    @property
    def received(self) -> bytes:
        """What has arrived of a frame that is not complete."""
        return bytes(self._received)

    def encode(self, api: int, version: int, **members: Value) -> bytes:
        """A request's frame, its length included; members by kio's names, durations as int milliseconds."""
        self.correlation_id += 1
        frame = encode_request(api, version, self.correlation_id, "raw", members)
        return struct.pack(">i", len(frame)) + frame

    async def receive_frame(self) -> bytes | None:
        """The next frame without its length; None when the broker has closed. Raises `trio.BrokenResourceError`."""
        await trio.lowlevel.checkpoint()
        while len(self._received) < 4 or len(self._received) < 4 + int.from_bytes(self._received[:4]):
            data = await self.stream.receive_some()
            if not data:
                return None
            self._received += data
        size = int.from_bytes(self._received[:4])
        frame = bytes(self._received[4 : 4 + size])
        del self._received[: 4 + size]
        return frame

    def decode(self, api: int, version: int, frame: bytes) -> dict[str, Plain]:
        """The answer's body, which must end where the frame ends. Raises `BadRequest`."""
        plain = to_plain(decode_answer(api, version, frame))
        assert isinstance(plain, dict)
        return plain

    async def call(self, api: int, version: int, **members: Value) -> dict[str, Plain] | None:
        """Send, and wait for the answer; None when the broker closed instead, with or without a reset."""
        await trio.lowlevel.checkpoint()
        try:
            await self.stream.send_all(self.encode(api, version, **members))
            frame = await self.receive_frame()
        except trio.BrokenResourceError:
            return None
        if frame is None:
            return None
        if frame[:4] != struct.pack(">i", self.correlation_id):
            raise AssertionError(f"asked with correlation id {self.correlation_id}, answered {frame[:4]!r}")
        return self.decode(api, version, frame)


def to_plain(value: object) -> Plain:
    """kio's classes as plain values."""
    if dataclasses.is_dataclass(value):
        return {member.name: to_plain(getattr(value, member.name)) for member in dataclasses.fields(value)}
    if isinstance(value, enum.Enum):
        return to_plain(value.value)
    match value:
        case tuple() | list():
            return [to_plain(each) for each in value]
        case datetime.timedelta():
            return round(value.total_seconds() * 1000)
        case datetime.datetime():
            return round(value.timestamp() * 1000)
        case None | int() | str():
            return value
        case bytes() | bytearray() | memoryview():
            return bytes(value)
        case _:
            return str(value)
