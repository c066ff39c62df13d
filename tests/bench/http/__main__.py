"""The collector against other HTTP servers that put events into Kafka: one command, on this machine, in one run.

How the figures are made:

- The servers run on the last core, one process each (S1: several). A real Apache Kafka, one node, a topic with 6
  partitions, runs on the first one, with the load and this program. Every answer leaves after the acknowledgement
  (acks=all): after each run the log is counted, and has to hold what was answered 200.
- The load is wrk: one thread, keep-alive, the next request of a connection when the last one is answered. An event is
  250 bytes of JSON as in Heap's example of POST /api/track; 997 identities take turns, hence keys and partitions.
- Ours is `collector serve` as a user runs it: validation, full envelope, keys, metrics, ledger, deadline and spool on,
  zstd to Kafka. The peers are the fair, fast version of themselves: uvloop, httptools, msgspec, no access log, the
  client's bytes as the record, no key and no envelope.
- Runs are interleaved, A B C A B C A B C: 3 rounds of 8 s each, after a warm-up of each server. A ratio is formed
  within a round; shown are the median over the rounds and, in brackets, the lowest and the highest.
- CPU-µs an event is user plus system time of the server's process, all threads and workers, over the events that it
  answered: the steadiest figure on a shared machine. Resident memory is read at the end of a run.
- A rate is the rate of the side that was saturated, so that is said for each: the share of its core that the server
  used, what load and broker used together of theirs, and what others took.
- "must" and "stretch" are what this project holds itself to. A missed one is marked; it does not fail the command. A
  server that does not start, or refuses or loses more than one request in a hundred, does; fewer are named.
"""

import argparse
import tempfile
from pathlib import Path

import trio

from tests.bench.broker import open_broker
from tests.bench.http import rows
from tests.bench.http.running import Bench, Loads
from tests.bench.machine import choose_cores
from tests.bench.report import Report
from tests.bench.running import Rounds, about_machine, command_line, finish, say
from tests.bench.servers import Stage

_PACKAGES = ("hypercorn", "trio", "uvicorn", "uvloop", "starlette", "fastapi", "aiokafka", "confluent-kafka")


def main() -> None:
    """Parse the command line, measure, print."""
    parser = command_line("http", __doc__, rows.ROWS)
    parser.add_argument("--only", metavar="WORDS", help="only contenders whose names contain this")
    parser.add_argument("--seconds", type=float, metavar="S", help="a run's length, in place of 8 (quick: 2)")
    parser.add_argument("--rounds", type=int, metavar="N", help="how many, in place of 3 (quick: 1)")
    parser.add_argument("--mock", action="store_true", help="a trial of the program on a mock broker, no measurement")
    finish(parser.parse_args(), run)


async def run(arguments: argparse.Namespace) -> Report:
    """Measure what the arguments say. On cancellation: every process is ended."""
    cores = choose_cores()
    quick = arguments.quick
    with tempfile.TemporaryDirectory(prefix="bench-http-") as directory:
        async with open_broker(Path(directory), cores, client_auth=True, mock=arguments.mock) as broker:
            bench = Bench(
                stage=Stage(directory=Path(directory), cores=cores, broker=broker),
                rounds=Rounds(arguments.rounds or (1 if quick else 3), say),
                loads=Loads(Path(directory)),
                measure_s=arguments.seconds or (2.0 if quick else 8.0),
                warmup_s=1.0 if quick else 2.0,
            )
            found = await rows.measure(bench, arguments.rows, arguments.only)
    await trio.lowlevel.checkpoint()
    return Report(
        title="HTTP",
        about=about_machine(cores, "servers", "broker and load", _PACKAGES)
        | {
            "broker": "librdkafka's mock: no measurement"
            if arguments.mock
            else "Apache Kafka 4.1, one node, 6 partitions, acks=all",
            "load": "wrk, 1 thread, keep-alive, 250-byte events, 997 identities in turn",
            "runs": f"{bench.rounds.count} of {bench.measure_s:g} s each, after {bench.warmup_s:g} s of warming, "
            "interleaved",
        },
        rows=found,
        failures=bench.rounds.failures,
    )


if __name__ == "__main__":
    main()
