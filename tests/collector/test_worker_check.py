"""What `collector check` says about the processes."""

import os
from pathlib import Path

import pytest

from collector.cli.main import main
from collector.config import MIB, Config, LimitsConfig, RetryMemoryConfig, WorkersConfig
from collector.worker_check import check_workers, event_bytes


def findings(config: Config) -> list[tuple[str, str]]:
    return [(finding.level, finding.text) for finding in check_workers(config)]


@pytest.fixture(autouse=True)
def _four_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1, 2, 3})
    monkeypatch.setattr(os, "sysconf", {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": 2 * 1024 * MIB // 4096}.__getitem__)


def test_bound_is_of_every_account_of_events() -> None:
    limits = LimitsConfig(in_work_bytes=1, waiting_bytes=20, queue_bytes=300, in_flight_bytes=4000)
    assert event_bytes(Config(limits=limits, retry_memory=RetryMemoryConfig(max_bytes=50000))) == 54321
    assert event_bytes(Config(limits=limits, retry_memory=RetryMemoryConfig(enabled=False))) == 4321


def test_one_process_is_said_with_its_bound() -> None:
    [(_, processes), (level, memory)] = findings(Config())
    assert processes.startswith("one process (4 cores are here)")
    assert (level, memory[:33]) == ("ok", "events in memory: at most 288 MiB")
    assert "in all" not in memory


def test_several_processes_are_said_with_the_bound_of_all() -> None:
    [(_, processes), (_, memory)] = findings(Config(workers=WorkersConfig(count="auto")))
    assert processes.startswith("4 processes on 4 cores")
    assert memory.endswith("; 1152 MiB in all")


def test_more_than_cores_or_memory_is_a_warning() -> None:
    said = findings(Config(workers=WorkersConfig(count=8)))
    assert [level for level, _ in said] == ["ok", "ok", "warning", "warning"]
    assert "workers.count = 4" in said[2][1]
    assert "this machine has 2048 MiB" in said[3][1]


def test_check_prints_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "collector.toml"
    file.write_text(f'[workers]\ncount = 3\n[spool]\npath = "{tmp_path}/spool"\n')
    assert main(["check", "--offline", "--config", str(file)]) == 0
    said = capsys.readouterr().out
    assert "workers\n  ok   3 processes on 4 cores" in said
    assert "3 files of up to 1024 MiB" in said
