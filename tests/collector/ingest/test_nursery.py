"""The re-armed request nursery, by itself."""

import pytest
import trio

from collector.ingest.nursery import FreshNursery, RearmedNursery


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
