"""What went wrong once, each named by its symptom; against the strict fake cluster on virtual time."""

import trio

from kafka_client import Delivered


async def test_record_waits_for_its_timeout_after_the_leader_went_and_came_back(scenario, autojump_clock) -> None:
    """A rolling restart: the sender of the returned leader was not woken."""
    async with scenario(brokers=2, metadata_max_age_s=5.0) as s:
        home = s.cluster.partition("events", 0).leader
        await s.outcome(b"1")
        s.cluster.stop_broker(home)
        assert isinstance(await s.outcome(b"2"), Delivered)
        await trio.sleep(30)
        s.cluster.start_broker(home)
        s.cluster.move_leader("events", 0, home)
        started = trio.current_time()
        assert isinstance(await s.outcome(b"3"), Delivered)
        assert trio.current_time() - started < 1
