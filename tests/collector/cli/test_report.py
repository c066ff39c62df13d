"""`collector report ledger`: its arithmetic, its table, and what it says when nobody answers."""

import argparse
import json
import socket
from collections.abc import Callable

import pytest
import trio

from collector.cli.main import main
from collector.cli.report import Answer, intervals, seconds
from collector.config import AdminConfig, Config
from collector.ingest.ledger import Counts, Ledger
from collector.monitor import Monitor, open_monitor
from collector.monitor.ledger_history import COLUMNS, LedgerHistory

STARTED = 1_000.0


def answer(*moments: tuple[float, dict[str, int]]) -> Answer:
    """Readings at these seconds after the start, with these counters and zeros else."""
    readings: list[list[float | None]] = [
        [STARTED + at, *(values.get(name, 0) for name in COLUMNS)] for at, values in moments
    ]
    now = readings[-1][0] or 0.0
    return Answer(now=now, started_at=STARTED, pid=1, columns=list(COLUMNS), readings=readings)


def test_intervals_hold_what_was_added_and_gauges_of_their_end() -> None:
    lines = list(
        intervals(
            answer(
                (1, {"received": 5, "delivered": 5, "rows_in": 100, "rows": 90, "replayed": 10}),
                (9, {"received": 8, "delivered": 6, "in_work": 2, "rows_in": 100, "rows": 80, "replayed": 20}),
                (11, {"received": 8, "delivered": 8, "rows_in": 103, "rows": 70, "replayed": 33}),
                (19, {"received": 9, "delivered": 9, "rows_in": 103, "rows": 0, "replayed": 103}),
            ),
            0.0,
            10.0,
        )
    )
    assert [(line.start - STARTED, line.end - STARTED) for line in lines] == [(0, 9), (9, 19)]
    first, second = lines[0].values, lines[1].values
    assert (first["received"], first["delivered"], first["in_work"]) == (8, 6, 2)
    # The spool's file is older than the process: what was in it before is not of the first interval.
    assert (first["rows_in"], first["replayed"], first["rows"]) == (0, 10, 80)
    assert (second["received"], second["delivered"], second["in_work"]) == (1, 3, 0)
    assert (second["rows_in"], second["replayed"], second["rows"]) == (3, 83, 0)


def test_first_interval_begins_with_the_last_reading_before_the_time_asked_for() -> None:
    found = answer((10, {"received": 7}), (20, {"received": 9}), (30, {"received": 12}))
    [line] = intervals(found, STARTED + 15, 60.0)
    assert (line.start, line.values["received"]) == (STARTED + 10, 5)


def test_readings_without_a_ledger_are_no_interval() -> None:
    found = answer((1, {"received": 7}))
    found.readings.insert(0, [STARTED + 0.5, *([None] * len(COLUMNS))])
    [line] = intervals(found, 0.0, 10.0)
    assert line.values["received"] == 7


def test_history_is_by_the_minute_for_a_day_and_by_the_second_for_three_minutes() -> None:
    history, ledger = LedgerHistory(), Ledger()
    for second in range(200_000):
        history.note(float(second), ledger.statistics() if second % 60 == 0 else None, None)
    ages = [200_000 - 1 - reading.at for reading in history.readings()]
    assert ages[-180:] == [float(age) for age in range(179, -1, -1)]
    minutes = ages[:-180]
    assert minutes == sorted(minutes, reverse=True)
    assert 86_300 < minutes[0] < 86_500
    assert len(minutes) == pytest.approx(1440, abs=4)
    assert [reading.at for reading in history.readings(199_990.5)] == [float(at) for at in range(199_991, 200_000)]


@pytest.mark.parametrize(
    ("text", "found"), [("90", 90.0), ("30s", 30.0), ("10m", 600.0), ("2h", 7200.0), ("1d", 86400)]
)
def test_times_are_read_as_people_write_them(text: str, found: float) -> None:
    assert seconds(text) == found


@pytest.mark.parametrize("text", ["", "0", "-5", "5x", "1h30", "now"])
def test_other_times_are_refused(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="expected a time such as"):
        seconds(text)


async def reported(*arguments: str, prepare: Callable[[Monitor], object]) -> int:
    async with open_monitor(Config(admin=AdminConfig(bind="127.0.0.1:0"))) as monitor:
        prepare(monitor)
        await trio.sleep(1.2)  # the sampler reads once a second
        argv = ["report", "ledger", "--admin", monitor.admin_address or "", *arguments]
        return await trio.to_thread.run_sync(main, argv)


def watch_ledger(monitor: Monitor) -> None:
    ledger = Ledger()
    with ledger.open(7) as entry:
        entry.close(Counts(delivered=4, spooled=2, not_sent=1))
    monitor.watch("ledger", ledger.statistics)


async def test_table_names_every_way_an_event_can_end(capsys: pytest.CaptureFixture[str]) -> None:
    assert await reported(prepare=watch_ledger) == 0
    out = capsys.readouterr().out
    heads = next(line for line in out.splitlines() if line.startswith("until"))
    assert heads.split("  ")[0] == "until"
    for head in ("received", "delivered", "spooled", "refused", "unknown", "in work", "difference A"):
        assert head in heads
    total = next(line for line in out.splitlines() if line.startswith("since start"))
    assert total.split()[2:6] == ["7", "4", "2", "0"]
    assert "Ledger B: what became of what was spooled, in rows: there is none" in out


async def test_json_has_intervals_and_totals(capsys: pytest.CaptureFixture[str]) -> None:
    assert await reported("--json", prepare=watch_ledger) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["totals"]["delivered"] == 4
    assert found["totals"]["rows_in"] is None
    assert sum(line["received"] for line in found["intervals"]) == 7


async def test_ledger_that_does_not_balance_is_said_and_is_the_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    def prepare(monitor: Monitor) -> None:
        ledger = Ledger()
        ledger.open(3)
        ledger._in_work = 1
        monitor.watch("ledger", ledger.statistics)

    assert await reported(prepare=prepare) == 1
    assert "Ledger A does not balance: 2." in capsys.readouterr().out


def test_without_a_collector_the_error_says_how_to_have_one(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    assert main(["report", "ledger", "--admin", f"127.0.0.1:{port}"]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(f"collector report: http://127.0.0.1:{port}: no collector answers")
    assert "collector dev" in line
    assert "--admin" in line
