"""The producer as its callers see it, against the strict fake cluster on virtual time."""

import itertools
import math
from collections.abc import Sequence

import pytest
import trio
import trio.testing
from trio.testing import wait_all_tasks_blocked

from kafka_client import (
    ConfigError,
    Delivered,
    NotSent,
    NotSentError,
    ProducerConfig,
    ProducerObserver,
    Record,
    Unknown,
    UnknownOutcomeError,
    open_producer,
)
from kafka_client.buffer.encoded import Encoded
from kafka_client.buffer.partitioner import route_of
from kafka_client.testing.messages import VERSIONS_OF_KAFKA_4_1, Api
from kafka_client.wire.murmur2 import partition_for_key
from kafka_client.wire.record_tail import encode_record_tail


async def test_open_producer_returns_before_the_first_contact(autojump_clock) -> None:
    async def nobody(host: str, port: int) -> trio.abc.HalfCloseableStream:  # noqa: ASYNC124
        raise ConnectionRefusedError

    started = trio.current_time()
    async with open_producer(ProducerConfig(bootstrap_servers="a:1,b:2", close_grace_s=1), connector=nobody) as p:
        assert trio.current_time() == started
        d = p.delivery([Record("events", b"v")])
        assert p.partitions_of("events") is None
    assert d.outcomes == [NotSent("closed")]
    assert trio.current_time() - started == pytest.approx(1)
    with pytest.raises(ConfigError):
        ProducerConfig(bootstrap_servers="nonsense")


async def test_wanted_topic_is_known_before_its_first_record(scenario, autojump_clock) -> None:
    async with scenario(partitions=3) as s:
        await trio.sleep(1)
        assert s.producer.partitions_of("events") is None
        s.producer.want_topic("events")
        s.producer.want_topic("events")
        await trio.sleep(0.2)
        assert s.producer.partitions_of("events") == 3


async def test_send_returns_delivered_or_raises(scenario, autojump_clock) -> None:
    async with scenario() as s:
        delivered = await s.producer.send(Record("events", b"v", key=b"k", headers=[("h", b"1"), ("n", None)]))
        assert (delivered.offset, delivered.attempts) == (0, 1)
        (record,) = s.cluster.log("events", 0)
        assert (record.key, record.value, list(record.headers)) == (b"k", b"v", [("h", b"1"), ("n", None)])
        s.cluster.faults.fail(87)
        with pytest.raises(NotSentError, match="INVALID_RECORD"):
            await s.producer.send(Record("events", b"bad"))
        s.cluster.faults.append_and_fail(-1)
        with pytest.raises(UnknownOutcomeError, match="UNKNOWN_SERVER_ERROR"):
            await s.producer.send(Record("events", b"doubtful"))
        assert s.producer.partitions_of("events") == 1


async def test_delivered_is_what_all_outcomes_say_together(scenario, autojump_clock) -> None:
    seen = set()
    async with scenario(partitions=2) as s:
        faults = s.cluster.faults
        numbers = itertools.count()
        for count in (1, 5):
            for arrange in (lambda: None, lambda: faults.fail(10), lambda: faults.append_and_fail(-1)):
                for taken_back in ((), (0,)):
                    arrange()
                    records = [Record("events", b"%d" % next(numbers), partition=n % 2) for n in range(count)]
                    with s.producer.delivery(records) as delivery:
                        assert not delivery.delivered
                        delivery.withdraw(taken_back)
                        await delivery.wait()
                    told = all(isinstance(outcome, Delivered) for outcome in delivery.outcomes)
                    assert delivery.delivered is told
                    seen.add((count, told))
                    faults.clear()
    assert seen == {(1, False), (1, True), (5, False), (5, True)}


def encoded(records: Sequence[Record]) -> Encoded:
    tails = [encode_record_tail(record.key, record.value, record.headers) for record in records]
    return Encoded("events", 1_700_000_000_000, tails, [route_of(record) for record in records])


