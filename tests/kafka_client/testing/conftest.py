"""A client with no manners: sends any request, by kio's own encoder, and any record batch, by hand."""

import io
import struct
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack

import crc32c
import pytest
import trio
from kio.index import load_request_schema, load_response_schema
from kio.serial import entity_reader, entity_writer

from kafka_client.testing import Api, FakeCluster, open_fake_cluster

NOW_MS = 1_700_000_000_000


def varint(value: int) -> bytes:
    value = (value << 1) ^ (value >> 63)
    out = bytearray()
    while value > 0x7F:
        out.append((value & 0x7F) | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def make_batch(
    values: Sequence[bytes],
    *,
    producer_id: int = -1,
    epoch: int = -1,
    sequence: int = -1,
    attributes: int = 0,
    magic: int = 2,
    timestamp_ms: int = NOW_MS,
    crc_shift: int = 0,
    count: int | None = None,
    body: bytes | None = None,
) -> bytes:
    """One record batch, right or wrong."""
    if body is None:
        body = b""
        for index, value in enumerate(values):
            record = b"\0" + varint(0) + varint(index) + varint(-1) + varint(len(value)) + value + varint(0)
            body += varint(len(record)) + record
    number = len(values) if count is None else count
    tail = struct.pack(
        ">hiqqqhii", attributes, number - 1, timestamp_ms, timestamp_ms, producer_id, epoch, sequence, number
    )
    crc = (crc32c.crc32c(tail + body) + crc_shift) & 0xFFFFFFFF
    return struct.pack(">qiibI", 0, 9 + len(tail) + len(body), 0, magic, crc) + tail + body


class Answer:
    """One partition's part of a Produce answer."""

    def __init__(self, part: object) -> None:
        self.code = int(part.error_code.value)  # type: ignore[attr-defined]  # kio's class
        self.base_offset: int = part.base_offset  # type: ignore[attr-defined]  # kio's class
        self.part = part


class RawClient:
    """One connection."""

    def __init__(self, cluster: FakeCluster, stream: trio.abc.HalfCloseableStream) -> None:
        self.cluster = cluster
        self.stream = stream
        self.correlation_id = 0
        self._received = bytearray()

    def request(self, api: Api, version: int, **members: object) -> bytes:
        """A request's frame, its length included."""
        schema = load_request_schema(api, version)
        self.correlation_id += 1
        header = struct.pack(">hhih", api, version, self.correlation_id, 3) + b"raw" + b"\0" * schema.__flexible__
        body = io.BytesIO()
        entity_writer(schema)(body, schema(**members))
        return struct.pack(">i", len(header) + len(body.getvalue())) + header + body.getvalue()

    async def receive_frame(self) -> bytes | None:
        """The next frame without its length; None when the broker has closed."""
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

    def read(self, api: Api, version: int, frame: bytes) -> object:
        """The answer's body by kio, which must end where the frame ends."""
        schema = load_response_schema(api, version)
        at = 4 + (schema.__flexible__ and api is not Api.API_VERSIONS)
        answer, size = entity_reader(schema)(frame, at)
        assert at + size == len(frame)
        return answer

    async def call(self, api: Api, version: int, **members: object) -> object | None:
        """Send, and wait for the answer; None when the broker closed instead."""
        await self.stream.send_all(self.request(api, version, **members))
        frame = await self.receive_frame()
        if frame is None:
            return None
        assert frame[:4] == struct.pack(">i", self.correlation_id)
        return self.read(api, version, frame)

    def produce_request(
        self, records: bytes | None, *, topic: str = "events", partition: int = 0, version: int = 9, acks: int = -1
    ) -> bytes:
        """A Produce request for one partition."""
        import datetime
        from importlib import import_module

        schema = import_module(f"kio.schema.produce.v{version}.request")
        name = {"name": topic} if version < 13 else {"topic_id": self.topic_id(topic)}
        part = schema.PartitionProduceData(index=partition, records=records)
        data = schema.TopicProduceData(**name, partition_data=(part,))
        timeout = datetime.timedelta(seconds=10)
        return self.request(Api.PRODUCE, version, transactional_id=None, acks=acks, timeout=timeout, topic_data=(data,))

    def topic_id(self, topic: str) -> uuid.UUID:
        return self.cluster.topics[topic].topic_id if topic in self.cluster.topics else uuid.uuid4()

    async def produce(
        self,
        records: bytes | None,
        *,
        topic: str = "events",
        partition: int = 0,
        version: int = 9,
        acks: int = -1,
    ) -> Answer | None:
        """Produce to one partition; None when the broker closed instead of answering."""
        await self.stream.send_all(
            self.produce_request(records, topic=topic, partition=partition, version=version, acks=acks)
        )
        return await self.produce_answer(version)

    async def produce_answer(self, version: int = 9) -> Answer | None:
        """The next answer, as one of Produce with one partition."""
        frame = await self.receive_frame()
        if frame is None:
            return None
        answer = self.read(Api.PRODUCE, version, frame)
        return Answer(answer.responses[0].partition_responses[0])  # type: ignore[attr-defined]  # kio's class


Connect = Callable[..., Awaitable[RawClient]]


@pytest.fixture
async def cluster() -> AsyncIterator[FakeCluster]:
    """Two brokers; topic events with two partitions, the first led by broker 1, the second by 2."""
    async with open_fake_cluster(brokers=2, topics={"events": 2}, clock=lambda: NOW_MS / 1000) as cluster:
        yield cluster


@pytest.fixture
async def connect(cluster: FakeCluster) -> AsyncIterator[Connect]:
    """``await connect(broker=1)``: a raw client."""
    async with AsyncExitStack() as stack:

        async def open_raw_client(broker: int = 1) -> RawClient:
            stream = await cluster.connector(f"fake-{broker}", 9092)
            stack.push_async_callback(trio.aclose_forcefully, stream)
            return RawClient(cluster, stream)

        yield open_raw_client


@pytest.fixture
async def client(connect: Connect) -> RawClient:
    """A raw client of broker 1."""
    return await connect()


@pytest.fixture
def batch() -> Callable[..., bytes]:
    """`make_batch`."""
    return make_batch
