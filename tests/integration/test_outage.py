"""A total outage (SIGSTOP) under load that does not try again, with the spool on a real disk.

From 2 s after its begin every answer is 200 and quick; no event is missing afterwards, and none is there twice without
a mark. The rate is a fraction of what `just faults` sends: what is measured here is the way, not the machine.
"""

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import trio

from collector.devtools.collector_child import open_collector
from collector.devtools.kafka import KafkaCluster
from collector.devtools.raw_http import Reply, open_http
from collector.devtools.topic_log import read_topic

pytestmark = pytest.mark.integration

EVENTS_PER_S = 100
CLIENTS = 400
"""Each waits for its answer before it sends again: enough of them that the rate holds while answers take 3 s."""
OUTAGE_S = 10.0
P99_S = 0.25


class Load:
    """Sends events at a steady rate from many connections, whatever the answers take."""

    def __init__(self, url: str) -> None:
        self._url = url
        self.stop = trio.Event()
        self.sent: dict[str, tuple[float, Reply]] = {}

    async def run(self) -> None:
        async with trio.open_nursery() as nursery:
            for client in range(CLIENTS):
                nursery.start_soon(self._client, client)

    async def _client(self, client: int) -> None:
        period_s = CLIENTS / EVENTS_PER_S
        number = 0
        async with open_http(self._url) as http:
            due = trio.current_time() + period_s * client / CLIENTS
            while True:
                with trio.move_on_at(due):
                    await self.stop.wait()
                    return
                event_id = f"{client}-{number}"
                event = {"type": "track", "event": "x", "userId": f"u{(client + number) % 97}", "messageId": event_id}
                at = trio.current_time()
                body = json.dumps({"writeKey": "k", **event}).encode()
                self.sent[event_id] = at, await http.request("POST", "/v1/track", body)
                number, due = number + 1, due + period_s


@pytest.mark.timeout(90)
async def test_outage_is_quick_and_costs_no_event(
    kafka: KafkaCluster,
    new_topic: Callable[[int], str],
    settings: Callable[[str], dict[str, dict[str, object]]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    topic = new_topic(6)
    async with open_collector(tmp_path / "collector", settings(topic)) as collector:
        load = Load(collector.http)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(load.run)
            await trio.sleep(5)
            try:
                kafka.pause()
                began = trio.current_time()
                await trio.sleep(OUTAGE_S)
                during = (await collector.stats())["sources"]
            finally:
                kafka.resume()
            ended = trio.current_time()
            await trio.sleep(3)
            load.stop.set()
        with trio.fail_after(20):
            while (after := await collector.wait_quiet())["spool"]["rows"]:  # noqa: ASYNC110
                await trio.sleep(0.1)
    records = await trio.to_thread.run_sync(read_topic, kafka.bootstrap_servers, topic)

    assert Counter(reply.status for _, reply in load.sent.values()) == {200: len(load.sent)}
    later = sorted(reply.seconds for at, reply in load.sent.values() if began + 2 <= at < ended)
    p99, disk_p99 = later[int(len(later) * 0.99)], during["spool"]["commit_p99_s"]
    with capsys.disabled():
        print(
            f"\noutage: {len(later)} answers from 2 s after its begin, p50 {later[len(later) // 2] * 1000:.1f} ms, "
            f"p99 {p99 * 1000:.1f} ms; the disk's commits p99 {disk_p99 * 1000:.1f} ms"
        )
    assert len(later) > EVENTS_PER_S * (OUTAGE_S - 2) * 0.8
    # A row waits for two commits at most.
    assert p99 <= P99_S + 2 * disk_p99
    assert (during["diversion"]["diverted_partitions"], during["spool"]["state"]) == (6, "ok")
    assert during["spool"]["rows"] > EVENTS_PER_S * (OUTAGE_S - 2) * 0.8

    counted = Counter(record.envelope.id for record in records)
    assert set(counted) == set(load.sent)
    assert [event_id for event_id, count in counted.items() if count > 1] == [], "the outage ended without a crash"
    ledger, spool = after["ledger"], after["spool"]
    assert (ledger["difference"], ledger["unresolved"], spool["difference"]) == (0, 0, 0)
    assert ledger["delivered_total"] + ledger["spooled_total"] == len(load.sent)
    assert (spool["rows_in_total"], after["diversion"]["diverted_partitions"]) == (ledger["spooled_total"], 0)
    last = collector.log[-1]
    assert (last["event"], last["code"], last["in_spool"]) == ("stopped", 0, 0)
