# flake8: noqa: ASYNC910, ASYNC912
# Loops and branches that wait, as every test here does.
"""The lane around small applications, on real sockets."""

import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import trio

from collector.config import Config, HttpConfig, LimitsConfig, ShutdownConfig
from collector.web.asgi_types import AsgiApp, Message, Receive, Scope, Send
from collector.web.connections import ConnectionLimits
from collector.web.listeners import open_listener
from collector.web.server import serve_http

CONFIG = Config(http=HttpConfig(bind="127.0.0.1:0", send_timeout_s=1.0), shutdown=ShutdownConfig(drain_s=3.0))


class Client:
    """One connection to the lane that reads what comes, as it comes."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream
        self.read = b""

    async def say(self, data: bytes) -> None:
        await self.stream.send_all(data)

    async def hear(self, until: bytes) -> bytes:
        """Everything up to and with ``until``."""
        with trio.fail_after(3):
            while until not in self.read:
                data = await self.stream.receive_some()
                assert data, f"the connection ended after {self.read!r}"
                self.read += data
        heard, _, self.read = self.read.partition(until)
        return heard + until

    async def hear_answer(self, body: bytes = b"ok") -> bytes:
        """One answer that has a Content-Length; returns its head."""
        head = await self.hear(b"\r\n\r\n")
        assert f"content-length: {len(body)}\r\n".encode() in head.lower(), head
        assert await self.hear(body) == body
        return head

    async def hear_end(self) -> bytes:
        """Everything up to the end of the connection."""
        with trio.fail_after(5):
            async for data in self.stream:
                self.read += data
        heard, self.read = self.read, b""
        return heard

    async def aclose(self) -> None:
        await self.stream.aclose()


@dataclass
class Serving:
    """A running lane."""

    port: int
    limits: ConnectionLimits
    nursery: trio.Nursery
    stop: trio.Event
    ended: trio.Event
    idle_tasks: int = 0
    clients: list[Client] = field(default_factory=list)

    async def connect(self, *, receive_buffer: int | None = None) -> Client:
        sock = trio.socket.socket()
        if receive_buffer is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        await sock.connect(("127.0.0.1", self.port))
        self.clients.append(Client(trio.SocketStream(sock)))
        return self.clients[-1]

    def tasks(self) -> int:
        def count(nursery: trio.Nursery) -> int:
            return sum(1 + sum(map(count, task.child_nurseries)) for task in nursery.child_tasks)

        return count(self.nursery)

    async def wait_idle(self, within_s: float = 3.0) -> None:
        """Nothing is left of any connection: neither a task nor a place among the connections."""
        with trio.fail_after(within_s):
            while self.limits.open or self.tasks() > self.idle_tasks:  # noqa: ASYNC110  # somebody else's tasks
                await trio.sleep(0.01)


def with_lifespan(app: AsgiApp) -> AsgiApp:
    async def both(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            for phase in ("startup", "shutdown"):
                await receive()
                await send({"type": f"lifespan.{phase}.complete"})
            return
        await app(scope, receive, send)

    return both


@asynccontextmanager
async def serving(
    app: AsgiApp, *, http: dict[str, Any] | None = None, limits: dict[str, Any] | None = None, drain_s: float = 3.0
) -> AsyncIterator[Serving]:
    config = replace(
        CONFIG,
        http=replace(CONFIG.http, **(http or {})),
        limits=replace(LimitsConfig(), **(limits or {})),
        shutdown=ShutdownConfig(drain_s=drain_s),
    )
    listener = await open_listener(config.http)
    port = listener.getsockname()[1]
    bound = ConnectionLimits(config.limits.connections)
    stop, ended = trio.Event(), trio.Event()
    async with trio.open_nursery() as nursery:

        async def serve(*, task_status: trio.TaskStatus[list[str]]) -> None:  # noqa: ASYNC128  # what it serves reports
            await serve_http(with_lifespan(app), config, listener, bound, shutdown=stop.wait, task_status=task_status)
            ended.set()

        await nursery.start(serve)
        found = Serving(port, bound, nursery, stop, ended)
        await trio.testing.wait_all_tasks_blocked(0.02)
        found.idle_tasks = found.tasks()
        yield found
        for client in found.clients:
            await trio.aclose_forcefully(client.stream)
        nursery.cancel_scope.cancel(reason="the test is over")


@pytest.fixture
def lane() -> Callable[..., Any]:
    """``async with lane(app, http={…}, limits={…}) as serving``."""
    return serving


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers with the body that it was sent, or ``ok``."""
    body = b""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        body += message["body"]
        if not message["more_body"]:
            break
    await send(start(len(body or b"ok")))
    await send({"type": "http.response.body", "body": body or b"ok"})


def start(length: int | None = 2, status: int = 200, *headers: tuple[bytes, bytes]) -> Message:
    fields = [*headers] if length is None else [(b"content-length", str(length).encode()), *headers]
    return {"type": "http.response.start", "status": status, "headers": fields}


def ok(body: bytes = b"ok", *, more: bool = False) -> Message:
    return {"type": "http.response.body", "body": body, "more_body": more}
