"""Real nginx as the last resort: what it keeps, what it must not keep, and which of several collectors it asks."""

import gzip
import json
import os
import random
import re
import signal
import socket
import stat
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import pytest
import trio

from collector.config import Config, DeadlinesConfig, LimitsConfig, NginxConfig, PrivacyConfig
from collector.devtools.nginx import Nginx, open_nginx
from collector.devtools.raw_http import NoAnswer, Reply, open_http
from collector.last_resort.kept import LINE_START, KeptRequest, read_kept

pytestmark = pytest.mark.integration

BODY_BYTES = 20_000

#: proxy_read_timeout comes to 0.75 s.
QUICK = Config(
    deadlines=DeadlinesConfig(kafka_s=0.3, spool_s=0.08, answer_s=0.02, stall_s=0.2),
    limits=LimitsConfig(body_bytes=100_000),
)

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
OVERLOADED = b"HTTP/1.1 503 X\r\nContent-Length: 4\r\nRetry-After: 5\r\n\r\nmine"

Script = Callable[[trio.SocketStream], Awaitable[None]]


async def read_request(stream: trio.SocketStream) -> bytes:
    """A whole request with a Content-Length; empty at the end."""
    received = b""
    await trio.lowlevel.checkpoint()
    while True:
        head, _, body = received.partition(b"\r\n\r\n")
        length = re.search(rb"(?i)content-length: (\d+)", head)
        if b"\r\n\r\n" in received and len(body) >= (int(length[1]) if length else 0):
            return received
        chunk = await stream.receive_some(65536)
        if not chunk:
            return b""
        received += chunk


async def answer_ok(stream: trio.SocketStream) -> None:
    while await read_request(stream):
        await stream.send_all(OK)


async def answer_503(stream: trio.SocketStream) -> None:
    while await read_request(stream):
        await stream.send_all(OVERLOADED)


async def read_and_reset(stream: trio.SocketStream) -> None:
    await read_request(stream)
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")


async def reset_unread(stream: trio.SocketStream) -> None:
    await stream.receive_some(1)
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")


async def answer_half(stream: trio.SocketStream) -> None:
    await read_request(stream)
    await stream.send_all(b"HTTP/1.1 200 O")


async def never_answer(stream: trio.SocketStream) -> None:
    await trio.sleep_forever()


@asynccontextmanager
async def open_upstream(script: Script) -> AsyncIterator["Upstream"]:
    upstream = Upstream()

    async def serve(stream: trio.SocketStream) -> None:
        upstream.connections += 1
        async with stream:
            try:
                await script(stream)
            except trio.BrokenResourceError:
                pass

    async with trio.open_nursery() as nursery:
        listeners: list[trio.SocketListener] = await nursery.start(partial(trio.serve_tcp, serve, 0, host="127.0.0.1"))
        upstream.address = address_of(listeners[0].socket)
        yield upstream
        nursery.cancel_scope.cancel(reason="the test is over")


@dataclass
class Upstream:
    address: str = ""
    connections: int = 0


def address_of(bound: "socket.socket | trio.socket.SocketType") -> str:
    host, port = bound.getsockname()[:2]
    return f"{host}:{port}"


