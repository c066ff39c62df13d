"""More bugs that other clients had, each against the strict fake cluster on virtual time; named by the symptom."""

import time

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from kafka_client import Delivered, NotSent, ProducerConfig, Record, Unknown, open_producer
from kafka_client.testing.messages import VERSIONS_OF_KAFKA_4_1, Api


def metadata_requests(s) -> int:
    return sum(request.api is Api.METADATA for request in s.cluster.seen.requests)


# Bootstrapping again


async def test_learned_brokers_are_forgotten_when_the_bootstrap_servers_are_gone(scenario, autojump_clock) -> None:
    """librdkafka #5088: after a re-bootstrap nothing but bootstrap servers was tried, over and over."""
    async with scenario(brokers=2) as s:
        config = ProducerConfig(
            bootstrap_servers="fake-1:9092", rebootstrap_after_s=20, metadata_max_age_s=5, delivery_timeout_s=600
        )
        async with open_producer(config, connector=s.cluster.connector) as producer:
            assert isinstance(await producer.send(Record("events", b"before")), Delivered)
            s.cluster.stop_broker(1)
            s.cluster.stop_broker(2)
            refused = s.cluster.seen.connections_refused_total
            await trio.sleep(100)
            assert s.cluster.seen.connections_refused_total - refused < 400, "a loop, not a pace"
            s.cluster.start_broker(2)
            started = trio.current_time()
            assert isinstance(await producer.send(Record("events", b"after")), Delivered)
            assert trio.current_time() - started < 10


async def test_cluster_that_moved_is_only_found_by_the_bootstrap_servers(scenario, autojump_clock) -> None:
    async with scenario(brokers=2) as s:
        config = ProducerConfig(
            bootstrap_servers="fake-1:9092", rebootstrap_after_s=20, metadata_max_age_s=5, delivery_timeout_s=600
        )
        s.cluster.move_leader("events", 0, 2)
        s.cluster.stop_broker(1, elect=False)
        s.cluster.start_broker(1)
        async with open_producer(config, connector=s.cluster.connector) as producer:
            assert isinstance(await producer.send(Record("events", b"before")), Delivered)
            producer._refresher._known = [type(producer._refresher._known[0])("moved-away", 9092)]
            s.cluster.close_connections()
            await trio.sleep(60)
            assert producer.statistics().last_cluster_error == ""
            assert {address.host for address in producer._refresher._known} == {"fake-1", "fake-2"}


async def test_rebootstrap_required_for_ever_is_a_loop_without_a_pause(scenario, autojump_clock) -> None:
    """KIP-1102: code 129 says to begin again; a cluster that goes on saying so is not hammered."""
    async with scenario() as s:
        fault = s.cluster.faults.fail(129, api=Api.METADATA, times=None)
        waiting = s.deliver(b"v")
        await trio.sleep(60)
        assert 20 < fault.hits < 150
        fault.remove()
        with waiting:
            await waiting.wait()
        assert isinstance(waiting.outcomes[0], Delivered)
        assert trio.current_time() < 65


async def test_rebootstrap_required_forgets_the_learned_brokers(scenario, autojump_clock) -> None:
    """librdkafka #5605: the bootstrap servers were in the list already, so nothing changed."""
    async with scenario(brokers=2) as s:
        config = ProducerConfig(bootstrap_servers="fake-1:9092", metadata_max_age_s=5)
        async with open_producer(config, connector=s.cluster.connector) as producer:
            await producer.send(Record("events", b"before"))
            s.cluster.close_connections()
            s.cluster.faults.fail(129, api=Api.METADATA)
            seen = len(s.cluster.seen.requests)
            await trio.sleep(10)
            asked = [request.broker for request in s.cluster.seen.requests[seen:] if request.api is Api.METADATA]
            assert asked[1] == 1


