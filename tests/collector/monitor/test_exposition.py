"""`/metrics`, read back by the parser that scrapers use."""

from dataclasses import dataclass, replace

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families

from collector.ingest.ledger import Counts, Ledger
from collector.ingest.replay_statistics import ReplayStatistics
from collector.monitor import Monitor
from collector.monitor.exposition import make_exposition
from collector.spool.base import SpoolStatistics


@dataclass(frozen=True)
class Error:
    code: int
    name: str
    advice: str
    since_s: float


@dataclass(frozen=True)
class ProducerView:
    queue_bytes: int = 10
    in_flight_bytes: int = 20
    detached_batches: int = 2
    attempts_total: int = 7
    longest_wait_ms: float = 1500.0
    operator_errors: tuple[Error, ...] = (Error(29, "TOPIC_AUTHORIZATION_FAILED", "grant it", 3.0),)


def _samples(monitor: Monitor) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    body, _ = make_exposition(monitor)("text/plain")
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(body.decode())
        for sample in family.samples
    }


def test_ledger_is_exposed_as_events_by_outcome_and_a_difference_of_zero() -> None:
    monitor, ledger = Monitor(), Ledger()
    ledger.open(3)
    with ledger.open(6) as entry:
        entry.close(Counts(delivered=1, rejected=2, not_sent=2, unknown=1))
    monitor.watch("ledger", ledger.statistics)
    samples = _samples(monitor)
    assert samples["collector_events_received_total", ()] == 9
    assert samples["collector_events_total", (("outcome", "delivered"),)] == 1
    assert samples["collector_events_total", (("outcome", "rejected"),)] == 2
    assert samples["collector_events_total", (("outcome", "not_sent"),)] == 2
    assert samples["collector_events_total", (("outcome", "unknown"),)] == 1
    assert samples["collector_events_in_work", ()] == 3
    assert samples["collector_ledger_difference_events", ()] == 0
    assert ("collector_ledger_received_total", ()) not in samples


def test_spool_and_replay_are_exposed_in_base_units_with_their_states_and_ledger_b() -> None:
    monitor = Monitor()
    spool = SpoolStatistics(
        state="full",
        problem="it is full",
        path="/spool",
        rows=7,
        held_rows=2,
        attempted_rows=1,
        bytes=700,
        max_bytes=800,
        pending_rows=0,
        pending_bytes=0,
        oldest_age_s=12.5,
        rows_in_total=20,
        replayed_total=10,
        resolved_total=2,
        dead_total=1,
        dropped_total=0,
        difference=0,
        refused_total=3,
        lost_total=0,
        commits_total=9,
        commit_p99_s=0.004,
    )
    replay = ReplayStatistics(
        state="replaying",
        why="",
        in_work_rows=3,
        in_work_bytes=300,
        share_bytes=4096,
        unresolved_rows=1,
        probing=0,
        delivered_total=10,
        returned_total=4,
        unknown_total=2,
        dead_total=1,
        marked_total=5,
        chunks_total=6,
        probes_total=0,
        events_per_second=123.0,
        time_to_empty_s=0.5,
        age_alarm=True,
    )
    monitor.watch("spool", lambda: spool)
    monitor.watch("replay", lambda: replay)
    samples = _samples(monitor)
    assert samples["collector_spool_rows", ()] == 7
    assert samples["collector_spool_oldest_age_seconds", ()] == 12.5
    assert samples["collector_spool_commit_p99_seconds", ()] == 0.004
    assert samples["collector_spool_replayed_total", ()] == 10
    assert samples["collector_spool_ledger_difference_events", ()] == 0
    assert ("collector_spool_difference", ()) not in samples
    assert samples["collector_spool_state", (("state", "full"),)] == 1
    assert samples["collector_replay_state", (("state", "replaying"),)] == 1
    assert samples["collector_replay_delivered_total", ()] == 10
    assert samples["collector_replay_events_per_second", ()] == 123
    assert samples["collector_replay_time_to_empty_seconds", ()] == 0.5
    assert samples["collector_replay_age_alarm", ()] == 1
    replay = replace(replay, time_to_empty_s=None)
    assert ("collector_replay_time_to_empty_seconds", ()) not in _samples(monitor)


def test_hot_path_counters_and_histograms_are_exposed() -> None:
    monitor = Monitor()
    monitor.stage("enqueue", 0.003)
    monitor.stage("enqueue", 0.3)
    monitor.answered("heap", 200)
    monitor.shed("bytes")
    monitor.websocket_ack("delivered", 5)
    monitor.late_resolution("delivered", 2)
    samples = _samples(monitor)
    assert samples["collector_stage_seconds_bucket", (("le", "0.005"), ("stage", "enqueue"))] == 1
    assert samples["collector_stage_seconds_bucket", (("le", "+Inf"), ("stage", "enqueue"))] == 2
    assert samples["collector_stage_seconds_sum", (("stage", "enqueue"),)] == pytest.approx(0.303)
    assert samples["collector_http_answers_total", (("api", "heap"), ("status", "200"))] == 1
    assert samples["collector_shed_total", (("reason", "bytes"),)] == 1
    assert samples["collector_websocket_acks_total", (("status", "delivered"),)] == 5
    assert samples["collector_late_resolutions_total", (("outcome", "delivered"),)] == 2


def test_a_rooms_statistics_are_exposed_in_base_units() -> None:
    monitor = Monitor()
    monitor.watch("producer", ProducerView)
    samples = _samples(monitor)
    assert samples["collector_producer_queue_bytes", ()] == 10
    assert samples["collector_producer_attempts_total", ()] == 7
    assert samples["collector_producer_longest_wait_seconds", ()] == 1.5
    labels = (("code", "29"), ("name", "TOPIC_AUTHORIZATION_FAILED"))
    assert samples["collector_producer_operator_errors_since_seconds", labels] == 3.0


def test_process_lag_gc_and_readiness_are_exposed() -> None:
    monitor = Monitor()
    monitor.watch_readiness(lambda: (True, "ready"))
    samples = _samples(monitor)
    assert samples["collector_ready", (("word", "ready"),)] == 1
    assert samples["collector_loop_lag_current_seconds", ()] == 0
    assert ("collector_loop_lag_seconds_count", ()) in samples
    assert ("collector_gc_share_ratio", ()) in samples
    assert samples["process_resident_memory_bytes", ()] > 1_000_000


def test_statistics_that_raise_cost_their_own_metrics_only() -> None:
    monitor = Monitor()
    monitor.watch("producer", ProducerView)
    monitor.watch("broken", lambda: 1 / 0)
    samples = _samples(monitor)
    assert samples["collector_producer_queue_bytes", ()] == 10
    assert samples["collector_monitor_errors_total", (("where", "statistics of broken"),)] == 1


def test_every_name_follows_the_grammar() -> None:
    monitor = Monitor()
    monitor.watch("ledger", Ledger().statistics)
    monitor.watch("producer", ProducerView)
    body, content_type = make_exposition(monitor)("text/plain")
    assert content_type.startswith("text/plain")
    families = [family.name for family in text_string_to_metric_families(body.decode())]
    assert len(families) == len(set(families))
    assert all(name.startswith(("collector_", "process_", "python_")) for name in families)


def test_openmetrics_is_given_to_who_asks_for_it() -> None:
    monitor = Monitor()
    monitor.watch("producer", ProducerView)
    body, content_type = make_exposition(monitor)("application/openmetrics-text; version=1.0.0")
    assert content_type.startswith("application/openmetrics-text")
    assert any(family.name == "collector_producer_queue_bytes" for family in parse_openmetrics(body.decode()))
