"""Real nginx with the rendered configuration, in front of a scripted upstream: what clients see when things go wrong.

The upstream is a dozen lines of raw TCP, so that each test says byte for byte what the collector would have done.
"""

import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import httpx  # noqa: ASYNC127  # the design names httpx; its successor httpx2 is not established yet
import pytest
import trio

from collector.config import Config, DeadlinesConfig, LimitsConfig, PrivacyConfig
from collector.deadlines import DeadlineChain
from collector.devtools.nginx import Nginx, NginxUnavailable, open_nginx
from collector.nginx import render_nginx

pytestmark = pytest.mark.integration

#: proxy_read_timeout comes to 0.75 s, so that a test of the 504 is short.
QUICK = Config(
    deadlines=DeadlinesConfig(kafka_s=0.3, spool_s=0.08, answer_s=0.02, stall_s=0.2),
    limits=LimitsConfig(body_bytes=100_000),
)

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Type: application/json\r\n\r\n{}"

Script = Callable[[trio.SocketStream, "Upstream"], Awaitable[None]]


@dataclass
class Upstream:
    """What the collector's place in the test has seen."""

    connections: int = 0
    requests: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list)
    address: str = ""


async def read_request(stream: trio.SocketStream) -> tuple[str, dict[str, str], bytes] | None:
    """Read one request with a Content-Length."""
    await trio.lowlevel.checkpoint()
    buffered = b""
    while b"\r\n\r\n" not in buffered:
        chunk = await stream.receive_some(65536)
        if not chunk:
            return None
        buffered += chunk
    head, _, body = buffered.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    while len(body) < int(headers.get("content-length", "0")):
        body += await stream.receive_some(65536)
    return first, headers, body


async def always_ok(stream: trio.SocketStream, upstream: Upstream) -> None:
    while request := await read_request(stream):
        upstream.requests.append(request)
        await stream.send_all(OK)


@asynccontextmanager
async def open_pair(
    directory: Path, script: Script = always_ok, config: Config = QUICK
) -> AsyncIterator[tuple[Nginx, Upstream, httpx.AsyncClient]]:
    upstream = Upstream()

    async def serve(stream: trio.SocketStream) -> None:
        upstream.connections += 1
        try:
            await script(stream, upstream)
        except trio.BrokenResourceError:
            pass
        finally:
            await stream.aclose()

    async with trio.open_nursery() as nursery:
        serve_tcp = partial(trio.serve_tcp, serve, 0, host="127.0.0.1")
        listeners: list[trio.SocketListener] = await nursery.start(serve_tcp)
        host, port = listeners[0].socket.getsockname()[:2]
        upstream.address = f"{host}:{port}"
        async with (
            open_nginx(config, directory, upstreams=[upstream.address], listen="127.0.0.1:0") as nginx,
            # verify: nothing is encrypted here, and reading the authorities takes longer than most of these tests.
            httpx.AsyncClient(base_url=f"http://{nginx.address}", timeout=10, trust_env=False, verify=False) as client,
        ):
            yield nginx, upstream, client
        nursery.cancel_scope.cancel(reason="the test is over")


async def logged(nginx: Nginx, count: int) -> list[dict[str, str]]:
    """The access log, once it has so many lines."""
    with trio.fail_after(5):
        while True:
            text = await trio.Path(nginx.access_log).read_text()
            rows: list[dict[str, str]] = [json.loads(line) for line in text.splitlines()]
            if len(rows) >= count:
                return rows
            await trio.sleep(0.05)


async def raw(nginx: Nginx, sent: bytes) -> str:
    """Send bytes as they are and read until the end."""
    host, _, port = nginx.address.partition(":")
    stream = await trio.open_tcp_stream(host, int(port))
    received = b""
    async with stream:
        with trio.move_on_after(5):
            await stream.send_all(sent)
            # nginx reads on for a while after its answer, so the end of the connection is not waited for.
            async for chunk in stream:
                received += chunk
                head, _, body = received.partition(b"\r\n\r\n")
                length = re.search(rb"Content-Length: (\d+)", head)
                if length is not None and len(body) >= int(length[1]):
                    break
    return received.decode()


