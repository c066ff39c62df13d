"""Connections that go on under another protocol, in Hypercorn's own classes.

Owns: how the bytes that were read already come to them, and a transport looks like one of Trio's streams. Refuses to
know: what they do with it.
"""

import trio

from collector.web.lane.request import Request
from collector.web.lane.transport import Transport

__all__ = ["ReplayedStream", "ReplayedTlsStream", "encode_request"]


class _Socket:
    """What Hypercorn and our subclass of its connection use of a stream's socket."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self.family = transport.socket.family

    def getpeername(self) -> object:
        return self._transport.socket.getpeername()

    def getsockname(self) -> object:
        return self._transport.socket.getsockname()

    def close(self) -> None:
        self._transport.abort()


class ReplayedStream:
    """A transport as Hypercorn knows streams; the first bytes that it reads are ``first``."""

    def __init__(self, transport: Transport, first: bytes) -> None:
        self._transport = transport
        self._first = first
        self.socket = _Socket(transport)

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """As `trio.abc.ReceiveStream.receive_some`."""
        first, self._first = self._first, b""
        if first:
            await trio.lowlevel.checkpoint()
            return first
        return await self._transport.receive()

    async def send_all(self, data: bytes) -> None:
        """As `trio.abc.SendStream.send_all`."""
        if self._transport.send_now(bytes(data)):
            await trio.lowlevel.checkpoint()
        else:
            await self._transport.send(b"")

    async def send_eof(self) -> None:
        """As `trio.abc.HalfCloseableStream.send_eof`."""
        self._transport.end()
        await trio.lowlevel.checkpoint()

    async def aclose(self) -> None:
        """As `trio.abc.AsyncResource.aclose`."""
        self._transport.abort()
        await trio.lowlevel.checkpoint()


class ReplayedTlsStream(ReplayedStream):
    """The same, where Hypercorn must see TLS; its handshake is over."""

    def __init__(self, transport: Transport, first: bytes, alpn: str | None) -> None:
        super().__init__(transport, first)
        self.transport_stream = self
        self._alpn = alpn

    async def do_handshake(self) -> None:
        """As `trio.SSLStream.do_handshake`."""
        await trio.lowlevel.checkpoint()

    def selected_alpn_protocol(self) -> str | None:
        """As `trio.SSLStream.selected_alpn_protocol`."""
        return self._alpn


def encode_request(request: Request) -> bytes:
    """The head of a request again, as it was understood."""
    lines = [f"{request.method} ".encode() + request.target + f" HTTP/{request.http_version}\r\n".encode()]
    lines += [b"%b: %b\r\n" % field for field in request.headers]
    return b"".join(lines) + b"\r\n"
