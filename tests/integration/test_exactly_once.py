"""10 000 events by HTTP and 10 000 by websocket, through nginx, into Kafka: each once, in order, where it belongs,
unchanged.

Counted from the sender's list of ids against the topic, read back with librdkafka.
"""

import base64
import json
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import trio
import trio_websocket
from confluent_kafka import Producer

from collector.config import Config
from collector.devtools.collector_child import open_collector
from collector.devtools.kafka import KafkaCluster
from collector.devtools.nginx import open_nginx
from collector.devtools.raw_http import open_http
from collector.devtools.topic_log import Stored, make_topic, read_topic

pytestmark = pytest.mark.integration

PARTITIONS = 8
KEYS = 300
SINGLES = 2_000
BULKS = 80
BULK_EVENTS = 100
WORKERS = 10
MESSAGES = 10_000
SOCKETS = 6
BURST = 50

#: What a body must survive: odd whitespace, keys in no order, duplicate keys, escapes, numbers beyond any float.
ODDITIES = (
    '"z":1,\t"a" : 2 ,"a":3',
    '"n":123456789012345678901234567890,"f":0.10000000000000000000000000001',
    '"text":"caf\\u00e9 \\ud83d\\ude00 \\/ \\u0041"',
    '\r\n  "e": 1E+2,  "neg":-0.0',
    '"raw":"café 😀"',
)


@dataclass
class Sent:
    """The sender's own list."""

    bodies: dict[str, bytes] = field(default_factory=dict)
    keys: dict[str, str] = field(default_factory=dict)
    order: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))

    def note(self, event_id: str, key: str, body: bytes) -> bytes:
        assert event_id not in self.bodies
        self.bodies[event_id] = body
        self.keys[event_id] = key
        self.order[key].append(event_id)
        return body


def segment_event(sent: Sent, source: str, number: int, key: str) -> bytes:
    event_id = f"{source}-{number}"
    oddity = ODDITIES[number % len(ODDITIES)]
    text = (
        f' {{"type" : "track","event":"Bought", "userId":"{key}","messageId":"{event_id}", "properties":{{{oddity}}} }}'
    )
    # The slice is the value itself, without what stands around it.
    return sent.note(event_id, key, text.strip().encode())


def heap_event(sent: Sent, source: str, number: int, key: str) -> bytes:
    event_id = f"{source}-{number}"
    oddity = ODDITIES[number % len(ODDITIES)]
    text = f'{{ "properties":{{ {oddity}}},"identity" :"{key}",\n"idempotency_key":"{event_id}" ,"event":"Bought"}}'
    return sent.note(event_id, key, text.encode())


def keys_of(worker: int, workers: int, prefix: str) -> Sequence[str]:
    """Each key belongs to one worker, so that its events are sent one after the other."""
    return [f"{prefix}-{number}-ä" for number in range(worker, KEYS, workers)]


