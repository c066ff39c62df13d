"""Large bodies take turns."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio
from trio.testing import wait_all_tasks_blocked

from collector.web.gate import BodyGate


class Passes(trio.abc.Instrument):
    """Counts the loop's passes."""

    def __init__(self) -> None:
        self.number = 0

    def before_io_wait(self, timeout: float) -> None:
        self.number += 1


@asynccontextmanager
async def running(gate: BodyGate) -> AsyncIterator[trio.Nursery]:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(gate.run)
        await wait_all_tasks_blocked()
        yield nursery
        nursery.cancel_scope.cancel(reason="the test has ended")


async def entered(sizes: list[int], limit: int) -> list[tuple[int, int]]:
    """Let bodies of these sizes come in one pass; which entered in which pass, in that order."""
    passes = Passes()
    gate = BodyGate(limit)
    found: list[tuple[int, int]] = []

    async def come(number: int) -> None:
        await gate.enter(sizes[number])
        found.append((number, passes.number))

    async with running(gate) as nursery:
        trio.lowlevel.add_instrument(passes)
        for number in range(len(sizes)):
            nursery.start_soon(come, number)
        await wait_all_tasks_blocked()
        trio.lowlevel.remove_instrument(passes)
        assert repr(gate) == "<BodyGate 0 waiting>"
    return found


async def test_no_more_than_the_limit_enters_in_one_pass() -> None:
    found = await entered([60, 60, 60, 30, 30, 30, 500, 10, 90], 100)
    assert sorted(number for number, _ in found) == list(range(9))
    sizes = {}
    for number, when in found:
        sizes.setdefault(when, []).append([60, 60, 60, 30, 30, 30, 500, 10, 90][number])
    assert all(sum(together) <= 100 or len(together) == 1 for together in sizes.values())
    assert 5 <= len(sizes) < 9


async def test_nobody_overtakes_by_more_than_a_pass() -> None:
    gate = BodyGate(100)
    found: list[int] = []

    async def come(number: int, size: int, *, task_status: trio.TaskStatus[None]) -> None:
        task_status.started()  # the next one comes after it: it stands in line before anybody else runs
        await gate.enter(size)
        found.append(number)

    async with running(gate) as nursery:
        await gate.enter(100)
        for number, size in enumerate([100, 100, 1, 100, 1]):
            await nursery.start(come, number, size)
        await wait_all_tasks_blocked()
    assert len(found) == 5
    # Trio shuffles who runs within one pass, and a pass may end between two of them.
    assert all(abs(place - number) <= 1 for place, number in enumerate(found)), found


async def test_who_is_cancelled_leaves_the_line_and_the_others_go_on() -> None:
    gate = BodyGate(100)
    entered_by: list[int] = []
    scopes = [trio.CancelScope() for _ in range(3)]

    async def come(number: int) -> None:
        with scopes[number]:
            await gate.enter(100)
            entered_by.append(number)

    async with running(gate) as nursery:
        await gate.enter(100)
        scopes[1].cancel(reason="the test")
        for number in range(3):
            nursery.start_soon(come, number)
        await wait_all_tasks_blocked()
    assert sorted(entered_by) == [0, 2]
    assert scopes[1].cancelled_caught


async def test_without_its_task_nobody_waits() -> None:
    gate = BodyGate(100)
    for _ in range(5):
        await gate.enter(100)
    let_in: list[int] = []

    async def come() -> None:
        await gate.enter(100)
        let_in.append(1)

    async with trio.open_nursery() as nursery:
        async with running(gate):
            await gate.enter(100)
            for _ in range(3):
                nursery.start_soon(come)
            await trio.lowlevel.checkpoint()
        await wait_all_tasks_blocked()
        assert len(let_in) == 3
