"""The ledgers of several workers added up, as `collector report` reads them."""

from collector.monitor.ledger_history import COLUMNS
from collector.workers.ledgers import Ledgers, added_up


def reading(at: float, received: int | None, rows_in: int | None) -> list[float | None]:
    values = dict.fromkeys(COLUMNS, None if received is None else 0) | {"received": received, "rows_in": rows_in}
    return [at, *values.values()]


def ledgers(started_at: float, *readings: list[float | None]) -> Ledgers:
    return Ledgers(now=200.0, started_at=started_at, pid=1, columns=list(COLUMNS), readings=list(readings))


def shown(several: Ledgers) -> list[tuple[float | None, float | None, float | None]]:
    received, rows_in = COLUMNS.index("received") + 1, COLUMNS.index("rows_in") + 1
    return [(row[0], row[received], row[rows_in]) for row in several.readings]


def test_readings_of_different_moments_are_added_as_they_stood() -> None:
    first = ledgers(100.0, reading(101.2, 1, 10), reading(102.2, 3, 10), reading(103.2, 4, 11))
    second = ledgers(100.5, reading(101.7, 20, 5), reading(102.7, 30, 6))
    both = added_up([first, second])
    assert shown(both) == [(101.7, 21, 15), (102.7, 33, 16), (103.2, 34, 17)]
    assert (both.started_at, both.now, both.columns) == (100.0, 200.0, list(COLUMNS))


def test_worker_that_came_later_had_nothing_before_but_the_rows_of_its_file() -> None:
    first = ledgers(100.0, reading(101.0, 1, 0), reading(150.0, 9, 0))
    second = ledgers(149.0, reading(149.1, None, None), reading(150.5, 2, 40))
    assert shown(added_up([first, second])) == [(101.0, 1, 40), (150.5, 11, 40)]


def test_without_a_spool_there_is_no_ledger_b() -> None:
    alone = ledgers(100.0, reading(101.0, 1, None))
    assert shown(added_up([alone, alone])) == [(101.0, 2, None)]


def test_nobody_is_an_empty_answer() -> None:
    nobody = added_up([])
    assert (nobody.columns, nobody.readings) == ([], [])
    assert shown(added_up([ledgers(100.0)])) == []
