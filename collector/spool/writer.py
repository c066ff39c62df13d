"""The one that writes: gathers what was submitted, commits it, and tells each row what became of it.

Owns: pending rows, the steps that wait for a commit, the thread, the state "failed" and its healing. Refuses to know:
the bound, what the replay selects, directories and locks (`Opener`).

Theory: group commit. While one commit waits for the disk, submissions and steps gather; the next commit takes them
all, up to `GROUP_BYTES`. So the more requests there are the fewer commits each of them costs, and none waits for more
than two.

What a failure means for the rows of its commit:

- Before COMMIT: the transaction was rolled back. They are refused.
- In COMMIT: the log may have all of its frames, and the next opening may find them although SQLite reported an error.
  So the file is opened anew, and asked for these rows (`collector.spool.doubt`). Those that are not there never can be
  any more, and are refused; those that are there are stored. Until that is known their outcome stays unknown.

Steps (`gone`, `back`, …) are not refused: they wait for the next commit that works. The file says at worst that a row
is attempted that was delivered, and then its replay says ``maybe-duplicate: 1``.

Invariants: an id is given once; one thread works at a time; what is taken is told exactly one outcome, or none while
the file cannot say.
"""

import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

import trio

from collector.log import get_logger
from collector.spool.base import BUCKETS, Refused
from collector.spool.changes import Changes, CommitInDoubt, NewRow, NotCommitted, Step
from collector.spool.disk_thread import DiskThread
from collector.spool.doubt import Doubt, settle
from collector.spool.gauges import NOTHING_SEEN
from collector.spool.opener import Opener, close, commit_in_need, open_again, probe
from collector.spool.receipt import STORED, PendingRow, Stage
from collector.spool.schema import HELD, READY
from collector.spool.steps import Pushed, StepQueue, step_of
from collector.spool.store import Store
from collector.spool.trouble import CAUSES, Kind, Trouble, explain
from kafka_client.outcome import Outcome

__all__ = ["GROUP_BYTES", "RETRY_S", "Pushed", "Writer"]

log = get_logger("spool")

GROUP_BYTES = 4 * 1024 * 1024
"""Rows of one commit: some 20 ms of writing on a disk that takes 200 MB/s."""

RETRY_S = 5.0
"""Between two tries to use a disk that failed."""

TIDY_BYTES = 4 * 1024 * 1024
"""Written since the log was copied into the file: about SQLite's own 1000 pages."""

HANGS_S = 5.0
"""Whatever takes longer on the disk has the spool say that it does not work; it works again when that ends."""

REST_S = 1.0
"""Without work, before the log is copied into the file."""

TIDY_AGAIN_S = 0.05
"""Between two steps of giving space back, so that a row that comes meanwhile does not wait."""

STEP_BYTES = 512
"""What a step writes for each of its rows, about."""

COMMITS_KEPT = 1000
"""For the 99th percentile."""

T = TypeVar("T")
R = TypeVar("R")


