"""Our server alone: the lane under Hypercorn on Trio with an application that answers at once.

Run as ``python -m tests.bench.http.floor PORT [armed]``. ``armed``: the answer is found inside the request nursery,
with a deadline, as every request of the collector's is; otherwise the application is the one that uvicorn gets.
"""

import signal
import sys

import trio

from collector.config import Config, HttpConfig
from collector.ingest.nursery import EXTENSION
from collector.web.asgi_types import AsgiApp, Receive, Scope, Send
from collector.web.connections import ConnectionLimits
from collector.web.listeners import open_listener
from collector.web.server import serve_http
from tests.bench.peers.apps import OK, OK_BODY, floor, read_body

__all__ = ["armed", "main"]

#: As ``enqueue_s`` by default.
_DEADLINE_S = 4.0


async def _find_answer() -> None:  # noqa: ASYNC910  # nothing to wait for is the purpose
    """What the nursery runs."""


async def armed(scope: Scope, receive: Receive, send: Send) -> None:
    """As `floor`, in the request nursery of the connection."""
    if scope["type"] != "http":
        await floor(scope, receive, send)
        return
    await read_body(receive)
    await scope["extensions"][EXTENSION].run(trio.current_time() + _DEADLINE_S, _find_answer, _find_answer)
    await send(OK)
    await send(OK_BODY)


async def serve(app: AsgiApp, port: int) -> None:
    """Serve until SIGTERM. On cancellation: connections are closed."""
    config = Config(http=HttpConfig(bind=f"127.0.0.1:{port}", server="lane"))
    listener = await open_listener(config.http)

    async def shutdown() -> None:
        with trio.open_signal_receiver(signal.SIGTERM) as received:
            async for _ in received:
                return

    await serve_http(app, config, listener, ConnectionLimits(config.limits.connections), shutdown=shutdown)


def main() -> None:
    """Do what the arguments say."""
    port, *words = sys.argv[1:]
    trio.run(serve, armed if "armed" in words else floor, int(port))


if __name__ == "__main__":
    main()
