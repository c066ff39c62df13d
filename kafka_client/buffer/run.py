"""Runs: records of one delivery that lie together in one place, and the places' side of the contract.

Owns: what a run of a bulk delivery is, how it is cut, and how a batch's acknowledgement is spelled out into `Delivered`
values. Refuses to know: who waits (the delivery), and what a place does with its runs.

Theory. A run knows its home and where in the home's lists it begins; the records themselves (encoded bytes, timestamps)
are in the home. A delivery of one record, the usual case where every event is answered by itself, *is* its own run
(`kafka_client.buffer.delivery.Single`): one object a record, of the size of its fields. A larger one is cut into `Part`
runs, one for each place that its records are in: 1000 records on 12 partitions are 12 runs.

Invariants: a run is always wholly in one home; the home's ``resolution`` is how all of its runs ended, but for those
that were told something before. ``open`` of a part's records have no outcome yet; the outcomes of the others are the
part's own ``outcome`` or stand in the delivery by index.
"""

from collections.abc import Sequence
from itertools import repeat
from typing import TYPE_CHECKING, Protocol, TypeAlias, Union

import msgspec

from kafka_client.outcome import Delivered, NotSent, Outcome, TopicPartition, Unknown

if TYPE_CHECKING:
    from .bulk import Bulk
    from .delivery import Single

__all__ = [
    "RECORD_COST_BYTES",
    "Acknowledgement",
    "Ended",
    "Home",
    "Part",
    "Resolution",
    "Run",
    "delivered",
    "outcome_at",
    "spell",
]

#: What a queued record costs beside its bytes, on the byte accounts: a run, its share of a delivery, list slots, the
#: header of a bytes object. Measured 40 bytes in bulk to 200 alone; the accounts take one figure for both.
RECORD_COST_BYTES = 100


class Acknowledgement:
    """One batch's acknowledgement, shared by all runs in it; `Delivered` values are made from it on demand."""

    __slots__ = ("attempts", "base_offset", "log_append_time_ms", "of_create_time", "partition")

    def __init__(self, partition: TopicPartition, base_offset: int, log_append_time_ms: int, attempts: int) -> None:
        self.partition = partition
        self.base_offset = base_offset
        self.log_append_time_ms = log_append_time_ms
        self.attempts = attempts
        self.of_create_time = base_offset >= 0 and log_append_time_ms < 0
        """The usual case: offsets are known, and the records stand there with their own timestamps."""


#: How a run ended.
Resolution: TypeAlias = Acknowledgement | NotSent | Unknown

#: What the places deal with.
Run: TypeAlias = Union["Single", "Part"]


class Home(Protocol):
    """Where a run is: says what becomes of records that nobody waits for any more."""

    @property
    def resolution(self) -> Resolution | None:
        """How everything in here ended; None until then."""
        ...

    def watch(self, run: Run) -> None:
        """Call `told` of this run when everything in here ends; once for a run."""
        ...

    def release(self, run: Run, reason: str) -> NotSent | Unknown:
        """Let go of the whole run; called once, before the outcome is stored. Synchronous, cannot fail."""
        ...

    def release_some(self, run: "Part", positions: Sequence[int], reason: str) -> NotSent | Unknown:
        """Let go of the records at these positions of the run; at least one other is still open."""
        ...

    def released(self) -> None:
        """Called after each of the two, when the outcomes are stored: the bytes that came back may be used now."""
        ...


class Ended:
    """The home of a record that its batch lost, because the broker named it: it has ended by itself."""

    __slots__ = ("resolution",)

    def __init__(self, resolution: NotSent) -> None:
        self.resolution: Resolution | None = resolution

    def watch(self, run: Run) -> None:
        """Nothing will happen any more."""

    def release(self, run: Run, reason: str) -> NotSent | Unknown:
        """Never called: nothing is open in here."""
        raise AssertionError("a record that has ended was released")

    def release_some(self, run: "Part", positions: Sequence[int], reason: str) -> NotSent | Unknown:
        """As little."""
        return self.release(run, reason)

    def released(self) -> None:
        """Nothing comes back."""


