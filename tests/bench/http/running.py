"""One run of one contender: wrk at its server for so many seconds, and what both cores did meanwhile.

Owns: the window, the servers that are up, the proof that what was acknowledged is in the log. Refuses to know: which
contender it is and what its figures are held against.

Invariant: one load at a time. Every event that was answered 200 is in Kafka's log when a run is counted; for ours it
may also be in the spool, which is counted.
"""

import resource
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import trio

from collector.devtools.children import ChildFailed
from tests.bench import machine, running
from tests.bench.machine import Usage
from tests.bench.report import Measured
from tests.bench.running import Rounds, RunFailed
from tests.bench.servers import TRACK, Opener, Running, Stage
from tests.bench.wrk import Bodies, Load, Told, bulk_bodies, run_wrk, single_bodies

__all__ = ["Bench", "Contender", "Loads", "interleave", "rated"]

#: Between two runs, so that what is still in work of one is not work of the next.
_REST_S = 0.3
#: What the singles beside a bulk load use.
_BESIDE_CONNECTIONS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Contender:
    """One server under one load."""

    name: str
    server: str
    """Contenders with the same word share one process."""
    open: Opener
    settings: str = ""
    connections: int = 64
    events: int = 1
    """In a request."""
    body_bytes: int = 0
    """Of a request with one event; 0: as an event is."""
    kafka: bool = True
    """Its events are looked for in the log."""
    beside: bool = False
    """A few connections send single events at the same time, and only theirs count."""


class Loads:
    """The bodies, made once."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._made: dict[tuple[int, int], Bodies] = {}

    def of(self, events: int, body_bytes: int = 0) -> Bodies:
        """Bodies with so many events each."""
        key = events, body_bytes
        if key not in self._made:
            if events > 1:
                self._made[key] = bulk_bodies(self._directory, events)
            else:
                self._made[key] = single_bodies(self._directory, *([body_bytes] if body_bytes else []))
        return self._made[key]


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """What all runs of the program have in common."""

    stage: Stage
    rounds: Rounds
    loads: Loads
    measure_s: float
    warmup_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class _Counted:
    """What a window gave, before it is divided by anything."""

    told: Told
    events: int
    """In a request."""
    server_s: float
    load_s: float
    before: Usage
    after: Usage
    rss_bytes: int
    more: Mapping[str, float] = field(default_factory=dict)


async def interleave(bench: Bench, label: str, contenders: Sequence[Contender]) -> dict[str, Measured]:
    """Open every server, warm it, and run the contenders round by round.

    On cancellation: every server is ended.
    """
    async with _open_servers(bench, label, contenders) as servers:

        async def measure(each: Contender) -> Mapping[str, float]:
            server = servers.get(each.server)
            if server is None:
                raise RunFailed("its server did not start")
            return await _run(bench, each, server)

        return await running.interleave(bench.rounds, label, contenders, measure, _describe)


@asynccontextmanager
async def _open_servers(bench: Bench, label: str, contenders: Sequence[Contender]) -> AsyncIterator[dict[str, Running]]:
    """Those of one group stay up together: an idle one takes next to nothing, and a fresh one would be slow."""
    async with AsyncExitStack() as stack:
        servers: dict[str, Running] = {}
        failed: set[str] = set()
        for each in contenders:
            if each.server in servers or each.server in failed:
                continue
            try:
                servers[each.server] = await stack.enter_async_context(each.open(bench.stage, each.server))
                await _warm(bench, each, servers[each.server])
            except (RunFailed, ChildFailed, OSError) as error:
                bench.rounds.failed(label, each.name, error)
                failed.add(each.server)
                servers.pop(each.server, None)
        await trio.lowlevel.checkpoint()
        yield servers


async def _warm(bench: Bench, contender: Contender, server: Running) -> None:
    await run_wrk(bench.stage.cores.rest, server.http, _load(bench, contender, server), bench.warmup_s)
    await trio.sleep(_REST_S)


def _load(bench: Bench, contender: Contender, server: Running) -> Load:
    return Load(
        bodies=bench.loads.of(contender.events, contender.body_bytes),
        path=TRACK if contender.events == 1 else server.bulk_path,
        connections=contender.connections,
    )


async def _run(bench: Bench, contender: Contender, server: Running) -> dict[str, float]:
    cores, broker = bench.stage.cores, bench.stage.broker
    load = _load(bench, contender, server)
    written = await broker.written() if contender.kafka else 0
    spooled, collected = await _own(server)
    pids = machine.family(server.child.pid)
    before, server_s, load_s = Usage.now(cores, broker.pid), machine.family_cpu_s(pids), _children_s()
    beside: list[Told] = []
    async with trio.open_nursery() as nursery:
        if contender.beside:
            nursery.start_soon(_run_beside, bench, server, beside)
        told = await run_wrk(cores.rest, server.http, load, bench.measure_s)
    counted = _Counted(
        told=told,
        events=contender.events,
        server_s=machine.family_cpu_s(pids) - server_s,
        load_s=_children_s() - load_s,
        before=before,
        after=Usage.now(cores, broker.pid),
        rss_bytes=machine.family_bytes(pids),
    )
    told.check()
    figures = rated(counted, apart=cores.apart)
    if server.collector is not None:
        spooled_now, collected_now = await _own(server)
        figures["spooled"] = spooled_now - spooled
        figures["gc_share"] = (collected_now - collected) / counted.server_s
    await trio.sleep(_REST_S)
    if contender.kafka:
        acknowledged = told.answered * contender.events + sum(each.answered for each in beside)
        found = await broker.written() - written + figures.get("spooled", 0)
        if found < acknowledged:
            raise RunFailed(f"{acknowledged} events were acknowledged, {found:.0f} are in the log or in the spool")
    for each in beside:
        each.check()
        figures |= {"beside_p50_ms": each.p50_us / 1e3, "beside_p99_ms": each.p99_us / 1e3}
        figures["beside_rate"] = each.answered / each.duration_us * 1e6
    return figures


async def _run_beside(bench: Bench, server: Running, found: list[Told]) -> None:
    load = Load(bodies=bench.loads.of(1), path=TRACK, connections=_BESIDE_CONNECTIONS)
    found.append(await run_wrk(bench.stage.cores.rest, server.http, load, bench.measure_s))


async def _own(server: Running) -> tuple[float, float]:
    """Of a collector: events in the spool's account so far, and seconds of garbage collection."""
    if server.collector is None:
        return 0.0, 0.0  # noqa: ASYNC910  # a peer has nothing to be asked
    sources = (await server.collector.stats())["sources"]
    metrics = (await server.collector.asking.request("GET", "/metrics")).body.decode()
    collected = sum(
        float(line.rpartition(" ")[2]) for line in metrics.splitlines() if line.startswith("collector_gc_seconds_total")
    )
    return float(sources["ledger"]["spooled_total"]), collected


