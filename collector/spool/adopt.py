"""What a process left that is gone: its rows move into our file, a few at a time, and its file goes.

Owns: the order of writing in two files, which no transaction spans. Refuses to know: requests, and what else is in our
file.

Theory. Each chunk is two commits: ours inserts the rows and notes in ``moving`` up to which id it has them; then the
source deletes them. After a crash between the two the note says which of the source's rows are here already. For that
to be sure, the source names in ``moved_to`` the one file that its rows go to, before the first of them goes; whoever
finds a source that names another file leaves it alone while that file exists. If it does not exist any more, and
nobody has its notes, the rows that are left may be somewhere twice: they become attempted.

At the end the source's counters are added to ours in one commit with the note that they are, its own notes with them:
so we are its heir, and what named it is ours to move, with those notes. Only when no file names it any more are its
files removed. Where damage took our notes, what names us may be here already: it becomes attempted too.

A source may be big and its disk slow. Our file is needed, and with it the writer's turn, for two short things: what it
says of the source, and the commit of a chunk.

Invariants: ledger B balances in both files after each commit of either; a crash at any moment loses no row, and leaves
none in both files without a note or a mark.
"""

import sqlite3
import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, Final, Literal, NoReturn

import msgspec
import trio
from msgspec import Struct

from collector.log import get_logger
from collector.spool.changes import Changes, CommitInDoubt, Damaged, NewRow, NotCommitted
from collector.spool.files import Lock, SpoolFiles, claim_of, remove_spool, spools_in
from collector.spool.gauges import Transaction
from collector.spool.salvage import finish_exchange, salvage
from collector.spool.schema import ATTEMPTED, NOTES_LOST, Account, checksum
from collector.spool.store import Store
from collector.spool.trouble import CAUSES, Kind, explain
from collector.spool.writer import Writer

__all__ = ["Adoption", "Chunk", "Known", "SourceFailed", "adopt_loop"]

log = get_logger("spool")

ADOPT_EVERY_S = 30.0
"""For other workers that died meanwhile."""

CHUNK_ROWS: Final = 500
CHUNK_BYTES: Final = 1024 * 1024
"""Of one commit: it holds up a request's commit for some milliseconds."""


COUNTERS: Final = [name for name in Account.__struct_fields__ if name not in ("commits", "last_id")]
"""Of the account, those that are sums."""


class SourceFailed(Exception):
    """The other file cannot be read or written; ours is as it was."""


class Known(Struct, frozen=True, kw_only=True):
    """What our file says of a source."""

    target: str
    """Our file's name."""
    notes: Mapping[str, int]
    """Through which id the source's rows and dead rows are here; ``account``: everything is."""
    inherited: Collection[str]
    """Files that we have moved whole, their notes too: who names one of them is ours."""
    notes_lost: bool
    """Damage took notes that our file had."""

    @classmethod
    def read(cls, target: Store, source: str) -> "Known":
        """Raises: sqlite3.Error."""
        moving = target.connection.execute("SELECT source, what, through FROM moving").fetchall()
        return cls(
            target=Path(target.path).name,
            notes={what: through for name, what, through in moving if name == source},
            inherited=[name for name, what, _ in moving if what == "account"],
            notes_lost=NOTES_LOST in moving,
        )


class Chunk(Struct, frozen=True, kw_only=True, eq=False):
    """What a source gives at a time: rows, then dead ones, then its account and notes; then it is gone."""

    what: Literal["rows", "dead", "account", "gone"]
    through: int
    rows: Sequence[NewRow] = ()
    dead: Sequence[tuple[Any, ...]] = ()
    account: Account | None = None
    notes: Sequence[tuple[str, str, int]] = ()


class _Arrived(Struct, frozen=True, eq=False):
    """Our half of a chunk, beside its rows: the note, dead rows, in the end the counters."""

    source: str
    chunk: Chunk

    def apply(self, connection: sqlite3.Connection, transaction: Transaction) -> None:
        chunk = self.chunk
        connection.execute("INSERT OR REPLACE INTO moving VALUES (?, ?, ?)", (self.source, chunk.what, chunk.through))
        connection.executemany("INSERT OR IGNORE INTO moving VALUES (?, ?, ?)", chunk.notes)
        connection.executemany("INSERT INTO dead VALUES (?, ?, ?, ?, ?, ?, ?)", chunk.dead)
        account = transaction.account
        transaction.dead_rows += len(chunk.dead)
        transaction.dead_bytes += sum(row[2] for row in chunk.dead)
        account.dead += len(chunk.dead)
        account.rows_in += len(chunk.dead)
        if chunk.dead:
            account.last_id = chunk.dead[-1][0]
        if chunk.account is not None:
            for name in COUNTERS:
                setattr(account, name, getattr(account, name) + getattr(chunk.account, name))


