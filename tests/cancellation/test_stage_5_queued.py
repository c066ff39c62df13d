"""Stage 5: queued in the partition, no slot is free. A tombstone, the bytes back at once; NotSent; no sequence used."""

import pytest
import trio

from kafka_client import NotSent, Record, Unknown


def sequences(kafka_broker) -> list[tuple[int, int]]:
    """(base sequence, count) of every batch that a broker saw."""
    return [(batch.base_sequence, batch.count) for batch in kafka_broker.seen.batches]


@pytest.fixture
def stalled(start, make_event, kafka_broker):
    """``await stalled()``: the first batch ever is in flight and stays there, which takes the only slot."""

    async def stall():
        fault = kafka_broker.faults.stall()
        first = start(make_event("first"))
        await kafka_broker.wait_records("events", 1)
        await trio.testing.wait_all_tasks_blocked()
        return fault, first

    return stall


@pytest.mark.parametrize("way", ["deadline", "cancelled"])
async def test_queued_is_taken_back_at_once(
    stalled, start, make_event, kafka_broker, collector_app, assert_nothing_left, autojump_clock, way: str
) -> None:
    fault, first = await stalled()
    queued = start(make_event("queued"), timeout_ms=50)
    await trio.testing.wait_all_tasks_blocked()
    assert collector_app.producer.statistics().queued_records == 1
    if way == "cancelled":
        queued.cancel()
    await queued.ended.wait()
    statistics = collector_app.producer.statistics()
    assert (statistics.queue_bytes, statistics.queued_records) == (0, 0)
    assert collector_app.ledger.refused_total == 1
    if way == "deadline":
        assert (queued.status, queued.ended_at) == (503, pytest.approx(0.0475))
        assert queued.outcome == "delivered=0, spooled=0, rejected=0, not_sent=1, unknown=0"
    fault.release()
    await first.ended.wait()
    assert first.status == 200
    last = start(make_event("last"))
    await last.ended.wait()
    assert sequences(kafka_broker) == [(0, 1), (1, 1)]
    await assert_nothing_left(connections=2)


async def test_two_thousand_enqueues_end_at_their_deadline(
    kafka_broker, kafka_producer, assert_nothing_left, autojump_clock
) -> None:
    """50 ms each, a broker that answers after 500 ms: the queue is empty at 50 ms, the wire one answer later."""
    await kafka_producer.send(Record("events", b"warm-up"))
    kafka_broker.faults.delay(0.5, times=None)
    began = trio.current_time()
    ended: list[float] = []
    deliveries = []

    async def enqueue(number: int) -> None:
        async with trio.open_nursery() as nursery:
            nursery.cancel_scope.deadline = began + 0.05
            with kafka_producer.delivery([Record("events", b"event %d" % number)]) as delivery:
                deliveries.append(delivery)
                await delivery.wait()
        ended.append(trio.current_time())

    async with trio.open_nursery() as nursery:
        for number in range(2000):
            nursery.start_soon(enqueue, number)
    assert ended == [began + 0.05] * 2000
    statistics = kafka_producer.statistics()
    assert (statistics.queue_bytes, statistics.queued_records, statistics.waiters) == (0, 0, 0)
    assert statistics.in_flight_bytes > 0
    assert all(isinstance(delivery.outcomes[0], NotSent | Unknown) for delivery in deliveries)
    attempts = statistics.attempts_total
    unknown = sum(isinstance(delivery.outcomes[0], Unknown) for delivery in deliveries)

    await trio.sleep_until(began + 0.5 + kafka_producer.config.linger_s)  # the last request may have gathered
    await assert_nothing_left(connections=2)
    assert kafka_producer.statistics().attempts_total == attempts, "an attempt started for what was gone"
    assert kafka_producer.statistics().late_delivered_total == unknown
    assert len(kafka_broker.records("events")) == 1 + unknown
