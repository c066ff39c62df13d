"""What to do with a batch after an answer: a pure function of the answer, the error table and the batch's history.

Owns: the reading of `kafka_client.wire.error_codes` rows against taint, size, and what was tried before. Refuses to
know: windows, queues, time: the partition carries the decision out.

Invariant: `Step.FINAL` for a batch that is tainted, now or before, ends in Unknown; NotSent needs a definite rejection
of a batch none of whose attempts may have been appended.
"""

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from kafka_client.outcome import NotSent, Unknown
from kafka_client.wire.error_codes import Action, ErrorRow
from kafka_client.wire.produce import PartitionResult, RecordError

from .batch import SealedBatch

__all__ = ["Decision", "Step", "decide", "final_outcome"]


class Step(enum.Enum):
    """What follows."""

    DELIVERED = enum.auto()
    AGAIN = enum.auto()
    """The same bytes, after the backoff."""
    FINAL = enum.auto()
    """NotSent, or Unknown where tainted."""
    SPLIT = enum.auto()
    """Halve it; the halves keep the range."""
    RE_ENCODE = enum.auto()
    RESTAMP = enum.auto()
    WITHOUT = enum.auto()
    """The named records are NotSent, the rest goes on as a shorter batch."""
    BEHIND = enum.auto()
    """Again, after the earlier batch that is being retried."""
    LEAVE = enum.auto()
    """The identity is of no use any more for this partition: next epoch, or a new id."""
    OPERATOR_TOPIC = enum.auto()
    OPERATOR_PRODUCER = enum.auto()
    RENEGOTIATE = enum.auto()


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """One step and what it needs."""

    step: Step
    taints: bool = False
    """This answer leaves it open that the batch was appended."""
    positions: tuple[int, ...] = ()
    """For WITHOUT and RESTAMP: the records named, by position in the batch."""
    new_id: bool = False
    """For LEAVE: the epoch cannot be bumped locally."""


_DELIVERED = Decision(step=Step.DELIVERED)


def decide(batch: SealedBatch, row: ErrorRow, result: PartitionResult, *, is_next: bool) -> Decision:
    """Read the answer.

    Args:
        is_next: its first sequence is the one that the broker should expect.
    """
    if row.action is Action.DELIVERED:
        return _DELIVERED  # nearly always; the rest makes a dozen objects
    taints = row.tainted_by(result.base_offset)
    step, positions, new_id = _step(batch, row, result, is_next, tainted=batch.tainted or taints)
    return Decision(step=step, taints=taints, positions=positions, new_id=new_id)


_Choice: TypeAlias = tuple[Step, tuple[int, ...], bool]
"""Step, positions, new_id."""


def _step(batch: SealedBatch, row: ErrorRow, result: PartitionResult, is_next: bool, *, tainted: bool) -> _Choice:
    action = row.action
    if action in _PLAIN:
        return _PLAIN[action], (), False
    if action is Action.RE_ENCODE_ONCE:
        return Step.FINAL if batch.re_encoded else Step.RE_ENCODE, (), False
    if action is Action.SPLIT:
        return Step.SPLIT if batch.count > 1 and not tainted else Step.FINAL, (), False
    if action in (Action.SEQUENCE, Action.EPOCH):
        if batch.proved:
            return Step.DELIVERED, (), False
        return _sequence(is_next) if action is Action.SEQUENCE else _epoch(row, result)
    named = _named(result.record_errors, batch.count)
    if action is Action.RESTAMP and not batch.restamped:
        return Step.RESTAMP, named or tuple(range(batch.count)), False
    return _without(batch, named, tainted=tainted)


_PLAIN = {
    Action.RETRY: Step.AGAIN,
    Action.FINAL_RECORD: Step.FINAL,
    Action.FINAL_UNKNOWN: Step.FINAL,
    Action.OPERATOR_TOPIC: Step.OPERATOR_TOPIC,
    Action.OPERATOR_PRODUCER: Step.OPERATOR_PRODUCER,
    Action.RENEGOTIATE: Step.RENEGOTIATE,
}


def _sequence(is_next: bool) -> _Choice:
    return (Step.LEAVE if is_next else Step.BEHIND), (), False


#: INVALID_PRODUCER_EPOCH: the log has a higher epoch than we know of; INVALID_PRODUCER_ID_MAPPING: the id is gone.
_NEED_NEW_ID = frozenset({47, 49})


def _epoch(row: ErrorRow, result: PartitionResult) -> _Choice:
    if row.code not in _NEED_NEW_ID and result.log_start_offset == -1:
        return Step.AGAIN, (), False  # UNKNOWN_PRODUCER_ID without a log start says nothing (KIP-360)
    return Step.LEAVE, (), row.code in _NEED_NEW_ID


def _without(batch: SealedBatch, named: tuple[int, ...], *, tainted: bool) -> _Choice:
    if tainted or batch.count == 1 or len(named) == batch.count:
        return Step.FINAL, (), False
    if not named:
        return Step.SPLIT, (), False  # the broker names nobody: halving finds the culprit
    return Step.WITHOUT, named, False


def _named(errors: Sequence[RecordError], count: int) -> tuple[int, ...]:
    return tuple(sorted({error.batch_index for error in errors if 0 <= error.batch_index < count}))


def final_outcome(row: ErrorRow, result: PartitionResult, *, tainted: bool) -> NotSent | Unknown:
    """The outcome of a final failure, with the broker's words where it has any."""
    detail = result.error_message or row.advice
    reason = f"{row.name}: {detail}" if detail else row.name
    return Unknown(reason) if tainted else NotSent(reason)
