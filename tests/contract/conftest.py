"""Hypercorn as it comes, and as we run it: two servers for the same small applications.

Each hazard is first shown on the untouched server. If such a test fails, Hypercorn has changed: look at the cure in
`collector.web.stock`, and whether it is still needed and still fits.
"""

import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from typing import Any

import hypercorn.protocol.h2 as hypercorn_http2
import hypercorn.protocol.h11 as hypercorn_http1
import hypercorn.trio
import hypercorn.trio.run as hypercorn_run
import pytest
import trio
import trio.testing
from hypercorn.config import Config as HypercornConfig

from collector.config import Config
from collector.web.asgi_types import AsgiApp
from collector.web.connections import ConnectionLimits
from collector.web.listeners import open_listener
from collector.web.server import serve_http

Serve = Callable[..., Any]

#: Hypercorn's own classes, where our seam looks for them.
PLACES = ((hypercorn_run, "TCPServer"), (hypercorn_http1, "WSStream"), (hypercorn_http2, "WSStream"))
ORIGINALS = [vars(module)[name] for module, name in PLACES]


@contextmanager
def untouched() -> Iterator[None]:
    """Hypercorn's own classes back in their places."""
    touched = [vars(module)[name] for module, name in PLACES]
    for (module, name), kind in zip(PLACES, ORIGINALS, strict=True):
        vars(module)[name] = kind
    try:
        yield
    finally:
        for (module, name), kind in zip(PLACES, touched, strict=True):
            vars(module)[name] = kind


class Server:
    """A running server: where it listens, how many tasks it has, how to end it."""

    def __init__(self, port: int, nursery: trio.Nursery, ended: trio.Event, shutdown: trio.Event) -> None:
        self.port = port
        self.nursery = nursery
        self.ended = ended
        self.shutdown = shutdown
        self.idle_tasks = 0

    def tasks(self) -> int:
        """All tasks below the server."""

        def count(nursery: trio.Nursery) -> int:
            return sum(1 + sum(map(count, task.child_nurseries)) for task in nursery.child_tasks)

        return count(self.nursery)

    def left(self) -> int:
        """Tasks beyond those that an idle server has."""
        return self.tasks() - self.idle_tasks

    async def connect(self, *, receive_buffer: int | None = None) -> trio.SocketStream:
        sock = trio.socket.socket()
        if receive_buffer is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        try:
            await sock.connect(("127.0.0.1", self.port))
        except OSError:
            sock.close()
            raise
        return trio.SocketStream(sock)

    async def wait_left(self, number: int, seconds: float) -> bool:
        """Whether the tasks beyond the idle ones come down to ``number`` within ``seconds``."""
        with trio.move_on_after(seconds):  # noqa: ASYNC912  # the loop waits
            while self.left() > number:  # noqa: ASYNC110  # tasks of somebody else's have no event
                await trio.sleep(0.02)
        return self.left() <= number  # noqa: ASYNC910  # the loop waits


@asynccontextmanager
async def _running(port: int, serve: Callable[..., Awaitable[None]]) -> AsyncIterator[Server]:
    ended, shutdown = trio.Event(), trio.Event()

    async def run(*, task_status: trio.TaskStatus[list[str]]) -> None:  # noqa: ASYNC128
        await serve(shutdown.wait, task_status)
        ended.set()

    async with trio.open_nursery() as nursery:
        await nursery.start(run)
        server = Server(port, nursery, ended, shutdown)
        await trio.testing.wait_all_tasks_blocked(0.02)
        server.idle_tasks = server.tasks()
        yield server
        nursery.cancel_scope.cancel(reason="the test is over")


@pytest.fixture
def stock() -> Serve:
    """``async with stock(app, keep_alive_timeout=…) as server``: Hypercorn, untouched but for its own settings."""

    @asynccontextmanager
    async def serve(app: AsgiApp, listener: socket.socket | None = None, **settings: Any) -> AsyncIterator[Server]:
        listener = listener or await open_listener(replace(Config().http, bind="127.0.0.1:0", send_timeout_s=600))
        port = listener.getsockname()[1]
        config = HypercornConfig()
        config.bind = [f"fd://{listener.detach()}"]
        config.errorlog = None
        for name, value in settings.items():
            setattr(config, name, value)

        async def run(shutdown: Callable[[], Awaitable[None]], task_status: trio.TaskStatus[list[str]]) -> None:  # noqa: ASYNC128
            await hypercorn.trio.serve(app, config, shutdown_trigger=shutdown, task_status=task_status, mode="asgi")

        with untouched():
            async with _running(port, run) as server:
                yield server

    return serve


@pytest.fixture(params=["lane", "stock"])
def ours(request: pytest.FixtureRequest) -> Serve:
    """``async with ours(app, config) as server``: the same Hypercorn as `collector.web.server` runs it, both ways."""

    @asynccontextmanager
    async def serve(app: AsgiApp, config: Config) -> AsyncIterator[Server]:
        config = replace(config, http=replace(config.http, server=request.param))
        listener = await open_listener(config.http)
        port = listener.getsockname()[1]
        limits = ConnectionLimits(config.limits.connections)

        async def run(shutdown: Callable[[], Awaitable[None]], task_status: trio.TaskStatus[list[str]]) -> None:  # noqa: ASYNC128
            await serve_http(app, config, listener, limits, shutdown=shutdown, task_status=task_status)

        async with _running(port, run) as server:
            server.limits = limits  # type: ignore[attr-defined]  # for the tests of this one
            yield server

    return serve
