"""Time is kept for partitions that have something, and for no others."""

import pytest
import trio

from kafka_client import NotSent
from kafka_client.sending.partition import PartitionState


async def test_deadlines_of_a_few_among_many_partitions_cost_no_walk_over_all(
    scenario, autojump_clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with scenario(partitions=500, brokers=1, delivery_timeout_s=40.0) as s:
        for partition in range(500):
            await s.outcome(b"%d" % partition, partition=partition)
        s.producer._dispatch.end_due(trio.current_time())
        looked_at: list[int] = []
        idle = PartitionState.idle.fget
        assert idle is not None
        monkeypatch.setattr(
            PartitionState, "idle", property(lambda self: looked_at.append(self.tp.partition) or idle(self))
        )
        s.producer._dispatch.next_end()
        s.producer._dispatch.end_due(trio.current_time())
        assert looked_at == []
        s.cluster.faults.stall(append=False, times=None)
        with s.deliver(b"late", partition=7):
            s.producer._dispatch.next_end()
        assert set(looked_at) == {7}
        s.cluster.faults.clear()
        s.cluster.close_connections()


async def test_record_queued_after_one_was_taken_back_has_its_deadline(scenario, autojump_clock) -> None:
    """The outbox still counts on the partition then, so that it does not announce itself again."""
    async with scenario(max_in_flight_per_partition=1, delivery_timeout_s=40.0) as s:
        await s.outcome(b"warm-up")
        fault = s.cluster.faults.stall(append=False, times=None)
        flying = s.deliver(b"flying")
        await s.cluster.wait_until(lambda: fault.hits == 1)
        with s.deliver(b"taken back"):
            pass
        s.producer._dispatch.end_due(trio.current_time())
        started = trio.current_time()
        late = s.deliver(b"late")
        with late:
            await late.wait()
        assert isinstance(late.outcomes[0], NotSent)
        assert trio.current_time() - started == pytest.approx(40)
        s.cluster.faults.clear()
        s.cluster.close_connections()
        with flying:
            await flying.wait()


@pytest.mark.parametrize("taken_back", [False, True])
@pytest.mark.parametrize("led", [False, True])
async def test_record_of_a_partition_that_was_idle_for_long_has_its_deadline(
    scenario, autojump_clock, led: bool, taken_back: bool
) -> None:
    async with scenario(delivery_timeout_s=40.0, metadata_max_age_s=1.0) as s:
        await s.outcome(b"warm-up")
        await trio.sleep(200)
        s.producer._dispatch.end_due(trio.current_time())
        if not led:
            s.cluster.move_leader("events", 0, None)
            await trio.sleep(3)
        else:
            s.cluster.faults.fail(19, times=None)
        if taken_back:
            with s.deliver(b"taken back"):
                pass
            s.producer._dispatch.end_due(trio.current_time())
        started = trio.current_time()
        with s.deliver(b"late") as late:
            await late.wait()
        assert late.outcomes[0] is not None
        assert trio.current_time() - started == pytest.approx(40)
        s.cluster.faults.clear()
        s.cluster.move_leader("events", 0, 1)
        await trio.sleep(5)


async def test_time_is_kept_for_a_record_queued_in_the_same_tick_as_one_was_taken_back(
    scenario, autojump_clock
) -> None:
    """The partition is idle then, and does not announce itself again."""
    async with scenario(delivery_timeout_s=40.0) as s:
        await s.outcome(b"warm-up")
        dispatch, now = s.producer._dispatch, trio.current_time()
        dispatch.end_due(now)
        with s.deliver(b"taken back"):
            pass
        dispatch.end_due(now)
        with s.deliver(b"late") as late:
            assert dispatch.next_end() == pytest.approx(now + 40)
            await late.wait()
