"""The machine under a benchmark: cores, who used them, memory.

Owns: pinning, and reading ``/proc``. Refuses to know: what runs.

Invariant: CPU time is the kernel's, user and system of every thread of a process, so that a client which works in
threads of its own is charged for them.
"""

import os
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Cores", "Usage", "choose_cores", "core_busy_s", "process_cpu_s", "resident_bytes"]

_TICK_S = 1 / os.sysconf("SC_CLK_TCK")
#: Of the fields of a ``cpuN`` line: idle and iowait. guest and guest_nice are counted in user and nice already.
_IDLE_FIELDS = (3, 4)
_COUNTED_FIELDS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Cores:
    """Which core is whose; the same one for both where there is only one."""

    producer: int
    broker: int

    @property
    def apart(self) -> bool:
        """Whether the two sides do not share a core."""
        return self.producer != self.broker


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """CPU seconds at one moment; subtract two."""

    producer_core_s: float
    broker_core_s: float
    broker_s: float

    @staticmethod
    def now(cores: Cores, broker_pid: int) -> "Usage":
        """Read the counters."""
        return Usage(
            producer_core_s=core_busy_s(cores.producer),
            broker_core_s=core_busy_s(cores.broker),
            broker_s=process_cpu_s(broker_pid),
        )


def choose_cores() -> Cores:
    """The last core for the producer, the first for the broker and for this program."""
    allowed = sorted(os.sched_getaffinity(0))
    return Cores(producer=allowed[-1], broker=allowed[0])


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


def resident_bytes() -> int:
    """What this process holds in memory now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
