"""The replay between a spool and Kafka, on virtual time."""

from collections import Counter
from typing import Any

import pytest
import trio

from collector.ingest.replay import BACKOFF_S, CLOSE_S
from kafka_client.outcome import NotSent, Record
from kafka_client.testing.messages import Api

MARK = ("maybe-duplicate", b"1")


def numbered(count: int, prefix: bytes = b"") -> list[bytes]:
    return [b"%s%04d" % (prefix, number) for number in range(count)]


def marked(room: Any) -> set[bytes]:
    return {record.value for record in room.cluster.records("events") if MARK in record.headers}


def key_of(partition: int, partitions: int) -> bytes:
    from kafka_client.wire.murmur2 import partition_for_key

    return next(
        key for key in (b"key%d" % number for number in range(1000)) if partition_for_key(key, partitions) == partition
    )


async def test_rows_reach_kafka_once_in_order_and_leave_the_spool(open_room: Any, autojump_clock: object) -> None:
    async with open_room(start=False) as room:
        values = numbered(1200)
        await room.store(*values)
        room.start()
        await room.until_empty()
        assert room.values() == values
        assert marked(room) == set()
        assert room.spool.statistics().replayed_total == 1200
        await room.until(lambda: room.replay.statistics().state == "idle")
        told = room.replay.statistics()
        assert (told.delivered_total, told.in_work_rows, told.in_work_bytes, told.unresolved_rows) == (1200, 0, 0, 0)
        assert told.time_to_empty_s == 0.0


async def test_no_produce_carries_a_row_that_the_file_does_not_call_attempted(
    open_room: Any, autojump_clock: object
) -> None:
    async with open_room(start=False, partitions=4) as room:
        seen: list[tuple[int, int]] = []

        def look(request: Any) -> bool:
            seen.append((sum(batch.count for batch in request.batches), room.spool.statistics().attempted_rows))
            return False

        room.cluster.faults.delay(0, when=look, times=None)
        for number in range(50):
            await room.store(*numbered(40, b"%d-" % number), key=b"k%d" % number)
        room.start()
        await room.until_empty()
        assert len(room.values()) == 2000
        assert sum(count for count, _ in seen) == 2000
        assert all(attempted >= count for count, attempted in seen)


async def test_rows_of_a_crash_after_the_mark_are_sent_with_maybe_duplicate(
    open_room: Any, autojump_clock: object
) -> None:
    async with open_room(start=False) as room:
        await room.store(*numbered(5))
        await room.spool.mark_attempted([1, 2, 3])
        room.start()
        await room.until_empty()
        assert room.values() == numbered(5)
        assert marked(room) == set(numbered(3))
        assert room.replay.statistics().marked_total == 3


async def test_unknown_row_whose_batch_is_delivered_late_is_replayed_once(
    open_room: Any, autojump_clock: object
) -> None:
    async with open_room() as room:
        room.cluster.faults.delay(5.0)
        await room.store(*numbered(10))
        await room.until(lambda: room.replay.statistics().unresolved_rows == 10)
        assert room.spool.statistics().attempted_rows == 10
        await room.until_empty()
        assert room.values() == numbered(10)
        told = room.replay.statistics()
        assert (told.delivered_total, told.unknown_total, told.returned_total) == (10, 10, 0)


async def test_unknown_row_whose_batch_is_refused_late_is_dead(open_room: Any, autojump_clock: object) -> None:
    async with open_room() as room:
        room.cluster.faults.delay(5.0)
        room.cluster.faults.fail(10)
        await room.store(b"too large for this broker")
        await room.until(lambda: room.replay.statistics().unresolved_rows == 1)
        await room.until_empty()
        assert room.values() == []
        assert room.spool.statistics().dead_total == 1


async def test_new_rows_and_a_returning_partition_wake_it_at_once(open_room: Any, autojump_clock: object) -> None:
    async with open_room() as room:
        await trio.sleep(10.5)
        began = trio.current_time()
        await room.store(b"new")
        await room.until_empty()
        assert trio.current_time() - began < 0.05
        room.cluster.pause_broker(1)
        await room.store(*numbered(600))
        await trio.sleep(30)
        began = trio.current_time()
        room.cluster.resume_broker(1)
        await room.until_empty()
        assert trio.current_time() - began < 0.5
        assert room.values() == [b"new", *numbered(600)]


