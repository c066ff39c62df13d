"""An error of the disk or of SQLite, in words: what is wrong, where, and what somebody can do about it.

Owns: the kinds of trouble and their texts. Refuses to know: how the spool goes on.
"""

import errno
import sqlite3
from dataclasses import dataclass
from enum import Enum

from collector.spool.changes import CommitInDoubt, Damaged, NotCommitted

__all__ = ["CAUSES", "Kind", "Trouble", "explain"]

CAUSES = (sqlite3.Error, OSError, Damaged)
"""What opening, reading and writing a file raise; everything else is a bug of ours."""


class Kind(Enum):
    """What can be wrong, and in the value what to do about it."""

    FULL = "make room on this disk, or set [spool] path to another one"
    READ_ONLY = "make the directory of [spool] path writable for this user, or set it to another one"
    LOCKED = "end the program that holds the file's lock"
    DAMAGED = "look at the disk; what can be read is saved, the file is kept beside it as .damaged"
    DIRECTORY = "make the directory of [spool] path, or set it to one that can be made"
    DISK = "look at the disk and at the kernel's log"


@dataclass(frozen=True, slots=True)
class Trouble:
    """Why the spool does not work now."""

    kind: Kind
    problem: str


_BY_CODE = {
    sqlite3.SQLITE_FULL: Kind.FULL,
    sqlite3.SQLITE_READONLY: Kind.READ_ONLY,
    sqlite3.SQLITE_PERM: Kind.READ_ONLY,
    sqlite3.SQLITE_CANTOPEN: Kind.READ_ONLY,
    sqlite3.SQLITE_BUSY: Kind.LOCKED,
    sqlite3.SQLITE_LOCKED: Kind.LOCKED,
    sqlite3.SQLITE_CORRUPT: Kind.DAMAGED,
    sqlite3.SQLITE_NOTADB: Kind.DAMAGED,
}
_BY_ERRNO = {
    errno.ENOSPC: Kind.FULL,
    errno.EDQUOT: Kind.FULL,
    errno.EFBIG: Kind.FULL,
    errno.EROFS: Kind.READ_ONLY,
    errno.EACCES: Kind.READ_ONLY,
    errno.EPERM: Kind.READ_ONLY,
    errno.ENOTDIR: Kind.DIRECTORY,
    errno.EEXIST: Kind.DIRECTORY,
    errno.ENOENT: Kind.DIRECTORY,
}


def explain(error: BaseException, path: str) -> Trouble:
    """Say what this error means for the file or directory at ``path``."""
    if isinstance(error, NotCommitted | CommitInDoubt) and error.__cause__ is not None:
        error = error.__cause__
    kind = _kind(error)
    said = str(error) or type(error).__name__
    if isinstance(error, OSError) and error.strerror:
        path, said = str(error.filename or path), error.strerror
    return Trouble(kind, f"{path}: {said}; {kind.value}")


def _kind(error: BaseException) -> Kind:
    if isinstance(error, Damaged):
        return Kind.DAMAGED
    if isinstance(error, OSError):
        return _BY_ERRNO.get(error.errno or 0, Kind.DISK)
    code = getattr(error, "sqlite_errorcode", None)
    # The low byte is the primary code. Source: sqlite.org/rescode.html.
    if code is not None:
        return _BY_CODE.get(code & 0xFF, Kind.DISK)
    return Kind.DAMAGED if isinstance(error, sqlite3.DatabaseError) and "malformed" in str(error) else Kind.DISK
