"""A sealed batch: records with sequence numbers and final bytes, and the table of its states.

Owns: the range of sequences, the bytes, the taint, who of it is still waited for. Refuses to know: its neighbours (the
partition's window) and sockets.

Theory. From the seal on a batch is immutable: whoever is cancelled, the same records go out under the same (id, epoch,
first sequence), because the broker recognises a repetition by its exact range only. The only change it ever sees is
another identity or base sequence while answers *prove* that it is not in the log. *Tainted* means that some attempt may
have been appended; it decides between NotSent and Unknown at a final failure and whether the range may be given back,
never whether to retry.

Invariants: a batch ends once; ``in_flight_bytes`` of the account is the sum of ``cost`` of the batches not ended.
"""

import enum
from collections.abc import Sequence

from kafka_client.buffer.run import RECORD_COST_BYTES, Acknowledgement, Part, Resolution, Run
from kafka_client.buffer.segment import Segment
from kafka_client.config import Compression
from kafka_client.outcome import TopicPartition, Unknown
from kafka_client.wire.record_batch import encode_batch, renumber_batch

from .identity import NO_STATE, ProducerState, advance

__all__ = ["Event", "IllegalTransition", "InFlightAccount", "Phase", "SealedBatch"]


class Phase(enum.Enum):
    """Where a batch is on its way."""

    SEALED = "sealed"
    """Has a range; no byte of it was ever handed to a socket."""
    IN_FLIGHT = "in flight"
    RETRY_WAIT = "waits for its next attempt"
    ABANDONED = "in flight, given up"
    """Its records are resolved Unknown; it holds its range until the answer comes or the connection ends."""
    ENDED = "ended"


class Event(enum.Enum):
    """What can happen to a batch."""

    WRITE = "an attempt starts"
    AGAIN = "to be tried again"
    END = "resolved"
    ABANDON = "its deadline is over"


# phase -> event -> phase; what is not listed is a bug.
_TRANSITIONS: dict[Phase, dict[Event, Phase]] = {
    Phase.SEALED: {Event.WRITE: Phase.IN_FLIGHT, Event.END: Phase.ENDED, Event.ABANDON: Phase.ENDED},
    Phase.IN_FLIGHT: {Event.AGAIN: Phase.RETRY_WAIT, Event.END: Phase.ENDED, Event.ABANDON: Phase.ABANDONED},
    Phase.RETRY_WAIT: {Event.WRITE: Phase.IN_FLIGHT, Event.END: Phase.ENDED, Event.ABANDON: Phase.ENDED},
    Phase.ABANDONED: {Event.END: Phase.ENDED},
    Phase.ENDED: {},
}


class IllegalTransition(AssertionError):
    """A bug of ours: an event that the batch's phase does not allow."""


class InFlightAccount:
    """Bytes of sealed batches, all partitions together, and what of them nobody waits for."""

    __slots__ = (
        "batches",
        "delivered_total",
        "detached_batches",
        "detached_bytes",
        "detached_records",
        "late_delivered_total",
        "late_not_sent_total",
        "late_unknown_total",
        "limit_bytes",
        "not_sent_total",
        "unknown_total",
        "used_bytes",
    )

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        """Nothing is sealed while `used_bytes` has reached it: it is exceeded by at most one batch."""
        self.used_bytes = 0
        self.batches = 0
        self.detached_batches = 0
        """Batches of which nobody waits for any record."""
        self.detached_records = 0
        self.detached_bytes = 0
        # Records by what their callers were told, and what became later of those who were told Unknown by a detachment.
        self.delivered_total = 0
        self.not_sent_total = 0
        self.unknown_total = 0
        self.late_delivered_total = 0
        self.late_not_sent_total = 0
        self.late_unknown_total = 0

    @property
    def full(self) -> bool:
        """Whether nothing may be sealed for now."""
        return self.used_bytes >= self.limit_bytes

    def count_end(self, resolution: Resolution, told: int, late: int) -> None:
        """Count a batch's end: ``told`` records were still waited for, ``late`` were not."""
        if isinstance(resolution, Acknowledgement):
            self.delivered_total += told
            self.late_delivered_total += late
        elif isinstance(resolution, Unknown):
            self.unknown_total += told
            self.late_unknown_total += late
        else:
            self.not_sent_total += told
            self.late_not_sent_total += late