async def test_row_that_stays_unknown_goes_back_as_attempted_and_is_marked(
    open_room: Any, autojump_clock: object
) -> None:
    async with open_room() as room:
        # UNKNOWN_SERVER_ERROR proves nothing, and ends the batch at once.
        room.cluster.faults.append_and_fail(-1)
        await room.store(*numbered(10))
        await room.until_empty()
        assert Counter(room.values()) == dict.fromkeys(numbered(10), 2)
        assert marked(room) == set(numbered(10))
        assert room.replay.statistics().unknown_total == 10


async def test_final_reject_goes_to_the_dead_and_does_not_stand_before_the_others(
    open_room: Any, autojump_clock: object
) -> None:
    async with open_room(start=False) as room:
        await room.store(b"before", b"x" * 1_100_000, b"after")
        room.start()
        await room.until_empty()
        assert room.values() == [b"before", b"after"]
        assert room.spool.statistics().dead_total == 1
        assert room.replay.statistics().dead_total == 1


async def test_record_that_cannot_be_encoded_is_dead_and_ends_nothing(open_room: Any, autojump_clock: object) -> None:
    async with open_room(start=False) as room:
        await room.store(*numbered(7, b"a"))
        await room.put([Record("events", b"poison", None, (), -5)])
        await room.store(*numbered(7, b"b"))
        room.start()
        await room.until_empty()
        assert room.values() == numbered(7, b"a") + numbered(7, b"b")
        assert room.spool.statistics().dead_total == 1


async def test_pace_is_kept_smoothly(open_room: Any, autojump_clock: object) -> None:
    async with open_room(start=False, spool={"replay_events_per_s": 1000.0}) as room:
        await room.store(*numbered(5000))
        began = trio.current_time()
        room.start()
        await room.until(lambda: len(room.values()) >= 2500)
        half = trio.current_time() - began
        await room.until(lambda: room.replay.statistics().time_to_empty_s is not None)
        told = room.replay.statistics()
        assert told.events_per_second == pytest.approx(1000, rel=0.1)
        assert told.time_to_empty_s == pytest.approx(room.spool.statistics().rows / 1000, rel=0.1)
        await room.until_empty()
        assert half == pytest.approx(2.5, abs=0.2)
        assert trio.current_time() - began == pytest.approx(5.0, abs=0.3)
        produces = [request for request in room.cluster.seen.requests if request.api is Api.PRODUCE]
        assert max(sum(batch.count for batch in request.batches) for request in produces) <= 100


async def test_late_loop_slows_the_replay_and_does_not_stop_it(open_room: Any, autojump_clock: object) -> None:
    async with open_room(start=False, spool={"replay_events_per_s": 1000.0}, lag_s=lambda: 0.1) as room:
        await room.store(*numbered(500))
        began = trio.current_time()
        room.start()
        await room.until_empty()
        assert trio.current_time() - began == pytest.approx(4.0, abs=0.2)


async def test_half_of_the_time_is_for_others_where_the_broker_is_slow(open_room: Any, autojump_clock: object) -> None:
    async with open_room(start=False) as room:
        room.cluster.faults.delay(0.4, times=None)
        await room.store(*numbered(2500))
        began = trio.current_time()
        room.start()
        await room.until_empty()
        # Five chunks of 500; after the last nobody waits.
        assert trio.current_time() - began == pytest.approx(5 * 0.4 + 4 * 0.4, abs=0.1)


async def test_replay_takes_nothing_while_requests_are_shed(open_room: Any, autojump_clock: object) -> None:
    lag_s = 0.5
    async with open_room(lag_s=lambda: lag_s) as room:
        await room.store(*numbered(10))
        await trio.sleep(5)
        told = room.replay.statistics()
        assert (told.state, told.why, told.in_work_rows) == ("paused", "requests are shed", 0)
        lag_s = 0.0
        await room.until_empty(within_s=1)


