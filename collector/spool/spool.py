"""One process's spool: what others see of it.

Owns: the bound in bytes, what is in work with the replay, the statistics, the order of opening and closing. Refuses to
know: transactions and trouble (`collector.spool.writer`), directories and locks (`collector.spool.files`).

Invariant: rows in the file and on their way never count more than ``max_bytes`` together, but for what was in files
that were adopted; nothing that goes wrong with the disk raises.
"""

import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import trio

from collector.config import Config
from collector.spool.adopt import adopt_loop
from collector.spool.base import BUCKETS, Gone, Refused, Selection, SpoolRow, SpoolStatistics, StoredRow
from collector.spool.changes import Kill, Leave, MarkAttempted, Return, Step
from collector.spool.dead import Discard, Revive
from collector.spool.files import MemoryFile, SpoolFiles
from collector.spool.fill_log import FillLog
from collector.spool.opener import Opener
from collector.spool.operator import Choice, Chosen, Done, choose
from collector.spool.receipt import PendingRow, SpoolReceipt
from collector.spool.schema import ROW_COST_BYTES, encode
from collector.spool.select import NO_SKIP, Selected, select
from collector.spool.steps import Pushed
from collector.spool.store import Store
from collector.spool.writer import Writer

__all__ = ["DiskSpool", "open_spool"]

MEMORY = ":memory:"

PENDING_MAX_BYTES = 64 * 1024 * 1024
"""In memory, waiting for the disk: a minute of 5000 events of 200 bytes a second."""

NO_LONGER_FULL = 0.9
"""Of ``max_bytes``: below it the state is not "full" any more."""

OPEN_S = 5.0
"""How long the collector's start waits for the disk; later it goes on, and the spool opens when it can."""

CLOSE_S = 3.0
"""How long its exit waits for the disk."""

FULL = Refused("spool_full")


@asynccontextmanager
async def open_spool(
    config: Config, *, node: str, admin: str | None = None, file: Path | None = None
) -> AsyncIterator["DiskSpool"]:
    """Open the spool of ``[spool]``: whatever is wrong with the disk, this does not raise; `statistics` says it.

    Args:
        node: This incarnation of the process: a new file is named after it.
        admin: The admin listener's address, for whoever finds the file locked.
        file: This one and no other, as an operator wants it; None: the first in the directory that nobody has.

    Leaving: what was submitted is committed or refused; where the disk hangs, after `CLOSE_S` its thread is abandoned.

    On cancellation: as leaving.
    """
    path = config.spool.path
    assert path, "without [spool] path there is no spool"
    files = MemoryFile() if path == MEMORY else SpoolFiles(path, node=node, admin=admin, file=file)
    spool = DiskSpool(files, max_bytes=config.spool.max_bytes, inline=path == MEMORY)
    failure: Exception | None = None
    async with trio.open_nursery() as nursery:
        nursery.start_soon(spool.writer.run, name="spool: writer")
        try:
            with trio.move_on_after(OPEN_S):
                await spool.writer.first_try.wait()
            if isinstance(files, SpoolFiles):
                nursery.start_soon(adopt_loop, spool.writer, files, config.spool.max_bytes, name="spool: adoption")
            yield spool
        except Exception as error:
            # The caller's, passed on as it is below: the nursery would put it into a group.
            failure = error
        finally:
            spool.writer.close()
            # Shielded: whoever cancels the collector still wants what was submitted on the disk. Bounded by CLOSE_S.
            with trio.CancelScope(shield=True), trio.move_on_after(CLOSE_S):
                await spool.writer.ended.wait()
            nursery.cancel_scope.cancel(reason="the spool is closed")
    if failure is not None:
        raise failure


