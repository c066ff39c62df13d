"""A disk that is soon full, for the spool of one row.

Owns: a small file system where this process may mount one; else a limit on the size of files (RLIMIT_FSIZE), which
fails with EFBIG instead of ENOSPC and is said so. Refuses to know: what is written there.
"""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["small_disk"]


@contextmanager
def small_disk(directory: Path, size_bytes: int, notes: list[str]) -> Iterator[dict[str, str]]:
    """Make ``directory``, of so many bytes, for as long as the block lasts; 0: just make it.

    Yields the environment that the collector needs for it. What was used is added to ``notes``.
    """
    directory.mkdir(parents=True)
    if not size_bytes:
        yield {}
        return
    command = ["mount", "-t", "tmpfs", "-o", f"size={size_bytes}", "tmpfs", str(directory)]
    if os.geteuid() == 0 and subprocess.run(command, capture_output=True).returncode == 0:
        notes.append(f"ENOSPC: a file system of {size_bytes >> 20} MiB")
        try:
            yield {}
        finally:
            subprocess.run(["umount", "-l", str(directory)], check=True)
    else:
        notes.append(f"no file system could be mounted: instead RLIMIT_FSIZE of {size_bytes >> 21} MiB (EFBIG)")
        yield {"FAULTS_FILE_BYTES": str(size_bytes // 2)}  # the file, its log, and the room kept for deleting