@pytest.mark.parametrize("count", [0, 1, 7])
@pytest.mark.parametrize("known", [False, True])
async def test_what_its_caller_encoded_is_as_its_records(scenario, autojump_clock, count, known) -> None:
    async with scenario(partitions=3) as s:
        if known:
            await s.producer.send(Record("events", b"first", timestamp_ms=1))
        given = [
            Record("events", b"v%d" % n, b"k%d" % n if n % 3 else None, (("h", b"1"), ("n", None)), 1_700_000_000_000)
            for n in range(count)
        ]
        mine = encoded(given)
        assert mine.records() == given
        with s.producer.delivery_encoded(mine) as delivery:
            await delivery.wait()
        for record, outcome in zip(given, delivery.outcomes, strict=True):
            assert isinstance(outcome, Delivered)
            partition, found = outcome.partition.partition, s.cluster.log("events", outcome.partition.partition)
            assert record.key is None or partition == partition_for_key(record.key, 3)
            read = found[outcome.offset]
            assert (read.key, read.value, read.headers, read.timestamp_ms) == (
                record.key,
                record.value,
                record.headers,
                record.timestamp_ms,
            )


@pytest.mark.parametrize("count", [1, 4])
async def test_what_its_caller_encoded_has_the_bounds_of_records(scenario, autojump_clock, count) -> None:
    async with scenario(record_max_bytes=1000, batch_max_bytes=900, queue_max_bytes=2000, max_waiting_bytes=2000) as s:
        numbers = itertools.count()

        def some(size: int) -> Encoded:
            return encoded([Record("events", b"%d" % next(numbers) * size) for _ in range(count)])

        large = encoded([Record("events", b"x" * 2000), *(Record("events", b"y%d" % n) for n in range(count - 1))])
        with s.producer.delivery_encoded(large) as delivery:
            await delivery.wait()
        assert delivery.outcomes[0] == NotSent("too_large: larger than record_max_bytes")
        assert all(isinstance(outcome, Delivered) for outcome in delivery.outcomes[1:])
        s.cluster.pause_broker(1)
        queued = [s.producer.delivery_encoded(some(100)) for _ in range(40)]
        assert queued[-1].outcomes == [NotSent("overloaded: max_waiting_bytes wait already")] * count
        assert queued[0].unsettled == count
        for delivery in queued:
            delivery.withdraw()
        s.cluster.resume_broker(1)
        await s.producer.close()
        with s.producer.delivery_encoded(some(1)) as delivery:
            await delivery.wait()
        assert delivery.outcomes == [NotSent("closed")] * count


async def test_send_many_gives_outcomes_in_the_order_of_records(scenario, autojump_clock) -> None:
    async with scenario(partitions=5, record_max_bytes=1000, batch_max_bytes=900) as s:
        values = [b"%d" % number for number in range(100)]
        values[50] = b"x" * 2000
        outcomes = await s.producer.send_many([Record("events", value, key=value) for value in values])
        assert outcomes[50] == NotSent("too_large: larger than record_max_bytes")
        for value, outcome in zip(values, outcomes, strict=True):
            if isinstance(outcome, Delivered):
                tp = outcome.partition
                assert s.cluster.log("events", tp.partition)[outcome.offset].value == value
                assert tp.partition == partition_for_key(value, 5)
        assert sum(isinstance(outcome, Delivered) for outcome in outcomes) == 99
        assert await s.producer.send_many([]) == []


async def test_records_of_a_key_are_in_the_order_of_calls_from_before_the_first_metadata(
    scenario, autojump_clock
) -> None:
    async with scenario(partitions=4, queue_max_bytes=5000) as s:
        for number in range(200):
            s.deliver(b"%04d" % number, key=b"%d" % (number % 7), partition=None)
        await s.settle()
        for partition in range(4):
            log = s.cluster.log("events", partition)
            for key in {record.key for record in log}:
                values = [record.value for record in log if record.key == key]
                assert values == sorted(values)


async def test_records_of_several_topics_and_partitions_in_one_delivery(scenario, autojump_clock) -> None:
    async with scenario(partitions=3) as s:
        s.cluster.create_topic("other", 2)
        records = [
            Record("other", b"a", partition=1),
            Record("events", b"b", partition=2),
            Record("other", None, key=b"k"),
            Record("events", b"d", timestamp_ms=12345),
        ]
        with s.producer.delivery(records) as d:
            await d.wait()
        assert [outcome.partition.topic for outcome in d.outcomes] == ["other", "events", "other", "events"]
        assert d.outcomes[0].partition.partition == 1
        assert d.outcomes[3].timestamp_ms == 12345
        assert {record.value for record in s.cluster.records("other")} == {b"a", None}


