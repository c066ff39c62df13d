"""The tasks of a websocket that wait for its messages, each in a request nursery of its own, and used again.

Owns: who waits for which messages, and when those that came together part. Refuses to know: frames, ids, answers.

Theory. A task for each message costs 25 µs, more than all the rest of its way through this room; so a task that has
nothing to wait for is kept for the next read, with its nursery, which is armed anew. Messages that came in one read and
have the same deadline are waited for by one task: nearly always one answer of Kafka's settles them all. Where it does
not, because one partition is slow, they part after `TOGETHER_S`: who is settled is answered, and each other one gets a
task of its own.

A task that rests is not woken to wait: a message that came alone is parked on it as it is (`Work.park`), its nursery is
armed from outside, and what wakes it is Kafka's word, or the end of its time. That saves one of three turns of a task.

Invariants: every message is settled once, also on cancellation; the end of a message's time takes back its own records
and those of no other message that is still in time; a task that is not in work holds no message.
"""

from collections.abc import Callable, Sequence

import trio

from collector.ingest.enqueue import Work
from collector.ingest.nursery import DeadlineGrid, RearmedNursery
from collector.log import get_logger
from collector.web.websocket.message import TrackMessage

__all__ = ["TOGETHER_S", "Waiters"]

log = get_logger("websocket")

#: How long a message that is settled well may wait for those that came with it; at most a quarter of their time.
TOGETHER_S = 0.05

#: Tasks that one session keeps for later: a client that waits for each answer needs one.
IDLE_MAX = 4


class Waiters:
    """Those of one session.

    Args:
        nursery: The session's; a parameter because messages outlive the reading of them.
        grid: Where their deadlines may be armed.
        settle: Called with each message once, synchronously, when there is nothing more to wait for, or no more time.
        failed: Called before, where a bug ended the waiting; it is logged already.
    """

    def __init__(
        self,
        nursery: trio.Nursery,
        grid: DeadlineGrid | None,
        settle: Callable[[Sequence[TrackMessage]], None],
        failed: Callable[[], None],
    ) -> None:
        self._nursery = nursery
        self._grid = grid
        self._settle = settle
        self._failed = failed
        self._idle: list[_Waiter] = []
        self._closed = False

    def __repr__(self) -> str:
        return f"<Waiters {len(self._idle)} idle>"

    def wait_for(self, messages: Sequence[TrackMessage], deadline: float) -> None:
        """Wait for these together, until ``deadline`` on Trio's clock. Synchronous."""
        if self._idle:
            self._idle.pop().give(messages, deadline)
        else:
            self._nursery.start_soon(_Waiter(self, messages, deadline).run, name="websocket: waiter")

    def close(self) -> None:
        """No message comes any more: the idle ones end, the others when they are done."""
        self._closed = True
        while self._idle:
            self._idle.pop().give((), 0.0)


class _Waiter:
    """One of them, and its task."""

    __slots__ = ("_all", "_carrier", "_deadline", "_messages", "_parked", "_task")

    def __init__(self, all_: Waiters, messages: Sequence[TrackMessage], deadline: float) -> None:
        self._all = all_
        self._messages = messages
        self._deadline = deadline
        self._task: trio.lowlevel.Task | None = None
        """While it rests."""
        self._carrier: RearmedNursery | None = None
        """Whose block it rests in."""
        self._parked: Work | None = None
        """What will wake it."""

    def give(self, messages: Sequence[TrackMessage], deadline: float) -> None:
        """Have the resting task wait for these; without messages it ends."""
        self._messages = messages
        self._deadline = deadline
        task, self._task = self._task, None
        assert task is not None
        carrier = self._carrier
        if len(messages) == 1 and carrier is not None and carrier.arm(deadline):
            work = messages[0].work
            if work.park(task):
                self._parked = work
                return
            carrier.disarm()
        trio.lowlevel.reschedule(task)

    async def run(self) -> None:  # noqa: ASYNC910  # it starts with messages
        """Wait for messages, again and again. On cancellation: they are settled."""
        while self._messages:
            async with trio.open_nursery() as nursery:
                carrier = self._carrier = RearmedNursery(nursery, self._all._grid)
                # A nursery that is out of time cannot be used again, also where that happened between two messages.
                while self._messages and not nursery.cancel_scope.cancel_called:
                    await self._work(carrier)
                    await self._park()
            self._carrier = None
            if not self._messages:
                await self._park()

    async def _park(self) -> None:  # noqa: ASYNC910  # who is not kept ends
        """Rest until there are messages to be waited for, or none ever: then the task is not needed any more.

        On cancellation: it is not idle any more; a message that was parked on it is settled.
        """
        idle = self._all._idle
        while not self._messages and not self._all._closed and len(idle) < IDLE_MAX:
            self._task = trio.lowlevel.current_task()
            idle.append(self)
            woken = False
            try:
                await trio.lowlevel.wait_task_rescheduled(self._abort)
                woken = True
            finally:
                if self._parked is not None:
                    self._unpark(self._parked, woken)

    def _abort(self, raise_cancel: trio.lowlevel.RaiseCancelT) -> trio.lowlevel.Abort:
        if self._parked is not None:
            return self._parked.stop_waiting(raise_cancel)
        self._all._idle.remove(self)
        self._task = None
        return trio.lowlevel.Abort.SUCCEEDED

    def _unpark(self, work: Work, woken: bool) -> None:
        carrier = self._carrier
        assert carrier is not None
        self._parked = None
        carrier.disarm()
        work.unpark()
        if not woken or work.delivered or carrier.nursery.cancel_scope.cancel_called:
            self._settle()

    async def _work(self, carrier: RearmedNursery) -> None:  # noqa: ASYNC910  # run() is one
        try:
            await carrier.run(self._deadline, self._wait, _nothing)
        except Exception:  # the rim of one request: a bug in one message is logged and answered, the session goes on
            log.exception("a message failed", ids=[message.id for message in self._messages])
            self._all._failed()
        finally:
            self._settle()

    def _settle(self) -> None:
        messages, self._messages = self._messages, ()
        if messages:
            self._all._settle(messages)

    async def _wait(self) -> None:  # noqa: ASYNC910  # all delivered is the one way without
        messages = self._messages
        if len(messages) > 1:
            left_s = max(0.0, self._deadline - trio.current_time())
            with trio.move_on_after(min(TOGETHER_S, left_s / 4)):  # noqa: ASYNC912  # they are waited for unless they are there
                for message in messages:
                    await message.work.wait_delivered()
            self._part()
        for message in self._messages:
            await message.work.wait()

    def _part(self) -> None:
        """Settle those that Kafka has, keep one of the others, and give each further one a task."""
        delivered: list[TrackMessage] = []
        others: list[TrackMessage] = []
        for message in self._messages:
            (delivered if message.work.delivered else others).append(message)
        self._messages = others[:1]
        if delivered:
            self._all._settle(delivered)
        for message in others[1:]:
            self._all.wait_for((message,), self._deadline)


async def _nothing() -> None:
    """A message's nursery can always be left, so nothing has to be answered elsewhere."""
