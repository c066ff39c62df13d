"""One run of one contender: wrk at its server for so many seconds.

Owns: what wrk does to it, and the figures. Refuses to know: which contender it is and what its figures are held
against.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import trio

from collector.devtools.raw_http import NoAnswer, open_http
from tests.bench import serving
from tests.bench.report import Measured
from tests.bench.running import RunFailed
from tests.bench.servers import TRACK, Opener, Running
from tests.bench.serving import Shares, Window, counted
from tests.bench.wrk import Bodies, Load, Told, bulk_bodies, run_wrk, single_bodies

__all__ = ["Bench", "Contender", "Loads", "interleave", "rated"]

#: For one request to a server that failed.
_ASKING_S = 10.0
#: What the singles beside a bulk load use.
_BESIDE_CONNECTIONS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Contender:
    """One server under one load; see `serving.Served`."""

    name: str
    server: str
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
class Bench(serving.Bench):
    """What all runs of the program have in common."""

    loads: Loads


async def interleave(bench: Bench, label: str, contenders: Sequence[Contender]) -> dict[str, Measured]:
    """Run the contenders round by round. On cancellation: every server is ended."""

    async def warm(each: Contender, server: Running) -> None:
        await run_wrk(bench.stage.cores.rest, server.http, _load(bench, each, server), bench.warmup_s)

    async def run(each: Contender, server: Running) -> dict[str, float]:
        return await _run(bench, each, server)

    return await serving.interleave(bench, label, contenders, warm, run, _describe)


def _load(bench: Bench, contender: Contender, server: Running) -> Load:
    return Load(
        bodies=bench.loads.of(contender.events, contender.body_bytes),
        path=TRACK if contender.events == 1 else server.bulk_path,
        connections=contender.connections,
    )


async def _run(bench: Bench, contender: Contender, server: Running) -> dict[str, float]:
    load = _load(bench, contender, server)
    beside: list[Told] = []
    async with counted(bench.stage, server, kafka=contender.kafka) as account:
        window = Window(bench.stage, server)
        async with trio.open_nursery() as nursery:
            if contender.beside:
                nursery.start_soon(_run_beside, bench, server, beside)
            told = await run_wrk(bench.stage.cores.rest, server.http, load, bench.measure_s)
        shares = window.shares()
        await _check(told, load, server)
        account.acknowledged = told.answered * contender.events + sum(each.answered for each in beside)
    figures = rated(told, contender.events, shares) | {"rss_bytes": window.resident_bytes()}
    if server.collector is not None:
        figures |= {"spooled": account.spooled, "gc_share": account.gc_s / shares.server_s}
    for each in beside:
        each.check()
        figures |= {"beside_p50_ms": each.p50_us / 1e3, "beside_p99_ms": each.p99_us / 1e3}
        figures["beside_rate"] = each.answered / each.duration_us * 1e6
    return figures


async def _check(told: Told, load: Load, server: Running) -> None:
    """Raises `RunFailed` with what the server says to one request, where too many of them failed."""
    try:
        told.check()
        await trio.lowlevel.checkpoint()
    except RunFailed as failed:
        raise RunFailed(f"{failed}; asked again it says {await _asked(load, server)}") from None


async def _asked(load: Load, server: Running) -> str:
    body = (await trio.Path(load.bodies.file).read_bytes()).partition(b"\n")[0]
    try:
        with trio.fail_after(_ASKING_S):
            async with open_http(server.http.partition("://")[2]) as http:
                reply = await http.request("POST", load.path, body)
    except (OSError, NoAnswer, trio.TooSlowError) as error:
        return str(error) or "nothing"
    return f"{reply.status} {reply.body[:200]!r}"


async def _run_beside(bench: Bench, server: Running, found: list[Told]) -> None:
    load = Load(bodies=bench.loads.of(1), path=TRACK, connections=_BESIDE_CONNECTIONS)
    found.append(await run_wrk(bench.stage.cores.rest, server.http, load, bench.measure_s))


def rated(told: Told, events: int, shares: Shares) -> dict[str, float]:
    """The figures of one run whose requests had so many events each."""
    figures = shares.figures(events=told.answered * events, wall_s=told.duration_us / 1e6)
    return figures | {
        "requests": told.answered / told.duration_us * 1e6,
        "p50_ms": told.p50_us / 1e3,
        "p99_ms": told.p99_us / 1e3,
        "worst_ms": told.worst_us / 1e3,
        "failed": told.failed,
    }


def _describe(figures: Mapping[str, float]) -> str:
    return (
        f"{figures['rate']:,.0f}/s, {figures['cpu_us']:.2f} CPU-µs, p50 {figures['p50_ms']:.2f} ms, p99 "
        f"{figures['p99_ms']:.2f} ms, server {figures['cpu_share']:.0%}, load and broker {figures['rest_share']:.0%}"
    )
