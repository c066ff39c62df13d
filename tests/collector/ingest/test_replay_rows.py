"""What the replay tells the spool of each row, whatever Kafka says of it and whenever."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest
import trio

from collector.ingest.replay_pace import Backoff, Drain, Pace, Place
from collector.ingest.replay_rows import RowsInWork, record_of
from collector.spool.base import StoredRow
from kafka_client.outcome import Delivered, NotSent, Outcome, Record, TopicPartition, Unknown

DELIVERED = Delivered(TopicPartition("events", 0), 0, 0, 1)


class Told:
    """A spool that writes down what it is told."""

    def __init__(self) -> None:
        self.words: list[tuple[Any, ...]] = []

    async def mark_attempted(self, ids: Sequence[int]) -> None:
        await trio.lowlevel.checkpoint()
        self.words.append(("marked", *ids))

    async def gone(self, ids: Sequence[int], why: str) -> None:
        await trio.lowlevel.checkpoint()
        self.words.append((why, *ids))

    async def dead(self, reasons: Mapping[int, str]) -> None:
        await trio.lowlevel.checkpoint()
        self.words.append(("dead", *reasons.items()))

    async def back(self, ids: Sequence[int], *, attempted: bool) -> None:
        await trio.lowlevel.checkpoint()
        self.words.append(("attempted" if attempted else "ready", *ids))


class ToldOutcomes:
    """A producer, and its one delivery, whose outcomes a test decides."""

    def __init__(self, *outcomes: Outcome) -> None:
        self.outcomes: list[Outcome | None] = list(outcomes)
        self.records: list[Record] = []
        self.resolve: Callable[[int, Outcome], object] = lambda index, outcome: pytest.fail("nothing was registered")

    def delivery(self, records: Sequence[Record]) -> "ToldOutcomes":
        self.records += records
        return self

    def __enter__(self) -> object:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    async def wait(self) -> None:
        await trio.lowlevel.checkpoint()

    def withdraw(self) -> None:
        pass

    def on_resolved(self, fn: Callable[[int, Outcome], object]) -> None:
        self.resolve = fn


def row(number: int, *, attempted: bool = False) -> StoredRow:
    record = Record("events", b"%d" % number, None, (("message-id", b"m"),), 1)
    return StoredRow(id=number, record=record, app="a", key_hash=None, stored_at_ms=0, attempted=attempted)


async def sent(producer: ToldOutcomes, *rows: StoredRow) -> tuple[RowsInWork, Told]:
    spool = Told()
    work = RowsInWork(spool, producer, wake=lambda: None, stalled=lambda: None)  # type: ignore[arg-type]  # the rest is not used
    work.took(rows)
    await work.send(rows, None, 1.0)
    await settled(work)
    return work, spool


async def settled(work: RowsInWork) -> None:
    async with trio.open_nursery() as nursery:
        work.settle(nursery)
    assert work.being_told == 0


async def test_each_outcome_has_its_word() -> None:
    producer = ToldOutcomes(
        DELIVERED, NotSent("withdrawn"), NotSent("MESSAGE_TOO_LARGE: really"), Unknown("withdrawn"), NotSent("timeout")
    )
    work, spool = await sent(producer, row(1), row(2), row(3), row(4), row(5, attempted=True))
    assert spool.words[0] == ("marked", 1, 2, 3, 4)
    assert sorted(spool.words[1:]) == [
        ("attempted", 5),  # this try is not in the log; the one before may be
        ("dead", (3, "MESSAGE_TOO_LARGE: really")),
        ("ready", 2),
        ("replayed", 1),
    ]
    assert (len(work), work.unresolved) == (1, 1)


@pytest.mark.parametrize(
    ("outcome", "word"),
    [
        (DELIVERED, ("replayed", 1)),
        (NotSent("timeout"), ("ready", 1)),
        (NotSent("INVALID_RECORD"), ("dead", (1, "INVALID_RECORD"))),
        (Unknown("abandoned"), ("attempted", 1)),
    ],
)
async def test_unknown_row_waits_for_the_end_of_its_batch(outcome: Outcome, word: tuple[Any, ...]) -> None:
    producer = ToldOutcomes(Unknown("withdrawn"))
    work, spool = await sent(producer, row(1))
    assert spool.words == [("marked", 1)]
    assert work.bytes > 0
    producer.resolve(0, outcome)
    await settled(work)
    assert spool.words[1:] == [word]
    assert (work.bytes, len(work), work.unresolved) == (0, 0, 0)


async def test_resolution_after_giving_up_is_told_to_nobody() -> None:
    producer = ToldOutcomes(Unknown("withdrawn"))
    work, spool = await sent(producer, row(1))
    work.give_up()
    producer.resolve(0, DELIVERED)
    await settled(work)
    assert spool.words[1:] == [("attempted", 1)]


async def test_rows_whose_mark_was_cancelled_were_not_tried() -> None:
    class Stuck(Told):
        async def mark_attempted(self, ids: Sequence[int]) -> None:
            await trio.sleep_forever()

    spool, producer = Stuck(), ToldOutcomes()
    work = RowsInWork(spool, producer, wake=lambda: None, stalled=lambda: None)  # type: ignore[arg-type]
    rows = (row(1), row(2, attempted=True))
    work.took(rows)
    with trio.CancelScope() as scope:
        scope.cancel(reason="a stop")
        await work.send(rows, None, 1.0)
    await settled(work)
    assert producer.records == []
    assert sorted(spool.words) == [("attempted", 2), ("ready", 1)]


def test_mark_stands_once_and_a_partition_is_for_rows_without_a_key() -> None:
    marked = ("maybe-duplicate", b"1")
    assert record_of(row(1), TopicPartition("events", 7)).partition == 7
    assert record_of(row(1), TopicPartition("renamed", 7)).partition is None
    assert marked not in record_of(row(1)).headers
    again = row(1, attempted=True)
    assert record_of(again).headers == (("message-id", b"m"), marked)
    twice = StoredRow(id=1, record=record_of(again), app="a", key_hash=None, stored_at_ms=0, attempted=True)
    assert record_of(twice).headers.count(marked) == 1
    keyed = StoredRow(id=1, record=Record("events", b"v", b"k"), app="a", key_hash=1, stored_at_ms=0, attempted=False)
    assert record_of(keyed, TopicPartition("events", 7)).partition is None


def test_pace_makes_good_a_late_wake_up_and_saves_up_no_more() -> None:
    pace = Pace(100.0, slack_s=0.1)
    pace.took(10, 50.0)
    assert pace.next_at == pytest.approx(50.0)
    pace.took(10, 50.05)
    assert pace.next_at == pytest.approx(50.1)
    pace.took(10, 99.0, share=0.5)
    assert pace.next_at == pytest.approx(98.9 + 0.2)


def test_pauses_grow_and_are_over_with_the_first_success() -> None:
    class Most:
        def uniform(self, least: float, most: float) -> float:
            return most

    backoff = Backoff(0.1, 1.0, Most())  # type: ignore[arg-type]
    pauses = []
    for _ in range(6):
        backoff.failed(10.0)
        pauses.append(round(backoff.next_at - 10.0, 3))
    assert pauses == [0.1, 0.2, 0.4, 0.8, 1.0, 1.0]
    backoff.worked()
    assert backoff.next_at == 0.0
    backoff.failed(10.0)
    assert backoff.next_at == pytest.approx(10.1)


def test_rows_that_came_back_get_a_fifth_of_the_time_at_most() -> None:
    place = Place(0.5, 300.0)
    place.tried(10, 1.0, 100.0, left=0, of=10)
    place.tried(20, 1.0, 101.0, left=0, of=10)
    assert place.look(1000.0) == 20  # as long as nothing goes, it goes on
    place.tried(30, 1.0, 1001.0, left=10, of=10)
    assert place.look(1008.9) == 20
    assert place.look(1009.0) == 0
    place.tried(5, 0.1, 1010.0, left=9, of=10)
    assert place.look(1010.4) == 5
    assert place.look(1010.5) == 0
    assert place.found_nothing(1011.0) == math.inf  # nothing was passed over
    place.tried(40, 1000.0, 2000.0, left=0, of=10)
    assert place.found_nothing(2000.0) == 2300.0
    place.return_to_oldest()
    assert place.look(2000.0) == 0


def test_time_to_empty_is_known_while_the_spool_shrinks() -> None:
    drain = Drain(10.0)
    assert drain.time_to_empty_s(0.0, 500) is None
    for second in range(30):
        # 100 go and 40 come each second.
        drain.note(float(second), 10_000 - 60 * second, 100 * second)
    assert drain.events_per_s(29.0) == pytest.approx(100)
    assert drain.time_to_empty_s(29.0, 600) == pytest.approx(10.0)
    assert drain.time_to_empty_s(29.0, 0) == 0.0
    for second in range(30, 60):
        drain.note(float(second), 8000 + second, 2900)
    assert drain.time_to_empty_s(59.0, 8059) is None
    assert drain.events_per_s(59.0) == 0.0
