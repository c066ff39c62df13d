"""What `collector check` says about the spool."""

import errno
import os
from pathlib import Path

import pytest

from collector.cli.main import main
from collector.config import Config, SpoolConfig
from collector.spool.files import ROOM_BYTES
from collector.spool_check import check_spool


def findings(path: str | None, **spool) -> list[tuple[str, str]]:
    config = Config(spool=SpoolConfig(path=path, **spool))
    return [(finding.level, finding.text) for finding in check_spool(config)]


def test_place_bound_and_meaning_are_said(tmp_path: Path) -> None:
    [(place_level, place), (meaning_level, meaning)] = findings(str(tmp_path / "deep" / "spool"), max_bytes=2**20)
    assert (place_level, meaning_level) == ("ok", "ok")
    assert place.startswith(f"{tmp_path}/deep/spool: ")
    assert place.endswith("MiB free, for one file of up to 1 MiB")
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
    assert (level, text.startswith(f"{tmp_path}/file/spool: Not a directory; make the directory")) == ("error", True)


# Root too, who runs tests in containers, can make nothing in these.
@pytest.mark.parametrize(("place", "to_do"), [("/proc/foo/spool", "make the directory"), ("/sys/foo", "writable")])
def test_ok_where_nobody_can_make_the_directory(place: str, to_do: str) -> None:
    [(level, text)] = findings(place)
    assert (level, to_do in text, text.endswith("; the collector would have Kafka alone")) == ("error", True, True)


def test_ok_where_no_room_is_for_a_spool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def full(descriptor: int, offset: int, size: int) -> None:
        asked.append(size)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    [(level, text)] = findings(str(tmp_path / "deep" / "spool"))
    assert (level, asked) == ("error", [ROOM_BYTES])
    assert "No space left on device; make room on this disk" in text
    assert list(tmp_path.iterdir()) == [], "what was tried is removed"


def test_directory_that_is_there_stays_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "node.sqlite3").write_bytes(b"somebody's")
    assert findings(str(tmp_path))[0][0] == "ok"
    assert [(file.name, file.read_bytes()) for file in tmp_path.iterdir()] == [("node.sqlite3", b"somebody's")]


@pytest.mark.parametrize(("path", "words"), [(None, "answered 503"), (":memory:", "lost when the process ends")])
def test_no_spool_and_a_volatile_one_are_warnings(path: str | None, words: str) -> None:
    [(level, text)] = findings(path)
    assert (level, words in text) == ("warning", True)


def test_check_prints_it(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLLECTOR__SPOOL__PATH", str(tmp_path / "spool"))
    assert main(["check", "--offline"]) == 0
    assert f"spool\n  ok   {tmp_path}/spool: " in capsys.readouterr().out