async def test_metadata_error_of_the_whole_answer_is_taken_for_an_answer(scenario, autojump_clock) -> None:
    async with scenario() as s:
        fault = s.cluster.faults.fail(41, api=Api.METADATA, times=2)
        assert isinstance(await s.outcome(b"v"), Delivered)
        assert fault.hits == 2
        assert 1 < trio.current_time() < 3


# Topics by name and by id


@pytest.mark.parametrize("metadata", range(4, 10))
async def test_produce_names_a_topic_by_an_id_of_zeros_where_metadata_has_none(
    scenario, autojump_clock, metadata: int
) -> None:
    """franz-go #1312 (Azure): Produce 13, but Metadata below 10, which has no topic ids."""
    versions = {**VERSIONS_OF_KAFKA_4_1, Api.METADATA: (0, metadata)}
    async with scenario(cluster={"versions": versions}) as s:
        assert isinstance(await s.outcome(b"v"), Delivered)
        assert {request.version for request in s.cluster.seen.produce_requests} == {12}


async def test_topic_ids_that_come_and_go_are_taken_for_another_topic(scenario, autojump_clock) -> None:
    """Half of the brokers upgraded: some answers have ids, some have not."""
    async with scenario(metadata_max_age_s=1.0) as s:
        for number in range(6):
            s.cluster.faults.zero_topic_ids(times=None) if number % 2 else s.cluster.faults.clear()
            await trio.sleep(2)
            assert isinstance(await s.outcome(b"%d" % number), Delivered)
        assert [request.version for request in s.cluster.seen.produce_requests] == [13, 12] * 3
        assert s.base_sequences() == [(0, number, 1) for number in range(6)]


async def test_unknown_topic_id_for_ever_is_tried_without_asking_for_metadata(scenario, autojump_clock) -> None:
    async with scenario(batch_timeout_s=20.0, metadata_max_age_s=1000.0) as s:
        await s.outcome(b"warm-up")
        await trio.sleep(1)
        asked = metadata_requests(s)
        fault = s.cluster.faults.fail(100, times=None)
        started = trio.current_time()
        outcome = await s.outcome(b"v")
        assert isinstance(outcome, NotSent)
        assert trio.current_time() - started == pytest.approx(20, abs=0.1)
        assert 15 < fault.hits < 100, "bounded by the backoff"
        assert metadata_requests(s) - asked >= fault.hits // 2, "the topic may have been created again"
        fault.remove()
        assert isinstance(await s.outcome(b"next"), Delivered)


async def test_topic_created_again_is_answered_unknown_topic_id_for_ever(scenario, autojump_clock) -> None:
    async with scenario(metadata_max_age_s=1000.0) as s:
        await s.outcome(b"old")
        s.deliveries.clear()
        s.cluster.delete_topic("events")
        waiting = s.deliver(b"new")
        await trio.sleep(1)
        s.cluster.create_topic("events", 1)
        with waiting:
            await waiting.wait()
        assert isinstance(waiting.outcomes[0], Delivered)
        assert trio.current_time() < 5
        assert s.cluster.values("events") == [b"new"]


# Answers that are not what they should be


async def test_answer_that_omits_a_partition_loses_or_repeats_its_batch(scenario, autojump_clock) -> None:
    async with scenario(partitions=3) as s:
        for partition in range(3):
            await s.outcome(b"warm-up %d" % partition, partition=partition)
        s.cluster.faults.omit_partition(partition=1, times=2)
        outcomes = await s.producer.send_many(
            [Record("events", b"%d" % partition, partition=partition) for partition in range(3)]
        )
        assert [type(outcome) for outcome in outcomes] == [Delivered] * 3
        assert [outcome.attempts for outcome in outcomes] == [1, 3, 1]
        assert s.cluster.values("events").count(b"1") == 1


async def test_answer_that_repeats_a_partition_settles_its_batch_twice(scenario, autojump_clock) -> None:
    async with scenario(partitions=2) as s:
        s.cluster.faults.repeat_partition(partition=0, times=None)
        for number in range(3):
            for partition in range(2):
                outcome = await s.outcome(b"%d %d" % (number, partition), partition=partition)
                assert (outcome.offset, outcome.attempts) == (number, 1)
        assert s.producer.statistics().delivered_total == 6


