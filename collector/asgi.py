"""The application for any Trio ASGI server: ``hypercorn -k trio collector.asgi:app``.

Owns: the lifespan that opens the rooms, as `collector.run` does for our own command. Refuses to know: sockets and
signals, which are the server's here.

Invariant: a bug in the producer ends the process, whatever the server thinks of failing lifespans: it is reported as
``lifespan.shutdown.failed``, which Hypercorn raises.

Non-obvious: what only a server of ours can do is missing here. A client that does not read is not dropped
(TCP_USER_TIMEOUT needs our socket), there is no delay before draining (the server does not tell), and Hypercorn's own
defaults hold: set ``--graceful-timeout`` above ``enqueue_s`` (4 s) and ``--keep-alive`` above nginx's. `collector
serve` has it all.
"""

import os

import trio

from collector.config_load import ConfigFault, check_servable, load_config
from collector.lifecycle import Phase
from collector.log import configure_logging, get_logger
from collector.monitor import open_monitor
from collector.rooms import open_rooms
from collector.run import counts
from collector.web.app import make_app
from collector.web.asgi_types import AsgiApp, Receive, Scope, Send
from kafka_client.errors import ConfigError

__all__ = ["app"]

STATE_KEY = "collector.application"

log = get_logger("asgi")


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """The ASGI callable. The server must support lifespan state (ASGI 2.0 lifespan, as Hypercorn does)."""
    if scope["type"] == "lifespan":
        await _lifespan(scope, receive, send)
        return
    inner: AsgiApp = scope["state"][STATE_KEY]
    await inner(scope, receive, send)


async def _lifespan(scope: Scope, receive: Receive, send: Send) -> None:
    """Open the rooms, let the server serve, close them.

    On cancellation: what is queued is withdrawn, sealed batches are unknown.
    """
    await receive()  # lifespan.startup
    try:
        config = load_config(os.environ.get("COLLECTOR_CONFIG"), os.environ)
        check_servable(config)
        configure_logging(config.log)
        async with open_monitor(config) as monitor:
            async with open_rooms(config, monitor) as rooms:
                services = rooms.services
                scope["state"][STATE_KEY] = make_app(services)
                services.lifecycle.advance(Phase.SERVING)
                await send({"type": "lifespan.startup.complete"})
                log.info("ready", topic=config.kafka.topic, node=services.node.name)
                await receive()  # lifespan.shutdown
                services.lifecycle.advance(Phase.DRAINING)
    except (ConfigFault, ConfigError, OSError) as error:
        await _failed(send, "startup", str(error))  # noqa: ASYNC120  # shielded
        raise
    except Exception as error:  # the rim of this command: the server would go on serving without a producer
        log.exception("stopped by an error")
        await _failed(send, "shutdown", f"{type(error).__name__}: {error}")  # noqa: ASYNC120  # shielded
        raise
    log.info("stopped", **counts(rooms))
    await send({"type": "lifespan.shutdown.complete"})


async def _failed(send: Send, phase: str, message: str) -> None:
    """Tell the server, which raises it: that is how a lifespan ends a process.

    On cancellation: the server is told all the same.
    """
    # Shielded, because the server is told while it may be cancelling us; its answer is immediate.
    with trio.CancelScope(shield=True, deadline=trio.current_time() + 1.0):
        await send({"type": f"lifespan.{phase}.failed", "message": message})
