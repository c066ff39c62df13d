"""The place of the last resort, as `collector check` judges it."""

from pathlib import Path

import pytest

from collector.cli.main import main
from collector.config import Config, NginxConfig
from collector.last_resort.place import check_place, make_place
from collector.nginx.check import check_nginx


def levels(nginx: NginxConfig) -> dict[str, str]:
    """Level of the finding that has these words."""
    words = ("is missing", "has mode", "bytes;", "MiB are free", "filesystem of")
    found: dict[str, str] = {}
    for finding in check_place(nginx):
        [word] = [word for word in words if word in finding.text]
        found[word] = max(found.get(word, ""), finding.level, key=("", "ok", "note", "warning", "error").index)
    return found


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "kept" / "requests.log"


def test_place_that_was_made_is_fit_but_for_its_filesystem(file: Path) -> None:
    make_place(file)
    nginx = NginxConfig(last_resort_file=str(file), last_resort_free_bytes=1)
    assert levels(nginx) == {"has mode": "ok", "MiB are free": "ok", "filesystem of": "warning"}
    file.write_bytes(b"kept")
    make_place(file)
    assert file.read_bytes() == b"kept"
    assert levels(nginx)["bytes;"] == "note"


def test_what_is_missing_is_an_error_with_the_command_that_makes_it(file: Path) -> None:
    nginx = NginxConfig(last_resort_file=str(file))
    [finding] = check_place(nginx)
    assert finding.level == "error"
    assert f"install -d -m 0700 -o USER {file.parent}" in finding.text
    file.parent.mkdir(mode=0o700)
    texts = [finding.text for finding in check_place(nginx) if finding.level == "error"]
    assert any(f"install -m 0600 -o USER /dev/null {file}" in text for text in texts), texts


@pytest.mark.parametrize(("directory", "mode"), [(0o755, 0o600), (0o700, 0o640), (0o700, 0o604), (0o710, 0o600)])
def test_what_others_may_read_is_an_error(file: Path, directory: int, mode: int) -> None:
    make_place(file)
    file.chmod(mode)
    file.parent.chmod(directory)
    assert levels(NginxConfig(last_resort_file=str(file)))["has mode"] == "error"


def test_too_little_room_is_an_error(file: Path) -> None:
    make_place(file)
    nginx = NginxConfig(last_resort_file=str(file), last_resort_free_bytes=2**60)
    assert levels(nginx)["MiB are free"] == "error"


def test_filesystem_of_its_own_is_found() -> None:
    texts = [finding.text for finding in check_place(NginxConfig(last_resort_file="/dev/shm/requests.log"))]
    assert "/dev/shm is a filesystem of its own: nothing else fills it, and it fills nothing else" in texts


def test_without_a_last_resort_no_place_is_looked_at(file: Path) -> None:
    findings = list(check_nginx(Config(nginx=NginxConfig(last_resort_file=str(file)))))
    assert {finding.level for finding in findings} == {"ok"}
    assert any("503" in finding.text for finding in findings)


def test_check_fails_where_the_place_is_not_fit(tmp_path: Path, file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    configuration = tmp_path / "collector.toml"
    configuration.write_text(
        f'[nginx]\nlast_resort = "accept"\nlast_resort_file = "{file}"\nlast_resort_free_bytes = 1\n'
        'upstreams = ["127.0.0.1:1", "127.0.0.1:2"]\n'
    )
    command = ["check", "--offline", "--config", str(configuration)]
    assert main(command) == 2
    assert f"FAIL {file.parent} is missing" in capsys.readouterr().out
    make_place(file)
    assert main(command) == 0
    said = capsys.readouterr().out
    assert "the requests of one key go to one of them" in said
    assert "survives a process crash, not a power cut" in said
