"""A topic grows, shrinks, goes, comes back as another one, or was never there: what becomes of its records."""

import time

import pytest
import trio

from kafka_client import Delivered, NotSent, Record, Unknown
from kafka_client.buffer.partitioner import routes_of_tails
from kafka_client.testing.messages import Api
from kafka_client.testing.parts import FakePartition
from kafka_client.wire.murmur2 import partition_for_key
from kafka_client.wire.record_batch import encode_record_tail, record_key

RECREATED = "the topic was deleted and created again"


def grow(s, count: int) -> None:
    topic = s.cluster.topics["events"]
    for index in range(len(topic.partitions), count):
        topic.partitions.append(FakePartition("events", index, [1 + index % len(s.cluster.brokers)]))


def recreate(s, count: int) -> None:
    s.deliveries.clear()  # the books of the deleted log
    s.cluster.delete_topic("events")
    s.cluster.create_topic("events", count)


async def blocked(s, partitions: int) -> list:
    """One batch in flight for each partition, so that everything behind it stays queued."""
    for partition in range(partitions):
        await s.outcome(b"warm-up %d" % partition, partition=partition)
    s.cluster.faults.stall(append=False, times=None)
    deliveries = [s.deliver(b"in flight %d" % partition, partition=partition) for partition in range(partitions)]
    await trio.sleep(0.1)
    return deliveries


async def refresh(s) -> None:
    s.producer._dispatch.want_metadata()
    await trio.sleep(1)


@pytest.mark.parametrize("key", [None, b"", b"k", b"key " * 1000])
def test_key_is_told_from_an_encoded_record(key: bytes | None) -> None:
    assert record_key(encode_record_tail(key, b"value", [("h", b"x")])) == key
    assert routes_of_tails([None, encode_record_tail(None, b"v")]) == [-1, -1]


# More partitions


async def test_queued_records_of_a_key_follow_it_when_partitions_are_added(scenario, autojump_clock) -> None:
    """What is sealed stays; what is queued is dealt out anew, so that no record of a key overtakes an earlier one."""
    async with scenario(partitions=2, max_in_flight_per_partition=1) as s:
        flying = await blocked(s, 2)
        keys = [b"%d" % number for number in range(20)]
        before = [s.deliver(b"1 " + key, key=key, partition=None) for key in keys]
        bulk = s.producer.delivery([Record("events", b"2 " + key, key=key) for key in keys])
        explicit = s.deliver(b"explicit", key=b"5", partition=1)
        keyless = s.deliver(b"keyless", partition=None)
        grow(s, 5)
        await refresh(s)
        after = [s.deliver(b"3 " + key, key=key, partition=None) for key in keys]
        s.cluster.faults.clear()
        for delivery in (*flying, *before, bulk, explicit, keyless, *after):
            with delivery:
                await delivery.wait()
            assert {type(outcome) for outcome in delivery.outcomes} == {Delivered}
        assert explicit.outcomes[0].partition.partition == 1
        for key in keys:
            log = [record.value for record in s.cluster.log("events", partition_for_key(key, 5)) if record.key == key]
            assert [value for value in log if value != b"explicit"] == [b"%d " % turn + key for turn in (1, 2, 3)]


async def test_record_for_a_partition_that_is_added_later_goes_there(scenario, autojump_clock) -> None:
    async with scenario(partitions=1) as s:
        await s.outcome(b"warm-up")
        named = s.deliver(b"named", partition=2)
        await trio.sleep(1)
        grow(s, 3)
        with named:
            await named.wait()
        assert (named.outcomes[0].partition.partition, named.outcomes[0].offset) == (2, 0)


async def test_record_for_a_partition_that_is_added_later_does_not_overtake_a_key_that_moves_there(
    scenario, autojump_clock
) -> None:
    key = next(b"%d" % number for number in range(100) if partition_for_key(b"%d" % number, 3) == 2)
    async with scenario(partitions=1, max_in_flight_per_partition=1) as s:
        flying = await blocked(s, 1)
        keyed = s.deliver(b"keyed, first", key=key, partition=None)
        await trio.sleep(0.01)
        named = s.deliver(b"named, second", partition=2)
        grow(s, 3)
        await refresh(s)
        s.cluster.faults.clear()
        for delivery in (*flying, keyed, named):
            with delivery:
                await delivery.wait()
        assert [record.value for record in s.cluster.log("events", 2)] == [b"keyed, first", b"named, second"]


async def test_partition_that_was_emptied_for_dealing_anew_is_sent_from_again(scenario, autojump_clock) -> None:
    async with scenario(partitions=2, max_in_flight_per_partition=1) as s:
        flying = await blocked(s, 2)
        moved = s.deliver(b"moved", key=b"6", partition=None)
        grow(s, 7)
        await refresh(s)
        s.cluster.faults.clear()
        for partition in range(7):
            assert isinstance(await s.outcome(b"%d" % partition, partition=partition), Delivered)
        for delivery in (*flying, moved):
            with delivery:
                await delivery.wait()
            assert isinstance(delivery.outcomes[0], Delivered)


