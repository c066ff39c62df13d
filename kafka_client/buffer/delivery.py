"""A delivery: records handed over together, their outcomes, and the one counted waiter.

Owns: what a caller has been told about each record, how many records are still open, the parked task. Refuses to know:
where a record is (a queue, a batch): that is the `Home` of its run.

Theory. A delivery is cut into *runs*: its records that lie together in one place, in order. A run is always wholly in
one home, and moves: FIFO -> partition queue -> sealed batch; where a home takes only a part, the run is split first.
So there is no object per record: a bulk delivery of 1000 records on 12 partitions is 12 runs. Outcomes are kept per run
and spelled out per record when somebody asks. The only thing ever waited for is `_open` reaching 0.

A home answers one question: "nobody waits for this run any more; what does that make of it?" A queue takes it out and
says NotSent; a sealed batch lives on and says Unknown (kafka.md rules 2 and 4).

Invariants: ``_open`` is the number of records without an outcome; it never grows. An outcome that was given is never
changed; what becomes of an Unknown record later goes to ``on_resolved`` and nowhere else.

Non-obvious:

- Bytes that come back let others in, and they may be of this very delivery; so a home gives bytes back only in
  `Home.released`, when the outcomes are stored.
- A run refers to its delivery and the delivery to its runs. The cycle is cut when the run ends, so that reference
  counting frees both and the garbage collector has nothing to do.
- A waiter that was cancelled is scheduled already; an outcome that comes before it runs must not schedule it again.
"""

from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from types import TracebackType
from typing import TypeAlias

import trio

from kafka_client.outcome import NotSent, Outcome, Unknown

from .run import Resolution, Run, outcome_at, spell

__all__ = ["FOREVER_S", "WITHDRAWN", "Delivery", "Tally"]

#: What an infinite ``delivery_timeout_s`` is counted as, 31 years: an age can be told from a deadline then.
FOREVER_S = 1e9

#: The reason of a record that its caller took back.
WITHDRAWN = "withdrawn"

ResolvedFn: TypeAlias = Callable[[int, Outcome], object]


class Tally:
    """What all deliveries of one producer count together."""

    __slots__ = ("waiters",)

    def __init__(self) -> None:
        self.waiters = 0
        """Tasks in `Delivery.wait`."""


