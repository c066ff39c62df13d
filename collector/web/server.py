"""Serving HTTP: Hypercorn, with a connection class of ours in it, from the listening socket to the end of the drain.

Owns: Hypercorn's configuration, which connection class it starts, when it ends. Refuses to know: what the application
does, and how a connection is served (`web.lane`, `web.stock`).

Hypercorn is a child of ours: we make the socket, own the signals and say when it ends. What it does with listeners, and
what is done about it:

- It closes its listener with connections in the kernel's queue, which are reset, and 1 ms later those that it has just
  accepted and that are about to send: `web.listeners.stop_listening`.
- It accepts one connection in a turn of the loop. Where turns are long, under overload, who waits in the kernel's queue
  would wait beyond every deadline of ours, and nginx would say 504: they are answered 503 there (`_mind_the_queue`).
"""

import logging
import socket
from collections.abc import Awaitable, Callable
from importlib.metadata import version
from typing import Literal, NoReturn, cast

import hypercorn.trio
import trio
from hypercorn.config import Config as HypercornConfig
from hypercorn.typing import ASGIFramework

from collector.config import Config
from collector.deadlines import DeadlineChain
from collector.log import get_logger
from collector.web.asgi_types import AsgiApp
from collector.web.connections import ConnectionLimits
from collector.web.lane.lane import Lane
from collector.web.listeners import refuse_waiting, stop_listening
from collector.web.stock import CONNECTION_ATTRIBUTE, LIMITS_ATTRIBUTE, Connection, install, lane_fits
from collector.web.tls import make_server_context

__all__ = ["LOOK_S", "hypercorn_config", "serve_http", "server_for"]

log = get_logger("server")

#: After the listener has closed: for the first request of those who connected just before. Proxies send it at once.
FIRST_REQUEST_S = 0.25

#: How often the kernel's queue of connections is looked at.
LOOK_S = 0.05


def server_for(config: Config) -> Literal["lane", "stock"]:
    """Which of the two serves: the configured one, or the stock server where this Hypercorn does not start the lane.

    Raises:
        RuntimeError: this Hypercorn is not the one that the stock server was written for, either.
    """
    install()
    if config.http.server == "lane" and lane_fits():
        return "lane"
    return "stock"


def hypercorn_config(config: Config, listener: socket.socket) -> HypercornConfig:
    """Hypercorn's configuration; every number of it comes from the chain of deadlines. It takes the listener over."""
    chain = DeadlineChain.from_config(config)
    settings = HypercornConfig()
    settings.bind = [f"fd://{listener.detach()}"]
    settings.backlog = config.http.backlog
    settings.graceful_timeout = chain.graceful_timeout_s
    settings.keep_alive_timeout = chain.server_idle_timeout_s
    settings.keep_alive_max_requests = chain.server_keepalive_requests
    settings.read_timeout = None
    settings.websocket_max_message_size = config.limits.websocket_message_bytes
    settings.websocket_ping_interval = config.http.ping_s
    settings.include_server_header = False
    settings.accesslog = None
    # Its own "Running on …" says less than our "ready"; errors of the application never reach it.
    settings.errorlog = logging.getLogger("hypercorn.collector")
    settings.errorlog.setLevel(logging.WARNING)
    return settings


async def serve_http(  # noqa: ASYNC128
    app: AsgiApp,
    config: Config,
    listener: socket.socket,
    limits: ConnectionLimits,
    *,
    shutdown: Callable[[], Awaitable[None]],
    task_status: trio.TaskStatus[list[str]] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve until ``shutdown()`` returns; then accept no more, and give what is in work ``drain_s``.

    On cancellation: connections are closed, requests in work are cancelled; never later than TCP_USER_TIMEOUT.
    """
    server = server_for(config)
    if server != config.http.server:
        log.error(
            "this version of Hypercorn does not start the lane; the stock server serves", version=version("hypercorn")
        )
    tls = make_server_context(config.http)
    descriptor = listener.fileno()
    settings = hypercorn_config(config, listener)
    # The same number, which Hypercorn closes: this object never does.
    queue = socket.socket(fileno=descriptor)
    queue.setblocking(False)
    lane = Lane(app, config, limits, queue, tls) if server == "lane" else None
    setattr(settings, LIMITS_ATTRIBUTE, limits)
    if lane is None and tls is not None:
        # These make it speak TLS; the context is ours.
        settings.certfile = settings.keyfile = config.http.ssl_certfile
        settings.create_ssl_context = lambda: tls  # type: ignore[method-assign]  # of this one object
    setattr(settings, CONNECTION_ATTRIBUTE, Connection if lane is None else lane.connect)

    async def until_nobody_connects() -> None:
        await shutdown()
        await stop_listening(descriptor)
        await trio.sleep(FIRST_REQUEST_S)

    async def until_shutdown() -> None:
        await shutdown()
        # Hypercorn cancels its tasks when the graceful timeout is over, but not its shielded sends.
        deadline = trio.current_time() + settings.graceful_timeout
        await trio.sleep_until(deadline)
        limits.abort_all()

    async def drain(lane: Lane) -> None:
        await shutdown()
        await lane.drain()

    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(until_shutdown, name="server: the end of the drain")
            if lane is not None:
                nursery.start_soon(lane.run, name="server: the lane")
                nursery.start_soon(drain, lane, name="server: the lane's idle connections")
            nursery.start_soon(_mind_the_queue, queue, limits, tls is None, name="server: the kernel's queue")
            await hypercorn.trio.serve(
                cast("ASGIFramework", app),
                settings,
                shutdown_trigger=until_nobody_connects,
                task_status=task_status,
                mode="asgi",
            )
            nursery.cancel_scope.cancel(reason="the server has ended")
    finally:
        queue.detach()


async def _mind_the_queue(listener: socket.socket, limits: ConnectionLimits, cleartext: bool) -> NoReturn:
    """While the loop is behind, refuse who waits to be accepted. On cancellation: they wait on."""
    while True:
        if limits.behind():
            for size in refuse_waiting(listener, most=limits.bound, cleartext=cleartext):
                limits.turned_away_total += 1
                limits.refused(size)
        await trio.sleep(LOOK_S)