@contextmanager
def refusing() -> Iterator[str]:
    """An address that is ours, where nobody listens."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield address_of(bound)


@contextmanager
def vanishing() -> Iterator[str]:
    """An address where connects get no answer: its queue is full."""
    with socket.socket() as full, socket.socket() as first, socket.socket() as second:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for client in (first, second):
            client.setblocking(False)
            client.connect_ex(full.getsockname())
        yield address_of(full)


@dataclass
class Front:
    """nginx, and the file that it keeps requests in."""

    nginx: Nginx
    file: Path
    config: Config = field(repr=False)

    def kept(self) -> list[KeptRequest]:
        # Not splitlines(): that one knows more ends of lines than nginx.
        return [read_kept(line) for line in self.file.read_bytes().split(b"\n")[:-1]]

    async def post(
        self, path: str, body: bytes = b"{}", headers: dict[str, str] | None = None, method: str = "POST"
    ) -> Reply:
        async with open_http(self.nginx.address) as http:
            return await http.request(method, path, body, headers)

    async def wait_logged(self, count: int) -> list[dict[str, str]]:
        """Until nginx has ended so many requests: what it keeps it has written then."""
        with trio.fail_after(5):
            while True:
                text = await trio.Path(self.nginx.access_log).read_text()
                rows: list[dict[str, str]] = [json.loads(line) for line in text.splitlines()]
                if len(rows) >= count:
                    return rows
                await trio.sleep(0.01)


@asynccontextmanager
async def open_front(
    directory: Path, *upstreams: str, config: Config = QUICK, last_resort: bool = True
) -> AsyncIterator[Front]:
    file = directory / "kept" / "requests.log"
    nginx_config = NginxConfig(
        last_resort="accept" if last_resort else "off", last_resort_file=str(file), last_resort_body_bytes=BODY_BYTES
    )
    config = replace(config, nginx=nginx_config)
    async with open_nginx(config, directory / "nginx", upstreams=upstreams, listen="127.0.0.1:0") as nginx:
        yield Front(nginx, file, config)


async def test_without_a_last_resort_it_is_503_and_nothing_is_kept(tmp_path: Path) -> None:
    with refusing() as away:
        async with open_front(tmp_path, away, last_resort=False) as front:
            reply = await front.post("/v1/track")
            assert reply.status == 503
            assert 4 <= int(reply.headers["retry-after"]) <= 8
            assert not front.file.exists()


@pytest.mark.parametrize(
    ("path", "content_type", "body"),
    [
        ("/v1/track", "application/json", b'{"success": true}'),
        ("/v1/batch/?writeKey=k", "application/json", b'{"success": true}'),
        ("/api/track", "application/json", b"{}"),
    ],
)
async def test_nobody_to_be_reached_is_200_in_the_dialects_words_and_kept(
    tmp_path: Path, path: str, content_type: str, body: bytes
) -> None:
    sent = bytes(range(256)) * 2
    with refusing() as away:
        async with open_front(tmp_path, away) as front:
            headers = {
                "X-Request-Id": "mine-1",
                "Origin": "https://shop.example",
                "Authorization": "Basic azpnZWhlaW0=",  # k:geheim
                "Cookie": "session=geheim",
                "User-Agent": "curl/8",
                "DNT": "1",
            }
            reply = await front.post(path, sent, headers)
            assert (reply.status, reply.body) == (200, body)
            assert reply.headers["content-type"] == content_type
            assert reply.headers["x-request-id"] == "mine-1"
            assert reply.headers["access-control-allow-origin"] == "https://shop.example"
            assert "retry-after" not in reply.headers
            [row] = await front.wait_logged(1)
            assert (row["status"], row["sent"], row["upstream_status"]) == ("200", "200", "502")
            [kept] = front.kept()
            assert f"{kept.path}?{kept.query_string.decode()}".rstrip("?") == path
            assert (kept.method, kept.request_id, kept.ip, kept.body) == ("POST", "mine-1", "127.0.0.0", sent)
            assert kept.headers == {"authorization": "Basic azo=", "user-agent": "curl/8", "dnt": "1"}
            raw = front.file.read_bytes()
            assert b"geheim" not in raw
            assert b"Z2VoZWlt" not in raw
            assert stat.S_IMODE(front.file.stat().st_mode) == 0o600
            assert stat.S_IMODE(front.file.parent.stat().st_mode) == 0o700


@pytest.mark.parametrize("authorization", ["Bearer geheim", "Digest geheim"])
async def test_credentials_that_no_dialect_takes_are_not_kept(tmp_path: Path, authorization: str) -> None:
    with refusing() as away:
        async with open_front(tmp_path, away) as front:
            assert (await front.post("/v1/track", b"{}", {"Authorization": authorization})).status == 200
            await front.wait_logged(1)
            assert "authorization" not in front.kept()[0].headers
            assert b"geheim" not in front.file.read_bytes()


async def test_bodies_are_kept_byte_for_byte(tmp_path: Path) -> None:
    noise = random.Random(7)
    bodies = [gzip.compress(noise.randbytes(3000)), noise.randbytes(BODY_BYTES), b"", b'{"a":"\\u0000"}\n' * 20]
    with refusing() as away:
        async with open_front(tmp_path, away) as front:
            async with open_http(front.nginx.address) as http:
                for body in bodies:
                    assert (await http.request("POST", "/v1/track", body)).status == 200
            await front.wait_logged(len(bodies))
            assert [kept.body for kept in front.kept()] == bodies


async def test_chunked_body_is_kept_whole_or_not_at_all(tmp_path: Path) -> None:
    """Around the size of the buffer, in chunks and reads of any size."""
    noise = random.Random(8)
    head = b"POST /v1/track HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    accepted: list[bytes] = []
    with refusing() as away:
        async with open_front(tmp_path, away) as front:
            sizes = [1, 1000, *range(BODY_BYTES - 200, BODY_BYTES + 1400, 170), BODY_BYTES * 2, BODY_BYTES * 4]
            for size in sizes:
                body = noise.randbytes(size)
                step = noise.choice((97, 4096, size))
                pieces = [body[at : at + step] for at in range(0, size, step)]
                sent = head + b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"
                async with open_http(front.nginx.address) as http:
                    half = noise.randrange(len(sent))
                    await http.stream.send_all(sent[:half])
                    await trio.sleep(0.002)
                    reply = await http.exchange(sent[half:])
                assert reply.status in (200, 503)
                if reply.status == 200:
                    accepted.append(body)
            await front.wait_logged(len(sizes))
            assert [kept.body for kept in front.kept()] == accepted
            assert 2 < len(accepted) < len(sizes)


@pytest.mark.parametrize("script", [answer_503, read_and_reset, reset_unread, answer_half, never_answer])
async def test_request_that_a_collector_has_seen_is_never_kept(tmp_path: Path, script: Script) -> None:
    async with open_upstream(script) as upstream, open_front(tmp_path, upstream.address) as front:
        reply = await front.post("/v1/track", b"x" * BODY_BYTES)
        assert reply.status == 503
        assert reply.headers["retry-after"]
        assert (reply.body == b"mine") is (script is answer_503), "a collector's own 503 passes as it is"
        await front.wait_logged(1)
        assert front.kept() == []
        assert upstream.connections == 1


@pytest.mark.parametrize(
    ("method", "path", "headers"),
    [
        ("GET", "/v1/ws", {"Connection": "Upgrade", "Upgrade": "websocket"}),
        ("GET", "/v1/track", {}),
        ("PUT", "/v1/track", {}),
        ("POST", "/v1/trak", {}),
        ("POST", "/v1/track/more", {}),
        ("GET", "/healthz", {}),
        ("OPTIONS", "/v1/track", {}),
        ("POST", "/_last_resort_answer/segment", {}),
    ],
)
async def test_what_is_no_event_request_is_not_kept(
    tmp_path: Path, method: str, path: str, headers: dict[str, str]
) -> None:
    with refusing() as away:
        async with open_front(tmp_path, away) as front:
            reply = await front.post(path, b"", headers, method)
            assert reply.status == (503 if path != "/_last_resort_answer/segment" else 400)
            await front.wait_logged(1)
            assert front.kept() == []


async def test_body_that_went_to_a_file_is_503(tmp_path: Path) -> None:
    with refusing() as away:
        async with open_front(tmp_path, away) as front:
            reply = await front.post("/v1/batch", b"x" * BODY_BYTES * 2)
            assert reply.status == 503
            assert "cannot be reached" in reply.body.decode()
            await front.wait_logged(1)
            assert front.kept() == []


async def test_machine_that_is_gone_is_as_good_as_one_that_refuses(tmp_path: Path) -> None:
    with vanishing() as away:
        async with open_front(tmp_path, away) as front:
            reply = await front.post("/v1/track")
            assert reply.status == 200
            [row] = await front.wait_logged(1)
            assert row["upstream_status"] == "504"
            [kept] = front.kept()
    answered_ms = round(float(json.loads(front.file.read_bytes())["time"]) * 1000)
    assert 250 < answered_ms - kept.received_at_ms < 2000, "received when the body was complete"


async def test_with_several_collectors_it_keeps_only_when_none_can_be_reached(tmp_path: Path) -> None:
    with refusing() as one, refusing() as two, refusing() as three:
        async with open_upstream(answer_ok) as upstream:
            async with open_front(tmp_path, one, two, upstream.address, three) as front:
                for number in range(12):
                    reply = await front.post("/v1/track", b"{}", {"Authorization": f"Basic {number}"})
                    assert (reply.status, reply.body) == (200, b"{}")
                assert front.kept() == []
        async with open_front(tmp_path, one, two) as front:
            reply = await front.post("/v1/track")
            assert (reply.status, reply.body) == (200, b'{"success": true}')
            [*_, row] = await front.wait_logged(13)
            assert row["upstream_status"] == "502, 502"
            assert len(front.kept()) == 1


async def test_one_of_two_machines_is_gone_and_the_other_answers(tmp_path: Path) -> None:
    with vanishing() as away:
        async with open_upstream(answer_ok) as upstream, open_front(tmp_path, away, upstream.address) as front:
            for number in range(4):
                reply = await front.post("/v1/track", b"{}", {"Authorization": f"Basic {number}"})
                assert (reply.status, reply.body) == (200, b"{}")
            assert front.kept() == []


async def test_one_client_goes_to_one_collector_and_the_clients_of_a_key_to_both(tmp_path: Path) -> None:
    """By Authorization, the query's key, X-Write-Key, and the address."""
    async with open_upstream(answer_ok) as one, open_upstream(answer_ok) as two:
        async with open_front(tmp_path, one.address, two.address) as front:

            async def asked(path: str, headers: dict[str, str]) -> str:
                await front.post(path, b"{}", headers)
                nonlocal count
                count += 1
                return (await front.wait_logged(count))[-1]["upstream"]

            count = 0
            both = {one.address, two.address}
            spread = set()
            for number in range(12):
                key = f"Basic {number}"
                first = await asked("/v1/track", {"Authorization": key})
                assert await asked("/v1/batch?writeKey=q", {"Authorization": key}) == first
                spread.add(first)
            assert spread == both
            assert {await asked(f"/v1/track?writeKey={n}", {}) for n in range(12)} == both
            assert {await asked(f"/v1/track?key={n}", {}) for n in range(12)} == both
            assert {await asked("/", {"X-Write-Key": str(n)}) for n in range(12)} == both
            addresses = [{"X-Forwarded-For": f"203.0.113.{n}"} for n in range(12)]
            assert {await asked("/v1/track?key=q", address) for address in addresses} == both
            assert {await asked("/v1/track", address) for address in addresses} == both


