"""The metrics of all workers as one page, and the supervisor's own.

Owns: the label ``worker``, how pages are joined, the names of what the supervisor counts. Refuses to know: how a page
is got, and what stands in a worker's.

Every sample of a worker gets the label ``worker`` (its slot); nothing is added up here. So `sum by (outcome)
(rate(collector_events_total[5m]))` is what all of them did, histograms add up as they do over machines, and a worker
that was replaced is a counter's reset, as Prometheus knows it. The supervisor's process has ``worker="supervisor"``.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

from prometheus_client import CollectorRegistry, PlatformCollector, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from collector.workers.statistics import Statistics

__all__ = ["joined", "make_own_pages"]

STATES = ("serving", "starting", "pausing", "stopped")
REASONS = ("killed", "failed", "left", "hung")
RESULTS = ("done", "refused", "failed")

_EOF = "# EOF"


def joined(pages: Iterable[tuple[str | None, str]]) -> str:
    """Pages of the same form (text or OpenMetrics) as one: each family once, with the samples of all.

    Args:
        pages: (value of the label ``worker``, page); None: without the label.
    """
    families: dict[str, tuple[dict[str, str], list[str]]] = {}
    open_metrics = False
    for label, page in pages:
        samples: list[str] = []
        for line in page.splitlines():
            if line.startswith("# ") and line != _EOF:
                _, kind, name, *_ = line.split(" ", 3)
                words, samples = families.setdefault(name, ({}, []))
                words.setdefault(kind, line)
            elif line == _EOF:
                open_metrics = True
            elif line:
                samples.append(line if label is None else _labelled(line, label))
    lines: list[str] = []
    for words, samples in families.values():
        lines += [*words.values(), *samples]
    if open_metrics:
        lines.append(_EOF)
    return "\n".join(lines) + "\n"


def _labelled(sample: str, label: str) -> str:
    """One line with the label: ``name{a="b"} 1`` or ``name 1``. A name has neither brace nor blank."""
    name, brace, rest = sample.partition("{")
    if brace and " " not in name:
        return f'{name}{{worker="{label}",{rest}' if rest[:1] != "}" else f'{name}{{worker="{label}"{rest}'
    name, _, rest = sample.partition(" ")
    return f'{name}{{worker="{label}"}} {rest}'


def make_own_pages(
    statistics: Callable[[], Statistics],
) -> Callable[[str, Collection[int]], tuple[Sequence[tuple[str | None, str]], str]]:
    """A function from an Accept header, and the numbers of the workers that were read, to (own pages, content type)."""
    process = CollectorRegistry(auto_describe=False)
    ProcessCollector(registry=process)
    PlatformCollector(registry=process)

    def pages(accept: str, read: Collection[int]) -> tuple[Sequence[tuple[str | None, str]], str]:
        own = CollectorRegistry(auto_describe=False)
        own.register(_Own(statistics(), read))
        encode, content_type = choose_encoder(accept)
        return [(None, encode(own).decode()), ("supervisor", encode(process).decode())], content_type

    return pages


class _Own(Collector):
    """What the supervisor counts."""

    def __init__(self, statistics: Statistics, read: Collection[int]) -> None:
        self._statistics = statistics
        self._read = read

    def describe(self) -> Iterable[Metric]:
        return ()

    def collect(self) -> Iterator[Metric]:
        statistics = self._statistics
        states = GaugeMetricFamily("collector_workers", "Slots for workers, by state.", labels=["state"])
        for state in STATES:
            states.add_metric([state], float(sum(worker.state == state for worker in statistics.workers)))
        yield states
        ready = GaugeMetricFamily(
            "collector_worker_ready", "1 while the worker is ready; the word is a label.", labels=["worker", "word"]
        )
        served = GaugeMetricFamily(
            "collector_worker_served_seconds", "Since the worker of this slot is ready.", labels=["worker"]
        )
        read = GaugeMetricFamily(
            "collector_worker_read", "1 where this page has the worker's own metrics.", labels=["worker"]
        )
        for worker in statistics.workers:
            number = str(worker.number)
            ready.add_metric([number, worker.word], float(worker.ready))
            served.add_metric([number], worker.served_s)
            read.add_metric([number], float(worker.number in self._read))
        yield from (ready, served, read)
        restarts, reloads, errors = statistics.restarts, statistics.reloads, statistics.errors
        document = "Workers that went without being asked."
        yield _counter("collector_workers_restarts", document, "reason", REASONS, restarts)
        hung = CounterMetricFamily("collector_workers_hung", "Of them, those whose loop said nothing for too long.")
        hung.add_metric([], float(restarts.get("hung", 0)))
        yield hung
        yield _counter("collector_workers_reloads", "Reloads, by how they ended.", "result", RESULTS, reloads)
        document = "Failures of the supervisor's admin listeners."
        yield _counter("collector_workers_monitor_errors", document, "where", (), errors)


def _counter(name: str, document: str, label: str, known: Sequence[str], counts: Mapping[str, int]) -> Metric:
    family = CounterMetricFamily(name, document, labels=[label])
    for value in dict.fromkeys((*known, *counts)):
        family.add_metric([value], float(counts.get(value, 0)))
    return family
