"""Ledgers that do not balance are noticed at the end of a test, without the test asking."""

from dataclasses import replace

import pytest
import trio

from collector.config import SpoolConfig
from collector.devtools.collector_child import _check_ledgers
from collector.devtools.conservation import assert_conserved, imbalances
from collector.devtools.fixtures import default_config, open_collector_app
from collector.ingest.ledger import Counts, Ledger
from collector.spool.base import SpoolRow
from kafka_client.outcome import Record
from kafka_client.testing import FakeCluster

IN_MEMORY = replace(default_config(), spool=SpoolConfig(path=":memory:"))


async def test_collector_that_lost_an_event_from_its_books_fails_the_test(
    kafka_broker: FakeCluster, autojump_clock: trio.testing.MockClock
) -> None:
    with pytest.raises(AssertionError, match="ledger A: 1 received, 0 told, 0 in work"):
        async with open_collector_app(kafka_broker) as app:
            app.services.ledger._received += 1


async def test_collector_that_lost_a_row_from_its_books_fails_the_test(
    kafka_broker: FakeCluster, autojump_clock: trio.testing.MockClock
) -> None:
    with pytest.raises(AssertionError, match="ledger B: 2 rows in, 1 left, 0 now"):
        async with open_collector_app(kafka_broker, IN_MEMORY) as app:
            assert app.spool is not None
            row = SpoolRow(record=Record("events", b"v"), app="a", key_hash=None)
            await app.spool.submit([row]).wait()
            store = app.spool.writer.store
            assert store is not None
            store.account.rows_in += 1
            # The commits of the replay write it down as it is then.
            while app.spool.statistics().rows:  # noqa: ASYNC110  # nobody says so
                await trio.sleep(0.1)


def test_events_in_work_after_the_end_are_an_imbalance() -> None:
    ledger = Ledger()
    with ledger.open(2) as entry:
        entry.close(Counts(delivered=1, spooled=1))
    assert_conserved(ledger.statistics(), None)
    ledger.open(3)
    assert imbalances(ledger.statistics(), None) == []
    with pytest.raises(AssertionError, match="3 events are in work"):
        assert_conserved(ledger.statistics(), None)


def test_books_of_a_child_are_those_of_its_last_line() -> None:
    good = {"event": "stopped", "difference": 0, "spool_difference": 0}
    _check_ledgers([{"event": "ready"}])
    _check_ledgers([{"event": "ready"}, good])
    for name in ("difference", "spool_difference"):
        with pytest.raises(AssertionError, match="does not balance"):
            _check_ledgers([{"event": "ready"}, {**good, name: 1}])
