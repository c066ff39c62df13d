# flake8: noqa: ASYNC910, ASYNC912
# Loops and branches that wait, as every test here does.
"""Requests of the lane that are out of time: the whole room behind it, the strict fake cluster behind that."""

import msgspec
import pytest
import trio

from collector.config import Config, DeadlinesConfig
from collector.devtools.raw_http import open_http
from collector.ingest.nursery import EXTENSION, GRID_S, RearmedNursery
from collector.web.asgi_types import Receive, Scope, Send
from tests.collector.web.lane.conftest import echo, ok, start

EVENT = b'{"app_id":"a","identity":"u","event":"e"}'
GET = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"
DEADLINES = DeadlinesConfig(kafka_s=0.9, spool_s=0.2, answer_s=0.2, stall_s=0.5)
#: Kafka's and the disk's share of it.
WORK_S = 1.1
SHARE = WORK_S / 1.3


@pytest.fixture
def server() -> str:
    """The stock server has a fresh nursery for each request, which is tested without a server."""
    return "lane"


async def test_request_out_of_time_is_answered_503_and_its_connection_goes_on(open_web, serve) -> None:
    async with open_web(deadlines=DEADLINES) as web:
        await web.track()
        async with serve(web) as (host, port), open_http(f"{host}:{port}") as http:
            web.cluster.faults.delay(1.4)
            began = trio.current_time()
            reply = await http.request("POST", "/api/track", EVENT)
            assert (reply.status, "connection" in reply.headers) == (503, False)
            assert reply.headers["x-collector-outcome"].endswith("unknown=1")
            assert WORK_S - 0.05 <= trio.current_time() - began < WORK_S + DEADLINES.answer_s
            await trio.sleep(0.4)
            assert (await http.request("POST", "/api/track", EVENT)).status == 200
        web.assert_idle()


async def test_shorter_deadline_of_a_client_is_kept_exactly(open_web, serve) -> None:
    async with open_web(deadlines=DEADLINES) as web:
        await web.track()
        web.cluster.faults.delay(0.6)
        async with serve(web) as (host, port), open_http(f"{host}:{port}") as http:
            began = trio.current_time()
            reply = await http.request("POST", "/api/track", EVENT, headers={"x-collector-timeout-ms": "200"})
            assert reply.status == 503
            assert 0.2 * SHARE <= trio.current_time() - began < 0.2 + GRID_S
        await trio.sleep(0.5)
        web.assert_idle()


@pytest.mark.parametrize("offset_s", [-0.002, 0.0, 0.002])
async def test_deadline_around_the_acknowledgement_is_answered_once(open_web, serve, offset_s: float) -> None:
    async with open_web(deadlines=DEADLINES) as web:
        await web.track()
        share_s = 0.2 * SHARE
        async with serve(web) as (host, port), open_http(f"{host}:{port}") as http:
            for _ in range(2):
                web.cluster.faults.delay(share_s + offset_s)
                reply = await http.request("POST", "/api/track", EVENT, headers={"x-collector-timeout-ms": "200"})
                assert reply.status in (200, 503)
                await trio.sleep(0.3)
                assert (await http.request("POST", "/api/track", EVENT)).status == 200
        books = web.books
        assert books.delivered_total + books.unknown_total + books.refused_total == 5
        web.assert_idle()


