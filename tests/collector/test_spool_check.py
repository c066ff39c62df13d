"""What `collector check` says about the spool."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from collector.cli.main import main
from collector.config import Config, DeadlinesConfig, SpoolConfig
from collector.spool_check import check_spool


def findings(path: str | None, **spool) -> list[tuple[str, str]]:
    config = Config(spool=SpoolConfig(path=path, **spool))
    return [(finding.level, finding.text) for finding in check_spool(config)]


def test_place_bound_and_meaning_are_said(tmp_path: Path) -> None:
    [(place_level, place), (meaning_level, meaning)] = findings(str(tmp_path / "deep" / "spool"), max_bytes=2**20)
    assert (place_level, meaning_level) == ("ok", "ok")
    assert place.startswith(f"{tmp_path}/deep/spool: ")
    assert place.endswith("MiB free, one file a process, each up to 1 MiB")
    assert "Kafka alone" in meaning
    assert not (tmp_path / "deep").exists(), "a check changes nothing"


def test_relative_place_is_said_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert findings(".collector/spool")[0][1].startswith(f"{tmp_path}/.collector/spool: ")


def test_less_room_than_the_bound_is_a_warning(tmp_path: Path) -> None:
    levels = [level for level, _ in findings(str(tmp_path), max_bytes=2**60)]
    assert levels == ["ok", "warning", "ok"]


def test_file_in_the_way_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    [(level, text)] = findings(str(tmp_path / "file" / "spool"))
    assert (level, f"{tmp_path}/file is no directory" in text) == ("error", True)


def test_place_that_may_not_be_written_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Root, who runs tests in containers, may write anywhere.
    monkeypatch.setattr(os, "access", lambda path, mode: path != tmp_path)
    [(level, _)] = findings(str(tmp_path / "spool"))
    assert level == "error"


@pytest.mark.parametrize(("path", "words"), [(None, "answered 503"), (":memory:", "lost when the process ends")])
def test_no_spool_and_a_volatile_one_are_warnings(path: str | None, words: str) -> None:
    [(level, text)] = findings(path)
    assert (level, words in text) == ("warning", True)


def test_no_time_for_the_disk_is_said(tmp_path: Path) -> None:
    config = Config(spool=SpoolConfig(path=str(tmp_path)), deadlines=DeadlinesConfig(kafka_s=3.8, spool_s=0.0))
    assert "no event goes there" in [finding.text for finding in check_spool(config)][-1]
    assert "no event goes there" not in [f.text for f in check_spool(replace(config, deadlines=DeadlinesConfig()))][-1]


def test_check_prints_it(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLLECTOR__SPOOL__PATH", str(tmp_path / "spool"))
    assert main(["check", "--offline"]) == 0
    assert f"spool\n  ok   {tmp_path}/spool: " in capsys.readouterr().out
