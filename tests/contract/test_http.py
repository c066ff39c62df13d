"""Hypercorn's HTTP/1.1 on Trio: what it does by itself, and that our way with it holds."""

import math
import socket
import struct
from dataclasses import replace
from importlib.metadata import version

import pytest
import trio

from collector.config import Config, HttpConfig, LimitsConfig, ShutdownConfig
from collector.web.asgi_types import Receive, Scope, Send
from collector.web.body import RequestBody, send_parked
from collector.web.lane import connection as connection_module
from collector.web.lane.cycle import Cycle
from collector.web.listeners import open_listener
from collector.web.server import hypercorn_config, server_for

CONFIG = Config(
    http=HttpConfig(bind="127.0.0.1:0", server="stock", send_timeout_s=1.0), shutdown=ShutdownConfig(drain_s=2.0)
)

START = {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]}
BODY = {"type": "http.response.body", "body": b"ok"}

#: More messages than Hypercorn holds for an application (ten), and no end.
UNFINISHED = b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * 40
GET = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"


async def answer(client: trio.SocketStream) -> bytes:
    """One whole answer of the applications below."""
    received = b""
    with trio.fail_after(3):  # noqa: ASYNC912  # the loop waits
        while not received.endswith(b"ok"):
            data = await client.receive_some()
            assert data, received
            received += data
    return received  # noqa: ASYNC910  # the loop waits


async def lifespan(receive: Receive, send: Send) -> None:
    for kind in ("startup", "shutdown"):
        await receive()
        await send({"type": f"lifespan.{kind}.complete"})


