"""From a damaged file into a new one: what can be read is saved, what cannot is counted and named, nothing is deleted.

Owns: the reading around damage, the exchange of the files, the report of what is lost. Refuses to know: locks, the
process's state.

    NAME.sqlite3.salvaging    the new file while rows are copied; begun anew after a crash
    NAME.sqlite3.salvaged     complete and synchronised; it only has to take the old one's place
    NAME.sqlite3.damaged      the old file (and its -wal); .damaged.2 and so on for later ones
    NAME.sqlite3.damaged.lost what could not be read, for people

Theory. A row is read through its table's tree by ranges of ids. Where SQLite finds a page malformed the range is
halved, down to single ids, so a damaged leaf costs the rows on it and no others. Ids stay as they are. What is ready
becomes attempted: the states may be older than what happened. Held rows stay held: their batch may still be under way,
and where it is not, opening the file ends the hold.

Invariants: the account balances in the new file; a crash at any moment leaves the old file or a complete new one, and
under the old name, so that whoever looks for spools finds it.

Non-obvious: the new file must never meet the old log: its frames would be taken for the new file's.
"""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import msgspec

from collector.log import get_logger
from collector.spool.schema import ATTEMPTED, HELD, NOTES_LOST, ROW_COST_BYTES, Account, checksum, decode
from collector.spool.store import Store
from kafka_client.wire.murmur2 import murmur2

__all__ = ["SALVAGED_SUFFIX", "finish_exchange", "salvage", "synchronise"]

log = get_logger("spool")

SALVAGED_SUFFIX: Final = ".salvaged"

STEP_IDS = 256
"""Read at a time while nothing is wrong."""

NAMED_RANGES = 10_000
"""Of lost ids in the report."""

#: id, state, key_hash, bytes, stored_at_ms, crc: the columns of ``rows``.
_Narrow = tuple[int, int, int | None, int, int, int]


@dataclass(slots=True)
class _Damage:
    """What was found to be gone."""

    ids: list[int] = field(default_factory=list)
    """Rows that are known to have been there."""
    unreadable: list[str] = field(default_factory=list)
    """Parts of tables, in words."""


def salvage(path: Path) -> None:
    """Put what can be read of this file into a new one in its place. Blocks; nobody else may use the file.

    Raises:
        sqlite3.Error, OSError: The new file cannot be written. Nothing has changed.
    """
    new = _beside(path, ".salvaging")
    for part in ("", "-wal", "-shm"):
        Path(f"{new}{part}").unlink(missing_ok=True)
    damage = _Damage()
    with closing(Store(str(new))) as target:
        with suppress(sqlite3.DatabaseError), closing(_read_only(path)) as source:
            _copy(source, target, damage)
        account = target.read_account()
        # Closing leaves no log only if all of it could be copied.
        if not target.copied():
            raise sqlite3.OperationalError(f"{new}: its log cannot be copied into it")
    new.rename(_beside(path, SALVAGED_SUFFIX))
    damaged = finish_exchange(path) or path
    report = _beside(damaged, ".lost")
    _write_report(report, damaged, account, damage)
    log.error(
        "a spool file was damaged; what could be read is saved, the rest is counted as lost",
        file=str(path),
        kept=str(damaged),
        report=str(report),
        saved=account.rows_in - account.left,
        lost_total=account.lost,
    )


def finish_exchange(path: Path) -> Path | None:
    """Let a salvaged file take its place, if there is one; returns the name that the damaged one has.

    Every step is one that a crash leaves done or not done, and this goes on where it stopped.
    """
    new = _beside(path, SALVAGED_SUFFIX)
    if not new.exists():
        return None
    damaged = _kept(path)
    old_log = Path(f"{path}-wal")
    if damaged is not None and old_log.exists():
        old_log.rename(f"{damaged}-wal")
    Path(f"{path}-shm").unlink(missing_ok=True)
    # On the disk too the old log has left this name before the new file has it.
    synchronise(path.parent)
    new.rename(path)
    synchronise(path.parent)
    return damaged


def _kept(path: Path) -> Path | None:
    """The damaged file's other name; it keeps its first one until the new file takes that."""
    numbers = [number for number in range(1, 1000) if _damaged(path, number).exists()]
    newest = _damaged(path, numbers[-1]) if numbers else None
    if not path.exists() or (newest is not None and newest.samefile(path)):
        return newest
    damaged = _damaged(path, numbers[-1] + 1 if numbers else 1)
    try:
        os.link(path, damaged)
    except OSError:
        # No links on this disk. After a crash now the new file is found by its own name.
        path.rename(damaged)
    return damaged


