"""The fault table: real Kafka, real nginx, one fault after the other, and what became of every event.

How it is made:

- Each row has a stage of its own: Apache Kafka (one node, three where leaders move), 6 partitions, acks=all; nginx with
  the configuration that `collector render nginx` renders; behind it `collector serve`.
- The load is a process of its own, pinned to the first core: 500 events/s at random moments (100 single events and 30
  batches of ten over HTTP, 100 messages over 20 websockets), however slow the answers are. Every event has an id of its
  own; nothing is ever sent again. In the overload rows 9 of 10 are single events over HTTP and 1 is a message.
- Overload: whatever is taken into work holds the collector's event loop for 2.7 ms (asleep, so that others on this
  machine do not change it); its capacity is measured right before, by 32 clients that wait for their answers.
- Each stage is warmed before, by the same load for 4 s a broker, which is in no account.
- When fault and load are over, the replay gets its time. Then the ids that clients know of are compared with those in
  the topic (read by librdkafka), in the bad topic, and in the spool's files (read by SQLite alone).
- nginx's access log says what the server behind it answered before nginx made its own words of it.
- Lost: answered 200, and nowhere. Ghost: not answered 200, and in the topic: announced (named as unknown, or counted as
  delivered in a batch of which not all was), denied (the answer's counts say otherwise), or without a word (the answer
  has no counts, or there was none).
- The baseline is FastAPI on uvicorn (uvloop, httptools) with aiokafka (acks=all, idempotent, its defaults otherwise),
  answering after the acknowledgement, behind the same nginx, under the same load, for the rows 1 to 5.
- A row holds where: lost 0; no 504 (a listener that closes and gives nginx no connection is told apart); every request
  that was sent whole is answered within 5 s (where a process is killed some have no answer); ≥ 99.9 % 200s in the
  outages (1, 2, 3, 5, 9, 11); ≥ 90 % of capacity in the overloads; no unmarked duplicate, no denied ghost; memory below
  what it held before the load and all configured bounds; nothing is left in the spool; every ledger's difference is 0;
  p99 of answers to what is sent from 2 s into an outage ≤ 250 ms (1, 2, 3).

The command ends with 1 where a row of the collector does not hold.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import trio

from collector.devtools.children import ChildFailed, bare_error
from collector.devtools.kafka_install import KafkaUnavailable
from collector.devtools.nginx import NginxUnavailable
from collector.devtools.raw_http import NoAnswer
from tests.bench.machine import choose_cores
from tests.bench.printed import printed_in, put_into
from tests.faults.rows import ROWS, Row
from tests.faults.running import Bench, Result, run_row
from tests.faults.server import Collector, Peer
from tests.faults.table import Line, as_json, as_markdown
from tests.faults.verdict import broken

PROGRAM = "just faults"


def main() -> None:
    """Parse the command line, play, print."""
    parser = argparse.ArgumentParser(
        prog="just faults", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=_rows, default=ROWS, metavar="1,4a", help="only these rows; 4 is 4a and 4b")
    parser.add_argument("--quick", action="store_true", help="shorter faults: for development, not for the table")
    parser.add_argument("--no-baseline", action="store_true", help="only the collector")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there")
    parser.add_argument(
        "--markdown", type=Path, metavar="FILE", help="write the table there; between its markers where it has them"
    )
    parser.add_argument("--update", action="store_true", help="rows that are not played now stay there as printed")
    parser.add_argument("--keep", type=Path, metavar="DIRECTORY", help="leave every row's logs and data there")
    arguments = parser.parse_args()
    if arguments.update and arguments.markdown is None:
        parser.error("--update needs --markdown")
    bench = Bench(load_core=choose_cores().rest, quick=arguments.quick, say=_say, keep=arguments.keep)
    started = time.monotonic()
    try:
        lines = trio.run(play, bench, arguments.rows, not arguments.no_baseline)
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    played = _played(bench, time.monotonic() - started)
    before = printed_in(arguments.markdown, PROGRAM) if arguments.update else ""
    text = as_markdown(played, lines, before)
    print(text)
    if arguments.markdown is not None:
        put_into(arguments.markdown, PROGRAM, text)
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(as_json(played, lines), indent=1) + "\n")
    raise SystemExit(1 if any(line.broken for line in lines if line.server == Collector.name) else 0)


async def play(bench: Bench, rows: Sequence[Row], baseline: bool) -> list[Line]:
    """Play the rows in turn. On cancellation: every process is ended."""
    lines: list[Line] = []
    await trio.lowlevel.checkpoint()
    for row in rows:
        for peer in (False, True) if row.baseline and baseline else (False,):
            lines.append(await _play_one(bench, row, peer))
            _say(as_markdown("", lines[-1:]))
    return lines


async def _play_one(bench: Bench, row: Row, peer: bool) -> Line:
    """One row on one server; one that cannot be played does not hold, and keeps no other from its turn."""
    server = Peer.name if peer else Collector.name
    result: Result | None = None
    try:
        with bare_error():
            result = await run_row(bench, row, baseline=peer)
            found: Sequence[str] = broken(row, result)
    except (ChildFailed, KafkaUnavailable, NginxUnavailable, NoAnswer, OSError) as error:
        found = [f"not played: {error}".replace("|", "/").replace("\n", " ")]
        await trio.lowlevel.checkpoint()
    return Line(row=row.name, title=row.title, server=server, result=result, broken=found)


def _played(bench: Bench, seconds: float) -> str:
    names = ("trio", "hypercorn", "aiokafka", "fastapi", "uvicorn", "uvloop")
    parts = (
        f"`{' '.join(['just faults', *map(_word, sys.argv[1:])])}`",
        f"commit {_commit()}",
        f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
        f"load pinned to core {bench.load_core}",
        ", ".join(f"{name} {version(name)}" for name in names),
        f"{seconds / 60:.0f} minutes" + (", with shortened faults" if bench.quick else ""),
    )
    return "; ".join(parts)


def _word(argument: str) -> str:
    """Where a file lies on this machine is nobody's business."""
    return Path(argument).name if "/" in argument else argument


def _commit() -> str:
    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], capture_output=True, text=True, check=True).stdout.strip()

    try:
        changed = git("status", "--porcelain", "--", "collector", "kafka_client", "tests/faults")
        return git("rev-parse", "--short", "HEAD") + (" and changes that are not committed" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _rows(text: str) -> Sequence[Row]:
    wanted: list[Row] = []
    for word in filter(None, (part.strip() for part in text.split(","))):
        found = [row for row in ROWS if word in (row.name, row.name.rstrip("ab"))]
        if not found:
            names = ", ".join(row.name for row in ROWS)
            raise argparse.ArgumentTypeError(f"{word!r} is not one of {names}")
        wanted += found
    return wanted


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