async def answering(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers without looking at the body, once the queue is full."""
    if scope["type"] == "lifespan":
        await lifespan(receive, send)
        return
    await trio.sleep(0.1)
    await send(START)
    await send(BODY)


async def answering_parked(scope: Scope, receive: Receive, send: Send) -> None:
    """The same, our way."""
    if scope["type"] == "lifespan":
        await lifespan(receive, send)
        return
    await trio.sleep(0.1)
    await send_parked(RequestBody(receive), send, [dict(START), dict(BODY)])


def test_hypercorn_is_the_version_that_the_seam_was_written_for() -> None:
    assert version("hypercorn").startswith("0.18.")


async def test_answering_with_a_full_queue_stock_never_ends_the_connection(stock) -> None:
    async with stock(answering) as server:
        async with await server.connect() as client:
            await client.send_all(UNFINISHED)
            assert b"200" in await answer(client)
        assert not await server.wait_left(0, 1.0), "Hypercorn ends the connection now: is parking still needed?"


async def test_answering_with_a_full_queue_parked_in_receive_leaves_nothing(stock) -> None:
    async with stock(answering_parked) as server:
        async with await server.connect() as client:
            await client.send_all(UNFINISHED)
            assert b"200" in await answer(client)
        assert await server.wait_left(0, 1.0)


async def flooding(scope: Scope, receive: Receive, send: Send) -> None:
    """Sends more than the socket's buffers hold."""
    if scope["type"] == "lifespan":
        await lifespan(receive, send)
        return
    await receive()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": bytes(64 * 1024 * 1024)})


async def test_client_that_does_not_read_stock_outlives_the_graceful_timeout(stock) -> None:
    async with stock(flooding, graceful_timeout=0.3) as server:
        client = await server.connect(receive_buffer=4096)
        async with client:
            await client.send_all(GET)
            await trio.sleep(0.2)
            server.shutdown.set()
            with trio.move_on_after(2.0):
                await server.ended.wait()
            assert not server.ended.is_set(), "sends are not shielded any more: is TCP_USER_TIMEOUT still needed?"


async def test_client_that_does_not_read_ours_is_dropped(ours) -> None:
    async with ours(flooding, CONFIG) as server:  # TCP_USER_TIMEOUT of one second
        client = await server.connect(receive_buffer=4096)
        async with client:
            await client.send_all(GET)
            await trio.sleep(0.2)
            assert server.left() > 0
            assert await server.wait_left(0, 5.0)


async def flooding_with_a_deadline(scope: Scope, receive: Receive, send: Send) -> None:
    """The same, under a deadline: the answer is cut off in the middle."""
    with trio.move_on_after(0.1 if scope["type"] == "http" else math.inf):
        await flooding(scope, receive, send)


async def leave_with_a_request_unread(server) -> None:
    """Send two requests, read nothing, and go with a reset after the first one's deadline."""
    client = await server.connect(receive_buffer=4096)
    await client.send_all(GET + GET)
    await trio.sleep(0.3)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    await client.aclose()


async def test_answer_cut_off_before_a_pipelined_request_stock_never_ends_the_connection(stock) -> None:
    async with stock(flooding_with_a_deadline) as server:
        await leave_with_a_request_unread(server)
        assert not await server.wait_left(0, 1.0), "Hypercorn ends its reader now: is ending it still needed?"


async def test_answer_cut_off_before_a_pipelined_request_ours_leaves_nothing(ours) -> None:
    async with ours(flooding_with_a_deadline, CONFIG) as server:
        await leave_with_a_request_unread(server)
        assert await server.wait_left(0, 1.0)


async def test_client_that_does_not_read_ours_ends_with_the_drain(ours) -> None:
    config = replace(CONFIG, http=replace(CONFIG.http, send_timeout_s=600), shutdown=ShutdownConfig(drain_s=0.5))
    async with ours(flooding, config) as server:
        client = await server.connect(receive_buffer=4096)
        async with client:
            await client.send_all(GET)
            await trio.sleep(0.2)
            server.shutdown.set()
            with trio.fail_after(3.0):
                await server.ended.wait()


async def reading(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "lifespan":
        await lifespan(receive, send)
        return
    body = RequestBody(receive)
    await body.discard(LimitsConfig())
    await send_parked(body, send, [dict(START), dict(BODY)])


async def test_read_timeout_stock_leaves_the_connection_open_and_deaf(stock) -> None:
    async with stock(reading, read_timeout=0.2, keep_alive_timeout=30) as server:
        async with await server.connect() as client:
            await trio.sleep(0.4)
            await client.send_all(GET)
            with trio.move_on_after(1.0) as waiting:
                await client.receive_some()
            assert waiting.cancelled_caught, "the connection is answered or closed now: could read_timeout be set?"


async def test_read_timeout_ours_is_unset_and_a_late_request_is_answered(ours) -> None:
    config = hypercorn_config(CONFIG, await open_listener(CONFIG.http))
    assert config.read_timeout is None
    with socket.socket(fileno=int(config.bind[0].removeprefix("fd://"))):
        pass
    async with ours(reading, CONFIG) as server:
        async with await server.connect() as client:
            await trio.sleep(0.4)
            await client.send_all(GET)
            assert b"200" in await answer(client)


@pytest.mark.parametrize("ours", ["stock"], indirect=True)
async def test_half_a_head_is_bounded_by_the_idle_timeout(ours) -> None:
    config = replace(CONFIG, http=replace(CONFIG.http, idle_timeout_s=0.3))
    async with ours(reading, config) as server:
        async with await server.connect() as client:
            await client.send_all(b"POST /v1/track HTTP/1.1\r\nhost:")
            with trio.fail_after(3.0):
                assert await client.receive_some() == b""
        assert await server.wait_left(0, 1.0)


async def test_client_that_leaves_stock_keeps_the_connection_until_the_idle_timeout(stock) -> None:
    async with stock(reading, keep_alive_timeout=30) as server:
        async with await server.connect() as client:
            await client.send_all(GET)
            await answer(client)
            await trio.sleep(0.1)  # idle before it leaves
        assert not await server.wait_left(0, 1.0), "connections end with their client now: see Connection._read_data"


async def test_client_that_leaves_ours_leaves_nothing(ours) -> None:
    async with ours(reading, CONFIG) as server:
        for _ in range(3):
            async with await server.connect() as client:
                await client.send_all(GET)
                await answer(client)
        assert await server.wait_left(0, 1.0)


async def test_broken_head_stock_answers_400_without_the_application(stock) -> None:
    async with stock(reading) as server:
        async with await server.connect() as client:
            await client.send_all(b"POST / HTTP/1.1\r\ncontent-length: many\r\n\r\n")
            head = await client.receive_some()
            assert b" 400 " in head
            assert b"connection: close" in head
            assert await client.receive_some() == b""


async def test_idle_connection_stock_is_closed_when_the_shutdown_begins(stock) -> None:
    async with stock(reading, graceful_timeout=5, keep_alive_timeout=60) as server:
        async with await server.connect() as client:
            await client.send_all(GET)
            assert b"200" in await answer(client)
            server.shutdown.set()
            with trio.fail_after(1.0):
                assert await client.receive_some() == b""


def test_defaults_that_are_set_differently() -> None:
    from hypercorn.config import Config as HypercornConfig

    stock = HypercornConfig()
    assert (stock.graceful_timeout, stock.backlog, stock.keep_alive_timeout) == (3.0, 100, 5.0)
    assert (stock.keep_alive_max_requests, stock.max_app_queue_size, stock.read_timeout) == (1000, 10, None)


async def test_our_settings_come_from_the_chain_of_deadlines() -> None:
    config = Config(http=replace(CONFIG.http, idle_timeout_s=91.0, backlog=77), shutdown=ShutdownConfig(drain_s=12.0))
    settings = hypercorn_config(config, await open_listener(config.http))
    with socket.socket(fileno=int(settings.bind[0].removeprefix("fd://"))) as listener:
        assert listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 1000
    assert (settings.graceful_timeout, settings.backlog, settings.keep_alive_timeout) == (12.0, 77, 91.0)
    assert settings.keep_alive_max_requests > 100_000


async def test_listening_socket_handed_over_is_closed_by_hypercorn(ours) -> None:
    listener = await open_listener(CONFIG.http)
    number = listener.fileno()
    settings = hypercorn_config(CONFIG, listener)
    assert settings.bind == [f"fd://{number}"]
    assert listener.fileno() == -1
    socket.socket(fileno=number).close()
    async with ours(reading, CONFIG) as server:
        server.shutdown.set()
        with trio.fail_after(2):
            await server.ended.wait()
        with pytest.raises(OSError):
            await server.connect()


async def failing_protocol(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "lifespan":
        await lifespan(receive, send)
        return
    await reading(scope, receive, send)


async def test_exception_in_one_connection_stock_ends_the_server(stock, monkeypatch) -> None:
    _break_one_connection(monkeypatch)

    async def one_broken_request() -> None:
        async with stock(failing_protocol) as server:
            async with await server.connect() as client:
                await client.send_all(b"GET /broken HTTP/1.1\r\nhost: x\r\n\r\n")
                with trio.move_on_after(2):
                    await server.ended.wait()

    with pytest.raises(BaseExceptionGroup):  # noqa: ASYNC401  # of several depths
        await one_broken_request()


async def test_exception_in_one_connection_ours_is_logged_and_the_server_goes_on(ours, monkeypatch, capsys) -> None:
    _break_one_connection(monkeypatch)
    async with ours(failing_protocol, CONFIG) as server:
        async with await server.connect() as client:
            await client.send_all(b"GET /broken HTTP/1.1\r\nhost: x\r\n\r\n")
            with trio.fail_after(2):
                assert await client.receive_some() == b""
        async with await server.connect() as client:
            await client.send_all(GET)
            assert b"200" in await answer(client)
    assert "a connection failed" in capsys.readouterr().err


def _break_one_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    from hypercorn.protocol.h11 import H11Protocol

    whole = H11Protocol._create_stream

    async def broken(self, request):
        if request.target == b"/broken":
            raise RuntimeError("a bug in the server")
        await whole(self, request)

    def broken_lane(connection, request):
        if request.target == b"/broken":
            raise RuntimeError("a bug in the server")
        return Cycle(connection, request)

    monkeypatch.setattr(H11Protocol, "_create_stream", broken)
    monkeypatch.setattr(connection_module, "Cycle", broken_lane)


async def test_connections_beyond_the_bound_are_turned_away(ours) -> None:
    config = replace(CONFIG, limits=replace(LimitsConfig(), connections=1))
    async with ours(reading, config) as server:
        async with await server.connect() as first:
            await first.send_all(GET)
            assert b"200" in await answer(first)
            async with await server.connect() as second:
                with trio.fail_after(1):
                    # With a 503 or without a word: see test_differences.
                    while await second.receive_some():
                        pass
            await first.send_all(GET)
            assert b"200" in await answer(first)
        assert await server.wait_left(0, 1.0)
        async with await server.connect() as third:
            await third.send_all(GET)
            assert b"200" in await answer(third)
        assert server.limits.statistics().turned_away_total == 1


@pytest.mark.parametrize("ours", ["lane"], indirect=True)
async def test_hypercorn_that_does_not_start_the_lane_is_said_and_the_stock_server_serves(
    ours, monkeypatch, capsys
) -> None:
    lane = replace(CONFIG, http=replace(CONFIG.http, server="lane"))
    assert server_for(lane) == "lane"
    monkeypatch.setattr("collector.web.server.lane_fits", lambda: False)
    assert server_for(lane) == "stock"
    async with ours(reading, lane) as server:
        async with await server.connect() as client:
            await client.send_all(GET)
            assert b"200" in await answer(client)
    assert "the stock server serves" in capsys.readouterr().err


def test_lane_fits_only_where_hypercorn_starts_a_connection_by_its_name(monkeypatch) -> None:
    import hypercorn.trio.run as hypercorn_run

    from collector.web.stock import lane_fits

    assert lane_fits()

    async def another_way(app: object, config: object) -> None: ...

    monkeypatch.setattr(hypercorn_run, "worker_serve", another_way)
    assert not lane_fits()