class Part(msgspec.Struct, gc=False, eq=False):
    """Consecutive records of a bulk delivery in one home.

    The collector of cycles does not look at it: the cycles it is part of, with its delivery and with its home, are cut
    when it ends.
    """

    delivery: "Bulk | None"
    """None once it has ended, or was cut up into others."""
    indices: Sequence[int]
    """Positions of its records in the delivery, those that were taken back in the queue included."""
    timestamps: int | Sequence[int]
    """Milliseconds; one number when all records share it."""
    open: int
    """Records in here without an outcome."""
    routes: Sequence[int] | None = None
    """Per record, if any of them names its partition: the only route that cannot be told from the record."""
    home: Home | None = None
    first: int = 0
    """Position of its first record in the home's lists."""
    outcome: NotSent | Unknown | None = None
    """What the caller was told about the whole run before its home ended; the delivery's ``named`` overrides it record
    by record."""

    @property
    def count(self) -> int:
        """Places it takes in the home's lists."""
        return len(self.indices)

    @property
    def watched(self) -> bool:
        """Always told of its end: its delivery counts."""
        return True

    @property
    def deadline(self) -> float:
        """Its delivery's."""
        assert self.delivery is not None
        return self.delivery.deadline

    def keep(self, positions: Sequence[int]) -> None:
        """Forget all records but those at these positions."""
        if len(positions) == len(self.indices):
            return
        self.indices = [self.indices[j] for j in positions]
        if not isinstance(self.timestamps, int):
            self.timestamps = [self.timestamps[j] for j in positions]
        if self.routes is not None:
            self.routes = [self.routes[j] for j in positions]

    def cut(self, positions: Sequence[int]) -> "list[Part]":
        """Cut before these positions, which rise; self keeps the front, the rest comes back as runs of its delivery.

        Only for a dense run. Open records are counted on the side they are on. The new runs have no home yet.
        """
        delivery = self.delivery
        assert delivery is not None
        rest = []
        for begin, end in zip(positions, (*positions[1:], len(self.indices)), strict=True):
            run = self._stretch(begin, end)
            run.outcome = self.outcome
            if self.outcome is not None:
                run.open = 0
            self.open -= run.open
            rest.append(run)
        stamps, routes, end = self.timestamps, self.routes, positions[0]
        self.indices = self.indices[:end]
        self.timestamps = stamps if isinstance(stamps, int) else stamps[:end]
        self.routes = None if routes is None else routes[:end]
        delivery.parts += rest
        return rest

    def _stretch(self, begin: int, end: int) -> "Part":
        """As `piece`, for neighbours."""
        assert self.delivery is not None
        stamps, routes = self.timestamps, self.routes
        indices = self.indices[begin:end]
        return Part(
            self.delivery,
            indices,
            stamps if isinstance(stamps, int) else stamps[begin:end],
            len(indices) - self.delivery.named_among(indices),
            None if routes is None else routes[begin:end],
        )

    def piece(self, positions: Sequence[int]) -> "Part":
        """A new run of the records at these positions, not known to the delivery yet."""
        assert self.delivery is not None
        stamps, routes, mine = self.timestamps, self.routes, self.indices
        # Of a whole delivery, which is the usual case, a position is the index.
        indices = positions if isinstance(mine, range) and mine.start == 0 else [mine[j] for j in positions]
        return Part(
            self.delivery,
            indices,
            stamps if isinstance(stamps, int) else [stamps[j] for j in positions],
            len(indices) - self.delivery.named_among(indices),
            None if routes is None else [routes[j] for j in positions],
        )

    # The end.

    def end(self, reason: str) -> None:
        """Give its open records the outcome that its home says, with this reason."""
        assert self.delivery is not None
        self.delivery.end_part(self, reason)

    def told(self, resolution: Resolution) -> bool:
        """Its home has ended; returns whether `report` is to follow."""
        assert self.delivery is not None
        delivery, self.delivery = self.delivery, None
        return delivery.part_ended(self, resolution)

    def report(self, resolution: Resolution) -> None:
        """Tell ``on_resolved`` of its end."""
        assert self.delivery is not None
        self.delivery.report(self, resolution)

    def fail_one(self, position: int, outcome: NotSent) -> bool:
        """Give one record an outcome of its own; the caller removes it from the run afterwards. See `Bulk.fail_one`."""
        assert self.delivery is not None
        return self.delivery.fail_one(self, position, outcome)

    def leave(self) -> None:
        """Forget its home and delivery: each of its records has an outcome of its own."""
        delivery, self.delivery, self.home, self.indices = self.delivery, None, None, ()
        if delivery is not None and delivery.fn is not None:
            delivery.forget_fn()

    def __repr__(self) -> str:
        return f"<Part of {len(self.indices)}, {self.open} open, outcome={self.outcome!r}>"


def delivered(resolution: Acknowledgement, position: int, timestamp_ms: int) -> Delivered:
    """The outcome of the record at this position of an acknowledged batch."""
    stamp = resolution.log_append_time_ms
    offset = resolution.base_offset
    return Delivered(
        resolution.partition,
        offset + position if offset >= 0 else -1,
        stamp if stamp >= 0 else timestamp_ms,
        resolution.attempts,
    )


def outcome_at(part: Part, resolution: Resolution, position: int) -> Outcome:
    """How the record at this position of the part ended."""
    if isinstance(resolution, Acknowledgement):
        stamps = part.timestamps
        return delivered(resolution, part.first + position, stamps if isinstance(stamps, int) else stamps[position])
    return resolution


def spell(part: Part, resolution: Resolution, outcomes: list[Outcome | None]) -> None:
    """Put the outcome of each record of the part where it belongs among its delivery's."""
    if not isinstance(resolution, Acknowledgement):
        for index in part.indices:
            outcomes[index] = resolution
    elif isinstance(part.timestamps, int) and resolution.base_offset >= 0:
        # As `outcome_at` in a loop, for the usual case: bulk deliveries spend their time here.
        stamp = part.timestamps if resolution.log_append_time_ms < 0 else resolution.log_append_time_ms
        offset = resolution.base_offset + part.first
        indices = part.indices
        all_of_it = map(
            Delivered,
            repeat(resolution.partition),
            range(offset, offset + len(indices)),
            repeat(stamp),
            repeat(resolution.attempts),
        )
        if isinstance(indices, range):
            outcomes[indices.start : indices.stop] = all_of_it
        else:
            for index, outcome in zip(indices, all_of_it, strict=True):
                outcomes[index] = outcome
    else:
        for j, index in enumerate(part.indices):
            outcomes[index] = outcome_at(part, resolution, j)
