"""A bare HTTP/1.1 client for load and for bad manners: what is sent is exactly what the caller wrote.

Owns: one keep-alive connection, the reading of answers, the clock of each. Refuses to know: retries, redirects, what
is in a body. Nothing here is validated: a test must be able to send nonsense.
"""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import trio

__all__ = ["HttpConnection", "NoAnswer", "Reply", "open_http"]


class NoAnswer(Exception):
    """The connection ended before an answer was complete; ``received`` is what came."""

    def __init__(self, received: bytes) -> None:
        super().__init__(f"the connection ended after {len(received)} bytes of an answer: {received[:200]!r}")
        self.received = received


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """One answer. Names of headers are in small letters; ``seconds`` from the first byte sent to the last one read."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    seconds: float


@dataclass(slots=True)
class HttpConnection:
    """One connection; requests one after the other, or pipelined with `send` and `read_reply`."""

    stream: trio.SocketStream
    host: str
    _buffer: bytearray = field(default_factory=bytearray)

    async def request(
        self, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> Reply:
        """Send one request and read its answer.

        Raises:
            NoAnswer: The connection ended first.

        On cancellation: the connection cannot be used any more.
        """
        lines = [f"{method} {path} HTTP/1.1", f"Host: {self.host}"]
        lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
        if body or method != "GET":
            lines.append(f"Content-Length: {len(body)}")
        return await self.exchange("\r\n".join(lines).encode() + b"\r\n\r\n" + body)

    async def exchange(self, sent: bytes) -> Reply:
        """Send these bytes and read one answer. Raises and is cancelled as `request`."""
        started = trio.current_time()
        try:
            await self.stream.send_all(sent)
        except trio.BrokenResourceError:
            pass  # who closes early may have answered before
        return await self.read_reply(started)

    async def read_reply(self, started: float | None = None) -> Reply:
        """Read one answer. Raises and is cancelled as `request`."""
        started = trio.current_time() if started is None else started
        head = await self._read_until(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        pairs = (line.partition(":") for line in lines if line)
        headers = {name.strip().lower(): value.strip() for name, _, value in pairs}
        status = int(first.split(" ")[1])
        if headers.get("transfer-encoding") == "chunked":
            body = await self._read_chunks()
        else:
            body = await self._read_exactly(int(headers.get("content-length", "0")))
        return Reply(status=status, headers=headers, body=body, seconds=trio.current_time() - started)

    async def _more(self) -> None:
        try:
            chunk = await self.stream.receive_some(65536)
        except trio.BrokenResourceError as error:
            raise NoAnswer(bytes(self._buffer)) from error
        if not chunk:
            raise NoAnswer(bytes(self._buffer))
        self._buffer += chunk

    async def _read_until(self, end: bytes) -> bytes:
        await trio.lowlevel.checkpoint()
        while (at := self._buffer.find(end)) < 0:
            await self._more()
        found = bytes(self._buffer[: at + len(end)])
        del self._buffer[: at + len(end)]
        return found

    async def _read_exactly(self, count: int) -> bytes:
        await trio.lowlevel.checkpoint()
        while len(self._buffer) < count:
            await self._more()
        found = bytes(self._buffer[:count])
        del self._buffer[:count]
        return found

    async def _read_chunks(self) -> bytes:
        body = b""
        while size := int(await self._read_until(b"\r\n"), 16):
            body += await self._read_exactly(size)
            await self._read_exactly(2)
        await self._read_until(b"\r\n")
        return body


@asynccontextmanager
async def open_http(url: str) -> AsyncIterator[HttpConnection]:
    """Connect to ``http://host:port`` or ``host:port`` for as long as the block lasts.

    On cancellation: the connection is closed.
    """
    address = url.removeprefix("http://").rstrip("/")
    host, _, port = address.rpartition(":")
    async with await trio.open_tcp_stream(host.strip("[]"), int(port)) as stream:
        yield HttpConnection(stream, address)
