"""The composition root: the nursery tree of a running collector, its signals, and the order in which it ends.

Owns: which room is opened inside which, what a signal does, the exit code, the last line of the log. Refuses to know:
how any of the rooms works.

    run()
     ├ signals            until the very end
     ├[M] monitor         lag probe, sampler, admin listener
     └[S] spool           the writer of this process's file           ┐
        └[P] producer     connections to the brokers                  │ `collector.rooms`
           └[I] ingest    the clock of Kafka's shares; the replay     ┘
              └[H] server    Hypercorn, a task for each connection

The exit goes from the inside out, because the context managers nest: H (no client is waiting any more), I (what is in
work is acknowledged, or goes back to the spool), P (what is sealed gets its grace), S (the producer's end is the end of
each held row), M. Nobody cancels upwards: a bug in a task of the producer's, the spool's or the replay's ends the
process with its traceback.

Leaving: on SIGTERM or SIGINT the process is not ready for ``delay_s`` while it still accepts, and every answer closes
its connection; then the listener closes, websockets are told to go, and what is in work has ``drain_s``: clients
first, the producer what they leave of it. A second
signal skips what is left of the delay, a third one cuts what is in work, and one that comes when no client is waiting
any more ends the producer's grace. Whatever signals come, the exit code and the last line do too.
"""

import math
import signal
import socket
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial

import trio

from collector.brokers import producer_config
from collector.config import Config
from collector.deadlines import CLOSE_LEAST_S
from collector.ingest.ledger import LedgerStatistics
from collector.lifecycle import Phase
from collector.log import get_logger
from collector.monitor import open_monitor
from collector.rooms import Rooms, make_services, open_rooms
from collector.spool.base import SpoolStatistics
from collector.web.app import make_app
from collector.web.connections import ConnectionLimits
from collector.web.listeners import address_of, adopt_listener, open_listener
from collector.web.server import serve_http, server_for
from collector.web.services import Services
from collector.web.websocket.frames import PATH as WEBSOCKET_PATH
from kafka_client.config import Connector

__all__ = [
    "EXIT_DRAINED",
    "EXIT_UNKNOWN",
    "ExitReport",
    "Started",
    "counts",
    "make_services",
    "producer_config",
    "run",
]

log = get_logger("run")

