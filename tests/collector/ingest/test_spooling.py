"""The word on an event that has a row, whichever of Kafka and the disk speaks first; without either of them."""

from collections.abc import Mapping, Sequence

import pytest
import trio

from collector.ingest.spooling import MAYBE_DUPLICATE, NOT_IN_TIME, Rows
from collector.ingest.verdict import Fate
from collector.spool.base import Decided, Refused, RowOutcome, SpoolRow, Stored
from kafka_client.outcome import Delivered, NotSent, Outcome, Record, TopicPartition, Unknown
from kafka_client.wire.murmur2 import key_hash

DELIVERED = Delivered(TopicPartition("events", 0), 5, 0, 1)
WITHDRAWN, FINAL = NotSent("withdrawn"), NotSent("INVALID_RECORD")
UNKNOWN = Unknown("withdrawn")
RECORDS = [Record("events", b"%d" % number, b"k%d" % number, (("seq", b"%d" % number),), 7) for number in range(4)]


class ScriptedReceipt:
    """Its rows are decided by the test."""

    def __init__(self, rows: Sequence[SpoolRow]) -> None:
        self.rows = rows
        self.outcomes: list[RowOutcome | None] = [None] * len(rows)
        self.taken = False
        self.resolved: list[tuple[int, Outcome]] = []
        self.changed = trio.Event()

    def end(self, *outcomes: RowOutcome | None) -> None:
        self.outcomes = list(outcomes)
        self.changed.set()

    async def wait(self) -> None:
        await trio.lowlevel.checkpoint()
        while None in self.outcomes:
            await self.changed.wait()
            self.changed = trio.Event()

    def withdraw(self) -> None:
        if not self.taken:
            self.end(*(outcome or Refused("withdrawn") for outcome in self.outcomes))

    def resolve(self, index: int, outcome: Outcome) -> None:
        self.resolved.append((index, outcome))
        if not self.taken and self.outcomes[index] is None:
            self.end(*(Decided(outcome) if i == index else told for i, told in enumerate(self.outcomes)))


class ScriptedSpool:
    def __init__(self) -> None:
        self.receipts: list[ScriptedReceipt] = []
        self.full = False

    def submit(self, rows: Sequence[SpoolRow]) -> ScriptedReceipt:
        receipt = ScriptedReceipt(rows)
        if self.full:
            receipt.end(*[Refused("spool_full")] * len(rows))
        self.receipts.append(receipt)
        return receipt

    def busy_bucket(self, bucket: int) -> bool:
        return False


@pytest.fixture
def spool() -> ScriptedSpool:
    return ScriptedSpool()


@pytest.fixture
def late() -> list[tuple[int, Fate]]:
    return []


@pytest.fixture
def rows(spool, late) -> Rows:
    return Rows(spool, "shop", lambda event, fate: late.append((event, fate)))


def caught(rows: Rows, outcomes: Mapping[int, Outcome]) -> None:
    """Kafka's share of the time is over."""
    rows.hold(list(outcomes))
    rows.catch(list(outcomes), list(outcomes.values()), RECORDS)


def test_only_what_may_still_be_stored_becomes_a_row(rows, spool) -> None:
    caught(rows, {0: DELIVERED, 1: WITHDRAWN, 2: UNKNOWN, 3: FINAL})
    [receipt] = spool.receipts
    assert [(row.record, row.app, row.key_hash, row.held) for row in receipt.rows] == [
        (RECORDS[1], "shop", key_hash(b"k1"), False),
        (RECORDS[2], "shop", key_hash(b"k2"), True),
    ]
    receipt.end(Stored(), Stored())
    words = [rows.word(event, outcome) for event, outcome in enumerate([DELIVERED, WITHDRAWN, UNKNOWN, FINAL])]
    assert words == [DELIVERED, Stored(), Stored(), FINAL]
    assert repr(rows) == "<Rows of 2 events, 0 told unknown>"


def test_nothing_to_store_is_no_submission(rows, spool) -> None:
    caught(rows, {0: DELIVERED, 1: FINAL})
    assert spool.receipts == []
    assert rows.word(0, DELIVERED) == DELIVERED
    assert rows.word(2, None) == NotSent("withdrawn")


def test_resolution_before_there_is_a_row_decides_whether_there_is_one(rows, spool) -> None:
    """`on_resolved` reports within its call what has ended by then."""
    tell = rows.hold([0, 1, 2])
    tell(0, DELIVERED)
    tell(1, WITHDRAWN)
    tell(2, Unknown("abandoned"))
    rows.catch([0, 1, 2], [UNKNOWN, UNKNOWN, UNKNOWN], RECORDS)
    [receipt] = spool.receipts
    assert [(row.record.value, row.held) for row in receipt.rows] == [(b"1", False), (b"2", False)]
    assert list(receipt.rows[1].record.headers)[-1] == MAYBE_DUPLICATE
    assert rows.word(0, UNKNOWN) == DELIVERED


