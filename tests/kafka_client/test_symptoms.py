"""What went wrong once, each named by its symptom; against the strict fake cluster on virtual time."""

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from kafka_client import Delivered, NotSent, ProducerObserver, Record, Unknown


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


async def test_record_that_every_answer_refused_is_called_delivered(scenario, autojump_clock) -> None:
    """The broker forgot our sequences, refused A, and took B as its first: B's acknowledgement proves nothing of A."""
    async with scenario(linger_s=0.0) as s:
        await s.outcome(b"warm-up 1")
        await s.outcome(b"warm-up 2")
        s.cluster.partition("events", 0).log.forget_producers()
        s.cluster.faults.fail(19)
        s.cluster.faults.delay(0.1, times=2)
        a = s.deliver(b"A")
        await wait_all_tasks_blocked()
        b = s.deliver(b"B")
        for delivery in (a, b):
            with delivery:
                await delivery.wait()
            assert isinstance(delivery.outcomes[0], Delivered)
        assert sorted(s.cluster.values("events")[2:]) == [b"A", b"B"]


async def test_record_is_taken_for_an_older_one_after_the_topic_id_flapped(scenario, autojump_clock) -> None:
    """A broker with stale metadata named the deleted topic once more: sequences began anew in a log that had them."""
    async with scenario(metadata_max_age_s=1.0) as s:
        await s.outcome(b"in the deleted topic")
        s.deliveries.clear()
        old = s.cluster.topics["events"]
        s.cluster.delete_topic("events")
        new = s.cluster.create_topic("events", 1)
        await trio.sleep(3)
        assert isinstance(await s.outcome(b"1"), Delivered)
        s.cluster.topics["events"] = old
        await trio.sleep(1.5)
        s.cluster.topics["events"] = new
        await trio.sleep(3)
        assert isinstance(await s.outcome(b"2"), Delivered)
        assert s.cluster.values("events") == [b"1", b"2"]
        assert s.base_sequences() == [(0, 0, 1), (1, 0, 1), (2, 0, 1)]


async def test_close_inside_the_block_cancels_the_callers_own_code(scenario, autojump_clock) -> None:
    seen = []
    async with scenario(settle=False) as s:
        await s.outcome(b"warm-up")
        s.cluster.pause_broker(1)
        delivery = s.deliver(b"v")

        async def worker() -> None:
            with delivery:
                await delivery.wait()
            seen.append("the wait returned")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(worker)
            await wait_all_tasks_blocked()
            await s.producer.close(grace_s=1)
            await trio.lowlevel.checkpoint()
            seen.append("close returned")
        await trio.sleep(1)
        seen.append("the block goes on")
    assert sorted(seen[:2]) == ["close returned", "the wait returned"]
    assert seen[2:] == ["the block goes on"]
    assert delivery.outcomes == [Unknown("closed")]


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize(
    "bad",
    [
        {"timestamp_ms": 2**63},
        {"timestamp_ms": -1},
        {"timestamp_ms": "1"},
        {"topic": b"events"},
        {"topic": ["events"]},
        {"topic": "\ud800"},
        {"topic": "x" * 40_000},
        {"partition": -3},
        {"partition": 2**31},
        {"partition": "0"},
    ],
    ids=lambda bad: "".join(f"{name}={value!r:.20}" for name, value in bad.items()),
)
async def test_record_that_the_protocol_cannot_carry_ends_the_producer(
    scenario, autojump_clock, bad: dict[str, object], count: int
) -> None:
    async with scenario() as s:
        await s.outcome(b"warm-up")
        good = Record("events", b"good")
        with pytest.raises((TypeError, ValueError)):
            s.producer.delivery([*[good] * (count - 1), Record(**{"topic": "events", "value": b"bad", **bad})])
        s.check_idle()
        assert isinstance(await s.outcome(b"next"), Delivered)
        assert s.cluster.values("events") == [b"warm-up", b"next"]


