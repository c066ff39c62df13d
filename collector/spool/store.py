"""One SQLite file: its transactions, and what it holds at this moment, counted.

Owns: the connection, the pragmas, every statement on rows, the gauges that mirror the file. Refuses to know: Trio,
threads (one caller at a time), receipts, what to do about an error.

Durability. WAL with ``synchronous=FULL``: a commit appends its frames to the log and calls fdatasync on it before
COMMIT returns (source: sqlite.org/wal.html, "Performance Considerations"; sqlite.org/pragma.html#pragma_synchronous).
Checkpoints are not automatic, or they would be part of some commit; `Store.tidy` does them (`LogFile`).

Invariants: account and rows change in one transaction, so ledger B balances in the file at every moment; gauges and
account in memory change when the transaction has been committed, and only then. What a failed commit left behind is
told by the error's class: `NotCommitted` is proof that nothing of it is there, `CommitInDoubt` is not.
"""

import dataclasses
import json
import sqlite3
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import TypeAlias

from collector.spool.base import BUCKETS
from collector.spool.changes import (
    Changes,
    CommitInDoubt,
    Damaged,
    Kill,
    Leave,
    MarkAttempted,
    NewRow,
    NotCommitted,
    Return,
    Step,
)
from collector.spool.dead import Discard, Revive, discard, revive
from collector.spool.gauges import Gauges, Seen, Transaction
from collector.spool.log_file import LogFile
from collector.spool.schema import (
    APPLICATION_ID,
    ATTEMPTED,
    CREATE,
    HELD,
    READY,
    SCHEMA_VERSION,
    Account,
    checksum,
)

__all__ = ["Store"]

BUSY_S = 0.25
"""How long a commit waits for somebody else's lock on the file: a request has 0.8 s for the disk."""

VACUUM_STEP_PAGES = 1024
"""Given back at a time, 4 MiB, so that a commit behind it waits for milliseconds."""


_Meta: TypeAlias = tuple[int, int, int | None, int]