@pytest.mark.parametrize(("privacy", "kept"), [("truncated", "203.0.113.0"), ("full", "203.0.113.77"), ("none", "-")])
async def test_address_is_the_clients_as_far_as_it_may_be_kept(tmp_path: Path, privacy: str, kept: str) -> None:
    config = replace(QUICK, privacy=PrivacyConfig(ip=privacy))  # type: ignore[arg-type]  # parametrized
    with refusing() as away:
        async with open_front(tmp_path, away, config=config) as front:
            headers = {"X-Forwarded-For": "198.51.100.9, 203.0.113.77, 127.0.0.5"}
            assert (await front.post("/v1/track", b"{}", headers)).status == 200
            await front.wait_logged(1)
            assert front.kept()[0].ip == kept
            if privacy != "full":
                assert b"113.77" not in front.file.read_bytes()
                assert "113.77" not in front.nginx.access_log.read_text()


async def test_full_disk_is_not_noticed_as_the_rendered_file_says(tmp_path: Path) -> None:
    with refusing() as away:
        config = replace(QUICK, nginx=replace(QUICK.nginx, last_resort="accept", last_resort_file="/dev/full"))
        async with open_nginx(config, tmp_path, upstreams=[away], listen="127.0.0.1:0") as nginx:
            async with open_http(nginx.address) as http:
                assert (await http.request("POST", "/v1/track", b"{}")).status == 200
            text = (nginx.directory / "nginx.conf").read_text()
    assert "survives a process crash, not a power cut" in text
    assert "does not notice a full disk" in text
    assert os.stat("/dev/full").st_size == 0