class Delivery:
    """Records on their way, as `Producer.delivery` returns them; a synchronous context manager.

    The *call* of `Producer.delivery` queued them. One task enters the block (it need not be the calling one); the
    block's end takes back what is not settled. After it `outcomes` is final.
    """

    __slots__ = (
        "_count",
        "_fn",
        "_head",
        "_named",
        "_open",
        "_spelled",
        "_tally",
        "_task",
        "deadline",
    )

    def __init__(self, count: int, deadline: float, tally: Tally) -> None:
        self._count = count
        self._tally = tally
        self._open = count
        self._head: Run | None = None
        self._named: dict[int, NotSent | Unknown] | None = None
        self._task: trio.lowlevel.Task | None = None
        self._fn: ResolvedFn | None = None
        self._spelled: list[Outcome | None] | None = None
        self.deadline = deadline
        """When ``delivery_timeout_s`` ends it, on Trio's clock."""

    # What callers use.

    def __enter__(self) -> "Delivery":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.withdraw()

    def __len__(self) -> int:
        return self._count

    async def wait(self) -> None:
        """Wait until every record has an outcome. Always a checkpoint; never raises for an outcome.

        Raises:
            trio.BusyResourceError: another task waits here already.

        On cancellation: the waiting ends and nothing else; it may be called again.
        """
        if self._task is not None:
            raise trio.BusyResourceError("another task is already waiting for this delivery")
        if self._open == 0:
            await trio.lowlevel.checkpoint()
            return
        task = self._task = trio.lowlevel.current_task()
        self._tally.waiters += 1
        try:
            await trio.lowlevel.wait_task_rescheduled(self._stop_waiting)
        finally:
            if self._task is task:
                self._task = None
            self._tally.waiters -= 1

    @property
    def outcomes(self) -> list[Outcome | None]:
        """One per record, in the order of the records; None for an unsettled one inside the block."""
        if self._spelled is None:
            outcomes: list[Outcome | None] = [None] * self._count
            run = self._head
            while run is not None:
                if run.outcome is not None:
                    spell(run, run.outcome, outcomes)
                run = run.next
            if self._named is not None:
                for index, outcome in self._named.items():
                    outcomes[index] = outcome
            if self._open:
                return outcomes
            self._spelled = outcomes
        return self._spelled

    @property
    def unsettled(self) -> int:
        """How many records have no outcome yet."""
        return self._open

    def withdraw(self, indices: Iterable[int] | None = None) -> None:
        """Take back the unsettled records named (None: all): queued ones are NotSent, sealed ones Unknown.

        Synchronous, idempotent, cannot fail; `wait` then waits for the rest.
        """
        self.end(WITHDRAWN, indices)

    def on_resolved(self, fn: ResolvedFn) -> None:
        """Call ``fn(index, outcome)`` once for each record whose outcome is Unknown, when its batch ends.

        One ``fn`` per delivery, at any time; what is resolved already is reported inside this call. ``fn`` is
        synchronous and must not raise: an exception from it is a bug and ends the producer.
        """
        if self._fn is not None:
            raise RuntimeError("on_resolved was called before on this delivery")
        self._fn = fn
        run = self._head
        while run is not None:
            if run.resolution is not None:
                self._report(run, run.resolution, fn)
            run = run.next

    # What the producer's insides use.

    def add(self, run: Run) -> None:
        """Put a new run in front of the list of this delivery's runs."""
        run.next = self._head
        self._head = run

    def replace(self, run: Run, others: Sequence[Run]) -> None:
        """Put others in the place of a run that was cut up by partition."""
        for earlier, later in pairwise(others):
            earlier.next = later
        others[-1].next = run.next
        run.delivery = None
        run.home = None
        if self._head is run:
            self._head = others[0]
            return
        before = self._head
        while before is not None and before.next is not run:
            before = before.next
        assert before is not None
        before.next = others[0]

    def named_among(self, indices: Sequence[int]) -> int:
        """How many of these records have an outcome of their own."""
        if self._named is None:
            return 0
        named = self._named
        return sum(1 for index in indices if index in named)

    def refuse_some(self, indices: Sequence[int], outcome: NotSent) -> None:
        """Settle these records before they were queued."""
        if self._named is None:
            self._named = {}
        for index in indices:
            self._named[index] = outcome
        self._settled(len(indices))

    def refuse(self, outcome: NotSent) -> None:
        """Settle every record before any was queued."""
        run = Run(self, range(self._count), (), 0, 0, None, 0)
        run.outcome = outcome
        run.delivery = None
        run.open = 0
        self._head = run
        self._open = 0

    def end(self, reason: str, indices: Iterable[int] | None = None) -> None:
        """Give every unsettled record (among ``indices``) the outcome that its home says, with this reason."""
        if self._open == 0:
            return
        wanted = None if indices is None else set(indices)
        run = self._head
        while run is not None and self._open:
            after = run.next
            if run.open:
                self.end_run(run, reason, wanted)
            run = after

    def end_run(self, run: Run, reason: str, wanted: set[int] | None = None) -> None:
        """As `end`, for one run."""
        home = run.home
        assert home is not None, "an open run without a home"
        if wanted is not None:
            named = self._named or ()
            positions = [j for j, index in enumerate(run.indices) if index in wanted and index not in named]
            if not positions:
                return
            if len(positions) < run.open:
                outcome = home.release_some(run, positions, reason)
                if self._named is None:
                    self._named = {}
                for j in positions:
                    self._named[run.indices[j]] = outcome
                run.open -= len(positions)
                self._settled(len(positions))
                home.released()
                return
        outcome = home.release(run, reason)
        count, run.open = run.open, 0
        run.outcome = outcome
        if isinstance(outcome, NotSent):
            run.home = None
            run.delivery = None
        self._settled(count)
        home.released()

    def resolved(self, run: Run, resolution: Resolution) -> bool:
        """The batch that carried this run has ended; returns whether `report` is to follow."""
        run.home = None
        run.delivery = None
        count = run.open
        if run.outcome is None:
            run.outcome = resolution
            run.open = 0
            if self._named is None and not isinstance(resolution, Unknown):
                # The usual case, kept short: nobody had left, all records of the run end alike.
                self._open -= count
                if self._open == 0 and self._task is not None:
                    task, self._task = self._task, None
                    trio.lowlevel.reschedule(task)
                return False
            self._settled(count)
        run.resolution = resolution
        return self._fn is not None

    def report(self, run: Run) -> None:
        """Tell ``on_resolved`` of this run's end, when all of its batch is settled: ``fn`` may take back others."""
        if self._fn is not None and run.resolution is not None:
            self._report(run, run.resolution, self._fn)

    def fail_one(self, run: Run, position: int, outcome: NotSent) -> bool:
        """Give one record of a run an outcome of its own (a broker named it); the rest of the run goes on.

        The caller removes it from the run afterwards. A record already Unknown to its caller is reported as resolved;
        returns whether it was still waited for.
        """
        index = run.indices[position]
        told = run.outcome if self._named is None else self._named.get(index, run.outcome)
        if told is None:
            if self._named is None:
                self._named = {}
            self._named[index] = outcome
            run.open -= 1
            self._settled(1)
            return True
        remains = Run(self, (index,), (), 0, 0, None, 0)
        remains.delivery = None
        remains.open = 0
        remains.outcome = told
        remains.resolution = outcome
        self.add(remains)
        if self._fn is not None:
            self._fn(index, outcome)
        return False

    def _stop_waiting(self, _: trio.lowlevel.RaiseCancelT) -> trio.lowlevel.Abort:
        # Withdrawing is the block's end, not the waiter's (kafka.md rule 2). But the task is scheduled from here on: an
        # outcome that comes before it runs must not schedule it a second time.
        self._task = None
        return trio.lowlevel.Abort.SUCCEEDED

    def _settled(self, count: int) -> None:
        self._open -= count
        if self._open == 0 and self._task is not None:
            task, self._task = self._task, None
            trio.lowlevel.reschedule(task)

    def _report(self, run: Run, resolution: Resolution, fn: ResolvedFn) -> None:
        named = self._named or {}
        for j, index in enumerate(run.indices):
            if isinstance(named.get(index, run.outcome), Unknown):
                fn(index, outcome_at(run, resolution, j))

    def __repr__(self) -> str:
        return f"<Delivery of {self._count}, {self._open} unsettled{', waited for' if self._task else ''}>"
