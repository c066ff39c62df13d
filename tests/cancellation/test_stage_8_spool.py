"""Stage 8: the row waits for the spool's writer. Not taken: removed. Taken: it stays, unknown without its commit."""

from dataclasses import replace

import pytest
import trio

from collector.config import Config, SpoolConfig
from collector.devtools.fixtures import default_config

NOT_SENT = "delivered=0, spooled=0, rejected=0, not_sent=1, unknown=0"
UNKNOWN = "delivered=0, spooled=0, rejected=0, not_sent=0, unknown=1"


@pytest.fixture
def collector_config() -> Config:
    """A spool in memory."""
    return replace(default_config(), spool=SpoolConfig(path=":memory:"))


class Disk:
    """The disk under the spool of an application: it answers while it is not stopped."""

    def __init__(self, writer) -> None:
        self._works = trio.Event()
        self._works.set()
        thread = writer._thread
        whole = thread.call

        async def call(fn, *args):
            await self._works.wait()
            return await whole(fn, *args)

        thread.call = call

    def stop(self) -> None:
        self._works = trio.Event()

    def go_on(self) -> None:
        self._works.set()


@pytest.fixture
def disk(collector_app) -> Disk:
    return Disk(collector_app.spool.writer)


@pytest.fixture
def outage(warm, start, make_event, kafka_broker):
    """``await outage()``: the broker stands still, and its partition is diverted."""

    async def begin():
        await warm()
        kafka_broker.pause_broker(1)
        first = start(make_event("first"))
        await first.ended.wait()
        assert first.status == 200
        return first

    return begin


@pytest.fixture
def over(kafka_broker, collector_app, assert_nothing_left):
    """``await over()``: the broker goes on, what is in the spool arrives, nothing is left."""

    async def end():
        kafka_broker.resume_broker(1)
        with trio.fail_after(30):  # noqa: ASYNC912  # the loop waits
            while collector_app.spool.statistics().rows:  # noqa: ASYNC110  # it has no event
                await trio.sleep(0.05)
        await assert_nothing_left(within_s=10)
        assert collector_app.spool.statistics().difference == 0

    return end


def books(collector_app):
    return collector_app.ledger


async def test_cancelled_in_kafkas_share_leaves_nothing_in_the_spool(
    warm, start, make_event, kafka_broker, collector_app, assert_nothing_left, autojump_clock
) -> None:
    await warm()
    kafka_broker.move_leader("events", 0, None)
    call = start(make_event("e"))
    await trio.testing.wait_all_tasks_blocked()
    call.cancel()
    await call.ended.wait()
    statistics = collector_app.spool.statistics()
    assert (statistics.rows_in_total, statistics.pending_rows) == (0, 0)
    kafka_broker.move_leader("events", 0, 1)
    await assert_nothing_left(within_s=10)


@pytest.mark.parametrize("way", ["deadline", "cancelled"])
async def test_not_taken_is_removed_and_not_sent(
    outage, start, make_event, disk, kafka_broker, collector_app, over, autojump_clock, way: str
) -> None:
    await outage()
    disk.stop()
    taken = start(make_event("taken"))
    await trio.testing.wait_all_tasks_blocked()
    waiting = start(make_event("waiting"), timeout_ms=1000)
    await trio.testing.wait_all_tasks_blocked()
    assert collector_app.spool.statistics().pending_rows == 2
    began = trio.current_time()
    if way == "cancelled":
        waiting.cancel()
    await waiting.ended.wait()
    if way == "deadline":
        assert waiting.ended_at == pytest.approx(began + 0.95)
        assert (waiting.status, waiting.outcome) == (503, NOT_SENT)
    assert collector_app.spool.statistics().pending_rows == 1
    assert books(collector_app).refused_total == 1
    disk.go_on()
    await taken.ended.wait()
    assert taken.status == 200
    await over()
    values = b"".join(value or b"" for value in kafka_broker.values("events"))
    assert (b'"waiting"' in values, b'"taken"' in values) == (False, True)


@pytest.mark.parametrize("way", ["deadline", "cancelled"])
async def test_taken_stays_and_is_unknown_until_its_commit(
    outage, start, make_event, disk, kafka_broker, collector_app, over, autojump_clock, way: str
) -> None:
    await outage()
    disk.stop()
    began = trio.current_time()
    call = start(make_event("taken"))
    await trio.testing.wait_all_tasks_blocked()
    if way == "cancelled":
        call.cancel()
    await call.ended.wait()
    if way == "deadline":
        assert call.ended_at == began + 3.8
        assert (call.status, call.outcome, call.headers["x-collector-unknown"]) == (503, UNKNOWN, "0")
    assert (books(collector_app).unknown_total, books(collector_app).unresolved) == (1, 1)
    disk.go_on()
    await trio.testing.wait_all_tasks_blocked()
    found = books(collector_app)
    assert (found.unknown_total, found.late_spooled_total, found.unresolved, found.difference) == (1, 1, 0, 0)
    await over()
    assert b'"taken"' in b"".join(value or b"" for value in kafka_broker.values("events"))
    assert books(collector_app).late_delivered_total == 0, "it was counted late already"


