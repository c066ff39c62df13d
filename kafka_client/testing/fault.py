"""One fault: which requests it meets, how often, and what it then writes into their `Plan`.

Owns: the selection and its counters. Refuses to know what a fault does: it is given a function for that.

Invariant: a request that a fault met says so in ``RequestSeen.faults``; one that no fault met got what a broker gives.
"""

import math
from collections.abc import Callable
from types import TracebackType
from typing import Protocol, Self, TypedDict

import trio

from kafka_client.testing.messages import Api
from kafka_client.testing.plan import Plan
from kafka_client.testing.seen import RequestSeen

__all__ = ["Fault", "Selection"]


class Selection(TypedDict, total=False):
    """Which requests a fault meets; see `kafka_client.testing.faults`."""

    api: Api | None
    broker: int | None
    topic: str | None
    partition: int | None
    times: int | None
    skip: int
    when: Callable[[RequestSeen], bool] | None


class Owner(Protocol):
    """Who keeps the list of faults."""

    def forget(self, fault: "Fault") -> None:
        """Drop it from the list."""


class Fault:
    """One fault that was switched on. Usable as a context manager that removes it at the end."""

    def __init__(
        self,
        owner: "Owner",
        name: str,
        apply: Callable[[Plan, RequestSeen, "Fault"], None],
        selection: Selection,
    ) -> None:
        self.name = name
        self.hits = 0
        self._owner = owner
        self._apply = apply
        self._api = selection.get("api", Api.PRODUCE)
        self._broker = selection.get("broker")
        self._topic = selection.get("topic")
        self._partition = selection.get("partition")
        self._left: float = math.inf if (times := selection.get("times", 1)) is None else times
        self._skip = selection.get("skip", 0)
        self._when = selection.get("when")
        self._released = trio.Event()

    def __repr__(self) -> str:
        left = "for ever" if self._left == math.inf else f"{self._left:g} left"
        return f"<Fault {self.name}: {self.hits} hits, {left}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.remove()

    def remove(self) -> None:
        """Meet nothing more. What it met already stays as it is; see `release`."""
        self._left = 0
        self._owner.forget(self)

    def release(self) -> None:
        """Let go of what `Faults.stall` holds, now and in future."""
        self._released.set()
        self.remove()

    @property
    def released(self) -> trio.Event:
        """Set by `release`."""
        return self._released

    def selects(self, topic: str, partition: int) -> bool:
        """Whether a batch for this partition is meant."""
        return self._topic in (None, topic) and self._partition in (None, partition)

    def meet(self, request: RequestSeen, plan: Plan) -> None:
        """Act on the request if it is one of those meant."""
        if self._api is not None and request.api is not self._api:
            return
        if self._broker is not None and request.broker != self._broker:
            return
        if (self._topic, self._partition) != (None, None) and not any(
            self.selects(batch.topic, batch.partition) for batch in request.batches
        ):
            return
        if self._when is not None and not self._when(request):
            return
        if self._skip > 0:
            self._skip -= 1
            return
        if self._left <= 0:
            return
        self._left -= 1
        self.hits += 1
        request.faults.append(self.name)
        self._apply(plan, request, self)
        if self._left <= 0:
            self._owner.forget(self)