class Store:
    """An open file. Its methods block; one thread at a time may call them.

    Args:
        path: The file, made if it is not there; ":memory:" is a volatile one.
        end_holds: Nobody knows any more how the batches of its held rows ended: they become attempted.

    Raises:
        sqlite3.Error, OSError: It cannot be opened.
        Damaged: It is no spool, or not one that we can read.
    """

    def __init__(self, path: str, *, end_holds: bool = True) -> None:
        self.path = path
        self.connection = _connect(path)
        try:
            self._prepare()
            self._log = LogFile(self.connection, path, BUSY_S)
            self.account, self.gauges = self._load(end_holds)
        except BaseException:
            self.connection.close()
            raise

    def __repr__(self) -> str:
        return f"<Store {self.path} rows={self.gauges.rows} bytes={self.gauges.bytes}>"

    def _prepare(self) -> None:
        execute = self.connection.execute
        if execute("PRAGMA user_version").fetchone()[0] == 0 and not execute("SELECT 1 FROM sqlite_master").fetchone():
            # Before the first table, else it needs a whole VACUUM.
            execute("PRAGMA auto_vacuum = INCREMENTAL")
            execute("PRAGMA journal_mode = WAL")
            self.connection.executescript(f"BEGIN IMMEDIATE; {CREATE} COMMIT;")
        execute("PRAGMA journal_mode = WAL")
        execute("PRAGMA synchronous = FULL")
        execute("PRAGMA wal_autocheckpoint = 0")
        execute("PRAGMA foreign_keys = OFF")
        made_by = execute("PRAGMA application_id").fetchone()[0], execute("PRAGMA user_version").fetchone()[0]
        if made_by != (APPLICATION_ID, SCHEMA_VERSION):
            raise Damaged(f"it is not a spool of this version: application_id, user_version are {made_by}")

    def _load(self, end_holds: bool) -> tuple[Account, Gauges]:
        """Count what is there."""
        execute = self.connection.execute
        execute("BEGIN IMMEDIATE")
        try:
            if end_holds:
                execute("UPDATE rows SET state = ? WHERE state = ?", (ATTEMPTED, HELD))
            account, gauges = self.read_account(), Gauges()
            gauges.rows, gauges.bytes, gauges.held, gauges.attempted = execute(
                "SELECT count(*), coalesce(sum(bytes), 0), count(*) FILTER (WHERE state = ?),"
                " count(*) FILTER (WHERE state = ?) FROM rows",
                (HELD, ATTEMPTED),
            ).fetchone()
            keyed = execute(f"SELECT key_hash % {BUCKETS} FROM rows WHERE key_hash IS NOT NULL")
            for (bucket,), rows in Counter(keyed).items():
                gauges.buckets[bucket] = rows
            dead_rows, dead_bytes = execute("SELECT count(*), coalesce(sum(bytes), 0) FROM dead").fetchone()
            gauges.dead_rows = dead_rows
            gauges.bytes += dead_bytes
            gauges.oldest_ms = self._oldest_ms()
            execute("COMMIT")
        except BaseException:
            self._rollback()
            raise
        return account, gauges

    def read_account(self) -> Account:
        """The account as it is in the file.

        Raises:
            Damaged: There is none.
        """
        found = self.connection.execute("SELECT * FROM account").fetchone()
        if found is None:
            raise Damaged("its account is gone")
        return Account(**dict(zip(Account.__struct_fields__, found[1:], strict=True)))

    def _oldest_ms(self) -> int | None:
        found = self.connection.execute("SELECT stored_at_ms FROM rows ORDER BY id LIMIT 1").fetchone()
        return None if found is None else found[0]

    def commit(self, changes: Changes) -> None:
        """Make one transaction of it, and return when the disk has it.

        Raises:
            NotCommitted: Nothing of it is there.
            CommitInDoubt: It may be there.
        """
        transaction = Transaction(self.account)
        execute = self.connection.execute
        try:
            execute("BEGIN IMMEDIATE")
            self._insert(changes.rows, transaction)
            for step in changes.steps:
                self._take_step(step, transaction)
            if changes.extra is not None:
                changes.extra.apply(self.connection, transaction)
            account = transaction.account
            account.commits += 1
            account.refused += changes.refused
            self.write_account(account)
            oldest_ms = self._oldest_ms()
        except sqlite3.Error as error:
            self._rollback()
            raise NotCommitted(str(error)) from error
        try:
            execute("COMMIT")
        except sqlite3.Error as error:
            raise CommitInDoubt(str(error)) from error
        self.account = account
        transaction.apply(self.gauges)
        self.gauges.oldest_ms = oldest_ms

    def _rollback(self) -> None:
        # One that fails changes nothing: frames without a commit mark at their end are taken by no recovery.
        if self.connection.in_transaction:
            with suppress(sqlite3.Error):
                self.connection.execute("ROLLBACK")

    def write_account(self, account: Account) -> None:
        """Part of a transaction that is open."""
        fields = Account.__struct_fields__
        self.connection.execute(
            f"UPDATE account SET {', '.join(f'{name} = ?' for name in fields)}",
            [getattr(account, name) for name in fields],
        )

    def _insert(self, rows: Iterable[NewRow], transaction: Transaction) -> None:
        narrow, payloads = [], []
        for row in rows:
            narrow.append((row.id, row.state, row.key_hash, row.size, row.stored_at_ms, checksum(row.payload)))
            payloads.append((row.id, row.payload))
            transaction.rows.append((row.state, row.key_hash, row.size, 1))
        if narrow:
            self.connection.executemany("INSERT INTO rows VALUES (?, ?, ?, ?, ?, ?)", narrow)
            self.connection.executemany("INSERT INTO payloads VALUES (?, ?)", payloads)
            transaction.account.rows_in += len(narrow)
            transaction.account.last_id = max(transaction.account.last_id, narrow[-1][0])

    def _take_step(self, step: Step, transaction: Transaction) -> None:
        match step:
            case MarkAttempted(ids):
                self._set_state(ids, ATTEMPTED, transaction)
            case Return(ids, attempted):
                self._set_state(ids, ATTEMPTED if attempted else READY, transaction)
            case Leave(ids, why):
                count = self._remove(self._found(ids), transaction)
                setattr(transaction.account, why, getattr(transaction.account, why) + count)
            case Kill(reasons, at_ms):
                self._kill(reasons, at_ms, transaction)
            case Revive(ids):
                for key_hash, size in revive(self.connection, ids, transaction.new_id):
                    transaction.rows.append((ATTEMPTED, key_hash, size, 1))
                    transaction.dead_left(size)
            case Discard(ids):
                for size in discard(self.connection, ids):
                    transaction.dead_left(size)
                    transaction.account.dropped += 1

    def _found(self, ids: Iterable[int]) -> list[_Meta]:
        # CROSS JOIN keeps SQLite from scanning all rows for a few ids.
        return self.connection.execute(
            "SELECT r.id, r.state, r.key_hash, r.bytes FROM json_each(?) AS j CROSS JOIN rows AS r ON r.id = j.value",
            (json.dumps(sorted(set(ids))),),
        ).fetchall()

    def _set_state(self, ids: Iterable[int], state: int, transaction: Transaction) -> None:
        changed = []
        for row_id, was, _, _ in self._found(ids):
            if was != state:
                transaction.states += ((was, -1), (state, 1))
                changed.append((state, row_id))
        self.connection.executemany("UPDATE rows SET state = ? WHERE id = ?", changed)

    def _remove(self, found: Sequence[_Meta], transaction: Transaction) -> int:
        ids = [(meta[0],) for meta in found]
        self.connection.executemany("DELETE FROM rows WHERE id = ?", ids)
        self.connection.executemany("DELETE FROM payloads WHERE id = ?", ids)
        transaction.rows += ((state, key_hash, size, -1) for _, state, key_hash, size in found)
        return len(found)

    def _kill(self, reasons: Mapping[int, str], at_ms: int, transaction: Transaction) -> None:
        found = self._found(reasons)
        for row_id, _, _, size in found:
            # A file that lost its account once may have given an id twice.
            taken = self.connection.execute("SELECT 1 FROM dead WHERE id = ?", (row_id,)).fetchone()
            self.connection.execute(
                "INSERT INTO dead SELECT ?, r.key_hash, r.bytes, r.stored_at_ms, ?, ?, p.payload"
                " FROM rows AS r JOIN payloads AS p ON p.id = r.id WHERE r.id = ?",
                (transaction.new_id() if taken else row_id, at_ms, reasons[row_id], row_id),
            )
            transaction.dead_rows += 1
            transaction.dead_bytes += size
        transaction.account.dead += self._remove(found, transaction)

    def copied(self) -> bool:
        """Copy the log into the file and synchronise it; whether all of it could be copied.

        Raises:
            sqlite3.Error: It did not work.
        """
        return self._log.copied()

    @property
    def used_bytes(self) -> int:
        """What counts against ``max_bytes``: rows, and a log that somebody keeps from being emptied."""
        return self.gauges.bytes + self._log.excess

    def seen(self) -> Seen:
        """What is in the file; while no thread is in it."""
        return Seen(account=self.account, gauges=dataclasses.replace(self.gauges), used_bytes=self.used_bytes)

    @property
    def crowded(self) -> bool:
        """The log is too long."""
        return self._log.excess > 0

    def tidy(self) -> bool:
        """Copy the log into the file, and give back some of the space that nothing uses; whether there is more of it.

        Raises:
            sqlite3.Error: It did not work; what is committed stays so.
        """
        execute = self.connection.execute
        self._log.tidy()
        free = execute("PRAGMA freelist_count").fetchone()[0]
        pages = execute("PRAGMA page_count").fetchone()[0]
        # Half of the file, so that every page is moved at most once for one that was freed.
        if not free or (2 * free <= pages and self.gauges.rows):
            return False
        # As a script: it gives back one page a step, and `execute` makes only one for a statement without columns.
        self.connection.executescript(f"PRAGMA incremental_vacuum({VACUUM_STEP_PAGES})")
        self._log.tidy()
        return bool(free > VACUUM_STEP_PAGES)

    def close(self) -> None:
        """Close the file; what is committed stays so, whatever happens here."""
        self.connection.close()


def _connect(path: str) -> sqlite3.Connection:
    # isolation_level None: BEGIN and COMMIT are ours. Threads: see the class; one at a time is enough for SQLite.
    return sqlite3.connect(path, timeout=BUSY_S, isolation_level=None, check_same_thread=False, cached_statements=64)