async def test_replay_takes_nothing_while_live_events_wait(open_room: Any, autojump_clock: object) -> None:
    async with open_room(limits={"queue_bytes": 200_000}, spool={"replay_bytes": 50_000}) as room:
        room.cluster.pause_broker(1)
        live = [room.producer.delivery([Record("events", b"live" * 20_000)]) for _ in range(6)]
        assert room.producer.statistics().waiting_deliveries > 0
        # Not diverted yet: the events before it are the only reason to wait.
        await room.store(*numbered(100))
        await trio.sleep(0.5)
        assert room.replay.statistics().state == "paused"
        assert room.replay.statistics().in_work_rows == 0
        room.cluster.resume_broker(1)
        for delivery in live:
            with delivery:
                await delivery.wait()
        await room.until_empty()
        values = room.values()
        assert values.index(b"0000") > max(at for at, value in enumerate(values) if value.startswith(b"live"))


async def test_what_is_in_work_stays_within_the_share(open_room: Any, autojump_clock: object) -> None:
    share = 40_000
    async with open_room(start=False, partitions=12, spool={"replay_bytes": share}) as room:
        await room.store(*(b"%d" % number + b"v" * 100 for number in range(1000)))
        # As if each partition stalled after the others: nothing is left out, and no batch ends.
        room.diversion.diverted = lambda topic: frozenset()
        room.cluster.pause_broker(1)
        room.start()
        highest = 0
        for _ in range(400):
            await trio.sleep(0.1)
            highest = max(highest, room.replay.statistics().in_work_bytes)
        told = room.replay.statistics()
        assert share / 2 < highest <= share
        assert (told.state, told.why) == ("waiting", "for the end of batches")
        del room.diversion.diverted
        room.cluster.resume_broker(1)
        await room.until_empty()
        assert len(room.values()) == 1000


async def test_diverted_partition_gets_one_row_and_the_others_go_on(open_room: Any, autojump_clock: object) -> None:
    async with open_room(partitions=2, brokers=2) as room:
        one, two = (key_of(partition, 2) for partition in (0, 1))
        leader = room.cluster.partition("events", 0).leader
        other = room.cluster.partition("events", 1).leader
        assert leader != other
        room.cluster.pause_broker(leader)
        await room.store(*numbered(900, b"one"), key=one)
        await room.store(*numbered(300, b"two"), key=two)
        await room.until(lambda: sum(value.startswith(b"two") for value in room.values()) == 300)
        await trio.sleep(3)
        chunks = room.replay.statistics().chunks_total
        await trio.sleep(20)
        assert room.diversion.diverted("events") == {0}
        told = room.replay.statistics()
        assert told.chunks_total == chunks
        # What was on its way when the partition stopped, and nothing after it: an unresolved batch is the probe.
        assert told.in_work_rows == told.unresolved_rows <= 500
        assert room.cluster.log("events", 0)[1:] == []
        room.cluster.resume_broker(leader)
        await room.until_empty()
        assert Counter(room.values()) == Counter([*numbered(900, b"one"), *numbered(300, b"two")])
        assert marked(room) == set()


async def test_answer_to_a_live_event_wakes_it(open_room: Any, autojump_clock: object) -> None:
    async with open_room() as room:
        room.cluster.pause_broker(1)
        with room.producer.delivery([Record("events", b"live")]):
            await trio.sleep(3)
            assert room.diversion.diverted("events") == {0}
        await room.store(*numbered(10))
        await trio.sleep(10.3)
        assert room.replay.statistics().in_work_rows == 0
        began = trio.current_time()
        room.cluster.resume_broker(1)
        await room.until_empty()
        assert trio.current_time() - began < 0.1
        assert room.values() == [b"live", *numbered(10)]


async def test_probe_without_a_key_is_one_row_and_goes_to_the_partition_that_needs_it(
    open_room: Any, autojump_clock: object
) -> None:
    async with open_room(partitions=2, brokers=2) as room:
        leader = room.cluster.partition("events", 0).leader
        room.cluster.stop_broker(leader, elect=False)
        room.cluster.move_leader("events", 0, None)
        await trio.sleep(70)  # metadata is asked for once a minute
        assert room.diversion.diverted("events") == {0}
        await room.store(*numbered(50))
        await room.until(lambda: room.replay.statistics().in_work_rows == 1 and len(room.values()) == 49)
        assert room.replay.statistics().probing == 1
        assert len(room.cluster.log("events", 0)) == 1
        room.cluster.start_broker(leader)
        await room.until_empty()
        assert Counter(room.values()) == Counter([*numbered(50)])
        assert [record.value for record in room.cluster.log("events", 0)][1:] == [b"0000"]
        assert room.diversion.diverted("events") == frozenset()


