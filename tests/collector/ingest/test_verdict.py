"""From outcomes to verdicts: which mixture is told what."""

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from collector.config import DeadlinesConfig
from collector.dialects.base import Event, Parsed, Rejection
from collector.ingest.bad_limit import BadLimit
from collector.ingest.enqueue import Patience
from collector.ingest.ledger import Counts
from collector.ingest.verdict import Kind, Status, Verdict, all_delivered, judge, ranges, status_of
from kafka_client.outcome import Delivered, NotSent, Outcome, TopicPartition, Unknown

GOOD = Delivered(TopicPartition("events", 0), 1, 0, 1)


def event(position: int) -> Event:
    return Event(position=position, type="track", id=None, identity=None, timestamp=None, body=b"{}")


def parsed(good: int, bad: int = 0, **members: object) -> Parsed:
    rejections = [Rejection(position=good + n, code="bad", message="no", original=b"{}") for n in range(bad)]
    return Parsed(api="heap", app="a", events=[event(n) for n in range(good)], rejections=rejections, **members)


CASES: list[tuple[list[Outcome | None], int, Kind, Status]] = [
    ([], 0, Kind.ACCEPTED, Status.DELIVERED),
    ([GOOD, GOOD], 0, Kind.ACCEPTED, Status.DELIVERED),
    ([GOOD], 3, Kind.ACCEPTED, Status.REJECTED),
    ([], 2, Kind.REFUSED, Status.REJECTED),
    ([NotSent("too_large: 9")], 0, Kind.REFUSED, Status.REJECTED),
    ([NotSent("MESSAGE_TOO_LARGE"), GOOD], 0, Kind.ACCEPTED, Status.REJECTED),
    ([NotSent("withdrawn")], 0, Kind.UNAVAILABLE, Status.NOT_SENT),
    ([NotSent("TOPIC_AUTHORIZATION_FAILED: grant it")], 0, Kind.UNAVAILABLE, Status.NOT_SENT),
    ([GOOD, NotSent("closed")], 5, Kind.UNAVAILABLE, Status.NOT_SENT),
    ([GOOD, Unknown("withdrawn"), NotSent("closed")], 0, Kind.UNAVAILABLE, Status.UNKNOWN),
    ([None], 0, Kind.UNAVAILABLE, Status.UNKNOWN),
]


@pytest.mark.parametrize(("outcomes", "bad", "kind", "worst"), CASES)
def test_mixture_is_told(outcomes, bad, kind, worst) -> None:
    verdict = judge(parsed(len(outcomes), bad), outcomes)
    assert (verdict.kind, verdict.worst) == (kind, worst)
    assert verdict.counts.total == len(outcomes) + bad


def test_all_delivered_is_what_would_be_judged() -> None:
    for events in (1, 7):
        assert all_delivered(events) == judge(parsed(events), [GOOD] * events)


def test_verdict_names_positions_reason_and_fault() -> None:
    events = [event(position) for position in (0, 2, 3, 7)]
    request = Parsed(
        api="segment",
        app="a",
        events=events,
        rejections=[Rejection(position=1, code="missing_field", message="event 1: no userId", original=b"")],
    )
    verdict = judge(request, [GOOD, Unknown("timeout: x"), Unknown("withdrawn"), NotSent("closed")])
    assert verdict.unknown_positions == (2, 3)
    assert verdict.unknown_line() == "2-3"
    assert verdict.outcome_line() == "delivered=1, spooled=0, rejected=1, not_sent=1, unknown=2"
    assert verdict.reason == "timeout: x"
    assert verdict.fault is not None
    assert verdict.fault.code == "missing_field"


def test_fault_of_a_record_that_kafka_refused_has_its_name() -> None:
    verdict = judge(parsed(1), [NotSent("MESSAGE_TOO_LARGE: of 2 MB")])
    assert verdict.fault is not None
    assert verdict.fault.code == "message_too_large"


def test_accepted_only_is_dropped_by_rule() -> None:
    verdict = judge(parsed(2, 1, accept_only=True), [None, None])
    assert (verdict.kind, verdict.counts) == (Kind.ACCEPTED, Counts(dropped=3))


def test_spooled_is_accepted() -> None:
    verdict = Verdict(counts=Counts(delivered=1, spooled=1))
    assert (verdict.kind, verdict.worst, Status.SPOOLED.word) == (Kind.ACCEPTED, Status.SPOOLED, "spooled")
    assert status_of(GOOD) is Status.DELIVERED


@given(st.sets(st.integers(0, 3000)))
def test_ranges_name_every_position(positions: set[int]) -> None:
    text = ranges(sorted(positions), 10**9)
    named: set[int] = set()
    for part in text.split(",") if text else []:
        start, _, end = part.partition("-")
        named.update(range(int(start), int(end or start) + 1))
    assert named == positions


def test_ranges_are_cut_at_a_comma() -> None:
    text = ranges(range(0, 5000, 2), 1024)
    assert text.endswith(",…")
    assert len(text.removesuffix(",…")) <= 1024
    assert text.startswith("0,2,4,")
    assert ranges([], 10) == ""
    assert ranges([3, 17, 18, 19, 20], 1024) == "3,17-20"


def test_patience_shrinks_in_proportion() -> None:
    deadlines = DeadlinesConfig(kafka_s=3.0, spool_s=0.8, answer_s=0.2)
    assert Patience.of(deadlines) == Patience(3.0, 0.8, 0.2)
    assert Patience.of(deadlines, 10.0) == Patience(3.0, 0.8, 0.2)
    short = Patience.of(deadlines, 0.4)
    assert (short.kafka_s, short.spool_s, short.answer_s) == pytest.approx((0.3, 0.08, 0.02))
    until = short.until(0.9)
    assert (until.kafka_at, until.work_at) == pytest.approx((1.2, 1.28))


async def test_bad_limit_is_a_bucket_a_key(autojump_clock) -> None:
    limit = BadLimit(2.0)
    assert limit.take("a", 100) == 20
    assert limit.take("a", 1) == 0
    assert limit.take("b", 5) == 5
    await trio.sleep(3)
    assert limit.take("a", 100) == 6
    await trio.sleep(1000)
    assert limit.take("a", 100) == 20
    assert BadLimit(0.0).take("a", 5) == 0


async def test_bad_limit_forgets_the_longest_unused_key(autojump_clock) -> None:
    await trio.sleep(1)
    limit = BadLimit(1.0)
    for number in range(10_001):
        limit.take(str(number), 10)
    assert repr(limit) == "<BadLimit 1/s, 10000 keys>"