class Writer:
    """One file's writer. `run` is its task.

    Args:
        inline: Call the store without a thread: for ":memory:", so that virtual time can wait for it.
        committed: Told the steps of each commit, synchronously, before anybody who waits for them.
    """

    def __init__(self, opener: Opener, *, inline: bool, committed: Callable[[Sequence[Step]], object]) -> None:
        self._opener = opener
        self._committed = committed
        self._thread = DiskThread(inline=inline)
        self._disk = trio.Lock()
        self.store: Store | None = None
        self.seen = NOTHING_SEEN
        """Of the file that was open last."""
        self.trouble: Trouble | None = Trouble(Kind.DISK, f"{opener.path}: not open yet")
        self._pending: deque[PendingRow] = deque()
        self._ended_pending = 0
        self._steps = StepQueue()
        self._taken: list[PendingRow] = []
        self._broken: Store | None = None
        self._said: Kind | None = None
        """What the log said last."""
        self._doubt: Doubt | None = None
        """The commit that is in doubt; its rows are in ``_taken``."""
        self._wake = trio.Event()
        self._next_try = -math.inf
        self._can_step = False
        """On a full disk: rows are refused, but steps may work."""
        self.last_id = 0
        """The highest that was given."""
        self._untidy_bytes = 0
        self._more_to_tidy = False
        self.closing = False
        self.pending_rows = 0
        """Submitted, and without an outcome."""
        self.pending_bytes = 0
        self.pending_buckets = [0] * BUCKETS
        self.refused_unsaved = 0
        self.commit_times: deque[float] = deque(maxlen=COMMITS_KEPT)
        self.first_try = trio.Event()
        self.ended = trio.Event()

    def __repr__(self) -> str:
        state = "failed" if self.trouble else "closing" if self.closing else "working"
        return f"<Writer {state} pending={self.pending_rows} taken={len(self._taken)} steps={len(self._steps)}>"

    def append(self, row: PendingRow) -> None:
        """Take a row on."""
        self._pending.append(row)
        self._count(row, 1)
        self._wake.set()

    def _count(self, row: PendingRow, sign: int) -> None:
        self.pending_rows += sign
        self.pending_bytes += sign * row.size
        if row.bucket is not None:
            self.pending_buckets[row.bucket] += sign

    def left_pending(self, row: PendingRow) -> None:
        """`RowWatcher`: withdrawn or decided; it is passed over when its turn comes."""
        self._count(row, -1)
        self._ended_pending += 1
        # While the disk hangs nobody's turn comes.
        if self._ended_pending > 1000 and 2 * self._ended_pending > len(self._pending):
            self._pending = deque(row for row in self._pending if row.stage is Stage.PENDING)
            self._ended_pending = 0

    def resolved(self, row: PendingRow, outcome: Outcome) -> None:
        """`RowWatcher`: the batch of a stored row has ended."""
        self.push(step_of(row.id, outcome))

    async def step(self, *steps: Step) -> None:
        """Have them committed, together. On cancellation: they are committed all the same, some time."""
        await self.push(*steps).done.wait()

    def push(self, *steps: Step) -> Pushed:
        """Have them committed, together, some time; synchronous."""
        self._wake.set()
        return self._steps.push(steps)

    @property
    def problem(self) -> str:
        """Why nothing can be stored now; empty where it can."""
        if self.closing:
            return "closed"
        if self.trouble is not None:
            return self.trouble.problem
        if (hanging_s := self._thread.waiting_s) > HANGS_S:
            return f"{self._opener.path}: it has been waiting for the disk for {hanging_s:.0f} s"
        return ""

    @property
    def full(self) -> bool:
        """The disk is full: nothing can be stored, but what is there may leave."""
        full = self.trouble is not None and self.trouble.kind is Kind.FULL
        return full and self.store is not None and not self.closing

    async def use(self, fn: Callable[[Store], T], then: Callable[[T], R]) -> R | None:
        """Call ``fn`` in the thread with the open file, and ``then`` with its result, while nobody else uses the file.

        Returns what ``then`` does; None where the file cannot be used now.

        On cancellation: the thread is abandoned, its result too.
        """
        async with self._disk:
            if self.store is None:
                return None
            store = self.store
            doubt = Doubt.of(store, 0)
            try:
                result = await self._thread.call(fn, store)
                self._look(store)
                return then(result)
            except (NotCommitted, CommitInDoubt, *CAUSES) as error:
                self._fail(error, doubt)
                return None

    def _look(self, store: Store) -> None:
        """What the thread did is seen here when it is back, in the same turn in which its rows are told."""
        self.seen = store.seen()
        self.last_id = max(self.last_id, store.account.last_id)

    async def run(self) -> None:
        """Write until `close` was called and there is nothing left to write.

        On cancellation: what was taken stays without an outcome, the rest is refused.
        """
        try:
            await self._heal()
            while not self._may_end():
                if self.trouble is not None:
                    await self._while_failed()
                elif self.pending_rows or self._steps:
                    await self._commit()
                    await self._tidy(TIDY_BYTES)
                else:
                    await self._rest()
            await self._tidy(1)
            async with self._disk:
                store, self.store = self.store, None
                await self._thread.call(close, store, self._opener)
        finally:
            self.closing = True
            self._refuse_pending()
            self.ended.set()

    def close(self) -> None:
        """Ask `run` to end when everything is written; nothing can be submitted any more."""
        self.closing = True
        self._wake.set()

    def _may_end(self) -> bool:
        return self.closing and (self.trouble is not None or not (self.pending_rows or self._steps))

    async def _rest(self) -> None:
        """Wait for work; tidy up when there is none for a while."""
        self._wake = trio.Event()
        rest_s = REST_S if self._untidy_bytes else math.inf
        with trio.move_on_after(TIDY_AGAIN_S if self._more_to_tidy else rest_s) as waiting:
            await self._wake.wait()
        if waiting.cancelled_caught:
            await self._tidy(1)

    async def _while_failed(self) -> None:
        """Try steps, where they may work; else wait, and try again to use the file."""
        if self._can_step and self._steps:
            await self._commit()
            await self._tidy(TIDY_BYTES)
            return
        self._wake = trio.Event()
        with trio.move_on_at(self._next_try):
            await self._wake.wait()
        if trio.current_time() >= self._next_try:
            await self._heal()

    async def _commit(self) -> None:
        """Take what is there, commit it, tell."""
        async with self._disk:
            store = self.store
            if store is None:
                return  # a reader met trouble while we waited
            rows, waiting = self._take()
            steps = [step for each in waiting for step in each.steps]
            refused = self.refused_unsaved
            changes = Changes(rows=[_new_row(row) for row in rows], steps=steps, refused=refused)
            doubt = Doubt.of(store, refused)
            began = time.perf_counter()
            try:
                if self.trouble is None:
                    await self._thread.call(store.commit, changes)
                else:
                    await self._thread.call(commit_in_need, self._opener, store, changes)
            except (NotCommitted, CommitInDoubt) as error:
                self._steps.put_back(waiting)
                self._fail(error, doubt)
                if isinstance(error, NotCommitted):
                    self._end_taken()
                return
            self._look(store)
            self.commit_times.append(time.perf_counter() - began)
            self.refused_unsaved -= refused
            self._untidy_bytes += sum(row.size for row in rows) + STEP_BYTES * sum(each.rows for each in waiting) + 1
            self._committed(steps)
            self._end_taken(row.id for row in rows)
            for each in waiting:
                each.done.set()

    def _take(self) -> tuple[list[PendingRow], list[Pushed]]:
        rows: list[PendingRow] = []
        size = 0
        while self._pending and (not rows or size + self._pending[0].size <= GROUP_BYTES):
            row = self._pending.popleft()
            if row.stage is not Stage.PENDING:
                self._ended_pending -= 1
                continue
            self.last_id += 1
            row.id = self.last_id
            row.stage = Stage.TAKEN
            rows.append(row)
            size += row.size
        self._taken = rows
        return rows, self._steps.take()

    def _end_taken(self, stored_ids: Iterable[int] = ()) -> None:
        rows, self._taken = self._taken, []
        stored, refusal = set(stored_ids), self.refusal()
        for row in rows:
            self._count(row, -1)
            row.end(STORED if row.id in stored else refusal)
            if row.id not in stored:
                self.refused_unsaved += 1
            elif row.resolution is not None:
                row.stage = Stage.ENDED
                self.resolved(row, row.resolution)

    def refusal(self) -> Refused:
        """What a row is told that cannot be stored now."""
        return Refused(f"spool_failed: {self.problem}")

    def _refuse_pending(self) -> None:
        pending, self._pending = self._pending, deque()
        self._ended_pending = 0
        refusal = self.refusal()
        for row in pending:
            if row.stage is Stage.PENDING:
                self._count(row, -1)
                self.refused_unsaved += 1
                row.end(refusal)

    async def _tidy(self, least_bytes: int) -> None:
        """Not part of any commit: whoever waited for one has been told."""
        if self._untidy_bytes >= least_bytes:
            self._more_to_tidy = await self.use(Store.tidy, bool) or False
            crowded = self.store is not None and self.store.crowded
            self._untidy_bytes = TIDY_BYTES if crowded else int(self._more_to_tidy)
        else:
            await trio.lowlevel.checkpoint()

    def _fail(self, error: BaseException, doubt: Doubt | None = None) -> None:
        """It does not work now: say so, refuse, and decide what may work next."""
        if isinstance(error, CommitInDoubt):
            self._doubt = self._doubt or doubt
        trouble = self.trouble = explain(error, self._opener.path)
        news = trouble.kind is not self._said
        if news:
            self._said = trouble.kind
            log.error("the spool does not work; events go to Kafka alone", problem=trouble.problem)
        # Nothing is wrong with the open file if it is merely full or locked and nothing is in doubt.
        if trouble.kind not in (Kind.FULL, Kind.LOCKED) or self._doubt is not None:
            self._broken, self.store = self.store or self._broken, None
        at_once = news and (self._doubt is not None or trouble.kind is Kind.DAMAGED)
        self._next_try = trio.current_time() + (0 if at_once else RETRY_S)
        self._can_step = news and self.store is not None and trouble.kind is Kind.FULL
        self._refuse_pending()
        self._wake.set()

    async def _heal(self) -> None:
        """Try to use the file."""
        async with self._disk:
            broken, self._broken = self._broken, None
            damaged = self.trouble is not None and self.trouble.kind is Kind.DAMAGED
            try:
                self.store = await self._thread.call(open_again, self._opener, self.store, broken, damaged)
                self._look(self.store)
                if self._doubt is not None:
                    await self._settle(self.store, self._doubt)
                await self._thread.call(probe, self._opener, self.store)
            except (NotCommitted, CommitInDoubt, *CAUSES) as error:
                self._fail(error)
                self._can_step = self.store is not None and self.trouble is not None and self.trouble.kind is Kind.FULL
            else:
                self._look(self.store)
                self._work_again()
            finally:
                self.first_try.set()

    async def _settle(self, store: Store, doubt: Doubt) -> None:
        stored = await self._thread.call(settle, store, doubt, [row.id for row in self._taken])
        self._look(store)
        self._doubt = None
        if store.account.refused >= doubt.refused_total:
            self.refused_unsaved -= doubt.refused
        self._end_taken(stored)

    def _work_again(self) -> None:
        self.trouble = None
        if self._said is not None:
            log.info("the spool works again", path=self._opener.path)
            self._said = None


def _new_row(row: PendingRow) -> NewRow:
    return NewRow(
        id=row.id,
        state=HELD if row.held else READY,
        key_hash=row.key_hash,
        size=row.size,
        stored_at_ms=row.stored_at_ms,
        payload=row.payload,
    )
