"""The web room on its own: real dialects, ledger and admission around a producer that does what a test says."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import trio

from collector.config import Config, HttpConfig, KeysConfig, LimitsConfig, ShutdownConfig
from collector.dialects import make_dialects
from collector.ingest.enqueue import Ingest
from collector.ingest.ledger import Ledger
from collector.keys import ConfiguredKeys
from collector.lifecycle import Lifecycle, Phase
from collector.monitor import Monitor
from collector.web.admission import Admission
from collector.web.app import make_app
from collector.web.asgi_types import AsgiApp, Message
from collector.web.listeners import address_of, open_listener
from collector.web.services import Node, Services
from collector.web.stock import ConnectionLimits, serve_stock
from kafka_client.outcome import Delivered, NotSent, Outcome, Record, TopicPartition, Unknown

CONFIG = Config(
    http=HttpConfig(bind="127.0.0.1:0", send_timeout_s=1.0),
    keys=KeysConfig(open=True),
    shutdown=ShutdownConfig(delay_s=0.0, drain_s=6.0),
)


class HandDelivery:
    """A delivery whose outcomes a test gives; sealed records become Unknown when withdrawn, others NotSent."""

    def __init__(self, producer: "HandProducer", records: Sequence[Record]) -> None:
        self.producer = producer
        self.records = list(records)
        self.outcomes: list[Outcome | None] = [None] * len(records)
        self.done = trio.Event()
        self.sealed = False
        self.resolved: Callable[[int, Outcome], object] | None = None

    def __enter__(self) -> "HandDelivery":
        return self

    def __exit__(self, *error: object) -> None:
        self.withdraw()

    def withdraw(self) -> None:
        if not self.done.is_set():
            left: Outcome = Unknown("withdrawn") if self.sealed else NotSent("withdrawn")
            self.settle(lambda _: left)

    def settle(self, decide: Callable[[Record], Outcome]) -> None:
        self.outcomes = [old or decide(record) for old, record in zip(self.outcomes, self.records, strict=True)]
        self.done.set()
        self.producer.open.discard(self)

    def on_resolved(self, fn: Callable[[int, Outcome], object]) -> None:
        self.resolved = fn

    async def wait(self) -> None:
        await trio.lowlevel.checkpoint()
        await self.done.wait()


@dataclass(eq=False)
class HandProducer:
    """Delivers at once, unless told otherwise."""

    decide: Callable[[Record], Outcome] | None = None
    hold: bool = False
    sealed: bool = False
    records: list[Record] = field(default_factory=list)
    deliveries: list[HandDelivery] = field(default_factory=list)
    open: set[HandDelivery] = field(default_factory=set)

    def delivery(self, records: Sequence[Record]) -> HandDelivery:
        self.records += records
        delivery = HandDelivery(self, records)
        delivery.sealed = self.sealed
        self.deliveries.append(delivery)
        self.open.add(delivery)
        if not self.hold:
            delivery.settle(self.decide or self.delivered)
        return delivery

    def delivered(self, record: Record) -> Outcome:
        return Delivered(TopicPartition(record.topic, 0), len(self.records), 0, 1)

    def values(self, topic: str = "events") -> list[bytes]:
        return [record.value or b"" for record in self.records if record.topic == topic]


@dataclass
class Web:
    """The room, as a test sees it."""

    services: Services
    producer: HandProducer
    monitor: Monitor
    app: AsgiApp

    @property
    def ledger(self) -> Ledger:
        return self.services.ledger

    def assert_idle(self) -> None:
        books, bytes_ = self.ledger.statistics(), self.services.admission.statistics()
        assert (books.difference, books.in_work) == (0, 0)
        assert (bytes_.in_work_bytes, bytes_.reservations, bytes_.keys) == (0, 0, 0)
        assert not self.producer.open

    async def request(
        self,
        method: str,
        path: str,
        body: bytes = b"",
        headers: dict[str, str] | None = None,
        *,
        query: str = "",
        chunks: Sequence[bytes] | None = None,
        extensions: dict[str, Any] | None = None,
    ) -> "Answered":
        """One request straight into the application, without a server."""
        parts = list(chunks) if chunks is not None else [body]
        given = dict(headers or {})
        if chunks is None:
            given.setdefault("content-length", str(len(body)))
        messages: list[Message] = [
            {"type": "http.request", "body": part, "more_body": number < len(parts) - 1}
            for number, part in enumerate(parts)
        ]
        sent: list[Message] = []

        async def receive() -> Message:
            await trio.lowlevel.checkpoint()
            return messages.pop(0) if messages else {"type": "http.disconnect"}

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
            "client": ("198.51.100.7", 1),
            "state": {},
            "extensions": extensions or {},
        }
        await self.app(scope, receive, send)
        return Answered.of(sent)


@dataclass
class Answered:
    """An answer as the application sent it."""

    status: int
    headers: dict[str, str]
    body: bytes

    @classmethod
    def of(cls, sent: list[Message]) -> "Answered":
        if not sent:
            return cls(0, {}, b"")
        assert [message["type"] for message in sent] == ["http.response.start", "http.response.body"]
        headers = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
        return cls(sent[0]["status"], headers, sent[1]["body"])


def build_web(config: Config = CONFIG) -> Web:
    monitor, producer = Monitor(config), HandProducer()
    lifecycle = Lifecycle(max_lag_s=config.limits.max_lag_s, lag=lambda: monitor.lag_s)
    ledger = Ledger()
    services = Services(
        config=config,
        node=Node(),
        monitor=monitor,
        lifecycle=lifecycle,
        ledger=ledger,
        admission=Admission(bound_bytes=config.limits.in_work_bytes, lagging=lifecycle.lagging),
        ingest=Ingest(config=config, producer=producer, ledger=ledger, late=monitor.late_resolution),
        keys=ConfiguredKeys.from_config(config.keys),
        dialects=make_dialects(config.limits),
    )
    lifecycle.advance(Phase.SERVING)
    return Web(services, producer, monitor, make_app(services))


@pytest.fixture
def make_web() -> Callable[..., Web]:
    """A room with other limits: ``make_web(limits={…}, http={…})``."""

    def make(*, limits: dict[str, Any] | None = None, http: dict[str, Any] | None = None, **others: Any) -> Web:
        changed = {
            "limits": replace(LimitsConfig(), **(limits or {})),
            "http": replace(CONFIG.http, **(http or {})),
            **others,
        }
        return build_web(replace(CONFIG, **changed))

    return make


@pytest.fixture
def web() -> Web:
    """The room with the default limits and open keys."""
    return build_web()


@asynccontextmanager
async def listening(web: Web) -> AsyncIterator[tuple[str, int]]:
    """The stock server around a room, on a real port; left without a delay."""
    listener = await open_listener(web.services.config.http)
    host, _, port = address_of(listener).rpartition(":")
    limits = ConnectionLimits(web.services.config.limits.connections)
    lifecycle = web.services.lifecycle

    async def draining() -> None:
        await lifecycle.wait_reached(Phase.DRAINING)

    async with trio.open_nursery() as nursery:

        async def serve(task_status: trio.TaskStatus[list[str]]) -> None:
            await serve_stock(
                web.app, web.services.config, listener, limits, shutdown=draining, task_status=task_status
            )

        await nursery.start(serve)
        yield host, int(port)
        lifecycle.advance(Phase.DRAINING)


@pytest.fixture
def serve() -> Callable[[Web], Any]:
    """``async with serve(web) as (host, port)``."""
    return listening


Until = Callable[[Callable[[], bool]], Awaitable[None]]


@pytest.fixture
def until() -> Until:
    """Wait, in real or virtual time, until a condition holds; bounded by five seconds."""

    async def wait_until(condition: Callable[[], bool]) -> None:
        with trio.fail_after(5):
            while not condition():
                await trio.sleep(0.01)

    return wait_until
