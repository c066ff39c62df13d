"""What waits: the budget's line, the queue's tombstones, the delivery's counter; all of it synchronous but `wait`."""

import random
from collections.abc import Sequence

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from kafka_client import Delivered, NotSent, Record, TopicPartition, Unknown
from kafka_client.buffer.budget import ByteBudget
from kafka_client.buffer.bulk import Bulk
from kafka_client.buffer.delivery import Delivery, Single, Tally
from kafka_client.buffer.partitioner import NO_ROUTE, STICKY_BYTES, StickyPartitioner, route_of, routed_partition
from kafka_client.buffer.queue import RecordQueue
from kafka_client.buffer.run import RECORD_COST_BYTES, Acknowledgement, Part, Run
from kafka_client.buffer.segment import SWEEP_MIN, Parcel, Segment
from kafka_client.wire.murmur2 import partition_for_key
from kafka_client.wire.record_batch import encode_record_tail

TP = TopicPartition("events", 3)


def parcel_of(sizes: Sequence[int], deadline: float = 100.0, tally: Tally | None = None) -> tuple[Delivery, Parcel]:
    """A delivery of records of these sizes, nowhere yet."""
    count = len(sizes)
    tails = [b"%02d" % (index % 100) + b"." * (size - 2) for index, size in enumerate(sizes)]
    tally = tally or Tally()
    if count == 1:
        single = Single(deadline, tally, None, None, None, 0, 1000)
        return single, Parcel("events", single, tails, sum(sizes), [NO_ROUTE])
    bulk = Bulk(deadline, tally, None, None, count, count, [])
    part = Part(bulk, range(count), 1000, count)
    bulk.parts = [part]
    return bulk, Parcel("events", part, tails, sum(sizes), [NO_ROUTE] * count)


class Floor:
    """A budget and one queue, without a producer."""

    def __init__(self, limit: int = 10_000, waiting: int = 100_000, segment: int = 1_000_000) -> None:
        self.standing: str | None = None
        self.budget = ByteBudget(limit, waiting, self.admit, lambda: self.standing)
        self.queue = RecordQueue(self.budget, lambda: self.standing, segment)
        self.tally = Tally()

    def admit(self, parcel: Parcel) -> None:
        parcel.compact()
        self.queue.put_parcel(parcel.run, parcel.tails, parcel.size, parcel.plain)

    def delivery(self, *sizes: int, deadline: float = 100.0) -> Delivery:
        """A delivery of records of these sizes, queued or waiting."""
        if len(sizes) == 1 and self.budget.try_take(sizes[0] + RECORD_COST_BYTES):
            tail = b"00" + b"." * (sizes[0] - 2)
            return self.queue.put(tail, sizes[0], False, 1000, deadline, self.tally, False)
        delivery, parcel = parcel_of(sizes, deadline, self.tally)
        if self.budget.try_take(parcel.cost):
            self.admit(parcel)
        else:
            assert self.budget.try_wait(delivery, [parcel], parcel.cost)
        return delivery

    def check(self) -> None:
        """The accounts say what is there."""
        tails = [tail for segment in self.queue.segments for tail in segment.tails if tail is not None]
        assert self.queue.size_bytes == sum(map(len, tails))
        assert self.queue.count == len(tails)
        assert len(tails) == sum(run.open for segment in self.queue.segments for run in segment.runs)
        assert all(segment.live for segment in self.queue.segments)
        assert self.budget.used_bytes == self.queue.size_bytes + RECORD_COST_BYTES * self.queue.count
        assert self.budget.used_bytes <= self.budget.limit_bytes


class Elsewhere:
    """A keeper like a sealed batch."""

    def release(self, run: Run, reason: str) -> Unknown:
        return Unknown(reason)

    def release_some(self, run: Part, positions: Sequence[int], reason: str) -> Unknown:
        return Unknown(reason)

    def released(self) -> None:
        pass


def sealed(count: int = 1, tally: Tally | None = None) -> tuple[Delivery, Segment]:
    """A delivery in a batch; the segment's ``end`` is the batch's."""
    segment = Segment(Elsewhere(), 1_000_000)
    delivery, parcel = parcel_of([10] * count, tally=tally)
    segment.put(parcel.run, parcel.tails, parcel.size, parcel.plain)
    return delivery, segment


def ack(base_offset: int = 50) -> Acknowledgement:
    return Acknowledgement(TP, base_offset, -1, 2)


# The line before the budget


