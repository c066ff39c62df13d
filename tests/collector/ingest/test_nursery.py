"""The re-armed request nursery, by itself."""

import pytest
import trio
import trio.testing

from collector.ingest.nursery import DeadlineGrid, FreshNursery, RearmedNursery


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
