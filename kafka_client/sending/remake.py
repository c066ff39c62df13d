"""Making batches out of a rejected one: encoded afresh, halved, or without the records that the broker named.

Owns: moving runs, records and bytes of the account from a batch that is proved absent into its successors. Refuses to
know: sequences (the window numbers the successors) and why the batch was rejected.

Invariant: every record of the old batch is in exactly one successor or has its outcome; the account's total changes by
the records that ended.
"""

from collections.abc import Sequence

from kafka_client.buffer.run import RECORD_COST_BYTES, Run
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
            batch.timestamps = [now_ms if j in named else stamp for j, stamp in enumerate(batch.timestamps)]
            for run in batch.runs:  # what `Delivered` will tell
                run.timestamps = batch.timestamps[run.first : run.first + len(run.indices)]
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
    front_runs, back_runs = _cut(batch.runs, middle)
    _end_unsettled(batch)
    return [
        _successor(batch, front_runs, range(middle), account),
        _successor(batch, back_runs, range(middle, batch.count), account),
    ]


def without(
    batch: SealedBatch, positions: Sequence[int], outcome: NotSent, account: InFlightAccount
) -> list[SealedBatch]:
    """Leave out the records at these positions, which end with ``outcome``; at least one remains."""
    left_out = set(positions)
    runs = []
    told = late = 0
    for run in batch.runs:
        delivery = run.delivery
        assert delivery is not None
        out = [j for j in range(len(run.indices)) if run.first + j in left_out]
        waited_for = sum([delivery.fail_one(run, j, outcome) for j in out])
        told += waited_for
        late += len(out) - waited_for
        keep = [j for j in range(len(run.indices)) if run.first + j not in left_out]
        if keep:
            _keep(run, keep)
            runs.append(run)
        else:
            run.home = None
            run.delivery = None
            run.indices = ()
    account.count_end(outcome, told, late)
    _end_unsettled(batch)
    return [_successor(batch, runs, [j for j in range(batch.count) if j not in left_out], account)]


def _end_unsettled(batch: SealedBatch) -> None:
    batch.step(Event.END)
    batch.close_account()
    batch.runs = []


def _cut(runs: Sequence[Run], middle: int) -> tuple[list[Run], list[Run]]:
    front, back = [], []
    for run in runs:
        if run.first >= middle:
            back.append(run)
        elif run.first + len(run.indices) <= middle:
            front.append(run)
        else:
            rest = run.split(middle - run.first)
            front.append(run)
            back.append(rest)
    return front, back


def _keep(run: Run, keep: Sequence[int]) -> None:
    if len(keep) == len(run.indices):
        return
    run.indices = [run.indices[j] for j in keep]
    if not isinstance(run.timestamps, int):
        run.timestamps = [run.timestamps[j] for j in keep]


def _successor(batch: SealedBatch, runs: list[Run], positions: Sequence[int], account: InFlightAccount) -> SealedBatch:
    tails = [batch.tails[j] for j in positions]
    first = 0
    for run in runs:
        run.first = first
        first += len(run.indices)
    successor = SealedBatch(
        batch.partition,
        runs,
        tails,
        [batch.timestamps[j] for j in positions],
        account=account,
        cost=sum(map(len, tails)) + RECORD_COST_BYTES * len(tails),
        called_at=batch.called_at,
        sealed_at=batch.sealed_at,
        deadline=batch.deadline,
        codec=batch.codec,
        compression_min_bytes=batch.compression_min_bytes,
    )
    successor.attempts = batch.attempts
    successor.re_encoded = batch.re_encoded
    successor.restamped = batch.restamped
    return successor
