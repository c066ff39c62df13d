"""Which rows the replay gets next.

Owns: the search, and what it may pass over the next time. Refuses to know: what is done with the rows.

Theory. The rows are searched in the order of their ids. At the end of an outage some partitions are still away, and
the replay asks again and again: the rows left out gather at the head, and looking at all of them each time would make
a large backlog quadratic. So a search returns a `Skip`: up to this id there is nothing for whoever leaves out the same
partitions or more. When a row before it becomes ready, an older skip takes its place: skips are kept in a chain, one
every `KEPT_EVERY` ids. And a search ends after a window of ids even if it found nothing, so that a commit never waits
for one that goes through a million rows.

Invariant, with ``by_key``: a row is only taken if every older row of its bucket is gone, or is taken with it.

Non-obvious: with ``by_key`` a skip must not pass a row that only waits for one in work, or it would be found no more
when that one is gone; it may pass rows behind one that is held or left out, if it remembers their buckets.
"""

import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import msgspec

from collector.spool.base import BUCKETS, Selection, StoredRow
from collector.spool.changes import Damaged
from collector.spool.schema import ATTEMPTED, HELD, ROW_COST_BYTES, checksum, decode

__all__ = ["NO_SKIP", "Selected", "Skip", "select"]

WINDOW_IDS = 50_000
"""Looked at in one search, which takes 30 ms where all of them are left out."""

WINDOW_IDS_BY_KEY = 10_000
"""The same with ``by_key``, where each row is looked at here and not in SQLite."""

KEPT_EVERY = 20_000
"""Ids between two skips of a chain: what has to be searched again at most, when a row comes back."""

