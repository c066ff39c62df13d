"""The rows that the replay has in its hands: from the spool's `take` to the word on what became of them.

Owns: which rows are in work, marking and sending them, what Kafka made of each, telling the spool of it, the counters.
Refuses to know: which rows are taken, when, and at what pace (`collector.ingest.replay`).

Invariants: no Produce carries a row that the file does not call attempted. A row in work is either on its way, or
unresolved (its outcome was Unknown and its batch lives on), or ended and not told yet; `settle` tells the spool of each
ended row once. ``NotSent`` proves that *this* try is not in the log: a row that an earlier try may have left there goes
back as attempted all the same.

Non-obvious: a record that cannot be encoded is refused by the producer with all that are handed over with it. They are
halved until it is found, and it goes to the dead ones: it would end the process at every start otherwise.
"""

from collections.abc import Awaitable, Callable, Sequence
from functools import partial

import trio

from collector.ingest.enqueue import DeliveryLike, ProducerLike
from collector.ingest.record import MAYBE_DUPLICATE
from collector.ingest.verdict import FINAL_REASONS, first_word
from collector.spool.base import Spool, StoredRow
from kafka_client.outcome import Delivered, NotSent, Outcome, Record, TopicPartition, Unknown

__all__ = ["RowsInWork", "record_of", "size_of"]

#: What a row costs beside its bytes: the objects around it, and the record's framing.
ROW_COST_BYTES = 256


def size_of(row: StoredRow) -> int:
    """What a row counts against the replay's share, in bytes."""
    record = row.record
    size = ROW_COST_BYTES + len(record.value or b"") + len(record.key or b"")
    for name, value in record.headers:
        size += len(name) + len(value or b"")
    return size


def record_of(row: StoredRow, detour: TopicPartition | None = None) -> Record:
    """The record to send: marked where an earlier copy may be in the log.

    Without a key it goes to ``detour``, if that is of its topic: a row of another may be of one with fewer partitions.
    """
    record = row.record
    headers = record.headers
    if row.attempted and MAYBE_DUPLICATE not in headers:
        headers = (*headers, MAYBE_DUPLICATE)
    partition = None
    if detour is not None and record.key is None and record.topic == detour.topic:
        partition = detour.partition
    return Record(record.topic, record.value, record.key, headers, record.timestamp_ms, partition)