def test_smaller_delivery_behind_a_larger_one_never_overtakes() -> None:
    floor = Floor(limit=1000)
    first = floor.delivery(700)
    large = floor.delivery(800)
    small = floor.delivery(10)
    assert floor.budget.waiting_deliveries() == 2
    floor.check()
    first.withdraw()
    assert floor.budget.waiting_deliveries() == 1
    assert floor.queue.head().delivery is large
    large.withdraw()
    assert floor.budget.waiting_deliveries() == 0
    assert floor.queue.head().delivery is small
    floor.check()


def test_released_bytes_let_in_all_that_fit() -> None:
    floor = Floor(limit=1000)
    first = floor.delivery(900)
    for _ in range(4):
        floor.delivery(100)
    first.withdraw()
    assert floor.budget.waiting_deliveries() == 0
    assert floor.queue.count == 4
    floor.check()


def test_head_of_the_line_that_leaves_lets_the_next_in() -> None:
    floor = Floor(limit=1000)
    floor.delivery(500)
    large = floor.delivery(800)
    floor.delivery(10)
    large.withdraw()
    assert floor.budget.waiting_deliveries() == 0
    assert floor.queue.count == 2


def test_waiting_delivery_that_shrinks_enough_goes_in_with_its_rest() -> None:
    floor = Floor(limit=1000)
    floor.delivery(500)
    waiting = floor.delivery(300, 300, 50)
    waiting.withdraw([0, 1])
    assert waiting.outcomes == [NotSent("withdrawn"), NotSent("withdrawn"), None]
    assert floor.queue.count == 2
    taken = floor.queue.take()
    assert taken.tails[1].startswith(b"02")
    assert taken.runs[1].indices == [2]


def test_line_is_bounded() -> None:
    budget = ByteBudget(100, 500, lambda parcel: None, lambda: None)
    delivery, parcel = parcel_of([300])
    assert budget.try_wait(delivery, [parcel], 400)
    assert not budget.try_wait(*_with_list(parcel_of([1])), 101)


def _with_list(made: tuple[Delivery, Parcel]) -> tuple[Delivery, list[Parcel]]:
    return made[0], [made[1]]


def test_withdrawn_places_are_swept() -> None:
    floor = Floor(limit=1000, waiting=10_000_000)
    floor.delivery(800)
    waiting = [floor.delivery(100) for _ in range(1000)]
    for delivery in waiting[1:]:
        delivery.withdraw()
    assert len(floor.budget._line) < 200
    assert floor.budget.waiting_deliveries() == 1
    assert floor.budget.waiting_bytes == 100 + RECORD_COST_BYTES


# The queue


def test_tombstones_are_skipped_by_the_seal_and_their_bytes_are_back_at_once() -> None:
    floor = Floor()
    deliveries = [floor.delivery(100) for _ in range(5)]
    deliveries[1].withdraw()
    deliveries[3].withdraw()
    floor.check()
    assert floor.budget.used_bytes == 3 * (100 + RECORD_COST_BYTES)
    taken = floor.queue.take()
    assert [run.delivery for run in taken.runs] == [deliveries[0], deliveries[2], deliveries[4]]
    assert [run.first for run in taken.runs] == [0, 1, 2]
    assert floor.queue.count == floor.queue.size_bytes == 0


def test_part_of_a_run_can_be_taken_back() -> None:
    floor = Floor()
    delivery = floor.delivery(10, 20, 30, 40)
    delivery.withdraw([1, 3])
    floor.check()
    taken = floor.queue.take()
    assert [len(tail) for tail in taken.tails] == [10, 30]
    assert taken.runs[0].indices == [0, 2]
    taken.end(ack())
    outcomes = delivery.outcomes
    assert isinstance(outcomes[0], Delivered)
    assert [outcome.offset for outcome in (outcomes[0], outcomes[2])] == [50, 51]
    assert outcomes[1] == outcomes[3] == NotSent("withdrawn")


def test_run_that_does_not_fit_is_cut() -> None:
    floor = Floor(segment=121 * 4)
    delivery = floor.delivery(*[100] * 10)
    first = floor.queue.take()
    assert len(first.tails) == 4
    floor.budget.give_back(first.size_bytes + RECORD_COST_BYTES * first.live)
    delivery.withdraw([5])
    floor.check()
    second, third = floor.queue.take(), floor.queue.take()
    assert [tail[:2] for tail in second.tails] == [b"04", b"06", b"07"]
    assert [tail[:2] for tail in third.tails] == [b"08", b"09"]
    assert floor.queue.take() is None
    first.end(ack(10))
    assert delivery.unsettled == 5
    second.end(ack(20))
    third.end(ack(30))
    assert [o.offset if isinstance(o, Delivered) else None for o in delivery.outcomes] == [
        *(10, 11, 12, 13, 20, None, 21, 22, 30, 31)
    ]


