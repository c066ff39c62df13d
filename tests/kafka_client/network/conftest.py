"""A peer under the test's control at the other end of memory streams."""

import struct
from collections.abc import Awaitable, Callable
from typing import NamedTuple

import pytest
import trio
from trio.testing import memory_stream_pair

from kafka_client.config import ProducerConfig
from kafka_client.wire import api_versions, metadata, produce

WINDOWS = {0: (3, 13), 3: (0, 13), 18: (0, 4), 22: (0, 5)}

MemoryStream = trio.StapledStream[trio.testing.MemorySendStream, trio.testing.MemoryReceiveStream]


class Asked(NamedTuple):
    """One request as the peer got it."""

    api_key: int
    version: int
    correlation_id: int
    body: bytes


class Link:
    """The peer's end of one connection."""

    def __init__(self, stream: MemoryStream) -> None:
        self.stream = stream
        self._buffer = b""

    async def asked(self) -> Asked | None:
        """The next request; None when the client has closed."""
        await trio.lowlevel.checkpoint()
        while len(self._buffer) < 4 or len(self._buffer) < 4 + int.from_bytes(self._buffer[:4]):
            data = await self.stream.receive_some()
            if not data:
                return None
            self._buffer += data
        size = int.from_bytes(self._buffer[:4])
        frame, self._buffer = self._buffer[4 : 4 + size], self._buffer[4 + size :]
        api_key, version, correlation_id, name_length = struct.unpack_from(">hhih", frame)
        return Asked(api_key, version, correlation_id, frame[10 + name_length :])

    async def expect(self) -> Asked:
        found = await self.asked()
        assert found is not None, "the client has closed the connection"
        return found

    async def answer(self, correlation_id: int, body: bytes, *, flexible: bool = True) -> None:
        """``flexible``: the header has tagged fields, as every answer but ApiVersions'."""
        await self.stream.send_all(self.frame(correlation_id, body, flexible=flexible))

    @staticmethod
    def frame(correlation_id: int, body: bytes, *, flexible: bool = True) -> bytes:
        content = struct.pack(">i", correlation_id) + (b"\0" if flexible else b"") + body
        return struct.pack(">i", len(content)) + content

    async def close(self) -> None:
        await self.stream.aclose()


def versions_body(version: int, windows: dict[int, tuple[int, int]] = WINDOWS, error_code: int = 0) -> bytes:
    rows = [struct.pack(">hhh", key, low, high) for key, (low, high) in windows.items()]
    head = struct.pack(">h", error_code)
    if version >= 3:
        return head + bytes((len(rows) + 1,)) + b"".join(row + b"\0" for row in rows) + bytes(4) + b"\0"
    return head + struct.pack(">i", len(rows)) + b"".join(rows) + (bytes(4) if version else b"")


Greeting = Callable[[Link], Awaitable[None]]


async def greet(link: Link) -> None:
    """Answer ApiVersions as Apache Kafka does."""
    asked = await link.expect()
    assert asked.api_key == api_versions.API_KEY
    await link.answer(asked.correlation_id, versions_body(asked.version), flexible=False)


class Peer:
    """Pass `connector` to the client; `links` are its connections, greeted."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self.links: list[Link] = []
        self.greeting: Greeting = greet
        self._nursery = nursery

    async def connector(self, host: str, port: int) -> trio.abc.HalfCloseableStream:
        await trio.lowlevel.checkpoint()
        ours, theirs = memory_stream_pair()
        link = Link(theirs)
        self.links.append(link)
        self._nursery.start_soon(self.greeting, link)
        return ours

    @property
    def link(self) -> Link:
        """The newest connection."""
        return self.links[-1]


@pytest.fixture
def peer(nursery: trio.Nursery) -> Peer:
    return Peer(nursery)


@pytest.fixture
def config() -> ProducerConfig:
    return ProducerConfig(bootstrap_servers="broker:9092", client_id="test")


EMPTY_METADATA = bytes(4) + b"\1" + b"\0" + bytes(4) + b"\1" + b"\0\0" + b"\0"
METADATA = (metadata, metadata.MetadataRequest(topics=[]))
NO_BATCHES = produce.encode_request(produce.ProduceRequest(batches=[], timeout_ms=1), 13)


@pytest.fixture
def make_versions_body() -> Callable[..., bytes]:
    """`versions_body`."""
    return versions_body


@pytest.fixture
def empty_metadata() -> bytes:
    """The body of a Metadata v13 answer with nothing in it."""
    return EMPTY_METADATA
