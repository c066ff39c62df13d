"""Runs: records of one delivery that lie together in one place, and the places' side of the contract.

Owns: what a run is, how it is cut, and how a batch's acknowledgement is spelled out into `Delivered` values. Refuses to
know: who waits (the delivery), and what a place does with its runs.

Invariant: a run is always wholly in one home. ``open`` of its records have no outcome yet; the outcomes of the others
are the run's own ``outcome`` or stand in the delivery by index.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol, TypeAlias

import msgspec

from kafka_client.outcome import Delivered, NotSent, Outcome, TopicPartition, Unknown

if TYPE_CHECKING:
    from .delivery import Delivery

__all__ = ["RECORD_COST_BYTES", "Acknowledgement", "Home", "Resolution", "Run", "outcome_at", "spell"]

#: What a queued record costs beside its bytes, on the byte accounts: a run, its share of a delivery, list slots, the
#: header of a bytes object. Measured 40 bytes in bulk to 400 alone; the accounts take one figure for both.
RECORD_COST_BYTES = 100


class Acknowledgement:
    """One batch's acknowledgement, shared by all runs in it; `Delivered` values are made from it on demand."""

    __slots__ = ("attempts", "base_offset", "log_append_time_ms", "partition")

    def __init__(self, partition: TopicPartition, base_offset: int, log_append_time_ms: int, attempts: int) -> None:
        self.partition = partition
        self.base_offset = base_offset
        self.log_append_time_ms = log_append_time_ms
        self.attempts = attempts


#: How a run ended.
Resolution: TypeAlias = Acknowledgement | NotSent | Unknown


class Home(Protocol):
    """Where a run is: says what becomes of records that nobody waits for any more."""

    def release(self, run: "Run", reason: str) -> NotSent | Unknown:
        """Let go of the whole run; called once, before the outcome is stored. Synchronous, cannot fail."""
        ...

    def release_some(self, run: "Run", positions: Sequence[int], reason: str) -> NotSent | Unknown:
        """Let go of the records at these positions of the run; at least one other is still open."""
        ...

    def released(self) -> None:
        """Called after each of the two, when the outcomes are stored: the bytes that came back may be used now."""
        ...


class Run(msgspec.Struct, gc=False, eq=False):
    """Consecutive records of one delivery in one home.

    The collector of cycles does not look at it: the one cycle it is part of, with its delivery, is cut when it ends.
    """

    delivery: "Delivery | None"
    """None once it has ended."""
    indices: Sequence[int]
    """Positions of its records in the delivery."""
    tails: Sequence[bytes | None]
    """The encoded records; None for one taken back. Empty once a batch owns them or nobody does."""
    size: int
    """Sum of the lengths of ``tails``."""
    timestamps: int | list[int]
    """Milliseconds; one number when all records share it."""
    home: Home | None
    open: int
    """Records in here without an outcome."""
    outcome: "Resolution | None" = None
    """What the caller was told about the whole run; the delivery's ``_named`` overrides it record by record."""
    resolution: "Resolution | None" = None
    """How its batch ended, kept for runs of which something was Unknown."""
    first: int = 0
    """Position of its first record in the batch."""
    routes: list[int] | None = None
    """Per record, while the topic's partitions are unknown: see `kafka_client.buffer.partitioner`."""
    next: "Run | None" = None

    def timestamp(self, position: int) -> int:
        """The CreateTime of the record at this position."""
        return self.timestamps if isinstance(self.timestamps, int) else self.timestamps[position]

    def compact(self) -> None:
        """Drop the records that were taken back; only for a run in a queue."""
        keep = [j for j, tail in enumerate(self.tails) if tail is not None]
        if len(keep) == len(self.indices):
            return
        self.indices = [self.indices[j] for j in keep]
        self.tails = [self.tails[j] for j in keep]
        if not isinstance(self.timestamps, int):
            self.timestamps = [self.timestamps[j] for j in keep]
        if self.routes is not None:
            self.routes = [self.routes[j] for j in keep]

    def split(self, position: int) -> "Run":
        """Cut before this position; self keeps the front, the rest comes back as a new run of the same delivery.

        Only for a dense run (see `compact`), in a queue or a batch. Open records are counted on the side they are on.
        """
        delivery = self.delivery
        assert delivery is not None
        rest_tails = self.tails[position:]
        rest_size = sum(len(tail) for tail in rest_tails if tail is not None)
        stamps = self.timestamps if isinstance(self.timestamps, int) else self.timestamps[position:]
        rest_indices = self.indices[position:]
        rest = Run(delivery, rest_indices, rest_tails, rest_size, stamps, self.home, len(rest_indices))
        rest.outcome = self.outcome
        rest.first = self.first + position
        if self.outcome is not None:
            rest.open = 0
        else:
            rest.open -= delivery.named_among(rest.indices)
            self.open -= rest.open
        if self.routes is not None:
            rest.routes, self.routes = self.routes[position:], self.routes[:position]
        self.indices = self.indices[:position]
        self.tails = self.tails[:position]
        self.size -= rest_size
        if not isinstance(self.timestamps, int):
            self.timestamps = self.timestamps[:position]
        rest.next, self.next = self.next, rest
        return rest

    def __repr__(self) -> str:
        return f"<Run of {len(self.indices)}, {self.open} open, {self.size} bytes, outcome={self.outcome!r}>"


def outcome_at(run: Run, resolution: Resolution, position: int) -> Outcome:
    """How the record at this position of the run ended."""
    if isinstance(resolution, Acknowledgement):
        stamp = resolution.log_append_time_ms
        return Delivered(
            resolution.partition,
            resolution.base_offset + run.first + position if resolution.base_offset >= 0 else -1,
            stamp if stamp >= 0 else run.timestamp(position),
            resolution.attempts,
        )
    return resolution


def spell(run: Run, resolution: Resolution, outcomes: list[Outcome | None]) -> None:
    """Put the outcome of each record of the run where it belongs among its delivery's."""
    if not isinstance(resolution, Acknowledgement):
        for index in run.indices:
            outcomes[index] = resolution
    elif isinstance(run.timestamps, int) and resolution.base_offset >= 0:
        # As `outcome_at` in a loop, for the usual case: bulk deliveries spend their time here.
        stamp = run.timestamps if resolution.log_append_time_ms < 0 else resolution.log_append_time_ms
        partition, attempts = resolution.partition, resolution.attempts
        offset = resolution.base_offset + run.first
        for index in run.indices:
            outcomes[index] = Delivered(partition, offset, stamp, attempts)
            offset += 1
    else:
        for j, index in enumerate(run.indices):
            outcomes[index] = outcome_at(run, resolution, j)