def test_rendered_file_is_what_the_defaults_render() -> None:
    file = Path(__file__).parent / "nginx.conf"
    assert file.read_text() == render_nginx(Config()), "collector render nginx > nginx/nginx.conf"


def test_numbers_follow_the_chain() -> None:
    config = Config(deadlines=DeadlinesConfig(kafka_s=2.0), limits=LimitsConfig(body_bytes=123_456))
    chain = DeadlineChain.from_config(config)
    text = render_nginx(config)
    assert f"proxy_read_timeout {round(chain.proxy_read_timeout_s * 1000)}ms;" in text
    assert f"proxy_read_timeout {chain.websocket_read_timeout_s:g}s;" in text
    assert f"keepalive_timeout {chain.upstream_keepalive_timeout_s:g}s;" in text
    assert f"keepalive_requests {chain.upstream_keepalive_requests};" in text
    assert "client_max_body_size 123456;" in text
    assert "max_fails=0;" in text
    assert "proxy_next_upstream error timeout;" in text
    assert f"proxy_next_upstream_timeout {round(chain.proxy_next_upstream_timeout_s * 1000)}ms;" in text
    assert "non_idempotent" not in text


async def test_request_passes_unchanged_and_the_connection_is_kept(tmp_path: Path) -> None:
    async with open_pair(tmp_path) as (_, upstream, client):
        for number in range(5):
            answer = await client.post("/v1/track", content=b' {"a" :1}', headers={"X-Request-Id": f"mine-{number}"})
            assert (answer.status_code, answer.content) == (200, b"{}")
        assert upstream.connections == 1
        assert [headers["x-request-id"] for _, headers, _ in upstream.requests] == [f"mine-{n}" for n in range(5)]
        first, headers, body = upstream.requests[0]
        assert first == "POST /v1/track HTTP/1.1"
        assert body == b' {"a" :1}'
        assert headers["x-forwarded-for"] == "127.0.0.1"


async def test_request_of_http_1_0_without_a_host_gets_one(tmp_path: Path) -> None:
    async with open_pair(tmp_path) as (nginx, upstream, _):
        host, _, port = nginx.address.rpartition(":")
        async with await trio.open_tcp_stream(host, int(port)) as stream:
            await stream.send_all(b"POST /v1/track HTTP/1.0\r\nContent-Length: 2\r\n\r\n{}")
            answer = b"".join([chunk async for chunk in stream])
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert upstream.requests[0][1]["host"] == "localhost"


async def test_request_id_that_is_none_is_replaced(tmp_path: Path) -> None:
    async with open_pair(tmp_path) as (_, upstream, client):
        await client.post("/v1/track", content=b"{}", headers={"X-Request-Id": 'a b"c'})
        await client.post("/v1/track", content=b"{}")
        ids = [headers["x-request-id"] for _, headers, _ in upstream.requests]
        assert all(re.fullmatch("[0-9a-f]{32}", request_id) for request_id in ids), ids


@pytest.mark.parametrize(
    ("path", "content_type", "body"),
    [
        ("/api/track", "text/plain; charset=utf-8", r"the collector cannot be reached.*\n"),
        ("/v1/track", "application/json", r'\{"code":"unavailable","message":"the collector cannot be reached.*"\}'),
        ("/v1/ws", "application/json", r'\{"code":"unavailable","message":"the collector cannot be reached.*"\}'),
        ("/elsewhere", "text/plain; charset=utf-8", r"the collector cannot be reached.*\n"),
    ],
)
async def test_collector_away_is_503_in_the_dialects_form(
    tmp_path: Path, path: str, content_type: str, body: str
) -> None:
    async def hang_up(stream: trio.SocketStream, upstream: Upstream) -> None:
        await stream.receive_some(1)

    async with open_pair(tmp_path, hang_up) as (nginx, _, client):
        answer = await client.post(path, content=b"{}", headers={"Origin": "https://shop.example"})
        assert answer.status_code == 503
        assert 4 <= int(answer.headers["retry-after"]) <= 8
        assert answer.headers["content-type"] == content_type
        assert re.fullmatch(body, answer.text), answer.text
        assert answer.headers["access-control-allow-origin"] == "https://shop.example"
        assert "retry-after" in answer.headers["access-control-expose-headers"]
        [row] = await logged(nginx, 1)
        assert (row["method"], row["path"], row["status"], row["sent"]) == ("POST", path, "502", "503")


