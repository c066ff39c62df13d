"""Stage 6: waits for a leader, a connection, or company (linger). As stage 5: NotSent, sequences untouched."""

from dataclasses import replace

import pytest
import trio

from collector.config import Config
from collector.devtools.fixtures import default_config


@pytest.fixture
def collector_config() -> Config:
    """A long linger, to be seen waiting."""
    config = default_config()
    return replace(config, kafka=replace(config.kafka, linger_s=5.0))


async def not_sent(call, collector_app) -> None:
    """The call ends so, and its bytes are back."""
    await call.ended.wait()
    assert call.outcome in ("delivered=0, spooled=0, rejected=0, not_sent=1, unknown=0", "")
    assert collector_app.ledger.refused_total == 1
    statistics = collector_app.producer.statistics()
    assert (statistics.queue_bytes, statistics.queued_records) == (0, 0)


async def next_one_follows(start, make_event, kafka_broker) -> None:
    """The next event takes the sequence after the last acknowledged one."""
    last = start(make_event("last"))
    await last.ended.wait()
    assert last.status == 200
    records = kafka_broker.records("events")
    assert [record.sequence for record in records] == list(range(len(records)))
    assert not any(b"waiting" in (record.value or b"") for record in records)


@pytest.mark.parametrize("way", ["deadline", "cancelled"])
async def test_without_a_leader(
    start, make_event, warm, kafka_broker, collector_app, assert_nothing_left, autojump_clock, way: str
) -> None:
    await warm()
    kafka_broker.move_leader("events", 0, None)
    kafka_broker.faults.fail(6)
    noticed = start(make_event("noticed"), timeout_ms=200)
    await noticed.ended.wait()  # unknown at most: it had been sealed when the broker said "not leader"
    refused = collector_app.ledger.refused_total
    waiting = start(make_event("waiting"), timeout_ms=50)
    await trio.testing.wait_all_tasks_blocked()
    if way == "cancelled":
        waiting.cancel()
    await waiting.ended.wait()
    assert collector_app.ledger.refused_total == refused + 1
    assert collector_app.producer.statistics().queued_records == 0
    kafka_broker.move_leader("events", 0, 1)
    await assert_nothing_left(within_s=5)
    await next_one_follows(start, make_event, kafka_broker)


@pytest.mark.parametrize("way", ["deadline", "cancelled"])
async def test_before_the_topic_is_known(
    start, make_event, kafka_broker, collector_app, assert_nothing_left, autojump_clock, way: str
) -> None:
    kafka_broker.topics["events"].hidden = True
    waiting = start(make_event("waiting"), timeout_ms=50)
    await trio.testing.wait_all_tasks_blocked()
    if way == "cancelled":
        waiting.cancel()
    await not_sent(waiting, collector_app)
    await assert_nothing_left(connections=1)
    kafka_broker.topics["events"].hidden = False
    await next_one_follows(start, make_event, kafka_broker)


@pytest.mark.parametrize("way", ["deadline", "cancelled"])
async def test_before_any_broker_answers(
    start, make_event, kafka_broker, collector_app, assert_nothing_left, autojump_clock, way: str
) -> None:
    kafka_broker.stop_broker(1)
    waiting = start(make_event("waiting"), timeout_ms=50)
    await trio.testing.wait_all_tasks_blocked()
    if way == "cancelled":
        waiting.cancel()
    await not_sent(waiting, collector_app)
    await assert_nothing_left()
    kafka_broker.start_broker(1)
    await next_one_follows(start, make_event, kafka_broker)


@pytest.mark.parametrize("way", ["deadline", "cancelled"])
async def test_while_it_lingers(
    start, make_event, warm, kafka_broker, collector_app, assert_nothing_left, autojump_clock, way: str
) -> None:
    await warm()
    kafka_broker.faults.delay(1.0)
    in_flight = start(make_event("in flight"))
    await kafka_broker.wait_records("events", 2)
    waiting = start(make_event("waiting"), timeout_ms=50)
    await trio.testing.wait_all_tasks_blocked()
    assert collector_app.producer.statistics().due_times >= 1
    if way == "cancelled":
        waiting.cancel()
    await not_sent(waiting, collector_app)
    await in_flight.ended.wait()
    assert in_flight.status == 200
    await assert_nothing_left(connections=2)
    await next_one_follows(start, make_event, kafka_broker)
