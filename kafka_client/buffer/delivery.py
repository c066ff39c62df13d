"""A delivery: records handed over together, their outcomes, and the one waiter.

Owns: what a caller has been told about each record, how many records are still open, the parked task. Refuses to know:
where a record is (a queue, a batch): that is the `Home` of its run.

Theory. A delivery's records lie in *runs*, see `kafka_client.buffer.run`: those of a bulk delivery
(`kafka_client.buffer.bulk`) count down as they end; a delivery of one record (`Single`) is its own run, and looks at
its home's ``resolution`` when it is asked. Only a single one that somebody waits for, or that has an ``on_resolved``,
watches its home. Outcomes are kept per run and spelled out per record when somebody asks.

A home answers one question: "nobody waits for this run any more; what does that make of it?" A queue takes it out and
says NotSent; a sealed batch lives on and says Unknown.

Invariants: the number of records without an outcome never grows. An outcome that was given is never changed; what
becomes of an Unknown record later goes to ``on_resolved`` and nowhere else.

Non-obvious:

- Bytes that come back let others in, and they may be of this very delivery; so a home gives bytes back only in
  `Home.released`, when the outcomes are stored.
- The collector of cycles looks at neither deliveries nor runs: with ten thousand of them open it would do little else.
  So every cycle that they are part of is cut when it ends: a bulk delivery and its runs, a home and its runs
  (`kafka_client.buffer.segment`), a delivery and an ``on_resolved`` that refers to it.
- A waiter that was cancelled is scheduled already; an outcome that comes before it runs must not schedule it again.
"""

from abc import abstractmethod
from collections.abc import Callable, Iterable, Sequence
from types import TracebackType
from typing import ClassVar, TypeAlias

import trio
from msgspec import Struct

from kafka_client.outcome import Delivered, NotSent, Outcome, Unknown

from .run import Acknowledgement, Ended, Home, Resolution, delivered

__all__ = ["FOREVER_S", "WITHDRAWN", "Delivery", "ResolvedFn", "Single", "Tally", "nothing_to_tell", "told_twice"]

#: What an infinite ``delivery_timeout_s`` is counted as, 31 years: an age can be told from a deadline then.
FOREVER_S = 1e9

#: The reason of a record that its caller took back.
WITHDRAWN = "withdrawn"

ResolvedFn: TypeAlias = Callable[[int, Outcome], object]


class Tally:
    """What all deliveries of one producer have together."""

    __slots__ = ("_bugs", "on_bug", "waiters")

    def __init__(self) -> None:
        self.waiters = 0
        """Tasks that wait for a delivery."""
        self.on_bug: Callable[[], None] | None = None
        """Called when an ``on_resolved`` raised."""
        self._bugs: list[Exception] = []

    def tell(self, fn: ResolvedFn, index: int, outcome: Outcome) -> None:
        """Call an ``on_resolved`` in the midst of a change of state, which is made whole whatever it raises."""
        try:
            fn(index, outcome)
        except Exception as error:  # kept for `raise_bugs`
            self._bugs.append(error)
            if self.on_bug is not None:
                self.on_bug()

    def raise_bugs(self) -> None:
        """Raise what an ``on_resolved`` raised since the last call: it alone, or an ExceptionGroup of all."""
        bugs, self._bugs = self._bugs, []
        if len(bugs) > 1:
            raise ExceptionGroup("exceptions from on_resolved", bugs)
        if bugs:
            raise bugs[0]


