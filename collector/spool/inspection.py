"""What is in a spool's file, read from outside: for people, and for programs that look for one event.

Owns: the reading of a file that somebody else may be writing at this moment, and what may be wrong with one. Refuses to
know: who owns a file (its lock), how to change one, what a terminal looks like.

The writer does not wait for a reader, but as long as one reads, its log grows. So what may take long is read in parts,
each as of its own moment: a row that leaves meanwhile is read or not, and one that comes is read. Counts are of one
moment. (Only SQLite's own check of its pages is one long read: seconds for a gigabyte.)

Invariant: nothing is written; a file that cannot be read is an answer here, never a traceback.
"""

import base64
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, TypeAlias

import msgspec
from msgspec import Struct

from collector.spool.schema import (
    APPLICATION_ID,
    ATTEMPTED,
    HELD,
    READY,
    ROW_COST_BYTES,
    SCHEMA_VERSION,
    Account,
    checksum,
    decode,
)

__all__ = ["Contents", "Exported", "RowState", "Unreadable", "contents_of", "exported", "faults_of", "text_of"]

RowState: TypeAlias = Literal["ready", "held", "attempted", "dead"]

_STATES: dict[int, RowState] = {READY: "ready", HELD: "held", ATTEMPTED: "attempted"}

#: What of one kind is named of a damaged file; the rest is counted.
NAMED = 5


#: Of one read: some megabytes, if rows are big.
PART_ROWS = 64


class Unreadable(Exception):
    """The file cannot be read, or is no spool; the message is why."""


class Contents(Struct, frozen=True, kw_only=True):
    """One file at one moment. Bytes are what counts against ``max_bytes``."""

    rows: int
    """Not gone and not dead; held and attempted ones among them."""
    held: int
    attempted: int
    dead: int
    bytes: int
    oldest_age_s: float | None
    """None: there is no row."""
    account: Account
    moved_to: str | None
    """The file that has taken over all of its rows; None where none has."""

    @property
    def difference(self) -> int:
        """Ledger B: rows in less everything else: 0 unless the file is damaged."""
        return self.account.rows_in - self.account.left - self.rows


#: Text where it is UTF-8, else ``{"base64": …}``.
Text: TypeAlias = str | dict[str, str] | None


class Exported(Struct, frozen=True, kw_only=True):
    """One row, as a line of JSON has it."""

    id: int
    state: RowState
    stored_at_ms: int
    app: str
    topic: str
    key: Text
    value: Text
    headers: list[tuple[str, Text]]
    timestamp_ms: int | None
    partition: int | None
    reason: str | None
    """Why it is dead."""


def contents_of(path: str | Path) -> Contents:
    """Count what is in the file. Raises `Unreadable`."""
    with _reading(path) as connection:
        connection.execute("BEGIN")
        rows = held = attempted = size = 0
        for state, count, total in connection.execute("SELECT state, count(*), sum(bytes) FROM rows GROUP BY state"):
            rows += count
            size += total
            held += count if state == HELD else 0
            attempted += count if state == ATTEMPTED else 0
        dead, dead_bytes = connection.execute("SELECT count(*), coalesce(sum(bytes), 0) FROM dead").fetchone()
        (oldest_ms,) = connection.execute("SELECT min(stored_at_ms) FROM rows").fetchone()
        moved = connection.execute("SELECT target FROM moved_to").fetchone()
        return Contents(
            rows=rows,
            held=held,
            attempted=attempted,
            dead=dead,
            bytes=size + dead_bytes,
            oldest_age_s=None if oldest_ms is None else max(0.0, time.time() - oldest_ms / 1000),
            account=_account(connection),
            moved_to=None if moved is None else moved[0],
        )


def exported(path: str | Path, *, dead: bool = False, damaged: Callable[[int], object]) -> Iterator[Exported]:
    """The rows of a file, oldest first; ``dead`` ones instead of the others.

    Args:
        damaged: told the id of each row that cannot be read; the others are not held up by it.

    Raises:
        Unreadable: nothing, or no more, can be read.
    """
    sql = (
        "SELECT id, NULL, stored_at_ms, reason, NULL, CAST(payload AS BLOB) FROM dead WHERE id > ? ORDER BY id"
        if dead
        else "SELECT r.id, r.state, r.stored_at_ms, NULL, r.crc, CAST(p.payload AS BLOB)"
        " FROM rows AS r LEFT JOIN payloads AS p ON p.id = r.id WHERE r.id > ? ORDER BY r.id"
    )
    with _reading(path) as connection:
        for row_id, state, stored_at_ms, reason, crc, payload in _in_parts(connection, sql):
            if not _sound(payload, crc):
                damaged(row_id)
                continue
            record, app = decode(payload)
            yield Exported(
                id=row_id,
                state="dead" if dead else _STATES[state],
                stored_at_ms=stored_at_ms,
                app=app,
                topic=record.topic,
                key=text_of(record.key),
                value=text_of(record.value),
                headers=[(name, text_of(value)) for name, value in record.headers],
                timestamp_ms=record.timestamp_ms,
                partition=record.partition,
                reason=reason,
            )


def text_of(value: bytes | None) -> Text:
    """Bytes in JSON: as text where they are UTF-8."""
    if value is None:
        return None
    try:
        return value.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(value).decode()}


def faults_of(path: str | Path) -> list[str]:
    """Everything that is wrong with the file, in words; none: each row can be replayed, and ledger B balances."""
    faults: list[str] = []
    try:
        with _reading(path) as connection:
            for check in (_structure, _rows, _dead, _books):
                try:
                    faults += check(connection)
                except (sqlite3.Error, Unreadable) as error:
                    faults.append(f"cannot be read through: {error}")
    except Unreadable as error:
        return [str(error)]
    return list(dict.fromkeys(faults))