async def test_worker_of_nginx_that_is_killed_loses_nothing_that_it_has_answered(tmp_path: Path) -> None:
    accepted: list[str] = []
    answered = trio.Semaphore(0)
    moment = random.Random(9)
    body = moment.randbytes(BODY_BYTES)

    async def post_for_ever(client: int) -> None:
        number = 0
        while True:
            try:
                async with open_http(front.nginx.address) as http:
                    while True:
                        number += 1
                        request_id = f"{client}-{number}"
                        reply = await http.request("POST", "/v1/track", body, {"X-Request-Id": request_id})
                        assert reply.status == 200
                        accepted.append(request_id)
                        answered.release()
            except (NoAnswer, OSError):
                await trio.sleep(0.001)

    with refusing() as away:
        async with open_front(tmp_path, away) as front:
            master = front.nginx.child.pid
            children = trio.Path(f"/proc/{master}/task/{master}/children")
            async with trio.open_nursery() as nursery:
                for client in range(6):
                    nursery.start_soon(post_for_ever, client)
                for _ in range(12):
                    # After some answers since the last kill, and anywhere in the work on the next ones.
                    while answered.value:
                        answered.acquire_nowait()
                    with trio.fail_after(30):
                        for _ in range(20):
                            await answered.acquire()
                    await trio.sleep(moment.uniform(0, 0.02))
                    for worker in (await children.read_text()).split():
                        with suppress(ProcessLookupError):
                            os.kill(int(worker), signal.SIGKILL)
                nursery.cancel_scope.cancel(reason="enough")
            # A write that the kill has cut short is half a line before the next, which a replay finds in the same way.
            lines = front.file.read_bytes().split(b"\n")[:-1]
            kept = {read_kept(line[line.rfind(LINE_START) :]).request_id for line in lines}
    assert set(accepted) <= kept, "answered 200 and not in the file"