class Delivery(Struct, gc=False, eq=False):
    """Records on their way, as `Producer.delivery` returns them; a synchronous context manager.

    The *call* of `Producer.delivery` queued them. One task enters the block (it need not be the calling one); the
    block's end takes back what is not settled. After it `outcomes` is final.
    """

    deadline: float
    """When ``delivery_timeout_s`` ends it, on Trio's clock."""
    tally: Tally
    task: trio.lowlevel.Task | None
    """The parked waiter."""
    fn: ResolvedFn | None
    """Of `on_resolved`, while there may be something to tell."""

    # What callers use.

    def __enter__(self) -> "Delivery":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.end(WITHDRAWN)

    async def wait(self) -> None:
        """Wait until every record has an outcome. Always a checkpoint; never raises for an outcome.

        Raises:
            trio.BusyResourceError: another task waits here already.

        On cancellation: the waiting ends and nothing else; it may be called again.
        """
        if self.task is not None:
            raise trio.BusyResourceError("another task is already waiting for this delivery")
        try:
            if self.park():
                await trio.lowlevel.wait_task_rescheduled(self.stop_waiting)
            else:
                await trio.lowlevel.checkpoint()
        except BaseException:
            self.leave()
            raise

    def reschedule(self, task: trio.lowlevel.Task) -> bool:
        """Wait for ``task``, which is parked already: reschedule it where `wait` would return. Synchronous.

        For who has tasks at rest: waking one up only to have it wait costs 4 µs. The task's ``abort_fn`` is to call
        `stop_waiting`, whose word counts.

        Returns: False where every record has an outcome; the task stays as it is then.

        Raises:
            trio.BusyResourceError: a task waits for this delivery already.
        """
        if self.task is not None:
            raise trio.BusyResourceError("another task is already waiting for this delivery")
        return self.park(task)

    @property
    @abstractmethod
    def outcomes(self) -> list[Outcome | None]:
        """One per record, in the order of the records; None for an unsettled one inside the block."""

    @property
    @abstractmethod
    def delivered(self) -> bool:
        """Whether every record is Delivered: what `outcomes` would say, without a value for each of them."""

    @property
    @abstractmethod
    def unsettled(self) -> int:
        """How many records have no outcome yet."""

    def withdraw(self, indices: Iterable[int] | None = None) -> None:
        """Take back the unsettled records named (None: all): queued ones are NotSent, sealed ones Unknown.

        Synchronous, idempotent, cannot fail; `wait` then waits for the rest.
        """
        self.end(WITHDRAWN, indices)

    @abstractmethod
    def on_resolved(self, fn: ResolvedFn) -> None:
        """Call ``fn(index, outcome)`` once for each record whose outcome is Unknown, when its batch ends.

        One ``fn`` per delivery, at any time; what is resolved already is reported inside this call. ``fn`` is
        synchronous and must not raise: an exception from it is a bug and ends the producer, when every other delivery
        that ended with this one is settled and told.
        """

    # What the producer's insides use.

    @abstractmethod
    def watch(self) -> bool:
        """See to it that the waiter is woken; False where nothing is open any more."""

    @abstractmethod
    def end(self, reason: str, indices: Iterable[int] | None = None) -> None:
        """Give every unsettled record (among ``indices``) the outcome that its home says, with this reason."""

    @abstractmethod
    def refuse(self, outcome: NotSent) -> None:
        """Settle every record before any was queued."""

    def park(self, task: trio.lowlevel.Task | None = None) -> bool:
        """Make ``task`` (None: the running one) the waiter, parked with `stop_waiting`; False where nothing is open."""
        if not self.watch():
            return False
        self.task = trio.lowlevel.current_task() if task is None else task
        self.tally.waiters += 1
        return True

    def leave(self) -> None:
        """The running task waits no more, however that came; another may be the waiter by now."""
        if self.task is trio.lowlevel.current_task():
            self._unpark()

    def wake(self) -> None:
        """Wake the waiter, if there is one."""
        task = self.task
        if task is not None:
            self._unpark()
            trio.lowlevel.reschedule(task)

    def stop_waiting(self, _: trio.lowlevel.RaiseCancelT) -> trio.lowlevel.Abort:
        """Trio's ``abort_fn`` for the waiter."""
        # Withdrawing is the block's end, not the waiter's: an acknowledgement that comes in the same tick still counts.
        # But the task is scheduled from here on: an outcome that comes before it runs must not schedule it a second
        # time.
        self._unpark()
        return trio.lowlevel.Abort.SUCCEEDED

    def _unpark(self) -> None:
        self.task = None
        self.tally.waiters -= 1


def told_twice() -> RuntimeError:
    """What a second `Delivery.on_resolved` raises."""
    return RuntimeError("on_resolved was called before on this delivery")


def nothing_to_tell(index: int, outcome: Outcome) -> None:
    """In the place of an ``on_resolved`` that has been told everything, so that a second one is still refused."""


