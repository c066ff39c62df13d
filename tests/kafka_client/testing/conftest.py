"""A client with no manners: sends any request, by kio's own encoder, and any record batch, by hand."""

import io
import struct
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from typing import Any

import pytest
import trio
from kio.index import load_request_schema, load_response_schema
from kio.serial import entity_reader, entity_writer

from kafka_client.testing import Api, FakeCluster, RawClient, encode_batch, open_fake_cluster

NOW_MS = 1_700_000_000_000


def make_batch(values: Sequence[bytes], **members: Any) -> bytes:
    """`encode_batch` of a fixed time."""
    return encode_batch(values, **{"timestamp_ms": NOW_MS, **members})


class Answer:
    """One partition's part of a Produce answer."""

    def __init__(self, part: object) -> None:
        self.code = int(part.error_code.value)  # type: ignore[attr-defined]  # kio's class
        self.base_offset: int = part.base_offset  # type: ignore[attr-defined]  # kio's class
        self.part = part


class KioClient(RawClient):
    """A raw client that speaks with kio's own encoder and gives kio's own classes."""

    def __init__(self, cluster: FakeCluster, stream: trio.abc.HalfCloseableStream) -> None:
        super().__init__(stream)
        self.cluster = cluster

    def request(self, api: Api, version: int, **members: object) -> bytes:
        """A request's frame, its length included."""
        schema = load_request_schema(api, version)
        self.correlation_id += 1
        header = struct.pack(">hhih", api, version, self.correlation_id, 3) + b"raw" + b"\0" * schema.__flexible__
        body = io.BytesIO()
        entity_writer(schema)(body, schema(**members))
        return struct.pack(">i", len(header) + len(body.getvalue())) + header + body.getvalue()

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


Connect = Callable[..., Awaitable[KioClient]]


@pytest.fixture
async def cluster() -> AsyncIterator[FakeCluster]:
    """Two brokers; topic events with two partitions, the first led by broker 1, the second by 2."""
    async with open_fake_cluster(brokers=2, topics={"events": 2}, clock=lambda: NOW_MS / 1000) as cluster:
        yield cluster


@pytest.fixture
async def connect(cluster: FakeCluster) -> AsyncIterator[Connect]:
    """``await connect(broker=1)``: a raw client."""
    async with AsyncExitStack() as stack:

        async def open_raw_client(broker: int = 1) -> KioClient:
            stream = await cluster.connector(f"fake-{broker}", 9092)
            stack.push_async_callback(trio.aclose_forcefully, stream)
            return KioClient(cluster, stream)

        yield open_raw_client


@pytest.fixture
async def client(connect: Connect) -> KioClient:
    """A raw client of broker 1."""
    return await connect()


@pytest.fixture
def batch() -> Callable[..., bytes]:
    """`make_batch`."""
    return make_batch
