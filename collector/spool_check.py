"""What `collector check` says about the spool: where it is, what fits, and what a full or an absent one means.

Owns: the findings. Refuses to know: what is in the directory (`collector spool ls`), who prints them.

Invariant: a check changes nothing: what it tries it removes, and the directory is made by the collector that first
needs it.
"""

import shutil
from collections.abc import Iterator
from pathlib import Path

from collector.config import Config
from collector.spool.trial import problem_with
from collector.topic_check import Finding

__all__ = ["check_spool"]

_MIB = 1024 * 1024

MEANING = (
    "full, or where the disk fails: the collector goes on with Kafka alone, and answers 503 when that is away; "
    "no event in it is ever deleted for its age"
)


def check_spool(config: Config) -> Iterator[Finding]:
    """Judge ``[spool]``, on the machine where the collector runs."""
    spool = config.spool
    if spool.path is None:
        text = "none ([spool] path is empty): what Kafka does not take in time is answered 503, and clients come back"
        yield Finding(level="warning", text=text)
        return
    if spool.path == ":memory:":
        text = "in memory: events that are answered 200 while Kafka is away are lost when the process ends"
        yield Finding(level="warning", text=text)
        return
    path = Path(spool.path).absolute()
    problem = problem_with(path)
    if problem:
        yield Finding(level="error", text=f"{problem}; the collector would have Kafka alone")
        return
    there = next(place for place in (path, *path.parents) if place.exists())
    free = shutil.disk_usage(there).free
    count = config.workers.processes
    files = f"{count} files" if count > 1 else "one file"
    yield Finding(level="ok", text=f"{path}: {free // _MIB} MiB free, for {files} of up to {_bound(config)}")
    if free < count * spool.max_bytes:
        text = f"less is free than spool.max_bytes: a full disk ends it before its bound ({_bound(config)}) does"
        yield Finding(level="warning", text=text)
    yield Finding(level="ok", text=MEANING)


def _bound(config: Config) -> str:
    return f"{config.spool.max_bytes // _MIB} MiB"