class Single(Delivery, gc=False, eq=False):
    """A delivery of one record: its own run."""

    count: ClassVar[int] = 1
    indices: ClassVar[Sequence[int]] = range(1)

    home: Home | None
    """None once it has ended without a batch."""
    first: int
    timestamps: int
    explicit: bool = False
    """Its record names its partition."""
    outcome: Outcome | None = None
    watched: bool = False

    def __len__(self) -> int:
        return 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        # As in the base; most have their outcome by now.
        if self.outcome is None and self.home.resolution is None:  # type: ignore[union-attr]  # it is open: at home
            self.end(WITHDRAWN)

    @property
    def outcomes(self) -> list[Outcome | None]:
        """As in the base."""
        outcome = self.outcome
        if outcome is None:
            resolution = self.home.resolution  # type: ignore[union-attr]  # no outcome of its own: it has a home
            if resolution is None:
                return [None]
            if resolution.__class__ is Acknowledgement and resolution.of_create_time:
                # As `delivered`, for the usual case.
                offset = resolution.base_offset + self.first
                outcome = Delivered(resolution.partition, offset, self.timestamps, resolution.attempts)
            else:
                outcome = self._spelled(resolution)
            self.outcome = outcome
        return [outcome]

    @property
    def delivered(self) -> bool:
        """As in the base."""
        outcome = self.outcome
        if outcome is not None:
            return outcome.__class__ is Delivered
        return self.home.resolution.__class__ is Acknowledgement  # type: ignore[union-attr]  # as above

    @property
    def unsettled(self) -> int:
        """As in the base."""
        return 1 if self.outcome is None and self.home.resolution is None else 0  # type: ignore[union-attr]

    @property
    def open(self) -> int:
        """As of a part."""
        return self.unsettled

    @property
    def delivery(self) -> "Single":
        """As of a part."""
        return self

    def on_resolved(self, fn: ResolvedFn) -> None:
        """As in the base."""
        if self.fn is not None:
            raise told_twice()
        home = self.home
        if home is None or home.resolution is not None:
            self.fn = nothing_to_tell
            if home is not None and home.resolution is not None and isinstance(self.outcomes[0], Unknown):
                fn(0, self._spelled(home.resolution))
            return
        self.fn = fn
        if not self.watched:
            self.watched = True
            home.watch(self)

    def watch(self) -> bool:
        """As in the base."""
        home = self.home
        if self.outcome is not None or home is None or home.resolution is not None:
            return False
        if not self.watched:
            self.watched = True
            home.watch(self)
        return True

    def end(self, reason: str, indices: Iterable[int] | None = None) -> None:
        """As in the base."""
        if not self.unsettled or (indices is not None and 0 not in indices):
            return
        home = self.home
        assert home is not None
        outcome = self.outcome = home.release(self, reason)
        if isinstance(outcome, NotSent):
            self._settle_here()
        self.wake()
        home.released()

    def refuse(self, outcome: NotSent) -> None:
        """As in the base."""
        self.outcome = outcome
        self._settle_here()

    def told(self, resolution: Resolution) -> bool:
        """Its home has ended; returns whether `report` is to follow."""
        if self.task is not None:
            self.wake()
        return self.fn is not None

    def report(self, resolution: Resolution) -> None:
        """Tell ``on_resolved``, when all of the batch is settled: it may take back others."""
        fn, self.fn = self.fn, nothing_to_tell
        if fn is not None and isinstance(self.outcomes[0], Unknown):
            self.tally.tell(fn, 0, self._spelled(resolution))

    def fail_one(self, position: int, outcome: NotSent) -> bool:
        """End it while its batch goes on: a broker named it. Returns whether it was still waited for."""
        told = self.outcome
        if told is None:
            self.outcome = outcome
            self._settle_here()
            self.wake()
            return True
        self.home = Ended(outcome)
        self.report(outcome)
        return False

    def _settle_here(self) -> None:
        self.home = None
        if self.fn is not None:
            self.fn = nothing_to_tell

    def _spelled(self, resolution: Resolution) -> Outcome:
        if isinstance(resolution, Acknowledgement):
            return delivered(resolution, self.first, self.timestamps)
        return resolution

    def __repr__(self) -> str:
        waiting = ", waited for" if self.task else ""
        return f"<Delivery of 1, {self.unsettled} unsettled{waiting}>"
