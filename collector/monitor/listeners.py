"""The monitor's own listeners: stock Hypercorn, public interface only.

Owns: the sockets of ``[admin]`` and ``[metrics]``. Refuses to know: what the applications answer.

Two of Hypercorn's hazards on trio (design §7) would let a careless visitor of the admin port hold up the shutdown of
the whole process, so both are cured here too: it shields its sends, so the listening socket carries TCP_USER_TIMEOUT,
which accepted sockets inherit; and a request whose body nobody reads leaks its connection, so one task swallows what
comes until the answer is out, and keeps it for whoever reads it.
"""

import socket
from collections import deque
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, TypeAlias, cast

import trio
from hypercorn.config import Config as HypercornConfig
from hypercorn.trio import serve
from hypercorn.typing import ASGIFramework

__all__ = ["address_of", "bind_listener", "serve_app"]

USER_TIMEOUT_S = 5.0
"""A visitor that does not read for this long is dropped; also what bounds the close of the monitor."""
BACKLOG = 64
BODY_KEPT_BYTES = 8 * 1024 * 1024
"""Twice what any of our routes takes."""
IDLE_TIMEOUT_S = 75.0

_Message: TypeAlias = MutableMapping[str, Any]
_Receive: TypeAlias = Callable[[], Awaitable[_Message]]
_Send: TypeAlias = Callable[[_Message], Awaitable[None]]
_App: TypeAlias = Callable[[_Message, _Receive, _Send], Awaitable[None]]


def bind_listener(key: str, bind: str) -> socket.socket:
    """A listening socket for ``host:port`` (``[::1]:port``, port 0 = any).

    Args:
        key: the configuration key, for the message.
        bind: the address.

    Raises:
        OSError: it cannot be bound; the message names key and address.
    """
    host, _, port = bind.rpartition(":")
    host = host.removeprefix("[").removesuffix("]") or "127.0.0.1"
    try:
        infos = socket.getaddrinfo(host, int(port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, address = infos[0]
        listener = socket.socket(family, kind, protocol)
    except (OSError, ValueError) as error:
        raise OSError(f"{key}: cannot listen on {bind}: {error}") from error
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(USER_TIMEOUT_S * 1000))
        listener.bind(address)
        listener.listen(BACKLOG)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        raise OSError(error.errno, f"{key}: cannot listen on {bind}: {error.strerror}") from error
    return listener


def address_of(listener: socket.socket) -> str:
    """``http://host:port`` of a bound socket; a wildcard is shown as the loopback address of its family."""
    host, port = listener.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


async def serve_app(app: _App, listener: socket.socket) -> None:
    """Serve ``app`` on a duplicate of ``listener`` until cancelled, so that it can be started again after a failure.

    On cancellation: connections are closed, at the latest after `USER_TIMEOUT_S`; the listener stays open.
    """
    config = HypercornConfig()
    config.bind = [f"fd://{listener.dup().detach()}"]
    config.backlog = BACKLOG
    config.keep_alive_timeout = IDLE_TIMEOUT_S
    config.graceful_timeout = 0.0
    config.include_server_header = False
    config.accesslog = None
    config.errorlog = None
    await serve(cast("ASGIFramework", _swallowing(app)), config, mode="asgi")


def _swallowing(app: _App) -> _App:
    async def swallowed(scope: _Message, receive: _Receive, send: _Send) -> None:
        if scope["type"] != "http":
            await app(scope, receive, send)
            return
        body = _Body()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(body.swallow, receive, name="admin: swallows the request's body")
            await app(scope, body.receive, send)
            nursery.cancel_scope.cancel(reason="the answer is out")

    return swallowed


class _Body:
    """A request's body on its way to the application, which need not read it; no more than `BODY_KEPT_BYTES` wait."""

    def __init__(self) -> None:
        self._kept: deque[_Message] = deque()
        self._bytes = 0
        self._news = trio.Event()

    async def swallow(self, receive: _Receive) -> None:
        """Take what comes until the visitor is gone."""
        while True:
            message = await receive()
            gone = message["type"] == "http.disconnect"
            self._bytes += len(message.get("body", b""))
            if self._bytes > BODY_KEPT_BYTES and not gone:
                # Whoever reads bodies has seen too much of it by then, and wants its end.
                if message.get("more_body", False):
                    continue
                message = {"type": "http.request", "body": b"", "more_body": False}
            self._kept.append(message)
            self._news.set()
            if gone:
                return

    async def receive(self) -> _Message:
        """The application's ``receive``."""
        while not self._kept:
            self._news = trio.Event()
            await self._news.wait()
        await trio.lowlevel.checkpoint()
        return self._kept.popleft()
