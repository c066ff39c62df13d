# flake8: noqa: ASYNC910
# A request costs one checkpoint, where its connection waits for it; more would cost 2 µs each.
"""The lane of one server: what all its connections share, and who looks at them.

Owns: the reactor, the lane clock, the connections, and how they drain. Refuses to know: Hypercorn (`web.stock` has the
seam, `web.server` the listener), what a connection does between its requests.

Draining: idle connections stay open and answer their next request with ``Connection: close``, as long as any request
is in work, and for `IDLE_DRAIN_S` at least: who was just about to send is answered. Then they are closed. A TLS
handshake that has begun is waited for as a head is, for ``head_timeout_s``; a client that has not begun one is idle.
"""

import socket
import ssl
import sys
from math import inf
from typing import Any, NoReturn

import trio

from collector.config import Config
from collector.deadlines import DeadlineChain
from collector.ingest.nursery import GRID_S
from collector.web.asgi_types import AsgiApp
from collector.web.connections import ConnectionLimits
from collector.web.lane.accepting import Accepted
from collector.web.lane.clock import LOOK_S, LaneClock
from collector.web.lane.connection import Connection
from collector.web.lane.handover import ReplayedStream, ReplayedTlsStream
from collector.web.lane.reactor import Reactor
from collector.web.lane.scope import Scopes
from collector.web.lane.tls_transport import TlsTransport
from collector.web.lane.websocket import WebsocketSettings
from collector.web.lane.websockets import Websockets
from collector.web.stock import Connection as StockConnection

__all__ = ["IDLE_DRAIN_S", "Lane"]

#: For how long idle connections are kept when draining begins, where nothing is in work.
IDLE_DRAIN_S = 1.0


class Lane:
    """Serves the connections that Hypercorn accepts.

    Args:
        app: the application.
        limits: who counts them.
        listener: where they come in; Hypercorn accepts on it too, and closes it.
        tls: what clients must speak.
    """

    def __init__(
        self,
        app: AsgiApp,
        config: Config,
        limits: ConnectionLimits,
        listener: socket.socket,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.app = app
        self.config = config
        self.limits = limits
        self.listener = listener
        self.tls = tls
        self.clock = LaneClock()
        self.reactor = Reactor() if sys.platform == "linux" else None
        self.connections: set[Connection] = set()
        settings = WebsocketSettings(
            message_bytes=config.limits.websocket_message_bytes,
            ping_s=config.http.ping_s,
            deflate=config.http.websocket_deflate,
        )
        self.websockets = Websockets(app, settings, self.clock.grid, look_s=LOOK_S)
        self.draining = False
        self._hypercorn: tuple[Any, Any, Any] | None = None
        """Its wrapped application, configuration and context, the same for all connections of a server."""
        self.scopes = Scopes("http" if tls is None else "https")
        self.max_requests = DeadlineChain.from_config(config).server_keepalive_requests

    def __repr__(self) -> str:
        return f"<Lane {len(self.connections)} connections{', draining' if self.draining else ''}>"

    async def run(self) -> NoReturn:
        """What the connections need beside themselves. On cancellation: they are late no more, and read nothing."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self.clock.run, self._look, name="lane: the clock")
                if self.reactor is not None:
                    nursery.start_soon(self.reactor.run, name="lane: the reactor")
        finally:
            if self.reactor is not None:
                self.reactor.close()
        raise AssertionError("the clock ticks for ever")

    def connect(self, app: Any, config: Any, context: Any, state: Any, stream: Any) -> "Accepted":
        """In the place of Hypercorn's connection class: a connection that was just accepted."""
        self._hypercorn = (app, config, context)
        return Accepted(self, dict(state), stream)

    async def serve_stock(self, connection: Connection, first: bytes) -> None:
        """Serve what follows on a connection of ours in Hypercorn's classes; ``first`` is what was read of it already.

        On cancellation: the connection is closed.
        """
        assert self._hypercorn is not None
        app, config, context = self._hypercorn
        transport = connection.transport
        stream: ReplayedStream
        if isinstance(transport, TlsTransport):
            stream = ReplayedTlsStream(transport, first, transport.alpn)
        else:
            stream = ReplayedStream(transport, first)
        await StockConnection(app, config, context, connection.asgi_state, stream).serve()

    def _look(self, now: float) -> None:
        """Let go who is idle or slow. A noted time is up to a grid too old: nobody is late too early."""
        http = self.config.http
        idle_since = now - http.idle_timeout_s - GRID_S
        head_since = now - http.head_timeout_s - GRID_S
        for connection in list(self.connections):
            since = connection.waiting_since
            if since <= idle_since or (since <= head_since and connection.parser.started):
                connection.let_go()
        self.websockets.look(now)

    async def drain(self) -> None:
        """From now on every answer closes its connection; idle connections are closed when nothing is in work.

        On cancellation: idle connections stay open.
        """
        self.draining = True
        await trio.sleep(IDLE_DRAIN_S)
        while self.connections:
            if all(connection.waiting_since < inf for connection in self.connections):
                # Who has come late, or just shaken hands, is about to send.
                idle_since = self.clock.now - IDLE_DRAIN_S
                for connection in list(self.connections):
                    if connection.waiting_since <= idle_since and not connection.begun:
                        connection.let_go()
            await trio.sleep(GRID_S)
