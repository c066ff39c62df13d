"""The file's tables, and one record as bytes.

Owns: the SQL that makes a file, the encoding of a record, what a row counts against the bound. Refuses to know:
transactions, threads, who reads.

Theory. A row is in two tables. ``rows`` is narrow (about 25 bytes): what the replay chooses by, and the state. A
million of them are scanned in a tenth of a second without any index, and marking a chunk touches few pages.
``payloads`` is written once and deleted once. When one of the two is damaged, the other still tells which rows there
were.

Invariant: decoding gives the record that was encoded; a key that is NULL and one that is empty stay apart.
"""

from typing import Final

import msgspec
from crc32c import crc32c
from msgspec import Struct

from kafka_client.outcome import Record

__all__ = [
    "APPLICATION_ID",
    "ATTEMPTED",
    "CREATE",
    "HELD",
    "NOTES_LOST",
    "READY",
    "ROW_COST_BYTES",
    "SCHEMA_VERSION",
    "Account",
    "checksum",
    "decode",
    "encode",
]

APPLICATION_ID: Final = 0x53504F4C
"""``SPOL``, in the header of the file, so that `file` and we tell it from other databases."""

SCHEMA_VERSION: Final = 1

READY: Final = 0
HELD: Final = 1
ATTEMPTED: Final = 2
"""Ready too; its replay carries ``maybe-duplicate: 1``."""

ROW_COST_BYTES: Final = 64
"""What a row costs beside its payload: its narrow half, two cells, its part of the pages above and of free space."""

NOTES_LOST: Final = ("", "lost", 1)
"""A row of ``moving``: damage took others."""

CREATE: Final = f"""
CREATE TABLE rows (
    id INTEGER PRIMARY KEY, state INTEGER NOT NULL, key_hash INTEGER, bytes INTEGER NOT NULL,
    stored_at_ms INTEGER NOT NULL, crc INTEGER NOT NULL
);
CREATE TABLE payloads (id INTEGER PRIMARY KEY, payload BLOB NOT NULL);
CREATE TABLE dead (
    id INTEGER PRIMARY KEY, key_hash INTEGER, bytes INTEGER NOT NULL, stored_at_ms INTEGER NOT NULL,
    died_at_ms INTEGER NOT NULL, reason TEXT NOT NULL, payload BLOB NOT NULL
);
CREATE TABLE account (
    one INTEGER PRIMARY KEY CHECK (one = 1), commits INTEGER NOT NULL, last_id INTEGER NOT NULL,
    rows_in INTEGER NOT NULL, replayed INTEGER NOT NULL, resolved INTEGER NOT NULL, dead INTEGER NOT NULL,
    dropped INTEGER NOT NULL, lost INTEGER NOT NULL, refused INTEGER NOT NULL
);
CREATE TABLE moving (source TEXT NOT NULL, what TEXT NOT NULL, through INTEGER NOT NULL, PRIMARY KEY (source, what));
CREATE TABLE moved_to (one INTEGER PRIMARY KEY CHECK (one = 1), target TEXT NOT NULL);
INSERT INTO account VALUES (1, 0, 0, 0, 0, 0, 0, 0, 0, 0);
PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = {SCHEMA_VERSION};
"""


class Account(Struct, kw_only=True):
    """Ledger B and what else is persisted with every commit, in the columns' order."""

    commits: int = 0
    last_id: int = 0
    """The highest id ever given: none is given twice, not even in an emptied file."""
    rows_in: int = 0
    replayed: int = 0
    resolved: int = 0
    dead: int = 0
    dropped: int = 0
    lost: int = 0
    """Rows of a damaged file that could not be read; out of ledger B like the others."""
    refused: int = 0

    @property
    def left(self) -> int:
        """Rows that are not in ``rows`` any more."""
        return self.replayed + self.resolved + self.dead + self.dropped + self.lost


class _Payload(Struct, frozen=True, array_like=True, gc=False):
    topic: str
    app: str
    value: bytes | None
    key: bytes | None
    headers: tuple[tuple[str, bytes | None], ...]
    timestamp_ms: int | None
    partition: int | None


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Payload).decode


def encode(record: Record, app: str) -> bytes:
    """Write a record and its app as MessagePack."""
    return _encode((record.topic, app, record.value, record.key, record.headers, record.timestamp_ms, record.partition))


def decode(payload: bytes) -> tuple[Record, str]:
    """Read what `encode` wrote.

    Raises:
        msgspec.MsgspecError: it is something else.
    """
    found = _decode(payload)
    record = Record(found.topic, found.value, found.key, found.headers, found.timestamp_ms, found.partition)
    return record, found.app


def checksum(payload: bytes) -> int:
    """CRC-32C. SQLite itself notices a damaged page by its structure, not by its content."""
    return crc32c(payload)