def test_record_larger_than_a_batch_goes_alone() -> None:
    floor = Floor(segment=500)
    floor.delivery(50)
    floor.delivery(5000, 10)
    assert len(floor.queue.take().tails) == 1
    assert [len(tail) for tail in floor.queue.take().tails] == [5000]
    assert [len(tail) for tail in floor.queue.take().tails] == [10]
    assert floor.queue.take() is None


def test_segment_that_emptied_is_gone_and_its_place_is_taken_by_the_next_record() -> None:
    floor = Floor(segment=121)
    first, second, third = (floor.delivery(100) for _ in range(3))
    third.withdraw()
    assert len(floor.queue.segments) == 2
    fourth = floor.delivery(100)
    floor.check()
    first.withdraw()
    floor.check()
    assert floor.queue.head() is second
    second.withdraw()
    assert floor.queue.take().runs == [fourth]
    assert not floor.queue.segments
    fifth = floor.delivery(100)
    assert floor.queue.head() is fifth


def test_room_of_what_was_taken_back_is_used_again() -> None:
    floor = Floor(segment=121 * 3)
    deliveries = [floor.delivery(100) for _ in range(3)]
    deliveries[1].withdraw()
    last = floor.delivery(100)
    taken = floor.queue.take()
    assert taken.runs == [deliveries[0], deliveries[2], last]
    taken.end(ack(10))
    assert [delivery.outcomes[0].offset for delivery in taken_order(deliveries, last)] == [10, 11, 12]


def taken_order(deliveries: list[Delivery], last: Delivery) -> list[Delivery]:
    return [deliveries[0], deliveries[2], last]


@pytest.mark.parametrize("order", [(True, True), (True, False), (False, True), (True, False, True)])
def test_records_by_reference_and_encoded_ones_share_a_segment(order: tuple[bool, ...]) -> None:
    floor = Floor()
    value = b"v" * 100
    tail = encode_record_tail(None, value)
    for plain in order:
        assert floor.budget.try_take(len(tail) + RECORD_COST_BYTES)
        floor.queue.put(value if plain else tail, len(tail), plain, 1000, 100.0, floor.tally, False)
        delivery, parcel = parcel_of([10, 10, 10])
        parcel.tails, parcel.size, parcel.plain = [value if plain else tail] * 3, 3 * len(tail), plain
        assert floor.budget.try_take(parcel.cost)
        floor.admit(parcel)
        delivery.withdraw([1])
    assert floor.budget.used_bytes == (len(tail) + RECORD_COST_BYTES) * 3 * len(order)
    assert floor.queue.size_bytes == len(tail) * 3 * len(order)
    taken = floor.queue.take()
    assert taken.plain == all(order)
    assert taken.tails == [value if all(order) else tail] * 3 * len(order)
    assert taken.size_bytes == len(tail) * 3 * len(order)


def test_mass_withdrawal_sweeps_the_tombstones() -> None:
    floor = Floor(limit=10_000_000)
    deliveries = [floor.delivery(100) for _ in range(5000)]
    random.Random(1).shuffle(deliveries)
    for delivery in deliveries[:4900]:
        delivery.withdraw()
    assert sum(len(segment.runs) for segment in floor.queue.segments) <= 200 + SWEEP_MIN
    floor.check()


def test_delivery_timeout_ends_the_oldest_only() -> None:
    floor = Floor()
    old, new = floor.delivery(10, deadline=5.0), floor.delivery(10, deadline=6.0)
    floor.queue.end_due(5.0, "timeout")
    assert old.outcomes == [NotSent("timeout")]
    assert new.outcomes == [None]
    floor.check()


def test_standing_operator_error_is_the_reason() -> None:
    floor = Floor()
    floor.standing = "TOPIC_AUTHORIZATION_FAILED: grant Write"
    one, two, three = floor.delivery(10), floor.delivery(10), floor.delivery(10, 20)
    one.withdraw()
    floor.queue.end_due(100.0, "timeout")
    assert one.outcomes == two.outcomes == [NotSent("TOPIC_AUTHORIZATION_FAILED: grant Write")]
    assert three.unsettled == 0
    floor = Floor()
    floor.standing = "X"
    closed = floor.delivery(10)
    floor.queue.end_all("closed")
    assert closed.outcomes == [NotSent("closed")]


