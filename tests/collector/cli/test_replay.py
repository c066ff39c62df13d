"""`collector replay` on the command line: exit codes and words. What it feeds back is in `last_resort`'s tests."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from collector.cli.main import main
from collector.config import LogConfig
from collector.log import configure_logging

# One line as nginx writes it.
LINE = (
    b'{"kept":"1","time":"1749974400.250","upstream_s":"0.000","request_id":"r","ip":"-","method":"POST",'
    b'"target":"/v1/track","user":"k","authorization":"","content_encoding":"","user_agent":"","dnt":"","sec_gpc":"",'
    b'"content_length":"","body":"{\\"event\\":\\"x\\",\\"userId\\":\\"u\\"}"}\n'
)


@pytest.fixture
def command(tmp_path: Path) -> list[str]:
    """Without a broker."""
    config = tmp_path / "collector.toml"
    config.write_text('[keys]\nopen = true\n[kafka]\nbootstrap_servers = ["127.0.0.1:1"]\n')
    return [sys.executable, "-m", "collector", "replay", str(tmp_path / "kept.log"), "--config", str(config)]


class Ended(NamedTuple):
    returncode: int
    stdout: str
    stderr: str


Run = Callable[[list[str]], Ended]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Iterator[Run]:
    """Run a command in this process: a new one takes a second only to import everything."""

    def run(command: list[str]) -> Ended:
        return Ended(main(command[3:]), *capsys.readouterr())

    yield run
    configure_logging(LogConfig(format="console"))


def test_what_is_left_is_named_with_its_reason_and_exit_code_3(run: Run, command: list[str], tmp_path: Path) -> None:
    (tmp_path / "kept.log").write_bytes(LINE + b"nonsense\n" + LINE)
    ended = run([*command, "--wait", "0.3"])
    assert ended.returncode == 3, ended
    assert "lines: 0 fed back, 0 refused, 1 broken, 2 left; 0 were done before" in ended.stdout
    assert "events: delivered 0, rejected 0, not sent 2, unknown 0" in ended.stdout
    assert "left: line 1,3 (not acknowledged in time: " in ended.stdout
    assert "kept.log, line 2: broken: not a kept request" in ended.stderr


def test_empty_file_is_done(run: Run, command: list[str], tmp_path: Path) -> None:
    (tmp_path / "kept.log").write_bytes(b"")
    ended = run(command)
    assert ended.returncode == 0, ended
    assert "lines: 0 fed back" in ended.stdout


def test_signal_ends_it_after_what_is_on_its_way(command: list[str], tmp_path: Path) -> None:
    """The second one at once."""
    (tmp_path / "kept.log").write_bytes(LINE)
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        while not list(tmp_path.glob("replay-*.cursor")):
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.3)
        process.send_signal(signal.SIGTERM)
        said, _ = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == 3
    assert "cut off" in said


def test_cursors_in_a_directory_that_does_not_exist_is_one_line_and_exit_code_2(
    run: Run, command: list[str], tmp_path: Path
) -> None:
    for kept in (LINE, b""):
        (tmp_path / "kept.log").write_bytes(kept)
        ended = run([*command, "--cursors", str(tmp_path / "none")])
        assert ended.returncode == 2, ended
        assert ended.stderr.startswith(f"collector replay: {tmp_path / 'none'} does not exist: make it (install -d ")
        assert ended.stderr.count("\n") == 1


def test_file_that_was_cut_is_one_line_and_exit_code_2(run: Run, command: list[str], tmp_path: Path) -> None:
    (tmp_path / "kept.log").write_bytes(LINE + b"nonsense\n")
    assert run([*command, "--wait", "0.3"]).returncode == 3
    (tmp_path / "kept.log").write_bytes(LINE)
    ended = run(command)
    assert ended.returncode == 2, ended
    assert "it was cut" in ended.stderr
    assert ended.stderr.count("\n") == 1


def test_line_that_cannot_be_read_or_is_refused_is_exit_code_3_with_its_number(
    run: Run, command: list[str], tmp_path: Path
) -> None:
    unknown_path = LINE.replace(b"/v1/track", b"/v1/trak!")
    (tmp_path / "kept.log").write_bytes(b"nonsense\n" + unknown_path + b"nonsense\n")
    ended = run(command)
    assert ended.returncode == 3, ended
    assert "lines: 0 fed back, 1 refused, 2 broken, 0 left; 0 were done before" in ended.stdout
    assert "refused: line 2; " in ended.stdout
    assert "broken: line 1,3; " in ended.stdout
    assert run(command).returncode == 0, "they were told"


def test_last_line_without_its_end_is_an_error_only_where_nobody_appends(
    run: Run, command: list[str], tmp_path: Path
) -> None:
    file = tmp_path / "kept.log"
    file.write_bytes(LINE[:100])
    ended = run(command)
    assert ended.returncode == 0, ended
    assert "0 broken" in ended.stdout
    assert "not looked at yet: 100 bytes at the end" in ended.stdout
    os.utime(file, (time.time() - 3600,) * 2)
    ended = run(command)
    assert ended.returncode == 3, ended
    assert "broken: line 1; " in ended.stdout


@pytest.mark.parametrize(
    ("options", "words"),
    [([], "kept.log: No such file or directory"), (["--wait", "0"], "--wait: expected more than 0 seconds, got 0")],
)
def test_what_can_be_mended_is_one_line_and_exit_code_2(
    run: Run, command: list[str], options: list[str], words: str
) -> None:
    ended = run([*command, *options])
    assert ended.returncode == 2
    assert ended.stderr.startswith("collector replay: ")
    assert ended.stderr.endswith(f"{words}\n")
    assert ended.stderr.count("\n") == 1