class _Moved(Struct, frozen=True, eq=False):
    """The source's half: what is in our file up to these ids goes."""

    rows_through: int
    dead_through: int

    def apply(self, connection: sqlite3.Connection, transaction: Transaction) -> None:
        rows = connection.execute(
            "SELECT state, key_hash, bytes FROM rows WHERE id <= ?", (self.rows_through,)
        ).fetchall()
        transaction.rows += ((state, key_hash, size, -1) for state, key_hash, size in rows)
        connection.execute("DELETE FROM rows WHERE id <= ?", (self.rows_through,))
        connection.execute("DELETE FROM payloads WHERE id <= ?", (self.rows_through,))
        count, size = connection.execute(
            "SELECT count(*), coalesce(sum(bytes), 0) FROM dead WHERE id <= ?", (self.dead_through,)
        ).fetchone()
        connection.execute("DELETE FROM dead WHERE id <= ?", (self.dead_through,))
        transaction.dead_rows -= count
        transaction.dead_bytes -= size
        transaction.account.dead -= count
        transaction.account.rows_in -= len(rows) + count


class _Claim(Struct, frozen=True, eq=False):
    """In the source: to which file its rows go."""

    target: str
    maybe_twice: bool

    def apply(self, connection: sqlite3.Connection, transaction: Transaction) -> None:
        connection.execute("INSERT OR REPLACE INTO moved_to VALUES (1, ?)", (self.target,))
        if self.maybe_twice:
            connection.execute("UPDATE rows SET state = ?", (ATTEMPTED,))


class _Forget(Struct, frozen=True, eq=False):
    """The source is gone; so are the notes about it."""

    source: str

    def apply(self, connection: sqlite3.Connection, transaction: Transaction) -> None:
        connection.execute("DELETE FROM moving WHERE source = ?", (self.source,))


@contextmanager
def _of_the_source() -> Iterator[None]:
    try:
        yield
    except (NotCommitted, CommitInDoubt, *CAUSES) as error:
        raise SourceFailed(str(error)) from error


class Adoption:
    """One other file, whose lock we hold.

    The two halves of a chunk are `next`, which is slow and needs neither our file nor its lock, and `arrive`.

    Args:
        file: The other file.
        lock: Its lock; `end` lets go of it.
    """

    def __init__(self, file: Path, lock: Lock) -> None:
        self.file = file
        self._lock = lock
        self._source: Store | None = None
        self._in_use = threading.Lock()
        self._ended = False
        self._released = False
        self.rows = 0
        """Moved so far."""

    def __repr__(self) -> str:
        return f"<Adoption of {self.file.name}, {self.rows} rows moved>"

    def next(self, known: Known) -> Chunk | None:
        """Delete what is in our file, and read what is to be there next; None: nothing is to be done now. Blocks.

        Args:
            known: What our file says of it at this moment.

        Raises:
            SourceFailed: The other file failed, or `end` was called.
        """
        try:
            with self._in_use, _of_the_source():
                return None if self._ended else self._next(known)
        finally:
            if self._ended:
                self._let_go()

    def _next(self, known: Known) -> Chunk | None:
        if "account" in known.notes:
            return self._remove()
        source = self._open(known)
        if source is None:
            return None
        if known.notes:
            source.commit(Changes(extra=_Moved(known.notes.get("rows", 0), known.notes.get("dead", 0))))
        rows = _read_rows(source.connection)
        if rows:
            return Chunk(what="rows", through=rows[-1].id, rows=rows)
        dead = source.connection.execute(f"SELECT * FROM dead ORDER BY id LIMIT {CHUNK_ROWS}").fetchall()
        if dead:
            return Chunk(what="dead", through=dead[-1][0], dead=dead)
        notes = source.connection.execute("SELECT * FROM moving").fetchall()
        return Chunk(what="account", through=1, account=source.account, notes=notes)

    def arrive(self, target: Store, last_id: int, chunk: Chunk) -> bool:
        """Commit our half of a chunk; False when it was the last. Blocks.

        Args:
            target: Our file.
            last_id: The highest id that was given in it.

        Raises:
            NotCommitted, CommitInDoubt: Our file failed. Everything can go on from where it is.
        """
        if chunk.what == "gone":
            target.commit(Changes(extra=_Forget(self.file.name)))
            return False
        rows = [msgspec.structs.replace(row, id=last_id + 1 + index) for index, row in enumerate(chunk.rows)]
        dead = [(last_id + 1 + index, *row[1:]) for index, row in enumerate(chunk.dead)]
        chunk = msgspec.structs.replace(chunk, rows=rows, dead=dead)
        target.commit(Changes(rows=rows, extra=_Arrived(self.file.name, chunk)))
        self.rows += len(rows)
        return True

    def _remove(self) -> Chunk | None:
        # Who finds a file that names one that is gone takes it for one whose notes nobody has.
        if any(_may_name(file, self.file.name) for file in spools_in(self.file.parent) if file != self.file):
            return None
        if self._source is not None:
            self._source.close()
            self._source = None
        remove_spool(self.file)
        self._lock.release(remove=True)
        self._released = True
        return Chunk(what="gone", through=1)

    def end(self) -> None:
        """Close the other file and let go of its lock; an abandoned thread that is still at work on it does so itself,
        at the end of what it is at."""
        self._ended = True
        self._let_go()

    def _let_go(self) -> None:
        if not self._in_use.acquire(blocking=False):
            return
        try:
            if not self._released:
                self._released = True
                if self._source is not None:
                    with suppress(sqlite3.Error):
                        self._source.close()
                self._lock.release()
        finally:
            self._in_use.release()

    def _open(self, known: Known) -> Store | None:
        """The source, with our claim in it; None: it is another file's to move."""
        if self._source is not None:
            return self._source
        finish_exchange(self.file)
        try:
            source = Store(str(self.file))
            check(source.connection)
        except (sqlite3.DatabaseError, Damaged) as error:
            if explain(error, str(self.file)).kind is not Kind.DAMAGED:
                raise
            salvage(self.file)
            source = Store(str(self.file))
        self._source = source
        claim = claim_of(source.connection)
        stranger = claim not in (None, known.target, *known.inherited)
        if stranger and self.file.with_name(str(claim)).exists():
            return None
        # Where nobody has the notes, what is left may be in another file too, wherever that is.
        maybe_twice = not known.notes and (stranger or (claim is not None and known.notes_lost))
        if claim != known.target or maybe_twice:
            source.commit(Changes(extra=_Claim(known.target, maybe_twice)))
        return source


