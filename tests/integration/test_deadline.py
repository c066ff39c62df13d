"""``X-Collector-Timeout-Ms: 50`` against a broker that stands still: how late is the answer by the client's clock?"""

from collections.abc import Callable
from pathlib import Path

import pytest
import trio

from collector.devtools.collector_child import open_collector
from collector.devtools.kafka import KafkaCluster
from collector.devtools.raw_http import HttpConnection, Reply, open_http
from collector.devtools.topic_log import read_topic

pytestmark = pytest.mark.integration

CLIENTS = 200
SPREAD_S = 1.0
TIMEOUT_S = 0.05
SLACK_S = 0.02


def event(name: str) -> bytes:
    return f'{{"writeKey":"k","event":"x","userId":"{name}","messageId":"{name}"}}'.encode()


async def test_short_deadline_of_200_clients_is_kept(
    kafka: KafkaCluster,
    new_topic: Callable[[int], str],
    settings: Callable[[str], dict[str, dict[str, object]]],
    tmp_path: Path,
) -> None:
    topic = new_topic(6)
    replies: dict[str, Reply] = {}

    async def ask(
        client: int, begin: trio.Event, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        async with open_http(collector.http) as http:
            await warm_up(http)
            task_status.started()
            await begin.wait()
            await trio.sleep(SPREAD_S * client / CLIENTS)
            name = f"late-{client}"
            headers = {"X-Collector-Timeout-Ms": "50"}
            replies[name] = await http.request("POST", "/v1/track", event(name), headers)

    async def warm_up(http: HttpConnection) -> None:
        assert (await http.request("GET", "/healthz")).status == 200

    # Without a spool: with one every event is on the disk in time, or would be.
    async with open_collector(tmp_path, {**settings(topic), "spool": {"path": ""}}) as collector:
        async with open_http(collector.http) as http:
            assert (await http.request("POST", "/v1/track", event("first"))).status == 200
        try:
            async with trio.open_nursery() as nursery:
                begin = trio.Event()
                for client in range(CLIENTS):
                    await nursery.start(ask, client, begin)
                kafka.pause()
                begin.set()
        finally:
            kafka.resume()
        stats = await collector.stats()
        with trio.fail_after(20):
            await collector.wait_quiet()

    seconds = sorted(reply.seconds for reply in replies.values())
    p99 = seconds[int(len(seconds) * 0.99) - 1]
    bound = TIMEOUT_S + 2 * stats["lag"]["highest_s"] + SLACK_S
    assert p99 <= bound, f"p99 {p99 * 1000:.1f} ms, bound {bound * 1000:.1f} ms, highest {seconds[-1] * 1000:.1f} ms"
    assert seconds[0] >= TIMEOUT_S * 0.7, "the broker's part of the deadline was not waited for"
    assert {reply.status for reply in replies.values()} == {503}
    assert stats["sources"]["producer"]["queue_bytes"] == 0

    records = await trio.to_thread.run_sync(read_topic, kafka.bootstrap_servers, topic)
    stored = {record.envelope.id for record in records}
    not_sent = {name for name, reply in replies.items() if "not_sent=1" in reply.headers["x-collector-outcome"]}
    assert not_sent & stored == set()
    assert len(not_sent) + sum("unknown=1" in r.headers["x-collector-outcome"] for r in replies.values()) == CLIENTS
