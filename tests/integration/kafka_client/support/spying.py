"""A connector that writes down which version of which message goes where, and loses answers on command.

Owns: real TCP connections, and a look at the frames on them. Refuses to know: what is in the messages.
"""

from collections import deque
from dataclasses import dataclass

import trio

from kafka_client.wire.frames import API_NAMES, FrameSplitter

__all__ = ["Exchange", "Spy", "SpyStream"]

FRAME_MAX_BYTES = 64 * 1024 * 1024


@dataclass(slots=True, kw_only=True)
class Exchange:
    """One request, and its answer once it is there."""

    address: str
    """Of the broker, ``host:port``, as it was asked for."""
    message: str
    version: int
    answer: bytes | None = None
    """Without its length, with its header."""


class Spy:
    """``open_producer(config, connector=spy.connector)``."""

    def __init__(self) -> None:
        self.exchanges: list[Exchange] = []
        """In the order in which they were written."""
        self.to_lose: set[str] = set()
        """Messages whose next answer is lost, with its connection; each name counts once."""
        self.refusing = False
        """No new connection is made."""
        self.moved: dict[str, str] = {}
        """Where an address leads, if not to itself: ``host:port`` to ``host:port``."""

    def __repr__(self) -> str:
        return f"<Spy of {len(self.exchanges)} exchanges>"

    async def connector(self, host: str, port: int) -> "SpyStream":
        """Open a connection that is spied on."""
        if self.refusing:
            await trio.lowlevel.checkpoint()
            raise ConnectionRefusedError("the spy refuses")
        address = f"{host}:{port}"
        to, _, number = self.moved.get(address, address).rpartition(":")
        return SpyStream(await trio.open_tcp_stream(to, int(number)), address, self)

    def versions(self) -> dict[str, set[int]]:
        """The versions that each message was written in."""
        found: dict[str, set[int]] = {}
        for exchange in self.exchanges:
            found.setdefault(exchange.message, set()).add(exchange.version)
        return found


class SpyStream(trio.abc.HalfCloseableStream):
    """One connection."""

    def __init__(self, stream: trio.SocketStream, address: str, spy: Spy) -> None:
        self._stream = stream
        self._address = address
        self._spy = spy
        self._requests = FrameSplitter(FRAME_MAX_BYTES)
        self._answers = FrameSplitter(FRAME_MAX_BYTES)
        self._waiting: deque[Exchange] = deque()

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        for frame in self._requests.feed(bytes(data)):
            name = API_NAMES[int.from_bytes(frame[:2], "big")]
            exchange = Exchange(address=self._address, message=name, version=int.from_bytes(frame[2:4], "big"))
            self._spy.exchanges.append(exchange)
            self._waiting.append(exchange)
        await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        data = bytes(await self._stream.receive_some(max_bytes))
        for frame in self._answers.feed(data):
            exchange = self._waiting.popleft()
            exchange.answer = bytes(frame)
            if exchange.message in self._spy.to_lose:
                self._spy.to_lose.remove(exchange.message)
                await self._stream.aclose()
                raise trio.BrokenResourceError("the spy lost an answer")
        return data

    async def send_eof(self) -> None:
        await self._stream.send_eof()

    async def aclose(self) -> None:
        await self._stream.aclose()