async def test_partition_that_does_not_exist_waits_for_it(scenario, autojump_clock) -> None:
    async with scenario(partitions=1, delivery_timeout_s=31.0) as s:
        await s.outcome(b"warm-up")
        with s.deliver(b"lost", partition=5) as d:
            await d.wait()
        assert d.outcomes[0] == NotSent("timeout: no leader of the partition is known")
        assert trio.current_time() >= 31
        assert isinstance(await s.outcome(b"fine"), Delivered)


async def test_keyless_records_stay_together_and_avoid_leaderless_partitions(scenario, autojump_clock) -> None:
    async with scenario(partitions=4, brokers=2) as s:
        await s.outcome(b"warm-up", partition=None)
        for partition in (0, 1):
            s.cluster.move_leader("events", partition, None)
        s.cluster.faults.fail(5, times=2)
        s.producer._dispatch.want_metadata()
        await trio.sleep(1)
        deliveries = [s.deliver(b"%d" % number + b"." * 500, partition=None) for number in range(100)]
        used = set()
        for delivery in deliveries:
            with delivery:
                await delivery.wait()
            used.add(delivery.outcomes[0].partition.partition)
        assert used == {2, 3}


async def test_budget_full_waits_in_the_line_and_beyond_it_is_overloaded(scenario, autojump_clock) -> None:
    async with scenario(queue_max_bytes=2000, max_waiting_bytes=2000) as s:
        s.cluster.faults.refuse_connects()
        queued, waiting = s.deliver(b"q" * 1500), s.deliver(b"w" * 1500)
        refused = s.deliver(b"r" * 1500)
        assert refused.outcomes[0].reason.startswith("overloaded")
        huge = s.deliver(b"h" * 1500, b"i" * 1500)
        assert huge.outcomes[1].reason.startswith("too_large")
        assert (queued.unsettled, waiting.unsettled) == (1, 1)
        s.cluster.faults.accept_connects()
        for delivery in (queued, waiting):
            with delivery:
                await delivery.wait()
            assert isinstance(delivery.outcomes[0], Delivered)


async def test_cancelled_send_takes_the_record_back(scenario, autojump_clock) -> None:
    async with scenario() as s:
        s.cluster.faults.refuse_connects()
        with trio.move_on_after(1) as scope:
            await s.producer.send(Record("events", b"v"))
        assert scope.cancelled_caught
        s.check_idle()
        s.cluster.faults.accept_connects()
        await s.outcome(b"other")
        assert s.cluster.values("events") == [b"other"]


async def test_record_that_cannot_be_encoded_raises_and_queues_nothing(scenario, autojump_clock) -> None:
    async with scenario() as s:
        with pytest.raises((TypeError, ValueError)):
            s.producer.delivery([Record("events", b"fine"), Record("events", "text")])  # type: ignore[arg-type]
        with pytest.raises((TypeError, ValueError)):
            s.producer.delivery([Record("events", "text")])  # type: ignore[arg-type]
        s.check_idle()


# Closing


async def test_leaving_the_block_sends_the_queue_and_the_line(scenario, autojump_clock) -> None:
    async with scenario(settle=False, queue_max_bytes=1000) as s:
        deliveries = [s.deliver(b"%d" % number + b"." * 300) for number in range(20)]
    assert all(isinstance(delivery.outcomes[0], Delivered) for delivery in deliveries)


async def test_leaving_the_block_by_an_exception_ends_at_once_and_passes_it_on_plainly(
    scenario, autojump_clock
) -> None:
    kept = []

    async def run() -> None:
        async with scenario(settle=False) as s:
            s.cluster.pause_broker(1)
            kept.append(s.deliver(b"v"))
            kept.append(trio.current_time())
            raise ZeroDivisionError

    with pytest.RaisesGroup(ZeroDivisionError):  # the fake cluster's nursery groups it, the producer's does not
        await run()
    delivery, started = kept
    assert delivery.outcomes == [NotSent("closed")]
    assert trio.current_time() == started