async def test_deadlines_are_kept_when_records_were_dealt_out_anew(scenario, autojump_clock) -> None:
    """Older records must not come to lie behind younger ones: the queue's head is what time is kept by."""
    async with scenario(
        partitions=3,
        max_in_flight_per_partition=1,
        delivery_timeout_s=10.0,
        request_timeout_s=9.0,
        produce_timeout_s=1.0,
    ) as s:
        await blocked(s, 3)
        started = trio.current_time()
        ended: dict[int, float] = {}

        async def wait(number: int, delivery) -> None:
            with delivery:
                await delivery.wait()
            ended[number] = trio.current_time() - started

        async with trio.open_nursery() as nursery:
            for number in range(30):
                nursery.start_soon(wait, number, s.deliver(b"%d" % number, key=b"%d" % number, partition=None))
                await trio.sleep(0.1)
            s.cluster.faults.stall(append=False, times=None)
            grow(s, 4)
            await refresh(s)
        assert ended == {number: pytest.approx(10 + number * 0.1) for number in range(30)}
        s.cluster.faults.clear()


async def test_dealing_anew_takes_long(scenario, autojump_clock) -> None:
    """100 000 queued records: the loop stands still for their dealing, once in the life of a topic."""
    async with scenario(partitions=2, settle=False, max_in_flight_per_partition=1, close_grace_s=0.0) as s:
        await blocked(s, 2)
        deliveries = [
            s.producer.delivery((Record("events", b"%d" % number, key=b"%d" % number),)) for number in range(100_000)
        ]
        topic = s.producer._topics["events"]
        grow(s, 3)
        started = time.process_time()
        topic.resize(3, recreated=False)
        topic.deal_out(trio.current_time())
        assert time.process_time() - started < 3.0
        assert sum(partition.queue.count for partition in topic.partitions) == 100_000
        for delivery in deliveries:
            delivery.withdraw()
        assert s.producer.statistics().queue_bytes == 0


# Fewer partitions


async def test_topic_created_again_with_fewer_partitions_keeps_bytes_of_those_it_lacks(
    scenario, autojump_clock
) -> None:
    """With an infinite batch timeout they were held for ever."""
    async with scenario(partitions=4, batch_timeout_s=float("inf"), linger_s=0.0) as s:
        for partition in range(4):
            await s.outcome(b"warm-up %d" % partition, partition=partition)
        for partition in (2, 3):
            s.cluster.faults.fail(19, partition=partition, times=None)
        s.cluster.faults.close_before(
            when=lambda _: s.cluster.attempts_of(b"3") > 0 and s.cluster.attempts_of(b"2") > 0
        )
        absent, tainted = s.deliver(b"2", partition=2), s.deliver(b"3", partition=3)
        await trio.sleep(3)
        s.cluster.faults.clear()
        recreate(s, 1)
        for delivery in (absent, tainted):
            with delivery:
                await delivery.wait()
        kinds = {type(delivery.outcomes[0]) for delivery in (absent, tainted)}
        assert kinds <= {Unknown, NotSent}
        assert all(RECREATED in delivery.outcomes[0].reason for delivery in (absent, tainted))
        await s.settle()
        assert s.producer.statistics().in_flight_bytes == 0
        assert isinstance(await s.outcome(b"next"), Delivered)


async def test_batch_in_flight_to_a_partition_that_is_cut_off_ends_with_its_answer(scenario, autojump_clock) -> None:
    async with scenario(partitions=2, batch_timeout_s=float("inf")) as s:
        await s.outcome(b"warm-up 0", partition=0)
        await s.outcome(b"warm-up 1", partition=1)
        s.cluster.faults.fail(100, partition=1)
        s.cluster.faults.delay(5.0, partition=1)
        flying = s.deliver(b"flying", partition=1)
        await s.cluster.wait_until(lambda: s.cluster.attempts_of(b"flying"))
        started = trio.current_time()
        recreate(s, 1)
        await refresh(s)
        assert flying.unsettled == 1
        with flying:
            await flying.wait()
        assert flying.outcomes[0] == NotSent(f"rejected: {RECREATED}")
        assert trio.current_time() - started == pytest.approx(5)


async def test_batch_that_may_be_in_the_deleted_topic_is_unknown(scenario, autojump_clock) -> None:
    async with scenario(partitions=2, batch_timeout_s=float("inf")) as s:
        await s.outcome(b"warm-up 0", partition=0)
        await s.outcome(b"warm-up 1", partition=1)
        s.cluster.faults.drop_answer(partition=1)
        s.cluster.faults.stall(append=False, partition=1, skip=1)
        doubtful = s.deliver(b"doubtful", partition=1)
        await s.cluster.wait_until(lambda: s.cluster.attempts_of(b"doubtful") == 2)
        recreate(s, 1)
        await refresh(s)
        s.cluster.close_connections()
        with doubtful:
            await doubtful.wait()
        assert doubtful.outcomes[0] == Unknown(f"abandoned: {RECREATED}")
        s.cluster.faults.clear()
        grow(s, 2)
        await refresh(s)
        assert isinstance(await s.outcome(b"into the new one", partition=1), Delivered)
        assert s.cluster.seen.batches[-1].base_sequence == 0


