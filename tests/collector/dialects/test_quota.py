"""Heap's rate limits, on a clock of their own."""

import pytest

from collector.dialects import Event, Parsed
from collector.dialects import quota as quota_module
from collector.dialects.quota import HeapQuota

NOW_MS = 1_800_000_000_000


def call(
    identity: str | None = "alice", *, events: int = 1, single: bool = True, app: str = "shop", **changes: str
) -> Parsed:
    made = [
        Event(
            position=number,
            type=changes.get("type", "track"),
            id=None,
            identity=identity,
            timestamp=None,
            body=b"{}",
        )
        for number in range(events)
    ]
    return Parsed(api=changes.get("api", "heap"), app=app, events=made, single=single)


def test_single_events_30_in_30_seconds_of_one_identity() -> None:
    quota = HeapQuota()
    assert [quota.take(call(), NOW_MS) for _ in range(30)] == [0.0] * 30
    assert quota.take(call(), NOW_MS) == 1.0
    assert quota.take(call(), NOW_MS + 400) == pytest.approx(0.6)
    assert quota.take(call("bob"), NOW_MS) == 0.0
    assert quota.take(call(app="blog"), NOW_MS) == 0.0
    assert quota.take(call(), NOW_MS + 1000) == 0.0
    assert quota.take(call(), NOW_MS + 1000) == 1.0
    assert [quota.take(call(), NOW_MS + 60_000) for _ in range(30)] == [0.0] * 30


def test_bulk_1000_a_minute_of_one_identity_and_15000_of_an_app() -> None:
    quota = HeapQuota()
    assert quota.take(call(events=1000, single=False), NOW_MS) == 0.0
    assert quota.take(call(events=1, single=False), NOW_MS) == pytest.approx(0.06)
    for number in range(14):
        assert quota.take(call(f"user-{number}", events=1000, single=False), NOW_MS) == 0.0
    assert quota.take(call("another", events=1, single=False), NOW_MS) == pytest.approx(0.004)
    assert quota.take(call("another", events=1, single=False, app="blog"), NOW_MS) == 0.0
    assert quota.take(call("alice", events=1000, single=False), NOW_MS + 60_000) == 0.0


def test_refused_request_costs_nothing() -> None:
    quota = HeapQuota()
    assert quota.take(call(events=900, single=False), NOW_MS) == 0.0
    for _ in range(50):
        assert quota.take(call(events=101, single=False), NOW_MS) > 0
    assert quota.take(call(events=100, single=False), NOW_MS) == 0.0


def test_other_calls_and_strangers_pass() -> None:
    quota = HeapQuota()
    for _ in range(50):
        assert quota.take(call(api="segment"), NOW_MS) == 0.0
        assert quota.take(call(type="identify"), NOW_MS) == 0.0
        assert quota.take(call(None), NOW_MS) == 0.0
        assert quota.take(call(events=0), NOW_MS) == 0.0
    assert repr(quota) == "<HeapQuota 0 single, 0 in bulk, 0 apps>"


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quota_module, "KEYS", 10)
    quota = HeapQuota()
    for number in range(100):
        quota.take(call(f"user-{number}"), NOW_MS)
    assert repr(quota) == "<HeapQuota 10 single, 0 in bulk, 0 apps>"