async def test_leaving_the_block_by_a_cancellation_ends_at_once(scenario, autojump_clock) -> None:
    async with scenario(settle=False) as s:
        s.cluster.pause_broker(1)
        delivery = s.deliver(b"v")
        with trio.CancelScope() as scope:
            async with open_producer(s.producer.config, connector=s.cluster.connector) as inner:
                other = inner.delivery([Record("events", b"w")])
                scope.cancel(reason="the test is over")
                await trio.sleep_forever()
        assert other.outcomes == [NotSent("closed")]
        assert delivery.unsettled == 1
        s.cluster.resume_broker(1)


async def test_close_wakes_every_waiter_once_and_twice_is_once(scenario, autojump_clock) -> None:
    async with scenario(settle=False) as s:
        s.cluster.faults.refuse_connects()
        woken = []

        async def wait(delivery) -> None:
            with delivery:
                await delivery.wait()
            woken.append(delivery.outcomes[0])

        async with trio.open_nursery() as nursery:
            for number in range(5):
                nursery.start_soon(wait, s.deliver(b"%d" % number))
            await wait_all_tasks_blocked()
            nursery.start_soon(s.producer.close, 1.0)
            await s.producer.close(1.0)
        assert woken == [NotSent("closed")] * 5
        assert repr(s.producer) == (
            "<Producer closed: 0 bytes queued, 0 deliveries waiting, 0 batches in flight, 0 records detached>"
        )


# Brokers come, go, and say odd things


async def test_leader_moves_and_records_follow_in_order(scenario, autojump_clock) -> None:
    async with scenario(brokers=3, partitions=2) as s:
        for number in range(60):
            if number % 10 == 5:
                s.cluster.move_leader("events", 0, 1 + number % 3)
            s.deliver(b"%04d" % number)
            await trio.sleep(0.01)
        await s.settle()
        assert s.cluster.values("events") == [b"%04d" % number for number in range(60)]
        assert s.producer.statistics().epoch == 0


async def test_broker_stops_and_another_takes_over(scenario, autojump_clock) -> None:
    async with scenario(brokers=2, partitions=2) as s:
        await s.outcome(b"warm 0", partition=0)
        await s.outcome(b"warm 1", partition=1)
        s.cluster.stop_broker(1)
        for number in range(10):
            assert isinstance(await s.outcome(b"%d" % number, partition=number % 2), Delivered)
        assert {batch.epoch for batch in s.cluster.seen.batches} == {0}


async def test_whole_cluster_restarts(scenario, autojump_clock) -> None:
    async with scenario(brokers=2, partitions=4) as s:
        await s.outcome(b"before")
        for broker in (1, 2):
            s.cluster.stop_broker(broker, elect=False)
        d = s.deliver(b"during")
        await trio.sleep(20)
        for broker in (1, 2):
            s.cluster.start_broker(broker)
        with d:
            await d.wait()
        assert isinstance(d.outcomes[0], Delivered)


async def test_lost_answer_is_recognised_as_a_duplicate(scenario, autojump_clock) -> None:
    async with scenario() as s:
        await s.outcome(b"warm-up")
        s.cluster.faults.drop_answer()
        outcome = await s.outcome(b"once")
        assert (outcome.offset, outcome.attempts) == (1, 2)
        assert s.cluster.seen.batches[-1].duplicate


@pytest.mark.parametrize("produce", range(3, 14))
async def test_every_version_of_produce(scenario, autojump_clock, produce: int) -> None:
    versions = {**VERSIONS_OF_KAFKA_4_1, Api.PRODUCE: (3, produce)}
    async with scenario(cluster={"versions": versions}) as s:
        outcomes = await s.producer.send_many([Record("events", b"%d" % number) for number in range(10)])
        assert [outcome.offset for outcome in outcomes] == list(range(10))
        assert {request.version for request in s.cluster.seen.produce_requests} == {produce}


async def test_topics_without_ids_are_named(scenario, autojump_clock) -> None:
    async with scenario() as s:
        s.cluster.faults.zero_topic_ids(times=None)
        assert isinstance(await s.outcome(b"v"), Delivered)
        assert s.cluster.seen.produce_requests[0].version == 12


async def test_broker_that_only_knows_topics_by_id_is_written_to(scenario, autojump_clock) -> None:
    versions = {**VERSIONS_OF_KAFKA_4_1, Api.PRODUCE: (13, 13)}
    async with scenario(cluster={"versions": versions}) as s:
        assert isinstance(await s.outcome(b"value"), Delivered)


