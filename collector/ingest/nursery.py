"""The request nursery [Q]: where the work of one request runs, under its deadline.

Owns: arming, disarming, and the order "leave the nursery, then answer". Refuses to know: what the work is and how an
answer is written.

Two kinds. `FreshNursery` opens one for each request: plain, 15 µs, what the stock server uses. `RearmedNursery` wraps
one that the connection's task opened before the application ran and uses again for the next request: 6.6 µs, what a
server of our own offers in ``scope["extensions"]``. There a cancellation can only be left where the nursery was opened,
outside of the application. So the application says beforehand how the request is to be answered (``unfinished``), and
whoever opened the nursery calls that after leaving it:

    async with trio.open_nursery() as nursery:                  # a connection's task, once
        carrier = RearmedNursery(nursery)
        while …: await application(scope, receive, send)        # each request; arms and disarms
    if carrier.unfinished is not None: await carrier.unfinished()     # out of time: answer outside, then open a new one

Invariant: when `run` has returned, or its cancellation was left, no task of the request exists.
"""

from collections.abc import Awaitable, Callable
from math import inf
from typing import Protocol, TypeAlias

import trio

__all__ = ["EXTENSION", "FreshNursery", "RearmedNursery", "RequestNursery", "Work"]

Work: TypeAlias = Callable[[], Awaitable[None]]

#: The key in ``scope["extensions"]`` under which a server offers its `RearmedNursery`.
EXTENSION = "collector.request_nursery"


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


class RearmedNursery:
    """One nursery for all requests of a connection, one after the other."""

    def __init__(self, nursery: trio.Nursery) -> None:
        # The nursery is a parameter because its block has to be the connection's: scopes nest, and leaving a cancelled
        # one is possible only where it was entered.
        self.nursery = nursery
        self.unfinished: Work | None = None

    def __repr__(self) -> str:
        scope = self.nursery.cancel_scope
        state = "spent" if scope.cancel_called else "idle" if scope.deadline == inf else "armed"
        return f"<RearmedNursery {state}>"

    async def run(self, deadline: float, work: Work, unfinished: Work) -> None:
        """As `RequestNursery.run`. Out of time, it raises `trio.Cancelled` and leaves ``unfinished`` to be called.

        The deadline can fire in the tick in which the work ends. Then ``cancel_called`` is true although nothing was
        cancelled yet, and the answer itself would be: so that is looked at after disarming, and counts as out of time.
        """
        scope = self.nursery.cancel_scope
        self.unfinished = unfinished
        scope.deadline = deadline
        try:
            await work()
        finally:
            scope.deadline = inf
            if not scope.cancel_called:
                self.unfinished = None
        if scope.cancel_called:
            await trio.lowlevel.checkpoint_if_cancelled()
        if self.nursery.child_tasks:
            raise AssertionError(f"the request left tasks behind: {self.nursery.child_tasks}")