# The delivery


async def test_wait_returns_when_the_last_record_is_settled_and_is_a_checkpoint(autojump_clock) -> None:
    delivery, segment = sealed(2)

    async def settle() -> None:
        await trio.sleep(1)
        segment.end(ack())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(settle)
        await delivery.wait()
    assert trio.current_time() == pytest.approx(trio.current_time())
    assert [outcome.offset for outcome in delivery.outcomes] == [50, 51]
    with trio.testing.assert_checkpoints():
        await delivery.wait()


async def test_second_concurrent_waiter_is_refused(autojump_clock) -> None:
    tally = Tally()
    delivery, segment = sealed(tally=tally)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(delivery.wait)
        await wait_all_tasks_blocked()
        assert tally.waiters == 1
        with pytest.raises(trio.BusyResourceError):
            await delivery.wait()
        segment.end(ack())
    assert tally.waiters == 0


async def test_resting_task_is_rescheduled_where_wait_would_return(autojump_clock) -> None:
    tally = Tally()
    delivery, segment = sealed(tally=tally)
    woken: list[str] = []

    async def rest(name: str, abort) -> None:
        resting[name] = trio.lowlevel.current_task()
        try:
            await trio.lowlevel.wait_task_rescheduled(abort)
            woken.append(name)
        except trio.Cancelled:
            woken.append(f"{name} cancelled")
            raise

    resting: dict[str, trio.lowlevel.Task] = {}
    async with trio.open_nursery() as nursery:
        nursery.start_soon(rest, "first", delivery.stop_waiting)
        await wait_all_tasks_blocked()
        assert delivery.reschedule(resting["first"])
        with pytest.raises(trio.BusyResourceError):
            delivery.reschedule(resting["first"])
        with pytest.raises(trio.BusyResourceError):
            await delivery.wait()
        assert tally.waiters == 1
        nursery.cancel_scope.cancel(reason="the task is not needed any more")
    assert (woken, tally.waiters) == (["first cancelled"], 0)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(rest, "second", delivery.stop_waiting)
        await wait_all_tasks_blocked()
        assert delivery.reschedule(resting["second"])
        segment.end(ack())
        assert not delivery.reschedule(resting["second"])
    assert (woken, tally.waiters) == (["first cancelled", "second"], 0)


async def test_wait_can_be_called_again_after_a_cancellation(autojump_clock) -> None:
    delivery, segment = sealed()
    with trio.move_on_after(1):
        await delivery.wait()
    assert delivery.outcomes == [None]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(delivery.wait)
        await wait_all_tasks_blocked()
        segment.end(ack())


async def test_waiter_that_comes_before_a_cancelled_one_has_left_is_woken(autojump_clock) -> None:
    tally = Tally()
    delivery, segment = sealed(tally=tally)
    scope = trio.CancelScope()

    async def first() -> None:
        with scope:
            await delivery.wait()

    async def settle() -> None:
        await trio.sleep(1)
        assert tally.waiters == 1
        segment.end(ack())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(first)
        nursery.start_soon(settle)
        await wait_all_tasks_blocked()
        scope.cancel(reason="another takes its place in this very tick")
        await delivery.wait()
    assert (delivery.unsettled, tally.waiters) == (0, 0)


@pytest.mark.parametrize("order", ["acknowledged first", "cancelled first"])
async def test_acknowledgement_in_the_tick_of_the_deadline_counts(autojump_clock, order: str) -> None:
    delivery, segment = sealed()
    scope = trio.CancelScope()

    async def wait() -> None:
        with scope:
            await delivery.wait()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await wait_all_tasks_blocked()
        if order == "acknowledged first":
            segment.end(ack())
            scope.cancel(reason="a deadline")
        else:
            scope.cancel(reason="a deadline")
            segment.end(ack())
    delivery.withdraw()
    assert isinstance(delivery.outcomes[0], Delivered)


def test_withdrawing_twice_changes_nothing() -> None:
    floor = Floor()
    delivery = floor.delivery(10, 10)
    with delivery as entered:
        assert entered is delivery
        delivery.withdraw([0])
        delivery.withdraw([0])
        assert delivery.unsettled == 1
    delivery.withdraw()
    assert delivery.outcomes == [NotSent("withdrawn")] * 2
    assert floor.budget.not_sent_total == 2
    floor.check()