async def test_post_that_was_sent_is_never_sent_again(tmp_path: Path) -> None:
    async def read_and_hang_up(stream: trio.SocketStream, upstream: Upstream) -> None:
        request = await read_request(stream)
        assert request is not None
        upstream.requests.append(request)

    async with open_pair(tmp_path, read_and_hang_up) as (_, upstream, client):
        answer = await client.post("/v1/batch", content=b"{}")
        assert answer.status_code == 503
        assert len(upstream.requests) == 1


async def test_collector_too_late_is_503_and_logged_as_504(tmp_path: Path) -> None:
    async def never_answer(stream: trio.SocketStream, upstream: Upstream) -> None:
        await trio.sleep_forever()

    async with open_pair(tmp_path, never_answer) as (nginx, _, client):
        started = trio.current_time()
        answer = await client.post("/v1/track", content=b"{}")
        assert answer.status_code == 503
        assert 0.7 < trio.current_time() - started < 2
        assert "outcome is unknown" in answer.json()["message"]
        assert answer.headers["retry-after"]
        [row] = await logged(nginx, 1)
        assert (row["status"], row["sent"]) == ("504", "503")


async def test_collectors_own_answers_are_left_alone(tmp_path: Path) -> None:
    async def refuse(stream: trio.SocketStream, upstream: Upstream) -> None:
        while await read_request(stream):
            await stream.send_all(b"HTTP/1.1 503 X\r\nContent-Length: 4\r\nRetry-After: 99\r\n\r\nmine")

    async with open_pair(tmp_path, refuse) as (_, _, client):
        answer = await client.post("/v1/track", content=b"{}")
        assert (answer.status_code, answer.text, answer.headers["retry-after"]) == (503, "mine", "99")


@pytest.mark.parametrize(
    "body",
    [
        b"Content-Length: 100001\r\n\r\n" + b"x" * 100_001,
        b"Content-Length: 10000000\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n" + (b"7530\r\n" + b"x" * 30_000 + b"\r\n") * 4 + b"0\r\n\r\n",
    ],
)
async def test_body_above_the_limit_is_400_at_once(tmp_path: Path, body: bytes) -> None:
    async with open_pair(tmp_path) as (nginx, upstream, client):
        answer = await raw(nginx, b"POST /v1/batch HTTP/1.1\r\nHost: a\r\nConnection: close\r\n" + body)
        assert answer.startswith("HTTP/1.1 400 "), answer
        assert '{"code":"too_large"' in answer
        assert (await client.post("/v1/batch", content=b"x" * 100_000)).status_code == 200
        assert len(upstream.requests) == 1
        rows = await logged(nginx, 2)
        assert (rows[0]["status"], rows[0]["sent"]) == ("413", "400")


