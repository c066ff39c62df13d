"""Making batches out of a rejected one: encoded afresh, halved, or without the records that the broker named.

Owns: moving runs, records and bytes of the account from a batch that is proved absent into its successors. Refuses to
know: sequences (the window numbers the successors) and why the batch was rejected.

Invariant: every record of the old batch is in exactly one successor or has its outcome; the account's total changes by
the records that ended.
"""

from collections.abc import Sequence

from kafka_client.buffer.run import RECORD_COST_BYTES, Part, Run
from kafka_client.buffer.segment import Segment
from kafka_client.outcome import NotSent, Unknown

from .batch import Event, InFlightAccount, SealedBatch
from .decisions import Decision, Step
from .window import Window

__all__ = ["halves", "remake", "without"]


def remake(
    decision: Decision,
    batch: SealedBatch,
    window: Window,
    account: InFlightAccount,
    outcome: NotSent | Unknown,
    now_ms: int,
) -> None:
    """Change what the broker did not take, as far as its range allows. ``outcome`` is for the records it named."""
    match decision.step:
        case Step.RE_ENCODE:
            batch.re_encoded = True
            batch.encode(codec="none")  # another codec does not change the range, and rules a codec's fault out
        case Step.RESTAMP:
            batch.restamped = True
            named = set(decision.positions)
            stamps = [now_ms if j in named else stamp for j, stamp in enumerate(batch.segment.timestamps)]
            batch.segment.timestamps = stamps
            for run in batch.runs:  # what `Delivered` will tell
                if isinstance(run, Part):
                    run.timestamps = stamps[run.first : run.first + run.count]
                else:
                    run.timestamps = stamps[run.first]
            batch.encode()
        case Step.SPLIT:
            window.replace(batch, halves(batch, account))
        case Step.WITHOUT:
            assert isinstance(outcome, NotSent)
            window.replace(batch, without(batch, decision.positions, outcome, account))
        case step:
            raise AssertionError(f"{step} is not a way to remake a batch")


def halves(batch: SealedBatch, account: InFlightAccount) -> list[SealedBatch]:
    """Cut it in the middle (MESSAGE_TOO_LARGE); together they have the old range."""
    middle = batch.count // 2
    batch.segment.encode()
    tails, stamps = batch.segment.tails, batch.segment.timestamps
    front_runs, back_runs = _cut(batch.runs, middle)
    _end_unsettled(batch)
    return [
        _successor(batch, front_runs, tails[:middle], stamps[:middle], account),
        _successor(batch, back_runs, tails[middle:], stamps[middle:], account),
    ]


def without(
    batch: SealedBatch, positions: Sequence[int], outcome: NotSent, account: InFlightAccount
) -> list[SealedBatch]:
    """Leave out the records at these positions, which end with ``outcome``; at least one remains."""
    left_out = set(positions)
    batch.segment.encode()
    tails, stamps = batch.segment.tails, batch.segment.timestamps
    runs: list[Run] = []
    told = late = 0
    for run in batch.runs:
        out = [j for j in range(run.count) if run.first + j in left_out]
        waited_for = sum([run.fail_one(j, outcome) for j in out])
        told += waited_for
        late += len(out) - waited_for
        if len(out) < run.count:
            if isinstance(run, Part):
                run.keep([j for j in range(run.count) if run.first + j not in left_out])
            runs.append(run)
        elif isinstance(run, Part):
            run.leave()
    account.count_end(outcome, told, late)
    _end_unsettled(batch)
    stay = [j for j in range(batch.count) if j not in left_out]
    return [_successor(batch, runs, [tails[j] for j in stay], [stamps[j] for j in stay], account)]


def _end_unsettled(batch: SealedBatch) -> None:
    batch.step(Event.END)
    batch.close_account()
    batch.segment.finish()


def _cut(runs: Sequence[Run], middle: int) -> tuple[list[Run], list[Run]]:
    front: list[Run] = []
    back: list[Run] = []
    for run in runs:
        if run.first >= middle:
            back.append(run)
        elif run.first + run.count <= middle:
            front.append(run)
        else:
            assert isinstance(run, Part)
            back += run.cut([middle - run.first])
            front.append(run)
    return front, back


def _successor(
    batch: SealedBatch,
    runs: Sequence[Run],
    tails: list[bytes | None],
    timestamps: list[int],
    account: InFlightAccount,
) -> SealedBatch:
    segment = Segment(batch, 0)
    segment.tails, segment.timestamps, segment.plain = tails, timestamps, False
    successor = SealedBatch(
        batch.partition,
        segment,
        account=account,
        cost=sum([len(tail) for tail in tails if tail is not None]) + RECORD_COST_BYTES * len(tails),
        called_at=batch.called_at,
        sealed_at=batch.sealed_at,
        deadline=batch.deadline,
        codec=batch.codec,
        compression_min_bytes=batch.compression_min_bytes,
    )
    successor.adopt(runs)
    successor.attempts = batch.attempts
    successor.re_encoded = batch.re_encoded
    successor.restamped = batch.restamped
    return successor
