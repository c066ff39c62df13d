"""The lines of a file that somebody else appends to.

Owns: the open file, its identity, its lock. Refuses to know: what a line says.

Invariants: only lines that have their end are given out; a file is the same file after it was moved or copied, because
its identity is its first line, which no other file has (a time and a request's id are in it); one process at a time
reads it for a replay.
"""

import fcntl
import hashlib
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

__all__ = ["LINE_BYTES", "KeptFile", "RawLine", "Unusable"]

#: A longer line is none of nginx's: a body of ``limits.body_bytes``, each byte escaped by six.
LINE_BYTES = 64 * 1024 * 1024

IDENTITY_HEX_CHARS = 32

GZIP_MAGIC = b"\x1f\x8b"


class Unusable(Exception):
    """The file cannot be replayed as it is; the message says why."""


@dataclass(frozen=True, slots=True)
class RawLine:
    """One line without its end; ``number`` counts from 1, ``end`` is where the next one begins."""

    number: int
    offset: int
    end: int
    data: bytes


class KeptFile:
    """A file, open for a replay.

    Raises:
        OSError: It cannot be read.
        Unusable: See there.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._stream = path.open("rb")
        try:
            # The lock is the file's, not its name's: a rotation does not loosen it. nginx does not ask for one.
            fcntl.flock(self._stream.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._stream.close()
            raise Unusable(f"{path} is being replayed by another process") from None
        if self._stream.read(len(GZIP_MAGIC)) == GZIP_MAGIC:
            self._stream.close()
            raise Unusable(f"{path} is compressed: gunzip it first")

    def __enter__(self) -> "KeptFile":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stream.close()

    def __repr__(self) -> str:
        return f"<KeptFile {self.path}, {self.size_bytes} bytes>"

    @property
    def size_bytes(self) -> int:
        """How large it is now."""
        return os.fstat(self._stream.fileno()).st_size

    @property
    def age_s(self) -> float:
        """How long ago somebody wrote to it."""
        return time.time() - os.fstat(self._stream.fileno()).st_mtime

    def identity(self) -> str | None:
        """Return what tells this file from others, under any name; None while it has no whole line."""
        self._stream.seek(0)
        first = self._stream.readline(LINE_BYTES)
        if not first.endswith(b"\n"):
            return None
        return hashlib.sha256(first).hexdigest()[:IDENTITY_HEX_CHARS]

    def lines(self, offset: int, number: int) -> Iterator[RawLine]:
        """Give the whole lines from ``offset`` on, the first being ``number``, up to the end as it is then.

        Raises:
            Unusable: The disk cannot read it.
        """
        while True:
            try:
                self._stream.seek(offset)
                data = self._stream.readline(LINE_BYTES)
            except OSError as error:
                raise Unusable(f"{self.path} cannot be read at byte {offset}: {error.strerror}") from error
            if not data.endswith(b"\n") and len(data) < LINE_BYTES:
                return
            end = offset + len(data)
            yield RawLine(number, offset, end, data.removesuffix(b"\n"))
            offset, number = end, number + 1