async def test_request_is_malformed_when_one_of_its_batches_was_cancelled(scenario, autojump_clock) -> None:
    """franz-go: the tag byte of a batch that was taken out was missing, and the broker hung up on the whole request."""
    async with scenario(partitions=3) as s:
        for partition in range(3):
            await s.outcome(b"warm-up %d" % partition, partition=partition)
        s.cluster.faults.drop_answer()
        deliveries = [s.deliver(b"%d" % partition, partition=partition) for partition in range(3)]
        await s.cluster.wait_until(lambda: s.cluster.attempts_of(b"1"))
        deliveries[1].withdraw()
        more = [s.deliver(b"more %d" % partition, partition=partition) for partition in range(3)]
        more[1].withdraw()
        for delivery in (deliveries[0], deliveries[2], more[0], more[2]):
            with delivery:
                await delivery.wait()
            assert isinstance(delivery.outcomes[0], Delivered)
        assert more[1].outcomes == [NotSent("withdrawn")]
        await s.settle()
        assert isinstance(s.resolved[b"1"], Delivered)
        assert s.cluster.seen.violations == []


# Leaders


async def test_leader_epoch_that_goes_backwards_brings_the_old_leader_back(scenario, autojump_clock) -> None:
    """franz-go #119: a broker that lags behind named the leader of yesterday."""
    async with scenario(brokers=2) as s:
        await s.outcome(b"1")
        old = s.cluster.partition("events", 0).leader
        s.cluster.move_leader("events", 0, 3 - old)
        await s.outcome(b"2")
        s.cluster.partition("events", 0).advertise(old, 0)
        for number in range(3):
            s.producer._dispatch.want_metadata()
            await trio.sleep(1)
            assert (await s.outcome(b"stale %d" % number)).attempts == 1
        assert s.producer.statistics().partitions[0].leader == 3 - old


async def test_leader_that_flips_within_one_epoch_reorders_or_repeats_records(scenario, autojump_clock) -> None:
    """librdkafka #5593: two brokers name different leaders of the same epoch, in turns."""
    async with scenario(brokers=2, metadata_max_age_s=0.2, linger_s=0.0) as s:
        await s.outcome(b"warm-up")
        partition = s.cluster.partition("events", 0)
        leader, epoch = partition.advertised
        deliveries = []
        for number in range(60):
            partition.advertise(leader if number % 2 else 3 - leader, epoch)
            deliveries.append(s.deliver(b"%04d" % number))
            await trio.sleep(0.25)
        partition.advertise_truth()
        for delivery in deliveries:
            with delivery:
                await delivery.wait()
            assert isinstance(delivery.outcomes[0], Delivered)
        assert s.cluster.values("events")[1:] == [b"%04d" % number for number in range(60)]
        assert s.producer.statistics().epoch_bumps_total == 0
        assert len(s.cluster.seen.produce_requests) < 400


async def test_slow_leader_gets_as_much_as_the_fast_ones(scenario, autojump_clock) -> None:
    """KAFKA-10888: a sticky choice at random feeds the slow broker most, since its batches grow."""
    async with scenario(brokers=3, partitions=3, batch_max_bytes=64 * 1024) as s:
        for partition in range(3):
            await s.outcome(b"warm-up %d" % partition, partition=partition)
        slow = s.cluster.partition("events", 0).leader
        s.cluster.faults.delay(2.0, where="replicas", broker=slow, times=None)
        s.cluster.faults.delay(0.005, when=lambda request: request.broker != slow, times=None)
        for number in range(1000):
            s.deliver(b"%04d" % number + b"." * 1000, partition=None)
            await trio.sleep(0.008)
        s.cluster.faults.clear()
        await s.settle()
        counts = [len(s.cluster.log("events", partition)) for partition in range(3)]
        assert sum(counts) == 1003
        assert counts[0] < 1003 * 0.1, counts
        assert min(counts[1:]) > 1003 * 0.3, counts


