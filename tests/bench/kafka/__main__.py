"""This library against the other Kafka producers for Python: one command, on this machine, in one run.

How the figures are made:

- The broker is a real Apache Kafka, one node, in a JVM of its own, pinned to the first core together with this program,
  which then only waits. The topic has 6 partitions; every client waits for acks=all with idempotence on.
- Each run of each client is a process of its own, pinned to the last core: its memory and its CPU time are that
  client's alone. One at a time.
- Runs are interleaved, A B C A B C A B C: 3 rounds of 8 s each, after a warm-up of the broker and of each process. A
  ratio is formed within a round; shown are the median over the rounds and, in brackets, the lowest and the highest.
- Counted are acknowledged records only. CPU-µs a record is user plus system time of all threads of the producing
  process (librdkafka's too) over the records acknowledged in the same window: the steadiest figure on a shared machine.
- p50 and p99 count from the call to the acknowledgement as the client's code sees it; with many records open at once
  they tell more about the window than about the client. confluent-kafka's come from librdkafka (Message.latency()).
- A rate is the rate of the side that was saturated, so that is said for each: the share of its core that the producing
  process used, that the broker used, and that others took.
- The peers get the settings that served them best here, named below each table; aiokafka runs on uvloop, and with the
  partition named by its caller as well as picking it.
- "must" and "stretch" are what this project holds itself to. A missed one is marked; it does not fail the command.
"""

import argparse
import json
import pstats
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import msgspec

from tests.bench.broker import open_broker
from tests.bench.kafka import rates, singles
from tests.bench.kafka.running import Bench, run_child
from tests.bench.kafka.sampling import as_table
from tests.bench.machine import choose_cores
from tests.bench.report import Report
from tests.bench.running import Rounds, about_machine, command_line, finish, say, words

ROWS = ("K1", "K2", "K3", "K4", "K5", "K6", "K7", "K8")
CLIENTS = ("ours", "aiokafka", "confluent", "kafka-python")
#: For the broker's compiler, before the first round.
_BROKER_WARMUP_S = 6.0


def main() -> None:
    """Parse the command line, measure, print."""
    parser = command_line("kafka", __doc__, ROWS)
    parser.add_argument(
        "--only", type=partial(words, CLIENTS), default=(), metavar="ours,aiokafka", help="only these clients"
    )
    parser.add_argument(
        "--profile",
        metavar="CLIENT:ROW[:WORDS]",
        help="instead: one run of K1, K2, K3, K6 or K8 under cProfile, such as ours:K1 or ours:K1:send_many",
    )
    parser.add_argument("--where", action="store_true", help="instead: where our time goes in K1 and K2, by stages")
    finish(parser.parse_args(), run)


async def run(arguments: argparse.Namespace) -> Report | None:
    """Measure what the arguments say. On cancellation: every process is ended."""
    cores = choose_cores()
    with tempfile.TemporaryDirectory(prefix="bench-kafka-") as directory:
        async with open_broker(Path(directory), cores) as broker:
            bench = Bench(
                broker=broker,
                cores=cores,
                rounds=Rounds(1 if arguments.quick else 3, say),
                measure_s=2.0 if arguments.quick else 8.0,
                warmup_s=1.0 if arguments.quick else 1.5,
            )
            if arguments.profile is not None:
                await _profile(bench, arguments.profile, Path(directory))
                return None
            if arguments.where:
                await _where(bench, Path(directory))
                return None
            return await _measure(bench, arguments.rows, arguments.only, arguments.quick)


async def _measure(bench: Bench, rows: Sequence[str], only: Sequence[str], quick: bool) -> Report:
    if not quick:
        await _warm_broker(bench)
    found = await rates.measure(bench, rows, only)
    if "K4" in rows:
        found += await singles.measure_cancelling(bench, only)
    if "K5" in rows:
        found += await singles.measure_memory(bench, only)
    if {"K6", "K7"} & set(rows) and not only:
        found = await singles.measure_encoding(bench, rows, found)
    if "K8" in rows and (not only or "ours" in only):
        found += await singles.measure_lag(bench)
    return Report(
        title="Kafka producers",
        about=_about(bench),
        rows=sorted(found, key=lambda row: row.name),
        failures=bench.rounds.failures,
    )


async def _warm_broker(bench: Bench) -> None:
    """A JVM gets faster in its first seconds of work; that must not go to whoever runs last."""
    await run_child(bench, msgspec.structs.replace(bench.spec(rates.K1[0]), measure_s=_BROKER_WARMUP_S))


async def _profile(bench: Bench, wanted: str, directory: Path) -> None:
    client, _, rest = wanted.partition(":")
    row, _, words = rest.partition(":")
    for contender in [singles.LAG] if row == "K8" else rates.contenders_of(row):
        if contender.client == client and words in contender.name:
            break
    else:
        raise SystemExit(f"--profile: nothing called {wanted!r} takes part in K1, K2, K3, K6 or K8")
    file = directory / "profile"
    figures = await run_child(bench, bench.spec(contender, str(file)))
    print(f"{contender.name}, under the profiler: {figures}")
    for order in ("tottime", "cumulative"):
        pstats.Stats(str(file)).sort_stats(order).print_stats(35)


async def _where(bench: Bench, directory: Path) -> None:  # noqa: ASYNC910  # each run is a checkpoint
    file = directory / "samples"
    found = {}
    for name, contender in rates.SAMPLED.items():
        spec = msgspec.structs.replace(bench.spec(contender, str(file)), sampled=True)
        figures = await run_child(bench, spec)
        found[name] = json.loads(file.read_text()), figures["cpu_us"]
    print(as_table(found))


def _about(bench: Bench) -> dict[str, str]:
    peers = ("aiokafka", "confluent-kafka", "kafka-python", "trio", "uvloop")
    return about_machine(bench.cores, "producers", "broker", peers) | {
        "broker": "Apache Kafka 4.1, one node, 6 partitions, acks=all",
        "runs": f"{bench.rounds.count} of {bench.measure_s:g} s each, after {bench.warmup_s:g} s of warming, "
        "interleaved",
    }


if __name__ == "__main__":
    main()