def _structure(connection: sqlite3.Connection) -> Iterator[str]:
    """SQLite's own look at its pages and trees."""
    for (line,) in connection.execute(f"PRAGMA integrity_check({NAMED})"):
        if line != "ok":
            yield f"structure: {' '.join(line.split())}"


def _rows(connection: sqlite3.Connection) -> Iterator[str]:
    """Both halves of every row: present, of one size, unchanged, and a record."""
    found = _Found()
    for row_id, state, size, crc, payload in _in_parts(
        connection,
        "SELECT r.id, r.state, r.bytes, r.crc, CAST(p.payload AS BLOB)"
        " FROM rows AS r LEFT JOIN payloads AS p ON p.id = r.id WHERE r.id > ? ORDER BY r.id",
    ):
        if payload is None:
            found.add("without its payload", row_id)
        elif not isinstance(payload, bytes) or checksum(payload) != crc:
            found.add("with a payload that was changed (checksum)", row_id)
        elif not _sound(payload):
            found.add("with a payload that is no record", row_id)
        elif size != len(payload) + ROW_COST_BYTES:
            found.add("of another size than it says", row_id)
        if state not in _STATES:
            found.add(f"in no state that there is ({state})", row_id)
    for row_id, there in _in_parts(
        connection,
        "SELECT p.id, r.id FROM payloads AS p LEFT JOIN rows AS r ON r.id = p.id WHERE p.id > ? ORDER BY p.id",
    ):
        if there is None:
            found.add("of which there is the payload alone", row_id)
    yield from found.lines("row")


def _dead(connection: sqlite3.Connection) -> Iterator[str]:
    found = _Found()
    dead = "SELECT id, CAST(payload AS BLOB) FROM dead WHERE id > ? ORDER BY id"
    for row_id, payload in _in_parts(connection, dead):
        if not _sound(payload):
            found.add("with a payload that is no record", row_id)
    yield from found.lines("dead row")


def _books(connection: sqlite3.Connection) -> Iterator[str]:
    """Ledger B against what is there."""
    connection.execute("BEGIN")
    account = _account(connection)
    ((rows, last_id),) = connection.execute("SELECT count(*), coalesce(max(id), 0) FROM rows")
    ((dead,),) = connection.execute("SELECT count(*) FROM dead")
    connection.execute("COMMIT")
    if account.rows_in - account.left != rows:
        yield (
            f"ledger B does not balance: {account.rows_in} rows in, {account.replayed} replayed, "
            f"{account.resolved} resolved, {account.dead} dead, {account.dropped} dropped, {account.lost} lost, "
            f"{rows} there: {account.rows_in - account.left - rows:+} are not explained"
        )
    if account.dead != dead:
        yield f"ledger B counts {account.dead} dead rows, and {dead} are there"
    if last_id > account.last_id:
        yield f"row {last_id} is newer than the last one of the account, {account.last_id}"


class _Found:
    """Rows with the same fault, the first few by name."""

    def __init__(self) -> None:
        self._rows: dict[str, list[int]] = {}

    def add(self, fault: str, row_id: int) -> None:
        self._rows.setdefault(fault, []).append(row_id)

    def lines(self, kind: str) -> Iterator[str]:
        for fault, ids in self._rows.items():
            names = ", ".join(map(str, ids[:NAMED])) + (", …" if len(ids) > NAMED else "")
            yield f"{len(ids)} {kind}{'s' if len(ids) > 1 else ''} {fault}: {names}"


def _sound(payload: object, crc: int | None = None) -> bool:
    """Whether this is a record, and, where its checksum is known, the one that was written."""
    if not isinstance(payload, bytes) or (crc is not None and checksum(payload) != crc):
        return False
    try:
        decode(payload)
    except msgspec.MsgspecError:
        return False
    return True


def _account(connection: sqlite3.Connection) -> Account:
    found = connection.execute("SELECT * FROM account").fetchone()
    if found is None:
        raise Unreadable("its account is gone")
    return Account(**dict(zip(Account.__struct_fields__, found[1:], strict=True)))


def _in_parts(connection: sqlite3.Connection, sql: str) -> Iterator[tuple[Any, ...]]:
    """What ``sql`` finds behind an id, ordered by it, the first column; up to where it cannot be read."""
    last_id = 0
    while True:
        part: list[tuple[Any, ...]] = []
        try:
            for found in connection.execute(f"{sql} LIMIT {PART_ROWS}", (last_id,)):
                part.append(found)  # noqa: PERF402  # those before an error too
        finally:
            yield from part
        if not part:
            return
        if part[-1][0] <= last_id:
            raise sqlite3.DatabaseError("ids out of their order")
        last_id = part[-1][0]


@contextmanager
def _reading(path: str | Path) -> Iterator[sqlite3.Connection]:
    """The file, open; an error of SQLite's in the block becomes `Unreadable`."""
    # "ro" never makes a file, and copies no log into one at its end.
    connection: sqlite3.Connection | None = None
    try:
        connection = sqlite3.connect(f"{Path(path).absolute().as_uri()}?mode=ro", uri=True, isolation_level=None)
        made_by = tuple(
            connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("application_id", "user_version")
        )
        if made_by != (APPLICATION_ID, SCHEMA_VERSION):
            raise Unreadable(f"{path}: no spool of this version: application_id, user_version are {made_by}")
        yield connection
    except sqlite3.Error as error:
        raise Unreadable(f"{path}: {error}") from error
    finally:
        if connection is not None:
            connection.close()