EXIT_DRAINED = 0
EXIT_UNKNOWN = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """What `run` reports when it listens. URLs have no slash at their end; ``ws`` is the whole websocket URL."""

    http: str
    ws: str
    admin: str | None
    services: Services
    counts: Callable[[], dict[str, int]]
    """What the last line of the log would say now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExitReport:
    """How it ended."""

    ledger: LedgerStatistics
    spool: SpoolStatistics | None = None
    volatile: bool = False
    """What is in the spool ends with the process."""
    counts: dict[str, int]
    """Those of the last line of the log."""

    @property
    def code(self) -> int:
        """0: drained; every outcome is known, and what is not in Kafka is on the disk. 3: somebody has to look."""
        lost = self.volatile and self.spool is not None and self.spool.rows
        return EXIT_UNKNOWN if self.ledger.unresolved or lost else EXIT_DRAINED


async def run(  # noqa: ASYNC128  # _run() reports
    config: Config,
    *,
    listener: socket.socket | None = None,
    connector: Connector | None = None,
    stop: trio.Event | None = None,
    signals: bool = True,
    task_status: trio.TaskStatus[Started] = trio.TASK_STATUS_IGNORED,
) -> ExitReport:
    """Run the collector until a signal (or ``stop``) has it leave, drained or not.

    Args:
        listener: accept on this socket of a slot's, which goes on listening afterwards; None: on one of its own, at
            ``[http] bind``. The run closes the object that it was given.
        connector: how the producer reaches brokers; None is TCP.
        stop: leave when this is set, as if a signal had come.
        signals: take SIGTERM and SIGINT; they must be taken in the main thread, by one `run` at a time.

    Raises:
        OSError: an address cannot be bound; the message names the key.
        ConfigError: the configuration cannot work.

    On cancellation: clients are cut off, what is queued is withdrawn, sealed batches are unknown.
    """
    limits = ConnectionLimits(config.limits.connections)
    leaving = _Leaving(trio.Event() if stop is None else stop, limits)
    failure: Exception | None = None
    reports: list[ExitReport] = []
    async with trio.open_nursery() as nursery:
        take_signals = partial(nursery.start, _signals, leaving) if signals else trio.lowlevel.checkpoint
        try:
            reports.append(await _run(config, listener, connector, leaving, limits, take_signals, task_status))
        except Exception as error:
            # The nursery would put it into a group; passed on as it is below.
            failure = error
        nursery.cancel_scope.cancel(reason="the run has ended")
    if failure is not None:
        raise failure
    return reports[0]


async def _run(
    config: Config,
    given: socket.socket | None,
    connector: Connector | None,
    leaving: "_Leaving",
    limits: ConnectionLimits,
    take_signals: Callable[[], Awaitable[object]],
    task_status: trio.TaskStatus[Started],
) -> ExitReport:
    """The rooms, from the first to the last: [M], those of `open_rooms`, and [H]."""
    rooms: Rooms | None = None
    try:
        async with AsyncExitStack() as stack:
            listener = await open_listener(config.http) if given is None else adopt_listener(given, config.http)
            stack.callback(listener.close)
            monitor = await stack.enter_async_context(open_monitor(config))
            rooms = await stack.enter_async_context(open_rooms(config, monitor, connector=connector))
            services = rooms.services
            address = address_of(listener)
            secure = "" if config.http.ssl_certfile is None else "s"
            started = Started(
                http=f"http{secure}://{address}",
                ws=f"ws{secure}://{address}{WEBSOCKET_PATH}",
                admin=monitor.admin_address,
                services=services,
                counts=partial(counts, rooms),
            )
            limits.behind, limits.refused = services.lifecycle.behind, services.refused
            monitor.watch("connections", limits.statistics)
            serve = partial(serve_http, make_app(services), config, listener, limits)
            await take_signals()
            await _serve(services, serve, leaving, ready=lambda: task_status.started(started))
            grace_s = leaving.grace_s(config.shutdown.drain_s)
            log.info("no client is waiting any more; the producer closes", grace_s=round(grace_s, 3))
            with leaving.grace:
                leaving.closing = True
                await rooms.close(grace_s)
        services.lifecycle.advance(Phase.CLOSED)
    except BaseException:
        log.error("stopped by an error", **counts(rooms))
        raise
    report = ExitReport(
        ledger=services.ledger.statistics(),
        spool=rooms.spool_statistics(),
        volatile=config.spool.path == ":memory:",
        counts=counts(rooms),
    )
    log.info("stopped", code=report.code, **report.counts)
    return report


async def _serve(
    services: Services,
    serve: Callable[..., Awaitable[None]],
    leaving: "_Leaving",
    *,
    ready: Callable[[], None],
) -> None:
    """The nursery [H]: from listening until no connection is left."""
    lifecycle = services.lifecycle
    with leaving.work:
        async with trio.open_nursery() as nursery:
            await nursery.start(
                _server, nursery, partial(serve, shutdown=partial(lifecycle.wait_reached, Phase.DRAINING))
            )
            lifecycle.advance(Phase.SERVING)
            log.info(
                "ready",
                topic=services.config.kafka.topic,
                node=services.node.name,
                server=server_for(services.config),
            )
            ready()
            await leaving.stop.wait()
            delay_s, drain_s = services.config.shutdown.delay_s, services.config.shutdown.drain_s
            lifecycle.advance(Phase.LEAVING)
            log.info("leaving: not ready, still accepting", delay_s=delay_s)
            with trio.move_on_after(delay_s):
                await leaving.hurry.wait()
            leaving.drained_by = trio.current_time() + drain_s
            lifecycle.advance(Phase.DRAINING)
            log.info("draining", drain_s=drain_s, in_work=services.ledger.statistics().in_work)


async def _server(  # noqa: ASYNC128
    nursery: trio.Nursery,
    serve: Callable[..., Awaitable[None]],
    *,
    task_status: trio.TaskStatus[list[str]],
) -> None:
    # The nursery is [H]'s own: when the server has ended there is nothing left for its other tasks to wait for.
    await serve(task_status=task_status)
    nursery.cancel_scope.cancel(reason="the server has ended")


class _Leaving:
    """How far leaving has come, and what the next signal does about it."""

    def __init__(self, stop: trio.Event, limits: ConnectionLimits) -> None:
        self.stop = stop
        self.hurry = trio.Event()
        """Skip what is left of the delay."""
        self.work = trio.CancelScope()
        """Around [H]: what is in work for clients."""
        self.drained_by = math.inf
        """When the time to drain is over, for clients and producer together; set when draining begins."""
        self.closing = False
        self.grace = trio.CancelScope()
        """Around the producer's end alone: cancelled, it still settles every record, and the books are right."""
        self._limits = limits

    def grace_s(self, drain_s: float) -> float:
        """What is left for the producer of the time to drain, and a little where nothing is."""
        return max(CLOSE_LEAST_S, min(drain_s, self.drained_by - trio.current_time()))

    def hasten(self) -> None:
        """Take the next step: leave; skip the delay; cut what is in work; or, where that is over, end the grace."""
        if self.closing:
            self.grace.cancel(reason="a signal while the producer closes")
        elif not self.stop.is_set():
            self.stop.set()
        elif not self.hurry.is_set():
            self.hurry.set()
        else:
            self._limits.abort_all()
            self.work.cancel(reason="a third signal")


async def _signals(leaving: _Leaving, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as received:
        task_status.started()
        count = 0
        async for number in received:
            count += 1
            log.info("signal", name=signal.Signals(number).name, count=count)
            leaving.hasten()


def counts(rooms: Rooms | None) -> dict[str, int]:
    """The counts of the last log line: what clients were told, and ledger B of the spool, since its file was made."""
    if rooms is None:
        return {}
    books, spool = rooms.services.ledger.statistics(), rooms.spool_statistics()
    found = {
        "received": books.received_total,
        "delivered": books.delivered_total,
        "spooled": books.spooled_total,
        "rejected": books.rejected_total,
        "not_sent": books.refused_total,
        "unknown": books.unknown_total,
        "unresolved": books.unresolved,
        "deduplicated": books.deduplicated_total,
        "dropped": books.dropped_total,
        "difference": books.difference,
    }
    if spool is not None:
        found |= {
            "in_spool": spool.rows,
            "spool_in": spool.rows_in_total,
            "spool_replayed": spool.replayed_total,
            "spool_resolved": spool.resolved_total,
            "spool_dead": spool.dead_total,
            "spool_dropped": spool.dropped_total,
            "spool_lost": spool.lost_total,
            "spool_difference": spool.difference,
        }
    return found
