"""`/metrics`: the monitor's numbers in Prometheus' words.

Owns: names, help texts, the derived metrics (ledger A's events by outcome and its difference). Refuses to know: HTTP.

Names follow vector's grammar, ``<namespace>_<name>_<unit>_total``: ``collector_`` first, base units (seconds, bytes,
ratios), counters end in ``_total``, gauges in their unit. A statistics field keeps its name; ``_s`` and ``_ms`` become
``_seconds``. Source: vector docs/specs/instrumentation.md; https://prometheus.io/docs/practices/naming/
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence

from prometheus_client import CollectorRegistry, PlatformCollector, ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from collector.log import dropped_lines_total, get_logger

from .instruments import Histogram
from .ledger_view import LedgerView
from .monitor import Monitor
from .statistics import Number, numbers_of

__all__ = ["make_exposition"]

log = get_logger("monitor.metrics")

_HELP = {
    "collector_connections_open": "Connections from clients.",
    "collector_connections_bound": "limits.connections: beyond it a connection is turned away.",
    "collector_producer_queue_bytes": "Records admitted and not sealed; withdraw() gives it back at once.",
    "collector_producer_waiting_bytes": "Deliveries that wait in the FIFO for queue budget.",
    "collector_producer_in_flight_bytes": "Sealed and unresolved batches, those nobody waits for any more included.",
    "collector_producer_detached_batches": "Sealed batches that nobody waits for any more, not resolved yet.",
    "collector_producer_detached_bytes": "Of in_flight_bytes, what nobody waits for any more.",
    "collector_spool_rows": "Events in the spool that wait for Kafka; held and attempted ones among them.",
    "collector_spool_held_rows": "Of them, those that a sealed batch may carry: they wait for its end.",
    "collector_spool_attempted_rows": "Of them, those that may be in the log: their replay says maybe-duplicate.",
    "collector_spool_bytes": "What counts against spool.max_bytes; dead rows too.",
    "collector_spool_max_bytes": "spool.max_bytes: beyond it events are refused (503).",
    "collector_spool_pending_rows": "Handed to the writer and not committed.",
    "collector_spool_oldest_age_seconds": "Of the oldest event in the spool; above spool.age_alarm_s it is an alarm.",
    "collector_spool_rows_in_total": "Events that were ever stored (ledger B).",
    "collector_spool_replayed_total": "Of them, delivered by the replay (ledger B).",
    "collector_spool_resolved_total": "Of them, held ones whose batch turned out to be delivered (ledger B).",
    "collector_spool_dead_total": "Of them, refused by Kafka for good: an operator decides (ledger B).",
    "collector_spool_dropped_total": "Of them, dropped by an operator (ledger B).",
    "collector_spool_lost_total": "Of them, unreadable in a damaged file (ledger B).",
    "collector_spool_refused_total": "Events that were not stored: the spool was full, or had failed.",
    "collector_spool_commit_p99_seconds": "Of the last thousand commits: from taking rows to the disk's word.",
    "collector_replay_in_work_rows": "Taken from the spool and not settled.",
    "collector_replay_in_work_bytes": "The same in bytes; spool.replay_bytes is the bound.",
    "collector_replay_share_bytes": "spool.replay_bytes.",
    "collector_replay_unresolved_rows": "In work, outcome unknown: their batches have not ended.",
    "collector_replay_probing": "Diverted partitions with a probe under way.",
    "collector_replay_delivered_total": "Rows that Kafka acknowledged.",
    "collector_replay_returned_total": "Tries after which a row went back to the spool.",
    "collector_replay_unknown_total": "Tries whose outcome was unknown at first.",
    "collector_replay_dead_total": "Rows that Kafka refused for good.",
    "collector_replay_marked_total": "Tries with the header maybe-duplicate.",
    "collector_replay_events_per_second": "Rows delivered a second, over the last ten seconds.",
    "collector_replay_time_to_empty_seconds": "Until the spool is empty at this rate; absent while it does not shrink.",
    "collector_replay_age_alarm": "1 while the oldest event in the spool is older than spool.age_alarm_s.",
    "collector_producer_operator_errors": "Errors of the topic or the producer that only an operator can mend.",
}


# Fields that are shown under another name.
_APART = {"spool": frozenset({"difference"})}


def make_exposition(monitor: Monitor) -> Callable[[str], tuple[bytes, str]]:
    """A function from an Accept header to (body, content type), over a registry of its own.

    The text form or OpenMetrics, as the scraper asks.
    """
    registry = CollectorRegistry(auto_describe=False)
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    registry.register(_MonitorCollector(monitor))

    def expose(accept: str) -> tuple[bytes, str]:
        encode, content_type = choose_encoder(accept)
        return encode(registry), content_type

    return expose


class _MonitorCollector(Collector):
    """Builds every family anew at each scrape; nothing is kept between two."""

    def __init__(self, monitor: Monitor) -> None:
        self._monitor = monitor
        self._complained: set[str] = set()

    def describe(self) -> Iterable[Metric]:
        return ()

    def collect(self) -> Iterator[Metric]:
        yield from self._hot_path()
        yield from self._process()
        for name, read in list(self._monitor.sources.items()):
            yield from self._source(name, read)
        yield _counter(
            "collector_monitor_errors",
            "Failures of the monitor itself, and bugs caught at a rim; each is in the log with its traceback.",
            ("where",),
            [((where,), number) for where, number in self._monitor.errors.counts.items()],
        )

    def _hot_path(self) -> Iterator[Metric]:
        monitor = self._monitor
        stages = HistogramMetricFamily(
            "collector_stage_seconds", "Time that requests and websocket messages spent, by stage.", labels=["stage"]
        )
        for stage, histogram in monitor.stages.items():
            stages.add_metric([stage], _buckets(histogram), histogram.sum)
        yield stages
        yield _counter(
            "collector_http_answers",
            "HTTP answers by dialect and status.",
            ("api", "status"),
            [((api, str(status)), number) for (api, status), number in monitor.answers.counts.items()],
        )
        yield _counter(
            "collector_shed",
            "Requests and messages refused before their work began (503), by reason.",
            ("reason",),
            [((reason,), number) for reason, number in monitor.sheds.counts.items()],
        )
        yield _counter(
            "collector_websocket_acks",
            "Websocket messages answered, by status.",
            ("status",),
            [((status,), number) for status, number in monitor.websocket_acks.counts.items()],
        )
        yield _counter(
            "collector_late_resolutions",
            "Events answered as unknown whose batch was resolved afterwards, by what it came to.",
            ("outcome",),
            [((outcome,), number) for outcome, number in monitor.late_resolutions.counts.items()],
        )

    def _process(self) -> Iterator[Metric]:
        monitor = self._monitor
        lag = HistogramMetricFamily(
            "collector_loop_lag_seconds", "How late the loop woke the lag probe (20 times a second)."
        )
        lag.add_metric([], _buckets(monitor.lag.histogram), monitor.lag.histogram.sum)
        yield lag
        yield _gauge("collector_loop_lag_current_seconds", "Loop lag as admission reads it now.", monitor.lag_s)
        yield _gauge("collector_loop_lag_recent_highest_seconds", "Of the last minute.", monitor.lag.recent_highest_s)
        yield _gauge("collector_loop_lag_highest_seconds", "Since the start.", monitor.highest_lag_s)
        yield _gauge(
            "collector_gc_share_ratio", "Share of CPU that garbage collection took, last second.", monitor.gc_share
        )
        yield _gauge("collector_gc_longest_pause_seconds", "Longest collection since the start.", monitor.gc.longest_s)
        generations = [str(number) for number in range(3)]
        yield _counter(
            "collector_gc_seconds",
            "Seconds spent in garbage collection, by generation.",
            ("generation",),
            [((name,), value) for name, value in zip(generations, monitor.gc.seconds_total, strict=True)],
        )
        yield _counter(
            "collector_gc_collections",
            "Garbage collections, by generation.",
            ("generation",),
            [((name,), value) for name, value in zip(generations, monitor.gc.collections_total, strict=True)],
        )
        readiness = monitor.readiness
        ready = GaugeMetricFamily("collector_ready", "1 while /readyz says yes; the word is a label.", labels=["word"])
        ready.add_metric([readiness.word], float(readiness.ready))
        yield ready
        yield _gauge("collector_start_time_seconds", "When the process started, since 1970.", monitor.started_at)
        yield _gauge(
            "collector_tasks",
            "Trio tasks alive at the last sample.",
            float(monitor.samples[-1].tasks) if monitor.samples else 0.0,
        )
        yield _counter(
            "collector_log_lines_dropped",
            "Log lines that could not be written.",
            (),
            [((), float(dropped_lines_total()))],
        )

    def _source(self, name: str, read: Callable[[], object]) -> Iterator[Metric]:
        try:
            statistics = read()
            ledger = LedgerView.of(statistics) if name == "ledger" else None
            apart = _APART.get(name, frozenset()) if ledger is None else ledger.fields
            numbers = (number for number in numbers_of(statistics) if number.name not in apart)
            families = [*_families(f"collector_{name}", numbers), *_states(name, statistics)]
        except Exception:  # the monitor's rim: one room's failing statistics() costs its own metrics only
            self._monitor.error(f"statistics of {name}")
            if name not in self._complained:
                self._complained.add(name)
                log.exception("statistics() failed; its metrics are missing", source=name)
            return
        yield from families
        if ledger is not None:
            yield from _ledger(ledger)


def _ledger(ledger: LedgerView) -> Iterator[Metric]:
    yield _counter(
        "collector_events_received", "Events parsed out of requests (ledger A).", (), [((), ledger.received)]
    )
    yield _counter(
        "collector_events",
        "Events by what the client was told (ledger A).",
        ("outcome",),
        [((outcome,), number) for outcome, number in ledger.outcomes.items()],
    )
    yield _gauge("collector_events_in_work", "Events received and not answered yet.", ledger.in_work)
    yield _gauge(
        "collector_ledger_difference_events",
        "Received less all outcomes less what is in work: 0, or an event was lost from the books.",
        ledger.difference,
    )


def _states(name: str, statistics: object) -> Iterator[Metric]:
    """The word that says how a room does, as a label; and ledger B's difference."""
    state: object = getattr(statistics, "state", None)
    if isinstance(state, str):
        family = GaugeMetricFamily(f"collector_{name}_state", f"1 for the state of the {name}.", labels=["state"])
        family.add_metric([state], 1.0)
        yield family
    difference: object = getattr(statistics, "difference", None)
    if name == "spool" and isinstance(difference, int):
        yield _gauge(
            "collector_spool_ledger_difference_events",
            "Rows in less all that left less the rows now (ledger B): 0, or an event was lost from the books.",
            float(difference),
        )


