"""Whether a spool would work in a directory: done for real, and undone.

Owns: what is made for it and removed again. Refuses to know: what the result is good for.

Invariant: afterwards nothing is there that was not there before; no collector sees the trial's file, which is in a
directory of its own.
"""

import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

from collector.spool.files import SpoolFiles
from collector.spool.trouble import CAUSES, explain

__all__ = ["problem_with"]


def problem_with(directory: Path) -> str:
    """Why no spool would work there now, and what to do about it; empty where one would.

    The directory, a file with one commit, and the space for a full disk are made as a collector makes them. Blocks.
    """
    missing = [place for place in (directory, *directory.parents) if not place.exists()]
    trial = None
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        trial = Path(tempfile.mkdtemp(prefix="trial-", dir=directory))
        _open_and_close(trial)
    except CAUSES as error:
        return explain(error, str(directory)).problem
    finally:
        if trial is not None:
            shutil.rmtree(trial, ignore_errors=True)
        for place in missing:
            with suppress(OSError):
                place.rmdir()
    return ""


def _open_and_close(directory: Path) -> None:
    files = SpoolFiles(str(directory), node="trial", admin=None)
    try:
        store = files.open()
        try:
            files.keep_room()
        finally:
            store.close()
    finally:
        files.close()
