"""The HTTP client, against a server that answers by script; on Trio in virtual time, and on asyncio."""

import asyncio
import json
import random
from collections.abc import Callable, Sequence

import anyio
import httpx  # noqa: ASYNC127  # what the client is made of
import pytest
import trio
from trio.testing import MockClock

from collector.client import Accepted, EventError, Refused, RetryDetails, Unreachable, open_track_client
from collector.client.http import ATTEMPT_S

EVENT = b'{"type":"track","event":"e","messageId":"m1"}'

Answer = httpx.Response | Exception | Callable[[], httpx.Response]


class Server:
    """Answers each request with the next of ``answers``; the last one for ever."""

    def __init__(self, *answers: Answer) -> None:
        self._answers = list(answers)
        self.requests: list[httpx.Request] = []

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        await anyio.lowlevel.checkpoint()
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer if isinstance(answer, httpx.Response) else answer()

    @property
    def transport(self) -> httpx.MockTransport:
        return httpx.MockTransport(self)

    @property
    def bodies(self) -> Sequence[bytes]:
        return [request.content for request in self.requests]


class NoJitter(random.Random):
    def uniform(self, a: float, b: float) -> float:
        return b


def _ok() -> httpx.Response:
    return httpx.Response(200, headers={"x-request-id": "r1"}, json={"success": True})


async def test_an_accepted_event_was_sent_once_and_unchanged(autojump_clock: MockClock) -> None:
    server = Server(_ok)
    async with open_track_client("http://c", key="k", transport=server.transport) as client:
        assert await client.track(EVENT) == Accepted(events=1, attempts=1, request_id="r1")
        assert repr(client) == "<TrackClient http://c segment: 1 accepted, 0 retries>"
    assert server.bodies == [b'{"writeKey":"k","batch":[' + EVENT + b"]}"]
    assert server.requests[0].url.path == "/v1/batch"


async def test_heap_has_a_path_and_body_of_its_own(autojump_clock: MockClock) -> None:
    server = Server(_ok)
    async with open_track_client("http://c", key="app", api="heap", transport=server.transport) as client:
        await client.track({"identity": "i", "event": "e", "idempotency_key": "x"})
    assert server.requests[0].url.path == "/api/track"
    assert json.loads(server.bodies[0])["app_id"] == "app"


async def test_a_503_is_sent_again_after_what_it_asked_for_with_the_same_ids(autojump_clock: MockClock) -> None:
    busy = httpx.Response(
        503,
        headers={
            "retry-after": "4",
            "x-collector-outcome": "delivered=1, spooled=0, rejected=0, not_sent=1, unknown=1",
        },
        text="overloaded",
    )
    retries: list[RetryDetails] = []
    server = Server(busy, _ok)
    began = trio.current_time()
    async with open_track_client(
        "http://c", key="k", transport=server.transport, on_retry=retries.append, rng=NoJitter()
    ) as client:
        accepted = await client.track({"type": "track", "event": "e"})
        assert client.uncertain_events == 0
    assert accepted.attempts == 2
    assert trio.current_time() - began == pytest.approx(4.1)
    assert server.bodies[0] == server.bodies[1]
    assert retries == [RetryDetails(attempt=1, reason="answered 503 overloaded", wait_s=4.1, events=1, unknown=2)]


async def test_pauses_double_while_there_is_no_connection(autojump_clock: MockClock) -> None:
    waits: list[float] = []
    server = Server(*[httpx.ConnectError("refused")] * 4, _ok)
    async with open_track_client(
        "http://c",
        key="k",
        transport=server.transport,
        on_retry=lambda details: waits.append(details.wait_s),
        rng=NoJitter(),
    ) as client:
        await client.track(EVENT)
    assert waits == [0.1, 0.2, 0.4, 0.8]


