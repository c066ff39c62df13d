"""What `collector check` says about the spool: where it is, what fits, and what a full or an absent one means.

Owns: the findings. Refuses to know: what is in the directory (`collector spool ls`), who prints them.

Invariant: a check changes nothing: the directory is made by the collector that first needs it.
"""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from collector.config import Config
from collector.topic_check import Finding

__all__ = ["check_spool"]

_MIB = 1024 * 1024


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
    there = next(place for place in (path, *path.parents) if place.exists())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        text = f"{path}: {there} is no directory that this user may write into; the collector would have Kafka alone"
        yield Finding(level="error", text=text)
        return
    free = shutil.disk_usage(there).free
    yield Finding(level="ok", text=f"{path}: {free // _MIB} MiB free, one file a process, each up to {_bound(config)}")
    if free < spool.max_bytes:
        text = f"less is free than spool.max_bytes: a full disk ends it before its bound ({_bound(config)}) does"
        yield Finding(level="warning", text=text)
    yield Finding(level="ok", text=_meaning(config))


def _bound(config: Config) -> str:
    return f"{config.spool.max_bytes // _MIB} MiB"


def _meaning(config: Config) -> str:
    if config.deadlines.spool_s == 0:
        return "deadlines.spool_s = 0: no event goes there; what is there already is replayed"
    return (
        "full, or where the disk fails: the collector goes on with Kafka alone, and answers 503 when that is away; "
        "no event in it is ever deleted for its age"
    )
