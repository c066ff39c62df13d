"""Bad input through nginx: each is answered in the dialect's form, and a neighbour on its own connection is served."""

import gzip
import json
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import trio
import trio_websocket

from collector.config import Config
from collector.devtools.collector_child import CollectorChild, open_collector
from collector.devtools.kafka import KafkaCluster
from collector.devtools.nginx import open_nginx
from collector.devtools.raw_http import NoAnswer, Reply, open_http
from collector.devtools.topic_log import read_topic

pytestmark = pytest.mark.integration

ROUNDS = 3
HEAP, SEGMENT = "/api/track", "/v1/track"
GOOD = b'{"writeKey":"k","type":"track","event":"x","userId":"u","messageId":"%s"}'
DEEP = b'{"a":' * 50_000 + b"1" + b"}" * 50_000
BOMB = gzip.compress(b'{"writeKey":"k","event":"' + b"x" * 100_000_000 + b'"}')


@dataclass
class Front:
    """nginx with a collector behind it."""

    address: str
    collector: CollectorChild
    topic: str


@asynccontextmanager
async def open_front(
    new_topic: Callable[[int], str], settings: Callable[[str], dict[str, dict[str, object]]], directory: Path
) -> AsyncIterator[Front]:
    topic = new_topic(6)
    async with AsyncExitStack() as stack:
        collector = await stack.enter_async_context(open_collector(directory / "collector", settings(topic)))
        behind = collector.http.removeprefix("http://")
        nginx = await stack.enter_async_context(
            open_nginx(Config(), directory / "nginx", upstreams=[behind], listen="127.0.0.1:0")
        )
        yield Front(nginx.address, collector, topic)


def assert_form(path: str, reply: Reply) -> None:
    """400 as the dialect of this path says it: plain text for Heap, code and message for Segment."""
    assert reply.status == 400, reply
    assert b"<html" not in reply.body
    if path.startswith("/api/"):
        assert reply.headers["content-type"].startswith("text/plain")
        assert reply.body.strip()
    elif path.startswith("/v1/"):
        assert reply.headers["content-type"].startswith("application/json")
        said = json.loads(reply.body)
        assert set(said) == {"code", "message"}
        assert said["code"]
        assert said["message"]


#: Path, body, further headers.
BODIES: dict[str, tuple[str, bytes, dict[str, str]]] = {
    "heap: no json": (HEAP, b'{"app_id":"1","event":', {}),
    "heap: empty": (HEAP, b"", {}),
    "heap: an array": (HEAP, b"[]", {}),
    "heap: wrong types": (HEAP, b'{"app_id":"1","identity":"u","event":5}', {}),
    "heap: NaN": (HEAP, b'{"app_id":"1","identity":"u","event":"x","properties":{"a":NaN}}', {}),
    "heap: deep": (HEAP, b'{"app_id":"1","identity":"u","event":"x","properties":' + DEEP + b"}", {}),
    "heap: not utf-8": (HEAP, b'{"app_id":"1","identity":"u","event":"\xff\xfe"}', {}),
    "heap: name too long": (HEAP, b'{"app_id":"1","identity":"u","event":"' + b"x" * 1025 + b'"}', {}),
    "heap: no app": (HEAP, b'{"identity":"u","event":"x"}', {}),
    "heap: no identity": (HEAP, b'{"app_id":"1","event":"x"}', {}),
    "heap: both identities": (HEAP, b'{"app_id":"1","identity":"u","user_id":"1","event":"x"}', {}),
    "heap: unknown path": ("/api/trak", b'{"app_id":"1","identity":"u","event":"x"}', {}),
    "heap: 10 MB": (HEAP, b"x" * 10_000_000, {}),
    "segment: no json": (SEGMENT, b"nonsense", {}),
    "segment: wrong types": (SEGMENT, b'{"writeKey":"k","event":["x"],"userId":{}}', {}),
    "segment: NaN": (SEGMENT, b'{"writeKey":"k","event":"x","userId":"u","properties":{"a":NaN}}', {}),
    "segment: infinity": (SEGMENT, b'{"writeKey":"k","event":"x","userId":"u","properties":{"a":-Infinity}}', {}),
    "segment: deep": (SEGMENT, b'{"writeKey":"k","event":"x","userId":"u","properties":' + DEEP + b"}", {}),
    "segment: not utf-8": (SEGMENT, b'{"writeKey":"k","event":"x","userId":"u","properties":{"a":"\xc3\x28"}}', {}),
    "segment: no key": (SEGMENT, b'{"event":"x","userId":"u"}', {}),
    "segment: no user": (SEGMENT, b'{"writeKey":"k","event":"x"}', {}),
    "segment: batch is none": ("/v1/batch", b'{"writeKey":"k","batch":{}}', {}),
    "segment: unknown path": ("/v1/trak", b"{}", {}),
    "segment: 10 MB": ("/v1/batch", b"x" * 10_000_000, {}),
    "segment: gzip bomb": (SEGMENT, BOMB, {"Content-Encoding": "gzip"}),
    "segment: no gzip": (SEGMENT, b"not gzip at all", {"Content-Encoding": "gzip"}),
    "segment: half a gzip": (SEGMENT, gzip.compress(GOOD % b"half")[:30], {"Content-Encoding": "gzip"}),
    "segment: unknown encoding": (SEGMENT, GOOD % b"br", {"Content-Encoding": "br-x"}),
}