# The first record


async def test_first_record_of_a_topic_waits_for_a_timer_of_metadata(scenario, autojump_clock) -> None:
    """librdkafka #5032: a second. It takes two round trips: one for metadata, one for the record."""
    async with scenario() as s:
        await s.outcome(b"warm-up")
        s.cluster.create_topic("fresh", 1)
        await trio.sleep(1)
        s.cluster.faults.delay(0.3, api=None, times=None)
        started = trio.current_time()
        assert isinstance(await s.outcome(b"first", topic="fresh"), Delivered)
        assert trio.current_time() - started == pytest.approx(0.6, abs=0.01)


async def test_first_record_of_all_waits_for_a_timer(scenario, autojump_clock) -> None:
    """Two connections, each with its ApiVersions; Metadata, InitProducerId, and Produce: nothing is slept through."""
    async with scenario() as s:
        s.cluster.faults.delay(0.3, api=None, times=None)
        started = trio.current_time()
        assert isinstance(await s.outcome(b"first"), Delivered)
        assert trio.current_time() - started <= 5 * 0.3 + 0.11


async def test_first_record_waits_when_metadata_is_just_being_asked_for_another_topic(scenario, autojump_clock) -> None:
    async with scenario() as s:
        await s.outcome(b"warm-up")
        for topic in ("one", "two"):
            s.cluster.create_topic(topic, 1)
        await trio.sleep(1)
        s.cluster.faults.delay(0.3, api=None, times=None)
        started = trio.current_time()
        first = s.deliver(b"1", topic="one")
        await trio.sleep(0.1)
        assert isinstance(await s.outcome(b"2", topic="two"), Delivered)
        assert trio.current_time() - started == pytest.approx(0.9, abs=0.01)
        assert isinstance(first.outcomes[0], Delivered)


# What is in the record


async def test_timestamps_lose_their_milliseconds(scenario, autojump_clock) -> None:
    async with scenario() as s:
        given = [1_700_000_000_001, 1_700_000_000_999, 1_699_999_999_123]
        before = time.time_ns() // 1_000_000
        outcomes = await s.producer.send_many(
            [Record("events", b"%d" % stamp, partition=0, timestamp_ms=stamp) for stamp in given]
            + [Record("events", b"now", partition=0)]
        )
        after = time.time_ns() // 1_000_000
        stored = [record.timestamp_ms for record in s.cluster.log("events", 0)]
        assert stored[:3] == given
        assert before <= stored[3] <= after
        assert [outcome.timestamp_ms for outcome in outcomes] == stored


# Errors after the append


@pytest.mark.parametrize("code", [3, 6, 56, 100])
async def test_leadership_lost_after_the_append_is_called_not_sent(scenario, autojump_clock, code: int) -> None:
    """franz-go and librdkafka take these for "not persisted", though the log has the batch."""
    async with scenario() as s:
        await s.outcome(b"warm-up")
        s.cluster.faults.append_and_fail(code)
        s.cluster.faults.fail(10, skip=1)
        outcome = await s.outcome(b"A")
        assert isinstance(outcome, Unknown)
        assert s.cluster.values("events").count(b"A") == 1
        assert isinstance(await s.outcome(b"B"), Delivered)
        assert s.cluster.values("events") == [b"warm-up", b"A", b"B"]


async def test_leadership_lost_after_the_append_and_the_caller_gone(scenario, autojump_clock) -> None:
    async with scenario(brokers=2) as s:
        await s.outcome(b"warm-up")
        s.cluster.faults.append_and_fail(6)
        with s.deliver(b"A") as a:
            await s.cluster.wait_until(lambda: s.cluster.attempts_of(b"A"))
            await wait_all_tasks_blocked()
        assert isinstance(a.outcomes[0], Unknown)
        b = await s.outcome(b"B")
        await s.settle()
        assert (s.resolved[b"A"].offset, b.offset) == (1, 2)