async def test_partition_that_waits_for_bytes_in_flight_is_forgotten(scenario, autojump_clock) -> None:
    """The bytes came back with a batch that ended while the identity was left, and nobody was told."""
    large = b"." * 600
    async with scenario(partitions=2, brokers=2, in_flight_max_bytes=500, linger_s=0.0) as s:
        await s.outcome(b"warm-up 0", partition=0)
        await s.outcome(b"warm-up 1", partition=1)
        s.cluster.faults.drop_answer(partition=1)
        s.cluster.faults.fail(45, partition=1, when=lambda _: s.cluster.attempts_of(large) >= 2)
        s.cluster.faults.delay(1, partition=1, times=None)
        a = s.deliver(large, partition=1)
        await s.cluster.wait_until(lambda: s.cluster.attempts_of(large))
        started = trio.current_time()
        assert isinstance(await s.outcome(b"B", partition=0), Delivered)
        assert trio.current_time() - started < 10
        assert isinstance(a.outcomes[0], Unknown)


async def test_close_takes_its_whole_grace_though_nothing_is_left(scenario, autojump_clock) -> None:
    ended = []

    class Observer(ProducerObserver):
        def batch_ended(self, event) -> None:
            ended.append(event.outcome)

    async with scenario(observer=Observer(), settle=False) as s:
        await s.outcome(b"warm-up")
        s.cluster.faults.close_before()
        s.cluster.faults.fail(45, when=lambda _: s.cluster.attempts_of(b"A") >= 2)
        with s.deliver(b"A"):
            await s.cluster.wait_until(lambda: s.cluster.attempts_of(b"A"))
        started = trio.current_time()
        await s.producer.close(grace_s=10)
        assert trio.current_time() - started < 5
        assert ended == ["delivered", "unknown"]


async def test_one_answer_of_an_unknown_topic_for_many_partitions_holds_the_topic_for_30_s(
    scenario, autojump_clock
) -> None:
    async with scenario(partitions=12) as s:
        s.cluster.faults.fail(3)
        with s.producer.delivery([Record("events", b"%d" % index, partition=index) for index in range(12)]) as d:
            await d.wait()
        assert {type(outcome) for outcome in d.outcomes} == {Delivered}
        assert trio.current_time() < 5


async def test_several_batches_are_in_flight_to_a_new_leader_before_its_first_acknowledgement(
    scenario, autojump_clock
) -> None:
    """The old leader's last acknowledgement came after the move, and let several go at once."""
    async with scenario(brokers=2, linger_s=0.0, metadata_max_age_s=0.5) as s:
        await s.outcome(b"warm-up 1")
        await s.outcome(b"warm-up 2")
        old = s.cluster.partition("events", 0).leader
        s.cluster.faults.delay(3.0, broker=old)
        deliveries = [s.deliver(b"A")]
        await s.cluster.wait_until(lambda: s.cluster.attempts_of(b"A"))
        s.cluster.move_leader("events", 0, 3 - old)
        await trio.sleep(1.5)
        s.cluster.faults.delay(5.0, broker=3 - old, times=None)
        for number in range(5):
            deliveries.append(s.deliver(b"%d" % number))
            await trio.sleep(0.6)
        assert s.producer.statistics().partitions[0].in_flight == 1
        s.cluster.faults.clear()
        for delivery in deliveries:
            with delivery:
                await delivery.wait()


async def test_broker_that_leaves_a_partition_out_of_its_answers_is_hammered(scenario, autojump_clock) -> None:
    async with scenario() as s:
        await s.outcome(b"warm-up")
        s.cluster.faults.omit_partition(times=50)
        assert isinstance(await s.outcome(b"A"), Delivered)
        assert trio.current_time() > 5


@pytest.mark.parametrize("code", [45, 47])
async def test_broker_that_refuses_every_epoch_is_hammered(scenario, autojump_clock, code: int) -> None:
    async with scenario() as s:
        await s.outcome(b"warm-up")
        started = trio.current_time()
        s.cluster.faults.fail(code)
        assert isinstance(await s.outcome(b"A"), Delivered)
        assert trio.current_time() == started  # once is usual: it costs no time
        s.cluster.faults.fail(code, times=50)
        assert isinstance(await s.outcome(b"B"), Delivered)
        assert trio.current_time() > 5