def _may_name(file: Path, target: str) -> bool:
    """Whether this file's rows are moved to that one; also where the file cannot be read now."""
    try:
        with closing(sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True)) as connection:
            return claim_of(connection) == target
    except sqlite3.Error:
        return True


def check(connection: sqlite3.Connection) -> None:
    """Read every row once.

    Raises:
        sqlite3.DatabaseError, Damaged: The file must be salvaged first.
    """
    for row_id, crc, payload in connection.execute(
        "SELECT r.id, r.crc, p.payload FROM rows AS r LEFT JOIN payloads AS p ON p.id = r.id ORDER BY r.id"
    ):
        if payload is None or checksum(payload) != crc:
            raise Damaged(f"the payload of row {row_id} is not what was written")
    connection.execute("SELECT count(reason), sum(length(payload)) FROM dead").fetchone()


def _read_rows(connection: sqlite3.Connection) -> list[NewRow]:
    rows: list[NewRow] = []
    size = 0
    for row_id, state, key_hash, row_size, stored_at_ms, payload in connection.execute(
        "SELECT r.id, r.state, r.key_hash, r.bytes, r.stored_at_ms, p.payload FROM rows AS r"
        f" JOIN payloads AS p ON p.id = r.id ORDER BY r.id LIMIT {CHUNK_ROWS}"
    ):
        if rows and size + row_size > CHUNK_BYTES:
            break
        size += row_size
        rows.append(
            NewRow(id=row_id, state=state, key_hash=key_hash, size=row_size, stored_at_ms=stored_at_ms, payload=payload)
        )
    return rows


async def adopt_loop(writer: Writer, files: SpoolFiles, max_bytes: int) -> NoReturn:
    """Look for files that nobody has, at once and every `ADOPT_EVERY_S`, and move what is in them into ours.

    On cancellation: where a thread is abandoned in the middle of a chunk, the next process goes on from there.
    """
    limiter = trio.CapacityLimiter(1)
    while True:
        found = await writer.use(lambda _: files.take_others(), lambda taken: taken)
        for file, lock in found or []:
            adoption = Adoption(file, lock)
            try:
                await _adopt(adoption, writer, limiter, max_bytes)
            except SourceFailed as error:
                log.error("another process's spool cannot be adopted now", file=str(file), error=str(error))
            finally:
                adoption.end()
            if adoption.rows:
                log.info("adopted another process's spool", file=str(file), rows=adoption.rows)
        await trio.sleep(ADOPT_EVERY_S)


async def _adopt(adoption: Adoption, writer: Writer, limiter: trio.CapacityLimiter, max_bytes: int) -> None:
    def known_at(store: Store) -> Known | None:
        # Full: the rest when there is room.
        return Known.read(store, adoption.file.name) if store.used_bytes < max_bytes else None

    def arrive(chunk: Chunk, store: Store) -> bool:
        return adoption.arrive(store, writer.last_id, chunk)

    more: bool | None = True
    while more:
        known = await writer.use(known_at, lambda found: found)
        if known is None:
            break
        # Not in the writer's thread: opening and checking a big file takes seconds, and commits wait behind it.
        chunk = await trio.to_thread.run_sync(adoption.next, known, abandon_on_cancel=True, limiter=limiter)
        if chunk is None:
            break
        more = await writer.use(partial(arrive, chunk), bool)
    await trio.to_thread.run_sync(adoption.end, abandon_on_cancel=True, limiter=limiter)
