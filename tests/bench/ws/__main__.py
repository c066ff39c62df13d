"""The collector's websocket against other servers that put events into Kafka: one command, in one run.

How the figures are made:

- Row W1: 64 sockets; a message is one event of 250 bytes in a frame of the subprotocol collector.v1; a socket sends its
  next message when the last one is acknowledged, and that is after Kafka's acknowledgement (acks=all). After each run
  the log is counted, and has to hold what was acknowledged.
- The servers run on the last core. A real Apache Kafka, one node, a topic with 6 partitions, runs on the first one,
  with the load: one process, one thread, frames made beforehand, an edge-triggered epoll.
- Ours is `collector serve` as a user runs it. The peers are the fair, fast version of themselves: uvloop, msgspec, no
  access log, the client's bytes as the record, no key and no envelope, messages of a socket one after the other.
- Runs are interleaved, A B C A B C A B C: 3 rounds of 8 s each, after warming. A ratio is formed within a round; shown
  are the median over the rounds and, in brackets, the lowest and the highest.
- CPU-µs an event is user plus system time of the server's process over the events it acknowledged. A rate is the rate
  of the side that was saturated, so that is said for each.
- "must" and "stretch" are what this project holds itself to. A missed one is marked; it does not fail the command. A
  server that does not start, refuses an event, or loses a connection does.
"""

import argparse
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec
import trio

from collector.devtools.children import open_child
from tests.bench import serving
from tests.bench.broker import open_broker
from tests.bench.figures import at_least
from tests.bench.machine import choose_cores, pinned
from tests.bench.peers.spec import PeerSpec, SendingSpec
from tests.bench.report import Check, Column, Report, Row
from tests.bench.running import Rounds, RunFailed, about_machine, command_line, finish, say
from tests.bench.scores import Scores, failed_note
from tests.bench.servers import Opener, Running, Stage, ours, peer
from tests.bench.serving import Bench, Window, counted
from tests.bench.wrk import single_bodies
from tests.bench.ws.load import Spec, Told

__all__ = ["CONTENDERS", "ROWS", "main"]

ROWS = ("W1",)
SOCKETS = 64
_SPARE_S = 60.0
#: More than one message in so many that was not taken: the run measured something else.
_FAILED_IN = 100
_PACKAGES = ("hypercorn", "trio", "wsproto", "uvicorn", "uvloop", "websockets", "starlette", "aiokafka")


@dataclass(frozen=True, slots=True, kw_only=True)
class Contender:
    """See `serving.Served`."""

    name: str
    server: str
    open: Opener
    settings: str


def _ours(name: str, server: str) -> Contender:
    return Contender(
        name=name,
        server=f"ours-{server}",
        open=ours({"http": {"server": server}}),
        settings=f'`collector serve`, `[http] server = "{server}"`, otherwise its defaults, any key open',
    )


def _peer(name: str, spec: PeerSpec, said: str) -> Contender:
    return Contender(
        name=name,
        server=f"{spec.framework}-{spec.websockets}",
        open=peer(spec),
        settings=f"uvicorn with uvloop, `ws={spec.websockets}`, no access log; {said}",
    )


OURS, STOCK = "ours", "ours on stock Hypercorn"
STARLETTE, SANSIO = "Starlette, `websockets`, aiokafka", "bare ASGI, `websockets-sansio`, librdkafka"
CONTENDERS = (
    _ours(OURS, "lane"),
    _ours(STOCK, "stock"),
    _peer(
        STARLETTE,
        PeerSpec(port=0, framework="starlette", sending=SendingSpec(client="aiokafka"), websockets="websockets"),
        "aiokafka acks=all, idempotent, linger_ms=0",
    ),
    _peer(
        SANSIO,
        PeerSpec(
            port=0,
            framework="bare",
            sending=SendingSpec(client="librdkafka", linger_ms=1),
            websockets="websockets-sansio",
        ),
        "confluent-kafka acks=all, enable.idempotence, linger.ms=1, delivery callbacks into futures of the loop",
    ),
)

_COLUMNS = (
    Column(key="rate", title="events/s", digits=0),
    Column(key="cpu_us", title="CPU-µs/event", digits=2),
    Column(key="p50_ms", title="p50 ms", digits=2),
    Column(key="p99_ms", title="p99 ms", digits=2),
    Column(key="rss_bytes", title="RSS MB", scale=1e-6, digits=0),
)


def main() -> None:
    """Parse the command line, measure, print."""
    parser = command_line("ws", __doc__, ROWS)
    parser.add_argument("--only", metavar="WORDS", help="only contenders whose names contain this")
    parser.add_argument("--seconds", type=float, metavar="S", help="a run's length, in place of 8 (quick: 2)")
    parser.add_argument("--rounds", type=int, metavar="N", help="how many, in place of 3 (quick: 1)")
    parser.add_argument("--window", type=int, default=1, metavar="N", help="messages open on a socket, in place of 1")
    parser.add_argument("--mock", action="store_true", help="a trial of the program on a mock broker, no measurement")
    finish(parser.parse_args(), run)


