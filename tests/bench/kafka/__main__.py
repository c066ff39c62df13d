"""``just bench kafka``: this library against the other Kafka producers for Python, on this machine, in one run."""

import argparse
import json
import os
import platform
import sys
import tempfile
from collections.abc import Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path

import trio

from tests.bench.kafka.broker import open_broker
from tests.bench.kafka.rates import GROUPS, measure
from tests.bench.kafka.running import Bench
from tests.bench.machine import choose_cores
from tests.bench.report import Report, Row, as_json, as_markdown

ROWS = ("K1", "K2", "K3", "K6")


def main() -> None:
    """Parse the command line, measure, print."""
    parser = argparse.ArgumentParser(prog="just bench kafka", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one short run each: a look, not a measurement")
    parser.add_argument("--rows", type=_words, default=list(ROWS), metavar="K1,K2", help="only these rows")
    parser.add_argument("--only", type=_words, default=[], metavar="ours,aiokafka", help="only these clients")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every run and verdict there")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the tables there")
    arguments = parser.parse_args()
    report = trio.run(partial(run, arguments))
    text = as_markdown(report)
    print(text)
    if arguments.markdown is not None:
        arguments.markdown.write_text(text)
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(as_json(report), indent=1) + "\n")


async def run(arguments: argparse.Namespace) -> Report:
    """Measure what the arguments say. On cancellation: every process is ended."""
    cores = choose_cores()
    with tempfile.TemporaryDirectory(prefix="bench-kafka-") as directory:
        async with open_broker(Path(directory), cores) as broker:
            bench = Bench(
                broker=broker,
                cores=cores,
                runs=1 if arguments.quick else 3,
                measure_s=2.0 if arguments.quick else 8.0,
                warmup_s=1.0 if arguments.quick else 1.5,
                quick=arguments.quick,
            )
            rows: list[Row] = []
            for group in GROUPS:
                rows += await measure(bench, group, arguments.rows, arguments.only, _say)
    return Report(title="Kafka producers", about=_about(bench), rows=sorted(rows, key=lambda row: row.name))


def _about(bench: Bench) -> dict[str, str]:
    peers = ("aiokafka", "confluent-kafka", "kafka-python", "trio", "uvloop")
    return {
        "python": platform.python_version(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "versions": ", ".join(f"{name} {version(name)}" for name in peers),
        "runs": f"{bench.runs} of {bench.measure_s:g} s each, after {bench.warmup_s:g} s of warming, interleaved",
    }


def _words(text: str) -> Sequence[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
