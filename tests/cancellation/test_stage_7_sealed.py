"""Stage 7: sealed: in flight, or backing off. The caller is told unknown; the batch goes on unchanged to its end."""

import pytest
import trio

UNKNOWN = "delivered=0, spooled=0, rejected=0, not_sent=0, unknown=1"


def producer(collector_app):
    return collector_app.producer.statistics()


@pytest.mark.parametrize("way", ["deadline", "cancelled"])
async def test_in_flight_is_unknown_and_resolves_later(
    start, make_event, warm, kafka_broker, collector_app, assert_nothing_left, autojump_clock, way: str
) -> None:
    await warm()
    kafka_broker.faults.delay(10.0)
    began = trio.current_time()
    call = start(make_event("slow"))
    await kafka_broker.wait_records("events", 2)
    if way == "cancelled":
        call.cancel()
    await call.ended.wait()
    if way == "deadline":
        assert call.ended_at == began + 3.8
        assert (call.status, call.outcome, call.headers["x-collector-unknown"]) == (503, UNKNOWN, "0")
        assert 4 <= int(call.headers["retry-after"]) <= 8
    statistics = producer(collector_app)
    assert (statistics.queue_bytes, statistics.waiters) == (0, 0)
    assert (statistics.in_flight_batches, statistics.detached_batches, statistics.detached_records) == (1, 1, 1)
    assert statistics.detached_bytes == statistics.in_flight_bytes > 0

    await trio.sleep_until(began + 10)
    await assert_nothing_left(connections=2)
    books = collector_app.ledger
    assert (books.unknown_total, books.late_delivered_total, books.unresolved) == (1, 1, 0)
    assert len(kafka_broker.records("events")) == 2


async def test_backing_off_is_unknown_and_tried_on(
    start, make_event, warm, kafka_broker, collector_app, assert_nothing_left, autojump_clock
) -> None:
    await warm()
    fault = kafka_broker.faults.fail(19, times=None)  # NOT_ENOUGH_REPLICAS: not appended, may be tried again
    call = start(make_event("slow"), timeout_ms=500)
    await call.ended.wait()
    assert (call.status, call.outcome) == (503, UNKNOWN)
    assert fault.hits >= 2
    assert producer(collector_app).detached_records == 1
    fault.remove()
    await assert_nothing_left(within_s=2, connections=2)
    assert collector_app.ledger.late_delivered_total == 1
    assert len(kafka_broker.records("events")) == 2


async def test_lost_acknowledgement_then_cancelled_is_in_the_log_once(
    start, make_event, warm, kafka_broker, collector_app, assert_nothing_left, autojump_clock
) -> None:
    await warm()
    kafka_broker.faults.drop_answer()
    call = start(make_event("slow"))
    await kafka_broker.wait_records("events", 2)
    call.cancel()
    await call.ended.wait()
    await assert_nothing_left(within_s=5, connections=3)
    assert collector_app.ledger.late_delivered_total == 1
    assert len(kafka_broker.records("events")) == 2
    assert sum(batch.duplicate for batch in kafka_broker.seen.batches) == 1


async def test_one_of_many_cancelled_does_not_change_the_batch(
    start, make_event, kafka_broker, collector_app, assert_nothing_left, autojump_clock
) -> None:
    """All wait for the leader, are sealed together, and one leaves: the same range goes out again."""
    kafka_broker.topics["events"].hidden = True
    calls = [start(make_event(f"event {number}")) for number in range(100)]
    await trio.testing.wait_all_tasks_blocked()
    kafka_broker.faults.drop_answer()
    kafka_broker.topics["events"].hidden = False
    await kafka_broker.wait_records("events", 100)
    calls[37].cancel()
    for call in calls:
        await call.ended.wait()
    assert [call.status for call in calls] == [200] * 37 + [0] + [200] * 62
    ranges = [(batch.base_sequence, batch.count) for batch in kafka_broker.seen.batches]
    assert ranges == [(0, 100), (0, 100)]
    assert len(kafka_broker.records("events")) == 100
    await assert_nothing_left(connections=3)


async def test_broker_that_never_answers_costs_one_connection_and_no_bytes(
    start, make_event, warm, kafka_broker, collector_app, assert_nothing_left, autojump_clock
) -> None:
    """A black hole: the request timeout ends the connection, the batch is tried on another, the caller is long gone."""
    await warm()
    kafka_broker.faults.stall()
    began = trio.current_time()
    call = start(make_event("slow"))
    await call.ended.wait()
    assert (call.status, call.ended_at) == (503, began + 3.8)
    await assert_nothing_left(within_s=40, connections=3)
    assert began + 30 <= trio.current_time() < began + 35
    assert len(kafka_broker.records("events")) == 2
