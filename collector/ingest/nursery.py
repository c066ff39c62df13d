"""The request nursery [Q]: where the work of one request runs, under its deadline.

Owns: arming, disarming, and the order "leave the nursery, then answer". Refuses to know: what the work is and how an
answer is written.

Two kinds. `FreshNursery` opens one for each request: plain, 15 µs, what the stock server uses. `RearmedNursery` wraps
one that the connection's task opened before the application ran and uses again for the next request: what a server of
our own offers in ``scope["extensions"]``. There a cancellation can only be left where the nursery was opened,
outside of the application. So the application says beforehand how the request is to be answered (``unfinished``), and
whoever opened the nursery calls that after leaving it:

    async with trio.open_nursery() as nursery:                  # a connection's task, once
        carrier = RearmedNursery(nursery, grid)
        while …: await application(scope, receive, send)        # each request; arms and disarms
    if carrier.unfinished is not None: await carrier.unfinished()     # out of time: answer outside, then open a new one

The deadline is armed lazily. What costs is the setter of Trio's own deadline: `RearmedNursery.run` around nothing takes
4.5 µs with it and 0.7 µs without (CPU, least of 21 runs). So a
deadline that is far away is only written down, and somebody's single task looks at those that are armed every `GRID_S`
and cancels who is out of time (`DeadlineGrid`); never early, and late by the grid at most. Trio's deadline rounded up
to a grid, and left set between requests, would cost as little, but then it fires under an answer that is being
written, or under the next request; here nothing is left that could. A deadline that is near (`EXACT_S`) is Trio's own,
set and cleared.

Invariants: when `run` has returned, or its cancellation was left, no task of the request exists, and nothing is armed.
"""

from collections.abc import Awaitable, Callable
from math import inf
from typing import Protocol, TypeAlias

import trio

__all__ = ["EXTENSION", "GRID_S", "DeadlineGrid", "FreshNursery", "RearmedNursery", "RequestNursery", "Work"]

Work: TypeAlias = Callable[[], Awaitable[None]]

#: The key in ``scope["extensions"]`` under which a server offers its `RearmedNursery`.
EXTENSION = "collector.request_nursery"

#: How late a lazily armed deadline may fire; a link of the chain of deadlines.
GRID_S = 0.1

#: Deadlines nearer than this are not put on the grid, which would be a tenth of them and more.
EXACT_S = 1.0


class RequestNursery(Protocol):
    """Runs one request's work under one deadline."""

    async def run(self, deadline: float, work: Work, unfinished: Work) -> None:
        """Run ``work()`` until it is done or ``deadline`` (`trio.current_time`) has come, then return.

        Args:
            unfinished: what answers the request where returning is not possible, see the module's docstring.

        On cancellation: from outside, it propagates; ``unfinished`` is not called by `run`.
        """
        ...


class FreshNursery:
    """A nursery for each request."""

    async def run(self, deadline: float, work: Work, unfinished: Work) -> None:
        """As `RequestNursery.run`; it can always return, so ``unfinished`` is not needed."""
        async with trio.open_nursery() as nursery:
            nursery.cancel_scope.deadline = deadline
            await work()


class DeadlineGrid:
    """The deadlines that are armed lazily; whoever makes one has a task that calls `look` every `GRID_S`."""

    def __init__(self) -> None:
        self.now = trio.current_time()
        """The time of the last `look`: late by `GRID_S`, and by the lag of the loop."""
        self.armed: set[RearmedNursery] = set()

    def __repr__(self) -> str:
        return f"<DeadlineGrid {len(self.armed)} armed>"

    def look(self, now: float) -> None:
        """Cancel who is out of time at ``now`` (`trio.current_time`)."""
        self.now = now
        for carrier in [carrier for carrier in self.armed if carrier.deadline <= now]:
            carrier.expire()


class RearmedNursery:
    """One nursery for all requests of a connection, one after the other.

    Args:
        grid: where far deadlines are armed; without one, each is Trio's own.
    """

    __slots__ = ("_grid", "deadline", "nursery", "spent", "unfinished")

    def __init__(self, nursery: trio.Nursery, grid: DeadlineGrid | None = None) -> None:
        # The nursery is a parameter because its block has to be the connection's: scopes nest, and leaving a cancelled
        # one is possible only where it was entered.
        self.nursery = nursery
        self.unfinished: Work | None = None
        self.deadline = inf
        self.spent = False
        """It was cancelled, and nothing can run in it any more."""
        self._grid = grid

    def __repr__(self) -> str:
        if self.spent or self.nursery.cancel_scope.cancel_called:
            return "<RearmedNursery spent>"
        return f"<RearmedNursery {'idle' if self.deadline == inf else 'armed'}>"

    def arm(self, deadline: float) -> bool:
        """Arm it for what its task, parked in the nursery's block, waits for already; False: only `run` can.

        Whoever wakes the task calls `disarm`, or the task itself does. Synchronous.
        """
        grid = self._grid
        if grid is None or self.spent or deadline - grid.now < EXACT_S:
            return False
        self.deadline = deadline
        grid.armed.add(self)
        return True

    def disarm(self) -> None:
        """What `arm` was for is over; it may be `spent`."""
        if self._grid is not None:
            self._grid.armed.discard(self)
        self.deadline = inf

    def expire(self) -> None:
        """Cancel the work that runs now. Only while it is armed."""
        self.spent = True
        self.nursery.cancel_scope.cancel(reason="the request is out of time")

    async def run(self, deadline: float, work: Work, unfinished: Work) -> None:
        """As `RequestNursery.run`. Out of time, it raises `trio.Cancelled` and leaves ``unfinished`` to be called.

        The deadline can fire in the tick in which the work ends. Then the scope is cancelled although nobody noticed
        yet, and the answer itself would be: so that is looked at after disarming, and counts as out of time.
        """
        self.unfinished = unfinished
        self.deadline = deadline
        grid = self._grid
        try:
            if grid is None or deadline - grid.now < EXACT_S:
                await self._run_exactly(work)
            else:
                armed = grid.armed
                armed.add(self)
                try:
                    await work()
                finally:
                    armed.discard(self)
                    self.deadline = inf
                    if not self.spent:
                        self.unfinished = None
        except Exception:
            self.unfinished = None  # out of time or not: who catches a bug answers it
            raise
        if self.spent:
            await trio.lowlevel.checkpoint_if_cancelled()
        if self.nursery.child_tasks:
            raise AssertionError(f"the request left tasks behind: {self.nursery.child_tasks}")

    async def _run_exactly(self, work: Work) -> None:
        scope = self.nursery.cancel_scope
        scope.deadline = self.deadline
        try:
            await work()
        finally:
            scope.deadline = self.deadline = inf
            self.spent = scope.cancel_called
            if not self.spent:
                self.unfinished = None