async def test_keyed_records_are_not_sent_to_a_topic_created_again_with_fewer_partitions(
    scenario, autojump_clock
) -> None:
    async with scenario(partitions=4, metadata_max_age_s=1.0) as s:
        for number in range(4):
            await s.outcome(b"in the deleted topic %d" % number, partition=number)
        s.deliveries.clear()
        s.cluster.delete_topic("events")
        s.cluster.create_topic("events", 1)
        await trio.sleep(5)
        for number in range(8):
            outcome = await s.outcome(b"%d" % number, partition=None, key=b"%d" % number if number < 6 else None)
            assert isinstance(outcome, Delivered)
        assert s.producer.partitions_of("events") == 1
        assert trio.current_time() < 10


async def test_duplicate_answered_for_an_abandoned_batch_takes_a_new_epoch(scenario, autojump_clock) -> None:
    """46 says that the batch is in the log, whoever still waits for it."""
    async with scenario(batch_timeout_s=2.0) as s:
        await s.outcome(b"warm-up")
        s.cluster.faults.append_and_fail(46)
        s.cluster.faults.delay(3)
        assert isinstance(await s.outcome(b"A"), Unknown)
        await trio.sleep(5)
        assert isinstance(await s.outcome(b"B"), Delivered)
        assert s.base_sequences() == [(0, 0, 1), (0, 1, 1), (0, 2, 1)]


async def test_delivered_tells_another_timestamp_than_the_log_has(scenario, autojump_clock) -> None:
    """INVALID_TIMESTAMP: the record is stamped anew, once."""
    async with scenario() as s:
        await s.outcome(b"warm-up")
        s.cluster.faults.fail(32, record_errors=[(1, "bad")])
        outcomes = await s.producer.send_many(
            [Record("events", b"%d" % stamp, partition=0, timestamp_ms=stamp) for stamp in (1000, 2000, 3000)]
        )
        in_the_log = [record.timestamp_ms for record in s.cluster.records("events")][1:]
        assert [outcome.timestamp_ms for outcome in outcomes] == in_the_log
        assert in_the_log[0] == 1000 < 3000 == in_the_log[2] < in_the_log[1]


async def test_counters_are_off_when_on_resolved_takes_back_another_record_of_the_batch(
    scenario, autojump_clock
) -> None:
    async with scenario() as s:
        await s.outcome(b"warm-up")
        s.cluster.faults.delay(1)
        first = s.producer.delivery([Record("events", b"a", partition=0), Record("events", b"b", partition=0)])
        other = s.producer.delivery([Record("events", b"c", partition=0)])
        first.on_resolved(lambda index, outcome: other.withdraw())
        await s.cluster.wait_until(lambda: s.cluster.attempts_of(b"c"))
        first.withdraw([0])
        await s.settle()
        assert isinstance(other.outcomes[0], Delivered)
        statistics = s.producer.statistics()
        assert (statistics.delivered_total, statistics.unknown_total, statistics.late_delivered_total) == (3, 1, 1)


async def test_counters_are_off_when_on_resolved_takes_back_the_rest_while_a_record_is_left_out(
    scenario, autojump_clock
) -> None:
    async with scenario() as s:
        await s.outcome(b"warm-up")
        s.cluster.faults.fail(87, record_errors=[(0, "bad")])
        s.cluster.faults.delay(1, times=2)
        d = s.producer.delivery([Record("events", b"%d" % number, partition=0) for number in range(3)])
        d.on_resolved(lambda index, outcome: d.withdraw())
        await s.cluster.wait_until(lambda: s.cluster.attempts_of(b"2"))
        d.withdraw([0])
        await s.settle()
        assert [type(outcome) for outcome in d.outcomes] == [Unknown] * 3
        statistics = s.producer.statistics()
        told = (statistics.delivered_total, statistics.not_sent_total, statistics.unknown_total)
        late = (statistics.late_delivered_total, statistics.late_not_sent_total, statistics.late_unknown_total)
        assert (told, late) == ((1, 0, 3), (2, 1, 0))


