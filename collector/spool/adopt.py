"""What a process left that is gone: its rows move into our file, a few at a time, and its file goes.

Owns: the order of writing in two files, which no transaction spans. Refuses to know: when files are looked for, who
calls (one thread at a time, with our file to itself).

Theory. Each chunk is two commits: ours inserts the rows and notes in ``moving`` up to which id it has them; then the
source deletes them. After a crash between the two the note says which of the source's rows are here already. For that
to be sure, the source names in ``moved_to`` the one file that its rows go to, before the first of them goes; whoever
finds a source that names another file leaves it alone while that file exists. If it does not exist any more, and
nobody has its notes, the rows that are left may be somewhere twice: they become attempted.

At the end the source's counters are added to ours in one commit with the note that they are, its own notes with them.
Then its files are removed.

Invariants: ledger B balances in both files after each commit of either; a crash at any moment loses no row, and leaves
none in both files without a note or a mark.
"""

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final, NoReturn

import msgspec
import trio
from msgspec import Struct

from collector.log import get_logger
from collector.spool.changes import Changes, CommitInDoubt, Damaged, NewRow, NotCommitted
from collector.spool.files import Lock, SpoolFiles, claim_of, remove_spool
from collector.spool.gauges import Transaction
from collector.spool.salvage import finish_exchange, salvage
from collector.spool.schema import ATTEMPTED, Account, checksum
from collector.spool.store import Store
from collector.spool.trouble import CAUSES, Kind, explain
from collector.spool.writer import Writer

__all__ = ["Adoption", "SourceFailed", "adopt_loop"]

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


class _Arrived(Struct, frozen=True, kw_only=True, eq=False):
    """Our half of a chunk, beside its rows: the note, dead rows, in the end the counters."""

    source: str
    what: str
    through: int
    dead: Sequence[tuple[Any, ...]] = ()
    account: Account | None = None
    notes: Sequence[tuple[str, str, int]] = ()

    def apply(self, connection: sqlite3.Connection, transaction: Transaction) -> None:
        connection.execute("INSERT OR REPLACE INTO moving VALUES (?, ?, ?)", (self.source, self.what, self.through))
        connection.executemany("INSERT OR IGNORE INTO moving VALUES (?, ?, ?)", self.notes)
        connection.executemany("INSERT INTO dead VALUES (?, ?, ?, ?, ?, ?, ?)", self.dead)
        account = transaction.account
        transaction.dead_rows += len(self.dead)
        transaction.dead_bytes += sum(row[2] for row in self.dead)
        account.dead += len(self.dead)
        account.rows_in += len(self.dead)
        if self.dead:
            account.last_id = self.dead[-1][0]
        if self.account is not None:
            for name in COUNTERS:
                setattr(account, name, getattr(account, name) + getattr(self.account, name))


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

    Args:
        file: The other file.
        lock: Its lock; `end` lets go of it.
    """

    def __init__(self, file: Path, lock: Lock) -> None:
        self.file = file
        self._lock = lock
        self._source: Store | None = None
        self._working = False
        self._released = False
        self.rows = 0
        """Moved so far."""

    def __repr__(self) -> str:
        return f"<Adoption of {self.file.name}, {self.rows} rows moved>"

    def step(self, target: Store, last_id: int) -> bool:
        """Move some rows; False when there is nothing left to do. Blocks.

        Args:
            target: Our file.
            last_id: The highest id that was given in it.

        Raises:
            NotCommitted, CommitInDoubt, sqlite3.Error: Our file failed. Everything can go on from where it is.
            SourceFailed: The other file failed.
        """
        self._working = True
        try:
            return self._step(target, last_id)
        finally:
            self._working = False

    def _step(self, target: Store, last_id: int) -> bool:
        notes = self._notes(target)
        if "account" in notes:
            self._remove()
            target.commit(Changes(extra=_Forget(self.file.name)))
            return False
        with _of_the_source():
            source = self._open(target, known=bool(notes))
            if source is None:
                return False
            if notes:
                source.commit(Changes(extra=_Moved(notes.get("rows", 0), notes.get("dead", 0))))
            changes = self._next(source, last_id)
        target.commit(changes)
        self.rows += len(changes.rows)
        return True

    def _next(self, source: Store, last_id: int) -> Changes:
        """The next chunk for our file: of rows, then of dead ones, then the account."""
        rows = _read_rows(source.connection)
        if rows:
            ours = [msgspec.structs.replace(row, id=last_id + 1 + index) for index, row in enumerate(rows)]
            return Changes(rows=ours, extra=_Arrived(source=self.file.name, what="rows", through=rows[-1].id))
        dead = source.connection.execute(f"SELECT * FROM dead ORDER BY id LIMIT {CHUNK_ROWS}").fetchall()
        if dead:
            renumbered = [(last_id + 1 + index, *row[1:]) for index, row in enumerate(dead)]
            return Changes(extra=_Arrived(source=self.file.name, what="dead", through=dead[-1][0], dead=renumbered))
        notes = source.connection.execute("SELECT * FROM moving").fetchall()
        return Changes(
            extra=_Arrived(source=self.file.name, what="account", through=1, account=source.account, notes=notes)
        )

    def _remove(self) -> None:
        with _of_the_source():
            if self._source is not None:
                self._source.close()
                self._source = None
            remove_spool(self.file)
            self._lock.release(remove=True)
            self._released = True

    def end(self) -> None:
        """Close the other file and let go of its lock, unless an abandoned thread is still at work on it."""
        if self._working or self._released:
            return
        self._released = True
        if self._source is not None:
            with suppress(sqlite3.Error):
                self._source.close()
        self._lock.release()

    def _notes(self, target: Store) -> dict[str, int]:
        return dict(target.connection.execute("SELECT what, through FROM moving WHERE source = ?", (self.file.name,)))

    def _open(self, target: Store, *, known: bool) -> Store | None:
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
        ours = Path(target.path).name
        claim = claim_of(source.connection)
        if claim != ours:
            if claim is not None and self.file.with_name(claim).exists():
                return None
            # Whose notes nobody has: what is left may be in that file too, wherever it is.
            source.commit(Changes(extra=_Claim(ours, maybe_twice=claim is not None and not known)))
        return source


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
    while True:
        found = await writer.use(lambda _: files.take_others(), lambda taken: taken)
        for file, lock in found or []:
            adoption = Adoption(file, lock)
            try:
                await _adopt(adoption, writer, max_bytes)
            finally:
                adoption.end()
        await trio.sleep(ADOPT_EVERY_S)


async def _adopt(adoption: Adoption, writer: Writer, max_bytes: int) -> None:
    def step(store: Store) -> bool | SourceFailed:
        if store.gauges.bytes >= max_bytes:
            return False  # the rest when there is room
        try:
            return adoption.step(store, writer.last_id)
        except SourceFailed as error:
            return error

    while True:
        more = await writer.use(step, lambda result: result)
        if isinstance(more, SourceFailed):
            log.error("another process's spool cannot be adopted now", file=str(adoption.file), error=str(more))
        if more is not True:
            break
    if adoption.rows:
        log.info("adopted another process's spool", file=str(adoption.file), rows=adoption.rows)