#: id, state, key_hash, bytes, stored_at_ms, crc
_Candidate = tuple[int, int, int | None, int, int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Skip:
    """Nothing to be had up to ``through_id`` for whoever leaves out at least ``without`` and wants none before
    ``after_id``."""

    through_id: int = 0
    partitions: int = 0
    without: frozenset[int] = frozenset()
    by_key: bool = False
    after_id: int = 0
    blocked: frozenset[int] = frozenset()
    """With ``by_key``: buckets of rows that were passed over and are still there."""
    previous: "Skip | None" = None

    def fitting(self, selection: Selection) -> "Skip":
        """The last one in the chain at whose end this selection may begin."""
        skip: Skip | None = self
        while skip is not None and not skip._fits(selection):
            skip = skip.previous
        if skip is not None:
            return skip
        return Skip(partitions=selection.partitions, without=frozenset(selection.without), by_key=selection.by_key)

    def _fits(self, selection: Selection) -> bool:
        return (
            self.by_key == selection.by_key
            and self.partitions == selection.partitions
            and self.after_id <= selection.after_id
            and self.without <= frozenset(selection.without)
        )

    def before(self, row_id: int) -> "Skip":
        """What is left of it when this row may be had again, or blocks its bucket no more."""
        skip: Skip | None = self
        while skip is not None and skip.through_id >= row_id:
            skip = skip.previous
        return NO_SKIP if skip is None else skip

    def advanced(self, through_id: int, selection: Selection, blocked: Iterable[int]) -> "Skip":
        """The next one in the chain; it takes the place of this one if that is not worth keeping."""
        after_id = selection.after_id if selection.after_id > self.through_id else self.after_id
        kept = self.through_id - (self.previous.through_id if self.previous else 0) >= KEPT_EVERY
        without = frozenset(selection.without)
        return Skip(
            through_id=through_id,
            partitions=selection.partitions,
            without=without,
            by_key=selection.by_key,
            after_id=after_id,
            blocked=self.blocked.union(blocked),
            previous=self if kept or after_id > self.after_id or without != self.without else self.previous,
        )


NO_SKIP = Skip()


@dataclass(frozen=True, slots=True)
class Selected:
    """Rows in the order of their ids, and the skip for the next time."""

    rows: list[StoredRow]
    skip: Skip
    finished: bool
    """False: it ended with its window; there may be more rows behind it."""


def select(
    connection: sqlite3.Connection, selection: Selection, skip: Skip, in_work: Mapping[int, int | None]
) -> Selected:
    """Search one window. Blocks.

    Args:
        skip: Of the last search.
        in_work: The ids that the replay has, with their buckets.

    Raises:
        sqlite3.Error: It could not be read.
        Damaged: A row is not what was written.
    """
    search = _Search(connection, selection, skip.fitting(selection), in_work)
    chosen = search.run()
    return Selected(_read(connection, chosen), search.next_skip(), search.finished)


class _Search:
    """One pass over the narrow table."""

    def __init__(
        self, connection: sqlite3.Connection, selection: Selection, skip: Skip, in_work: Mapping[int, int | None]
    ) -> None:
        self._execute = connection.execute
        self._selection = selection
        self._skip = skip
        self._in_work = in_work
        self._start = max(skip.through_id, selection.after_id)
        self._through = self._start
        self._window = WINDOW_IDS_BY_KEY if selection.by_key else WINDOW_IDS
        self._last_id = max(self._execute("SELECT max(id) FROM rows").fetchone()[0] or 0, self._start)
        self.finished = False
        self._stalled_at: int | None = None
        """The first row that only waits for one in work."""
        self._standing: dict[int, int] = {}
        """With ``by_key``: the oldest held or left out row of a bucket, after the start."""
        self._left_out = _left_out(selection)
        self._between: frozenset[int] = frozenset()
        self._first_in_work: dict[int, int] = {}
        for row_id, bucket in in_work.items():
            if bucket is not None:
                self._first_in_work[bucket] = min(row_id, self._first_in_work.get(bucket, row_id))

    def run(self) -> list[_Candidate]:
        """Choose."""
        chosen: list[_Candidate] = []
        blocked = self._blocked_before()
        end = min(self._start + self._window, self._last_id)
        self._note_standing(end)
        size = 0
        for row in self._candidates(end):
            bucket = None if row[2] is None else row[2] % BUCKETS
            if row[0] in self._in_work:
                self._through = row[0]
                continue
            if self._selection.by_key and bucket is not None and not self._is_first(row[0], bucket, blocked):
                self._through = row[0]
                continue
            row_bytes = row[3] - ROW_COST_BYTES
            if chosen and size + row_bytes > self._selection.bytes:
                return chosen
            chosen.append(row)
            size += row_bytes
            self._through = row[0]
            if len(chosen) >= self._selection.rows:
                return chosen
        self._through = end
        # What waits for a row in work is found by the next search but one; going on would only find it again.
        self.finished = end == self._last_id or self._stalled_at is not None
        return chosen

    def _is_first(self, row_id: int, bucket: int, blocked: set[int]) -> bool:
        if bucket in blocked or self._standing.get(bucket, row_id) < row_id:
            return False
        if self._first_in_work.get(bucket, row_id) < row_id:
            self._stalled_at = self._stalled_at or row_id
            blocked.add(bucket)
            return False
        return True

    def _blocked_before(self) -> set[int]:
        """Buckets of which a row stands before the start."""
        if not self._selection.by_key:
            return set()
        between = self._execute(
            f"SELECT DISTINCT key_hash % {BUCKETS} FROM rows WHERE id > ? AND id <= ? AND key_hash IS NOT NULL",
            (self._skip.through_id, self._start),
        )
        self._between = frozenset(bucket for (bucket,) in between)
        return set(self._skip.blocked | self._between)

    def _candidates(self, end: int) -> Iterator[_Candidate]:
        """Ready rows that are not left out, oldest first."""
        return self._execute(
            "SELECT id, state, key_hash, bytes, stored_at_ms, crc FROM rows"
            f" WHERE id > ? AND id <= ? AND state != {HELD} AND NOT {self._left_out} ORDER BY id",
            (self._start, end),
        )

    def _note_standing(self, end: int) -> None:
        if self._selection.by_key:
            for bucket, row_id in self._execute(
                f"SELECT key_hash % {BUCKETS}, id FROM rows WHERE id > ? AND id <= ? AND key_hash IS NOT NULL"
                f" AND (state = {HELD} OR {self._left_out}) ORDER BY id",
                (self._start, end),
            ):
                self._standing.setdefault(bucket, row_id)

    def next_skip(self) -> Skip:
        """What need not be looked at again."""
        through = self._through if self._stalled_at is None else min(self._through, self._stalled_at - 1)
        passed = (bucket for bucket, first in self._standing.items() if first <= through)
        return self._skip.advanced(through, self._selection, self._between.union(passed))


def _left_out(selection: Selection) -> str:
    if not selection.without or selection.partitions <= 0:
        return "0"
    listed = ", ".join(str(int(partition)) for partition in sorted(selection.without))
    return f"(key_hash IS NOT NULL AND key_hash % {int(selection.partitions)} IN ({listed}))"


def _read(connection: sqlite3.Connection, chosen: list[_Candidate]) -> list[StoredRow]:
    payloads: dict[int, bytes] = dict(
        connection.execute(
            "SELECT p.id, p.payload FROM json_each(?) AS j CROSS JOIN payloads AS p ON p.id = j.value",
            (json.dumps([row[0] for row in chosen]),),
        )
    )
    rows = []
    for row_id, state, key_hash, _, stored_at_ms, crc in chosen:
        payload = payloads.get(row_id)
        if payload is None or checksum(payload) != crc:
            raise Damaged(f"the payload of row {row_id} is not what was written")
        try:
            record, app = decode(payload)
        except msgspec.MsgspecError as error:
            raise Damaged(f"the payload of row {row_id} cannot be read: {error}") from error
        rows.append(
            StoredRow(
                id=row_id,
                record=record,
                app=app,
                key_hash=key_hash,
                stored_at_ms=stored_at_ms,
                attempted=state == ATTEMPTED,
            )
        )
    return rows