def test_late_resolutions_are_reported_once_each_and_outcomes_stay() -> None:
    delivery, segment = sealed(3)
    delivery.withdraw([1])
    reports: list[tuple[int, object]] = []
    delivery.on_resolved(lambda index, outcome: reports.append((index, outcome)))
    delivery.withdraw([2])
    assert delivery.outcomes == [None, Unknown("withdrawn"), Unknown("withdrawn")]
    segment.end(ack())
    assert delivery.outcomes[1:] == [Unknown("withdrawn")] * 2
    assert isinstance(delivery.outcomes[0], Delivered)
    assert [(index, outcome.offset) for index, outcome in reports] == [(1, 51), (2, 52)]


def test_on_resolved_reports_inside_the_call_what_is_resolved_already() -> None:
    delivery, segment = sealed(2)
    delivery.withdraw()
    segment.end(NotSent("rejected"))
    reports = []
    delivery.on_resolved(lambda index, outcome: reports.append((index, outcome)))
    assert reports == [(0, NotSent("rejected")), (1, NotSent("rejected"))]
    with pytest.raises(RuntimeError):
        delivery.on_resolved(print)


def test_final_unknown_comes_through_on_resolved_too() -> None:
    delivery, segment = sealed()
    reports = []
    delivery.on_resolved(lambda index, outcome: reports.append((index, outcome)))
    segment.end(Unknown("abandoned"))
    assert delivery.outcomes == [Unknown("abandoned")]
    assert reports == [(0, Unknown("abandoned"))]


def test_nothing_is_reported_for_what_was_told_at_once() -> None:
    delivery, segment = sealed()
    reports = []
    delivery.on_resolved(lambda index, outcome: reports.append((index, outcome)))
    segment.end(ack())
    delivery.withdraw()
    assert reports == []


def test_record_named_by_the_broker_ends_alone() -> None:
    delivery, segment = sealed(3)
    segment.runs[0].fail_one(1, NotSent("INVALID_RECORD"))
    segment.runs[0].keep([0, 2])
    segment.end(ack())
    assert delivery.outcomes[1] == NotSent("INVALID_RECORD")
    assert [delivery.outcomes[index].offset for index in (0, 2)] == [50, 51]


def test_record_named_by_the_broker_after_its_caller_left_is_resolved() -> None:
    delivery, segment = sealed(2)
    reports = []
    delivery.on_resolved(lambda index, outcome: reports.append((index, outcome)))
    delivery.withdraw()
    segment.runs[0].fail_one(0, NotSent("INVALID_RECORD"))
    segment.runs[0].keep([1])
    segment.end(ack())
    assert delivery.outcomes == [Unknown("withdrawn")] * 2
    assert reports[0] == (0, NotSent("INVALID_RECORD"))
    assert reports[1][1].offset == 50


def test_log_append_time_replaces_the_records_own() -> None:
    delivery, segment = sealed()
    segment.end(Acknowledgement(TP, 7, 99, 1))
    assert delivery.outcomes == [Delivered(TP, 7, 99, 1)]
    delivery, segment = sealed()
    segment.end(Acknowledgement(TP, -1, -1, 1))
    assert delivery.outcomes == [Delivered(TP, -1, 1000, 1)]


# Where a record goes


def test_route_survives_until_the_number_of_partitions_is_known() -> None:
    assert routed_partition(route_of(Record("t", b"v", partition=7)), 3) == 7
    assert route_of(Record("t", b"v")) == NO_ROUTE
    for number in range(200):
        key = b"user-%d" % number
        for partitions in (1, 6, 12, 1000):
            route = route_of(Record("t", b"v", key=key))
            assert routed_partition(route, partitions) == partition_for_key(key, partitions)


def test_explicit_partition_wins_over_the_key() -> None:
    assert route_of(Record("t", b"v", key=b"k", partition=5)) == 5


def test_sticky_partition_moves_to_the_least_loaded_with_a_leader() -> None:
    sticky = StickyPartitioner(random.Random(1))
    assert sticky.room == 0
    assert sticky.choose([500, None, 300, 400]) == 2
    assert (sticky.partition, sticky.room) == (2, STICKY_BYTES)
    assert sticky.choose([0, 100, 100]) == 0
    sticky.leave(2)
    assert sticky.room == STICKY_BYTES
    sticky.leave(0)
    assert sticky.room == 0
    assert sticky.choose([None, None]) in (0, 1)
