"""Kafka's share of the time ends for all who wait, on virtual time."""

import pytest
import trio

from collector.ingest.shares import LATE_S, KafkaShares


class Waiting:
    """A delivery that knows when it was taken back."""

    def __init__(self) -> None:
        self.ended_at: float | None = None

    def withdraw(self) -> None:
        assert self.ended_at is None, "twice"
        self.ended_at = trio.current_time()


@pytest.fixture
async def shares(nursery, autojump_clock) -> KafkaShares:
    shares = KafkaShares(3.0)
    nursery.start_soon(shares.run)
    await trio.testing.wait_all_tasks_blocked()
    return shares


async def test_each_share_ends_when_it_is_over(shares, autojump_clock) -> None:
    ends = {}
    for _ in range(100):
        delivery = Waiting()
        ends[delivery] = trio.current_time() + 3.0
        assert shares.begin(delivery, ends[delivery])
        await trio.sleep(0.07)
    await trio.sleep(4)
    assert {delivery: delivery.ended_at for delivery in ends} == pytest.approx(ends)
    assert repr(shares) == "<KafkaShares 0 waiting>"


async def test_who_has_ended_is_left_alone(shares, autojump_clock) -> None:
    first, second = Waiting(), Waiting()
    shares.begin(first, trio.current_time() + 3)
    await trio.sleep(1)
    shares.begin(second, trio.current_time() + 3)
    shares.end(first)
    shares.end(first)
    await trio.sleep(10)
    assert (first.ended_at, second.ended_at) == (None, 4)


async def test_the_first_one_after_a_long_rest_is_not_late(shares, autojump_clock) -> None:
    await trio.sleep(100.5)
    delivery = Waiting()
    assert shares.begin(delivery, trio.current_time() + 0.2)
    await trio.sleep(1)
    assert delivery.ended_at == pytest.approx(100.7)


async def test_who_is_in_a_hurry_gets_no_place_behind_others(shares, autojump_clock) -> None:
    shares.begin(Waiting(), trio.current_time() + 3)
    assert shares.begin(Waiting(), trio.current_time() + 0.3) is False
    lagged = Waiting()
    assert shares.begin(lagged, trio.current_time() + 3 - LATE_S / 2) is True, "less the lag of its moment"
    await trio.sleep(5)
    assert 3 - LATE_S / 2 <= lagged.ended_at <= 3


async def test_without_its_task_nobody_gets_a_place(autojump_clock) -> None:
    shares = KafkaShares(3.0)
    assert shares.begin(Waiting(), 3) is False
    with trio.move_on_after(1):
        await shares.run()
    assert shares.begin(Waiting(), 4) is False


async def test_taking_back_may_bring_another_one_in(shares, autojump_clock) -> None:
    later = Waiting()

    class First(Waiting):
        def withdraw(self) -> None:
            super().withdraw()
            shares.begin(later, trio.current_time() + 3)

    first = First()
    shares.begin(first, trio.current_time() + 3)
    await trio.sleep(10)
    assert (first.ended_at, later.ended_at) == (3, 6)
