"""A delivery of more than one record, or of none: counts its records down, run by run.

Owns: the runs, the count, the outcomes that single records were given. Refuses to know: homes, but for their side of
the contract.

Invariants: every record is in exactly one part, or has its outcome in ``named``; ``open`` is the number of records
without an outcome, and the sum of its parts' ``open``.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from functools import partial

from kafka_client.outcome import NotSent, Outcome, Unknown

from .delivery import Delivery, ResolvedFn, nothing_to_tell, told_twice
from .run import Acknowledgement, Ended, Part, Resolution, outcome_at, spell

__all__ = ["Bulk"]


class Bulk(Delivery, gc=False, eq=False):
    """A delivery of any other number of records."""

    count: int
    open: int
    """Records without an outcome."""
    parts: list[Part]
    named: dict[int, NotSent | Unknown] | None = None
    """Outcomes that single records were given."""
    spelled: list[Outcome | None] | None = None
    done: int = 0
    """Before this place among ``parts`` nothing is left to report."""

    def __len__(self) -> int:
        return self.count

    @property
    def outcomes(self) -> list[Outcome | None]:
        """As in the base."""
        if self.spelled is None:
            outcomes: list[Outcome | None] = [None] * self.count
            for part in self.parts:
                told = part.outcome or (None if part.home is None else part.home.resolution)
                if told is not None:
                    spell(part, told, outcomes)
            if self.named is not None:
                for index, outcome in self.named.items():
                    outcomes[index] = outcome
            if self.open:
                return outcomes
            self.spelled = outcomes
        return self.spelled.copy()  # the caller's to change; ours are given once

    @property
    def delivered(self) -> bool:
        """As in the base."""
        if self.open or self.named is not None:
            return False
        for part in self.parts:
            if part.outcome is not None or part.home is None or part.home.resolution.__class__ is not Acknowledgement:
                return False
        return True

    @property
    def unsettled(self) -> int:
        """As in the base."""
        return self.open

    def on_resolved(self, fn: ResolvedFn) -> None:
        """As in the base."""
        if self.fn is not None:
            raise told_twice()
        self.fn = fn
        for part in tuple(self.parts):
            if part.home is not None and part.home.resolution is not None:
                self._report(part, part.home.resolution, fn)
        self.forget_fn()

    def watch(self) -> bool:
        """As in the base; its runs are told in any case."""
        return self.open > 0

    def named_among(self, indices: Sequence[int]) -> int:
        """How many of these records have an outcome of their own."""
        if self.named is None:
            return 0
        named = self.named
        return sum([index in named for index in indices])

    def replace(self, part: Part, others: Sequence[Part]) -> None:
        """Put others in the place of a run that was cut up by partition."""
        self.parts = [*others, *(other for other in self.parts if other is not part)]
        self.done = 0
        part.delivery = None
        part.home = None
        part.open = 0

    def refuse_some(self, indices: Sequence[int], outcome: NotSent) -> None:
        """Settle these records before they were queued."""
        self._name(indices, outcome)
        self._settled(len(indices))

    def refuse(self, outcome: NotSent) -> None:
        """As in the base."""
        for part in self.parts:  # their parcels are dropped: the collector of cycles would not see them
            part.delivery, part.home, part.open = None, None, 0
        part = Part(None, range(self.count), 0, 0)
        part.outcome = outcome
        self.parts = [part]
        self.open = 0

    def end(self, reason: str, indices: Iterable[int] | None = None) -> None:
        """As in the base."""
        wanted = None if indices is None else sorted(set(indices))
        parts: list[Part] = []
        # Again if what came back let other runs of it in, which cuts them up: by partition, or where a batch is full.
        while self.open and self.parts != parts:
            parts = list(self.parts)
            for part in parts:
                if part.open:
                    self.end_part(part, reason, wanted)

    def end_part(self, part: Part, reason: str, wanted: Sequence[int] | None = None) -> None:
        """As `end`, for one run."""
        home = part.home
        assert home is not None, "an open run without a home"
        if wanted is not None:
            positions = self._positions(part, wanted)
            if not positions:
                return
            if len(positions) < part.open:
                taken_back = [part.indices[j] for j in positions]  # before a sweep moves the others up
                self._name(taken_back, home.release_some(part, positions, reason))
                part.open -= len(positions)
                self._settled(len(positions))
                home.released()
                return
        outcome = home.release(part, reason)
        count, part.open = part.open, 0
        part.outcome = outcome
        if isinstance(outcome, NotSent):
            part.home = None
            part.delivery = None
        self._settled(count)
        if self.fn is not None:
            self.forget_fn()
        home.released()

    def _positions(self, part: Part, wanted: Sequence[int]) -> list[int]:
        """Where in the run the open ones among these are; both are sorted. A run may be far longer than they are."""
        indices, named = part.indices, self.named or ()
        first, last = indices[0], indices[-1]
        positions = []
        for index in wanted[bisect_left(wanted, first) : bisect_right(wanted, last)]:
            position = bisect_left(indices, index)
            if indices[position] == index and index not in named:
                positions.append(position)
        return positions

    def part_ended(self, part: Part, resolution: Resolution) -> bool:
        """The home of this run has ended; returns whether `report` is to follow."""
        count, part.open = part.open, 0
        self._settled(count)
        if self.fn is None:
            return False
        part.delivery = self  # for the report
        return True

    def report(self, part: Part, resolution: Resolution) -> None:
        """Tell ``on_resolved`` of this run's end, when all of its batch is settled: ``fn`` may take back others."""
        part.delivery = None
        if self.fn is not None:
            self._report(part, resolution, partial(self.tally.tell, self.fn))
            self.forget_fn()

    def fail_one(self, part: Part, position: int, outcome: NotSent) -> bool:
        """Give one record of a run an outcome of its own (a broker named it); the rest of the run goes on.

        The caller removes it from the run afterwards. A record already Unknown to its caller is reported as resolved;
        returns whether it was still waited for.
        """
        index = part.indices[position]
        told = part.outcome if self.named is None else self.named.get(index, part.outcome)
        if told is None:
            self._name((index,), outcome)
            part.open -= 1
            self._settled(1)
            return True
        assert isinstance(told, Unknown)
        remains = Part(None, (index,), 0, 0)
        remains.outcome = told
        remains.home = Ended(outcome)
        self.parts.append(remains)
        if self.fn is not None:
            self.tally.tell(self.fn, index, outcome)
        return False

    def _name(self, indices: Sequence[int], outcome: NotSent | Unknown) -> None:
        if self.named is None:
            self.named = {}
        for index in indices:
            self.named[index] = outcome

    def _settled(self, count: int) -> None:
        self.open -= count
        if self.open == 0:
            self.wake()

    def _report(self, part: Part, resolution: Resolution, fn: ResolvedFn) -> None:
        named = self.named or {}
        for j, index in enumerate(part.indices):
            told = named.get(index, part.outcome) or resolution
            if isinstance(told, Unknown):
                fn(index, outcome_at(part, resolution, j))

    def forget_fn(self) -> None:
        """It may refer to this delivery. Kept while a run is open, or ended and about to be reported."""
        if self.open:
            return
        parts = self.parts
        while self.done < len(parts):
            part = parts[self.done]
            if part.delivery is not None or (part.home is not None and part.home.resolution is None):
                return
            self.done += 1
        self.fn = nothing_to_tell

    def __repr__(self) -> str:
        return f"<Delivery of {self.count}, {self.open} unsettled{', waited for' if self.task else ''}>"