async def test_queued_records_of_a_partition_that_is_cut_off_go_to_another(scenario, autojump_clock) -> None:
    async with scenario(partitions=4, max_in_flight_per_partition=1, delivery_timeout_s=40.0) as s:
        await blocked(s, 4)
        keys = [b"%d" % number for number in range(12)]
        queued = s.producer.delivery([Record("events", b"v" + key, key=key) for key in keys])
        more = [s.deliver(b"w" + key, key=key, partition=None) for key in keys]
        named = s.deliver(b"named", partition=3)
        bulk = s.producer.delivery([Record("events", b"named too", partition=3), Record("events", b"x", key=b"1")])
        recreate(s, 2)
        await refresh(s)
        s.cluster.faults.clear()
        for delivery in (queued, *more, named, bulk):
            with delivery:
                await delivery.wait()
        for key, outcome in zip(keys, queued.outcomes, strict=True):
            assert outcome.partition.partition == partition_for_key(key, 2)
        assert all(isinstance(delivery.outcomes[0], Delivered) for delivery in more)
        for delivery in (named, bulk):
            assert delivery.outcomes[0].reason == "timeout: no leader of the partition is known"
        assert isinstance(bulk.outcomes[1], Delivered)
        for index in range(2):
            log = s.cluster.log("events", index)
            for key in {record.key for record in log if record.key}:
                values = [record.value for record in log if record.key == key and record.value != b"x"]
                assert values == [b"v" + key, b"w" + key]
        s.deliveries.clear()


# No topic


@pytest.mark.parametrize("code", [3, 5, 7, 13, 17, 29, 56, 72, 100, 4711])
async def test_record_of_a_topic_that_metadata_refuses_ends_at_its_deadline(
    scenario, autojump_clock, code: int
) -> None:
    async with scenario(delivery_timeout_s=45.0) as s:
        s.cluster.topics["events"].error_code = code
        outcome = await s.outcome(b"v", partition=None)
        assert isinstance(outcome, NotSent)
        assert trio.current_time() == pytest.approx(45)
        names = {3: "UNKNOWN_TOPIC_OR_PARTITION", 17: "INVALID_TOPIC_EXCEPTION", 29: "TOPIC_AUTHORIZATION_FAILED"}
        assert outcome.reason.startswith(names.get(code, "timeout: the topic's partitions are unknown"))
        asked = sum(request.api is Api.METADATA for request in s.cluster.seen.requests)
        assert asked <= 3 if code in (17, 29) else 30 < asked < 150


@pytest.mark.parametrize("code", [3, 5, 7, 13, 17, 29, 56, 72, 100, 4711])
async def test_topic_that_metadata_refuses_for_a_while_gets_its_records(scenario, autojump_clock, code: int) -> None:
    async with scenario() as s:
        s.cluster.topics["events"].error_code = code
        waiting = s.deliver(b"v", partition=None)
        await trio.sleep(5)
        errors = [error.code for error in s.producer.statistics().operator_errors]
        assert errors == ([code] if code in (3, 17, 29) else [])
        s.cluster.topics["events"].error_code = 0
        with waiting:
            await waiting.wait()
        assert isinstance(waiting.outcomes[0], Delivered)
        assert trio.current_time() < (31 if code in (17, 29) else 7)
        assert s.producer.statistics().operator_errors == ()


@pytest.mark.parametrize("code", [3, 5, 7, 13, 17, 29, 56, 72, 100])
async def test_topic_that_is_known_keeps_its_leaders_when_metadata_refuses_it(
    scenario, autojump_clock, code: int
) -> None:
    async with scenario(partitions=2, metadata_max_age_s=1.0) as s:
        await s.outcome(b"1", partition=1)
        s.cluster.topics["events"].error_code = code
        await trio.sleep(2.5)
        assert s.producer.partitions_of("events") == 2
        started = trio.current_time()
        assert (await s.outcome(b"2", partition=1)).attempts == 1
        assert trio.current_time() - started < (30 if code in (17, 29) else 0.1)
        assert s.base_sequences(1) == [(0, 0, 1), (0, 1, 1)]


async def test_sealed_batch_of_a_deleted_topic_ends_at_its_deadline(scenario, autojump_clock) -> None:
    async with scenario(batch_timeout_s=50.0) as s:
        await s.outcome(b"warm-up")
        s.deliveries.clear()
        started = trio.current_time()
        s.cluster.delete_topic("events")
        outcome = await s.outcome(b"v")
        assert isinstance(outcome, NotSent)
        assert trio.current_time() - started == pytest.approx(50, abs=0.1)
        assert outcome.reason.startswith("UNKNOWN_TOPIC_OR_PARTITION")
        assert s.cluster.attempts_of(b"v") < 15, "one try in 30 s once it is taken to be missing"
        s.deliveries.clear()
