"""Kafka first, then the disk, then 503: requests against the strict fake cluster and a spool in memory.

Virtual time: what is not Kafka's or the disk's takes none.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace

import pytest
import trio

from collector.config import Config, DeadlinesConfig
from collector.devtools.fixtures import open_collector_app
from kafka_client import Record
from kafka_client.testing import open_fake_cluster
from tests.collector.ingest.stages import PARTITIONS, Clients, copies, ids, key_in, ledgers, until_empty, with_spool


@pytest.fixture
def kafka_topics() -> Mapping[str, int]:
    return {"events": PARTITIONS, "events-bad": 1}


@pytest.fixture
def collector_config() -> Config:
    return with_spool()


@pytest.fixture
def clients(collector_app) -> Clients:
    return Clients(collector_app)


async def test_total_outage_events_from_one_second_on_are_answered_from_the_spool_at_once(
    clients, collector_app, kafka_broker, nursery, autojump_clock
) -> None:
    await clients.warm()
    clients.answers.clear()
    kafka_broker.pause_broker(1)
    began = trio.current_time()
    for number in range(400):
        nursery.start_soon(clients.post, f"e{number}")
        await trio.sleep(0.025)
    await trio.sleep(4)
    assert clients.statuses[503] == 0
    assert len(clients.answers) == 400
    first = [took for at, took, _ in clients.answers if at - began <= 1.0]
    later = [took for at, took, _ in clients.answers if at - began > 1.05]
    assert len(first) >= 40
    assert set(first) == {3.0}, "Kafka's share of the time"
    assert max(later) < 0.001, "no virtual time passes: the disk is quick"
    statistics = collector_app.spool.statistics()
    assert (statistics.rows, collector_app.ledger.spooled_total) == (400, 400)
    assert 0 < statistics.held_rows <= len(first)

    requests_before = len(kafka_broker.seen.requests)
    kafka_broker.resume_broker(1)
    await until_empty(collector_app)
    assert len(kafka_broker.seen.requests) - requests_before < 40, "a herd"
    found = Counter(ids(kafka_broker))
    assert [found[f"e{number}"] for number in range(400)] == [1] * 400
    ledgers(collector_app)
    assert collector_app.ledger.unknown_total == 0
    statistics = collector_app.spool.statistics()
    assert statistics.replayed_total + statistics.resolved_total == 400


async def test_no_client_pays_for_the_probe(clients, collector_app, kafka_broker, autojump_clock) -> None:
    await clients.warm()
    diversion = collector_app.services.ingest.ways.diversion
    kafka_broker.move_leader("events", 0, None)
    user = key_in(0)
    assert (await clients.post("finds-out", user=user)).status_code == 200
    await trio.sleep(10)
    kafka_broker.move_leader("events", 0, 1)
    for number in range(100):
        assert (await clients.post(f"after-{number}", user=user)).status_code == 200
        assert clients.answers[-1][1] < 0.05, "a client waited"
        await trio.sleep(0.05)
    await until_empty(collector_app)
    assert diversion.statistics().diverted_partitions == 0
    assert len(set(ids(kafka_broker))) == len(ids(kafka_broker)) == PARTITIONS + 101
    assert collector_app.ledger.delivered_total > PARTITIONS + 50, "it went on through the spool"
    ledgers(collector_app)


async def test_mixed_batch_goes_both_ways_and_says_so(
    clients, collector_app, kafka_broker, assert_nothing_left, autojump_clock
) -> None:
    await clients.warm()
    kafka_broker.move_leader("events", 2, None)
    await clients.post("finds-out", user=key_in(2))
    users = {f"e{n}": key_in(n % PARTITIONS, n // PARTITIONS) for n in range(20)}
    events = [{"type": "track", "event": "x", "messageId": name, "userId": user} for name, user in users.items()]
    events.insert(3, {"type": "nonsense"})
    began = trio.current_time()
    answer = await clients.post_events(events)
    assert (answer.status_code, trio.current_time() - began < 0.1) == (200, True)
    assert answer.headers["x-collector-outcome"] == "delivered=15, spooled=5, rejected=1, not_sent=0, unknown=0"
    assert collector_app.spool.statistics().rows == 6
    kafka_broker.move_leader("events", 2, 1)
    await until_empty(collector_app)
    assert Counter(ids(kafka_broker))["e2"] == 1
    assert set(users) <= set(ids(kafka_broker))
    await assert_nothing_left(within_s=5)
    ledgers(collector_app)


async def test_events_without_a_key_go_around_what_is_diverted(
    clients, collector_app, kafka_broker, autojump_clock
) -> None:
    config = with_spool()
    config = replace(config, kafka=replace(config.kafka, key="none"))
    async with open_collector_app(kafka_broker, config) as app:
        clients = Clients(app)
        for number in range(8):
            await clients.post(f"warm-{number}", user="u")
        leaderless = [0, 1, 3]
        for partition in leaderless:
            kafka_broker.move_leader("events", partition, None)
        finds_out = app.producer.delivery([Record("events", b'{"id":"x"}', partition=n) for n in leaderless])
        await trio.sleep(1)
        before = [len(kafka_broker.log("events", partition)) for partition in range(PARTITIONS)]
        for number in range(50):
            assert (await clients.post(f"e{number}", user="u")).status_code == 200
            await trio.sleep(0.03)
        after = [len(kafka_broker.log("events", partition)) for partition in range(PARTITIONS)]
        assert app.ledger.spooled_total == 0
        assert [new - old for new, old in zip(after, before, strict=True)] == [0, 0, 50, 0]
        kafka_broker.move_leader("events", 2, None)
        await clients.post("finds-out", user="u")
        assert (await clients.post("none-is-left", user="u")).status_code == 200
        assert app.ledger.spooled_total >= 1, "all partitions are diverted"
        for partition in range(PARTITIONS):
            kafka_broker.move_leader("events", partition, 1)
        await until_empty(app)
        with finds_out:
            await finds_out.wait()
        ledgers(app)


async def test_client_in_a_hurry_has_its_shares_shrunk(clients, collector_app, kafka_broker, autojump_clock) -> None:
    await clients.warm()
    kafka_broker.faults.delay(2.0)
    answer = await clients.post("e", timeout_ms=400)
    assert (answer.status_code, clients.answers[-1][1]) == (200, pytest.approx(0.3))
    assert collector_app.spool.statistics().held_rows == 1
    await trio.sleep(3)
    statistics = collector_app.spool.statistics()
    assert (statistics.rows, statistics.resolved_total, statistics.replayed_total) == (0, 1, 0)
    assert ids(kafka_broker).count("e") == 1
    assert (collector_app.ledger.spooled_total, collector_app.ledger.late_delivered_total) == (1, 0)
    ledgers(collector_app)


async def test_slow_broker_within_kafkas_share_is_not_spooled(
    clients, collector_app, kafka_broker, autojump_clock
) -> None:
    await clients.warm()
    kafka_broker.faults.delay(2.5)
    assert (await clients.post("slow")).status_code == 200
    assert clients.answers[-1][1] == pytest.approx(2.5, abs=0.1)
    assert (collector_app.ledger.delivered_total, collector_app.spool.statistics().rows_in_total) == (PARTITIONS + 1, 0)


@pytest.mark.parametrize(
    ("end", "copies_in_log", "replayed"),
    [
        ("delivered", [False], 0),
        ("not sent", [False], 1),  # it is proved that it never was in the log
        ("unknown", [False, True], 1),
    ],
)
async def test_held_row_is_decided_by_the_end_of_its_batch(
    clients, collector_app, kafka_broker, autojump_clock, end: str, copies_in_log: list[bool], replayed: int
) -> None:
    await clients.warm()
    fault = kafka_broker.faults.fail(19, times=None)  # NOT_ENOUGH_REPLICAS: it is tried again
    assert (await clients.post("e")).status_code == 200
    statistics = collector_app.spool.statistics()
    assert (statistics.rows, statistics.held_rows) == (1, 1)
    await trio.sleep(5)
    assert collector_app.spool.statistics().held_rows == 1, "the replay leaves it alone"
    fault.remove()
    if end == "not sent":
        kafka_broker.faults.fail(87)  # INVALID_RECORD
    elif end == "unknown":
        kafka_broker.faults.append_and_fail(-1)  # UNKNOWN_SERVER_ERROR
    await until_empty(collector_app)
    statistics = collector_app.spool.statistics()
    assert copies(kafka_broker, "e") == copies_in_log
    assert (statistics.resolved_total, statistics.replayed_total) == (1 - replayed, replayed)
    assert collector_app.ledger.spooled_total == 1
    ledgers(collector_app)


async def test_full_spool_leaves_the_rest_to_kafka_and_answers_503_when_both_fail(
    clients, kafka_broker, autojump_clock
) -> None:
    async with open_collector_app(kafka_broker, with_spool(max_bytes=5000, replay_bytes=4000)) as app:
        clients = Clients(app)
        await clients.warm()
        kafka_broker.pause_broker(1)
        await clients.post("caught")
        told = []
        while True:
            answer = await clients.post(f"e{len(told)}")
            told.append(answer.status_code)
            if answer.status_code != 200:
                break
        assert len(told) > 3
        assert answer.headers["x-collector-outcome"].endswith(("not_sent=1, unknown=0", "not_sent=0, unknown=1"))
        assert clients.answers[-1][1] <= 3.8
        assert app.services.lifecycle.status() == "spool_full"
        began = trio.current_time()
        assert (await clients.post("later")).status_code == 503
        assert trio.current_time() - began == pytest.approx(3.8), "all the time is Kafka's"
        kafka_broker.resume_broker(1)
        await until_empty(app)
        assert app.services.lifecycle.status() == "ready"
        assert (await clients.post("again")).status_code == 200
        ledgers(app)
        assert app.ledger.delivered_total >= PARTITIONS + 1


async def test_failed_spool_leaves_all_to_kafka(clients, collector_app, kafka_broker, autojump_clock) -> None:
    await clients.warm()
    collector_app.spool.writer.close()
    await trio.testing.wait_all_tasks_blocked()
    assert collector_app.spool.statistics().state == "failed"
    await trio.sleep(0.1)
    kafka_broker.pause_broker(1)
    for _ in range(2):
        began = trio.current_time()
        answer = await clients.post("e")
        assert (answer.status_code, trio.current_time() - began) == (503, pytest.approx(3.8))
    assert collector_app.services.lifecycle.status() == "ready"
    kafka_broker.resume_broker(1)
    await trio.sleep(5)
    assert (await clients.post("again")).status_code == 200


async def test_without_a_share_for_the_disk_nothing_is_diverted(kafka_broker, autojump_clock) -> None:
    config = replace(with_spool(), deadlines=DeadlinesConfig(kafka_s=3.8, spool_s=0.0))
    async with open_collector_app(kafka_broker, config) as app:
        clients = Clients(app)
        await clients.warm()
        kafka_broker.pause_broker(1)
        for _ in range(2):
            assert (await clients.post("e")).status_code == 503
            assert clients.answers[-1][1] == pytest.approx(3.8)
        kafka_broker.resume_broker(1)
    assert app.spool.statistics().rows_in_total == 0


async def test_overload_that_kafka_refuses_at_once_goes_to_the_disk(kafka_broker, nursery, autojump_clock) -> None:
    config = with_spool()
    config = replace(config, limits=replace(config.limits, queue_bytes=4000, waiting_bytes=1, event_bytes=2000))
    async with open_collector_app(kafka_broker, config) as app:
        clients = Clients(app)
        await clients.warm()
        kafka_broker.move_leader("events", 0, None)
        kafka_broker.faults.delay(0.5)
        for number in range(30):
            nursery.start_soon(clients.post, f"e{number}")
        await trio.sleep(0.1)
        assert app.ledger.spooled_total > 10, "answered from the disk while Kafka's queue is full"
        assert app.producer.statistics().queue_bytes <= 4000
        kafka_broker.move_leader("events", 0, 1)
        await trio.sleep(5)
        await until_empty(app)
        assert clients.statuses == {200: 30 + PARTITIONS}
        assert Counter(ids(kafka_broker)).most_common(1)[0][1] == 1
        ledgers(app)


async def test_requests_in_work_when_the_producer_closes_go_to_the_disk(
    clients, collector_app, kafka_broker, nursery, autojump_clock
) -> None:
    """What is queued is proved absent, what is sealed may be in the log: neither is held for a batch that is gone."""
    await clients.warm()
    kafka_broker.faults.stall()
    nursery.start_soon(clients.post, "sealed")
    await trio.sleep(0.1)
    kafka_broker.move_leader("events", 1, None)
    await clients.post("finds-out", user=key_in(1), timeout_ms=100)
    nursery.start_soon(clients.post, "queued", None)
    await trio.sleep(0.1)
    began = trio.current_time()
    await collector_app.producer.close(0)
    await trio.sleep(0.1)
    assert clients.statuses == {200: PARTITIONS + 3}
    assert trio.current_time() - began == pytest.approx(0.1), "nobody waited"
    statistics = collector_app.spool.statistics()
    assert (statistics.rows, statistics.held_rows) == (3, 0)
    assert collector_app.ledger.spooled_total == 3
    ledgers(collector_app)


async def test_cluster_that_is_away_at_the_start(nursery, autojump_clock) -> None:
    async with open_fake_cluster(topics={"events": PARTITIONS, "events-bad": 1}) as broker:
        broker.stop_broker(1)
        async with open_collector_app(broker, with_spool()) as app:
            clients = Clients(app)
            nursery.start_soon(clients.post, "first")
            await trio.sleep(1.1)
            for number in range(20):
                assert (await clients.post(f"e{number}")).status_code == 200
                assert clients.answers[-1][1] < 0.01
            await trio.sleep(3)
            assert clients.statuses == {200: 21}
            broker.start_broker(1)
            await until_empty(app, 120)
            assert sorted(ids(broker)) == sorted(["first", *(f"e{number}" for number in range(20))])
            assert (await clients.post("after", user="e1")).status_code == 200
            ledgers(app)


async def test_original_that_becomes_a_row_after_its_repeat_was_sent_is_marked(
    clients, collector_app, kafka_broker, nursery, autojump_clock
) -> None:
    """The log had the marked repeat first and then the original as if it were the only one."""
    await clients.warm()
    kafka_broker.stop_broker(1, elect=False)
    await trio.sleep(0.3)
    nursery.start_soon(clients.post, "e")
    await trio.sleep(0.5)
    nursery.start_soon(clients.post, "e")
    await trio.sleep(5)
    kafka_broker.start_broker(1)
    await until_empty(collector_app)
    assert copies(kafka_broker, "e") == [True, True]
    ledgers(collector_app)
