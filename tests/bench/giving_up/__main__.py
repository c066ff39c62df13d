"""``just bench giving_up``: what becomes of a record whose caller gave up, and of a client that is closed, while the
broker stands still. Not a race: what each client does, counted against the log.

One Apache Kafka node, stopped with SIGSTOP and let go on again. Each client in a process of its own.

- *left*: one record is acknowledged, then the broker is stopped. 100 callers, one every 10 ms, each send one record to
  one partition and give up after 1 s. The broker goes on; the client stays open for 5 s more. Counted: what the callers
  were told, and how many of those records are in the log all the same.
- *closed*: the broker is stopped, 10 records are sent, the client is closed with 2 s of grace (where it takes one).
  Measured: how long that takes (20 s at most), and how many of the 10 records had a result by then.
"""

import argparse
import os
import signal
import sys
import tempfile
from functools import partial
from importlib.metadata import version
from pathlib import Path

import msgspec
import trio

from collector.devtools.kafka import KafkaCluster, open_kafka
from collector.devtools.topic_log import make_topic, read_topic
from tests.bench.giving_up.told import Closed, Left, Plan

CLIENTS = {
    "ours": "kafka_client",
    "aiokafka": f"aiokafka {version('aiokafka')}",
    "confluent": f"confluent-kafka {version('confluent-kafka')}",
    "kafka-python": f"kafka-python {version('kafka-python')}",
}
CHILD_TIMEOUT_S = 60


async def run(directory: Path, clients: list[str]) -> str:
    """Run everything; returns the table."""
    lines = []
    async with open_kafka(directory / "kafka") as cluster:
        for client in clients:
            print(f"{client} …", file=sys.stderr, flush=True)
            left_topic = make_topic(cluster.bootstrap_servers, f"left-{client}", 1)
            left = msgspec.json.decode(await ask(cluster, Plan(client, "left", left_topic)), type=Left)
            stored = await trio.to_thread.run_sync(read_topic, cluster.bootstrap_servers, left_topic)
            closed_topic = make_topic(cluster.bootstrap_servers, f"closed-{client}", 1)
            closed = msgspec.json.decode(await ask(cluster, Plan(client, "closed", closed_topic)), type=Closed)
            lines.append(line(client, left, {record.value.decode() for record in stored}, closed))
    return HEAD + "".join(lines)


HEAD = (
    "| | callers who gave up | told NotSent: in the log | told Unknown: in the log | told nothing: in the log "
    "| closing took | results at its end |\n|---|---|---|---|---|---|---|\n"
)


def line(client: str, left: Left, stored: set[str], closed: Closed) -> str:
    """One client's line of the table."""
    cells = [
        CLIENTS[client],
        str(len(left.not_sent) + len(left.unknown) + len(left.nothing)),
        *(
            f"{len(values)}: {len(stored.intersection(values))}"
            for values in (left.not_sent, left.unknown, left.nothing)
        ),
        "more than 20 s" if closed.seconds is None else f"{closed.seconds:.1f} s",
        f"{closed.results} of {closed.records}",
    ]
    return "| " + " | ".join(cells) + " |\n"


async def ask(cluster: KafkaCluster, plan: Plan) -> bytes:
    """Run one client's process; returns what it printed last."""
    pid = cluster.nodes[0].child.pid
    argv = [sys.executable, "-m", "tests.bench.giving_up.child", msgspec.json.encode(plan).decode()]
    argv += [cluster.bootstrap_servers, str(pid)]
    try:
        with trio.fail_after(CHILD_TIMEOUT_S):
            done = await trio.run_process(argv, capture_stdout=True)
    finally:
        os.kill(pid, signal.SIGCONT)
    return done.stdout.splitlines()[-1]


def main() -> None:
    """Parse the command line, run, print."""
    parser = argparse.ArgumentParser(
        prog="just bench giving_up", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the table there")
    parser.add_argument("--only", nargs="+", choices=list(CLIENTS), default=list(CLIENTS))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-giving-up-") as directory:
        table = trio.run(partial(run, Path(directory), arguments.only))
    print(table)
    if arguments.markdown is not None:
        arguments.markdown.write_text(table)


if __name__ == "__main__":
    main()
