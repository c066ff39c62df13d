"""Collectors for tests: one in this process without a socket, one that listens, and what arrived from either.

Owns: putting the rooms together as `collector.run` does, around a broker made for tests. Refuses to know: pytest.

Invariant: `open_collector_app` opens no kernel socket and no thread, so it works on virtual time;
`open_collector_server` does both, and refuses a mock clock. When either has ended well, both ledgers balance.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import cast

import httpx  # noqa: ASYNC127  # the client that the collector itself uses
import trio
from trio.testing import MockClock

from collector.config import Config, KeysConfig, ShutdownConfig, SpoolConfig
from collector.devtools.conservation import assert_conserved
from collector.devtools.mock import open_mock
from collector.devtools.received import FakeReceived, ReceivedEvents, TopicReceived
from collector.ingest.ledger import LedgerStatistics
from collector.lifecycle import Phase
from collector.monitor import open_monitor
from collector.rooms import open_rooms
from collector.run import Started, run
from collector.spool.spool import DiskSpool
from collector.web.app import make_app
from collector.web.asgi_types import AsgiApp
from collector.web.services import Services
from kafka_client.observe import ProducerStatistics
from kafka_client.producer import Producer
from kafka_client.testing import FakeCluster

__all__ = [
    "CollectorApp",
    "CollectorServer",
    "default_config",
    "open_collector_app",
    "open_collector_server",
]

#: What a test may wait for a server to let go of its clients; more than ``enqueue_s``, as the chain asks.
DRAIN_S = 6.0


def default_config() -> Config:
    """Any key is taken, the end of a test is not waited for, and there is no spool: nothing is written anywhere.

    With ``spool=SpoolConfig(path=":memory:")`` in its place there is one, on virtual time too.
    """
    return Config(
        keys=KeysConfig(open=True),
        shutdown=ShutdownConfig(delay_s=0.0, drain_s=DRAIN_S),
        spool=SpoolConfig(path=None),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectorApp:
    """The collector's ASGI application in this process.

    Attributes:
        http: Sends requests to it: ``await collector_app.http.post("/v1/track", json={…})``.
        app: The application itself, for another ASGI client.
        producer: Its producer.
        spool: Its spool; None unless ``spool.path`` says ":memory:" or where.
        broker: The cluster that it produces to.
        config: What it was configured with.
    """

    http: httpx.AsyncClient
    app: AsgiApp
    services: Services
    producer: Producer
    spool: DiskSpool | None
    broker: FakeCluster
    config: Config

    @property
    def url(self) -> str:
        """The base of its URLs. Nothing listens there."""
        return str(self.http.base_url).rstrip("/")

    @property
    def ledger(self) -> LedgerStatistics:
        """What clients were told, event by event."""
        return self.services.ledger.statistics()

    def transport(self) -> httpx.ASGITransport:
        """A way to it for another httpx client."""
        return httpx.ASGITransport(self.app)

    @property
    def received(self) -> ReceivedEvents:
        """What arrived in the topic."""
        return FakeReceived(self.broker, self.config.kafka.topic)


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectorServer:
    """A collector that listens on free ports of the loopback interface.

    Attributes:
        http, admin: URLs without a slash at the end.
        ws: The whole websocket URL.
        bootstrap_servers: The broker, ``"host:port"``.
        topic: Where its events go.
        services: Its rooms, for a look inside.
        config: What it was configured with.
    """

    http: str
    ws: str
    admin: str
    bootstrap_servers: str
    topic: str
    services: Services
    config: Config

    @property
    def ledger(self) -> LedgerStatistics:
        """What clients were told, event by event."""
        return self.services.ledger.statistics()

    @property
    def tasks_at_home(self) -> tuple[str, ...]:
        """How the names of tasks begin that belong to an open connection without a request."""
        return ("trio._highlevel_serve_listeners.", "hypercorn.trio.tcp_server.TCPServer._idle_timeout")

    @property
    def producer_statistics(self) -> Callable[[], ProducerStatistics]:
        """The ``statistics`` method of its producer."""
        return cast("Callable[[], ProducerStatistics]", self.services.monitor.sources["producer"])

    @property
    def received(self) -> ReceivedEvents:
        """What arrived in the topic."""
        return TopicReceived(self.bootstrap_servers, self.topic)


@asynccontextmanager
async def open_collector_app(broker: FakeCluster, config: Config | None = None) -> AsyncIterator[CollectorApp]:
    """The application in this process, producing to a fake cluster; its addresses in ``config`` do not matter.

    On cancellation: what is queued is withdrawn, sealed batches are unknown.
    """
    base = default_config() if config is None else config
    config = replace(base, kafka=replace(base.kafka, bootstrap_servers=tuple(broker.bootstrap_servers)))
    async with (
        open_monitor(config, listen=False) as monitor,
        open_rooms(config, monitor, connector=broker.connector) as rooms,
    ):
        services = rooms.services
        services.lifecycle.advance(Phase.SERVING)
        app = make_app(services)
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://collector.test", timeout=None) as http:
            yield CollectorApp(
                http=http,
                app=app,
                services=services,
                producer=rooms.producer,
                spool=rooms.spool,
                broker=broker,
                config=config,
            )
            services.lifecycle.advance(Phase.DRAINING)
    assert_conserved(services.ledger.statistics(), rooms.spool_statistics())


@asynccontextmanager
async def open_collector_server(config: Config | None = None, *, brokers: int = 1) -> AsyncIterator[CollectorServer]:
    """The whole collector on free ports, with librdkafka's mock cluster as a child process.

    Args:
        config: Its listeners' ports and ``kafka.bootstrap_servers`` are replaced.
        brokers: How many the mock cluster has.

    Raises:
        RuntimeError: The clock is a mock clock: sockets and a child process live on real time.
        ChildFailed: The mock did not start.

    On cancellation: clients are cut off, the child is ended.
    """
    if isinstance(trio.lowlevel.current_clock(), MockClock):
        raise RuntimeError("a server with sockets lives on real time: do not use autojump_clock or mock_clock with it")
    base = default_config() if config is None else config
    topics = {base.kafka.topic: 12}
    if base.kafka.bad_topic is not None:
        topics[base.kafka.bad_topic] = 3
    async with open_mock(topics, brokers=brokers) as mock:
        settings = replace(
            base,
            http=replace(base.http, bind="127.0.0.1:0"),
            admin=replace(base.admin, bind="127.0.0.1:0"),
            kafka=replace(base.kafka, bootstrap_servers=tuple(mock.bootstrap_servers.split(","))),
        )
        stop = trio.Event()

        async def serve(*, task_status: trio.TaskStatus[Started]) -> None:  # noqa: ASYNC128  # run() reports
            report = await run(settings, stop=stop, signals=False, task_status=task_status)
            assert_conserved(report.ledger, report.spool)

        async with trio.open_nursery() as nursery:
            started: Started = await nursery.start(serve)
            yield CollectorServer(
                http=started.http,
                ws=started.ws,
                admin=started.admin or "",
                bootstrap_servers=mock.bootstrap_servers,
                topic=settings.kafka.topic,
                services=started.services,
                config=settings,
            )
            stop.set()