async def test_held_row_whose_batch_is_delivered_before_the_commit_is_delivered(
    warm, start, make_event, disk, kafka_broker, collector_app, over, autojump_clock
) -> None:
    """Kafka's word comes 3.3 s after the event; the disk's does not come."""
    await warm()
    kafka_broker.faults.delay(3.3)
    disk.stop()
    began = trio.current_time()
    call = start(make_event("held"))
    await call.ended.wait()
    assert call.ended_at == began + 3.8, "it waited for the disk"
    assert (call.status, books(collector_app).delivered_total) == (200, 2)
    disk.go_on()
    await over()
    statistics = collector_app.spool.statistics()
    assert (statistics.rows_in_total, statistics.resolved_total, statistics.replayed_total) == (1, 1, 0)
    assert len(kafka_broker.records("events")) == 2


async def test_held_row_cancelled_before_the_commit_resolves_late(
    warm, start, make_event, disk, kafka_broker, collector_app, over, autojump_clock
) -> None:
    await warm()
    kafka_broker.faults.delay(6.0)
    disk.stop()
    call = start(make_event("held"))
    await trio.sleep(3.2)
    call.cancel()
    await call.ended.wait()
    assert (books(collector_app).unknown_total, books(collector_app).unresolved) == (1, 1)
    await trio.sleep(5)
    assert (books(collector_app).late_delivered_total, books(collector_app).unresolved) == (1, 0)
    disk.go_on()
    await over()
    assert (books(collector_app).late_spooled_total, books(collector_app).difference) == (0, 0)
    assert collector_app.spool.statistics().resolved_total == 1
    assert len(kafka_broker.records("events")) == 2


async def test_held_row_not_taken_and_cancelled_resolves_late(
    outage, start, make_event, disk, kafka_broker, collector_app, over, autojump_clock
) -> None:
    """The writer hangs with another's row; the batch lives on, and nobody is told twice."""
    await outage()
    await over()
    kafka_broker.faults.delay(6.0)
    held = start(make_event("held"))
    await trio.sleep(2)
    disk.stop()
    other = start(make_event("other"))
    await trio.sleep(1.2)
    assert collector_app.spool.statistics().pending_rows == 2
    held.cancel()
    await held.ended.wait()
    assert collector_app.spool.statistics().pending_rows == 1
    disk.go_on()
    await other.ended.wait()
    assert (other.status, books(collector_app).unknown_total) == (200, 1)
    await trio.sleep(5)
    assert (books(collector_app).late_delivered_total, books(collector_app).unresolved) == (1, 0)
    await over()


async def test_one_of_many_cancelled_takes_only_its_own_rows_back(
    outage, start, make_event, disk, kafka_broker, collector_app, over, autojump_clock
) -> None:
    await outage()
    disk.stop()
    calls = []
    for number in range(20):
        calls.append(start(make_event(f"event {number}")))
        await trio.testing.wait_all_tasks_blocked()
    calls[7].cancel()
    await calls[7].ended.wait()
    disk.go_on()
    for call in calls:
        await call.ended.wait()
    assert [call.status for call in calls] == [200] * 7 + [0] + [200] * 12
    await over()
    values = b"".join(value or b"" for value in kafka_broker.values("events"))
    assert b'"event 7"' not in values
    assert values.count(b'"event 1') == 11


async def test_event_whose_commit_came_too_late_is_not_spooled_again(
    outage, start, make_event, disk, kafka_broker, collector_app, over, autojump_clock
) -> None:
    await outage()
    body = make_event("taken")[:-1] + b',"messageId":"m"}'
    disk.stop()
    call = start(body)
    await call.ended.wait()
    assert (call.status, call.outcome) == (503, UNKNOWN)
    disk.go_on()
    await trio.testing.wait_all_tasks_blocked()
    assert books(collector_app).late_spooled_total == 1, "whoever reads the books looks back"
    call = start(body)
    await call.ended.wait()
    assert (call.status, books(collector_app).deduplicated_total) == (200, 1)
    await over()
    assert b"".join(value or b"" for value in kafka_broker.values("events")).count(b'"taken"') == 1