async def run(arguments: argparse.Namespace) -> Report:
    """Measure what the arguments say. On cancellation: every process is ended."""
    cores = choose_cores()
    quick = arguments.quick
    with tempfile.TemporaryDirectory(prefix="bench-ws-") as name:
        directory = Path(name)
        bodies = single_bodies(directory)
        async with open_broker(directory, cores, mock=arguments.mock) as broker:
            bench = Bench(
                stage=Stage(directory=directory, cores=cores, broker=broker),
                rounds=Rounds(arguments.rounds or (1 if quick else 3), say),
                measure_s=arguments.seconds or (2.0 if quick else 8.0),
                warmup_s=0.5 if quick else 1.0,
            )
            told = Spec(
                port=0,
                sockets=SOCKETS,
                bodies=bodies.file,
                warmup_s=bench.warmup_s,
                measure_s=bench.measure_s,
                window=arguments.window,
            )
            row = await _measure(bench, told, arguments.only)
    await trio.lowlevel.checkpoint()
    return Report(
        title="Websocket",
        about=about_machine(cores, "servers", "broker and load", _PACKAGES)
        | {
            "broker": "librdkafka's mock: no measurement"
            if arguments.mock
            else "Apache Kafka 4.1, one node, 6 partitions, acks=all",
            "runs": f"{bench.rounds.count} of {bench.measure_s:g} s each, after {bench.warmup_s:g} s of warming, "
            "interleaved",
        },
        rows=[row],
        failures=bench.rounds.failures,
    )


async def _measure(bench: Bench, spec: Spec, only: str | None) -> Row:
    contenders = [each for each in CONTENDERS if only is None or only in each.name]

    async def warm(each: Contender, server: Running) -> None:
        await _load(bench, msgspec.structs.replace(spec, measure_s=bench.warmup_s), server)

    async def measure(each: Contender, server: Running) -> Mapping[str, float]:
        async with counted(bench.stage, server) as account:
            told, window = await _load(bench, spec, server)
            shares = window.shares(told.cpu_s)
            account.acknowledged = told.messages
            if told.failed * _FAILED_IN > told.messages:
                raise RunFailed(f"{told.failed} messages were not taken, {told.messages} were")
        figures = shares.figures(events=told.messages, wall_s=told.duration_s)
        return figures | {
            "p50_ms": told.p50_ms,
            "p99_ms": told.p99_ms,
            "worst_ms": told.worst_ms,
            "failed": told.failed,
            "rss_bytes": window.resident_bytes(),
            "load_share": told.cpu_s / told.duration_s,
        }

    measured = await serving.interleave(bench, "W1", contenders, warm, measure, _describe)
    scores = Scores(list(measured.values()))
    return Row(
        name="W1",
        title=f"one event a message, {SOCKETS} sockets, each with {spec.window} open at a time",
        columns=_COLUMNS,
        measured=list(measured.values()),
        checks=[each for each in _checks(scores) if each.figure is not None or only is None],
        notes=list(filter(None, (failed_note(list(measured.values())), scores.unsaturated()))),
        sides=("server", "load and broker"),
    )


def _checks(scores: Scores) -> list[Check]:
    return [
        scores.ratio(f"rate : {STARLETTE}", OURS, STARLETTE, must=at_least(1.7)),
        scores.ratio(f"rate : {SANSIO}", OURS, SANSIO, must=at_least(1.2), stretch=at_least(1.5)),
        scores.ratio(f"rate : {STOCK}", OURS, STOCK, must=at_least(4)),
    ]


async def _load(bench: Bench, spec: Spec, server: Running) -> tuple[Told, Window]:
    """Run the load to its end; the window began when it had warmed up.

    Raises:
        RunFailed: it has nothing to say.

    On cancellation: it is ended.
    """
    spec = msgspec.structs.replace(spec, port=int(server.http.rpartition(":")[2]))
    windows: list[Window] = []

    def on_line(line: str) -> None:
        if line == "begin":
            windows.append(Window(bench.stage, server))

    argv = [sys.executable, "-m", "tests.bench.ws.load", msgspec.json.encode(spec).decode()]
    async with open_child(pinned(bench.stage.cores.rest, argv), name="load", on_line=on_line) as child:
        with trio.move_on_after(spec.warmup_s + spec.measure_s + _SPARE_S):
            await child.wait_ended()
            await trio.sleep(0.05)  # its last line is still in the pipe
        said = [line for line in child.tail if line.startswith('{"messages"')]
        if not said or not windows:
            raise RunFailed("the load: " + " | ".join(list(child.tail)[-3:] or ["nothing"]))
    return msgspec.json.decode(said[-1], type=Told), windows[0]


def _describe(figures: Mapping[str, float]) -> str:
    return (
        f"{figures['rate']:,.0f}/s, {figures['cpu_us']:.2f} CPU-µs, p50 {figures['p50_ms']:.2f} ms, p99 "
        f"{figures['p99_ms']:.2f} ms, server {figures['cpu_share']:.0%}, load {figures['load_share']:.0%}, load and "
        f"broker {figures['rest_share']:.0%}"
    )


if __name__ == "__main__":
    main()
