"""``[spool] order = "key"``: the events of one key are in the log in the order of receipt, through an outage."""

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial

import pytest
import trio

from collector.devtools.fixtures import CollectorApp, open_collector_app
from kafka_client.testing import FakeCluster, open_fake_cluster
from kafka_client.wire.murmur2 import key_hash
from tests.collector.ingest.stages import PARTITIONS, Clients, ids, key_in, ledgers, until_empty, with_spool


@pytest.fixture
def kafka_topics() -> Mapping[str, int]:
    return {"events": PARTITIONS, "events-bad": 1}


@asynccontextmanager
async def in_order(broker: FakeCluster, **spool) -> AsyncIterator[tuple[CollectorApp, Clients]]:
    async with open_collector_app(broker, with_spool(order="key", **spool)) as app:
        clients = Clients(app)
        await clients.warm()
        yield app, clients
        ledgers(app)
        assert repr(app.services.ingest.ways.order) == "<KeyOrder of 0 requests, 0 buckets>", "somebody stayed in it"


def names_of(broker: FakeCluster, user: str) -> list[str]:
    """The events of this user in the log."""
    records = [record for record in broker.records("events") if record.key == user.encode()]
    return [json.loads(record.value)["id"] for record in records if b"warm" not in record.value]


def away(broker: FakeCluster, how: str) -> None:
    if how == "stopped":
        broker.stop_broker(1)
    elif how == "refuses connections":
        broker.stop_broker(1, elect=False)
    elif how == "silent":
        broker.pause_broker(1)
    else:
        for partition in range(PARTITIONS):
            broker.move_leader("events", partition, None)


def back(broker: FakeCluster, how: str) -> None:
    if how in ("stopped", "refuses connections"):
        broker.start_broker(1)
    elif how == "silent":
        broker.resume_broker(1)
    else:
        for partition in range(PARTITIONS):
            broker.move_leader("events", partition, 1)


@pytest.mark.parametrize("how", ["stopped", "refuses connections", "silent", "without leaders"])
@pytest.mark.parametrize("away_s", [0.7, 2.0, 6.0])
async def test_events_that_waited_for_kafka_are_not_overtaken_by_those_that_went_to_the_disk_at_once(
    kafka_broker, autojump_clock, how: str, away_s: float
) -> None:
    """Those of an outage's first second became rows at the end of Kafka's share, behind those of the next two."""
    users = [key_in(0), key_in(0, 1), key_in(1), key_in(2)]
    sent: dict[str, list[str]] = {user: [] for user in users}

    async with in_order(kafka_broker) as (app, clients), trio.open_nursery() as nursery:

        def post(number: int) -> None:
            # Two of each user, mixed, and now and then a client in a hurry.
            events = [
                {"type": "track", "event": "x", "messageId": f"{number}-{place}-{user}", "userId": user}
                for place in range(2)
                for user in (users if number % 2 else users[:1])
            ]
            for event in events:
                sent[event["userId"]].append(event["messageId"])
            nursery.start_soon(clients.post_events, events, 400 if number % 5 == 4 else None)

        for number in range(80):
            if number == 3:
                away(kafka_broker, how)
                ends_at = trio.current_time() + away_s
            if number > 3 and ends_at is not None and trio.current_time() >= ends_at:
                back(kafka_broker, how)
                ends_at = None
            post(number)
            await trio.sleep(0.1)
        await trio.sleep(5)
        await until_empty(app, 120)
        assert set(clients.statuses) == {200}
        for user in users:
            assert names_of(kafka_broker, user) == sent[user]


async def test_event_of_a_client_in_a_hurry_takes_those_behind_it_to_the_disk(kafka_broker, autojump_clock) -> None:
    async with in_order(kafka_broker) as (app, clients), trio.open_nursery() as nursery:
        kafka_broker.stop_broker(1, elect=False)
        await trio.sleep(0.1)
        for name, timeout_ms in (("a", None), ("b", 200), ("c", None)):
            nursery.start_soon(partial(clients.post, name, user=key_in(1), timeout_ms=timeout_ms))
            await trio.sleep(0.05)
        nursery.start_soon(partial(clients.post, "other", user=key_in(1, 1)))
        await trio.sleep(0.3)
        assert app.ledger.spooled_total == 3, "and no other key"
        kafka_broker.start_broker(1)
        await trio.sleep(2)
        await until_empty(app)
        assert names_of(kafka_broker, key_in(1)) == ["a", "b", "c"]
        assert app.ledger.delivered_total == PARTITIONS + 1


