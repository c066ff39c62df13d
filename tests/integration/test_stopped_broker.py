"""The broker stands still (SIGSTOP) under load that does not try again, for 3 s and for 20 s; there is no spool.

Nobody waits longer than 4.5 s, what was accepted is in the topic, nothing is there twice, what was reported as not
sent is not there, and afterwards nothing is left over.
"""

import json
from collections import Counter
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import trio

from collector.config import Config
from collector.devtools.collector_child import open_collector
from collector.devtools.kafka import KafkaCluster
from collector.devtools.nginx import open_nginx
from collector.devtools.raw_http import Reply, open_http
from collector.devtools.topic_log import read_topic

pytestmark = pytest.mark.integration

CLIENTS = 40
PAUSE_S = 0.1
ANSWER_WITHIN_S = 4.5
KEYS = 97


@dataclass
class Seen:
    """What the clients were told, by id of the event."""

    accepted: set[str] = field(default_factory=set)
    not_sent: set[str] = field(default_factory=set)
    unknown: set[str] = field(default_factory=set)
    slowest_s: float = 0.0
    statuses: Counter[int] = field(default_factory=Counter)

    def note(self, event_id: str, reply: Reply) -> None:
        self.slowest_s = max(self.slowest_s, reply.seconds)
        self.statuses[reply.status] += 1
        if reply.status == 200:
            self.accepted.add(event_id)
            return
        assert reply.status == 503, reply
        assert 4 <= int(reply.headers["retry-after"]) <= 8
        counts = dict(part.split("=") for part in reply.headers["x-collector-outcome"].split(", "))
        (self.unknown if counts["unknown"] == "1" else self.not_sent).add(event_id)
        if counts["unknown"] == "1":
            assert reply.headers["x-collector-unknown"] == "0"


async def keep_sending(address: str, client: int, seen: Seen, stop: trio.Event) -> None:
    async with open_http(address) as http:
        number = 0
        while not stop.is_set():
            event_id = f"{client}-{number}"
            event = {"type": "track", "event": "x", "userId": f"u{(client + number) % KEYS}", "messageId": event_id}
            body = json.dumps({"writeKey": "k", **event}).encode()
            seen.note(event_id, await http.request("POST", "/v1/track", body))
            number += 1
            await trio.sleep(PAUSE_S)


@pytest.mark.timeout(150)
@pytest.mark.parametrize("stopped_s", [3, 20])
async def test_stopped_broker_loses_nothing_and_holds_nobody_up(
    kafka: KafkaCluster,
    new_topic: Callable[[int], str],
    settings: Callable[[str], dict[str, dict[str, object]]],
    tmp_path: Path,
    stopped_s: float,
) -> None:
    topic = new_topic(6)
    seen = Seen()
    async with AsyncExitStack() as stack:
        configured = {**settings(topic), "spool": {"path": ""}}
        collector = await stack.enter_async_context(open_collector(tmp_path / "collector", configured))
        behind = collector.http.removeprefix("http://")
        async with open_http(collector.http) as http:
            warm = await http.request("POST", "/v1/track", b'{"writeKey":"k","event":"x","userId":"u","messageId":"w"}')
        seen.note("w", warm)
        await collector.wait_quiet()
        idle_tasks = await collector.task_count()
        async with open_nginx(Config(), tmp_path / "nginx", upstreams=[behind], listen="127.0.0.1:0") as nginx:
            stop = trio.Event()
            async with trio.open_nursery() as nursery:
                for client in range(CLIENTS):
                    nursery.start_soon(keep_sending, nginx.address, client, seen, stop)
                await trio.sleep(1)
                try:
                    kafka.pause()
                    await trio.sleep(stopped_s)
                finally:
                    kafka.resume()
                await trio.sleep(5)
                before_end = len(seen.accepted)
                await trio.sleep(2)
                assert len(seen.accepted) > before_end + CLIENTS, "it has not come back"
                stop.set()
        with trio.move_on_after(20):
            await collector.wait_quiet(tasks=idle_tasks)
        sources = (await collector.stats())["sources"]
        tasks = await collector.task_count()

    assert seen.slowest_s <= ANSWER_WITHIN_S
    assert set(seen.statuses) <= {200, 503}
    if stopped_s > ANSWER_WITHIN_S:
        assert seen.statuses[503] > 0
        assert seen.not_sent, "nothing was withdrawn before it was sealed"
    producer, ledger = sources["producer"], sources["ledger"]
    assert (producer["queue_bytes"], producer["in_flight_bytes"]) == (0, 0)
    assert (producer["waiters"], producer["due_times"], producer["detached_batches"]) == (0, 0, 0)
    assert tasks <= idle_tasks, "tasks are left"
    assert (ledger["difference"], ledger["in_work"], ledger["unresolved"]) == (0, 0, 0)
    assert ledger["delivered_total"] == len(seen.accepted)
    assert ledger["refused_total"] == len(seen.not_sent)
    assert ledger["unknown_total"] == len(seen.unknown)

    stored = await trio.to_thread.run_sync(read_topic, kafka.bootstrap_servers, topic)
    counted = Counter(record.envelope.id for record in stored)
    assert [event_id for event_id, count in counted.items() if count > 1] == [], "an event is there twice"
    assert seen.accepted - set(counted) == set(), "an accepted event is missing"
    assert seen.not_sent & set(counted) == set(), "an event that was reported as not sent is there"
    assert set(counted) <= seen.accepted | seen.unknown
