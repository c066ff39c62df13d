"""The web room around a real producer and the strict fake cluster: in-process, on virtual or real time."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import msgspec
import pytest
import trio

from collector.config import Config, HttpConfig, KafkaConfig, KeysConfig, LimitsConfig, ShutdownConfig, SpoolConfig
from collector.devtools.conservation import assert_conserved
from collector.ingest.ledger import LedgerStatistics
from collector.lifecycle import Phase
from collector.monitor import Monitor
from collector.rooms import open_rooms
from collector.web.app import make_app
from collector.web.asgi_types import AsgiApp, Message
from collector.web.connections import ConnectionLimits
from collector.web.listeners import address_of, open_listener
from collector.web.server import serve_http
from collector.web.services import Services
from kafka_client import Producer
from kafka_client.testing import FakeCluster, open_fake_cluster

CONFIG = Config(
    http=HttpConfig(bind="127.0.0.1:0", send_timeout_s=1.0),
    keys=KeysConfig(open=True),
    shutdown=ShutdownConfig(delay_s=0.0, drain_s=6.0),
    spool=SpoolConfig(path=None),
)


class ToldMonitor(Monitor):
    """Believes the lag that a test tells it."""

    told_lag_s = 0.0

    @property
    def lag_s(self) -> float:
        return self.told_lag_s

    @property
    def overdue_s(self) -> float:
        return self.told_lag_s


@dataclass
class Answered:
    """An answer as the application sent it; status 0 is none."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""

    @classmethod
    def of(cls, sent: list[Message]) -> "Answered":
        if not sent:
            return cls()
        assert [message["type"] for message in sent] == ["http.response.start", "http.response.body"]
        headers = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
        assert int(headers["content-length"]) == len(sent[1]["body"])
        return cls(sent[0]["status"], headers, sent[1]["body"])

    def json(self) -> Any:
        return msgspec.json.decode(self.body)


@dataclass
class Web:
    """The room, as a test sees it."""

    services: Services
    cluster: FakeCluster
    producer: Producer
    monitor: ToldMonitor
    app: AsgiApp

    @property
    def books(self) -> LedgerStatistics:
        return self.services.ledger.statistics()

    def values(self, topic: str = "events") -> list[Any]:
        return [msgspec.json.decode(value or b"null") for value in self.cluster.values(topic)]

    def assert_idle(self) -> None:
        """Nothing is left of any request: neither here nor in the producer."""
        books, admission, producer = self.books, self.services.admission.statistics(), self.producer.statistics()
        assert (books.difference, books.in_work) == (0, 0)
        assert (admission.in_work_bytes, admission.reservations, admission.keys) == (0, 0, 0)
        assert (producer.queue_bytes, producer.waiting_bytes, producer.waiting_deliveries) == (0, 0, 0)
        assert (producer.waiters, producer.in_flight_bytes, producer.detached_batches) == (0, 0, 0)

    async def request(
        self,
        method: str,
        path: str,
        body: bytes | object = b"",
        headers: dict[str, str] | None = None,
        *,
        query: str = "",
        chunks: Sequence[bytes] | None = None,
        messages: Sequence[Message] | None = None,
        client: str = "198.51.100.7",
        extensions: dict[str, Any] | None = None,
        app: AsgiApp | None = None,
    ) -> Answered:
        """One request straight into the application, without a server; ``body`` may be what becomes JSON."""
        whole = body if isinstance(body, bytes) else msgspec.json.encode(body)
        parts = list(chunks) if chunks is not None else [whole]
        given = dict(headers or {})
        if chunks is None and messages is None:
            given.setdefault("content-length", str(len(whole)))
        incoming: list[Message] = (
            list(messages)
            if messages is not None
            else [
                {"type": "http.request", "body": part, "more_body": number < len(parts) - 1}
                for number, part in enumerate(parts)
            ]
        )
        sent: list[Message] = []

        async def receive() -> Message:
            await trio.lowlevel.checkpoint()
            if not incoming:
                await trio.sleep_forever()
            return incoming.pop(0)

        async def send(message: Message) -> None:
            await trio.lowlevel.checkpoint()
            sent.append(message)

        scope = {
            "type": "http",
            "http_version": "1.1",
            "method": method,
            "path": path,
            "query_string": query.encode(),
            "headers": [(name.lower().encode(), value.encode("latin-1")) for name, value in given.items()],
            "client": (client, 1),
            "state": {},
            "extensions": extensions or {},
        }
        await (app or self.app)(scope, receive, send)
        return Answered.of(sent)

    async def track(self, event: str = "e", identity: str | None = "u", **headers: str) -> Answered:
        """One good Heap event; names of headers with underscores."""
        return await self.request(
            "POST",
            "/api/track",
            {"app_id": "a", "identity": identity, "event": event},
            {name.replace("_", "-"): value for name, value in headers.items()},
        )

    async def track_many(self, number: int, **headers: str) -> Answered:
        events = [{"identity": f"u{index}", "event": f"e{index}"} for index in range(number)]
        return await self.request(
            "POST",
            "/api/track",
            {"app_id": "a", "events": events},
            {name.replace("_", "-"): value for name, value in headers.items()},
        )