async def test_other_keys_of_the_same_request_stay_with_kafka(autojump_clock) -> None:
    async with (
        open_fake_cluster(brokers=2, topics={"events": PARTITIONS, "events-bad": 1}) as broker,
        in_order(broker) as (app, clients),
        trio.open_nursery() as nursery,
    ):
        for partition in range(PARTITIONS):
            broker.move_leader("events", partition, 1 if partition == 0 else 2)
        await clients.warm()
        broker.faults.delay(0.9, broker=2)
        broker.move_leader("events", 0, None)
        users = [key_in(0), key_in(3)]
        events = [{"type": "track", "event": "x", "messageId": f"0-{user}", "userId": user} for user in users]
        answers: list[str] = []

        async def post() -> None:
            answers.append((await clients.post_events(events)).headers["x-collector-outcome"])

        began = trio.current_time()
        nursery.start_soon(post)
        await trio.sleep(0.2)
        assert (await clients.post(f"1-{users[0]}", user=users[0])).status_code == 200
        assert trio.current_time() - began == pytest.approx(0.2, abs=0.05)
        assert app.ledger.spooled_total == 1
        await trio.sleep(1)
        assert answers == ["delivered=1, spooled=1, rejected=0, not_sent=0, unknown=0"]
        broker.move_leader("events", 0, 1)
        await until_empty(app)
        assert names_of(broker, users[0]) == [f"0-{users[0]}", f"1-{users[0]}"]


@pytest.mark.parametrize("state", ["full", "failed"])
async def test_event_of_a_key_with_rows_is_refused_when_the_spool_takes_no_more(
    kafka_broker, autojump_clock, state: str
) -> None:
    """It went to Kafka, and overtook the rows of its key."""
    async with in_order(kafka_broker, max_bytes=30_000) as (app, clients):
        user, other = key_in(0), key_in(0, 1)
        kafka_broker.move_leader("events", 0, None)
        assert (await clients.post("0", user=user)).status_code == 200
        sent = ["0"]
        if state == "full":
            while app.spool.statistics().state == "ok":
                name = str(len(sent))
                event = {"type": "track", "event": "x" * 500, "messageId": name, "userId": user}
                if (await clients.post_events([event])).status_code == 200:
                    sent.append(name)
            replayed = app.spool.take
            app.spool.take = never  # so that it stays full
        else:
            replayed = app.spool.take
            app.spool.take = never
            app.spool.writer.close()
            await trio.testing.wait_all_tasks_blocked()
        kafka_broker.move_leader("events", 0, 1)
        await trio.sleep(3)
        began = trio.current_time()
        large = [{"type": "track", "event": "x" * 900, "messageId": "refused", "userId": user}]
        answer = await clients.post_events(large)
        assert answer.status_code == 503
        assert answer.headers["x-collector-outcome"].endswith("not_sent=1, unknown=0")
        assert trio.current_time() - began < 0.1, "nothing to wait for"
        assert (await clients.post("other", user=other)).status_code == 200
        assert "other" in ids(kafka_broker)
        assert "refused" not in ids(kafka_broker)
        app.spool.take = replayed
        if state == "full":
            await until_empty(app)
            assert names_of(kafka_broker, user) == sent


async def never(selection: object) -> Sequence[object]:
    """A replay that finds nothing."""
    await trio.lowlevel.checkpoint()
    return []


async def test_order_of_a_key_holds_through_an_outage(kafka_broker, autojump_clock) -> None:
    async with open_collector_app(kafka_broker, with_spool(order="key")) as app:
        clients = Clients(app)
        await clients.warm()
        user = key_in(1)
        kafka_broker.move_leader("events", 1, None)
        await clients.post("0000", user=user)
        for number in range(1, 30):
            await clients.post(f"{number:04}", user=user)
            await trio.sleep(0.1)
        kafka_broker.move_leader("events", 1, 1)
        for number in range(30, 200):
            assert (await clients.post(f"{number:04}", user=user)).status_code == 200
            await trio.sleep(0.01)
        await until_empty(app)
        assert (await clients.post("0200", user=user)).status_code == 200
        records = [record for record in kafka_broker.log("events", 1) if record.key == user.encode()]
        names = [json.loads(record.value)["id"] for record in records if b"warm" not in record.value]
        assert names == [f"{number:04}" for number in range(201)]
        assert app.ledger.delivered_total > PARTITIONS
        ledgers(app)


async def test_busy_bucket_alone_sends_its_events_to_the_spool(kafka_broker, autojump_clock) -> None:
    async with open_collector_app(kafka_broker, with_spool(order="key")) as app:
        clients = Clients(app)
        await clients.warm()
        spool = app.services.ingest.ways.spool
        busy = key_hash(b"busy") % 4096
        asked = spool.busy_bucket
        app.services.ingest.ways.spool = spool
        spool.busy_bucket = lambda bucket: bucket == busy or asked(bucket)
        assert (await clients.post("a", user="busy")).status_code == 200
        assert (await clients.post("b", user="quiet")).status_code == 200
        assert (app.ledger.spooled_total, app.ledger.delivered_total) == (1, PARTITIONS + 1)
        del spool.busy_bucket
        await until_empty(app)
