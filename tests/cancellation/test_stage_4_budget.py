"""Stage 4: the delivery waits in the budget's FIFO. Taken out; the next that fit are woken; NotSent."""

from dataclasses import replace

import pytest
import trio

from collector.config import Config
from collector.devtools.fixtures import default_config


@pytest.fixture
def collector_config() -> Config:
    """A queue of 4000 bytes."""
    config = default_config()
    return replace(config, limits=replace(config.limits, queue_bytes=4000))


@pytest.fixture
def full(start, warm, kafka_broker, collector_app):
    """``await full(event)``: the leader is gone, and the queue holds this event; returns its call.

    A first one finds out about the leader, and is sealed by then: it stays, detached, until there is a leader again.
    """

    async def fill(body: bytes):
        await warm()
        kafka_broker.move_leader("events", 0, None)
        await collector_app.http.post("/v1/track", content=body, headers={"x-collector-timeout-ms": "1"})
        call = start(body, timeout_ms=None)
        await trio.testing.wait_all_tasks_blocked()
        return call

    return fill


def producer(collector_app):
    return collector_app.producer.statistics()


async def test_deadline_in_the_fifo_is_not_sent(
    full, start, make_event, collector_app, kafka_broker, assert_nothing_left, autojump_clock
) -> None:
    first = await full(make_event("first", 2000))
    began = trio.current_time()
    waiting = start(make_event("waiting", 2500), timeout_ms=1000)
    await trio.testing.wait_all_tasks_blocked()
    assert producer(collector_app).waiting_deliveries == 1
    await waiting.ended.wait()
    assert waiting.ended_at == pytest.approx(began + 0.95)
    assert (waiting.status, waiting.outcome) == (503, "delivered=0, spooled=0, rejected=0, not_sent=1, unknown=0")
    assert producer(collector_app).waiting_bytes == 0
    await first.ended.wait()
    kafka_broker.move_leader("events", 0, 1)
    await assert_nothing_left(within_s=5, connections=2)


async def test_cancelled_in_the_fifo_wakes_the_next_that_fit(
    full, start, make_event, collector_app, kafka_broker, assert_nothing_left, autojump_clock
) -> None:
    await full(make_event("first", 2000))
    large = start(make_event("large", 2500))
    await trio.testing.wait_all_tasks_blocked()
    small = [start(make_event("small", 10)) for _ in range(2)]
    await trio.testing.wait_all_tasks_blocked()
    assert producer(collector_app).waiting_deliveries == 3, "a small one overtook"
    large.cancel()
    await large.ended.wait()
    assert producer(collector_app).waiting_deliveries == 0
    assert producer(collector_app).queued_records == 3
    kafka_broker.move_leader("events", 0, 1)
    for call in small:
        await call.ended.wait()
        assert call.status == 200
    await assert_nothing_left(within_s=1, connections=2)
    assert b"large" not in b"".join(value or b"" for value in kafka_broker.values("events"))
