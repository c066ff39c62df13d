"""What the collector takes of memory, and garbage collection of its time: one command, on this machine.

How the figures are made:

- M1: `collector serve` in its default configuration, a process of its own; resident memory as the kernel tells it.
  Idle: after it has answered and rested for a moment. Then 10 000 connections that have had one event acknowledged each
  and do nothing now: what resident memory has grown by, over their number. Keep-alive and websockets in a process each.
- M2: a producer with one record that a mock broker refuses (NOT_ENOUGH_REPLICAS) again and again, each try a request
  that is sent and answered; its process is read from outside after 0, 10, 1 000 and 100 000 of them. A second process
  does the same under tracemalloc, which counts every object, to 10 000 tries.
- M3: the seconds that Python's garbage collector took, over the CPU seconds of the process: in row H1 of `just bench
  http`, and in a replay of the incident: Kafka over TLS with client certificates, stopped for 0.8 s of every second,
  512 connections that each wait for it.
- Shown are the median over the rounds and, in brackets, the lowest and the highest. "must" and "stretch" are what this
  project holds itself to; a missed one is marked, and does not fail the command.
"""

import argparse
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import trio

from collector.devtools.children import open_child
from tests.bench.broker import open_broker
from tests.bench.figures import at_most, below
from tests.bench.machine import choose_cores, family, family_bytes, pinned
from tests.bench.memory.tries import measure_tries
from tests.bench.report import Column, Report, Row
from tests.bench.running import Rounds, RunFailed, about_machine, command_line, finish, interleave, say
from tests.bench.scores import Scores
from tests.bench.servers import TRACK, Running, Stage, ours
from tests.bench.serving import Bench, Window, counted
from tests.bench.wrk import Load, run_wrk, single_bodies

__all__ = ["ROWS", "main"]

ROWS = ("M1", "M2", "M3")
#: Of the last row: tries after which memory is read; with tracemalloc a try takes four times as long.
TRIES, TRACED_TRIES = (0, 10, 1_000, 100_000), (0, 10, 1_000, 10_000)
_HELD_WITHIN_S = 120.0
_STOPPED_S, _RUNNING_S = 0.8, 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class Contender:
    """One thing that is measured."""

    name: str
    settings: str = ""


def main() -> None:
    """Parse the command line, measure, print."""
    parser = command_line("memory", __doc__, ROWS)
    parser.add_argument("--connections", type=int, default=10_000, metavar="N", help="of M1, in place of 10 000")
    parser.add_argument("--tries", type=int, metavar="N", help="of M2, the most, in place of 100 000")
    parser.add_argument("--seconds", type=float, metavar="S", help="of M3, a run's length, in place of 8 (quick: 3)")
    parser.add_argument("--rounds", type=int, metavar="N", help="of M1 and M3, in place of 3 (quick: 1); M2 has one")
    parser.add_argument("--mock", action="store_true", help="a trial of the program on a mock broker, no measurement")
    finish(parser.parse_args(), run)


async def run(arguments: argparse.Namespace) -> Report:
    """Measure what the arguments say. On cancellation: every process is ended."""
    cores = choose_cores()
    quick = arguments.quick
    rounds = Rounds(arguments.rounds or (1 if quick else 3), say)
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="bench-memory-") as name:
        directory = Path(name)
        async with open_broker(directory, cores, client_auth=True, mock=arguments.mock) as broker:
            bench = Bench(
                stage=Stage(directory=directory, cores=cores, broker=broker),
                rounds=rounds,
                measure_s=arguments.seconds or (3.0 if quick else 8.0),
                warmup_s=1.0,
            )
            if "M1" in arguments.rows:
                rows.append(await _measure_connections(bench, arguments.connections, 0.5 if quick else 2.0))
            if "M3" in arguments.rows:
                rows.append(await _measure_gc(bench))
            if "M2" in arguments.rows:
                rows.append(await _measure_tries(bench, arguments.tries or (1_000 if quick else TRIES[-1])))
    await trio.lowlevel.checkpoint()
    return Report(
        title="Memory",
        about=about_machine(cores, "servers", "broker and load", ("hypercorn", "trio"))
        | {
            "broker": "librdkafka's mock: no measurement" if arguments.mock else "Apache Kafka 4.1, one node",
            "rounds": str(rounds.count),
        },
        rows=sorted(rows, key=lambda row: row.name),
        failures=rounds.failures,
    )


