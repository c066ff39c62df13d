"""Two collectors behind nginx are restarted one after the other under load: no request fails, each leaves a receipt.

HTTP clients that do not try again go through nginx; the websocket client of ours follows a drain by itself. Every event
is in the topic exactly once afterwards, and each of the four processes said how its own ended.
"""

import json
import socket
from collections import Counter
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import trio

from collector.client.websocket import open_websocket_track_client
from collector.config import Config
from collector.devtools.collector_child import CollectorChild, open_collector
from collector.devtools.kafka import KafkaCluster
from collector.devtools.nginx import open_nginx
from collector.devtools.raw_http import open_http
from collector.devtools.topic_log import read_topic

pytestmark = pytest.mark.integration

CLIENTS = 24
PAUSE_S = 0.03
#: Longer than nginx takes to empty its pool under this load, as the rendered documentation asks.
DELAY_S = 1.0


@dataclass
class Seen:
    """What the clients were told."""

    accepted: set[str] = field(default_factory=set)
    statuses: Counter[int] = field(default_factory=Counter)


async def keep_posting(address: str, client: int, seen: Seen, stop: trio.Event) -> None:
    async with open_http(address) as http:
        number = 0
        while not stop.is_set():
            event_id = f"{client}-{number}"
            body = {"writeKey": "k", "type": "track", "event": "x", "userId": f"u{client}", "messageId": event_id}
            reply = await http.request("POST", "/v1/track", json.dumps(body).encode())
            seen.statuses[reply.status] += 1
            if reply.status == 200:
                seen.accepted.add(event_id)
            number += 1
            await trio.sleep(PAUSE_S)


async def keep_tracking(url: str, seen: Seen, stop: trio.Event) -> None:
    async with open_websocket_track_client(url, key="k") as client:
        number = 0
        while not stop.is_set():
            event_id = f"ws-{number}"
            ack = await client.track({"type": "track", "event": "x", "userId": "ws", "messageId": event_id})
            assert ack.status == "delivered", ack
            seen.accepted.add(event_id)
            number += 1
            await trio.sleep(PAUSE_S)


@dataclass
class Slot:
    """One of the two places behind nginx; its collector is started again when it has ended."""

    directory: Path
    settings: dict[str, dict[str, object]]
    port: int
    server: str
    end: trio.Event
    running: list[trio.Event] = field(default_factory=lambda: [trio.Event(), trio.Event()])
    restart: trio.Event = field(default_factory=trio.Event)
    receipts: list[dict[str, Any]] = field(default_factory=list)

    async def run(self) -> None:
        await trio.lowlevel.checkpoint()
        for number, until in enumerate((self.restart, self.end)):
            http = {"bind": f"127.0.0.1:{self.port}", "server": self.server}
            tables = {**self.settings, "http": http, "shutdown": {"delay_s": DELAY_S}}
            async with open_collector(self.directory / str(number), tables) as collector:
                self.running[number].set()
                await until.wait()
            self.receipts.append(self.receipt_of(collector))

    @staticmethod
    def receipt_of(collector: CollectorChild) -> dict[str, Any]:
        last = collector.log[-1]
        assert collector.child.process.returncode == last["code"] == 0, last
        return last

    async def replace(self) -> None:
        self.restart.set()
        await self.running[1].wait()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.mark.timeout(90)
@pytest.mark.parametrize("server", ["lane", "stock"])
async def test_rolling_restart_fails_no_request_and_each_process_leaves_a_receipt(
    kafka: KafkaCluster,
    new_topic: Callable[[int], str],
    settings: Callable[[str], dict[str, dict[str, object]]],
    tmp_path: Path,
    server: str,
) -> None:
    topic = new_topic(6)
    seen = Seen()
    stop, end = trio.Event(), trio.Event()
    slots = [Slot(tmp_path / f"slot-{number}", settings(topic), free_port(), server, end) for number in range(2)]
    async with trio.open_nursery() as processes, AsyncExitStack() as stack:
        for slot in slots:
            processes.start_soon(slot.run)
        for slot in slots:
            await slot.running[0].wait()
        upstreams = [f"127.0.0.1:{slot.port}" for slot in slots]
        nginx = await stack.enter_async_context(
            open_nginx(Config(), tmp_path / "nginx", upstreams=upstreams, listen="127.0.0.1:0")
        )
        async with trio.open_nursery() as clients:
            for client in range(CLIENTS):
                clients.start_soon(keep_posting, nginx.address, client, seen, stop)
            clients.start_soon(keep_tracking, f"ws://{nginx.address}/v1/ws", seen, stop)
            await trio.sleep(1)
            for slot in slots:
                await slot.replace()
                await trio.sleep(0.5)
            stop.set()
        lines = [json.loads(line) for line in nginx.access_log.read_text().splitlines()]
        end.set()

    assert set(seen.statuses) == {200}, seen.statuses
    # A closed listener is a connect that fails (502) and goes to the other one; nothing fails once it was sent.
    last_tries = Counter(line["upstream_status"].split(", ")[-1] for line in lines)
    assert set(last_tries) <= {"200", "101"}, last_tries
    stored = await trio.to_thread.run_sync(read_topic, kafka.bootstrap_servers, topic)
    counts = Counter(record.envelope.id for record in stored)
    assert set(counts) == seen.accepted
    assert set(counts.values()) == {1}
    receipts = [receipt for slot in slots for receipt in slot.receipts]
    assert len(receipts) == 4
    assert sum(receipt["delivered"] for receipt in receipts) == len(seen.accepted)
    for receipt in receipts:
        assert {"received", "delivered", "spooled", "not_sent", "unknown"} <= set(receipt)
        assert (receipt["not_sent"], receipt["unknown"], receipt["difference"]) == (0, 0, 0)
