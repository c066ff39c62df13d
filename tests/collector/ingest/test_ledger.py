"""Ledger A: it balances after every call, whatever the order of calls."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.ingest.ledger import Counts, Ledger

KINDS = ("delivered", "spooled", "rejected", "not_sent", "unknown", "deduplicated", "dropped")


@given(st.lists(st.tuples(st.lists(st.sampled_from(KINDS), max_size=20), st.integers(0, 5)), max_size=20))
def test_ledger_balances_after_every_move(requests: list[tuple[list[str], int]]) -> None:
    ledger = Ledger()
    open_entries = []
    for kinds, hold in requests:
        open_entries.append((ledger.open(len(kinds)), kinds))
        assert ledger.difference == 0
        while len(open_entries) > hold:
            entry, ended = open_entries.pop(0)
            if ended == ["delivered"] * len(ended):
                entry.close_delivered()
            else:
                entry.close(Counts(**{kind: ended.count(kind) for kind in KINDS}))
            assert ledger.difference == 0
    books = ledger.statistics()
    assert books.in_work == sum(len(kinds) for _, kinds in open_entries)
    assert books.received_total == sum(len(kinds) for kinds, _ in requests)


def test_entry_is_closed_once_and_with_as_many_events() -> None:
    ledger = Ledger()
    entry = ledger.open(3)
    with pytest.raises(ValueError, match="2 events accounted for, 3 received"):
        entry.close(Counts(delivered=2))
    entry.close(Counts(delivered=1, not_sent=2))
    with pytest.raises(ValueError, match="closed already"):
        entry.close(Counts(delivered=3))
    with pytest.raises(ValueError, match="closed already"):
        entry.close_delivered()
    assert entry.closed
    assert repr(entry) == "<Entry of 3 events, closed>"
    assert repr(ledger) == "<Ledger received=3 in_work=0 difference=0>"


def test_entry_that_nobody_closed_is_unknown() -> None:
    ledger = Ledger()

    def forget() -> None:
        with ledger.open(4):
            raise RuntimeError("a bug")

    with pytest.raises(RuntimeError):
        forget()
    with ledger.open(1) as entry:
        entry.close(Counts(delivered=1))
    books = ledger.statistics()
    assert (books.unknown_total, books.delivered_total, books.in_work, books.difference) == (4, 1, 0, 0)


def test_late_resolutions_rewrite_nothing_and_settle_what_is_unresolved() -> None:
    ledger = Ledger()
    ledger.open(5).close(Counts(unknown=5))
    ledger.late(delivered=2)
    ledger.late(not_sent=1)
    ledger.late(unknown=1)
    books = ledger.statistics()
    assert (books.unknown_total, books.delivered_total, books.unresolved, books.difference) == (5, 0, 2, 0)
    assert (books.late_delivered_total, books.late_not_sent_total, books.late_unknown_total) == (2, 1, 1)


def test_what_could_not_be_parsed_is_counted_in_requests_and_bytes() -> None:
    ledger = Ledger()
    ledger.unparsed(100)
    ledger.unparsed(0)
    ledger.bad(written=2, dropped=1)
    books = ledger.statistics()
    assert (books.unparsed_requests_total, books.unparsed_bytes_total, books.received_total) == (2, 100, 0)
    assert (books.bad_written_total, books.bad_dropped_total) == (2, 1)
