"""The whole web room behind real sockets: manners of real clients, good and bad. Real time, with bounds."""

import gzip
from contextlib import asynccontextmanager

import msgspec
import pytest
import trio
import trio_websocket

from collector.config import HttpConfig
from collector.devtools.raw_http import NoAnswer, open_http
from collector.lifecycle import Phase
from collector.web.listeners import open_listener

EVENT = b'{"app_id":"a","identity":"u","event":"e"}'


def post(body: bytes, *headers: str, path: str = "/api/track", length: int | None = None) -> bytes:
    lines = [f"POST {path} HTTP/1.1", "host: x", f"content-length: {len(body) if length is None else length}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


@asynccontextmanager
async def websocket(port: int, path: str = "/v1/ws", **options):
    async with trio_websocket.open_websocket("127.0.0.1", port, path, use_ssl=False, **options) as connection:
        try:
            yield connection
        finally:
            # trio-websocket 0.12 leaves its socket open where the server closed first.
            await connection._stream.aclose()  # closing a socket is immediate


async def test_requests_of_one_connection_are_answered_one_after_the_other(web, serve) -> None:
    async with serve(web) as (host, port), open_http(f"{host}:{port}") as http:
        for _ in range(5):
            reply = await http.request("POST", "/api/track", EVENT)
            assert (reply.status, reply.body) == (200, b"{}")
        await http.stream.send_all(post(EVENT) * 3)
        assert [(await http.read_reply()).status for _ in range(3)] == [200] * 3
    assert len(web.values()) == 8
    web.assert_idle()


async def test_client_that_hangs_up_after_its_body_has_sent_its_event(web, serve, until) -> None:
    await web.track()
    web.cluster.faults.delay(0.3)
    async with serve(web) as (host, port):
        stream = await trio.open_tcp_stream(host, port)
        await stream.send_all(post(EVENT))
        await stream.aclose()
        await until(lambda: web.books.delivered_total == 2)
        await until(lambda: web.books.in_work == 0)
    web.assert_idle()


BROKEN_HEADS = {
    "no http": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "no version": b"POST /api/track\r\n\r\n",
    "a header without a colon": b"POST /api/track HTTP/1.1\r\nhost x\r\n\r\n",
    "a length that is no number": b"POST /api/track HTTP/1.1\r\nhost: x\r\ncontent-length: ten\r\n\r\n",
    "a negative length": b"POST /api/track HTTP/1.1\r\nhost: x\r\ncontent-length: -1\r\n\r\n",
    "two lengths": b"POST /api/track HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n",
    "a head without an end": b"POST /api/track HTTP/1.1\r\nhost: x\r\nx: " + b"a" * 70_000,
    "a broken chunk": b"POST /api/track HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
    "no host": b"POST /api/track HTTP/1.1\r\ncontent-length: 0\r\n\r\n",
}


@pytest.mark.parametrize("name", BROKEN_HEADS)
async def test_broken_head_is_400_and_closed_and_hurts_no_neighbour(web, serve, until, name: str) -> None:
    async with serve(web) as (host, port), open_http(f"{host}:{port}") as neighbour:
        assert (await neighbour.request("POST", "/api/track", EVENT)).status == 200
        async with open_http(f"{host}:{port}") as http:
            with trio.fail_after(3):
                assert (await http.exchange(BROKEN_HEADS[name])).status in (400, 431)
                with pytest.raises(NoAnswer):
                    await http.read_reply()
        assert (await neighbour.request("POST", "/api/track", EVENT)).status == 200
    web.assert_idle()


async def test_length_that_promises_too_much_is_400_after_the_body_timeout(open_web, serve) -> None:
    async with open_web(http={"body_timeout_s": 0.3}) as web:
        async with serve(web) as (host, port), open_http(f"{host}:{port}") as http:
            with trio.fail_after(3):
                reply = await http.exchange(post(EVENT, length=len(EVENT) + 10))
            assert (reply.status, reply.headers["connection"]) == (400, "close")
            with pytest.raises(NoAnswer):
                await http.read_reply()
        web.assert_idle()


async def test_length_that_promises_too_little_leaves_the_rest_to_the_next_head(web, serve) -> None:
    async with serve(web) as (host, port), open_http(f"{host}:{port}") as http:
        first = await http.exchange(post(EVENT, length=len(EVENT) - 5))
        assert first.status == 400
        with trio.fail_after(3):
            assert (await http.exchange(post(EVENT))).status == 400
            with pytest.raises(NoAnswer):
                await http.read_reply()
    web.assert_idle()


async def test_body_that_stops_and_hangs_up_leaves_nothing(web, serve, until) -> None:
    async with serve(web) as (host, port):
        stream = await trio.open_tcp_stream(host, port)
        await stream.send_all(post(b"{", length=1000))
        await until(lambda: web.services.admission.statistics().in_work_bytes == 1000)
        await stream.aclose()
        await until(lambda: web.books.unparsed_requests_total == 1)
    web.assert_idle()


async def test_ten_megabytes_are_read_refused_and_the_connection_is_closed(web, serve) -> None:
    async with serve(web) as (host, port), open_http(f"{host}:{port}") as http:
        with trio.fail_after(10):
            reply = await http.request("POST", "/v1/track", bytes(10_000_000))
        assert (reply.status, msgspec.json.decode(reply.body)["code"]) == (400, "too_large")
        assert reply.headers["connection"] == "close"
    web.assert_idle()


async def test_six_megabytes_are_refused_and_the_connection_lives_on(web, serve) -> None:
    async with serve(web) as (host, port), open_http(f"{host}:{port}") as http:
        with trio.fail_after(10):
            reply = await http.request("POST", "/v1/track", bytes(6_000_000))
            assert (reply.status, reply.headers.get("connection")) == (400, None)
            assert (await http.request("POST", "/api/track", EVENT)).status == 200


async def test_bomb_among_neighbours(web, serve) -> None:
    bomb = gzip.compress(bytes(200_000_000))
    statuses = []
    async with serve(web) as (host, port):

        async def good() -> None:
            async with open_http(f"{host}:{port}") as http:
                for _ in range(10):
                    reply = await http.request("POST", "/api/track", EVENT)
                    statuses.append(reply.status)

        async def bad() -> None:
            async with open_http(f"{host}:{port}") as http:
                reply = await http.request("POST", "/v1/track", bomb, {"content-encoding": "gzip"})
                assert (reply.status, msgspec.json.decode(reply.body)["code"]) == (400, "too_large")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(good)
            nursery.start_soon(bad)
            nursery.start_soon(good)
    assert statuses == [200] * 20
    web.assert_idle()


async def test_shed_request_keeps_its_connection(open_web, serve) -> None:
    async with open_web(limits={"in_work_bytes": 1000}) as web:
        async with serve(web) as (host, port), open_http(f"{host}:{port}") as http:
            with trio.fail_after(5):
                for _ in range(3):
                    reply = await http.request("POST", "/api/track", bytes(500_000))
                    assert reply.status == 503
                    assert 4 <= int(reply.headers["retry-after"]) <= 8
                    assert (await http.request("POST", "/api/track", EVENT)).status == 200
        web.assert_idle()


async def test_expect_continue_is_answered(web, serve) -> None:
    async with serve(web) as (host, port), open_http(f"{host}:{port}") as http:
        await http.stream.send_all(post(b"", "expect: 100-continue", length=len(EVENT)))
        assert (await http.read_reply()).status == 100
        assert (await http.exchange(EVENT)).status == 200


async def test_leaving_then_draining(web, serve) -> None:
    async with serve(web) as (host, port), open_http(f"{host}:{port}") as http, open_http(f"{host}:{port}") as other:
        assert (await http.request("POST", "/api/track", EVENT)).status == 200
        assert (await other.request("POST", "/api/track", EVENT)).status == 200
        web.services.lifecycle.advance(Phase.LEAVING)
        reply = await http.request("POST", "/api/track", EVENT)
        assert (reply.status, reply.headers["connection"]) == (200, "close")
        async with open_http(f"{host}:{port}") as late:
            assert (await late.request("POST", "/api/track", EVENT)).status == 200
        web.cluster.faults.delay(0.5)
        await other.stream.send_all(post(EVENT))
        await trio.sleep(0.1)
        web.services.lifecycle.advance(Phase.DRAINING)
        with trio.fail_after(3):
            reply = await other.read_reply()
        assert (reply.status, reply.headers["connection"]) == (200, "close")
        with pytest.raises(OSError):
            await trio.open_tcp_stream(host, port)
    web.assert_idle()


async def frames_until(connection, op: str) -> list[dict]:
    frames = []
    with trio.fail_after(5):  # noqa: ASYNC912  # the loop waits
        while not frames or frames[-1]["op"] != op:
            frames.append(msgspec.json.decode(await connection.get_message()))
    return frames  # noqa: ASYNC910  # Hypercorn's shape


async def test_websocket_from_hello_to_drain(web, serve) -> None:
    async with serve(web) as (_, port), websocket(port, subprotocols=["collector.v1"]) as connection:
        assert connection.subprotocol == "collector.v1"
        assert (await frames_until(connection, "hello"))[0]["v"] == 1
        await connection.send_message('{"op":"track","id":1,"api":"heap","body":' + EVENT.decode() + "}")
        frames = await frames_until(connection, "credit")
        assert {"op": "ack", "upto": 1} in frames
        started = trio.current_time()
        web.services.lifecycle.advance(Phase.DRAINING)
        assert (await frames_until(connection, "drain"))[-1]["retry_after_s"] >= 4
        with pytest.raises(trio_websocket.ConnectionClosed) as closed:
            await connection.get_message()
        assert closed.value.reason.code == 1012
    assert trio.current_time() - started < 1.5, "the server ends with its last websocket"
    web.assert_idle()


async def test_websocket_with_another_subprotocol_is_refused_with_400(web, serve) -> None:
    upgrade = {
        "upgrade": "websocket",
        "connection": "upgrade",
        "sec-websocket-version": "13",
        "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ==",
        "sec-websocket-protocol": "mqtt",
    }
    async with serve(web) as (host, port), open_http(f"{host}:{port}") as http:
        reply = await http.request("GET", "/v1/ws", headers=upgrade)
        assert reply.status == 400
        assert b"collector.v1" in reply.body
        with pytest.raises(NoAnswer):
            await http.read_reply()


async def test_websocket_message_above_the_limit_is_closed_with_1009(open_web, serve) -> None:
    async with open_web(limits={"websocket_message_bytes": 1000}) as web:
        async with serve(web) as (_, port):
            for message in ("x" * 5000, "ü" * 600, b"x" * 5000):
                async with websocket(port) as connection:
                    await frames_until(connection, "hello")
                    await connection.send_message(message)
                    with trio.fail_after(3), pytest.raises(trio_websocket.ConnectionClosed) as closed:
                        await connection.get_message()
                    assert closed.value.reason.code == 1009
        web.assert_idle()


async def test_websocket_that_floods_and_never_answers_our_close_is_cut(web, serve, until) -> None:
    """The leak of design §7 for websockets, through our own session."""
    from wsproto import WSConnection
    from wsproto.connection import ConnectionType
    from wsproto.events import AcceptConnection, Request, TextMessage

    async with serve(web) as (host, port):
        protocol = WSConnection(ConnectionType.CLIENT)
        stream = await trio.open_tcp_stream(host, port)
        async with stream:
            await stream.send_all(protocol.send(Request(host="x", target="/v1/ws")))
            while not any(isinstance(event, AcceptConnection) for event in protocol.events()):
                protocol.receive_data(await stream.receive_some())
            web.services.lifecycle.advance(Phase.DRAINING)
            started = trio.current_time()
            flood = protocol.send(TextMessage(data="{}"))
            with trio.fail_after(6):  # noqa: ASYNC912  # the loop waits
                try:
                    while True:
                        await stream.send_all(flood * 50)
                        await trio.sleep(0.01)
                except trio.BrokenResourceError:
                    pass
    assert trio.current_time() - started < 3.5
    web.assert_idle()


async def test_listener_on_ipv6_and_names_that_do_not_resolve(open_web, serve) -> None:
    async with open_web(http={"bind": "[::1]:0"}) as web:
        async with serve(web) as (host, port), open_http(f"{host}:{port}") as http:
            assert host == "[::1]"
            assert (await http.request("POST", "/api/track", EVENT)).status == 200
    with pytest.raises(OSError, match=r"http\.bind: no\.such\.name\.invalid:80: "):
        await open_listener(HttpConfig(bind="no.such.name.invalid:80"))