async def test_partition_that_emptied_at_its_old_leader_is_never_sent_from_again(scenario, autojump_clock) -> None:
    """The new leader's outbox had been told of it, found that it waits, and was not told when it was empty."""
    async with scenario(brokers=2, metadata_max_age_s=0.5) as s:
        await s.outcome(b"warm-up")
        old = s.cluster.partition("events", 0).leader
        s.cluster.faults.delay(3.0, broker=old)
        last = s.deliver(b"A")
        await s.cluster.wait_until(lambda: s.cluster.attempts_of(b"A"))
        s.cluster.move_leader("events", 0, 3 - old)
        with last:
            await last.wait()
        started = trio.current_time()
        assert isinstance(await s.outcome(b"B"), Delivered)
        assert trio.current_time() - started < 1


async def test_delivered_tells_the_latest_timestamp_of_the_batch_after_a_lost_answer(scenario, autojump_clock) -> None:
    """A broker that recognises a repetition gives that for the time of appending."""
    async with scenario() as s:
        await s.outcome(b"warm-up")
        s.cluster.faults.drop_answer()
        outcomes = await s.producer.send_many(
            [Record("events", b"%d" % stamp, partition=0, timestamp_ms=stamp) for stamp in (1000, 3000, 2000)]
        )
        assert [outcome.timestamp_ms for outcome in outcomes] == [1000, 3000, 2000]
        assert outcomes[0].attempts == 2


async def test_topic_that_metadata_called_missing_is_not_asked_about_again_for_30_s(scenario, autojump_clock) -> None:
    """Its leaders were known and nothing was sent to them meanwhile, so nobody wanted metadata."""
    async with scenario(metadata_max_age_s=1000.0) as s:
        await s.outcome(b"old")
        s.deliveries.clear()
        s.cluster.delete_topic("events")
        waiting = s.deliver(b"new")
        await trio.sleep(15)
        assert [error.code for error in s.producer.statistics().operator_errors] == [3]
        s.cluster.create_topic("events", 1)
        started = trio.current_time()
        with waiting:
            await waiting.wait()
        assert isinstance(waiting.outcomes[0], Delivered)
        assert trio.current_time() - started < 3


async def test_leader_that_does_not_know_the_topic_yet_holds_it_for_30_s(scenario, autojump_clock) -> None:
    """Seen after a topic was deleted and created again: one broker heard of the new one later than metadata's."""
    async with scenario() as s:
        await s.outcome(b"warm-up")
        s.cluster.faults.fail(3, times=6)
        started = trio.current_time()
        assert isinstance(await s.outcome(b"A"), Delivered)
        assert trio.current_time() - started < 5


async def test_topic_created_again_stays_on_hold_for_30_s(scenario, autojump_clock) -> None:
    async with scenario(metadata_max_age_s=1.0) as s:
        await s.outcome(b"warm-up")
        s.deliveries.clear()
        fault = s.cluster.faults.fail(3, times=None)
        waiting = s.deliver(b"A")
        await trio.sleep(10)
        assert [error.code for error in s.producer.statistics().operator_errors] == [3]
        s.cluster.delete_topic("events")
        s.cluster.create_topic("events", 1)
        s.cluster.faults.forget(fault)
        started = trio.current_time()
        with waiting:
            await waiting.wait()
        assert isinstance(waiting.outcomes[0], Delivered)
        assert trio.current_time() - started < 5


async def test_broker_that_was_paused_twice_never_answers_again(scenario, autojump_clock) -> None:
    """The fake's: what waited for the first pause to end was forgotten by the second."""
    async with scenario() as s:
        await s.outcome(b"warm-up")
        s.cluster.pause_broker(1)
        delivery = s.deliver(b"v")
        await trio.sleep(0.1)
        s.cluster.pause_broker(1)
        await trio.sleep(0.1)
        s.cluster.resume_broker(1)
        started = trio.current_time()
        with delivery:
            await delivery.wait()
        assert isinstance(delivery.outcomes[0], Delivered)
        assert trio.current_time() == started


