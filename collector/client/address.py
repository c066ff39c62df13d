"""Where a websocket is: its URL taken apart, and the byte stream to it.

Owns: connecting, with TLS where the URL says ``wss``. Refuses to know: the websocket protocol.
"""

import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeAlias
from urllib.parse import urlsplit

import trio

from .outcome import Unreachable

__all__ = ["Connect", "WebsocketAddress"]

Connect: TypeAlias = Callable[[], Awaitable[trio.abc.Stream]]


@dataclass(frozen=True, slots=True, kw_only=True)
class WebsocketAddress:
    """A websocket URL. ``host`` is as the Host header has it, ``path`` with its query."""

    name: str
    port: int
    tls: bool
    host: str
    path: str

    @classmethod
    def parse(cls, url: str) -> "WebsocketAddress":
        """Take ``ws://host:port/path?query`` apart. Raises `Unreachable`."""
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:
            parts, port = urlsplit(""), None
        if parts.scheme not in ("ws", "wss") or not parts.hostname:
            raise Unreachable(f"{url!r} is not an address like ws://127.0.0.1:8080/v1/ws")
        tls = parts.scheme == "wss"
        return cls(
            name=parts.hostname,
            port=port if port is not None else 443 if tls else 80,
            tls=tls,
            host=parts.netloc.rpartition("@")[2],
            path=(parts.path or "/") + (f"?{parts.query}" if parts.query else ""),
        )

    async def connect(self) -> trio.abc.Stream:
        """Open the stream. On cancellation: nothing is left open.

        Raises:
            OSError: nobody answers there; may be tried again.
            Unreachable: the certificate is not to be trusted; trying again would not change it.
        """
        if not self.tls:
            return await trio.open_tcp_stream(self.name, self.port)
        stream = await trio.open_ssl_over_tcp_stream(self.name, self.port, https_compatible=True)
        try:
            await stream.do_handshake()
        except trio.BrokenResourceError as error:
            await trio.aclose_forcefully(stream)
            if isinstance(error.__cause__, ssl.SSLCertVerificationError):
                raise Unreachable(f"{self.host}: {error.__cause__}") from error
            raise OSError(f"TLS: {error.__cause__ or error}") from error
        except BaseException:
            await trio.aclose_forcefully(stream)
            raise
        return stream