async def test_topic_that_nobody_has_asked_for_is_found_by_one_row(open_room: Any, autojump_clock: object) -> None:
    async with open_room(start=False, warm=False, partitions=3) as room:
        room.cluster.faults.refuse_connects()
        room.cluster.close_connections()
        await room.store(*numbered(100))
        room.start()
        await trio.sleep(10)
        assert room.replay.statistics().in_work_rows == 1
        room.cluster.faults.accept_connects()
        await room.until_empty()
        assert Counter(room.values()) == Counter(numbered(100))


async def test_broker_that_cannot_be_reached_costs_a_chunk_each_partition_and_then_probes(
    open_room: Any, autojump_clock: object
) -> None:
    async with open_room(start=False, partitions=3) as room:
        await trio.sleep(5)
        room.cluster.faults.refuse_connects()
        room.cluster.close_connections()
        await room.store(*numbered(600))
        began = room.spool.statistics().commits_total
        room.start()
        await trio.sleep(60)
        assert room.diversion.diverted("events") == {0, 1, 2}
        told = room.replay.statistics()
        # Quiet partitions of a silent leader are diverted without a chunk or a probe of their own.
        assert (told.state, told.in_work_rows) == ("waiting", told.probing)
        assert 1 <= told.probing <= 3
        assert told.chunks_total <= 3
        assert room.spool.statistics().commits_total - began < 20
        room.cluster.faults.accept_connects()
        await room.until(room.values)
        # What came back is not passed over any more.
        await room.until_empty(within_s=1)
        assert Counter(room.values()) == Counter(numbered(600))


async def test_new_rows_for_a_healthy_partition_do_not_wait_for_a_diverted_one(
    open_room: Any, autojump_clock: object
) -> None:
    async with open_room(partitions=2, brokers=2) as room:
        room.cluster.pause_broker(room.cluster.partition("events", 0).leader)
        await room.store(*numbered(600, b"a"), key=key_of(0, 2))
        await trio.sleep(30)
        began = trio.current_time()
        await room.store(b"b", key=key_of(1, 2))
        await room.until(lambda: b"b" in room.values())
        assert trio.current_time() - began < 0.3


async def test_rows_that_fail_at_once_do_not_stand_before_the_others(open_room: Any, autojump_clock: object) -> None:
    async with open_room(start=False, spool={"replay_events_per_s": 100.0}) as room:
        room.cluster.create_topic("elsewhere", 1)
        room.cluster.faults.fail(29, topic="elsewhere", times=None)
        await room.put([Record("elsewhere", value, None, (), 1) for value in numbered(30)])
        await room.store(*numbered(50))
        room.start()
        await room.until(lambda: len(room.values()) == 50)
        assert room.spool.statistics().rows == 30


async def test_order_by_key_holds_while_held_rows_block_their_bucket_alone(
    open_room: Any, autojump_clock: object
) -> None:
    async with open_room(start=False, partitions=3, spool={"order": "key"}) as room:
        await room.store(b"a1", key=b"a")
        held = await room.store(b"a2", key=b"a", held=True)
        await room.store(b"a3", b"a4", key=b"a")
        await room.store(*numbered(20, b"b"), key=b"b")
        room.start()
        await room.until(lambda: len(room.values()) == 21)
        await trio.sleep(10)
        assert b"a3" not in room.values()
        held.resolve(0, NotSent("withdrawn"))
        room.replay.rows_came()
        await room.until_empty()
        values = room.values()
        assert [value for value in values if value.startswith(b"a")] == [b"a1", b"a2", b"a3", b"a4"]
        assert [value for value in values if value.startswith(b"b")] == numbered(20, b"b")