class DiskSpool:
    """See `collector.spool.base.Spool`; made by `open_spool`."""

    def __init__(self, files: Opener, *, max_bytes: int, inline: bool) -> None:
        self._files = files
        self._max_bytes = max_bytes
        self.writer = Writer(files, inline=inline, committed=self._committed)
        self._in_work: dict[int, int | None] = {}
        """What the replay has, with its buckets."""
        self._was_attempted: set[int] = set()
        """Of these: whose earlier copy may be in the log, whatever becomes of this one."""
        self._skip = NO_SKIP
        self._skip_of: Store | None = None
        self._full = False
        self._fill_log = FillLog(max_bytes)
        self._clock = trio.lowlevel.current_clock()
        self._p99 = (-1, 0.0)

    def __repr__(self) -> str:
        return f"<DiskSpool {self._files.path} in_work={len(self._in_work)} {self.writer!r}>"

    def submit(self, rows: Sequence[SpoolRow]) -> SpoolReceipt:
        """Hand rows to the writer; never blocks. Those that do not fit are refused at once."""
        writer = self.writer
        receipt = SpoolReceipt(writer, len(rows))
        if writer.problem:
            refusal = writer.refusal()
            writer.refused_unsaved += len(rows)
            for index in range(len(rows)):
                receipt.refuse(index, refusal)
            return receipt
        now_ms = time.time_ns() // 1_000_000
        stored = writer.seen.used_bytes
        for index, row in enumerate(rows):
            payload = encode(row.record, row.app)
            size = len(payload) + ROW_COST_BYTES
            if (
                stored + writer.pending_bytes + size > self._max_bytes
                or writer.pending_bytes + size > PENDING_MAX_BYTES
            ):
                self._full = True
                self._fill_log.refused += 1
                writer.refused_unsaved += 1
                receipt.refuse(index, FULL)
                continue
            pending = PendingRow(payload=payload, key_hash=row.key_hash, size=size, held=row.held, stored_at_ms=now_ms)
            receipt.add(index, pending)
            writer.append(pending)
        return receipt

    def busy_bucket(self, bucket: int) -> bool:
        """Whether a row of this bucket is in the spool or on its way there."""
        return bool(self.writer.pending_buckets[bucket] or self.writer.seen.gauges.buckets[bucket])

    async def take(self, selection: Selection) -> Sequence[StoredRow]:
        """The next rows for the replay; none while the file cannot be read.

        On cancellation: no row is in work.
        """
        while True:
            found = await self.writer.use(partial(self._select, selection), self._selected)
            if found is None:
                return []
            if found.rows or found.finished:
                return found.rows

    def _select(self, selection: Selection, store: Store) -> tuple[Store, Selected]:
        # In the thread, while nobody else uses the file; commits are told in the same turn, so the skip is up to date.
        skip = self._skip if store is self._skip_of else NO_SKIP
        return store, select(store.connection, selection, skip, self._in_work)

    def _selected(self, found: tuple[Store, Selected]) -> Selected:
        self._skip_of, selected = found
        self._skip = selected.skip
        for row in selected.rows:
            self._in_work[row.id] = None if row.key_hash is None else row.key_hash % BUCKETS
            if row.attempted:
                self._was_attempted.add(row.id)
        return selected

    async def mark_attempted(self, ids: Sequence[int]) -> None:
        """One commit: before the first Produce that carries them. While the spool fails this waits.

        On cancellation: they are marked all the same, some time.
        """
        await self.writer.step(MarkAttempted(ids))

    async def gone(self, ids: Sequence[int], why: Gone) -> None:
        """They are delivered (or dropped): out of the file. On cancellation: all the same."""
        await self.writer.step(Leave(ids, why))

    async def dead(self, reasons: Mapping[int, str]) -> None:
        """Final failures: into the table ``dead``, with the reason. On cancellation: all the same."""
        await self.writer.step(Kill(reasons, time.time_ns() // 1_000_000))

    async def back(self, ids: Sequence[int], *, attempted: bool) -> None:
        """Not delivered, ready again. On cancellation: all the same.

        ``attempted`` False is proof for what this `take` led to. A row that was attempted before stays so: the proof
        says nothing about its earlier copy.
        """
        before = [row_id for row_id in ids if row_id in self._was_attempted]
        steps = [Return(ids, attempted)]
        if before and not attempted:
            steps = [
                Return([row_id for row_id in ids if row_id not in self._was_attempted], attempted=False),
                Return(before, attempted=True),
            ]
        await self.writer.step(*steps)

    # Told by an operator.

    async def drop(self, choice: Choice) -> Done | None:
        """Out of the file, as dropped; what the replay has stays. None: the file cannot be used now.

        On cancellation: nothing is dropped, or all of it, as soon as the disk lets it.
        """

        def order(chosen: Chosen) -> tuple[Chosen, list[Pushed]]:
            # In work, so that the replay does not take it meanwhile; and at once in steps, which no cancellation stops.
            chosen = chosen.without(self._in_work)
            self._in_work.update(dict.fromkeys(chosen.rows))
            return chosen, [self.writer.push(step) for step in chosen.dropping()]

        return await self._carried_out(choice, order)

    async def revive(self) -> Done | None:
        """Dead rows become rows again. None: the file cannot be used now.

        On cancellation: none does, or all do, as soon as the disk lets them.
        """

        def order(chosen: Chosen) -> tuple[Chosen, list[Pushed]]:
            return chosen, [self.writer.push(step) for step in chosen.reviving()]

        return await self._carried_out(Choice(dead=True), order)

    async def _carried_out(self, choice: Choice, order: Callable[[Chosen], tuple[Chosen, list[Pushed]]]) -> Done | None:
        ordered = await self.writer.use(lambda store: choose(choice, store.connection), order)
        if ordered is None:
            return None
        chosen, pushed = ordered
        for each in pushed:
            await each.done.wait()
        return chosen.done()

    def _committed(self, steps: Sequence[Step]) -> None:
        for step in steps:
            match step:
                case Revive(ids):
                    self._skip = self._skip.before(min(ids))
                case Discard():
                    pass
                case Return(ids) | Leave(ids):
                    self._not_in_work(ids)
                    replayed = isinstance(step, Leave) and step.why == "replayed"
                    if ids and not replayed:
                        self._skip = self._skip.before(min(ids))
                case Kill(reasons):
                    self._not_in_work(reasons)
                case MarkAttempted():
                    pass

    def _not_in_work(self, ids: Iterable[int]) -> None:
        for row_id in ids:
            self._in_work.pop(row_id, None)
            self._was_attempted.discard(row_id)

    def statistics(self) -> SpoolStatistics:
        """One reading; no SQL."""
        writer, seen = self.writer, self.writer.seen
        account, gauges, stored_bytes = seen.account, seen.gauges, seen.used_bytes
        used_bytes = stored_bytes + writer.pending_bytes
        if self._full and used_bytes < NO_LONGER_FULL * self._max_bytes:
            self._full = False
        self._fill_log.look(self._clock.current_time(), full=self._full, rows=gauges.rows, used_bytes=used_bytes)
        problem = writer.problem
        if not problem and self._full:
            problem = f"{self._files.path}: {stored_bytes} of [spool] max_bytes = {self._max_bytes} are used"
            if stored_bytes > gauges.bytes:
                problem += f", {stored_bytes - gauges.bytes} by its log: end the program that reads the file"
        age_ms = 0 if gauges.oldest_ms is None else time.time_ns() // 1_000_000 - gauges.oldest_ms
        return SpoolStatistics(
            state="full" if writer.full else "failed" if writer.problem else "full" if self._full else "ok",
            problem=problem,
            path=self._files.path,
            rows=gauges.rows,
            held_rows=gauges.held,
            attempted_rows=gauges.attempted,
            bytes=stored_bytes,
            max_bytes=self._max_bytes,
            pending_rows=writer.pending_rows,
            pending_bytes=writer.pending_bytes,
            oldest_age_s=max(0.0, age_ms / 1000),
            rows_in_total=account.rows_in,
            replayed_total=account.replayed,
            resolved_total=account.resolved,
            dead_total=account.dead,
            dropped_total=account.dropped,
            difference=account.rows_in - account.left - gauges.rows,
            refused_total=account.refused + writer.refused_unsaved,
            lost_total=account.lost,
            commits_total=account.commits,
            commit_p99_s=self._commit_p99_s(account.commits),
        )

    def _commit_p99_s(self, commits: int) -> float:
        if commits != self._p99[0]:
            times = sorted(self.writer.commit_times)
            self._p99 = commits, times[(len(times) * 99 - 1) // 100] if times else 0.0
        return self._p99[1]