async def test_other_records_are_taken_back_than_those_named_when_most_of_the_queue_goes(
    scenario, autojump_clock
) -> None:
    """The sweep moved the rest of the run up before the outcomes were entered."""
    async with scenario() as s:
        await s.outcome(b"warm-up")
        s.cluster.faults.delay(1)
        s.deliver(b"in flight")
        await s.cluster.wait_until(lambda: s.cluster.attempts_of(b"in flight"))
        delivery = s.deliver(*[b"%d" % number for number in range(300)])
        named = list(range(0, 300, 3)) + list(range(1, 300, 3))
        with delivery:
            delivery.withdraw(named)
            await delivery.wait()
        assert [type(outcome) for outcome in delivery.outcomes] == [NotSent, NotSent, Delivered] * 100


async def test_late_outcome_is_never_told_when_a_delivery_is_in_one_batch_twice(scenario, autojump_clock) -> None:
    """Two runs of one delivery ended together; with the report of the first the function for the second was dropped."""
    async with scenario(batch_max_bytes=400, metadata_max_age_s=1.0) as s:
        await s.outcome(b"warm-up")
        s.cluster.move_leader("events", 0, None)
        await trio.sleep(2)
        filler = s.deliver(b"." * 300)
        cut = s.deliver(*(b"%d" % number for number in range(10)))
        filler.withdraw()
        s.cluster.add_partitions("events", 2)  # what is queued is dealt out anew: both runs into one batch
        await trio.sleep(2)
        s.cluster.faults.delay(5)
        s.cluster.move_leader("events", 0, 1)
        await trio.sleep(2)
        cut.withdraw()
        assert set(cut.outcomes) == {Unknown("withdrawn")}
        await s.settle()
        assert len([outcome for outcome in s.resolved.values() if isinstance(outcome, Delivered)]) == 10


async def test_record_has_no_outcome_after_its_block_when_its_own_bytes_let_it_in(scenario, autojump_clock) -> None:
    """Taking back its first run made room for the second, which was cut in two while the runs were gone through."""
    async with scenario(batch_max_bytes=300, queue_max_bytes=3000) as s:
        s.cluster.create_topic("other", 1)
        for topic in ("events", "other"):
            await s.outcome(b"warm-up " + topic.encode(), topic=topic)
            s.cluster.move_leader(topic, 0, None)
        filler = s.deliver(b"." * 1500)
        small = [Record("other", b"%d" % number + b"." * 100, partition=0) for number in range(4)]
        with s.producer.delivery([Record("events", b"." * 1000, partition=0), *small]) as delivery:
            assert s.producer.statistics().waiting_deliveries == 1
        filler.withdraw()
        assert None not in delivery.outcomes


async def test_producer_ends_when_on_resolved_takes_back_what_a_smaller_topic_left_queued(
    scenario, autojump_clock
) -> None:
    """The batch of the partition that is gone was told while the rest of its queue was in nobody's hands."""
    async with scenario(partitions=2, linger_s=0.0) as s:
        await s.outcome(b"warm-up", partition=1)
        s.cluster.faults.drop_answer()
        sealed = s.producer.delivery([Record("events", b"sealed", partition=1)])
        await s.cluster.wait_until(lambda: s.cluster.attempts_of(b"sealed"))
        s.cluster.move_leader("events", 1, None)
        await trio.sleep(5)
        queued = s.producer.delivery([Record("events", b"queued", partition=1)])
        again = []

        def taken_back(index: int, outcome: object) -> None:
            queued.withdraw()
            again.append(s.producer.delivery([Record("events", b"again", partition=0)]))

        sealed.on_resolved(taken_back)
        sealed.withdraw()
        s.cluster.delete_topic("events")
        s.cluster.create_topic("events", 1)
        await trio.sleep(70)
        assert queued.outcomes == [NotSent("withdrawn")]
        assert isinstance(again[0].outcomes[0], Delivered)
        s.deliveries.clear()
