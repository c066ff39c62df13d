"""What a producer is used for at its limits, and from inside its own callbacks; each test is named by a symptom."""

import time
from array import array

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from kafka_client import Delivered, Delivery, NotSent, Outcome, ProducerConfig, Record, Unknown, open_producer
from kafka_client.testing import open_fake_cluster

#: Small enough for two records; whatever is queued ends soon.
SMALL: dict[str, float] = {
    "queue_max_bytes": 3_000,
    "record_max_bytes": 2_000,
    "batch_max_bytes": 3_000,
    "delivery_timeout_s": 5.0,
    "request_timeout_s": 4.0,
    "produce_timeout_s": 3.0,
}


@pytest.mark.parametrize("full_of", ["events", "ghost"])
async def test_timeout_that_lets_a_new_topic_in_ends_the_producer(full_of: str, autojump_clock) -> None:
    """What timed out gave room to a delivery in line, whose topic came into the dictionary that was walked through."""
    async with open_fake_cluster(topics={"events": 1, "other": 1}) as cluster:
        config = ProducerConfig(bootstrap_servers=cluster.bootstrap_servers, **SMALL)  # type: ignore[arg-type]
        async with open_producer(config, connector=cluster.connector) as producer:
            await producer.send(Record("events", b"warm"))
            cluster.stop_broker(cluster.partition("events", 0).leader)
            await trio.sleep(2)
            first = [producer.delivery([Record(full_of, b"x" * size)]) for size in (1900, 800)]
            await trio.sleep(1)
            waiting = producer.delivery([Record("other", b"y" * 1500)])
            assert producer.statistics().waiting_deliveries == 1
            for delivery in (*first, waiting):
                await delivery.wait()
                assert isinstance(delivery.outcomes[0], NotSent)
                assert delivery.outcomes[0].reason.startswith("timeout")


async def test_on_resolved_that_produces_to_a_new_topic_ends_the_producer(autojump_clock) -> None:
    """A dead-letter topic: the batch timed out, its ``fn`` hands over a record of a topic not used before."""
    async with open_fake_cluster(topics={"events": 1, "dead": 1}) as cluster:
        config = ProducerConfig(
            bootstrap_servers=cluster.bootstrap_servers,
            delivery_timeout_s=5.0,
            request_timeout_s=4.0,
            produce_timeout_s=3.0,
            batch_timeout_s=3.0,
        )
        async with open_producer(config, connector=cluster.connector) as producer:
            await producer.send(Record("events", b"warm"))
            cluster.faults.delay(60.0, times=1)
            dead: list[Delivery] = []
            lost = producer.delivery([Record("events", b"lost")])
            lost.on_resolved(lambda _, outcome: dead.append(producer.delivery([Record("dead", b"letter")])))
            await trio.sleep(20)
            assert isinstance(lost.outcomes[0], Unknown)
            assert len(dead) == 1
            await dead[0].wait()
            assert isinstance(dead[0].outcomes[0], Delivered)
            assert cluster.values("dead") == [b"letter"]


def explode(index: int, outcome: Outcome) -> None:
    """An ``on_resolved`` with a bug."""
    raise ZeroDivisionError("a bug in a callback")


async def watched(delivery: Delivery, woken: list[Delivery]) -> None:
    """Wait as somebody who does not live in the producer's block: its end does not cancel this."""
    with trio.move_on_after(1000) as scope:
        await delivery.wait()
    if not scope.cancelled_caught:
        woken.append(delivery)


async def test_waiter_hangs_after_an_on_resolved_raised_while_closing(autojump_clock) -> None:
    """What came after it in the order of partitions and batches was never settled."""
    woken: list[Delivery] = []
    others: list[Delivery] = []
    async with trio.open_nursery() as outside:
        with pytest.RaisesGroup(ZeroDivisionError, flatten_subgroups=True, allow_unwrapped=True):
            async with open_fake_cluster(topics={"events": 2}) as cluster:
                config = ProducerConfig(bootstrap_servers=cluster.bootstrap_servers)
                async with open_producer(config, connector=cluster.connector) as producer:
                    for partition in range(2):
                        await producer.send(Record("events", b"warm", partition=partition))
                    cluster.faults.delay(600.0, times=9)
                    broken = producer.delivery([Record("events", b"a", partition=0)])
                    together = producer.delivery([Record("events", b"b", partition=n % 2) for n in range(2)])
                    broken.on_resolved(explode)
                    await wait_all_tasks_blocked()
                    queued = producer.delivery([Record("events", b"q", partition=1)] * 3)
                    others += [together, queued]
                    for delivery in others:
                        outside.start_soon(watched, delivery, woken)
                    await wait_all_tasks_blocked()
                    broken.withdraw()
                    await producer.close(0)
    assert sorted(map(id, woken)) == sorted(map(id, others))
    assert together.outcomes == [Unknown("closed")] * 2
    assert queued.outcomes == [NotSent("closed")] * 3
    statistics = producer.statistics()
    assert statistics.in_flight_bytes == statistics.in_flight_batches == statistics.queue_bytes == 0


