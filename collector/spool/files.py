"""Which file is ours: the directory, the locks, the space kept for a full disk.

Owns: the names in the directory, who holds which file. Refuses to know: what is in a file.

    NAME.sqlite3          one process's spool, with SQLite's own -wal and -shm beside it
    NAME.sqlite3.lock     held with flock(2) as long as the process lives; says who holds it, as JSON
    NAME.sqlite3.room     space for a full disk: given back when it is full, so that rows can still leave

A name is the `node` that made the file. A process takes the first file whose lock is free, or makes one.

Invariant: nobody opens a file for writing without its lock, and the kernel gives the lock back when its holder dies.
"""

import fcntl
import json
import os
import sqlite3
from contextlib import closing, suppress
from pathlib import Path
from typing import Final

from collector.spool.salvage import SALVAGED_SUFFIX, finish_exchange, salvage, synchronise
from collector.spool.store import Store

__all__ = ["Lock", "MemoryFile", "SpoolFiles", "holder_of"]

SUFFIX: Final = ".sqlite3"
LOCK_SUFFIX: Final = ".lock"
ROOM_SUFFIX: Final = ".room"

ROOM_BYTES: Final = 4 * 1024 * 1024
"""Twice what a chunk of 500 rows of 1 kB writes when it leaves, with what copying the log needs."""


class MemoryFile:
    """The opener of ":memory:"."""

    path = ":memory:"

    def open(self) -> Store:
        return Store(self.path)

    def salvage(self) -> Store:
        return Store(self.path)

    def give_room(self) -> None:
        """There is none."""

    def keep_room(self) -> None:
        """There is none."""

    def close(self) -> None:
        """There is no lock."""


class Lock:
    """The lock of one file, held from `take` to `release`."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self._descriptor = descriptor

    @classmethod
    def take(cls, file: Path, holder: dict[str, object]) -> "Lock | None":
        """Take the lock of this file without waiting; None: somebody has it.

        Raises:
            OSError: It cannot be made.
        """
        path = lock_of(file)
        while True:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(descriptor)
                return None
            except OSError:
                os.close(descriptor)
                raise
            # Its holder may have removed it between our opening and our lock: then we hold a lock that nobody sees.
            if _same(path, descriptor):
                lock = cls(path, descriptor)
                lock._write(holder)
                return lock
            os.close(descriptor)

    def _write(self, holder: dict[str, object]) -> None:
        # For people; a full disk must not keep us from the lock.
        with suppress(OSError):
            os.ftruncate(self._descriptor, 0)
            os.pwrite(self._descriptor, json.dumps(holder).encode() + b"\n", 0)

    def release(self, *, remove: bool = False) -> None:
        """Let go; ``remove`` with the file that it was for."""
        if remove:
            with suppress(OSError):
                self.path.unlink()
        os.close(self._descriptor)


def _same(path: Path, descriptor: int) -> bool:
    try:
        there = path.stat()
    except FileNotFoundError:
        return False
    ours = os.fstat(descriptor)
    return (there.st_dev, there.st_ino) == (ours.st_dev, ours.st_ino)


def make_directory(directory: Path) -> None:
    """Make it, and what is missing above it, so that it is there after a power cut: SQLite synchronises the directory
    of its files and none above.

    Raises:
        OSError: It cannot be made.
    """
    missing = [one for one in (directory, *directory.parents) if not one.exists()]
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    for one in missing:
        with suppress(PermissionError):  # where we may write, and not read
            synchronise(one.parent)


def lock_of(file: Path) -> Path:
    """The lock's own file."""
    return file.with_name(file.name + LOCK_SUFFIX)


def holder_of(file: Path) -> dict[str, object] | None:
    """Who holds this file: ``pid``, ``node``, ``admin``; None: nobody."""
    try:
        with lock_of(file).open() as stream:
            try:
                fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                pass
            else:
                return None
            held = json.loads(stream.read() or "{}")
    except FileNotFoundError:
        return None
    except ValueError:
        return {}
    return held if isinstance(held, dict) else {}


class SpoolFiles:
    """The opener of a directory.

    Args:
        node: Names a new file, and is told in the lock.
        admin: The admin listener's address, told in the lock.
        file: This one and no other; None: the first that is free, or a new one.
    """

    def __init__(self, directory: str, *, node: str, admin: str | None, file: Path | None = None) -> None:
        self.directory = Path(directory)
        self._only = file
        self._node = node
        self.holder: dict[str, object] = {"pid": os.getpid(), "node": node, "admin": admin}
        self._lock: Lock | None = None
        self.file: Path | None = None
        self._opened = False

    @property
    def path(self) -> str:
        return str(self.file or self.directory)

    def open(self) -> Store:
        if self._lock is None:
            make_directory(self.directory)
            self.file, self._lock = self._choose()
        finish_exchange(Path(self.path))
        store = Store(self.path, end_holds=not self._opened)
        self._opened = True
        return store

    def _choose(self) -> tuple[Path, Lock]:
        choice = [*spools_in(self.directory), self.directory / f"{self._node}{SUFFIX}"]
        for file in choice if self._only is None else [self._only]:
            lock = Lock.take(file, self.holder)
            if lock is not None:
                if self._only is not None or not _is_moving(file):
                    return file, lock
                lock.release()
        raise FileExistsError(f"{self.directory}: another process has this node's file")

    def take_others(self) -> list[tuple[Path, Lock]]:
        """Every other file that nobody has, locked. None of them for an operator, who wants one file."""
        taken: list[tuple[Path, Lock]] = []
        if self._only is None:
            with suppress(OSError):
                for file in spools_in(self.directory):
                    lock = Lock.take(file, self.holder) if file != self.file else None
                    if lock is not None:
                        taken.append((file, lock))
        return taken

    def salvage(self) -> Store:
        if self.file is not None:
            salvage(self.file)
        return self.open()

    def give_room(self) -> None:
        with suppress(OSError):
            Path(self.path + ROOM_SUFFIX).unlink(missing_ok=True)

    def keep_room(self) -> None:
        path = self.path + ROOM_SUFFIX
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            if os.fstat(descriptor).st_size < ROOM_BYTES:
                os.posix_fallocate(descriptor, 0, ROOM_BYTES)
        except OSError:
            os.ftruncate(descriptor, 0)
            raise
        finally:
            os.close(descriptor)

    def close(self) -> None:
        if self._lock is not None:
            self._lock.release()
            self._lock = None


def spools_in(directory: Path) -> list[Path]:
    """The files of this directory, the oldest name first; also one whose place a salvaged file is about to take."""
    salvaged = (file.with_name(file.stem) for file in directory.glob(f"*{SUFFIX}{SALVAGED_SUFFIX}"))
    return sorted({*directory.glob(f"*{SUFFIX}"), *salvaged})


def claim_of(connection: sqlite3.Connection) -> str | None:
    """The name of the file that this one's rows are being moved to."""
    found = connection.execute("SELECT target FROM moved_to").fetchone()
    return None if found is None else str(found[0])


def _is_moving(file: Path) -> bool:
    """Whether some of its rows are in another file already: then it is nobody's own any more."""
    with suppress(sqlite3.Error, OSError):
        finish_exchange(file)  # else this would make an empty file in the place of a salvaged one
        with closing(sqlite3.connect(file)) as connection:
            return claim_of(connection) is not None
    return False


def remove_spool(file: Path) -> None:
    """Remove an emptied file; what salvages left beside it stays.

    Raises:
        OSError: It cannot be removed.
    """
    for suffix in ("", "-wal", "-shm", ROOM_SUFFIX):
        Path(f"{file}{suffix}").unlink(missing_ok=True)
