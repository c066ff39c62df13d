"""What an observer is told, in order, on virtual time."""

import pytest
import trio

from kafka_client import (
    BatchEnded,
    BatchRetried,
    BatchWritten,
    BrokerConnected,
    BrokerDisconnected,
    BrokerThrottled,
    IdentityChanged,
    LeaderChanged,
    MetadataFailed,
    MetadataRefreshed,
    ProducerObserver,
)


class Recorder(ProducerObserver):
    """Keeps every event."""

    def __init__(self) -> None:
        self.events: list[object] = []
        for name in vars(ProducerObserver):
            if not name.startswith("_"):
                setattr(self, name, self.events.append)

    def of(self, kind: type) -> list:
        return [event for event in self.events if isinstance(event, kind)]


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


async def test_observer_hears_a_batch_from_its_first_attempt_to_its_end(scenario, recorder, autojump_clock) -> None:
    async with scenario(observer=recorder) as s:
        s.cluster.faults.fail(19)
        await s.outcome(b"value")
    kinds = [type(event) for event in recorder.events]
    assert kinds.index(LeaderChanged) < kinds.index(BrokerConnected) < kinds.index(BatchWritten)
    assert kinds.index(IdentityChanged) < kinds.index(BatchWritten)
    assert MetadataRefreshed in kinds
    first, second = recorder.of(BatchWritten)
    (retried,) = recorder.of(BatchRetried)
    (ended,) = recorder.of(BatchEnded)
    assert (first.attempt, second.attempt, ended.attempts) == (1, 2, 2)
    assert (first.topic, first.partition, first.records, first.base_sequence) == ("events", 0, 1, 0)
    assert (retried.code, retried.reason, retried.attempt, retried.tainted) == (19, "NOT_ENOUGH_REPLICAS", 1, False)
    assert (ended.outcome, ended.records, ended.size_bytes) == ("delivered", 1, second.size_bytes)
    assert ended.age_s > 0


async def test_observer_hears_a_lost_connection_and_its_taint(scenario, recorder, autojump_clock) -> None:
    async with scenario(observer=recorder) as s:
        await s.outcome(b"warm-up")
        s.cluster.faults.drop_answer()
        await s.outcome(b"value")
    (retried,) = recorder.of(BatchRetried)
    assert (retried.code, retried.tainted, retried.reason) == (None, True, "the connection was lost")
    (lost,) = recorder.of(BrokerDisconnected)
    assert not lost.idle
    assert len(recorder.of(BrokerConnected)) == 2


async def test_observer_tells_an_idle_close_from_a_loss(scenario, recorder, autojump_clock) -> None:
    async with scenario(observer=recorder) as s:
        await s.outcome(b"value")
        s.cluster.close_connections()
        await trio.sleep(1)
    assert [event.idle for event in recorder.of(BrokerDisconnected)] == [True]


async def test_observer_hears_throttling_leaders_and_a_silent_cluster(scenario, recorder, autojump_clock) -> None:
    async with scenario(observer=recorder, brokers=2) as s:
        await s.outcome(b"warm-up")
        s.cluster.faults.throttle(500)
        await s.outcome(b"throttled")
        assert [event.pause_s for event in recorder.of(BrokerThrottled)] == [0.5]
        s.cluster.move_leader("events", 0, 2)
        await s.outcome(b"moved")
        assert [event.leader for event in recorder.of(LeaderChanged)] == [1, 2]
        s.cluster.stop_broker(1)
        s.cluster.stop_broker(2)
        with s.deliver(b"nobody") as delivery:
            with trio.move_on_after(5):
                await delivery.wait()
        assert recorder.of(MetadataFailed)
        s.cluster.start_broker(1)
        s.cluster.start_broker(2)


async def test_observer_is_not_told_of_an_idle_close_where_none_was_open(scenario, recorder, autojump_clock) -> None:
    async with scenario(observer=recorder, brokers=2, connect_timeout_s=5.0) as s:
        await s.outcome(b"warm-up")
        s.cluster.faults.black_hole_connects(broker=1)
        s.cluster.close_connections(1)
        await trio.sleep(1)
        with s.deliver(b"value") as delivery:
            with trio.move_on_after(1):
                await delivery.wait()
        await trio.sleep(20)
        s.cluster.faults.accept_connects()
    closed, refused, *_ = recorder.of(BrokerDisconnected)
    assert closed.idle
    assert not refused.idle
