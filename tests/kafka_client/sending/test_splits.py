"""Batches that a broker did not take as they were: halves, batches without some records, ranges that are given back.

On the partition alone (``lab``) for the exact sequences, through the whole producer (``scenario``) for what is seen.
"""

import random

import pytest
import trio

from kafka_client import Delivered, NotSent, Unknown
from kafka_client.wire.produce import LeaderHint


def types(delivery) -> list[type]:
    return [type(outcome) for outcome in delivery.outcomes]


def too_large_for(lab, limit: int, requests_max: int = 1000) -> int:
    """A broker that takes at most so many records a batch; returns how many requests it took."""
    for number in range(requests_max):
        request = lab.outbox.requests[0] if lab.outbox.requests else None
        if request is None:
            lab.now += 1000
            lab.outbox.urge()
            request = lab.request()
        if request is None:
            return number
        lab.answer(request, 10 if request.batches[0][1].count > limit else 0)
    raise AssertionError("it never ends")


@pytest.mark.parametrize("code", [10, 18])
@pytest.mark.parametrize("count", [1, 2, 3, 7, 64, 100])
def test_halving_ends_with_single_records_that_are_refused(lab, code: int, count: int) -> None:
    lab = lab()
    delivery, request = lab.send(*[b"%d" % number for number in range(count)])
    answers = 0
    while True:
        lab.answer(request, code)
        answers += 1
        lab.now += 1000
        lab.outbox.urge()
        request = lab.request()
        if request is None:
            break
        assert answers < 2 * count
    assert types(delivery) == [NotSent] * count
    assert answers == 2 * count - 1, "a binary tree: every record once alone"
    lab.check_nothing_left()
    lab.answer(lab.send(b"next")[1])
    assert lab.sent[-1] == (0, 0, 1), "the whole range is free again"


@pytest.mark.parametrize("limit", [1, 2, 5, 99])
def test_halves_keep_the_range_of_their_batch(lab, limit: int) -> None:
    lab = lab()
    delivery = lab.queue(*[b"%d" % number for number in range(100)])
    taken: list[tuple[int, int]] = []
    answer = lab.answer

    def note(request, code: int = 0, **rest: object) -> None:
        batch = request.batches[0][1]
        if code == 0:
            taken.append((batch.base_sequence, batch.count))
        answer(request, code, **rest)

    lab.answer = note
    assert too_large_for(lab, limit) <= 200
    assert types(delivery) == [Delivered] * 100
    expected = 0
    for base, count in taken:
        assert base == expected
        expected += count
    assert expected == 100
    lab.check_nothing_left()


def test_only_the_second_half_is_too_large(lab) -> None:
    lab = lab()
    lab.warm()
    delivery, request = lab.send(b"a", b"b", b"c", b"d")
    lab.answer(request, 10)
    lab.answer(lab.retry())
    lab.answer(lab.retry(), 10)
    lab.answer(lab.retry())
    lab.answer(lab.retry())
    assert types(delivery) == [Delivered] * 4
    assert lab.sent[1:] == [(0, 1, 4), (0, 1, 2), (0, 3, 2), (0, 3, 1), (0, 4, 1)]


def test_half_that_is_lost_keeps_its_range_and_the_other_goes_behind_it(lab) -> None:
    lab = lab()
    lab.warm()
    delivery, request = lab.send(b"a", b"b")
    lab.answer(request, 10)
    lab.retry()
    lab.outbox.lost(lab.now)
    lab.answer(lab.retry())
    lab.answer(lab.retry())
    assert types(delivery) == [Delivered] * 2
    assert lab.sent[1:] == [(0, 1, 2), (0, 1, 1), (0, 1, 1), (0, 2, 1)]
    assert lab.office.identity.bumps_total == 0


