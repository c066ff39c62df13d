"""The pages of several workers as one."""

from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_open_metrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from collector.config import Config
from collector.ingest.ledger import Counts, Ledger
from collector.monitor import Monitor
from collector.monitor.exposition import make_exposition
from collector.workers.metrics import joined, make_own_pages
from collector.workers.statistics import Statistics, WorkerStatistics

OPEN_METRICS = "application/openmetrics-text; version=1.0.0"


def page_of(events: int, accept: str = "") -> str:
    monitor, ledger = Monitor(Config()), Ledger()
    with ledger.open(events) as entry:
        entry.close(Counts(delivered=events))
    monitor.watch("ledger", ledger.statistics)
    monitor.stage("answer", 0.01 * events)
    return make_exposition(monitor)(accept)[0].decode()


def statistics_of(**changes: object) -> Statistics:
    first = WorkerStatistics(
        number=0, state="serving", ready=True, word="ready", pid=5, served_s=12.0, admin="http://x"
    )
    second = WorkerStatistics(number=1, state="pausing", ready=False, word="pausing")
    settings: dict[str, object] = {
        "workers": (first, second),
        "leaving": False,
        "reloading": False,
        "restarts": {"killed": 2, "hung": 1},
        "reloads": {"done": 1},
        "errors": {},
    }
    return Statistics(**{**settings, **changes})  # type: ignore[arg-type]


def test_every_sample_has_the_label_of_its_worker_and_each_family_stands_once() -> None:
    page = joined([("0", page_of(3)), ("1", page_of(4))])
    names = [line.split(" ")[2] for line in page.splitlines() if line.startswith("# TYPE ")]
    assert len(names) == len(set(names))
    samples = [sample for family in parse_text(page) for sample in family.samples]
    assert {sample.labels["worker"] for sample in samples} == {"0", "1"}
    delivered = {
        sample.labels["worker"]: sample.value
        for sample in samples
        if sample.name == "collector_events_total" and sample.labels["outcome"] == "delivered"
    }
    assert delivered == {"0": 3.0, "1": 4.0}
    alone = [sample for family in parse_text(page_of(3)) for sample in family.samples]
    assert len(samples) == 2 * len(alone)


def test_histograms_of_workers_can_be_added_up() -> None:
    page = joined([("0", page_of(1)), ("1", page_of(2))])
    (stages,) = (family for family in parse_text(page) if family.name == "collector_stage_seconds")
    assert stages.type == "histogram"
    ends = [s for s in stages.samples if s.labels.get("le") == "+Inf" and s.labels["stage"] == "answer"]
    assert sum(sample.value for sample in ends) == 2.0
    sums = [s for s in stages.samples if s.name.endswith("_sum") and s.labels["stage"] == "answer"]
    assert sum(sample.value for sample in sums) == 0.03


def test_openmetrics_stays_openmetrics() -> None:
    own, content_type = make_own_pages(statistics_of)(OPEN_METRICS, [0])
    page = joined([*own, ("0", page_of(3, OPEN_METRICS)), ("1", page_of(4, OPEN_METRICS))])
    assert content_type.startswith("application/openmetrics-text")
    assert page.endswith("\n# EOF\n")
    assert page.count("# EOF") == 1
    families = {family.name: family for family in parse_open_metrics(page)}
    assert {sample.labels["worker"] for sample in families["collector_events"].samples} == {"0", "1"}


def test_supervisor_shows_what_it_counts() -> None:
    own, content_type = make_own_pages(statistics_of)("", [0])
    assert content_type.startswith("text/plain")
    samples = {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in parse_text(joined(own))
        for sample in family.samples
    }
    assert samples["collector_workers", ("state", "serving")] == 1.0
    assert samples["collector_workers", ("state", "pausing")] == 1.0
    assert samples["collector_worker_ready", ("word", "ready"), ("worker", "0")] == 1.0
    assert samples["collector_worker_ready", ("word", "pausing"), ("worker", "1")] == 0.0
    assert samples["collector_worker_served_seconds", ("worker", "0")] == 12.0
    assert samples["collector_worker_read", ("worker", "0")] == 1.0
    assert samples["collector_worker_read", ("worker", "1")] == 0.0
    assert samples["collector_workers_restarts_total", ("reason", "killed")] == 2.0
    assert samples["collector_workers_restarts_total", ("reason", "failed")] == 0.0
    assert samples[("collector_workers_hung_total",)] == 1.0
    assert samples["collector_workers_reloads_total", ("result", "done")] == 1.0
    assert ("process_cpu_seconds_total", ("worker", "supervisor")) in samples


def test_ready_is_who_has_one_that_is_ready() -> None:
    assert (statistics_of().ready, statistics_of().word) == (True, "ready")
    leaving = statistics_of(leaving=True)
    assert (leaving.ready, leaving.word) == (False, "draining")
    lagging = WorkerStatistics(number=0, state="serving", ready=False, word="lagging")
    assert (statistics_of(workers=(lagging,)).ready, statistics_of(workers=(lagging,)).word) == (False, "lagging")
    assert statistics_of(workers=()).word == "starting"
