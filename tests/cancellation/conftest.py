"""One partition, so that everything waits behind everything; and requests whose bodies a test feeds by hand."""

import json
from collections import deque
from collections.abc import Awaitable, Callable, Mapping

import pytest
import trio

from collector.devtools.fixtures import CollectorApp
from collector.web.asgi_types import Message

#: Connections that a producer opens for one broker: one for metadata, one for Produce requests.
CONNECTIONS = 2


@pytest.fixture
def kafka_topics() -> Mapping[str, int]:
    """One partition each."""
    return {"events": 1, "events-bad": 1}


def event(name: str, size_bytes: int = 0) -> bytes:
    """A track call of this name, padded."""
    return json.dumps({"writeKey": "shop", "userId": "u", "event": name, "pad": "x" * size_bytes}).encode()


@pytest.fixture
def make_event() -> Callable[..., bytes]:
    """``make_event(name, size_bytes=0)``: the body of a track call, padded."""
    return event


class Call:
    """One request straight into the application, without a server between."""

    def __init__(self, app: CollectorApp, path: str, headers: Mapping[str, str]) -> None:
        self._app = app
        self._arrived: deque[Message] = deque()
        self._more = trio.Event()
        self.scope = trio.CancelScope()
        self.ended = trio.Event()
        self.ended_at = -1.0
        self.status = 0
        self.headers: dict[str, str] = {}
        self.body = b""
        self._asgi: dict[str, object] = {
            "type": "http",
            "http_version": "1.1",
            "method": "POST",
            "path": path,
            "query_string": b"",
            "headers": [(name.lower().encode(), value.encode()) for name, value in headers.items()],
            "client": ("127.0.0.1", 1),
            "state": {},
        }

    def feed(self, data: bytes, *, more: bool = False) -> None:
        """Let a piece of the body arrive."""
        self._arrive({"type": "http.request", "body": data, "more_body": more})

    def hang_up(self) -> None:
        """Let the client go."""
        self._arrive({"type": "http.disconnect"})

    def _arrive(self, message: Message) -> None:
        self._arrived.append(message)
        self._more.set()

    async def _receive(self) -> Message:
        await trio.lowlevel.checkpoint()
        while not self._arrived:
            self._more = trio.Event()
            await self._more.wait()
        return self._arrived.popleft()

    async def _send(self, message: Message) -> None:
        await trio.lowlevel.checkpoint()
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.headers = {name.decode(): value.decode() for name, value in message["headers"]}
        else:
            self.body += message["body"]

    async def run(self) -> None:
        """Serve it to its end, or until `scope` is cancelled."""
        with self.scope:
            await self._app.app(self._asgi, self._receive, self._send)
        self.ended_at = trio.current_time()
        self.ended.set()

    def cancel(self) -> None:
        """Cancel it from outside, as a shutdown does."""
        self.scope.cancel(reason="the test cuts it off")

    @property
    def outcome(self) -> str:
        """What the answer says became of its events."""
        return self.headers.get("x-collector-outcome", "")


StartCall = Callable[..., Call]


@pytest.fixture
async def start(collector_app: CollectorApp, nursery: trio.Nursery) -> StartCall:
    """``start(body)``: a request in a task of its own; ``body=None`` leaves the body to be fed."""

    def start_call(
        body: bytes | None, *, path: str = "/v1/track", timeout_ms: int | None = None, **headers: str
    ) -> Call:
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        if timeout_ms is not None:
            given["x-collector-timeout-ms"] = str(timeout_ms)
        if body is not None:
            given.setdefault("content-length", str(len(body)))
        call = Call(collector_app, path, given)
        if body is not None:
            call.feed(body)
        nursery.start_soon(call.run, name="call")
        return call

    await trio.lowlevel.checkpoint()
    return start_call


GiveWay = Callable[[Callable[[], object]], Awaitable[None]]


@pytest.fixture
def give_way_until() -> GiveWay:
    """``await give_way_until(condition)``: let the others take one step after another until it holds."""

    async def give_way(condition: Callable[[], object]) -> None:
        while True:
            await trio.lowlevel.checkpoint()
            if condition():
                return

    return give_way


Warm = Callable[[], Awaitable[None]]


@pytest.fixture
async def warm(collector_app: CollectorApp) -> Warm:
    """``await warm()``: one event there and acknowledged, so that connection, leader and sequences are known."""

    async def send_one() -> None:
        answer = await collector_app.http.post("/v1/track", content=event("warm-up"))
        assert answer.status_code == 200
        assert collector_app.producer.statistics().connections_opened_total == CONNECTIONS

    await trio.lowlevel.checkpoint()
    return send_one
