"""Rows K4, K5, K7 and K8: what is not a rate at a broker.

Owns: who takes part and what the figures are held against. Refuses to know: how a run is made.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from tests.bench.figures import Bound, at_least, at_most, below, ratios, spread_of
from tests.bench.kafka.running import Bench, Contender, interleave
from tests.bench.report import Check, Column, Measured, Row
from tests.bench.scores import Scores

__all__ = ["LAG", "measure_cancelling", "measure_encoding", "measure_lag", "measure_memory"]

SIZES = (10_000, 50_000, 100_000, 200_000)
TASK_SIZES = (10_000, 100_000, 200_000)
PEER_SIZES = (5_000, 10_000, 20_000)
QUEUED = 100_000
#: What still counts as linear: the cost of one at 200 k over that at 10 k. A quadratic one would give 20.
LINEAR = 2.0

#: Who takes part in K8.
LAG = Contender(name="ours", client="ours", workload="refresh_lag", options={"topics": 1000, "topic_partitions": 24})

_NOTHING_LEFT = Bound(relation="<=", value=0, unit="")


def _cancelling(client: str, workload: str, count: int, what: str) -> Contender:
    return Contender(
        name=f"{'ours' if client == 'ours' else client}, {count // 1000} k {what}",
        client=client,
        workload=workload,
        options={"count": count},
    )


async def measure_cancelling(bench: Bench, only: Sequence[str]) -> list[Row]:
    """K4. On cancellation: the running process is ended, the broker goes on."""
    contenders = [
        *(_cancelling("ours", "cancel_handles", size, "handles") for size in SIZES),
        *(_cancelling("ours", "cancel_tasks", size, "parked tasks") for size in TASK_SIZES),
        *(_cancelling("aiokafka", "cancel_tasks", size, "parked tasks") for size in PEER_SIZES),
    ]
    alone = Contender(
        name="Trio alone, 100 k parked tasks", client="ours", workload="cancel_nothing", options={"count": 100_000}
    )
    contenders = [each for each in (*contenders, alone) if not only or each.client in only]
    measured = await interleave(bench, "K4", contenders, lambda run: f"{run['cancel_s']:.3f} s")
    scores = Scores(list(measured.values()))
    checks = []
    for what in ("handles", "parked tasks"):
        name = f"ours, 100 k {what}"
        checks += [
            scores.figure(f"100 k {what} cancelled", name, "cancel_s", "s", at_most(2, "s"), at_most(0.5, "s")),
            scores.ratio(
                f"one of 200 k {what} : one of 10 k",
                f"ours, 200 k {what}",
                f"ours, 10 k {what}",
                "cancel_us",
                must=at_most(LINEAR),
            ),
            scores.figure(f"left of 200 k {what}", f"ours, 200 k {what}", "left", "", _NOTHING_LEFT),
        ]
    checks.append(
        scores.ratio("100 k parked tasks : Trio alone", "ours, 100 k parked tasks", alone.name, "cancel_cpu_s")
    )
    checks.append(
        scores.ratio(
            "10 k parked tasks : aiokafka", "ours, 10 k parked tasks", "aiokafka, 10 k parked tasks", "cancel_s"
        )
    )
    columns = (
        Column(key="queueing_s", title="queueing s", digits=2),
        Column(key="cancel_s", title="cancelling s", digits=3),
        Column(key="cancel_cpu_s", title="its CPU s", digits=3),
        Column(key="cancel_us", title="CPU-µs each", digits=2),
        Column(key="left", title="left", digits=0),
    )
    return [
        Row(
            name="K4",
            title="records queued at a stopped broker, all cancelled",
            columns=columns,
            measured=list(measured.values()),
            checks=checks,
            notes=(
                "Left: records, bytes, waiters and deliveries at once after the cancellation, plus what is in flight "
                "once the broker goes on. aiokafka is not run beyond 20 k: its time grows with the square.",
            ),
        )
    ]


async def measure_memory(bench: Bench, only: Sequence[str]) -> list[Row]:
    """K5. On cancellation: as `measure_cancelling`."""
    plan = (
        ("ours, one delivery a record", "ours", "memory_single"),
        ("ours, 500 records a delivery", "ours", "memory_bulk"),
        ("aiokafka, futures", "aiokafka", "memory_single"),
        ("confluent-kafka, delivery callbacks", "confluent", "memory_single"),
    )
    contenders = [
        Contender(name=name, client=client, workload=workload, options={"count": QUEUED})
        for name, client, workload in plan
        if not only or client in only
    ]
    measured = await interleave(bench, "K5", contenders, lambda run: f"{run['beyond_bytes']:.0f} B beyond the payload")
    scores = Scores(list(measured.values()))
    single = "ours, one delivery a record"
    checks = [
        scores.figure("one delivery a record", single, "beyond_bytes", "B", at_most(600, "B"), at_most(300, "B")),
        scores.figure("500 records a delivery", plan[1][0], "beyond_bytes", "B", at_most(600, "B"), at_most(300, "B")),
        scores.ratio("one delivery a record : aiokafka", single, plan[2][0], "beyond_bytes"),
        scores.ratio("one delivery a record : confluent-kafka", single, plan[3][0], "beyond_bytes"),
    ]
    columns = (
        Column(key="bytes_each", title="RSS a record, B", digits=0),
        Column(key="beyond_bytes", title="beyond its 300 B, B", digits=0),
        Column(key="queued", title="still queued", digits=0),
    )
    return [
        Row(
            name="K5",
            title=f"resident memory of a queued record, {QUEUED // 1000} k at a stopped broker",
            columns=columns,
            measured=list(measured.values()),
            checks=checks,
            notes=("What each client's caller has to keep is in it: our deliveries, aiokafka's futures.",),
        )
    ]


#: Contender: builder in `encoding`, without and with key and header.
_BUILDERS = {"ours": "ours", "aiokafka (Cython)": "aiokafka", "kafka-python": "kafka_python"}


async def measure_encoding(bench: Bench, rows: Sequence[str], found: Sequence[Row]) -> list[Row]:
    """K7, and the part of K6 that a process without a broker can tell: ``found`` with these added.

    On cancellation: the process is ended.
    """
    contender = Contender(name="builders", client="builders", workload="encoding", options={})
    runs = (await interleave(bench, "K7", [contender], _describe_encoding))["builders"].runs
    extended = [_with_idempotence(row, runs) if row.name == "K6" else row for row in found]
    return [*extended, _encoding_row(runs)] if "K7" in rows else extended


def _describe_encoding(run: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {rate / 1e6:.2f} M/s" for name, rate in run.items())


def _encoding_row(runs: Sequence[Mapping[str, float]]) -> Row:
    measured = [
        Measured(name=name, runs=[{"plain": run[f"{key}_plain"], "full": run[f"{key}_full"]} for run in runs])
        for name, key in _BUILDERS.items()
    ]
    measured.append(Measured(name="ours, sealing only", runs=[{"plain": run["ours_seal"]} for run in runs]))
    scores = Scores(measured)
    million = Column(key="plain", title="M records/s", scale=1e-6, digits=2)
    return Row(
        name="K7",
        title="encoding batches of 1000 records of 300 bytes",
        columns=(million, Column(key="full", title="with key and header, M records/s", scale=1e-6, digits=2)),
        measured=measured,
        checks=[
            _millions("records without key and header", runs, "ours_plain", at_least(2, "M/s")),
            _millions("with key and header", runs, "ours_full", at_least(1, "M/s")),
            scores.ratio("without : aiokafka (Cython)", "ours", "aiokafka (Cython)", "plain"),
            scores.ratio("with : aiokafka (Cython)", "ours", "aiokafka (Cython)", "full"),
        ],
        notes=(
            "Ours is the whole way from key and value to the batch's bytes, CRC included. Its first half is done when "
            "a record is queued; “sealing only” is the other half.",
        ),
    )


def _millions(what: str, runs: Sequence[Mapping[str, float]], key: str, must: Bound) -> Check:
    return Check(what=what, figure=spread_of([run[key] / 1e6 for run in runs]), must=must, unit="M/s")


def _with_idempotence(row: Row, runs: Sequence[Mapping[str, float]]) -> Row:
    """Add what sealing a record with producer id and sequence costs more, as a share of all CPU time a record."""
    whole = next((each.values("cpu_us") for each in row.measured if each.name == "ours, uncompressed"), [])
    more = [1e6 / run["ours_seal"] - 1e6 / run["ours_seal_without_ids"] for run in runs]
    shares = [100 * ratio for ratio in ratios(more, whole)]
    check = Check(what="idempotence", figure=spread_of(shares) if shares else None, must=below(5), unit="%", digits=1)
    note = (
        "Idempotence cannot be switched off here, so there is no run without it. A record carries nothing for it: 14 "
        "bytes of a batch's header hold producer id, epoch and first sequence, and would hold -1. Its figure is what "
        "sealing a batch of 1000 records with them takes longer than with -1, as a share of the CPU time a record of "
        "K1; a partition's window, five requests in flight and in order, is needed for order alone."
    )
    return replace(row, checks=[*row.checks, check], notes=[*row.notes, note])


async def measure_lag(bench: Bench) -> list[Row]:
    """K8. On cancellation: the running process is ended."""
    measured = await interleave(
        bench, "K8", [LAG], lambda run: f"{run['lag_ms']:.1f} ms, worst {run['worst_ms']:.1f} ms"
    )
    scores = Scores(list(measured.values()))
    columns = (
        Column(key="refreshes", title="refreshes", digits=0),
        Column(key="lag_ms", title="lag at a refresh, median ms", digits=1),
        Column(key="worst_ms", title="worst ms", digits=1),
        Column(key="elsewhere_p99_ms", title="between refreshes, p99 ms", digits=1),
        Column(key="elsewhere_worst_ms", title="worst ms", digits=1),
    )
    return [
        Row(
            name="K8",
            title="the producer's loop while metadata of 1000 topics × 24 partitions is refreshed",
            columns=columns,
            measured=list(measured.values()),
            checks=[
                scores.figure("lag at a refresh", "ours", "lag_ms", "ms", below(20, "ms")),
                scores.figure("the worst of them", "ours", "worst_ms", "ms", below(20, "ms")),
            ],
            notes=("A task in the producer's loop sleeps 1 ms at a time; what it oversleeps is the lag.",),
        )
    ]
