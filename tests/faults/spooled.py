"""Which events lie in a spool, read with SQLite alone: an eye that shares no code with the spool's own.

Owns: finding the files and looking through every table. Refuses to know: the schema; an id is found wherever it stands,
since the id of each event is in its value.
"""

import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path

__all__ = ["ids_in_spool"]

_ID = re.compile(rb'"id":"([^"\\]+)"')


def ids_in_spool(directory: Path) -> set[str]:
    """The ids of all events in all files of ``directory``, dead rows too. Nobody may be writing there."""
    found: set[str] = set()
    for file in sorted(directory.rglob("*")):
        if file.is_file() and file.read_bytes()[:16] == b"SQLite format 3\0":
            found.update(_ids_in(file))
    return found


def _ids_in(file: Path) -> Iterator[str]:
    # Not read-only: what a killed process has left in the log is part of the file's content.
    database = sqlite3.connect(file)
    try:
        tables = [row[0] for row in database.execute("select name from sqlite_master where type = 'table'")]
        for table in tables:
            for row in database.execute(f'select * from "{table}"'):
                for cell in row:
                    if isinstance(cell, bytes) and (match := _ID.search(cell)):
                        yield match[1].decode()
    finally:
        database.close()
