"""Starting a producing process and listening to it.

Owns: one run: the child, what it announces, the CPU time of the broker and of everybody else in its window. Refuses to
know: which client it is and what the figures are held against.

Invariant: one producing process at a time; it has ended, and the broker runs, when `run_child` returns.
"""

import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import trio

from collector.devtools.children import Child, open_child
from tests.bench import running
from tests.bench.broker import PARTITIONS, TOPIC, Broker
from tests.bench.kafka.spec import Spec
from tests.bench.machine import Cores, Usage
from tests.bench.report import Measured
from tests.bench.running import Rounds, RunFailed

__all__ = ["Bench", "Contender", "interleave", "run_child"]

#: Starting, warming, closing; a run that takes this much longer than its window hangs.
_SPARE_S = 90.0

#: The last lines may still be in the pipe when the process has ended.
_LAST_LINES_S = 1.0

_ROOT = Path(__file__).parents[3]


@dataclass(frozen=True, slots=True, kw_only=True)
class Contender:
    """One client with one workload."""

    name: str
    client: str
    workload: str
    options: Mapping[str, str | int | float | bool]
    settings: str = ""
    tls: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """What all runs of the program have in common."""

    broker: Broker
    cores: Cores
    rounds: Rounds
    measure_s: float
    warmup_s: float

    def spec(self, contender: Contender, profile: str | None = None) -> Spec:
        """What the contender's process is told."""
        return Spec(
            client=contender.client,
            workload=contender.workload,
            bootstrap_servers=self.broker.tls_bootstrap_servers if contender.tls else self.broker.bootstrap_servers,
            topic=TOPIC,
            partitions=PARTITIONS,
            warmup_s=self.warmup_s,
            measure_s=self.measure_s,
            core=self.cores.subject if self.cores.apart else None,
            ca_file=str(self.broker.certificates.ca_file) if contender.tls else None,
            profile=profile,
            options=contender.options,
        )


async def interleave(
    bench: Bench, rows: str, contenders: Sequence[Contender], describe: Callable[[Mapping[str, float]], str]
) -> dict[str, Measured]:
    """As `tests.bench.running.interleave`, each run in a process of its own.

    On cancellation: the running process is ended.
    """

    async def measure(each: Contender) -> dict[str, float]:
        return await run_child(bench, bench.spec(each))

    return await running.interleave(bench.rounds, rows, contenders, measure, describe)


async def run_child(bench: Bench, spec: Spec, module: str = "tests.bench.kafka.child") -> dict[str, float]:
    """Run one producing process to its end and return its figures, with the broker's beside them.

    Raises:
        RunFailed: it ended without figures, or took longer than it can.

    On cancellation: the process is ended, the broker goes on.
    """
    listener = _Listener(bench)
    argv = [sys.executable, "-m", module, msgspec.json.encode(spec).decode()]
    async with open_child(argv, name=spec.client, on_line=listener.heard, cwd=_ROOT, keep_stdin=True) as child:
        listener.child = child
        with trio.move_on_after(spec.warmup_s + spec.measure_s + _SPARE_S) as scope:
            try:
                await child.wait_ended()
            finally:
                bench.broker.resume()
        with trio.move_on_after(_LAST_LINES_S):
            await listener.finished.wait()
    if listener.figures is None:
        late = "took too long" if scope.cancelled_caught else f"ended with {child.process.returncode}"
        raise RunFailed(f"{spec.client} {spec.workload} {late}:\n" + "\n".join(list(child.tail)[-25:]))
    return listener.figures | listener.usage()


class _Listener:
    """Hears what the process announces, one JSON line each."""

    def __init__(self, bench: Bench) -> None:
        self.child: Child | None = None
        self.figures: dict[str, float] | None = None
        self.finished = trio.Event()
        self._bench = bench
        self._begin: tuple[float, Usage] | None = None
        self._end: tuple[float, Usage] | None = None

    def heard(self, line: str) -> None:
        """One line of its output."""
        if not line.startswith('{"event"'):
            return
        said = msgspec.json.decode(line)
        match said.pop("event"):
            case "begin":
                self._begin = self._now()
            case "end":
                self._end = self._now()
            case "result":
                self.figures = {name: math.nan if value is None else value for name, value in said.items()}
                self.finished.set()
            case "pause":
                self._bench.broker.pause()
                self._answer()
            case "resume":
                self._bench.broker.resume()
                self._answer()

    def usage(self) -> dict[str, float]:
        """Shares of a core in the window: the broker's, and what others took of the two cores together."""
        if self._begin is None or self._end is None or self.figures is None:
            return {}
        wall_s = self._end[0] - self._begin[0]
        before, after = self._begin[1], self._end[1]
        broker_s = after.broker_s - before.broker_s
        busy_s = after.subject_core_s - before.subject_core_s
        if self._bench.cores.apart:
            busy_s += after.rest_core_s - before.rest_core_s
        own_s = self.figures["cpu_user_s"] + self.figures["cpu_system_s"]
        return {
            "rest_share": broker_s / wall_s,
            "foreign_share": max(0.0, busy_s - broker_s - own_s) / wall_s,
            "broker_cpu_us": broker_s / max(1.0, self.figures["records"]) * 1e6,
        }

    def _now(self) -> tuple[float, Usage]:
        return trio.current_time(), Usage.now(self._bench.cores, self._bench.broker.pid)

    def _answer(self) -> None:
        assert self.child is not None
        assert self.child.process.stdin is not None
        self.child.process.stdin.write(b"done\n")
        self.child.process.stdin.flush()