async def test_the_callers_scope_ends_the_trying_and_a_refused_connect_is_known_not_to_be_sent(
    autojump_clock: MockClock,
) -> None:
    server = Server(httpx.ConnectError("refused"))
    async with open_track_client("http://c", key="k", transport=server.transport) as client:
        with trio.move_on_after(30) as scope:
            await client.track(EVENT)
        assert scope.cancelled_caught
        assert client.uncertain_events == 0
    assert len(server.requests) > 4


async def test_an_answer_that_never_comes_leaves_the_events_uncertain(autojump_clock: MockClock) -> None:
    retries: list[RetryDetails] = []

    async def silent(request: httpx.Request) -> httpx.Response:
        await trio.sleep_forever()
        raise AssertionError

    async with open_track_client(
        "http://c", key="k", transport=httpx.MockTransport(silent), on_retry=retries.append
    ) as client:
        with trio.move_on_after(ATTEMPT_S + 1):
            await client.batch([EVENT, EVENT])
        assert client.uncertain_events == 2
    assert retries[0].reason == f"no answer within {ATTEMPT_S:g} s"
    assert retries[0].unknown == 2


@pytest.mark.parametrize(
    ("answer", "code", "message"),
    [
        (httpx.Response(400, json={"code": "invalid_key", "message": "no such key"}), "invalid_key", "no such key"),
        (httpx.Response(400, text="event is required\n"), "400", "event is required"),
        (httpx.Response(413, json=["odd"]), "413", '["odd"]'),
    ],
)
async def test_a_400_is_final(autojump_clock: MockClock, answer: httpx.Response, code: str, message: str) -> None:
    server = Server(answer)
    async with open_track_client("http://c", key="k", transport=server.transport) as client:
        with pytest.raises(Refused) as caught:
            await client.track(EVENT)
        assert client.uncertain_events == 0
    assert (caught.value.code, caught.value.message) == (code, message)
    assert len(server.requests) == 1


@pytest.mark.parametrize("status", [301, 404, 405])
async def test_an_address_that_is_no_collector_is_said_so(autojump_clock: MockClock, status: int) -> None:
    async with open_track_client("http://c", key="k", transport=Server(httpx.Response(status)).transport) as client:
        with pytest.raises(Unreachable, match=rf"http://c/v1/batch answered {status} .*is a collector there"):
            await client.track(EVENT)


@pytest.mark.parametrize("url", ["ftp://c", "c:8080", "http://", "/path"])
async def test_an_address_that_is_none_is_refused_at_once(url: str) -> None:
    with pytest.raises(Unreachable, match="is not an address like"):
        async with open_track_client(url, key="k"):
            raise AssertionError("never entered")


async def test_a_batch_is_cut_at_the_dialects_bound_and_at_a_mebibyte(autojump_clock: MockClock) -> None:
    server = Server(_ok)
    async with open_track_client("http://c", key="k", api="heap", transport=server.transport) as client:
        accepted = await client.batch([{"identity": "i", "event": "e"}] * 2001)
        assert accepted == Accepted(events=2001, attempts=3, request_id="r1")
        await client.batch([{"identity": "i", "event": "x" * 600_000}] * 2)
        assert await client.batch([]) == Accepted(events=0, attempts=0)
    assert [len(json.loads(body)["events"]) for body in server.bodies] == [1000, 1000, 1, 1, 1]


async def test_a_bad_event_of_a_batch_is_named_before_anything_is_sent(autojump_clock: MockClock) -> None:
    server = Server(_ok)
    async with open_track_client("http://c", key="k", transport=server.transport) as client:
        with pytest.raises(EventError, match='event 1: has no "type"'):
            await client.batch([EVENT, b"{}"])
    assert server.requests == []


def test_the_client_runs_on_asyncio_too() -> None:
    async def main() -> Accepted:
        server = Server(httpx.ReadError("reset"), _ok)
        async with open_track_client("http://c", key="k", transport=server.transport) as client:
            return await client.track(EVENT)

    assert asyncio.run(main()).attempts == 2
