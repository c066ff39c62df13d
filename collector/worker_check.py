"""What `collector check` says about the processes: how many, and how much memory all of them may hold in events.

Owns: the findings. Refuses to know: how processes are started (`collector.workers`), who prints them.
"""

import os
from collections.abc import Iterator

from collector.config import Config
from collector.topic_check import Finding

__all__ = ["check_workers", "event_bytes"]

_MIB = 1024 * 1024

_BOUNDS = ("in_work_bytes", "waiting_bytes", "queue_bytes", "in_flight_bytes")


def event_bytes(config: Config) -> int:
    """Bytes of events that one process holds at most: bodies in work, the producer's three accounts, retry memory."""
    memory = config.retry_memory.max_bytes if config.retry_memory.enabled else 0
    bounds: list[int] = [getattr(config.limits, name) for name in _BOUNDS]
    return sum(bounds) + memory


def check_workers(config: Config) -> Iterator[Finding]:
    """Judge ``[workers]``, on the machine where the collector runs."""
    count, cores = config.workers.processes, len(os.sched_getaffinity(0))
    each = event_bytes(config)
    share = " + ".join((*(f"limits.{name}" for name in _BOUNDS), "retry_memory.max_bytes"))
    processes = f"{count} processes on {cores} cores" if count > 1 else f"one process ({cores} cores are here)"
    yield Finding(level="ok", text=f"{processes}; every limit is of one process")
    total = f"; {count * each // _MIB} MiB in all" if count > 1 else ""
    yield Finding(level="ok", text=f"events in memory: at most {each // _MIB} MiB ({share}){total}")
    if count > cores:
        text = f"more processes than cores: they share what one for each core would have; workers.count = {cores}"
        yield Finding(level="warning", text=text)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if count * each > memory:
        text = f"this machine has {memory // _MIB} MiB: overload could fill it before the limits refuse; lower them"
        yield Finding(level="warning", text=text)