async def test_waiter_hangs_where_every_on_resolved_has_the_same_bug(autojump_clock) -> None:
    """It raised in a sender's task, and again while the rest was being settled."""
    woken: list[Delivery] = []
    async with trio.open_nursery() as outside:
        with pytest.RaisesGroup(ZeroDivisionError, ZeroDivisionError, flatten_subgroups=True, allow_unwrapped=False):
            async with open_fake_cluster(topics={"events": 3}) as cluster:
                config = ProducerConfig(bootstrap_servers=cluster.bootstrap_servers, linger_s=0.0)
                async with open_producer(config, connector=cluster.connector) as producer:
                    for partition in range(3):
                        await producer.send(Record("events", b"warm", partition=partition))
                    cluster.faults.delay(1.0, times=1)
                    cluster.faults.delay(60.0, times=5)
                    deliveries = []
                    for partition in range(3):
                        deliveries.append(producer.delivery([Record("events", b"a", partition=partition)]))
                        await wait_all_tasks_blocked()
                    for delivery in deliveries[:2]:
                        delivery.on_resolved(explode)
                        delivery.withdraw()
                    outside.start_soon(watched, deliveries[2], woken)
                    await trio.sleep_forever()
    assert woken == [deliveries[2]]
    assert isinstance(deliveries[2].outcomes[0], Delivered | Unknown)
    assert producer.statistics().in_flight_bytes == 0


async def test_records_are_lost_from_sight_when_an_on_resolved_raises_between_two_batches(autojump_clock) -> None:
    """A partition gave two batches up in one step; the first's ``fn`` raised, the second was in no list."""
    woken: list[Delivery] = []
    async with trio.open_nursery() as outside:
        with pytest.RaisesGroup(ZeroDivisionError, flatten_subgroups=True):
            async with open_fake_cluster(topics={"events": 1}) as cluster:
                config = ProducerConfig(bootstrap_servers=cluster.bootstrap_servers, linger_s=0.0)
                async with open_producer(config, connector=cluster.connector) as producer:
                    await producer.send(Record("events", b"warm"))
                    cluster.faults.drop_answer(times=2)
                    cluster.faults.fail(45, times=9)
                    deliveries = []
                    for _ in range(2):
                        deliveries.append(producer.delivery([Record("events", b"a")]))
                        await wait_all_tasks_blocked()
                    deliveries[0].on_resolved(explode)
                    deliveries[0].withdraw()
                    outside.start_soon(watched, deliveries[1], woken)
                    await trio.sleep(100)
    assert woken == [deliveries[1]]
    assert isinstance(deliveries[1].outcomes[0], Unknown)


async def cpu_s(count: int, use: str) -> float:
    """CPU seconds of one use of a bulk delivery of so many records; the producer has cost its own before."""
    small = use in ("queue in small segments", "take back with on_resolved")
    sizes = {"batch_max_bytes": 2_000, "record_max_bytes": 2_000} if small else {}
    async with open_fake_cluster(topics={"events": 1}) as cluster:
        config = ProducerConfig(bootstrap_servers=cluster.bootstrap_servers, **sizes)  # type: ignore[arg-type]
        async with open_producer(config, connector=cluster.connector) as producer:
            await producer.send(Record("events", b"warm"))
            if use == "take back one by one, sealed":
                cluster.faults.delay(100.0, times=9)
            records = [Record("events", b"x" * (400 if use == "take back with on_resolved" else 100))] * count
            started = time.process_time()
            delivery = producer.delivery(records)
            if use == "queue in small segments":
                taken = time.process_time() - started
                delivery.withdraw()
                return taken
            if use == "take back with on_resolved":
                delivery.on_resolved(lambda index, outcome: None)
                started = time.process_time()
                delivery.withdraw()
                return time.process_time() - started
            if use == "take back one by one, sealed":
                await trio.sleep(1)
            started = time.process_time()
            for index in range(count):
                delivery.withdraw([index])
            taken = time.process_time() - started
            kind = Unknown if use == "take back one by one, sealed" else NotSent
            assert isinstance(delivery.outcomes[0], kind)
            assert delivery.unsettled == 0
            return taken