@asynccontextmanager
async def opened(config: Config = CONFIG) -> AsyncIterator[Web]:
    async with open_fake_cluster(topics={"events": 12, "events-bad": 1}) as cluster:
        kafka = replace(config.kafka, bootstrap_servers=tuple(cluster.bootstrap_servers))
        config = replace(config, kafka=kafka)
        monitor = ToldMonitor(config)
        async with open_rooms(config, monitor, connector=cluster.connector) as rooms:
            services = rooms.services
            services.lifecycle.advance(Phase.SERVING)
            yield Web(services, cluster, rooms.producer, monitor, make_app(services))
            cluster.faults.clear()
            cluster.resume_broker(1)
        assert_conserved(services.ledger.statistics(), None)


@pytest.fixture
def open_web() -> Callable[..., Any]:
    """A room with other settings: ``async with open_web(limits={…}, http={…}, keys=KeysConfig(…)) as web``."""

    def make(
        *,
        limits: dict[str, Any] | None = None,
        http: dict[str, Any] | None = None,
        kafka: dict[str, Any] | None = None,
        **others: Any,
    ) -> Any:
        changed = {
            "limits": replace(LimitsConfig(), **(limits or {})),
            "http": replace(CONFIG.http, **(http or {})),
            "kafka": replace(KafkaConfig(), **(kafka or {})),
            **others,
        }
        return opened(replace(CONFIG, **changed))

    return make


@pytest.fixture
async def web() -> AsyncIterator[Web]:
    """The room with the default limits and open keys."""
    async with opened() as web:
        yield web


@asynccontextmanager
async def listening(web: Web, *, server: str = "lane") -> AsyncIterator[tuple[str, int]]:
    """A server around a room, on a real port; left without a delay."""
    config = replace(web.services.config, http=replace(web.services.config.http, server=server))
    listener = await open_listener(config.http)
    host, _, port = address_of(listener).rpartition(":")
    limits = ConnectionLimits(config.limits.connections)
    lifecycle = web.services.lifecycle

    async def draining() -> None:
        await lifecycle.wait_reached(Phase.DRAINING)

    async with trio.open_nursery() as nursery:

        async def serve(task_status: trio.TaskStatus[list[str]]) -> None:  # noqa: ASYNC128  # what it serves reports
            await serve_http(web.app, config, listener, limits, shutdown=draining, task_status=task_status)

        await nursery.start(serve)
        yield host, int(port)
        lifecycle.advance(Phase.DRAINING)


@pytest.fixture(params=["lane", "stock"])
def server(request: pytest.FixtureRequest) -> str:
    """``[http] server``: what goes over a socket is tested on both."""
    return str(request.param)


@pytest.fixture
def serve(server: str) -> Callable[[Web], Any]:
    """``async with serve(web) as (host, port)``."""
    return partial(listening, server=server)


Until = Callable[[Callable[[], bool]], Awaitable[None]]


@pytest.fixture
def until() -> Until:
    """Wait, in real or virtual time, until a condition holds; bounded by five seconds."""

    async def wait_until(condition: Callable[[], bool]) -> None:
        with trio.fail_after(5):
            while not condition():  # noqa: ASYNC110  # what a test waits for has no event
                await trio.sleep(0.01)

    return wait_until
