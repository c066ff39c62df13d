"""Is the place fit where nginx keeps requests?

Owns: the judgement of a file, its directory and its filesystem. Refuses to know: who prints it.

Invariant: it only looks. What it may not look at it says so.
"""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from collector.config import NginxConfig
from collector.topic_check import Finding

__all__ = ["check_place", "make_place"]

_OTHERS = 0o077

MIB = 1024 * 1024


def make_place(file: Path) -> None:
    """Make the file and its directory as they have to be, where they are missing. Raises OSError."""
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    os.close(os.open(file, os.O_WRONLY | os.O_CREAT, 0o600))


def check_place(nginx: NginxConfig) -> Iterator[Finding]:
    """Judge where ``last_resort_file`` is, on this machine."""
    file = Path(nginx.last_resort_file)
    try:
        directory = file.parent.stat()
    except FileNotFoundError:
        advice = f"nginx would not start; install -d -m 0700 -o USER {file.parent}, USER being nginx's workers'"
        yield Finding(level="error", text=f"{file.parent} is missing: {advice}")
        return
    except PermissionError:
        yield _not_verifiable(file.parent)
        return
    yield from _mode(file.parent, directory, "0700")
    try:
        found = file.stat()
    except FileNotFoundError:
        advice = f"nginx would make it readable for everybody; install -m 0600 -o USER /dev/null {file}"
        yield Finding(level="error", text=f"{file} is missing: {advice}")
    except PermissionError:
        yield _not_verifiable(file)
        return
    else:
        yield from _file(file, found, directory)
    yield from _filesystem(file.parent, nginx.last_resort_free_bytes)


def _not_verifiable(path: Path) -> Finding:
    return Finding(level="warning", text=f"{path} is not verifiable by this user: run it as root or as its owner")


def _mode(path: Path, found: os.stat_result, wanted: str) -> Iterator[Finding]:
    mode = stat.S_IMODE(found.st_mode)
    if mode & _OTHERS:
        text = f"{path} has mode {mode:04o}, and holds events and keys: chmod {wanted} {path}"
        yield Finding(level="error", text=text)
    else:
        yield Finding(level="ok", text=f"{path} has mode {mode:04o}: nobody but its owner reads it")


def _file(file: Path, found: os.stat_result, directory: os.stat_result) -> Iterator[Finding]:
    if not stat.S_ISREG(found.st_mode):
        yield Finding(level="error", text=f"{file} is no regular file")
        return
    yield from _mode(file, found, "0600")
    if found.st_uid != directory.st_uid:
        text = f"{file} and its directory have different owners: nginx's workers open it anew after a rotation"
        yield Finding(level="warning", text=text)
    if found.st_size:
        text = f"{file} has {found.st_size} bytes; collector replay {file} says what of it is to be fed back"
        yield Finding(level="note", text=text)


def _filesystem(directory: Path, least_bytes: int) -> Iterator[Finding]:
    space = os.statvfs(directory)
    free, size = space.f_bavail * space.f_frsize, space.f_blocks * space.f_frsize
    text = f"{free // MIB} of {size // MIB} MiB are free for it"
    if free < least_bytes:
        wanted = f"[nginx] last_resort_free_bytes asks for {least_bytes // MIB} MiB; on a full disk a 200 is lost"
        yield Finding(level="error", text=f"{text}: {wanted}")
    else:
        yield Finding(level="ok", text=text)
    mount = directory.resolve()
    if mount.is_mount():
        yield Finding(
            level="ok", text=f"{mount} is a filesystem of its own: nothing else fills it, and it fills nothing else"
        )
        return
    while not mount.is_mount():
        mount = mount.parent
    text = f"{directory} shares the filesystem of {mount}: what fills that loses kept requests, and they can fill it"
    yield Finding(level="warning", text=text)