async def test_pipelined_requests_behind_one_out_of_time_are_answered(open_web, serve) -> None:
    async with open_web(deadlines=DEADLINES) as web:
        await web.track()
        web.cluster.faults.delay(0.5)
        async with serve(web) as (host, port), open_http(f"{host}:{port}") as http:
            head = b"POST /api/track HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n" % len(EVENT)
            short = head + b"x-collector-timeout-ms: 100\r\n\r\n" + EVENT
            await http.stream.send_all(short + b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n")
            assert [(await http.read_reply()).status for _ in range(2)] == [503, 200]
        await trio.sleep(0.5)
        web.assert_idle()


async def test_events_of_a_batch_all_have_their_outcome_at_the_deadline(open_web, serve) -> None:
    async with open_web(deadlines=DEADLINES) as web:
        web.cluster.pause_broker(1)
        body = msgspec.json.encode({"app_id": "a", "events": [{"identity": f"u{n}", "event": "e"} for n in range(50)]})
        async with serve(web) as (host, port), open_http(f"{host}:{port}") as http:
            reply = await http.request("POST", "/api/track", body)
            assert (reply.status, web.books.refused_total) == (503, 50)
            web.assert_idle()
            web.cluster.resume_broker(1)


async def test_application_that_waits_outside_of_its_nursery_is_never_cancelled(lane) -> None:
    """What Trio's own deadline, rounded up and left set, would do: see `collector.ingest.nursery`."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        carrier: RearmedNursery = scope["extensions"][EXTENSION]
        await carrier.run(trio.current_time() + 1.1, trio.lowlevel.checkpoint, trio.lowlevel.checkpoint)
        await trio.sleep(1.4)
        await echo(scope, receive, send)

    async with lane(app) as server:
        client = await server.connect()
        await client.say(GET)
        await client.hear_answer()


async def test_answer_outside_of_the_nursery_may_wait_for_its_client(lane) -> None:
    size = 4 * 1024 * 1024

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        async def unfinished() -> None:
            await send(start(size, 503))
            await send(ok(bytes(size)))

        if scope["path"] == "/":
            carrier: RearmedNursery = scope["extensions"][EXTENSION]
            await carrier.run(trio.current_time() + 0.05, trio.sleep_forever, unfinished)
        await echo(scope, receive, send)

    async with lane(app) as server:
        client = await server.connect(receive_buffer=4096)
        await client.say(GET + GET.replace(b"/", b"/next", 1))
        await trio.sleep(0.5)
        assert (await client.hear(b"\r\n\r\n")).startswith(b"HTTP/1.1 503 ")
        left = size - len(client.read)
        while left > 0:
            data = await client.stream.receive_some()
            client.read, left = data[left:], left - len(data)
        await client.hear_answer()


async def test_task_that_is_left_in_the_nursery_is_a_500_and_ends_with_it(lane, capsys) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        carrier: RearmedNursery = scope["extensions"][EXTENSION]

        async def leaves_a_task() -> None:
            await trio.lowlevel.checkpoint()
            carrier.nursery.start_soon(trio.sleep_forever)

        await carrier.run(trio.current_time() + 2, leaves_a_task, trio.lowlevel.checkpoint)

    async with lane(app) as server:
        client = await server.connect()
        await client.say(GET)
        assert (await client.hear_end()).startswith(b"HTTP/1.1 500 ")
        await client.aclose()
        await server.wait_idle()
    assert "left tasks behind" in capsys.readouterr().err


@pytest.mark.parametrize("answers", [True, False])
async def test_work_that_fails_in_the_tick_of_its_deadline_is_answered_once(lane, capsys, answers: bool) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        carrier: RearmedNursery = scope["extensions"][EXTENSION]

        async def unfinished() -> None:
            await send(start(2, 504))
            await send(ok())

        async def fails_as_the_deadline_fires() -> None:
            carrier.expire()
            raise RuntimeError("a bug in the tick of the deadline")

        try:
            if scope["path"] == "/":
                await carrier.run(trio.current_time() + 2, fails_as_the_deadline_fires, unfinished)
        except RuntimeError:
            if not answers:
                raise
            await send(start(2, 503))
            await send(ok())
        else:
            await echo(scope, receive, send)

    async with lane(app) as server:
        client = await server.connect()
        await client.say(GET)
        head = await client.hear_answer(b"ok" if answers else b"internal error\n")
        if answers:
            assert head.startswith(b"HTTP/1.1 503 ")
            await client.say(GET.replace(b"/", b"/next", 1))
            assert (await client.hear_answer()).startswith(b"HTTP/1.1 200 ")
        else:
            assert head.startswith(b"HTTP/1.1 500 ")
            assert await client.hear_end() == b""
        await client.aclose()
        await server.wait_idle()
    assert "a connection failed" not in capsys.readouterr().err


def test_grid_is_a_link_of_the_chain() -> None:
    from collector.deadlines import DeadlineChain

    chain = DeadlineChain.from_config(Config())
    (link,) = [link for link in chain.links if "grid" in link.name]
    assert (link.value, link.relation, link.bound) == (GRID_S, "<", Config().deadlines.answer_s)
    tight = Config(deadlines=DeadlinesConfig(kafka_s=3.1, spool_s=0.8, answer_s=0.1))
    assert any("grid" in problem for problem in DeadlineChain.from_config(tight).problems())