async def test_clean_stop_gives_every_row_back_and_the_next_start_sends_each_once(
    open_room: Any, autojump_clock: object
) -> None:
    async with open_room(start=False, spool={"replay_events_per_s": 1000.0}) as room:
        await room.store(*numbered(1000))
        room.start()
        await room.until(lambda: len(room.values()) >= 300)
        room.scope.cancel(reason="a clean stop")
        await room.until(lambda: room.replay.statistics().state == "stopped")
        await trio.sleep(3 * CLOSE_S)
        assert room.replay.statistics().in_work_rows == 0
        assert room.spool._in_work == {}
        assert room.spool.statistics().attempted_rows == 0
        room.scope = trio.CancelScope()
        room.start()
        await room.until_empty()
        assert room.values() == numbered(1000)
        assert marked(room) == set()


async def test_stop_with_an_unanswered_batch_is_over_in_time_and_its_rows_stay_attempted(
    open_room: Any, autojump_clock: object
) -> None:
    async with open_room() as room:
        room.cluster.pause_broker(1)
        await room.store(*numbered(20))
        await room.until(lambda: room.replay.statistics().in_work_rows == 20)
        began = trio.current_time()
        room.scope.cancel(reason="a stop")
        await room.until(lambda: not room.spool._in_work)
        assert trio.current_time() - began <= 2 * CLOSE_S
        assert room.spool.statistics().attempted_rows == 20


async def test_failed_spool_pauses_the_replay(open_room: Any, autojump_clock: object) -> None:
    async with open_room() as room:
        room.say(state="failed", problem="gone")
        await room.store(*numbered(20))
        await trio.sleep(5)
        told = room.replay.statistics()
        assert (told.state, told.in_work_rows) == ("paused", 0)
        assert told.why.startswith("the spool has failed")
        room.say()
        await room.until_empty()
        assert room.values() == numbered(20)


async def test_full_disk_is_no_reason_to_keep_rows_on_it(open_room: Any, autojump_clock: object) -> None:
    async with open_room() as room:
        room.say(state="full", problem="database or disk is full")
        await room.store(*numbered(20))
        await room.until_empty()
        assert room.values() == numbered(20)


async def test_replay_in_a_hurry_begins_with_the_oldest_row(open_room: Any, autojump_clock: object) -> None:
    async with open_room() as room:
        room.replay._place.after_id = 7
        room.replay.hurry()
        assert room.replay._place.after_id == 0


async def test_idle_replay_and_one_without_progress_do_not_poll_busily(open_room: Any, autojump_clock: object) -> None:
    async with open_room() as room:
        asked = 0
        statistics = room.spool.statistics

        def counted() -> Any:
            nonlocal asked
            asked += 1
            return statistics()

        room.spool.statistics = counted
        await trio.sleep(100)
        assert asked <= 101
        asked = 0
        room.cluster.stop_broker(1, elect=False)
        await room.store(*numbered(20))
        await trio.sleep(100)
        assert asked <= 100 / (BACKOFF_S[1] / 2) + 200
        room.cluster.start_broker(1)
        await room.until_empty()


async def test_old_rows_are_an_alarm_with_hysteresis(open_room: Any, autojump_clock: object, capsys: Any) -> None:
    async with open_room(spool={"age_alarm_s": 10.0}) as room:
        for age_s, stands in ((5.0, False), (11.0, True), (9.0, True), (7.0, False), (12.0, True)):
            room.say(oldest_age_s=age_s)
            await trio.sleep(1.1)
            assert room.replay.statistics().age_alarm is stands


async def test_bug_in_it_comes_out_of_it_and_the_file_calls_its_rows_attempted(
    open_room: Any, autojump_clock: object
) -> None:
    async with open_room(start=False) as room:
        await room.store(*numbered(10))

        class Broken:
            def delivery(self, records: object) -> None:
                raise ZeroDivisionError("a bug of ours; perhaps something was sent")

        room.replay._rows._producer = Broken()
        with pytest.RaisesGroup(ZeroDivisionError):
            await room.replay.run()
        assert room.replay.statistics().state == "stopped"
        found = room.spool.statistics()
        assert (found.rows, found.attempted_rows) == (10, 10)