def test_tainted_half_is_unknown_and_the_absent_one_goes_on_in_a_new_epoch(lab) -> None:
    lab = lab()
    lab.warm()
    delivery, request = lab.send(b"a", b"b")
    lab.answer(request, 10)
    lab.answer(lab.retry(), 7)
    lab.answer(lab.retry(), 10)
    lab.answer(lab.retry(), 45)
    lab.answer(lab.retry())
    assert types(delivery) == [Unknown, Delivered]
    assert lab.sent[-2:] == [(0, 2, 1), (1, 0, 1)], (
        "the broker's answer to the other half shows that this one is absent"
    )
    lab.check_nothing_left()


def test_batch_that_is_tainted_is_not_halved(lab) -> None:
    """Its range may be in the log: a half of it would be another range, and no duplicate."""
    lab = lab()
    lab.warm()
    delivery, _ = lab.send(b"a", b"b")
    lab.outbox.lost(lab.now)
    lab.answer(lab.retry(), 10)
    assert types(delivery) == [Unknown] * 2
    lab.check_nothing_left()


@pytest.mark.parametrize("seed", range(20))
def test_batches_behind_a_split_keep_their_order_and_get_their_sequences(lab, seed: int) -> None:
    """Whatever is in flight behind, whatever is taken back: each record once, in order, no gap and no new epoch."""
    rng = random.Random(seed)
    lab = lab(linger_s=0.0)
    lab.warm()
    deliveries = [lab.send(*[b"%d" % n for n in range(rng.randrange(1, 9))])[0] for _ in range(rng.randrange(2, 6))]
    for delivery in deliveries:
        if rng.random() < 0.3:
            delivery.withdraw([rng.randrange(len(delivery))])
    bad = rng.randrange(len(deliveries))
    requests = list(lab.outbox.requests)
    for index, request in enumerate(requests):
        lab.answer(request, 0 if index < bad else 10 if index == bad else 45)
    first_new = len(lab.sent)
    limit = rng.choice([0, 1, 4])
    too_large_for(lab, limit or 1)
    assert lab.office.identity.bumps_total == 0
    ranges = [(base, count) for _, base, count in lab.sent[first_new:]]
    assert ranges == sorted(ranges, key=lambda each: (each[0], -each[1])), "never back, but into its own halves"
    assert all(delivery.unsettled == 0 for delivery in deliveries)
    lab.answer(lab.send(b"next")[1])
    kept = sum(outcome is not NotSent for delivery in deliveries for outcome in types(delivery))
    assert lab.sent[-1] == (0, 1 + kept, 1)
    lab.check_nothing_left()


def test_named_records_leave_and_those_behind_move_down(lab) -> None:
    lab = lab()
    lab.warm()
    first, request = lab.send(b"a", b"b", b"c")
    later, behind = lab.send(b"d", b"e")
    lab.answer(request, 87, named=(0, 2))
    lab.answer(behind, 45)
    lab.answer(lab.retry())
    lab.answer(lab.retry())
    assert types(first) == [NotSent, Delivered, NotSent]
    assert types(later) == [Delivered] * 2
    assert lab.sent[1:] == [(0, 1, 3), (0, 4, 2), (0, 1, 1), (0, 2, 2)]
    assert lab.office.identity.bumps_total == 0
    lab.check_nothing_left()


@pytest.mark.parametrize("code", [32, 87])
def test_all_records_named_ends_the_batch(lab, code: int) -> None:
    lab = lab()
    lab.warm()
    delivery, request = lab.send(b"a", b"b")
    if code == 32:
        lab.answer(request, code, named=(0, 1))
        request = lab.retry()
    lab.answer(request, code, named=(1, 0, 7, -1))
    assert types(delivery) == [NotSent] * 2
    lab.check_nothing_left()


def test_named_records_of_a_tainted_batch_stay_in_it_and_it_ends_unknown(lab) -> None:
    lab = lab()
    lab.warm()
    delivery, request = lab.send(b"a", b"b")
    lab.answer(request, 7)
    lab.answer(lab.retry(), 87, named=(0,))
    assert types(delivery) == [Unknown] * 2
    lab.check_nothing_left()


