"""The write-ahead log of an open file: copied into the file, kept small, measured.

Owns: checkpoints, the size of ``NAME.sqlite3-wal``. Refuses to know: transactions, what is refused when it grows.

Theory. SQLite starts the log anew only when all of it is in the file and nobody reads from it. Somebody who reads the
live file for long (a backup, a shell that was left open) makes it grow with every commit, also with those of a replay
that empties the file. Nothing here can end his reading. So what the log has beyond `LOG_FREE_BYTES` counts against
``max_bytes`` like rows: new ones are refused before the log has filled the disk, and rows may leave.
Source: sqlite.org/wal.html, "Avoiding Excessively Large WAL Files".
"""

import sqlite3
from contextlib import suppress
from pathlib import Path
from typing import Final

from collector.log import get_logger

__all__ = ["LOG_FREE_BYTES", "LOG_KEPT_BYTES", "LogFile"]

log = get_logger("spool")

LOG_KEPT_BYTES: Final = 16 * 1024 * 1024
"""Of an empty log: space that need not be found again, four times what is written between two checkpoints."""

LOG_FREE_BYTES: Final = 64 * 1024 * 1024
"""Of a log that somebody reads, without counting against ``max_bytes``: a minute of 1000 events of 1 kB a second."""


class LogFile:
    """Of one connection, whose `busy_timeout` is ``busy_s``; ``excess`` is what counts against ``max_bytes``."""

    def __init__(self, connection: sqlite3.Connection, path: str, busy_s: float) -> None:
        self._connection = connection
        self._path = path
        self._busy_ms = round(busy_s * 1000)
        connection.execute(f"PRAGMA journal_size_limit = {LOG_KEPT_BYTES}")
        self.excess = 0

    def __repr__(self) -> str:
        return f"<LogFile of {self._path} excess={self.excess}>"

    def copied(self) -> bool:
        """Copy the log into the file and synchronise it; whether all of it could be copied.

        Raises:
            sqlite3.Error: It did not work.
        """
        _, pages, copied = self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        return bool(pages == copied)

    def tidy(self) -> None:
        """Copy the log, give back the space of one that had grown, and measure it.

        Raises:
            sqlite3.Error: It did not work.
        """
        size = self._size()
        if self.copied() and size > LOG_KEPT_BYTES:
            self._truncate()
            size = self._size()
        excess = max(0, size - LOG_FREE_BYTES)
        if excess and not self.excess:
            log.warning(
                "the spool's log grows because another program reads the file; it counts against max_bytes",
                file=self._path,
                log_bytes=size,
            )
        self.excess = excess

    def _truncate(self) -> None:
        # Without waiting for a reader: commits wait behind us.
        self._connection.execute("PRAGMA busy_timeout = 0")
        try:
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        finally:
            self._connection.execute(f"PRAGMA busy_timeout = {self._busy_ms}")

    def _size(self) -> int:
        with suppress(OSError):
            return Path(f"{self._path}-wal").stat().st_size
        return 0