class RowsInWork:
    """Of one replay.

    Args:
        spool: Is told what became of the rows.
        wake: Called when the batch of unresolved rows has ended.
        stalled: Called when patience is over, before rows are taken back: then nothing shows any more what stalled.
    """

    def __init__(
        self, spool: Spool, producer: ProducerLike, *, wake: Callable[[], None], stalled: Callable[[], object]
    ) -> None:
        self._spool = spool
        self._producer = producer
        self._wake = wake
        self._stalled = stalled
        self._sizes: dict[int, int] = {}
        self._unresolved: dict[int, StoredRow] = {}
        self._gone: list[int] = []
        self._back: list[int] = []
        self._back_attempted: list[int] = []
        self._dead: dict[int, str] = {}
        self.bytes = 0
        self.being_told = 0
        """Rows that have ended; the spool still counts them until its commit."""
        self.delivered_total = 0
        self.returned_total = 0
        self.unknown_total = 0
        self.dead_total = 0
        self.marked_total = 0

    def __len__(self) -> int:
        return len(self._sizes)

    def __repr__(self) -> str:
        return f"<RowsInWork {len(self)} with {self.bytes} bytes, {self.unresolved} unresolved>"

    @property
    def unresolved(self) -> int:
        """Rows whose outcome was Unknown and whose batch has not ended."""
        return len(self._unresolved)

    def took(self, rows: Sequence[StoredRow]) -> None:
        """These are in work from now on."""
        for row in rows:
            size = size_of(row)
            self._sizes[row.id] = size
            self.bytes += size
            self.marked_total += row.attempted

    async def send(self, rows: Sequence[StoredRow], detour: TopicPartition | None, patience_s: float) -> int:
        """Mark rows, deliver them, wait up to ``patience_s``; returns how many have left the spool.

        On cancellation: as at the end of the patience.
        """
        opened: list[tuple[Sequence[StoredRow], DeliveryLike]] = []
        marked = False
        left = 0
        try:
            fresh = [row.id for row in rows if not row.attempted]
            if fresh:
                await self._spool.mark_attempted(fresh)
            marked = True
            opened, left = self._open(rows, detour)
            with trio.move_on_after(patience_s) as patience:  # noqa: ASYNC912  # none is open where all are poison
                for _, delivery in opened:
                    await delivery.wait()
            if patience.cancelled_caught:
                self._stalled()
        finally:
            for part, delivery in opened:
                delivery.withdraw()
                left += self._ended(part, delivery)
            if not marked:
                self._not_tried(rows)
        return left  # noqa: ASYNC910  # without one where all rows are poison and were marked before

    def _open(
        self, rows: Sequence[StoredRow], detour: TopicPartition | None
    ) -> tuple[list[tuple[Sequence[StoredRow], DeliveryLike]], int]:
        """Hand rows to the producer; returns them with their deliveries, and how many are poison."""
        try:
            return [(rows, self._producer.delivery([record_of(row, detour) for row in rows]))], 0
        except (TypeError, ValueError) as error:
            if len(rows) == 1:
                self._poison(rows[0], f"poison: {error}")
                return [], 1
        half = len(rows) // 2
        first, second = self._open(rows[:half], detour), self._open(rows[half:], detour)
        return first[0] + second[0], first[1] + second[1]

    def _not_tried(self, rows: Sequence[StoredRow]) -> None:
        """The producer has never seen them."""
        for row in rows:
            self._return(row, attempted=row.attempted)

    def _poison(self, row: StoredRow, reason: str) -> None:
        """It cannot be a record of Kafka's."""
        self._end(row)
        self._dead[row.id] = reason
        self.dead_total += 1

    def _ended(self, rows: Sequence[StoredRow], delivery: DeliveryLike) -> int:
        """Their delivery has been withdrawn from; returns how many have left the spool: delivered, or dead.

        What is unknown stays in work until its batch ends.
        """
        outcomes = delivery.outcomes
        before = self.delivered_total + self.dead_total
        unknown = False
        for row, outcome in zip(rows, outcomes, strict=True):
            if isinstance(outcome, Unknown) or outcome is None:
                unknown = True
                self.unknown_total += 1
                self._unresolved[row.id] = row
            else:
                self._told(row, outcome)
        left = self.delivered_total + self.dead_total - before
        if unknown:
            delivery.on_resolved(lambda index, outcome: self._resolved(rows[index], outcome))
        return left

    def _resolved(self, row: StoredRow, outcome: Outcome) -> None:
        # After `give_up` nobody waits for it here any more: the spool has it as attempted.
        if self._unresolved.pop(row.id, None) is not None:
            self._told(row, outcome)
            self._wake()

    def _told(self, row: StoredRow, outcome: Outcome) -> None:
        match outcome:
            case Delivered():
                self._end(row)
                self._gone.append(row.id)
                self.delivered_total += 1
            case NotSent(reason) if first_word(reason) in FINAL_REASONS:
                self._poison(row, reason)
            case NotSent():
                self._return(row, attempted=row.attempted)
            case Unknown():
                self._return(row, attempted=True)

    def give_up(self) -> None:
        """Nobody waits for the unresolved any more: they go back as attempted."""
        for row in list(self._unresolved.values()):
            self._return(row, attempted=True)
        self._unresolved.clear()

    def _return(self, row: StoredRow, *, attempted: bool) -> None:
        self._end(row)
        (self._back_attempted if attempted else self._back).append(row.id)
        self.returned_total += 1

    def _end(self, row: StoredRow) -> None:
        self.bytes -= self._sizes.pop(row.id)

    def settle(self, nursery: trio.Nursery) -> None:
        """Tell the spool what has ended; the tasks in ``nursery`` wait for the commits.

        Nobody else does: so one commit takes what has ended and the mark of the next chunk. What a task has begun to
        tell is written even if it is cancelled.
        """
        gone, self._gone = self._gone, []
        dead, self._dead = self._dead, {}
        back, self._back = self._back, []
        back_attempted, self._back_attempted = self._back_attempted, []
        # The nursery is a parameter because the replay's own outlives one turn.
        if gone:
            self._start_telling(nursery, len(gone), partial(self._spool.gone, gone, "replayed"))
        if dead:
            self._start_telling(nursery, len(dead), partial(self._spool.dead, dead))
        if back:
            self._start_telling(nursery, len(back), partial(self._spool.back, back, attempted=False))
        if back_attempted:
            self._start_telling(nursery, len(back_attempted), partial(self._spool.back, back_attempted, attempted=True))

    def _start_telling(self, nursery: trio.Nursery, count: int, step: Callable[[], Awaitable[None]]) -> None:
        self.being_told += count
        nursery.start_soon(self._tell, count, step, name="replay: telling the spool")

    async def _tell(self, count: int, step: Callable[[], Awaitable[None]]) -> None:
        try:
            await step()
        finally:
            self.being_told -= count
            self._wake()