def test_half_that_still_has_a_bad_timestamp_is_not_stamped_again(lab) -> None:
    lab = lab()
    delivery, request = lab.send(b"a", b"b")
    lab.answer(request, 32)
    lab.answer(lab.retry(), 32)
    lab.answer(lab.retry(), 32)
    lab.answer(lab.retry())
    assert types(delivery) == [NotSent, Delivered]
    lab.check_nothing_left()


def test_corrupt_message_is_encoded_without_compression_in_the_same_range(lab) -> None:
    lab = lab(compression="zstd", compression_min_bytes=0)
    lab.warm()
    _, request = lab.send(b"a" * 2000, b"b" * 2000)
    batch = request.batches[0][1]
    compressed = len(batch.wire)
    lab.answer(request, 2)
    again = lab.retry()
    assert again.batches[0][1] is batch
    assert len(batch.wire) > 4000 > compressed
    assert lab.sent[1:] == [(0, 1, 2)] * 2
    lab.answer(again)


# Ranges that are given back


def test_rejected_batch_with_nothing_behind_it_gives_its_range_back_at_once(lab) -> None:
    lab = lab()
    lab.warm()
    for _ in range(3):
        delivery, request = lab.send(b"x")
        lab.answer(request, 10)
        assert types(delivery) == [NotSent]
    lab.answer(lab.send(b"a")[1])
    assert lab.sent == [(0, 0, 1)] + [(0, 1, 1)] * 4
    assert lab.office.identity.bumps_total == 0


def test_several_rejected_batches_give_their_ranges_back_together(lab) -> None:
    lab = lab()
    lab.warm()
    sent = [lab.send(b"%d" % number) for number in range(5)]
    for (_, request), code in zip(sent, (10, 45, 10, 45, 45), strict=True):
        lab.answer(request, code)
    for _ in range(3):
        lab.answer(lab.retry())
    assert [types(delivery)[0] for delivery, _ in sent] == [NotSent, Delivered, NotSent, Delivered, Delivered]
    assert lab.sent[-3:] == [(0, 1, 1), (0, 2, 1), (0, 3, 1)]
    assert lab.office.identity.bumps_total == 0
    lab.check_nothing_left()


def test_broker_that_went_on_behind_a_rejected_batch_leaves_nothing_to_fill(lab) -> None:
    """It had no state and took the later batch for a first one."""
    lab = lab()
    lab.warm()
    rejected, first = lab.send(b"x")
    _, second = lab.send(b"a")
    lab.answer(first, 10)
    lab.answer(second)
    lab.answer(lab.send(b"b")[1])
    assert types(rejected) == [NotSent]
    assert lab.sent[-1] == (0, 3, 1)
    assert lab.office.identity.bumps_total == 0


def test_rejected_batch_before_an_abandoned_one_takes_a_new_epoch(lab) -> None:
    lab = lab(batch_timeout_s=10.0)
    lab.warm()
    lab.now = 1.0
    _, first = lab.send(b"x")
    abandoned, _ = lab.send(b"a")
    lab.partition.window.batches[0].deadline = 100.0
    lab.now = 11.5
    lab.partition.end_due(lab.now)
    assert types(abandoned) == [Unknown]
    lab.answer(first, 10)
    lab.outbox.lost(lab.now)
    lab.answer(lab.send(b"b")[1])
    assert lab.sent[-1] == (1, 0, 1)
    lab.check_nothing_left()


@pytest.mark.parametrize("code", [7, 20, 56])
def test_error_after_the_append_and_then_success(lab, code: int) -> None:
    lab = lab()
    lab.warm()
    delivery, request = lab.send(b"a")
    lab.answer(request, code, 1)
    lab.answer(lab.retry(), 0, 1)
    assert (delivery.outcomes[0].offset, delivery.outcomes[0].attempts) == (1, 2)
    assert lab.office.identity.bumps_total == 0