def synchronise(directory: Path) -> None:
    """What was made, renamed and removed in it is on the disk. Raises OSError."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


def _damaged(path: Path, number: int) -> Path:
    return _beside(path, ".damaged" if number == 1 else f".damaged.{number}")


def _read_only(path: Path) -> sqlite3.Connection:
    source = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None)
    # Else a file that is shorter than its header says cannot be read at all.
    source.execute("PRAGMA writable_schema = ON")
    return source


def _copy(source: sqlite3.Connection, target: Store, damage: _Damage) -> None:
    account = _account(source)
    tables = ("rows", "payloads", "dead")
    last_id = max(account.last_id if account else 0, *(_last_id(source, table) for table in tables))
    connection = target.connection
    connection.execute("BEGIN IMMEDIATE")
    saved = 0
    for first in range(1, last_id + 1, STEP_IDS):
        through = min(first + STEP_IDS - 1, last_id)
        for row, payload in _rows(source, first, through, damage):
            connection.execute("INSERT INTO rows VALUES (?, ?, ?, ?, ?, ?)", row)
            connection.execute("INSERT INTO payloads VALUES (?, ?)", (row[0], payload))
            saved += 1
    dead = 0
    for dead_row in _read(source, "dead", 1, last_id, damage):
        connection.execute("INSERT INTO dead VALUES (?, ?, ?, ?, ?, ?, ?)", dead_row)
        dead += 1
    try:
        for note in source.execute("SELECT * FROM moving").fetchall():
            connection.execute("INSERT INTO moving VALUES (?, ?, ?)", note)
    except sqlite3.DatabaseError as error:
        damage.unreadable.append(f"moving: {error}")
        connection.execute("INSERT OR IGNORE INTO moving VALUES (?, ?, ?)", NOTES_LOST)
    with suppress(sqlite3.DatabaseError):
        connection.executemany(
            "INSERT INTO moved_to VALUES (?, ?)", source.execute("SELECT * FROM moved_to").fetchall()
        )
    target.write_account(_balanced(account, saved, dead, len(damage.ids), last_id))
    connection.execute("COMMIT")


def _balanced(account: Account | None, saved: int, dead: int, known_lost: int, last_id: int) -> Account:
    if account is None:
        return Account(rows_in=saved + dead + known_lost, dead=dead, lost=known_lost, last_id=last_id)
    account.last_id = last_id
    account.lost += max(0, account.rows_in - account.left - saved)
    account.rows_in = account.left + saved
    return account


def _account(source: sqlite3.Connection) -> Account | None:
    with suppress(sqlite3.DatabaseError, TypeError, ValueError):
        found = source.execute("SELECT * FROM account").fetchone()
        return Account(**dict(zip(Account.__struct_fields__, found[1:], strict=True)))
    return None


def _last_id(source: sqlite3.Connection, table: str) -> int:
    with suppress(sqlite3.DatabaseError):
        return source.execute(f"SELECT max(id) FROM {table}").fetchone()[0] or 0
    return 0


def _rows(source: sqlite3.Connection, first: int, through: int, damage: _Damage) -> Iterator[tuple[_Narrow, bytes]]:
    narrow: dict[int, _Narrow] = {row[0]: row for row in _read(source, "rows", first, through, damage)}
    payloads: dict[int, bytes] = {row[0]: row[1] for row in _read(source, "payloads", first, through, damage)}
    for row_id in sorted(narrow.keys() | payloads.keys()):
        payload = payloads.get(row_id)
        row = None if payload is None else _saved(row_id, narrow.get(row_id), payload)
        if row is None or payload is None:
            damage.ids.append(row_id)
        else:
            yield row, payload


def _saved(row_id: int, row: _Narrow | None, payload: bytes) -> _Narrow | None:
    """The narrow half of a row whose payload is right; it is made anew if that page is gone."""
    try:
        record, _ = decode(payload)
        if row is None:
            key_hash = None if record.key is None else murmur2(record.key) & 0x7FFFFFFF
            stored_at_ms = record.timestamp_ms or 0
            return row_id, ATTEMPTED, key_hash, len(payload) + ROW_COST_BYTES, stored_at_ms, checksum(payload)
        row_id, state, key_hash, size, stored_at_ms, crc = row
        if crc != checksum(payload):
            return None
        return row_id, HELD if state == HELD else ATTEMPTED, key_hash, size, stored_at_ms, crc
    except (msgspec.MsgspecError, TypeError, ValueError):
        return None


def _read(
    source: sqlite3.Connection, table: str, first: int, through: int, damage: _Damage
) -> Iterator[tuple[Any, ...]]:
    """The rows of a table by id, around what cannot be read."""
    ranges = [(first, through)]
    while ranges:
        low, high = ranges.pop()
        if low > high:
            continue
        try:
            yield from source.execute(f"SELECT * FROM {table} WHERE id BETWEEN ? AND ?", (low, high)).fetchall()
        except sqlite3.DatabaseError as error:
            if low == high:
                damage.unreadable.append(f"{table} {low}: {error}")
            else:
                middle = (low + high) // 2
                ranges += ((middle + 1, high), (low, middle))


def _write_report(report: Path, damaged: Path, account: Account, damage: _Damage) -> None:
    lines = [
        f"{damaged} was damaged.",
        f"Saved: {account.rows_in - account.left} rows. Lost in all: {account.lost}.",
        f"Rows that were there and could not be read: {len(damage.ids)}.",
        *(f"  row {row_id}" for row_id in damage.ids[:NAMED_RANGES]),
        f"Places that could not be read: {len(damage.unreadable)}.",
        *(f"  {place}" for place in damage.unreadable[:NAMED_RANGES]),
    ]
    with suppress(OSError):
        report.write_text("\n".join(lines) + "\n")
