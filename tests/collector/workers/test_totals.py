"""What the ends of workers come to."""

import signal

import pytest

from collector.workers.totals import Totals, WorkerEnd, exit_code_of


def end(status: int, *, reported: bool = True, served: bool = True, **counts: int) -> WorkerEnd:
    return WorkerEnd(status=status, counts=counts, reported=reported, served=served)


@pytest.mark.parametrize(
    ("how", "code"),
    [
        (end(0), 0),
        (end(3), 3),
        (end(1, reported=False), 1),
        (end(-signal.SIGKILL, reported=False), 3),
        (end(-signal.SIGKILL, reported=False, served=False), 0),
        (end(-signal.SIGTERM, reported=False, served=False), 0),
        (end(-signal.SIGSEGV, reported=False), 1),
        (end(-signal.SIGABRT, reported=False, served=False), 1),
        (end(2, reported=False, served=False), 2),
        (end(0, reported=False), 3),
        (end(77, reported=False), 3),
    ],
)
def test_exit_code_of_one(how: WorkerEnd, code: int) -> None:
    assert exit_code_of(how) == code


@pytest.mark.parametrize(
    ("statuses", "code"), [([], 0), ([0, 0], 0), ([0, 3, 0], 3), ([3, 1, 0], 1), ([1, 3], 1), ([0, 2], 0), ([2, 3], 3)]
)
def test_worst_exit_code_wins(statuses: list[int], code: int) -> None:
    totals = Totals()
    for status in statuses:
        totals.add(end(status, reported=status in (0, 3), served=status != 2), last=True)
    assert totals.code == code


def test_ledger_a_is_of_all_and_ledger_b_of_those_at_the_end() -> None:
    totals = Totals()
    totals.add(end(0, received=5, delivered=5, spool_in=7, in_spool=1), last=False)
    totals.add(end(0, received=2, delivered=1, spooled=1, spool_in=9, in_spool=2), last=True)
    totals.add(end(0, received=1, delivered=1, spool_in=1, in_spool=0), last=True)
    assert totals.counts == {"received": 8, "delivered": 7, "spooled": 1, "spool_in": 10, "in_spool": 2}
    assert (totals.workers, totals.unreported, totals.code) == (3, 0, 0)


def test_last_beat_of_one_that_was_killed_counts_and_says_so() -> None:
    totals = Totals()
    totals.add(end(-9, reported=False, received=5, delivered=4), last=False)
    totals.add(end(-9, reported=False, served=False), last=False)
    assert totals.counts == {"received": 5, "delivered": 4}
    assert (totals.workers, totals.unreported, totals.code) == (2, 1, 3)
    assert repr(totals) == "<Totals 2 workers, code 3>"
