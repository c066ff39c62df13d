"""Where the time of an event goes in the collector, stage by stage: one command, on this machine.

How the figures are made:

- `collector serve` as a user runs it (the lane, validation, full envelope, keys, metrics, ledger, deadline and spool
  on, zstd to Kafka) runs on the last core; a real Apache Kafka with 6 partitions, wrk and this program on the first.
- While wrk loads it, its stack is sampled at ticks of the process's own CPU time; nothing in it is timed or changed. A
  sample counts for the innermost function that belongs to a stage, with what libraries in C did for it.
- A stage's figure is its share of the samples of the CPU time an event, user plus system, of the same window. Shown
  are the median of the rounds and, in brackets, the lowest and the highest; so the medians of a column add up to
  about the whole. A sample is the kernel's tick, 4 ms here: a run of 8 s has at most two thousand.
- Events go to the spool where Kafka leaves them unanswered for a second, which costs more: on a machine with too much
  other work it happens, and is said.
- Code runs slower in place than alone: these figures are larger than those of a loop over one function.
"""

import argparse
import json
import os
import signal
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import trio

from tests.bench.broker import open_broker
from tests.bench.machine import choose_cores
from tests.bench.report import Column, Measured, Report, Row
from tests.bench.running import Rounds, RunFailed, about_machine, command_line, finish, say
from tests.bench.servers import TRACK, Running, Stage, ours
from tests.bench.serving import Window, counted
from tests.bench.stages.rooms import STAGES
from tests.bench.stages.sampled import FILE_KEY
from tests.bench.wrk import Load, bulk_bodies, run_wrk, single_bodies

ROWS = ("1", "100", "1000")
#: As in the rows H1, B1 and B2 of `just bench http`.
CONNECTIONS = {"1": 64, "100": 64, "1000": 32}
WHOLE, SAMPLES, SPOOLED = "together", "samples", "% of events that went to the spool"
_LANE = {"http": {"server": "lane"}}
_WRITTEN_WITHIN_S = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """What all runs have in common."""

    stage: Stage
    server: Running
    file: Path
    measure_s: float


def main() -> None:
    """Parse the command line, measure, print."""
    parser = command_line("stages", __doc__, ROWS)
    parser.add_argument("--seconds", type=float, metavar="S", help="a run's length, in place of 8 (quick: 2)")
    finish(parser.parse_args(), run)


async def run(arguments: argparse.Namespace) -> Report:
    """Measure what the arguments say. On cancellation: every process is ended."""
    cores = choose_cores()
    rounds = Rounds(1 if arguments.quick else 3, say)
    measure_s = arguments.seconds or (2.0 if arguments.quick else 8.0)
    found: dict[str, list[Mapping[str, float]]] = {name: [] for name in arguments.rows}
    with tempfile.TemporaryDirectory(prefix="bench-stages-") as directory:
        file = Path(directory) / "samples.json"
        os.environ[FILE_KEY] = str(file)
        async with open_broker(Path(directory), cores, client_auth=True) as broker:
            stage = Stage(directory=Path(directory), cores=cores, broker=broker)
            async with ours(_LANE, program="tests.bench.stages.sampled")(stage, "ours") as server:
                bench = Bench(stage=stage, server=server, file=file, measure_s=measure_s)
                loads = {name: _load(Path(directory), name) for name in arguments.rows}
                for load in loads.values():
                    await run_wrk(cores.rest, server.http, load, 2.0)
                for number in range(rounds.count):
                    for name, load in loads.items():
                        figures = await _measure(bench, load)
                        found[name].append(figures)
                        say(f"round {number + 1}/{rounds.count} of {name}: {_described(figures)}")
    return Report(
        title="Stages",
        about=about_machine(cores, "the collector", "broker and load", ("hypercorn", "trio", "msgspec"))
        | {
            "load": "wrk, 1 thread, keep-alive, 250-byte events, 997 identities in turn; "
            + ", ".join(f"{CONNECTIONS[name]} connections for {name}" for name in arguments.rows),
            "runs": f"{rounds.count} of {measure_s:g} s each",
        },
        rows=[_row(arguments.rows, found)],
        failures=rounds.failures,
    )


def _described(figures: Mapping[str, float]) -> str:
    return f"{figures[WHOLE]:.2f} CPU-µs an event, {figures[SPOOLED]:.1f} % spooled"


def _load(directory: Path, name: str) -> Load:
    bodies = single_bodies(directory) if name == "1" else bulk_bodies(directory, int(name))
    return Load(bodies=bodies, path=TRACK, connections=CONNECTIONS[name])


async def _measure(bench: Bench, load: Load) -> Mapping[str, float]:
    """One run: CPU-µs an event by stage."""
    bench.file.unlink(missing_ok=True)
    pid = bench.server.child.pid
    async with counted(bench.stage, bench.server) as account:
        window = Window(bench.stage, bench.server)
        os.kill(pid, signal.SIGUSR1)
        told = await run_wrk(bench.stage.cores.rest, bench.server.http, load, bench.measure_s)
        os.kill(pid, signal.SIGUSR1)
        shares = window.shares()
        told.check()
        events = account.acknowledged = told.answered * load.bodies.events
    samples = await _written(bench.file)
    return figures_of(samples, shares.server_s / events * 1e6) | {SPOOLED: 100 * account.spooled / events}


async def _written(file: Path) -> Mapping[str, int]:
    with trio.move_on_after(_WRITTEN_WITHIN_S):
        await trio.lowlevel.checkpoint()
        while True:
            if await trio.Path(file).exists():
                found: dict[str, int] = json.loads(await trio.Path(file).read_bytes())
                return found
            await trio.sleep(0.05)
    raise RunFailed("the collector has not written its samples")


def figures_of(samples: Mapping[str, int], cpu_us: float) -> dict[str, float]:
    """The CPU time an event, shared out by samples.

    Raises:
        RunFailed: there is none.
    """
    together = sum(samples.values())
    if not together:
        raise RunFailed("no sample was taken")
    shares = {stage: samples.get(stage, 0) / together * cpu_us for stage in STAGES}
    return {**shares, WHOLE: cpu_us, SAMPLES: together}


def _row(names: Sequence[str], found: Mapping[str, Sequence[Mapping[str, float]]]) -> Row:
    return Row(
        name="Stages",
        title="CPU-µs an event, by how many events a POST has",
        columns=[Column(key=name, title="1 event" if name == "1" else f"{name} events", digits=2) for name in names],
        measured=[
            Measured(
                name=stage,
                runs=[
                    {name: runs[number][stage] for name, runs in found.items()}
                    for number in range(min(map(len, found.values())))
                ],
            )
            for stage in (*STAGES, WHOLE, SAMPLES, SPOOLED)
        ],
        checks=(),
    )


if __name__ == "__main__":
    main()