@pytest.mark.timeout(120)
async def test_bad_input_is_answered_in_form_and_hurts_no_neighbour(
    kafka: KafkaCluster,
    new_topic: Callable[[int], str],
    settings: Callable[[str], dict[str, dict[str, object]]],
    tmp_path: Path,
) -> None:
    neighbours: list[float] = []

    async def be_a_neighbour() -> None:
        async with open_http(front.address) as http:
            while True:
                body = GOOD % f"n{len(neighbours)}".encode()
                reply = await http.request("POST", SEGMENT, body)
                assert reply.status == 200, reply
                neighbours.append(reply.seconds)
                await trio.sleep(0.01)

    async with open_front(new_topic, settings, tmp_path) as front:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(be_a_neighbour)
            for name, (path, body, headers) in [*BODIES.items()] * ROUNDS:
                async with open_http(front.address) as http:
                    reply = await http.request("POST", path, body, headers)
                try:
                    assert_form(path, reply)
                except AssertionError as error:
                    raise AssertionError(f"{name}: {reply}") from error
            await _bad_manners(front.address)
            nursery.cancel_scope.cancel(reason="enough")
        # nginx carries the neighbour's last request through, whoever has gone.
        with trio.fail_after(5):
            while True:
                stats = await front.collector.stats()
                if stats["sources"]["ledger"]["in_work"] == 0:
                    break
                await trio.sleep(0.05)
        topic = front.topic
    assert len(neighbours) > 10
    assert max(neighbours) < 2.0
    ledger = stats["sources"]["ledger"]
    assert ledger["difference"] == 0
    assert stats["sources"]["admission"]["in_work_bytes"] == 0
    stored = await trio.to_thread.run_sync(read_topic, kafka.bootstrap_servers, topic)
    assert {record.envelope.id for record in stored} >= {f"n{number}" for number in range(len(neighbours))}
    assert all(record.envelope.id.startswith("n") for record in stored), "something bad was accepted"


async def _bad_manners(address: str) -> None:
    """What is wrong before a body is read."""
    async with open_http(address) as http:
        reply = await http.request("PUT", SEGMENT, GOOD % b"put")
        assert reply.status in (400, 405), reply
        assert set(json.loads(reply.body)) == {"code", "message"}
    async with open_http(address) as http:
        assert (await http.request("GET", HEAP)).status in (400, 405)
    # Content-Length says less than there is: what is left over is no request, and only this connection suffers.
    async with open_http(address) as http:
        body = GOOD % b"lie"
        lying = b"POST /v1/track HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n" + body
        assert_form(SEGMENT, await http.exchange(lying))
        rest = await http.read_reply()
        assert rest.status == 400
        assert b"<html" not in rest.body
    # Content-Length says more than there is, and the client gives up: nothing reaches the collector.
    async with open_http(address) as http:
        await http.stream.send_all(b"POST /v1/track HTTP/1.1\r\nHost: a\r\nContent-Length: 500\r\n\r\n" + body)
        await http.stream.send_eof()
        with pytest.raises(NoAnswer):
            await http.read_reply()


@pytest.mark.parametrize("server", ["lane", "stock"])
async def test_half_a_body_is_400_in_form_on_the_bare_port(
    new_topic: Callable[[int], str],
    settings: Callable[[str], dict[str, dict[str, object]]],
    tmp_path: Path,
    server: str,
) -> None:
    http_settings = {"body_timeout_s": 0.5, "server": server}
    configured: dict[str, dict[str, object]] = {**settings(new_topic(1)), "http": http_settings}
    async with open_collector(tmp_path, configured) as collector, open_http(collector.http) as http:
        reply = await http.exchange(b"POST /v1/track HTTP/1.1\r\nHost: a\r\nContent-Length: 500\r\n\r\n{")
        assert_form(SEGMENT, reply)
        assert reply.headers["connection"] == "close"
        assert reply.seconds < 3