async def send_over_http(url: str, sent: Sent, worker: int) -> None:
    keys = keys_of(worker, WORKERS, "http")
    authorization = "Basic " + base64.b64encode(b"shop:").decode()
    numbers = iter(range(10**9))
    async with open_http(url) as http:
        for turn in range(SINGLES // WORKERS):
            event = segment_event(sent, f"single-{worker}", next(numbers), keys[turn % len(keys)])
            reply = await http.request("POST", "/v1/track", event, {"Authorization": authorization})
            assert (reply.status, json.loads(reply.body)) == (200, {"success": True}), reply
        for turn in range(BULKS // WORKERS):
            mine = (keys[(turn + step) % len(keys)] for step in range(BULK_EVENTS))
            if turn % 2:
                events = b" ,\n".join(segment_event(sent, f"batch-{worker}", next(numbers), key) for key in mine)
                body = b'{"context":{"library":{"name":"x"}}, "batch" : [' + events + b'] ,"writeKey":"shop"}'
                reply = await http.request("POST", "/v1/batch", body)
            else:
                events = b" ,\n".join(heap_event(sent, f"heap-{worker}", next(numbers), key) for key in mine)
                body = b'{"app_id":"11", "events" : [' + events + b"] }"
                reply = await http.request("POST", "/api/track", body)
            assert reply.status == 200, reply


async def send_over_websocket(url: str, sent: Sent, worker: int) -> None:
    keys = keys_of(worker, SOCKETS, "ws")
    count = MESSAGES // SOCKETS + (worker < MESSAGES % SOCKETS)
    async with trio_websocket.open_websocket_url(f"{url}?key=shop", subprotocols=["collector.v1"]) as socket:
        hello = json.loads(await socket.get_message())
        assert (hello["op"], hello["v"]) == ("hello", 1)
        settled = 0
        for first in range(1, count + 1, BURST):
            last = min(first + BURST - 1, count)
            for number in range(first, last + 1):
                event = segment_event(sent, f"ws-{worker}", number, keys[number % len(keys)])
                frame = f'{{"op":"track","id":{number},"api":"segment","body":{event.decode()}}}'
                await socket.send_message(frame)
            while settled < last:
                answer = json.loads(await socket.get_message())
                if answer["op"] == "credit":
                    continue
                assert answer["op"] == "ack", answer
                assert "upto" in answer or answer["status"] == "delivered", answer
                settled = max(settled, answer.get("upto", answer.get("id")))


def librdkafka_partitions(bootstrap_servers: str, topic: str, keys: Sequence[bytes]) -> dict[bytes, int]:
    """Where librdkafka, told to choose as Java does, puts each key.

    Source: librdkafka's CONFIGURATION.md: murmur2 is "Java Producer compatible Murmur2 hash of key".
    """
    producer = Producer({"bootstrap.servers": bootstrap_servers, "partitioner": "murmur2", "log_level": 0})
    for key in keys:
        producer.produce(topic, value=b"", key=key)
    assert producer.flush(30) == 0
    return {record.key: record.partition for record in read_topic(bootstrap_servers, topic) if record.key is not None}


def by_key(stored: Sequence[Stored]) -> Iterator[tuple[str, list[str]]]:
    found: dict[str, list[str]] = defaultdict(list)
    for record in stored:
        assert record.key is not None
        found[record.key.decode()].append(record.envelope.id)
    yield from found.items()


@pytest.mark.timeout(180)
async def test_20000_events_through_nginx_are_in_kafka_once_in_order_and_unchanged(
    kafka: KafkaCluster,
    new_topic: Callable[[int], str],
    settings: Callable[[str], dict[str, dict[str, object]]],
    tmp_path: Path,
) -> None:
    topic = new_topic(PARTITIONS)
    sent = Sent()
    async with AsyncExitStack() as stack:
        # Without a spool: where Kafka pauses for a second, order would be the spool's matter.
        configured = {**settings(topic), "spool": {"path": ""}}
        collector = await stack.enter_async_context(open_collector(tmp_path / "collector", configured))
        behind = collector.http.removeprefix("http://")
        nginx = await stack.enter_async_context(
            open_nginx(Config(), tmp_path / "nginx", upstreams=[behind], listen="127.0.0.1:0")
        )
        async with trio.open_nursery() as nursery:
            for worker in range(WORKERS):
                nursery.start_soon(send_over_http, nginx.address, sent, worker)
            for worker in range(SOCKETS):
                nursery.start_soon(send_over_websocket, f"ws://{nginx.address}/v1/ws", sent, worker)
        stats = await collector.stats()
    assert len(sent.bodies) == 20_000
    assert stats["sources"]["ledger"]["delivered_total"] == 20_000
    assert stats["sources"]["ledger"]["difference"] == 0

    stored = await trio.to_thread.run_sync(read_topic, kafka.bootstrap_servers, topic)
    ids = [record.envelope.id for record in stored]
    assert len(ids) == len(set(ids)), "an event is there twice"
    assert set(ids) == set(sent.bodies), "an event is missing"
    for record in stored:
        envelope = record.envelope
        assert bytes(envelope.body) == sent.bodies[envelope.id]
        assert record.key == sent.keys[envelope.id].encode()
        assert record.headers["message-id"] == envelope.id.encode()
    for key, found in by_key(stored):
        assert found == sent.order[key], f"out of order: {key}"
    assert len({record.partition for record in stored}) >= 6

    compared = make_topic(kafka.bootstrap_servers, f"{topic}-compared", PARTITIONS)
    keys = [key.encode() for key in sent.order]
    chosen = await trio.to_thread.run_sync(librdkafka_partitions, kafka.bootstrap_servers, compared, keys)
    assert chosen == {record.key: record.partition for record in stored}