async def test_row_whose_batch_ended_before_the_writer_took_it_is_kafkas_matter(rows, spool, autojump_clock) -> None:
    caught(rows, dict.fromkeys(range(4), UNKNOWN))
    [first] = spool.receipts
    for event, outcome in enumerate([DELIVERED, NotSent("closed"), Unknown("closed"), FINAL]):
        rows.batch_ended(event, outcome)
    with trio.move_on_after(1):
        await rows.wait(RECORDS)
    _, again = spool.receipts
    assert [(row.record.value, row.held) for row in again.rows] == [(b"1", False), (b"2", False)]
    assert [MAYBE_DUPLICATE in row.record.headers for row in again.rows] == [False, True]
    again.end(Stored(), Stored())
    await rows.wait(RECORDS)
    assert len(spool.receipts) == 2, "once is enough"
    assert [rows.word(event, UNKNOWN) for event in range(4)] == [DELIVERED, Stored(), Stored(), FINAL]
    assert first.resolved[0] == (0, DELIVERED)


def test_refused_row_leaves_kafkas_word(rows, spool) -> None:
    spool.full = True
    caught(rows, {0: WITHDRAWN, 1: UNKNOWN, 2: NotSent("timeout")})
    words = [rows.word(0, WITHDRAWN), rows.word(1, UNKNOWN), rows.word(2, NotSent("timeout"))]
    assert words == [NotSent("spool_full"), UNKNOWN, NotSent("timeout")]
    rows.batch_ended(1, DELIVERED)
    assert rows.word(1, UNKNOWN) == DELIVERED


def test_diverted_rows_that_are_refused_at_once_are_named(rows, spool) -> None:
    assert rows.submit({0: RECORDS[0], 2: RECORDS[2]}) == []
    spool.full = True
    assert rows.submit({1: RECORDS[1]}) == [1]
    assert rows.word(1, None) == NotSent("spool_full")
    rows.forget([1])
    assert rows.word(1, DELIVERED) == DELIVERED


def test_taken_and_not_committed_is_unknown_unless_kafka_has_it(rows, spool) -> None:
    caught(rows, {0: WITHDRAWN, 1: UNKNOWN, 2: UNKNOWN})
    spool.receipts[0].taken = True
    rows.batch_ended(2, DELIVERED)
    rows.withdraw()
    assert [rows.word(0, WITHDRAWN), rows.word(1, UNKNOWN), rows.word(2, UNKNOWN)] == [
        NOT_IN_TIME,
        NOT_IN_TIME,
        DELIVERED,
    ]


@pytest.mark.parametrize(
    ("row", "batch", "told"),
    [
        (Stored(), None, [Stored()]),
        (Stored(), DELIVERED, [Stored()]),
        (Refused("spool_failed"), None, []),
        (Refused("spool_failed"), DELIVERED, [DELIVERED]),
        (Refused("spool_failed"), WITHDRAWN, [WITHDRAWN]),
        (Decided(DELIVERED), None, [DELIVERED]),
        (None, DELIVERED, [DELIVERED]),
        (None, WITHDRAWN, []),  # the row may yet be stored
    ],
)
def test_what_was_told_unknown_is_told_late_once(rows, spool, late, row, batch, told) -> None:
    caught(rows, {0: UNKNOWN})
    [receipt] = spool.receipts
    receipt.taken = True
    assert rows.told([0]) is True, "a commit may still come"
    assert late == []
    receipt.end(row)
    assert rows.look_back() is (row is None)
    if batch is not None:
        rows.batch_ended(0, batch)
    rows.look_back()
    assert [fate for _, fate in late] == told


def test_late_word_of_a_row_that_was_never_held(rows, spool, late) -> None:
    rows.submit({0: RECORDS[0], 1: RECORDS[1]})
    spool.receipts[0].taken = True
    assert rows.told([0, 1]) is True
    spool.receipts[0].end(Stored(), Refused("spool_failed"))
    assert rows.look_back() is False
    assert sorted(late, key=lambda one: one[0]) == [(0, Stored()), (1, NotSent("spool_failed"))]


def test_batch_that_ended_unknown_before_the_answer_is_told_at_once(rows, spool, late) -> None:
    spool.full = True
    caught(rows, {0: UNKNOWN})
    rows.batch_ended(0, Unknown("abandoned"))
    assert rows.told([0]) is False
    assert late == [(0, Unknown("abandoned"))]


def test_without_a_hold_only_events_with_rows_are_followed(rows, late) -> None:
    assert rows.told([0, 1]) is False
    assert rows.holding is False


def test_refused_row_that_was_never_sealed_is_told_late_beside_one_that_was(rows, spool, late) -> None:
    """It stayed unresolved for ever, and the collector's exit code was 3."""
    caught(rows, {0: UNKNOWN, 1: WITHDRAWN})
    [receipt] = spool.receipts
    receipt.taken = True
    assert rows.told([0, 1]) is True
    receipt.end(Refused("spool_full"), Refused("spool_full"))
    rows.look_back()
    assert late == [(1, NotSent("spool_full"))]
    rows.batch_ended(0, DELIVERED)
    assert late == [(1, NotSent("spool_full")), (0, DELIVERED)]
