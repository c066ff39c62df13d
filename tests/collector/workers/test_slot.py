"""One slot on virtual time: who follows whom, and when."""

import random
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
import trio

from collector.config import Config
from collector.workers.backoff import FIRST_S, STEADY_S, Backoff
from collector.workers.settings import Settings
from collector.workers.slot import Slot

OLD, NEW = Settings.of(Config()), Settings.of(Config())
START_S, DRAIN_S = 2.0, 5.0


class FakeWorker:
    """A worker that needs `START_S` to be ready and `DRAIN_S` to leave, unless it is told otherwise."""

    def __init__(self, slot: "Slot[FakeWorker]", nursery: trio.Nursery, number_of: int, *, starts: bool) -> None:
        self.number, self.settings, self.pid = slot.number, slot.settings, 1000 + number_of
        self.settled, self.lost, self.ended = trio.Event(), trio.Event(), trio.Event()
        self.leaving = trio.Event()
        self.signals = 0
        self.state = "starting"
        self.why = "killed"
        self._ready_at: float | None = None
        nursery.start_soon(self._start, starts)

    def __repr__(self) -> str:
        return f"<FakeWorker {self.pid}>"

    @property
    def served_s(self) -> float:
        return 0.0 if self._ready_at is None else trio.current_time() - self._ready_at

    async def _start(self, starts: bool) -> None:
        with trio.move_on_after(START_S):
            await self.leaving.wait()
        if starts and not self.leaving.is_set():
            self._ready_at, self.state = trio.current_time(), "ready"
            self.settled.set()
        else:
            self.die()

    def die(self) -> None:
        for event in (self.lost, self.settled, self.ended):
            event.set()

    def leave(self) -> None:
        self.signals += 1
        self.leaving.set()

    async def wait_left(self) -> None:
        self.leave()
        await trio.sleep(DRAIN_S)
        self.die()


@dataclass
class Place:
    """A slot, and the workers that it started."""

    nursery: trio.Nursery
    starts: Callable[[int], bool] = lambda number: True
    workers: list[FakeWorker] = field(default_factory=list)
    started_at: list[float] = field(default_factory=list)
    lost: list[FakeWorker] = field(default_factory=list)
    refuse: int = 0

    def __post_init__(self) -> None:
        steady = random.Random()
        steady.random = lambda: 1.0  # type: ignore[method-assign]  # no chance in the pauses
        self.slot: Slot[FakeWorker] = Slot(0, OLD, self.launch, backoff=Backoff(steady), lost=self.lost.append)
        self.nursery.start_soon(self.slot.keep)

    def launch(self, slot: Slot[FakeWorker]) -> FakeWorker:
        self.started_at.append(trio.current_time())
        if self.refuse:
            self.refuse -= 1
            raise OSError("no processes left")
        worker = FakeWorker(slot, self.nursery, len(self.workers), starts=self.starts(len(self.workers)))
        self.workers.append(worker)
        return worker


@pytest.fixture
async def place(nursery: trio.Nursery) -> Place:
    return Place(nursery)


async def test_worker_serves_when_it_is_ready(place: Place, autojump_clock: trio.testing.MockClock) -> None:
    await trio.testing.wait_all_tasks_blocked()
    assert (place.slot.state, place.slot.serving) == ("starting", None)
    await place.slot.tried.wait()
    assert trio.current_time() == START_S
    assert (place.slot.state, place.slot.serving) == ("serving", place.workers[0])
    assert repr(place.slot) == "<Slot 0 serving>"
    place.slot.stop()
    assert place.workers[0].signals == 1
    place.workers[0].die()
    await place.slot.ended.wait()
    assert (place.slot.state, len(place.workers), place.lost) == ("stopped", 1, [])


async def test_worker_that_dies_is_replaced_at_once(place: Place, autojump_clock: trio.testing.MockClock) -> None:
    await place.slot.tried.wait()
    await trio.sleep(STEADY_S)
    place.workers[0].die()
    await trio.testing.wait_all_tasks_blocked()
    assert place.started_at == [0.0, START_S + STEADY_S]
    assert place.lost == [place.workers[0]]
    await place.workers[1].settled.wait()
    await trio.testing.wait_all_tasks_blocked()
    assert place.slot.serving is place.workers[1]


async def test_worker_that_hangs_is_followed_before_it_has_ended(
    place: Place, autojump_clock: trio.testing.MockClock
) -> None:
    await place.slot.tried.wait()
    hung = place.workers[0]
    hung.lost.set()
    await trio.sleep(START_S)
    await trio.testing.wait_all_tasks_blocked()
    assert not hung.ended.is_set()
    assert place.slot.serving is place.workers[1]


async def test_worker_that_dies_at_once_again_and_again_is_started_less_and_less(
    place: Place, autojump_clock: trio.testing.MockClock
) -> None:
    place.starts = lambda number: False
    await trio.sleep(120)
    gaps = [after - before for before, after in zip(place.started_at, place.started_at[1:], strict=False)]
    assert gaps[:4] == [START_S, START_S + FIRST_S, START_S + 2 * FIRST_S, START_S + 4 * FIRST_S]
    assert len(place.started_at) < 12
    assert place.slot.serving is None


