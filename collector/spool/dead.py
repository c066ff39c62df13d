"""The table ``dead``, when an operator has decided: back among the rows, or out.

Owns: the statements that move rows out of it. Refuses to know: transactions, the account, who decided.
"""

import json
import sqlite3
from collections.abc import Callable, Sequence

from msgspec import Struct

from collector.spool.schema import ATTEMPTED, checksum

__all__ = ["Discard", "Revive", "discard", "revive"]


class Revive(Struct, frozen=True, eq=False):
    """Back among the rows, as attempted: that it died says nothing about an earlier copy of it."""

    ids: Sequence[int]


class Discard(Struct, frozen=True, eq=False):
    """Out of the file, as dropped."""

    ids: Sequence[int]


def revive(
    connection: sqlite3.Connection, ids: Sequence[int], new_id: Callable[[], int]
) -> list[tuple[int | None, int]]:
    """Move these to the rows, within a transaction; returns hash of the key and size of each that was there.

    Args:
        new_id: Gives one to a row whose own another row has, in a file that lost its account once.
    """
    found = connection.execute(
        "SELECT d.id, EXISTS (SELECT 1 FROM rows AS r WHERE r.id = d.id),"
        " d.key_hash, d.bytes, d.stored_at_ms, d.payload"
        " FROM json_each(?) AS j CROSS JOIN dead AS d ON d.id = j.value",
        (json.dumps(sorted(set(ids))),),
    ).fetchall()
    revived = [(new_id() if taken else row_id, *rest) for row_id, taken, *rest in found]
    connection.executemany(
        "INSERT INTO rows VALUES (?, ?, ?, ?, ?, ?)",
        [
            (row_id, ATTEMPTED, key_hash, size, stored_at_ms, checksum(payload))
            for row_id, key_hash, size, stored_at_ms, payload in revived
        ],
    )
    connection.executemany("INSERT INTO payloads VALUES (?, ?)", [(row[0], row[4]) for row in revived])
    connection.executemany("DELETE FROM dead WHERE id = ?", [(row[0],) for row in found])
    return [(key_hash, size) for _, key_hash, size, _, _ in revived]


def discard(connection: sqlite3.Connection, ids: Sequence[int]) -> list[int]:
    """Delete these, within a transaction; returns the size of each that was there."""
    found = connection.execute(
        "SELECT d.id, d.bytes FROM json_each(?) AS j CROSS JOIN dead AS d ON d.id = j.value",
        (json.dumps(sorted(set(ids))),),
    ).fetchall()
    connection.executemany("DELETE FROM dead WHERE id = ?", [(row_id,) for row_id, _ in found])
    return [size for _, size in found]
