"""An outage of Kafka: 5 000 events go to the disk and from there into the topic.

Under ``[spool] order = "key"`` each once and each key in order, while new events of the same keys come in behind them;
through a kill of the collector in the midst of the replay, with every second copy marked.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path

import pytest
import trio

from collector.devtools.collector_child import CollectorChild, open_collector
from collector.devtools.kafka import KafkaCluster
from collector.devtools.raw_http import open_http
from collector.devtools.topic_log import read_topic

pytestmark = pytest.mark.integration

WORKERS = 5
KEYS = 20
"""Of each worker: nobody else sends events of them, so they are sent one after the other."""
BATCH = 50
SPOOLED = 5_000


class Load:
    """Batches in sequence, each worker its own keys; every one is accepted."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._sent = [0] * WORKERS
        self.stop = trio.Event()
        self.order: dict[str, list[str]] = defaultdict(list)

    @property
    def count(self) -> int:
        return sum(map(len, self.order.values()))

    async def run(self) -> None:
        async with trio.open_nursery() as nursery:
            for worker in range(WORKERS):
                nursery.start_soon(self._work, worker)

    async def _work(self, worker: int) -> None:
        async with open_http(self._address) as http:
            while not self.stop.is_set():
                batch = []
                for _ in range(BATCH):
                    number = self._sent[worker]
                    self._sent[worker] += 1
                    key = f"{worker}-{number % KEYS}"
                    batch.append({"type": "track", "event": "x", "userId": key, "messageId": f"{worker}-{number}"})
                    self.order[key].append(f"{worker}-{number}")
                reply = await http.request("POST", "/v1/batch", json.dumps({"writeKey": "k", "batch": batch}).encode())
                assert reply.status == 200, reply
                await trio.sleep(0.02)


async def until(
    collector: CollectorChild, condition: Callable[[dict[str, dict[str, int]]], bool]
) -> dict[str, dict[str, int]]:
    while True:
        sources: dict[str, dict[str, int]] = (await collector.stats())["sources"]
        if condition(sources):
            return sources
        await trio.sleep(0.05)


@pytest.mark.timeout(100)
async def test_5000_spooled_events_are_replayed_once_and_in_order_of_their_keys(
    kafka: KafkaCluster,
    new_topic: Callable[[int], str],
    settings: Callable[[str], dict[str, dict[str, object]]],
    tmp_path: Path,
) -> None:
    topic = new_topic(6)
    tables = {**settings(topic), "spool": {"order": "key"}}
    async with open_collector(tmp_path / "collector", tables) as collector:
        load = Load(collector.http)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(load.run)
            await until(collector, lambda sources: sources["ledger"]["delivered_total"] >= 1000)
            try:
                kafka.pause()
                await until(collector, lambda sources: sources["spool"]["rows"] >= SPOOLED)
            finally:
                kafka.resume()
            # New events still come in behind those on the disk.
            await until(collector, lambda sources: sources["replay"]["delivered_total"] >= SPOOLED // 2)
            await trio.sleep(1)
            load.stop.set()
        sources = await until(collector, lambda sources: not sources["spool"]["rows"])
    ledger, spool, replay = sources["ledger"], sources["spool"], sources["replay"]
    assert (ledger["received_total"], ledger["difference"], ledger["in_work"]) == (load.count, 0, 0)
    assert ledger["delivered_total"] + ledger["spooled_total"] == load.count
    assert spool["rows_in_total"] >= SPOOLED
    assert spool["replayed_total"] + spool["resolved_total"] == spool["rows_in_total"]
    assert (spool["difference"], spool["dead_total"], replay["marked_total"]) == (0, 0, 0)

    stored = await trio.to_thread.run_sync(read_topic, kafka.bootstrap_servers, topic)
    times = Counter(record.envelope.id for record in stored)
    assert set(times.values()) == {1}, "an event is there twice"
    assert set(times) == {event_id for ids in load.order.values() for event_id in ids}
    found: dict[str, list[str]] = defaultdict(list)
    for record in stored:
        assert record.key is not None
        found[record.key.decode()].append(record.envelope.id)
    for key, ids in load.order.items():
        assert found[key] == ids, f"out of order: {key}"


@pytest.mark.timeout(100)
async def test_collector_killed_in_the_midst_of_the_replay_marks_what_it_sends_again(
    kafka: KafkaCluster,
    new_topic: Callable[[int], str],
    settings: Callable[[str], dict[str, dict[str, object]]],
    tmp_path: Path,
) -> None:
    topic = new_topic(6)
    tables = {**settings(topic), "spool": {"replay_events_per_s": 2000.0}}
    async with open_collector(tmp_path / "collector", tables) as collector:
        load = Load(collector.http)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(load.run)
            await until(collector, lambda sources: sources["ledger"]["delivered_total"] >= 500)
            try:
                kafka.pause()
                await until(collector, lambda sources: sources["spool"]["rows"] >= SPOOLED)
                load.stop.set()
            finally:
                kafka.resume()
        await until(collector, lambda sources: sources["replay"]["delivered_total"] >= 1000)
        collector.child.kill()
        await collector.child.wait_ended()
    async with open_collector(tmp_path / "collector", tables) as collector:
        # The topic is found by the replay itself: nobody sends an event to this one.
        sources = await until(collector, lambda sources: not sources["spool"]["rows"])
    assert sources["ledger"]["received_total"] == 0
    assert (sources["spool"]["difference"], sources["spool"]["dead_total"]) == (0, 0)

    stored = await trio.to_thread.run_sync(read_topic, kafka.bootstrap_servers, topic)
    copies = Counter(record.envelope.id for record in stored)
    assert set(copies) == {event_id for ids in load.order.values() for event_id in ids}, "an accepted event is missing"
    unmarked = Counter(record.envelope.id for record in stored if "maybe-duplicate" not in record.headers)
    assert [event_id for event_id, count in unmarked.items() if count > 1] == [], "a second copy is not marked"
    marked = sum(copies.values()) - sum(unmarked.values())
    assert marked == sources["replay"]["marked_total"] <= 1000, "more is marked than was under way"