_KINDS = {"keep-alive connections": "http", "websockets": "ws"}


async def _measure_connections(bench: Bench, count: int, rest_s: float) -> Row:
    """M1. On cancellation: every process is ended."""
    contenders = [Contender(name=f"{count:,} idle {what}".replace(",", " ")) for what in _KINDS]
    kinds = dict(zip((each.name for each in contenders), _KINDS.values(), strict=True))

    async def measure(each: Contender) -> Mapping[str, float]:
        return await _hold(bench, kinds[each.name], count, rest_s)

    measured = list((await interleave(bench.rounds, "M1", contenders, measure, _describe_held)).values())
    scores = Scores(measured)
    http, ws = (each.name for each in contenders)
    return Row(
        name="M1",
        title="resident memory",
        columns=(
            Column(key="idle_bytes", title="idle, MB", scale=1e-6),
            Column(key="held_bytes", title="with them, MB", scale=1e-6),
            Column(key="each_kb", title="kB each"),
        ),
        measured=measured,
        checks=[
            scores.figure("idle", http, "idle_mb", "MB", at_most(70, "MB"), at_most(35, "MB")),
            scores.figure(http, http, "each_kb", "kB each", at_most(15, "kB"), at_most(7.5, "kB")),
            scores.figure(ws, ws, "each_kb", "kB each", at_most(40, "kB"), at_most(20, "kB")),
        ],
    )


def _describe_held(figures: Mapping[str, float]) -> str:
    return f"idle {figures['idle_mb']:.1f} MB, {figures['each_kb']:.1f} kB each"


async def _hold(bench: Bench, kind: str, count: int, rest_s: float) -> dict[str, float]:
    stage = bench.stage
    bodies = single_bodies(stage.directory)
    body = (await trio.Path(bodies.file).read_bytes()).partition(b"\n")[0].decode()
    async with ours({"http": {"server": "lane"}})(stage, f"held-{kind}") as server:
        port = server.http.rpartition(":")[2]
        load = Load(bodies=bodies, path=TRACK, connections=64)
        await run_wrk(stage.cores.rest, server.http, load, bench.warmup_s)
        await trio.sleep(rest_s)
        idle = family_bytes(family(server.child.pid))
        held = trio.Event()

        def on_line(line: str) -> None:
            if line == "held":
                held.set()

        argv = [sys.executable, "-m", "tests.bench.memory.hold", kind, port, str(count), body]
        argv = pinned(stage.cores.rest, argv)
        async with open_child(argv, name="connections", on_line=on_line, keep_stdin=True) as child:
            until = trio.current_time() + _HELD_WITHIN_S
            while child.running and not held.is_set() and trio.current_time() < until:
                with trio.move_on_after(0.5):
                    await held.wait()
            if not held.is_set():
                raise RunFailed("the connections: " + " | ".join(list(child.tail)[-3:] or ["too slow"]))
            await trio.sleep(rest_s)
            assert server.collector is not None
            open_now = (await server.collector.stats())["sources"]["connections"]["open"]
            if open_now < count:
                raise RunFailed(f"{open_now} of {count} connections are open")
            grown = family_bytes(family(server.child.pid))
    return {
        "idle_bytes": idle,
        "idle_mb": idle / 1e6,
        "held_bytes": grown,
        "each_kb": (grown - idle) / count / 1e3,
    }


async def _measure_tries(bench: Bench, most: int) -> Row:
    """M2. On cancellation: its process is ended."""
    tries = [number for number in TRIES if number < most] + [most]
    traced = [number for number in TRACED_TRIES if number < most] + [min(most, TRACED_TRIES[-1])]
    resident, allocated = Contender(name="resident memory"), Contender(name="allocated by Python (tracemalloc)")

    async def measure(each: Contender) -> Mapping[str, float]:
        names = tries if each is resident else traced
        found = await measure_tries(bench.stage.cores, names, traced=each is allocated)
        return found | {"grown_kb": (found[f"tries_{names[-1]}"] - found["tries_0"]) / 1e3}

    once = Rounds(1, say)
    measured = list((await interleave(once, "M2", [resident, allocated], measure, _describe_tries)).values())
    bench.rounds.failures += once.failures
    scores = Scores(measured)
    return Row(
        name="M2",
        title="a pending event after so many tries",
        columns=[
            Column(key=f"tries_{number}", title=f"{number:,} tries MB".replace(",", " "), scale=1e-6, digits=3)
            for number in sorted({*tries, *traced})
        ],
        measured=measured,
        checks=[
            scores.figure(f"resident, 0 to {tries[-1]} tries", resident.name, "grown_kb", "kB", at_most(500, "kB")),
            scores.figure(f"allocated, 0 to {traced[-1]} tries", allocated.name, "grown_kb", "kB", at_most(50, "kB")),
        ],
        notes=(
            "Flat means: of what a try needs nothing is left. Python's own noise is the bound: pages of its allocator "
            "outside, a few tables and caches inside; one retained object a try would be megabytes.",
        ),
    )