def _children_s() -> float:
    """CPU seconds of the children that have ended: in a window, those of the load."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def rated(counted: _Counted, *, apart: bool) -> dict[str, float]:
    """Rates, shares and times an event of one window. Shares are of one core; the load's time is in ``rest_share``."""
    told = counted.told
    wall_s = told.duration_us / 1e6
    events = told.answered * counted.events
    before, after = counted.before, counted.after
    broker_s = after.broker_s - before.broker_s
    busy_s = after.subject_core_s - before.subject_core_s
    if apart:
        busy_s += after.rest_core_s - before.rest_core_s
    return {
        "events": events,
        "wall_s": wall_s,
        "rate": events / wall_s,
        "requests": told.answered / wall_s,
        "cpu_us": counted.server_s / events * 1e6,
        "cpu_share": counted.server_s / wall_s,
        "rest_share": (counted.load_s + broker_s) / wall_s,
        "foreign_share": max(0.0, busy_s - counted.server_s - counted.load_s - broker_s) / wall_s,
        "broker_cpu_us": broker_s / events * 1e6,
        "p50_ms": told.p50_us / 1e3,
        "p99_ms": told.p99_us / 1e3,
        "worst_ms": told.worst_us / 1e3,
        "failed": told.failed,
        "rss_bytes": counted.rss_bytes,
    }


def _describe(figures: Mapping[str, float]) -> str:
    return (
        f"{figures['rate']:,.0f}/s, {figures['cpu_us']:.2f} CPU-µs, p50 {figures['p50_ms']:.2f} ms, p99 "
        f"{figures['p99_ms']:.2f} ms, server {figures['cpu_share']:.0%}, load and broker {figures['rest_share']:.0%}"
    )
