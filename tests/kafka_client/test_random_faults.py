"""Random faults, random deadlines, random sizes against the strict fake cluster; the books must hold whatever happens.

The seeds are fixed, the order in which Trio runs ready tasks is not: a failure is repeated by running its seed often.
"""

import random

import pytest
import trio
import trio.lowlevel

from kafka_client import Delivered, Unknown

#: Answers before an append that a real broker gives, and answers after one that leave the outcome open.
BEFORE_APPEND = (2, 3, 5, 6, 8, 9, 10, 19, 29, 32, 45, 47, 56, 59, 72, 74, 87, 89, 100, -1, 1234)
AFTER_APPEND = (3, 6, 7, 20, 56, -1)


async def _disturb(s, rng: random.Random, until: float, partitions: int, brokers: int) -> None:
    await trio.lowlevel.checkpoint()
    faults = s.cluster.faults
    while trio.current_time() < until:
        await trio.sleep(rng.uniform(0, 0.3))
        partition = rng.randrange(partitions)
        match rng.randrange(13):
            case 0 | 1 | 2:
                faults.fail(rng.choice(BEFORE_APPEND), partition=partition, times=rng.randrange(1, 4))
            case 3 | 4:
                faults.append_and_fail(rng.choice(AFTER_APPEND), partition=partition)
            case 5:
                faults.drop_answer(reset=rng.random() < 0.5)
            case 6:
                faults.close_before()
            case 7:
                faults.delay(rng.uniform(0, 3), where=rng.choice(("network", "broker", "replicas")))
            case 8:
                faults.omit_partition(partition=partition)
            case 9:
                faults.throttle(rng.randrange(1, 500))
            case _:
                await _disturb_broker(s, rng, partition, rng.randrange(1, brokers + 1))
    faults.clear()


async def _disturb_broker(s, rng: random.Random, partition: int, broker: int) -> None:
    await trio.lowlevel.checkpoint()
    match rng.randrange(4):
        case 0:
            s.cluster.move_leader("events", partition, broker)
        case 1:
            s.cluster.pause_broker(broker, after_bytes=rng.choice((0, 0, 100)))
            await trio.sleep(rng.uniform(0, 4))
            s.cluster.resume_broker(broker)
        case 2:
            s.cluster.stop_broker(broker)
            await trio.sleep(rng.uniform(0, 2))
            s.cluster.start_broker(broker)
        case 3:
            s.cluster.close_connections(reset=rng.random() < 0.5)


async def _run(scenario, seed: int, **config: object) -> None:
    rng = random.Random(seed)
    partitions, brokers = rng.randrange(1, 5), rng.randrange(1, 4)
    state = random.getstate()
    async with scenario(
        partitions=partitions,
        brokers=brokers,
        operator_retry_s=1.0,
        queue_max_bytes=20_000,
        batch_max_bytes=rng.choice((500, 5000)),
        request_max_bytes=2_000_000,
        # An answer that is delayed as well tells of the throttle too late.
        tolerated=lambda violation: violation.endswith("sent while throttled"),
        **config,
    ) as s:
        s.producer._random.seed(seed)
        started = trio.current_time()

        async def caller(number: int) -> None:
            await trio.sleep(rng.uniform(0, 10))
            count = rng.choice((1, 1, 1, 3, 10))
            values = [b"%d-%d-" % (number, index) + b"." * rng.randrange(200) for index in range(count)]
            key = rng.choice((None, b"%d" % rng.randrange(5)))
            with s.deliver(*values, key=key, partition=None) as d:
                with trio.move_on_after(rng.choice((0.0, 0.05, 0.5, 3, 60))):
                    await d.wait()
                if rng.random() < 0.2:
                    d.withdraw([rng.randrange(count)])
            assert None not in d.outcomes

        async with trio.open_nursery() as nursery:
            nursery.start_soon(_disturb, s, rng, started + 10, partitions, brokers)
            for number in range(150):
                nursery.start_soon(caller, number)
        s.cluster.faults.clear()
        for broker in s.cluster.brokers:
            s.cluster.start_broker(broker)
            s.cluster.resume_broker(broker)
        with trio.fail_after(400):
            await s.settle()
        with trio.fail_after(10):  # whatever has happened: with the faults gone it works again, everywhere
            await trio.lowlevel.checkpoint()
            for partition in range(partitions):
                assert isinstance(await s.outcome(b"last %d" % partition, partition=partition), Delivered)
        for delivery, records in s.deliveries:
            for record, outcome in zip(records, delivery.outcomes, strict=True):
                if isinstance(outcome, Unknown):
                    assert record.value in s.resolved, f"{record.value!r} was never resolved"
        statistics = s.producer.statistics()
        told = statistics.delivered_total + statistics.not_sent_total + statistics.unknown_total
        assert told == sum(len(records) for _, records in s.deliveries)
        assert not any(partition.in_flight for partition in statistics.partitions)
    random.setstate(state)


@pytest.mark.parametrize("seed", range(20))
async def test_books_hold_under_random_faults(scenario, autojump_clock, seed: int) -> None:
    await _run(scenario, seed)


@pytest.mark.parametrize("seed", range(20, 40))
async def test_books_hold_when_batches_are_abandoned(scenario, autojump_clock, seed: int) -> None:
    await _run(
        scenario, seed, batch_timeout_s=2.0, request_timeout_s=3.0, produce_timeout_s=1.0, delivery_timeout_s=4.0
    )