def _describe_tries(figures: Mapping[str, float]) -> str:
    shown = (f"{name[6:]}: {value / 1e6:.3f} MB" for name, value in figures.items() if name.startswith("tries_"))
    return ", ".join(shown)


async def _measure_gc(bench: Bench) -> Row:
    """M3. On cancellation: every process is ended."""
    calm = Contender(name="H1", settings="one event per POST, 64 connections")
    incident = Contender(
        name="the incident",
        settings=f"mTLS to Kafka, which stands still for {_STOPPED_S:g} s of every second; 512 connections",
    )
    # The mock has no TLS and cannot be stopped: a trial of the program, then.
    trial = bench.stage.broker.cluster is None

    async def measure(each: Contender) -> Mapping[str, float]:
        load = Load(bodies=single_bodies(bench.stage.directory), path=TRACK, connections=64 if each is calm else 512)
        open_ = ours({"http": {"server": "lane"}}, mtls=each is incident and not trial)
        async with open_(bench.stage, f"gc-{'calm' if each is calm else 'incident'}") as server:
            await run_wrk(bench.stage.cores.rest, server.http, load, bench.warmup_s)
            async with _slow_kafka(bench, on=each is incident):
                return await _gc_share(bench, server, load)

    measured = list((await interleave(bench.rounds, "M3", [calm, incident], measure, _describe_gc)).values())
    scores = Scores(measured)
    return Row(
        name="M3",
        title="garbage collection's share of the CPU time",
        columns=(
            Column(key="gc_percent", title="% of the CPU time", digits=2),
            Column(key="rate", title="events/s", digits=0),
            Column(key="cpu_us", title="CPU-µs/event", digits=1),
            Column(key="p99_ms", title="p99 ms", digits=0),
            Column(key="rss_bytes", title="RSS MB", scale=1e-6, digits=0),
        ),
        measured=measured,
        checks=[
            scores.figure(each.name, each.name, "gc_percent", "%", below(2), below(0.5)) for each in (calm, incident)
        ],
        sides=("server", "load and broker"),
    )


def _describe_gc(figures: Mapping[str, float]) -> str:
    return f"{figures['gc_percent']:.2f} % of the CPU time, {figures['rate']:,.0f}/s, p99 {figures['p99_ms']:.0f} ms"


async def _gc_share(bench: Bench, server: Running, load: Load) -> dict[str, float]:
    async with counted(bench.stage, server, kafka=False) as account:
        window = Window(bench.stage, server)
        told = await run_wrk(bench.stage.cores.rest, server.http, load, bench.measure_s)
        shares = window.shares()
    if not told.answered:
        raise RunFailed("nothing was answered 200")
    figures = shares.figures(events=told.answered, wall_s=told.duration_us / 1e6)
    return figures | {
        "gc_percent": 100 * account.gc_s / shares.server_s,
        "p99_ms": told.p99_us / 1e3,
        "rss_bytes": window.resident_bytes(),
    }


@asynccontextmanager
async def _slow_kafka(bench: Bench, *, on: bool) -> AsyncIterator[None]:
    """Stop the broker for most of every second while the block lasts."""
    broker = bench.stage.broker

    async def stop_and_go() -> None:
        while True:
            broker.pause()
            await trio.sleep(_STOPPED_S)
            broker.resume()
            await trio.sleep(_RUNNING_S)

    async with trio.open_nursery() as nursery:
        if on:
            nursery.start_soon(stop_and_go)
        try:
            await trio.lowlevel.checkpoint()
            yield
        finally:
            broker.resume()
            nursery.cancel_scope.cancel(reason="the run is over")


if __name__ == "__main__":
    main()