def _families(prefix: str, numbers: Iterable[Number]) -> Iterator[Metric]:
    grouped: defaultdict[tuple[str, tuple[str, ...]], list[tuple[tuple[str, ...], float]]] = defaultdict(list)
    for number in numbers:
        name, factor = _in_base_units(number.name)
        key = (f"{prefix}_{name}", tuple(label for label, _ in number.labels))
        grouped[key].append((tuple(value for _, value in number.labels), number.value * factor))
    for (name, labels), samples in grouped.items():
        document = _HELP.get(name, f"{name.removeprefix('collector_')}, as its statistics() say.")
        if name.endswith("_total"):
            yield _counter(name.removesuffix("_total"), document, labels, samples)
        else:
            gauge = GaugeMetricFamily(name, document, labels=labels)
            for values, value in samples:
                gauge.add_metric(values, value)
            yield gauge


def _in_base_units(name: str) -> tuple[str, float]:
    counter = name.endswith("_total")
    stem = name.removesuffix("_total")
    factor = 1.0
    if stem.endswith("_ms"):
        stem, factor = stem.removesuffix("_ms") + "_seconds", 0.001
    elif stem.endswith("_s"):
        stem = stem.removesuffix("_s") + "_seconds"
    return (f"{stem}_total" if counter else stem), factor


def _buckets(histogram: Histogram) -> list[tuple[str, float]]:
    buckets, below = [], 0
    for bound, count in zip(histogram.bounds, histogram.counts, strict=False):
        below += count
        buckets.append((f"{bound:g}", float(below)))
    buckets.append(("+Inf", float(below + histogram.counts[-1])))
    return buckets


def _counter(
    name: str, document: str, labels: Sequence[str], samples: Iterable[tuple[Sequence[str], float]]
) -> CounterMetricFamily:
    family = CounterMetricFamily(name, document, labels=labels)
    for values, value in samples:
        family.add_metric(values, value)
    return family


def _gauge(name: str, document: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, document, value=value)
