"""How far a file was replayed, on the disk beside it.

Owns: the cursor's file. Refuses to know: what a line says, what becomes of it.

Invariant: before a line is sent the cursor on the disk names it as one that may have been; after a crash at any moment
each line is before the cursor's end and not named (done), named (sent perhaps), or behind the end (not begun).

A cursor is called after its file's identity, ``replay-….cursor``, so it is found again when the file was moved within
its directory. It may be deleted with the file. Root's belongs to the owner of its directory, so that either may go on.
"""

import os
from pathlib import Path

import msgspec
from msgspec import Struct

__all__ = ["Cursor", "CursorFault", "OpenLine", "check_place", "cursor_path", "read_cursor", "write_cursor"]


class CursorFault(Exception):
    """The cursor does not fit its file, or cannot be read or written; the message says what to do."""


class OpenLine(Struct, frozen=True):
    """A line that is not done. ``maybe_duplicate``: some of it may be in the topic."""

    offset: int
    number: int
    maybe_duplicate: bool


class Cursor(Struct, frozen=True, kw_only=True):
    """Everything before ``offset`` (of ``lines`` lines) is done, but for the lines in ``open``."""

    v: int = 1
    offset: int = 0
    lines: int = 0
    open: tuple[OpenLine, ...] = ()


def cursor_path(directory: Path, identity: str) -> Path:
    """Return where the cursor of the file with this identity is."""
    return directory / f"replay-{identity}.cursor"


def check_place(path: Path) -> None:
    """Write a cursor beside where ``path`` will be, wait until the disk has it, and take it away.

    Raises:
        CursorFault: That cannot be done.
    """
    directory = path.parent
    try:
        _write_partial(path, Cursor()).unlink()
        _sync(directory)
    except FileNotFoundError:
        raise CursorFault(
            f"{directory} does not exist: make it (install -d -m 0700 {directory}), or give --cursors another one"
        ) from None
    except OSError as error:
        raise CursorFault(
            f"{directory}: no cursor can be written there ({error.strerror}): run it as the directory's owner, or give "
            "--cursors a directory that can be written"
        ) from None


def read_cursor(path: Path) -> Cursor:
    """Return what was written last, or the beginning. Raises CursorFault."""
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        return Cursor()
    except OSError as error:
        raise CursorFault(f"{path}: {error.strerror}: run it as the cursor's owner") from None
    try:
        return msgspec.json.decode(raw, type=Cursor)
    except msgspec.DecodeError as error:
        raise CursorFault(f"{path} is no cursor ({error}); without it every line of its file is sent again") from None


def write_cursor(path: Path, cursor: Cursor) -> None:
    """Put the cursor in its place whole, and wait until the disk has it. Raises OSError."""
    _write_partial(path, cursor).replace(path)
    _sync(path.parent)


def _write_partial(path: Path, cursor: Cursor) -> Path:
    partial = path.with_suffix(".partial")
    partial.unlink(missing_ok=True)
    # Root writes into somebody else's directory: through no link of theirs, and what the owner can read and replace.
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(descriptor, "wb") as stream:
        if os.geteuid() == 0:
            owner = path.parent.stat()
            os.fchown(descriptor, owner.st_uid, owner.st_gid)
        stream.write(msgspec.json.encode(cursor))
        stream.flush()
        os.fsync(descriptor)
    return partial


def _sync(path: Path) -> None:
    directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
