"""Rows K1, K2, K3 and half of K6: what a second of one core carries.

Owns: who takes part, with which settings, and what the ratios are held against. Refuses to know: how a run is made.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import trio

from kafka_client import ProducerConfig
from tests.bench.figures import at_least, at_most, below
from tests.bench.kafka.running import Bench, Contender, interleave
from tests.bench.report import Check, Column, Measured, Row
from tests.bench.scores import Scores

__all__ = ["K1", "SAMPLED", "contenders_of", "measure"]

#: Records open at once in the pipelined rows.
WINDOW = 10_000
#: So many are queued before the event loop gets its turn. A loop that never gets it can neither write nor read: filling
#: the whole window at one go costs the same CPU time and triples the latency, here and with aiokafka.
BETWEEN = 250
BATCH = 500
TASKS = 64

_COLUMNS = (
    Column(key="rate", title="records/s", digits=0),
    Column(key="cpu_us", title="CPU-µs/record", digits=2),
    Column(key="p50_ms", title="p50 ms", digits=2),
    Column(key="p99_ms", title="p99 ms", digits=2),
    Column(key="rss_bytes", title="RSS MB", scale=1e-6, digits=0),
    Column(key="broker_cpu_us", title="broker's CPU-µs/record", digits=2),
)

_DEFAULT = ProducerConfig(bootstrap_servers="localhost:9092")
_OURS = (
    f"acks=all, idempotent, {_DEFAULT.max_in_flight_per_partition} in flight, linger adaptive up to "
    f"{_DEFAULT.linger_s * 1000:g} ms, batches up to {_DEFAULT.batch_max_bytes // 1024} KiB, "
)
_AIOKAFKA = "acks=all, idempotent, uvloop, linger_ms={linger}, max_batch_size={batch}, no compression"
_CONFLUENT = (
    "acks=all, enable.idempotence, 5 in flight, linger.ms=2, batch.size=1000000, batch.num.messages=10000, "
    "queue.buffering.max.messages=1000000, no compression, a delivery callback a message, poll in the same thread"
)
_KAFKA_PYTHON = "acks=all, idempotent, linger_ms=2, batch_size=131072, no compression"


def _ours(name: str, workload: str, codec: str | None = "none", tls: bool = False, **options: str | int) -> Contender:
    said = f"compression {codec}" if codec is not None else f"compression {_DEFAULT.compression} (the default)"
    if codec is not None:
        options["codec"] = codec
    return Contender(name=name, client="ours", workload=workload, options=options, settings=_OURS + said, tls=tls)


def _aiokafka(name: str, workload: str, linger_ms: int, batch_bytes: int, **options: str | int) -> Contender:
    return Contender(
        name=name,
        client="aiokafka",
        workload=workload,
        options=options | {"linger_ms": linger_ms, "batch_bytes": batch_bytes},
        settings=_AIOKAFKA.format(linger=linger_ms, batch=batch_bytes),
    )


def _confluent(name: str, workload: str, **options: str | int | bool) -> Contender:
    return Contender(name=name, client="confluent", workload=workload, options=options, settings=_CONFLUENT)


K1 = (
    _ours("ours, default (zstd)", "pipelined", None, window=WINDOW, between=BETWEEN),
    _ours("ours, uncompressed", "pipelined", window=WINDOW, between=BETWEEN),
    _ours("ours, uncompressed, partition given", "pipelined", window=WINDOW, between=BETWEEN, partition="given"),
    _ours("ours, default (zstd), `send_many(500)`", "batches", None, window=WINDOW, batch=BATCH),
    _ours("ours, uncompressed, `send_many(500)`", "batches", window=WINDOW, batch=BATCH),
    _aiokafka("aiokafka, partition given", "pipelined", 0, 131_072, window=WINDOW, between=BETWEEN, partition="given"),
    _aiokafka("aiokafka, picking", "pipelined", 0, 131_072, window=WINDOW, between=BETWEEN),
    _confluent("confluent-kafka", "pipelined", window=WINDOW),
    _confluent("confluent-kafka, `produce_batch(500)`", "batches", window=WINDOW, batch=BATCH),
    Contender(
        name="kafka-python",
        client="kafka-python",
        workload="pipelined",
        options={"window": WINDOW},
        settings=_KAFKA_PYTHON,
    ),
)
K2 = (
    _ours("ours", "in_turn", None, tasks=TASKS),
    _aiokafka("aiokafka, partition given", "in_turn", 0, 65_536, tasks=TASKS, partition="given"),
    _aiokafka("aiokafka, picking", "in_turn", 0, 65_536, tasks=TASKS),
)
K3 = (
    _ours("ours, `move_on_after`", "in_turn_move_on", None, tasks=TASKS),
    _ours("ours, fresh nursery", "in_turn_fresh", None, tasks=TASKS),
    _ours("ours, re-armed nursery", "in_turn_rearmed", None, tasks=TASKS),
    _ours("ours, lazily armed nursery", "in_turn_lazy", None, tasks=TASKS),
)
#: Whose time is told by stages.
SAMPLED = {
    "K1, uncompressed": K1[1],
    "K1, zstd": K1[0],
    "K1, `send_many(500)`, zstd": K1[3],
    "K2": K2[0],
}
K6 = (_ours("ours, uncompressed, TLS", "pipelined", tls=True, window=WINDOW, between=BETWEEN),)


def _checks_k1(scores: Scores) -> list[Check]:
    checks = []
    for kind in ("default (zstd)", "uncompressed"):
        ours, many = f"ours, {kind}", f"ours, {kind}, `send_many(500)`"
        checks += [
            scores.ratio(f"{kind} : aiokafka, partition given", ours, "aiokafka, partition given", must=at_least(3.5)),
            scores.ratio(f"{kind} : aiokafka, picking", ours, "aiokafka, picking"),
            scores.ratio(
                f"{kind} : confluent-kafka", ours, "confluent-kafka", must=at_least(0.9), stretch=at_least(1.1)
            ),
            scores.ratio(
                f"{kind}, `send_many` : confluent-kafka", many, "confluent-kafka", must=at_least(2), stretch=at_least(3)
            ),
            scores.ratio(f"{kind}, `send_many` : `produce_batch`", many, "confluent-kafka, `produce_batch(500)`"),
            scores.ratio(f"{kind} : kafka-python", ours, "kafka-python"),
        ]
    given = "ours, uncompressed, partition given"
    checks.append(
        scores.ratio(
            "uncompressed, partition given : aiokafka, partition given",
            given,
            "aiokafka, partition given",
            must=at_least(3.5),
        )
    )
    return checks


def _checks_k2(scores: Scores) -> list[Check]:
    checks = []
    for peer in ("aiokafka, partition given", "aiokafka, picking"):
        checks += [
            scores.ratio(f"rate : {peer}", "ours", peer, must=at_least(1.2), stretch=at_least(1.4)),
            scores.ratio(f"p50 : {peer}", "ours", peer, "p50_ms", must=at_most(0.85)),
            scores.ratio(f"CPU a record : {peer}", "ours", peer, "cpu_us", stretch=at_most(0.7)),
        ]
    checks.append(scores.figure("p99", "ours", "p99_ms", "ms", at_most(3, "ms")))
    return checks


def _checks_k3(scores: Scores) -> list[Check]:
    peer = "aiokafka, partition given"
    return [
        scores.ratio(
            "`move_on_after` : aiokafka without a deadline", "ours, `move_on_after`", peer, must=at_least(0.7)
        ),
        scores.ratio(
            "re-armed nursery : aiokafka without a deadline", "ours, re-armed nursery", peer, must=at_least(0.9)
        ),
        scores.ratio(
            "lazily armed : aiokafka without a deadline", "ours, lazily armed nursery", peer, stretch=at_least(1.2)
        ),
        scores.ratio("fresh nursery : aiokafka without a deadline", "ours, fresh nursery", peer),
    ]


def _checks_k6(scores: Scores) -> list[Check]:
    plain = "ours, uncompressed"
    return [
        scores.cost("zstd-1", "ours, default (zstd)", plain, below(15)),
        scores.cost("TLS", "ours, uncompressed, TLS", plain, below(25)),
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One row within a group: it shares runs with the group's other rows."""

    row: str
    title: str
    contenders: Sequence[Contender]
    needs: Sequence[Contender]
    checks: Callable[[Scores], list[Check]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Rows that are compared with each other, hence interleaved."""

    parts: Sequence[Part]


GROUPS = (
    Group(
        parts=(
            Part(
                row="K1",
                title=f"producer alone, 300-byte records, {WINDOW} open at once, the loop's turn after every {BETWEEN}",
                contenders=K1,
                needs=(),
                checks=_checks_k1,
            ),
            Part(
                row="K6",
                title="cost of compression and TLS in K1, as CPU time a record",
                contenders=K6,
                needs=K1[:2],
                checks=_checks_k6,
            ),
        )
    ),
    Group(
        parts=(
            Part(
                row="K2",
                title=f"{TASKS} tasks, each `await send()` in turn",
                contenders=K2,
                needs=(),
                checks=_checks_k2,
            ),
            Part(
                row="K3",
                title=f"each of the {TASKS} tasks with a deadline for each record",
                contenders=K3,
                needs=K2[1:2],
                checks=_checks_k3,
            ),
        )
    ),
)


def contenders_of(row: str) -> Sequence[Contender]:
    """Who takes part in a row; nobody in one that is not here."""
    return [each for group in GROUPS for part in group.parts if part.row == row for each in part.contenders]


async def measure(bench: Bench, rows: Sequence[str], only: Sequence[str]) -> list[Row]:
    """Run what the wanted rows need, group by group. On cancellation: the running process is ended."""
    found: list[Row] = []
    for group in GROUPS:
        found += await _measure(bench, group, rows, only)
    await trio.lowlevel.checkpoint()
    return found


async def _measure(bench: Bench, group: Group, rows: Sequence[str], only: Sequence[str]) -> list[Row]:
    parts = [part for part in group.parts if part.row in rows]
    wanted = {
        each.name: each for part in parts for each in (*part.contenders, *part.needs) if not only or each.client in only
    }
    names = "+".join(part.row for part in parts)
    measured = await interleave(bench, names, list(wanted.values()), _describe)
    return [
        _row(
            part, [measured[each.name] for each in (*part.contenders, *part.needs) if each.name in measured], bool(only)
        )
        for part in parts
    ]


def _row(part: Part, measured: Sequence[Measured], partial: bool) -> Row:
    scores = Scores(measured)
    note = scores.unsaturated()
    return Row(
        name=part.row,
        title=part.title,
        columns=_COLUMNS,
        measured=measured,
        checks=[check for check in part.checks(scores) if check.figure is not None or not partial],
        notes=() if note is None else (note,),
    )


def _describe(figures: Mapping[str, float]) -> str:
    return (
        f"{figures['rate']:,.0f}/s, {figures['cpu_us']:.2f} CPU-µs, "
        f"p50 {figures['p50_ms']:.2f} ms, p99 {figures['p99_ms']:.2f} ms"
    )