async def close_code_after(address: str, message: bytes) -> int:
    """Send one text message on a fresh websocket and return the code of the server's close frame."""
    mask = b"\0\0\0\0"
    async with open_http(address) as http:
        upgrade = "GET /v1/ws?key=k HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        key = "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        assert (await http.exchange((upgrade + key).encode())).status == 101
        size = len(message)
        length = bytes([0x80 | size]) if size < 126 else b"\xff" + size.to_bytes(8, "big")
        await http.stream.send_all(b"\x81" + length + mask + message)
        received = b""
        with trio.fail_after(10):
            await trio.lowlevel.checkpoint()
            while (at := received.find(b"\x88")) < 0 or len(received) < at + 4:
                chunk = await http.stream.receive_some(65536)
                assert chunk, received
                received += chunk
    return int.from_bytes(received[at + 2 : at + 4], "big")


async def test_bad_websocket_messages_end_nobody_else(
    new_topic: Callable[[int], str], settings: Callable[[str], dict[str, dict[str, object]]], tmp_path: Path
) -> None:
    event = '{"type":"track","event":"x","userId":"u"}'

    async def next_ack(socket: trio_websocket.WebSocketConnection) -> dict[str, object]:
        with trio.fail_after(10):
            while True:
                frame: dict[str, object] = json.loads(await socket.get_message())
                if frame["op"] != "credit":
                    return frame

    async with (
        open_front(new_topic, settings, tmp_path) as front,
        trio_websocket.open_websocket_url(f"ws://{front.address}/v1/ws?key=k") as neighbour,
    ):
        url = f"ws://{front.address}/v1/ws?key=k"
        hello = json.loads(await neighbour.get_message())
        # A message whose body is bad is rejected, and the session goes on.
        async with trio_websocket.open_websocket_url(url) as socket:
            await socket.get_message()
            await socket.send_message('{"op":"track","id":1,"api":"segment","body":{"event":"x"}}')
            ack = await next_ack(socket)
            assert (ack["op"], ack["id"], ack["status"]) == ("ack", 1, "rejected"), ack
            await socket.send_message(f'{{"op":"track","id":2,"api":"segment","body":{event}}}')
            assert (await next_ack(socket))["op"] == "ack"
        # More than the credit: busy for that id.
        async with trio_websocket.open_websocket_url(url) as socket:
            await socket.get_message()
            filler = "x" * (hello["max_bytes"] - 200)
            large = f'{{"type":"track","event":"x","userId":"u","properties":{{"a":"{filler}"}}}}'
            count = hello["credit"] // len(large) + 3
            for number in range(1, count + 1):
                await socket.send_message(f'{{"op":"track","id":{number},"api":"segment","body":{large}}}')
            answered: dict[int, object] = {}
            upto = 0
            while len(answered) + upto < count:
                ack = await next_ack(socket)
                assert ack["op"] == "ack", ack
                if "upto" in ack:
                    upto = int(str(ack["upto"])) - sum(1 for named in answered if named <= int(str(ack["upto"])))
                else:
                    answered[int(str(ack["id"]))] = ack["status"]
        # What is no message of ours is said to be none, and the session goes on.
        async with trio_websocket.open_websocket_url(url) as socket:
            await socket.get_message()
            for bad in ('{"op":"dance"}', "nonsense", '{"op":"track","id":"one"}', "[]"):
                await socket.send_message(bad)
                assert (await next_ack(socket))["op"] == "error"
            await socket.send_message(f'{{"op":"track","id":1,"api":"segment","body":{event}}}')
            assert (await next_ack(socket))["op"] == "ack"
        # What is too large, and an id that does not follow, closes the session with a code.
        skipped = f'{{"op":"track","id":7,"api":"segment","body":{event}}}'
        for bad, code in (("x" * (hello["max_bytes"] + 1), 1009), (skipped, 1002)):
            assert await close_code_after(front.address, bad.encode()) == code
        await neighbour.send_message(f'{{"op":"track","id":1,"api":"segment","body":{event}}}')
        assert (await next_ack(neighbour))["op"] == "ack"
        with trio.fail_after(10):
            stats = await front.collector.stats()
        assert stats["sources"]["ledger"]["difference"] == 0