async def test_broker_without_a_common_version_is_an_operator_error(scenario, autojump_clock) -> None:
    versions = {**VERSIONS_OF_KAFKA_4_1, Api.PRODUCE: (99, 99)}
    async with scenario(cluster={"versions": versions}, settle=False, close_grace_s=0.0) as s:
        d = s.deliver(b"v")
        await trio.sleep(1)
        (error,) = s.producer.statistics().operator_errors
        assert error.name == "UNSUPPORTED_VERSION"
        assert "99" in error.advice
        d.withdraw()
        assert d.outcomes[0].reason.startswith("UNSUPPORTED_VERSION")


async def test_unknown_tags_and_trickling_answers_are_taken(scenario, autojump_clock) -> None:
    async with scenario() as s:
        s.cluster.faults.unknown_tags(api=None, times=None)
        s.cluster.faults.dribble(api=None, times=None)
        assert isinstance(await s.outcome(b"v"), Delivered)
        assert s.producer.statistics().connections_opened_total == 2


async def test_truncated_or_unreadable_answer_is_a_lost_one(scenario, autojump_clock) -> None:
    async with scenario() as s:
        await s.outcome(b"warm-up")
        s.cluster.faults.truncate(20)
        assert (await s.outcome(b"cut")).attempts == 2
        s.cluster.faults.replace_body(b"\xff\xff\xff")
        assert (await s.outcome(b"garbage")).attempts == 2
        s.cluster.faults.shift_correlation()
        assert (await s.outcome(b"shifted")).attempts == 2
        assert s.cluster.values("events") == [b"warm-up", b"cut", b"garbage", b"shifted"]


async def test_topic_created_again_gets_the_next_records(scenario, autojump_clock) -> None:
    async with scenario(metadata_max_age_s=5.0) as s:
        for number in range(3):
            await s.outcome(b"old %d" % number)
        s.deliveries.clear()
        s.cluster.delete_topic("events")
        s.cluster.create_topic("events", 1)
        assert isinstance(await s.outcome(b"new"), Delivered)
        assert s.cluster.values("events") == [b"new"]


async def test_topic_that_is_created_late_gets_what_waited(scenario, autojump_clock) -> None:
    async with scenario() as s:
        d = s.deliver(b"early", topic="late", partition=None)
        await trio.sleep(10)
        (error,) = s.producer.statistics().operator_errors
        assert (error.code, error.scope) == (3, "topic late")
        s.cluster.create_topic("late", 3)
        with d:
            await d.wait()
        assert isinstance(d.outcomes[0], Delivered)
        assert trio.current_time() < 12
        assert s.producer.statistics().operator_errors == ()


async def test_topic_without_permission_is_a_state_with_one_try_every_30_s(scenario, autojump_clock) -> None:
    events = []

    class Observer(ProducerObserver):
        def operator_error(self, error) -> None:
            events.append(error.code)

        def operator_error_cleared(self, error) -> None:
            events.append(-error.code)

    async with scenario(observer=Observer(), delivery_timeout_s=600.0, batch_timeout_s=600.0) as s:
        await s.outcome(b"warm-up")
        fault = s.cluster.faults.fail(29, times=None)
        probe = s.deliver(b"probe")
        await trio.sleep(1)
        with s.deliver(b"queued") as queued:
            with trio.move_on_after(5):
                await queued.wait()
        assert queued.outcomes[0].reason.startswith("TOPIC_AUTHORIZATION_FAILED: ")
        await trio.sleep(100)
        assert s.cluster.attempts_of(b"probe") == 4
        assert s.producer.statistics().due_times == 1
        fault.remove()
        with probe:
            await probe.wait()
        assert isinstance(probe.outcomes[0], Delivered)
        assert isinstance(await s.outcome(b"after"), Delivered)
        assert events == [29, -29]


async def test_silent_broker_ends_the_connection_after_request_timeout(scenario, autojump_clock) -> None:
    async with scenario(request_timeout_s=12.0) as s:
        await s.outcome(b"warm-up")
        started = trio.current_time()
        s.cluster.faults.stall()
        outcome = await s.outcome(b"v")
        assert outcome.attempts == 2
        assert 12 <= trio.current_time() - started < 13


