"""Servers side by side: those of one group stay up together, and are loaded one at a time, round by round.

Owns: which servers are up, the CPU time of both cores in a window, the proof that what was acknowledged is in the log.
Refuses to know: the load, and what the figures are held against.

Invariant: one load at a time. Every event that was acknowledged in a run is in Kafka's log when the run is counted; of
ours it may also be in the spool, whose account is read.
"""

import resource
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Protocol, TypeVar

import trio

from collector.devtools.children import ChildFailed
from tests.bench import machine, running
from tests.bench.machine import Cores, Usage
from tests.bench.report import Measured
from tests.bench.running import Rounds, RunFailed
from tests.bench.servers import Opener, Running, Stage

__all__ = ["Account", "Bench", "Served", "Shares", "Window", "counted", "interleave"]

#: Between two runs, so that what is still in work of one is not work of the next.
_REST_S = 0.3


class Served(Protocol):
    """A contender: one server under one load."""

    @property
    def name(self) -> str: ...

    @property
    def settings(self) -> str: ...

    @property
    def server(self) -> str:
        """Contenders with the same word share one process."""
        ...

    @property
    def open(self) -> Opener: ...


S = TypeVar("S", bound=Served)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """What all runs of a program have in common."""

    stage: Stage
    rounds: Rounds
    measure_s: float
    warmup_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Shares:
    """CPU seconds of a window, by who used them."""

    server_s: float
    load_s: float
    broker_s: float
    busy_s: float
    """Of both cores, whoever used them."""

    def figures(self, *, events: int, wall_s: float) -> dict[str, float]:
        """Rates, times an event, and shares of one core; the load's time is in ``rest_share``."""
        return {
            "events": events,
            "wall_s": wall_s,
            "rate": events / wall_s,
            "cpu_us": self.server_s / events * 1e6,
            "cpu_share": self.server_s / wall_s,
            "rest_share": (self.load_s + self.broker_s) / wall_s,
            "foreign_share": max(0.0, self.busy_s - self.server_s - self.load_s - self.broker_s) / wall_s,
            "broker_cpu_us": self.broker_s / events * 1e6,
        }


class Window:
    """Counts from when it is made."""

    def __init__(self, stage: Stage, server: Running) -> None:
        self._cores: Cores = stage.cores
        self._broker_pid = stage.broker.pid
        self._pids = machine.family(server.child.pid)
        self._begin = self._now()

    def shares(self, load_s: float | None = None) -> Shares:
        """Until now. ``load_s``: of the load; None: of every child that was waited for since then."""
        (before, server_s, children_s), (after, server_now_s, children_now_s) = self._begin, self._now()
        busy_s = after.subject_core_s - before.subject_core_s
        if self._cores.apart:
            busy_s += after.rest_core_s - before.rest_core_s
        return Shares(
            server_s=server_now_s - server_s,
            load_s=children_now_s - children_s if load_s is None else load_s,
            broker_s=after.broker_s - before.broker_s,
            busy_s=busy_s,
        )

    def resident_bytes(self) -> int:
        """What the server holds now."""
        return machine.family_bytes(self._pids)

    def _now(self) -> tuple[Usage, float, float]:
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        usage = Usage.now(self._cores, self._broker_pid)
        return usage, machine.family_cpu_s(self._pids), used.ru_utime + used.ru_stime


@dataclass(slots=True, kw_only=True)
class Account:
    """What a run has acknowledged, and what of it was found."""

    acknowledged: int = 0
    """The run adds to it."""
    spooled: float = 0.0
    gc_s: float = 0.0
    """Of garbage collection, where the server is ours."""


@asynccontextmanager
async def counted(stage: Stage, server: Running, *, kafka: bool = True) -> AsyncIterator[Account]:
    """Hold what the block acknowledges against what the log and the spool have more at its end.

    Raises:
        RunFailed: it is less.

    On cancellation: nothing is compared.
    """
    account = Account()
    written = await stage.broker.written() if kafka else 0
    spooled, gc_s = await _own(server)
    yield account
    spooled_now, gc_now_s = await _own(server)
    account.spooled, account.gc_s = spooled_now - spooled, gc_now_s - gc_s
    await trio.sleep(_REST_S)
    if kafka:
        found = await stage.broker.written() - written + account.spooled
        if found < account.acknowledged:
            raise RunFailed(
                f"{account.acknowledged} events were acknowledged, {found:.0f} are in the log or in the spool"
            )


async def _own(server: Running) -> tuple[float, float]:
    """Of a collector: events in the spool's account so far, and seconds of garbage collection; of a peer nothing."""
    await trio.lowlevel.checkpoint()
    if server.collector is None:
        return 0.0, 0.0
    lines = (await server.collector.asking.request("GET", "/metrics")).body.decode().splitlines()
    spooled = _total(line for line in lines if line.startswith("collector_events_total{") and '"spooled"' in line)
    return spooled, _total(line for line in lines if line.startswith("collector_gc_seconds_total{"))


def _total(lines: Iterable[str]) -> float:
    """Of a metric's lines, those of every worker."""
    return sum(float(line.rpartition(" ")[2]) for line in lines)


async def interleave(
    bench: Bench,
    label: str,
    contenders: Sequence[S],
    warm: Callable[[S, Running], Awaitable[None]],
    run: Callable[[S, Running], Awaitable[Mapping[str, float]]],
    describe: Callable[[Mapping[str, float]], str],
) -> dict[str, Measured]:
    """Open every server, warm it, and run the contenders round by round.

    On cancellation: every server is ended.
    """
    async with _open_servers(bench, label, contenders, warm) as servers:

        async def measure(each: S) -> Mapping[str, float]:
            server = servers.get(each.server)
            if server is None:
                raise RunFailed("its server did not start")
            return await run(each, server)

        return await running.interleave(bench.rounds, label, contenders, measure, describe)


@asynccontextmanager
async def _open_servers(
    bench: Bench, label: str, contenders: Sequence[S], warm: Callable[[S, Running], Awaitable[None]]
) -> AsyncIterator[dict[str, Running]]:
    """Those of one group stay up together: an idle one takes next to nothing, and a fresh one would be slow."""
    async with AsyncExitStack() as stack:
        servers: dict[str, Running] = {}
        failed: set[str] = set()
        for each in contenders:
            if each.server in servers or each.server in failed:
                continue
            try:
                servers[each.server] = await stack.enter_async_context(each.open(bench.stage, each.server))
                await warm(each, servers[each.server])
                await trio.sleep(_REST_S)
            except (RunFailed, ChildFailed, OSError) as error:
                bench.rounds.failed(label, each.name, error)
                failed.add(each.server)
                servers.pop(each.server, None)
        await trio.lowlevel.checkpoint()
        yield servers
