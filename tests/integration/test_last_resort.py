"""nginx keeps what no collector can be given, and `collector replay` feeds it back into a real topic."""

import gzip
import json
import socket
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import trio

from collector.config import Config, NginxConfig
from collector.devtools.children import Child, open_child
from collector.devtools.collector_child import CollectorChild, open_collector
from collector.devtools.kafka import KafkaCluster
from collector.devtools.nginx import open_nginx
from collector.devtools.raw_http import open_http
from collector.devtools.topic_log import Stored, read_topic
from collector.last_resort.kept import read_kept
from collector.times import rfc3339

pytestmark = pytest.mark.integration

Settings = Callable[[str], dict[str, dict[str, object]]]


def track(name: str) -> bytes:
    return json.dumps({"writeKey": "k", "event": "x", "userId": "u", "messageId": name}).encode()


@dataclass
class Front:
    """nginx, the file of its last resort, and the configuration that a replay takes."""

    address: str
    configuration: Path
    file: Path

    async def post(self, name: str, *, packed: bool = False) -> int:
        body = gzip.compress(track(name)) if packed else track(name)
        async with open_http(self.address) as http:
            headers = {"Content-Encoding": "gzip"} if packed else {}
            return (await http.request("POST", "/v1/track", body, headers)).status


@asynccontextmanager
async def open_front(behind: str, tables: Mapping[str, Mapping[str, object]], directory: Path) -> AsyncIterator[Front]:
    file = directory / "kept" / "requests.log"
    config = Config(nginx=NginxConfig(last_resort="accept", last_resort_file=str(file)))
    async with open_nginx(config, directory / "nginx", upstreams=[behind], listen="127.0.0.1:0") as nginx:
        front = Front(nginx.address, directory / "collector.toml", file)
        configure(front, {"keys": {"open": True}, **tables})
        yield front


def configure(front: Front, tables: Mapping[str, Mapping[str, object]]) -> None:
    # JSON's values are TOML's too.
    lines = (
        line
        for name, keys in tables.items()
        for line in (f"[{name}]", *(f"{key} = {json.dumps(value)}" for key, value in keys.items()))
    )
    front.configuration.write_text("\n".join(lines) + "\n")


@asynccontextmanager
async def open_replay(front: Front, *options: str) -> AsyncIterator[Child]:
    argv = [sys.executable, "-m", "collector", "replay", str(front.file), "--config", str(front.configuration)]
    async with open_child([*argv, *options], name="collector replay") as child:
        yield child


async def replay(front: Front) -> tuple[int, str]:
    """Exit code and output."""
    with trio.fail_after(60):
        async with open_replay(front) as child:
            code = await child.wait_ended()
    return code, "\n".join(child.tail)


async def stored(kafka: KafkaCluster, topic: str) -> dict[str, list[Stored]]:
    """The records of the topic by their id."""
    found: dict[str, list[Stored]] = {}
    for record in await trio.to_thread.run_sync(read_topic, kafka.bootstrap_servers, topic):
        found.setdefault(record.envelope.id, []).append(record)
    return found


async def wait_refusing(collector: CollectorChild) -> None:  # noqa: ASYNC910  # connecting is a checkpoint
    """Until its listener is closed."""
    host, _, port = collector.http.removeprefix("http://").rpartition(":")
    with trio.fail_after(20):
        while True:
            try:
                stream = await trio.open_tcp_stream(host, int(port))
            except OSError:
                return  # noqa: ASYNC910  # the same
            await stream.aclose()
            await trio.sleep(0.01)


async def test_collector_that_drains_and_is_away_costs_no_event(
    kafka: KafkaCluster, new_topic: Callable[[int], str], settings: Settings, tmp_path: Path
) -> None:
    topic = new_topic(2)
    async with (
        open_collector(tmp_path / "collector", settings(topic)) as collector,
        open_front(collector.http.removeprefix("http://"), settings(topic), tmp_path) as front,
    ):
        assert await front.post("served") == 200
        async with open_http(collector.http) as holding:
            # Half a body is work: the collector drains for as long as it waits for the rest.
            await holding.stream.send_all(b"POST /v1/track HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n{")
            await trio.sleep(0.1)
            collector.child.signal(15)
            await wait_refusing(collector)
            # On the connection that nginx has kept: it is answered, and closed.
            assert await front.post("on a kept connection") == 200
            assert await front.post("while it drains") == 200
            assert collector.child.running
        with trio.fail_after(30):
            await collector.child.wait_ended()
        assert await front.post("while it is away", packed=True) == 200

        lines = front.file.read_bytes().split(b"\n")[:-1]
        assert list(await stored(kafka, topic)) == ["served", "on a kept connection"]
        code, said = await replay(front)
        assert code == 0, said
        assert "lines: 2 fed back, 0 refused, 0 broken, 0 left; 0 were done before" in said
        assert "events: delivered 2, rejected 0, not sent 0, unknown 0" in said
        found = await stored(kafka, topic)
        assert sorted(found) == ["on a kept connection", "served", "while it drains", "while it is away"]
        for name, line in zip(("while it drains", "while it is away"), lines, strict=True):
            [record] = found[name]
            kept = read_kept(line)
            assert record.envelope.received_at == rfc3339(kept.received_at_ms), "received when nginx had it"
            assert record.envelope.app == "k"
            assert "maybe-duplicate" not in record.headers
            assert bytes(record.envelope.body) == track(name)
        code, said = await replay(front)
        assert (code, await stored(kafka, topic)) == (0, found)
        assert "lines: 0 fed back, 0 refused, 0 broken, 0 left; 2 were done before" in said


async def test_lines_in_work_when_the_replay_is_killed_come_again_marked(
    kafka: KafkaCluster, new_topic: Callable[[int], str], settings: Settings, tmp_path: Path
) -> None:
    topic = new_topic(2)
    tables = {"keys": {"open": True}, **settings(topic)}
    with socket.socket() as away:
        away.bind(("127.0.0.1", 0))
        host, port = away.getsockname()
        async with open_front(f"{host}:{port}", tables, tmp_path) as front:
            for number in range(3):
                assert await front.post(f"m{number}") == 200
            # A broker that accepts and says nothing: the replay is between its attempt and the confirmation.
            away.listen()
            silent = {"bootstrap_servers": [f"{host}:{port}"]}
            configure(front, {**tables, "kafka": {**tables["kafka"], **silent}})
            async with open_replay(front) as child:
                with trio.fail_after(30):
                    await trio.lowlevel.checkpoint()
                    while not list(front.file.parent.glob("replay-*.cursor")):
                        assert child.running, child.tail
                        await trio.sleep(0.01)
                child.kill()
            with front.file.open("ab") as stream:
                stream.write(front.file.read_bytes().splitlines(keepends=True)[0].replace(b"m0", b"m3"))
            configure(front, tables)
            code, said = await replay(front)
        assert code == 0, said
        assert "lines: 4 fed back" in said
        found = await stored(kafka, topic)
        assert {name: [r.headers.get("maybe-duplicate") for r in records] for name, records in found.items()} == {
            "m0": [b"1"],
            "m1": [b"1"],
            "m2": [b"1"],
            "m3": [None],
        }
