"""``hypercorn -k trio collector.asgi:app``: as people run it, and what its lifespan does when something is wrong."""

import os
import signal
import socket
import subprocess
import sys
from contextlib import asynccontextmanager
from functools import partial

import msgspec
import pytest
import trio

import collector.rooms
from collector.asgi import app
from collector.devtools.raw_http import open_http
from kafka_client.testing import open_fake_cluster

EVENT = b'{"app_id":"a","identity":"u","event":"e"}'


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


async def test_hypercorns_own_command_serves_it_and_ends_drained(tmp_path) -> None:
    port = free_port()
    async with open_fake_cluster(topics={"events": 3, "events-bad": 1}, listen=True) as cluster:
        config = tmp_path / "collector.toml"
        servers = msgspec.json.encode(list(cluster.tcp_bootstrap_servers)).decode()
        config.write_text(
            '[keys]\nopen = true\n[spool]\npath = ""\n[admin]\nbind = "127.0.0.1:0"\n'
            f"[kafka]\nbootstrap_servers = {servers}\n"
        )
        command = [sys.executable, "-m", "hypercorn", "-k", "trio", "-b", f"127.0.0.1:{port}", "collector.asgi:app"]
        async with trio.open_nursery() as nursery:
            process: trio.Process = await nursery.start(
                partial(
                    trio.run_process,
                    command,
                    env={**os.environ, "COLLECTOR_CONFIG": str(config)},
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                )
            )
            await wait_served(port)
            async with open_http(f"127.0.0.1:{port}") as http:
                assert (await http.request("POST", "/api/track", EVENT)).status == 200
                assert (await http.request("GET", "/readyz")).body == b"ready\n"
            process.send_signal(signal.SIGTERM)
            with trio.fail_after(10):
                assert await process.wait() == 0
        assert len(cluster.values("events")) == 1


async def wait_served(port: int) -> None:
    with trio.fail_after(30):
        while True:
            try:
                async with open_http(f"127.0.0.1:{port}"):
                    return
            except OSError:
                await trio.sleep(0.05)


class Lifespan:
    """A server's side of the lifespan protocol."""

    def __init__(self) -> None:
        self.sent: list[dict] = []
        self.to_app, self.receive_channel = trio.open_memory_channel(2)
        self.started = trio.Event()
        self.state: dict[str, object] = {}

    async def receive(self):
        return await self.receive_channel.receive()

    async def send(self, message) -> None:
        await trio.lowlevel.checkpoint()
        self.sent.append(message)
        self.started.set()

    async def run(self) -> None:
        self.to_app.send_nowait({"type": "lifespan.startup"})
        await app({"type": "lifespan", "state": self.state}, self.receive, self.send)


async def test_configuration_that_cannot_work_is_a_failed_startup(monkeypatch) -> None:
    monkeypatch.setenv("COLLECTOR__KEYS__OPEN", "false")
    lifespan = Lifespan()
    with pytest.raises(Exception, match="keys"):
        await lifespan.run()
    assert lifespan.sent[0]["type"] == "lifespan.startup.failed"
    assert "open = true" in lifespan.sent[0]["message"]


@pytest.fixture
async def fake_producer(monkeypatch):
    """The application's producer talks to the strict fake cluster."""
    monkeypatch.setenv("COLLECTOR__KEYS__OPEN", "true")
    monkeypatch.setenv("COLLECTOR__SPOOL__PATH", "")
    monkeypatch.setenv("COLLECTOR__ADMIN__BIND", "127.0.0.1:0")
    whole = collector.rooms.open_producer
    async with open_fake_cluster(topics={"events": 3, "events-bad": 1}) as cluster:
        monkeypatch.setenv("COLLECTOR__KAFKA__BOOTSTRAP_SERVERS", str(list(cluster.bootstrap_servers)))

        @asynccontextmanager
        async def opened(config, *, connector, observer):
            assert connector is None
            async with whole(config, connector=cluster.connector, observer=observer) as producer:
                cluster.producer = producer
                yield producer

        monkeypatch.setattr(collector.rooms, "open_producer", opened)
        yield cluster


async def test_lifespan_opens_and_closes_the_rooms(fake_producer, nursery, capsys) -> None:
    lifespan = Lifespan()
    nursery.start_soon(lifespan.run)
    with trio.fail_after(3):
        await lifespan.started.wait()
    assert lifespan.sent == [{"type": "lifespan.startup.complete"}]
    sent: list[dict] = []

    async def send(message) -> None:
        await trio.lowlevel.checkpoint()
        sent.append(message)

    async def receive():
        await trio.lowlevel.checkpoint()
        return {"type": "http.request", "body": EVENT, "more_body": False}

    scope = {"type": "http", "method": "POST", "path": "/api/track", "headers": [], "state": dict(lifespan.state)}
    await app(scope, receive, send)
    assert sent[0]["status"] == 200
    lifespan.to_app.send_nowait({"type": "lifespan.shutdown"})
    with trio.fail_after(3):  # noqa: ASYNC912  # the loop waits
        while len(lifespan.sent) < 2:  # noqa: ASYNC110  # the recorder has no event for it
            await trio.sleep(0.01)
    assert lifespan.sent[1] == {"type": "lifespan.shutdown.complete"}
    assert "delivered" in capsys.readouterr().err


async def test_bug_in_the_producer_is_a_failed_shutdown_which_ends_the_server(fake_producer) -> None:
    lifespan = Lifespan()

    async def broken() -> None:
        await trio.lowlevel.checkpoint()
        raise RuntimeError("a bug in the producer")

    async def break_it() -> None:
        await lifespan.started.wait()
        fake_producer.producer._nursery.start_soon(broken)

    with pytest.raises(BaseExceptionGroup) as raised:  # noqa: ASYNC401  # of several depths
        async with trio.open_nursery() as nursery:
            nursery.start_soon(break_it)
            await lifespan.run()
    assert raised.value.subgroup(lambda error: "a bug in the producer" in str(error)) is not None
    assert lifespan.sent[-1]["type"] == "lifespan.shutdown.failed"