@pytest.mark.parametrize("code", [47, 49, 59])
def test_identity_that_the_broker_refuses_with_others_in_flight(lab, code: int) -> None:
    lab = lab()
    lab.warm()
    a, first = lab.send(b"a")
    tainted, second = lab.send(b"b")
    lab.answer(first, code)
    assert lab.nothing_to_send(), "the old identity drains first"
    lab.answer(second, 7)
    if code != 59:
        assert lab.nothing_to_send()
        lab.office.identity.assign(type(lab.office.identity.current)(8, 0))
    lab.answer(lab.retry())
    assert types(a) == [Delivered]
    assert types(tainted) == [Unknown]
    assert lab.sent[-1] == ((1, 0, 1) if code == 59 else (0, 0, 1))
    lab.check_nothing_left()


def test_hint_of_an_older_leader_is_answered_by_asking_for_metadata(lab) -> None:
    lab = lab()
    lab.office.leader_named = lambda partition, hint: False
    _, request = lab.send(b"a")
    lab.answer(request, 6, leader=LeaderHint(2, 4))
    assert lab.office.metadata_wanted == 1
    assert lab.request() is None, "not without the backoff"


# Through the whole producer


@pytest.mark.parametrize("compression", ["none", "zstd"])
async def test_close_waits_for_the_halves(scenario, autojump_clock, compression: str) -> None:
    values = [b"%03d" % number + random.Random(number).randbytes(300) for number in range(100)]
    async with scenario(settle=False, cluster={"message_max_bytes": 1500}, compression=compression) as s:
        s.cluster.faults.delay(0.1, times=None)
        delivery = s.deliver(*values)
        await s.producer.close(grace_s=60)
        assert types(delivery) == [Delivered] * 100
        assert s.cluster.values("events") == values
        assert s.producer.statistics().epoch_bumps_total == 0


async def test_other_partitions_are_not_held_up_by_a_split(scenario, autojump_clock) -> None:
    async with scenario(partitions=2, cluster={"message_max_bytes": 1500}, compression="none") as s:
        await s.outcome(b"warm-up", partition=1)
        large = s.deliver(*[b"%03d" % number + b"." * 300 for number in range(64)], partition=0)
        started = trio.current_time()
        assert isinstance(await s.outcome(b"small", partition=1), Delivered)
        assert trio.current_time() == started
        with large:
            await large.wait()
        assert types(large) == [Delivered] * 64


async def test_throttling_quota_waits_as_long_as_the_broker_says(scenario, autojump_clock) -> None:
    async with scenario(retry_backoff_max_s=0.06) as s:
        await s.outcome(b"warm-up")
        s.cluster.faults.fail(89)
        s.cluster.faults.throttle(5000)
        started = trio.current_time()
        assert isinstance(await s.outcome(b"v"), Delivered)
        assert trio.current_time() - started == pytest.approx(5, abs=0.1)


async def test_throttled_connection_is_read_from_and_others_are_written_to(scenario, autojump_clock) -> None:
    async with scenario(partitions=2, brokers=2, linger_s=0.0) as s:
        for partition in range(2):
            await s.outcome(b"warm-up %d" % partition, partition=partition)
        s.cluster.faults.throttle(4000, partition=0)
        s.cluster.faults.delay(0.5, partition=0, times=None)
        started = trio.current_time()
        flying = []
        for value in (b"first", b"second"):
            flying.append(s.deliver(value, partition=0))
            await s.cluster.wait_until(lambda value=value: s.cluster.attempts_of(value))
        for delivery in flying:
            with delivery:
                await delivery.wait()
            assert types(delivery) == [Delivered]
        assert trio.current_time() - started == pytest.approx(0.5)
        assert isinstance(await s.outcome(b"other", partition=1), Delivered)
        assert trio.current_time() - started == pytest.approx(0.5)
        assert isinstance(await s.outcome(b"third", partition=0), Delivered)
        assert trio.current_time() - started == pytest.approx(5.0)
