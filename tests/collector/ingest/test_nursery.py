"""The re-armed request nursery, by itself."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from collector.ingest.nursery import GRID_S, DeadlineGrid, FreshNursery, RearmedNursery


async def answered() -> None:
    await trio.lowlevel.checkpoint()


async def test_deadline_in_the_tick_in_which_the_work_ends_counts_as_out_of_time(autojump_clock) -> None:
    async with trio.open_nursery() as nursery:
        carrier = RearmedNursery(nursery)

        async def ends_as_the_deadline_fires() -> None:
            await trio.lowlevel.checkpoint()
            nursery.cancel_scope.cancel(reason="the deadline, in this very tick")

        await carrier.run(trio.current_time() + 1, ends_as_the_deadline_fires, answered)
        pytest.fail("the answer would be cancelled here")
    assert carrier.unfinished is answered
    assert repr(carrier) == "<RearmedNursery spent>"


async def test_work_that_fails_leaves_nothing_to_answer(autojump_clock) -> None:
    async with trio.open_nursery() as nursery:
        carrier = RearmedNursery(nursery)

        async def fails() -> None:
            await trio.lowlevel.checkpoint()
            assert repr(carrier) == "<RearmedNursery armed>"
            raise RuntimeError("a bug")

        with pytest.raises(RuntimeError):
            await carrier.run(trio.current_time() + 1, fails, answered)
        assert carrier.unfinished is None
        assert repr(carrier) == "<RearmedNursery idle>"
        await trio.sleep(5)  # disarmed: nothing is cancelled


async def test_task_that_is_left_behind_is_a_bug_that_is_noticed(autojump_clock) -> None:
    async with trio.open_nursery() as nursery:
        carrier = RearmedNursery(nursery)

        async def leaves_a_task() -> None:
            await trio.lowlevel.checkpoint()
            nursery.start_soon(trio.sleep_forever)

        with pytest.raises(AssertionError, match="left tasks behind"):
            await carrier.run(trio.current_time() + 1, leaves_a_task, answered)
        nursery.cancel_scope.cancel(reason="the test is over")


async def test_fresh_nursery_returns_at_the_deadline(autojump_clock) -> None:
    started = trio.current_time()
    await FreshNursery().run(started + 2, trio.sleep_forever, answered)
    assert trio.current_time() - started == 2


async def test_nursery_armed_from_outside_cancels_the_task_that_rests_in_it(autojump_clock) -> None:
    grid = DeadlineGrid()
    carriers: list[RearmedNursery] = []

    async def rest() -> None:
        async with trio.open_nursery() as nursery:
            carriers.append(RearmedNursery(nursery, grid))
            await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(rest)
        await trio.testing.wait_all_tasks_blocked()
        (carrier,) = carriers
        now = trio.current_time()
        assert not carrier.arm(now + 0.5), "so near a deadline is not for the grid"
        assert carrier.arm(now + 2)
        carrier.disarm()
        grid.look(now + 3)
        assert not carrier.spent
        assert carrier.arm(now + 5)
        grid.look(now + 4.9)
        assert not carrier.spent
        grid.look(now + 5)
    assert carrier.spent
    carrier.disarm()
    assert not carrier.arm(now + 10), "it can not be used again"
    assert not grid.armed
    async with trio.open_nursery() as nursery:
        assert not RearmedNursery(nursery).arm(now + 10), "nobody would look at it"


async def looking(grid: DeadlineGrid) -> None:
    while True:
        grid.look(trio.current_time())
        await trio.sleep(GRID_S)


@asynccontextmanager
async def ticking() -> AsyncIterator[DeadlineGrid]:
    async with trio.open_nursery() as nursery:
        grid = DeadlineGrid()
        nursery.start_soon(looking, grid)
        yield grid
        nursery.cancel_scope.cancel(reason="the test is over")


@pytest.mark.parametrize("after_s", [1.0, 1.05, 3.8, 3.87])
async def test_far_deadline_fires_on_the_grid_never_early(autojump_clock, after_s: float) -> None:
    async with ticking() as grid:
        await trio.sleep(0.03)
        async with trio.open_nursery() as nursery:
            carrier = RearmedNursery(nursery, grid)
            started = trio.current_time()
            await carrier.run(started + after_s, trio.sleep_forever, answered)
            pytest.fail("it is out of time")
        assert after_s <= trio.current_time() - started <= after_s + GRID_S + 1e-6
        assert carrier.unfinished is answered
        assert (repr(carrier), repr(grid)) == ("<RearmedNursery spent>", "<DeadlineGrid 0 armed>")


async def test_near_deadline_fires_exactly(autojump_clock) -> None:
    async with ticking() as grid:
        await trio.sleep(0.03)
        async with trio.open_nursery() as nursery:
            carrier = RearmedNursery(nursery, grid)
            started = trio.current_time()
            await carrier.run(started + 0.55, trio.sleep_forever, answered)
        assert trio.current_time() - started == pytest.approx(0.55, abs=1e-9)
        assert carrier.unfinished is answered


async def test_nothing_is_left_armed_between_two_works(autojump_clock) -> None:
    async with ticking() as grid:
        async with trio.open_nursery() as nursery:
            carrier = RearmedNursery(nursery, grid)
            for deadline_s in (3.8, 0.5, 3.8):
                await carrier.run(trio.current_time() + deadline_s, answered, answered)
                assert (carrier.unfinished, grid.armed) == (None, set())
                await trio.sleep(10)  # neither the grid nor a deadline of Trio's cancels it
                assert repr(carrier) == "<RearmedNursery idle>"
        assert not nursery.cancel_scope.cancel_called


async def test_grid_that_looks_in_the_tick_in_which_the_work_ends_counts_as_out_of_time(autojump_clock) -> None:
    grid = DeadlineGrid()
    async with trio.open_nursery() as nursery:
        carrier = RearmedNursery(nursery, grid)

        async def ends_as_the_grid_looks() -> None:
            await trio.lowlevel.checkpoint()
            grid.look(trio.current_time() + 5)

        await carrier.run(trio.current_time() + 3.8, ends_as_the_grid_looks, answered)
        pytest.fail("the answer would be cancelled here")
    assert carrier.unfinished is answered


async def test_cancellation_from_outside_leaves_nothing_to_answer(autojump_clock) -> None:
    grid = DeadlineGrid()
    with trio.move_on_after(1) as outside:
        async with trio.open_nursery() as nursery:
            carrier = RearmedNursery(nursery, grid)
            await carrier.run(trio.current_time() + 3.8, trio.sleep_forever, answered)
    assert outside.cancelled_caught
    assert (carrier.unfinished, carrier.spent, grid.armed) == (None, False, set())


@pytest.mark.parametrize("after_s", [0.5, 3.8])
async def test_work_that_fails_in_the_tick_of_its_deadline_leaves_nothing_to_answer(
    autojump_clock, after_s: float
) -> None:
    async with trio.open_nursery() as nursery:
        carrier = RearmedNursery(nursery, DeadlineGrid())

        async def fails_as_the_deadline_fires() -> None:
            await trio.lowlevel.checkpoint()
            carrier.expire()
            raise RuntimeError("a bug")

        with pytest.raises(RuntimeError):
            await carrier.run(trio.current_time() + after_s, fails_as_the_deadline_fires, answered)
        assert carrier.unfinished is None
    assert carrier.spent
