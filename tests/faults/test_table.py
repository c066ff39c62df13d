"""Verdicts and the table."""

import json
import math
from collections import Counter
from dataclasses import replace

import pytest

from tests.faults.account import Account
from tests.faults.rows import ROWS, row_of
from tests.faults.running import Result
from tests.faults.table import Line, as_json, as_markdown
from tests.faults.upstream import Upstream
from tests.faults.verdict import broken

GOOD = Account(
    sent=1000,
    events=2000,
    ok=1000,
    unavailable=0,
    other={},
    no_answer=0,
    not_connected=0,
    late=0,
    unknown_events=0,
    lost_events=0,
    duplicates_marked=3,
    duplicates_unmarked=0,
    ghosts_announced=4,
    ghosts_unannounced=0,
    ghosts_without_word=0,
    p50_s=0.002,
    p99_s=0.05,
    slowest_s=1.0,
)


def result(row: str = "1", account: Account = GOOD, **more: object) -> Result:
    fields: dict[str, object] = {
        "account": account,
        "upstream": Upstream(answers=Counter(), meant=Counter({"200": 1000})),
        "highest_bytes": 90_000_000,
        "allowed_bytes": 100_000_000,
        "spool_rows": 0,
        "outage_p99_s": 0.2 if row_of(row).timed else None,
    }
    return Result(**(fields | more))  # type: ignore[arg-type]  # the members of Result


def line(played: Result | None, *words: str, row: str = "1", server: str = "collector") -> Line:
    return Line(row=row, title=row_of(row).title, server=server, result=played, broken=words)


def upstream(**meant: int) -> Upstream:
    return Upstream(answers=Counter(), meant=Counter({words.strip("_"): count for words, count in meant.items()}))


def test_good_row_holds() -> None:
    assert broken(row_of("1"), result()) == ()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"lost_events": 2}, "2 lost"),
        ({"duplicates_unmarked": 1}, "1 duplicates unmarked"),
        ({"ghosts_unannounced": 1}, "1 ghosts denied"),
        ({"ghosts_without_word": 1}, "1 ghosts without a word"),
        ({"late": 1}, "1 answered after 5 s"),
        ({"no_answer": 1}, "1 without an answer"),
        ({"not_connected": 1}, "1 found no connection"),
        ({"other": {400: 1}}, "1 answered 400"),
        ({"ok": 998}, "200s 99.80%"),
        ({"sent": 0, "ok": 0}, "nothing was sent"),
    ],
)
def test_each_figure_of_an_account_can_break_an_outage_row(change: dict[str, object], words: str) -> None:
    assert words in broken(row_of("1"), result(account=replace(GOOD, **change)))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"upstream": upstream(_504=1)}, "1 × 504"),
        ({"upstream": upstream(_502=1)}, "1 × 502"),
        ({"highest_bytes": 100_000_001}, "memory above 100 MB"),
        ({"spool_rows": 7}, "7 rows left in the spool"),
        ({"differences": {"collector_ledger_difference_events": -1.0}}, "collector_ledger_difference_events -1"),
        ({"worst_difference": 2.0}, "a ledger was off by 2"),
        ({"outage_p99_s": 0.251}, "p99 in the outage 251 ms"),
        ({"outage_p99_s": math.nan}, "p99 in the outage nan ms"),
    ],
)
def test_each_figure_of_the_server_can_break_an_outage_row(change: dict[str, object], words: str) -> None:
    assert broken(row_of("1"), result(**change)) == (words,)


def test_where_a_process_is_killed_some_have_no_answer_but_no_200_is_lost() -> None:
    told = replace(GOOD, ok=800, no_answer=50, not_connected=20, ghosts_without_word=5)
    killed = result("6", told, upstream=upstream(_502=100))
    assert broken(row_of("6"), killed) == ()
    assert broken(row_of("6"), replace(killed, upstream=upstream(_504=1))) == ("1 × 504",)
    assert broken(row_of("6"), replace(killed, account=replace(told, lost_events=1))) == ("1 lost",)


def test_overload_is_held_against_the_capacity_of_the_same_run() -> None:
    assert broken(row_of("4a"), result("4a", capacity=300.0, goodput=271.0)) == ()
    assert broken(row_of("4a"), result("4a", capacity=300.0, goodput=260.0)) == ("goodput 87% of capacity",)


def test_baseline_has_no_house_of_ours() -> None:
    assert broken(row_of("1"), result(spool_rows=None, highest_bytes=10**9, differences={})) == ()


def test_rows_are_those_of_the_table() -> None:
    assert [row.name for row in ROWS] == ["1", "2", "3", "4a", "4b", "5", "6", "7", "8", "9", "10", "11", "12", "13"]
    assert [row.name for row in ROWS if row.outage] == ["1", "2", "3", "5", "9", "11"]
    assert [row.name for row in ROWS if row.baseline] == ["1", "2", "3", "4a", "4b", "5"]
    assert [row.name for row in ROWS if row.timed] == ["1", "2", "3"]
    with pytest.raises(LookupError):
        row_of("14")


def test_table_shows_what_does_not_hold() -> None:
    bad = result(account=replace(GOOD, lost_events=2), fsync_p99_s=0.004, outage_answers=7, outage_s=18.0)
    lines = [line(bad, "2 lost"), line(result("6"), row="6"), line(None, "not played: no nginx", row="7")]
    text = as_markdown("by hand", lines)
    head, rule, first, second, third, *rest = text.splitlines()
    assert len({line.count(" | ") for line in (head, rule, first, second, third)}) == 1
    assert third.endswith("| – | – | **no**: not played: no nginx |")
    assert "| **2** |" in first
    assert first.endswith("| **no**: 2 lost |")
    assert second.endswith("| yes |")
    assert "- played row 1, row 6, row 7: by hand" in rest
    assert any("7 answers" in line and "200 ms" in line and "fsync beside it p99 4.0 ms" in line for line in rest)


def test_rows_that_were_not_played_again_stay_as_they_were_printed() -> None:
    other = "FastAPI + aiokafka"
    timed = result(fsync_p99_s=0.004)
    first = as_markdown("early", [line(timed), line(timed, server=other), line(result("6"), "1 lost", row="6")])
    second = as_markdown("late", [line(result("6"), row="6"), line(result("2"), row="2")], first)
    rows = [row.split(" | ")[0] for row in second.splitlines() if row.startswith("| ")][2:]
    assert rows == [f"| {name}. {row_of(name).title}" for name in ("1", "1", "2", "6")]
    assert first.splitlines()[2:4] == second.splitlines()[2:4]
    assert "1 lost" not in second
    assert "- played row 1, row 1 (baseline): early" in second.splitlines()
    assert "- played row 6, row 2: late" in second.splitlines()
    assert second.count("fsync beside it") == 2
    assert as_markdown("late", [], second).splitlines()[:6] == second.splitlines()[:6]


def test_json_has_every_figure_and_no_nan() -> None:
    plain = as_json("by hand", [line(result(account=replace(GOOD, p50_s=math.nan)), "x"), line(None, "y")])
    read = json.loads(json.dumps(plain, allow_nan=False))
    assert read["rows"][0]["figures"]["account"]["p50_s"] is None
    assert read["rows"][0]["figures"]["account"]["sent"] == 1000
    assert read["rows"][1]["figures"] is None
    assert read["rows"][0]["broken"] == ["x"]