async def test_process_that_cannot_be_started_is_tried_again(
    place: Place, autojump_clock: trio.testing.MockClock
) -> None:
    place.refuse = 2
    await trio.sleep(FIRST_S + START_S + 0.1)
    assert place.started_at == [0.0, 0.0, FIRST_S]
    assert place.slot.serving is place.workers[0]
    assert place.lost == []


async def test_successor_is_ready_before_the_predecessor_is_told_to_leave(
    place: Place, autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    await place.slot.tried.wait()
    before = place.workers[0]
    replaced: list[bool] = []

    async def replace() -> None:
        replaced.append(await place.slot.replace(NEW))

    nursery.start_soon(replace)
    await trio.sleep(START_S - 0.1)
    assert (before.signals, place.slot.serving) == (0, before)
    await trio.sleep(0.2)
    after = place.workers[1]
    assert (before.signals, place.slot.serving, after.settings) == (1, after, NEW)
    assert replaced == [], "it returns when the predecessor has ended"
    await trio.sleep(DRAIN_S)
    assert replaced == [True]
    assert (len(place.workers), place.lost) == (2, [])
    after.die()
    await trio.testing.wait_all_tasks_blocked()
    assert place.workers[2].settings is NEW


async def test_successor_that_dies_while_its_predecessor_leaves_is_followed_at_once(
    place: Place, autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    await place.slot.tried.wait()
    nursery.start_soon(place.slot.replace, NEW)
    await trio.sleep(START_S + DRAIN_S / 5)
    before, after = place.workers
    after.die()
    await trio.testing.wait_all_tasks_blocked()
    assert place.lost == [after]
    assert place.slot.serving is None, "nobody accepts"
    assert not before.ended.is_set()
    await trio.sleep(START_S + 0.1)
    assert place.slot.serving is place.workers[2]
    assert place.workers[2].settings is NEW
    assert not before.ended.is_set()


async def test_slot_that_is_stopped_while_a_successor_takes_over_has_not_ended_before_it(
    place: Place, autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    await place.slot.tried.wait()
    slot, before = place.slot, place.workers[0]

    def stop_at_once() -> None:
        if slot.serving is not before and slot.state == "serving":
            slot.stop()
            before.die()

    slot._changed = stop_at_once
    nursery.start_soon(slot.replace, NEW)
    await trio.sleep(START_S)
    await trio.testing.wait_all_tasks_blocked()
    assert (slot.state, slot.ended.is_set()) == ("stopped", False)
    place.workers[1].die()
    await trio.testing.wait_all_tasks_blocked()
    assert (slot.ended.is_set(), len(place.workers)) == (True, 2)


async def test_successor_that_is_never_ready_replaces_nobody(
    place: Place, autojump_clock: trio.testing.MockClock
) -> None:
    place.starts = lambda number: number != 1
    await place.slot.tried.wait()
    assert not await place.slot.replace(NEW)
    before = place.workers[0]
    assert (before.signals, place.slot.serving, place.slot.settings) == (0, before, OLD)
    before.die()
    await trio.sleep(START_S + 0.1)
    assert place.workers[2].settings is OLD


async def test_predecessor_that_dies_while_its_successor_starts_starts_nobody_else(
    place: Place, autojump_clock: trio.testing.MockClock
) -> None:
    await place.slot.tried.wait()

    async def die() -> None:
        await trio.sleep(START_S / 2)
        place.workers[0].die()

    place.nursery.start_soon(die)
    assert await place.slot.replace(NEW)
    await trio.sleep(60)
    assert len(place.workers) == 2
    assert place.slot.serving is place.workers[1]


async def test_reload_ends_the_pause_of_a_slot_that_failed(
    place: Place, autojump_clock: trio.testing.MockClock
) -> None:
    place.starts = lambda number: number > 5
    await trio.sleep(START_S * 6 + FIRST_S * 15 + 1)
    assert place.slot.state == "pausing"
    assert len(place.workers) == 6
    assert await place.slot.replace(NEW)
    await trio.testing.wait_all_tasks_blocked()
    assert (place.slot.state, place.slot.serving) == ("serving", place.workers[6])
    await trio.sleep(60)
    assert len(place.workers) == 7


async def test_stop_while_it_starts_ends_the_one_that_starts(
    place: Place, autojump_clock: trio.testing.MockClock
) -> None:
    await trio.testing.wait_all_tasks_blocked()
    place.slot.stop()
    await place.slot.ended.wait()
    assert (len(place.workers), place.workers[0].signals, place.slot.state) == (1, 1, "stopped")
    assert not await place.slot.replace(NEW)


async def test_stop_while_it_pauses_starts_nobody(place: Place, autojump_clock: trio.testing.MockClock) -> None:
    place.starts = lambda number: False
    await trio.sleep(2 * START_S + 0.1)
    assert place.slot.state == "pausing"
    place.slot.stop()
    await place.slot.ended.wait()
    assert trio.current_time() == 2 * START_S + 0.1
    assert len(place.workers) == 2


async def test_each_stop_is_one_more_signal(place: Place, autojump_clock: trio.testing.MockClock) -> None:
    await place.slot.tried.wait()
    for _ in range(3):
        place.slot.stop()
    assert place.workers[0].signals == 3