@pytest.mark.parametrize(
    ("sent", "status", "form"),
    [
        (b"GARBAGE\r\n\r\n", "400", "text/plain"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", "400", "text/plain"),
        (b"POST /v1/track HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n", "400", "application/json"),
        (b"POST /v1/track HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n", "400", "application/json"),
        (b"POST /v1/track HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: blub\r\n\r\n", "501", "application/json"),
        (b"POST /api/track HTTP/1.1\r\nContent-Length: 0\r\n\r\n", "400", "text/plain"),
        (b"TRACE /api/track HTTP/1.1\r\nHost: a\r\n\r\n", "405", "text/plain"),
        (b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n", "414", "text/plain"),
        (b"GET /v1/track HTTP/1.1\r\nHost: a\r\nX: " + b"a" * 70_000 + b"\r\n\r\n", "494", "application/json"),
    ],
)
async def test_head_that_nginx_refuses_is_400_in_the_dialects_form(
    tmp_path: Path, sent: bytes, status: str, form: str
) -> None:
    async with open_pair(tmp_path) as (nginx, upstream, client):
        answer = await raw(nginx, sent)
        assert answer.startswith("HTTP/1.1 400 "), answer
        assert "<html" not in answer
        assert f"Content-Type: {form}" in answer
        assert (await client.post("/v1/track", content=b"{}")).status_code == 200, "a neighbour is served"
        rows = await logged(nginx, 2)
        assert (rows[0]["status"], rows[0]["sent"]) == (status, "400")
        assert len(upstream.requests) == 1


async def test_error_pages_cannot_be_asked_for(tmp_path: Path) -> None:
    async with open_pair(tmp_path) as (_, upstream, client):
        answer = await client.get("/_error/heap/late/504")
        assert answer.status_code == 400
        assert upstream.requests == []


async def test_client_that_hangs_up_after_its_body_does_not_end_the_work(tmp_path: Path) -> None:
    read = trio.Event()
    hung_up = trio.Event()
    still_there = trio.Event()

    async def answer_late(stream: trio.SocketStream, upstream: Upstream) -> None:
        request = await read_request(stream)
        assert request is not None
        read.set()
        await hung_up.wait()
        with trio.move_on_after(0.3):
            assert await stream.receive_some(1) != b"", "nginx has closed the connection"
        await stream.send_all(OK)
        still_there.set()

    async with open_pair(tmp_path, answer_late) as (nginx, _, _):
        host, _, port = nginx.address.partition(":")
        stream = await trio.open_tcp_stream(host, int(port))
        await stream.send_all(b"POST /v1/track HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n{}")
        with trio.fail_after(5):
            await read.wait()
            await stream.aclose()
            hung_up.set()
            await still_there.wait()
        [row] = await logged(nginx, 1)
        assert row["upstream_status"] == "200"


async def test_incomplete_body_never_reaches_the_collector(tmp_path: Path) -> None:
    config = replace(QUICK, http=replace(QUICK.http, body_timeout_s=0.3))
    async with open_pair(tmp_path, config=config) as (nginx, upstream, client):
        started = trio.current_time()
        await raw(nginx, b"POST /v1/track HTTP/1.1\r\nHost: a\r\nContent-Length: 20\r\n\r\n{")
        assert trio.current_time() - started < 3
        assert upstream.connections == 0
        assert (await client.post("/v1/track", content=b"{}")).status_code == 200


async def test_websocket_is_passed_through(tmp_path: Path) -> None:
    async def upgrade(stream: trio.SocketStream, upstream: Upstream) -> None:
        request = await read_request(stream)
        assert request is not None
        upstream.requests.append(request)
        await stream.send_all(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\nhello"
        )
        await stream.send_all(await stream.receive_some(100))

    async with open_pair(tmp_path, upgrade) as (nginx, upstream, _):
        host, _, port = nginx.address.partition(":")
        stream = await trio.open_tcp_stream(host, int(port))
        async with stream:
            await stream.send_all(
                b"GET /v1/ws?key=k HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
            )
            received = b""
            with trio.fail_after(5):
                while not received.endswith(b"hello"):
                    received += await stream.receive_some(1000)
                await stream.send_all(b"echo")
                assert await stream.receive_some(100) == b"echo"
        first, headers, _ = upstream.requests[0]
        assert first == "GET /v1/ws?key=k HTTP/1.1"
        assert (headers["upgrade"], headers["connection"]) == ("websocket", "upgrade")


@pytest.mark.parametrize(("privacy", "address"), [("truncated", "127.0.0.0"), ("none", "-"), ("full", "127.0.0.1")])
async def test_log_keeps_addresses_and_keys_to_itself(tmp_path: Path, privacy: str, address: str) -> None:
    config = replace(QUICK, privacy=PrivacyConfig(ip=privacy))  # type: ignore[arg-type]  # parametrized
    async with open_pair(tmp_path, config=config) as (nginx, _, client):
        await client.post("/v1/track?writeKey=secret", content=b"{}")
        [row] = await logged(nginx, 1)
        assert row["ip"] == address
        assert row["path"] == "/v1/track"
        assert "secret" not in json.dumps(row)


async def test_taken_port_is_one_clear_line(tmp_path: Path) -> None:
    async with open_pair(tmp_path / "first") as (nginx, upstream, _):
        with pytest.raises(NginxUnavailable, match=f"{nginx.address} for nginx is taken"):
            async with open_nginx(QUICK, tmp_path / "second", upstreams=[upstream.address], listen=nginx.address):
                pass
