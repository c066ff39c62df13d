"""The HTTP, websocket and memory benchmarks without their parts: figures, rows, command lines."""

import os
import subprocess
import sys
from collections.abc import Mapping
from types import ModuleType

import pytest
import trio

import tests.bench.http.__main__ as http_program
import tests.bench.memory.__main__ as memory_program
import tests.bench.ws.__main__ as ws_program
from collector.devtools.children import ChildFailed
from tests.bench.http.rows import GROUPS, ROWS, contenders_of
from tests.bench.http.running import rated
from tests.bench.machine import family, family_bytes, family_cpu_s, pinned, resident_bytes
from tests.bench.report import Measured
from tests.bench.running import Rounds, interleave
from tests.bench.scores import Scores
from tests.bench.serving import Shares
from tests.bench.wrk import Told
from tests.bench.ws.__main__ import CONTENDERS

SHARES = Shares(server_s=1.5, load_s=0.4, broker_s=0.2, busy_s=2.3)
RUN = {"rate": 2.0, "cpu_us": 3.0, "p50_ms": 1.0, "p99_ms": 2.0, "beside_p50_ms": 1.0, "cpu_share": 1.0}


def test_figures_of_a_window() -> None:
    figures = SHARES.figures(events=50_000, wall_s=2.0)
    assert figures["rate"] == 25_000
    assert figures["cpu_us"] == pytest.approx(30.0)
    assert (figures["cpu_share"], figures["rest_share"]) == (0.75, pytest.approx(0.3))
    assert figures["foreign_share"] == pytest.approx(0.1)


def test_figures_of_bulk_requests_count_events_and_no_refused_ones() -> None:
    told = Told(
        requests=1001, duration_us=2_000_000, refused=1, connect=0, read=0, write=0, timeout=0,
        p50_us=1500, p99_us=9000, worst_us=9999,
    )  # fmt: skip
    figures = rated(told, 100, SHARES)
    assert (figures["events"], figures["rate"], figures["requests"]) == (100_000, 50_000, 500)
    assert (figures["p50_ms"], figures["p99_ms"], figures["failed"]) == (1.5, 9.0, 1)


@pytest.mark.parametrize("part", [part for group in GROUPS for part in group], ids=lambda part: part.row)
def test_every_check_of_a_row_finds_both_of_its_sides(part: object) -> None:
    taking_part = (*part.needs, *part.contenders)  # type: ignore[attr-defined]
    scores = Scores([Measured(name=each.name, runs=[RUN]) for each in taking_part])
    checks = part.checks(scores)  # type: ignore[attr-defined]
    assert checks
    assert [check.what for check in checks if check.figure is None] == []


def test_every_check_of_the_websocket_finds_both_of_its_sides() -> None:
    scores = Scores([Measured(name=each.name, runs=[RUN]) for each in CONTENDERS])
    assert all(check.figure is not None for check in ws_program._checks(scores))


def test_rows_and_contenders_have_names_of_their_own() -> None:
    for group in GROUPS:
        contenders = {id(each): each for part in group for each in (*part.contenders, *part.needs)}
        assert len({each.name for each in contenders.values()}) == len(contenders)
        opened: dict[str, str] = {}
        for each in contenders.values():  # one process a word: it must not stand for two settings
            assert opened.setdefault(each.server, each.settings) == each.settings
    assert [part.row for group in GROUPS for part in group if not contenders_of(part.row)] == []
    assert sorted(part.row for group in GROUPS for part in group) == sorted(ROWS)


@pytest.mark.parametrize("program", [http_program, ws_program, memory_program], ids=lambda program: program.__name__)
def test_command_refuses_an_unknown_row_and_says_how_figures_are_made(
    program: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["bench", "--rows", "K1"])
    with pytest.raises(SystemExit, match="2"):
        program.main()
    assert "'K1' is not one of" in capsys.readouterr().err
    monkeypatch.setattr(sys, "argv", ["bench", "--help"])
    with pytest.raises(SystemExit, match="0"):
        program.main()
    assert "How the figures are made:" in capsys.readouterr().out


async def test_a_contender_that_fails_is_noted_and_the_others_go_on() -> None:
    said: list[str] = []
    rounds = Rounds(2, said.append)
    fine, bad = Measured(name="fine"), Measured(name="bad")

    async def measure(each: Measured) -> Mapping[str, float]:
        await trio.lowlevel.checkpoint()
        if each is bad and any("round 1/2 bad" in line for line in said):
            raise ChildFailed("it ended")
        return {"rate": 1.0}

    measured = await interleave(rounds, "X1", [bad, fine], measure, lambda run: "went")
    assert len(measured["fine"].runs) == 2
    assert measured["bad"].runs == []
    assert rounds.failures == ["X1 bad: it ended"]


def test_a_pinned_program_runs_on_its_core_with_all_the_files_it_may_have() -> None:
    core = min(os.sched_getaffinity(0))
    ask = "import os, resource; print(os.sched_getaffinity(0), resource.getrlimit(resource.RLIMIT_NOFILE))"
    said = subprocess.run(pinned(core, [sys.executable, "-c", ask]), capture_output=True, check=True, text=True).stdout
    affinity, _, limits = said.partition(" (")
    assert affinity == f"{{{core}}}"
    soft, hard = limits.strip(" )\n").split(", ")
    assert soft == hard


def test_a_family_has_its_children() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        pids = family(os.getpid())
        assert child.pid in pids
        assert family_cpu_s(pids) >= family_cpu_s([child.pid])
        # Of one process every page counts, of several a page that they share counts once.
        assert family_bytes([os.getpid()]) == pytest.approx(resident_bytes(), rel=0.05)
        assert family_bytes(pids) < resident_bytes() + resident_bytes(child.pid) + 1_000_000
        child.communicate(b"\n")