async def test_slow_broker_is_not_given_up(scenario, autojump_clock) -> None:
    async with scenario() as s:
        s.cluster.faults.delay(25, where="replicas", times=3)
        for number in range(3):
            assert (await s.outcome(b"%d" % number)).attempts == 1
        assert s.producer.statistics().connections_opened_total == 2


async def test_idle_connection_that_the_broker_closes_is_opened_again_by_the_next_record(
    scenario, autojump_clock
) -> None:
    async with scenario(metadata_max_age_s=5000.0) as s:
        await s.outcome(b"before")
        await trio.sleep(600)
        s.cluster.close_connections()
        await trio.sleep(600)
        started = trio.current_time()
        assert (await s.outcome(b"after")).attempts == 1
        assert trio.current_time() == started


async def test_cluster_that_moved_is_found_by_the_bootstrap_servers_again(scenario, autojump_clock) -> None:
    async with scenario(rebootstrap_after_s=10.0, metadata_max_age_s=5.0) as s:
        await s.outcome(b"before")
        broker = s.cluster.brokers[1]
        s.cluster.faults.refuse_connects()
        s.cluster.close_connections()
        await trio.sleep(30)
        assert s.producer.statistics().last_cluster_error
        s.cluster.faults.accept_connects()
        assert broker.running
        outcome = await s.outcome(b"after")
        assert isinstance(outcome, Delivered)
        await trio.sleep(5)
        assert s.producer.statistics().last_cluster_error == ""


async def test_rebootstrap_required_starts_again(scenario, autojump_clock) -> None:
    async with scenario() as s:
        s.cluster.faults.fail(129, api=Api.METADATA)
        assert isinstance(await s.outcome(b"v"), Delivered)


async def test_metadata_without_brokers_is_a_failed_refresh(scenario, autojump_clock) -> None:
    async with scenario() as s:
        s.cluster.faults.no_brokers(times=2)
        assert isinstance(await s.outcome(b"v"), Delivered)


async def test_loading_coordinator_is_asked_again(scenario, autojump_clock) -> None:
    async with scenario() as s:
        s.cluster.faults.fail(14, api=Api.INIT_PRODUCER_ID, times=3)
        assert isinstance(await s.outcome(b"v"), Delivered)
        assert s.producer.statistics().operator_errors == ()


async def test_detached_batch_is_shown_and_lives_to_its_end(scenario, autojump_clock) -> None:
    async with scenario(batch_timeout_s=math.inf) as s:
        await s.outcome(b"warm-up")
        s.cluster.pause_broker(1)
        delivery = s.deliver(b"a", b"b")
        await wait_all_tasks_blocked()
        delivery.withdraw([0])
        statistics = s.producer.statistics()
        assert (statistics.detached_batches, statistics.detached_records) == (0, 1)
        delivery.withdraw()
        statistics = s.producer.statistics()
        assert (statistics.detached_batches, statistics.detached_records) == (1, 2)
        assert statistics.detached_bytes == statistics.in_flight_bytes > 0
        assert statistics.queue_bytes == 0
        await trio.sleep(500)
        (partition,) = s.producer.statistics().partitions
        assert partition.oldest_age_s == pytest.approx(500)
        assert partition.answered_age_s >= 500
        s.cluster.resume_broker(1)
        await s.settle()
        assert all(isinstance(outcome, Delivered) for outcome in s.resolved.values())


async def test_memory_and_tasks_do_not_grow_with_attempts(scenario, autojump_clock) -> None:
    async with scenario(batch_timeout_s=math.inf, delivery_timeout_s=math.inf) as s:
        s.cluster.faults.fail(19, times=None)
        delivery = s.deliver(b"v")
        await trio.sleep(10)
        tasks = trio.lowlevel.current_statistics().tasks_living
        await trio.sleep(3000)
        assert s.producer.statistics().partitions[0].oldest_age_s == pytest.approx(3010)
        assert s.cluster.attempts_of(b"v") > 3000
        assert trio.lowlevel.current_statistics().tasks_living <= tasks
        s.cluster.faults.clear()
        with delivery:
            await delivery.wait()
        assert delivery.outcomes[0].attempts == s.cluster.attempts_of(b"v")
        assert isinstance(delivery.outcomes[0], Delivered)
        assert not isinstance(delivery.outcomes[0], Unknown)