class SealedBatch:
    """One batch from the seal to its end; the keeper of its segment."""

    __slots__ = (
        "_account",
        "attempts",
        "base_sequence",
        "called_at",
        "codec",
        "compression_min_bytes",
        "cost",
        "count",
        "deadline",
        "detached",
        "detached_bytes",
        "leader_epoch",
        "ordinal",
        "partition",
        "phase",
        "proved",
        "re_encoded",
        "restamped",
        "sealed_at",
        "segment",
        "state",
        "tainted",
        "wire",
    )

    def __init__(
        self,
        partition: TopicPartition,
        segment: Segment,
        *,
        account: InFlightAccount,
        cost: int,
        called_at: float,
        sealed_at: float,
        deadline: float,
        codec: Compression,
        compression_min_bytes: int,
    ) -> None:
        self.partition = partition
        segment.keeper = self
        self.segment = segment
        """Its records; empty once it has ended."""
        self.count = len(segment.tails)
        """Records in it."""
        self.cost = cost
        """What it counts on the account."""
        self.called_at = called_at
        """When its oldest record was handed over."""
        self.sealed_at = sealed_at
        self.deadline = deadline
        """When it is abandoned."""
        self.codec = codec
        self.compression_min_bytes = compression_min_bytes
        self.state: ProducerState = NO_STATE
        self.base_sequence = -1
        self.ordinal = -1
        """Its place in the order of seals of the partition: sequences wrap, ordinals do not."""
        self.wire = b""
        self.phase = Phase.SEALED
        self.attempts = 0
        self.tainted = False
        self.proved = False
        """A later acknowledgement proves that it is in the log; implies `tainted`."""
        self.leader_epoch = -1
        """Under which its last attempt was written."""
        self.re_encoded = False
        self.restamped = False
        self.detached = 0
        """Records that nobody waits for."""
        self.detached_bytes = 0
        self._account = account
        account.used_bytes += cost
        account.batches += 1

    @classmethod
    def seal(
        cls,
        partition: TopicPartition,
        segment: Segment,
        *,
        account: InFlightAccount,
        called_at: float,
        now: float,
        timeout_s: float,
        codec: Compression,
        compression_min_bytes: int,
    ) -> "SealedBatch":
        """Make a batch of a segment taken from the queue; the range comes with `number`."""
        return cls(
            partition,
            segment,
            account=account,
            cost=segment.size_bytes + RECORD_COST_BYTES * segment.live,
            called_at=called_at,
            sealed_at=now,
            deadline=now + timeout_s,
            codec=codec,
            compression_min_bytes=compression_min_bytes,
        )

    @property
    def runs(self) -> list[Run]:
        """The runs in it, in order."""
        return self.segment.runs

    @property
    def next_sequence(self) -> int:
        """The sequence after its last record's."""
        return advance(self.base_sequence, self.count)

    def step(self, event: Event) -> None:
        """Move to the next phase; an event that the phase does not allow is a bug."""
        following = _TRANSITIONS[self.phase].get(event)
        if following is None:
            raise IllegalTransition(f"{event} in {self!r}")
        self.phase = following

    def number(self, state: ProducerState, base_sequence: int) -> None:
        """Give it its range; again only while it is proved not to be in the log."""
        assert not self.tainted, "a range that may be in the log is never changed"
        self.state = state
        self.base_sequence = base_sequence
        if self.wire:
            self.wire = renumber_batch(
                self.wire, producer_id=state.producer_id, producer_epoch=state.epoch, base_sequence=base_sequence
            )

    def encode(self, *, codec: Compression | None = None) -> None:
        """Make its bytes; the same range gives the same records, another codec does not change the range."""
        segment = self.segment
        self.wire = encode_batch(
            segment.tails,  # type: ignore[arg-type]  # no tombstones after the seal
            segment.timestamps,
            producer_id=self.state.producer_id,
            producer_epoch=self.state.epoch,
            base_sequence=self.base_sequence,
            codec=codec or self.codec,
            compression_min_bytes=self.compression_min_bytes,
            plain=segment.plain,
        )

    # The keeper of its segment: it lives on without those who leave.

    def release(self, run: Run, reason: str) -> Unknown:
        """Detach a run: its caller is gone, its records are not."""
        self._detach(run.open, self._share(run, run.open))
        return _unknown(reason)

    def release_some(self, run: Part, positions: Sequence[int], reason: str) -> Unknown:
        """Detach some records of a run."""
        tails, first = self.segment.tails, run.first
        self._detach(len(positions), sum([len(tails[first + position] or b"") for position in positions]))
        return _unknown(reason)

    def released(self) -> None:
        """Nothing comes back before the batch ends."""

    def end_due(self, now: float, reason: str) -> None:
        """Tell the waiters whose delivery timeout is over; the batch goes on."""
        while (run := self.segment.head()) is not None and run.deadline <= now:
            run.end(reason)

    def next_delivery_deadline(self) -> float | None:
        """The next moment at which `end_due` has something to tell: runs are in the order of their calls."""
        run = self.segment.head()
        return None if run is None else run.deadline

    def adopt(self, runs: Sequence[Run]) -> None:
        """Take over the runs of a batch that this one is made of, with what of them nobody waits for."""
        self.segment.adopt(runs)
        for run in runs:
            detached = run.count if run.outcome is not None else run.count - run.open
            self._count_detached(detached, self._share(run, detached))
        if self.detached == self.count:
            self._account.detached_batches += 1

    def _detach(self, count: int, size: int) -> None:
        before = self.detached
        self._account.unknown_total += count
        self._count_detached(count, size)
        if before < self.count == self.detached:
            self._account.detached_batches += 1

    def _share(self, run: Run, count: int) -> int:
        """The bytes of so many of the run's records, were all of them alike."""
        if count == 0:
            return 0
        size = sum([len(tail) for tail in self.segment.tails[run.first : run.first + run.count] if tail])
        return size * count // run.count

    def _count_detached(self, count: int, size: int) -> None:
        size += RECORD_COST_BYTES * count
        self.detached += count
        self.detached_bytes += size
        self._account.detached_records += count
        self._account.detached_bytes += size

    # Its end.

    def acknowledge(self, base_offset: int, log_append_time_ms: int) -> None:
        """The log has it; ``base_offset`` -1: somewhere.

        A broker that recognises a repetition gives the highest of the batch's timestamps for the time of appending,
        whatever the topic's ``message.timestamp.type`` is (UnifiedLog's ``setLogAppendTime(duplicate.timestamp)``;
        seen with Apache Kafka 4.1.0): then the records stand there with their own.
        """
        if self.attempts > 1 and log_append_time_ms == max(self.segment.timestamps):
            log_append_time_ms = -1
        self.resolve(Acknowledgement(self.partition, base_offset, log_append_time_ms, self.attempts))

    def resolve(self, resolution: Resolution) -> None:
        """End all records alike and give the bytes back, exactly once."""
        self.step(Event.END)
        self.settle(resolution)
        self.close_account()

    def settle(self, resolution: Resolution) -> None:
        """Tell every run. The account is closed apart: an abandoned batch holds its bytes until its answer."""
        self._account.count_end(resolution, self.count - self.detached, self.detached)
        self.segment.end(resolution)

    def close_account(self) -> None:
        """Give the bytes back."""
        account = self._account
        account.used_bytes -= self.cost
        account.batches -= 1
        if self.detached:
            account.detached_records -= self.detached
            account.detached_bytes -= self.detached_bytes
            if self.detached == self.count:
                account.detached_batches -= 1

    def __repr__(self) -> str:
        taint = ", tainted" if self.tainted else ""
        return (
            f"<SealedBatch {self.partition.topic}/{self.partition.partition} {self.phase.value}, {self.count} records, "
            f"{self.state.producer_id}/{self.state.epoch}/{self.base_sequence}, {self.attempts} attempts{taint}>"
        )


_UNKNOWN: dict[str, Unknown] = {}


def _unknown(reason: str) -> Unknown:
    outcome = _UNKNOWN.get(reason)
    if outcome is None:
        outcome = Unknown(reason)
        if len(_UNKNOWN) < 64:
            _UNKNOWN[reason] = outcome
    return outcome