@pytest.mark.parametrize(
    "use",
    [
        "queue in small segments",
        "take back with on_resolved",
        "take back one by one, queued",
        "take back one by one, sealed",
    ],
)
async def test_large_bulk_delivery_holds_everybody_up(use: str, autojump_clock) -> None:
    """Quadratic: eight times the records took up to 64 times as long, in one synchronous call each, or together."""
    small, large = 2_500, 20_000
    few = min([await cpu_s(small, use) for _ in range(3)])
    many = min([await cpu_s(large, use) for _ in range(2)])
    assert many < 24 * max(few, 0.002)


WIDE = array("I", [1, 2, 3])


@pytest.mark.parametrize(
    "record",
    [
        Record("events", WIDE),  # type: ignore[arg-type]
        Record("events", memoryview(WIDE)),  # type: ignore[arg-type]
        Record("events", b"v", key=memoryview(WIDE)),  # type: ignore[arg-type]
        Record("events", b"v", headers=[("n", memoryview(WIDE))]),  # type: ignore[list-item]
        Record("events", b"v", headers=[(b"n", b"v")]),  # type: ignore[list-item]
        Record("events", b"v", headers=[(1, b"v")]),  # type: ignore[list-item]
    ],
    ids=["array", "memoryview", "key", "header", "bytes for a header's name", "int for a header's name"],
)
async def test_one_wrong_record_makes_a_batch_that_no_broker_can_read(record: Record, autojump_clock) -> None:
    """The length of a buffer of wide items was taken for its size: the others of its batch were refused with it."""
    async with open_fake_cluster(topics={"events": 1}) as cluster:
        config = ProducerConfig(bootstrap_servers=cluster.bootstrap_servers)
        async with open_producer(config, connector=cluster.connector) as producer:
            for records in ([record], [record, Record("events", b"good")]):
                with pytest.raises(TypeError):
                    producer.delivery(records)
            assert producer.statistics().queue_bytes == 0
            narrow = Record("events", memoryview(b"narrow"))  # type: ignore[arg-type]
            assert isinstance(await producer.send(narrow), Delivered)
            assert cluster.values("events") == [b"narrow"]


async def test_records_without_an_order_are_taken_sometimes(autojump_clock) -> None:
    """A set of one raised and a set of two was sent; a withdrawal of what is no index leaves all as it was."""
    async with open_fake_cluster(topics={"events": 1}) as cluster:
        config = ProducerConfig(bootstrap_servers=cluster.bootstrap_servers)
        async with open_producer(config, connector=cluster.connector) as producer:
            records = [Record("events", b"1"), Record("events", b"2")]
            for several in (set(records[:1]), set(records), iter(records)):
                with pytest.raises(TypeError):
                    producer.delivery(several)  # type: ignore[arg-type]
            delivery = producer.delivery(records)
            with pytest.raises(TypeError):
                delivery.withdraw([0, []])  # type: ignore[list-item]
            assert delivery.unsettled == 2
            await delivery.wait()
            assert cluster.values("events") == [b"1", b"2"]


@pytest.mark.parametrize("count", [1, 2])
async def test_outcome_that_was_given_changes_when_the_callers_list_does(count: int, autojump_clock) -> None:
    async with open_fake_cluster(topics={"events": 1}) as cluster:
        config = ProducerConfig(bootstrap_servers=cluster.bootstrap_servers)
        async with open_producer(config, connector=cluster.connector) as producer:
            delivery = producer.delivery([Record("events", b"1")] * count)
            await delivery.wait()
            delivery.outcomes.clear()
            assert [type(outcome) for outcome in delivery.outcomes] == [Delivered] * count
