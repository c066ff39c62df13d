"""The machine under a benchmark: cores, who used them, memory.

Owns: pinning, and reading ``/proc``. Refuses to know: what runs.

Invariant: CPU time is the kernel's, user and system of every thread of a process, so that a client which works in
threads of its own is charged for them.
"""

import os
import re
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = [
    "Cores",
    "Usage",
    "choose_cores",
    "core_busy_s",
    "family",
    "family_bytes",
    "family_cpu_s",
    "pinned",
    "process_cpu_s",
    "resident_bytes",
]

_TICK_S = 1 / os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
#: Of the fields of a ``cpuN`` line: idle and iowait. guest and guest_nice are counted in user and nice already.
_IDLE_FIELDS = (3, 4)
_COUNTED_FIELDS = 8
#: Takes its core before its first line, so that every thread inherits it, and may open as many files as it is let.
_PINNING = (
    "import os, resource, sys; os.sched_setaffinity(0, {int(sys.argv[1])}); "
    "most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]; resource.setrlimit(resource.RLIMIT_NOFILE, (most, most)); "
    "os.execvp(sys.argv[2], sys.argv[2:])"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cores:
    """Which core is whose; the same one for both where there is only one."""

    subject: int
    """Of the process that is measured."""
    rest: int
    """Of the broker, the load, and this program."""

    @property
    def apart(self) -> bool:
        """Whether the two sides do not share a core."""
        return self.subject != self.rest


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """CPU seconds at one moment; subtract two."""

    subject_core_s: float
    rest_core_s: float
    broker_s: float

    @staticmethod
    def now(cores: Cores, broker_pid: int | None) -> "Usage":
        """Read the counters; without a broker its are 0."""
        return Usage(
            subject_core_s=core_busy_s(cores.subject),
            rest_core_s=core_busy_s(cores.rest),
            broker_s=0.0 if broker_pid is None else process_cpu_s(broker_pid),
        )


def choose_cores() -> Cores:
    """The last core for what is measured, the first for the broker, the load and this program."""
    allowed = sorted(os.sched_getaffinity(0))
    return Cores(subject=allowed[-1], rest=allowed[0])


def pinned(core: int, argv: Sequence[str]) -> list[str]:
    """The command line that runs a program on this core alone, with as many open files as it is allowed."""
    return [sys.executable, "-I", "-S", "-c", _PINNING, str(core), *argv]


def core_busy_s(core: int) -> float:
    """Seconds for which a core was not idle since the machine started, whoever used it."""
    for line in Path("/proc/stat").read_text().splitlines():
        name, *fields = line.split()
        if name == f"cpu{core}":
            return _TICK_S * sum(
                int(field) for place, field in enumerate(fields[:_COUNTED_FIELDS]) if place not in _IDLE_FIELDS
            )
    raise LookupError(f"no cpu{core} in /proc/stat")


def process_cpu_s(pid: int) -> float:
    """User and system seconds of all threads of a process, ended ones included."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return _TICK_S * (int(fields[11]) + int(fields[12]))


def family(pid: int) -> list[int]:
    """A process and all that it has started, and they, as far as they run."""
    found = [pid]
    for each in found:
        for children in Path(f"/proc/{each}/task").glob("*/children"):
            try:
                found += map(int, children.read_text().split())
            except OSError:
                continue  # a thread that has just ended
    return found


def family_cpu_s(pids: Iterable[int]) -> float:
    """User and system seconds of these processes."""
    return sum(process_cpu_s(pid) for pid in pids)


def family_bytes(pids: Sequence[int]) -> int:
    """What these processes hold in memory: one's resident memory; of several, a page they share counts once (PSS)."""
    if len(pids) == 1:
        return resident_bytes(pids[0])
    found = 0
    for pid in pids:
        kib = re.search(r"^Pss:\s+(\d+) kB", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.MULTILINE)
        found += resident_bytes(pid) if kib is None else int(kib[1]) * 1024
    return found


def resident_bytes(pid: int | None = None) -> int:
    """What a process holds in memory now; this one by default."""
    return int(Path(f"/proc/{'self' if pid is None else pid}/statm").read_text().split()[1]) * _PAGE_BYTES
