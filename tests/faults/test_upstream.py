"""What is read out of nginx's two logs."""

import json
from pathlib import Path

import msgspec
import pytest

from tests.faults.upstream import read_upstream


def write_log(directory: Path, *lines: dict[str, str]) -> Path:
    file = directory / "access.log"
    file.write_text("".join(json.dumps({"path": "/v1/track", "sent": "503", **line}) + "\n" for line in lines))
    return file


def test_statuses_are_those_from_before_the_error_pages(tmp_path: Path) -> None:
    log = write_log(
        tmp_path,
        {"status": "200", "sent": "200", "upstream_status": "200", "upstream_connect_s": "0.000"},
        {"status": "504", "upstream_status": "504", "upstream_connect_s": "0.001"},
        {"status": "502", "upstream_status": "502", "upstream_connect_s": "-"},
        {"status": "503", "upstream_status": "503", "upstream_connect_s": "0.000"},
        {"status": "101", "sent": "101", "upstream_status": "101", "upstream_connect_s": "0.000"},
    )
    found = read_upstream(log, tmp_path / "error.log")
    assert found.errors == {"502": 1, "504": 1}
    assert found.timeouts == 1
    assert found.answers == {"200": 1, "504": 1, "502": 1, "503": 1, "101": 1}


def test_connection_that_never_came_about_is_no_late_answer(tmp_path: Path) -> None:
    log = write_log(tmp_path, {"status": "504", "upstream_status": "504", "upstream_connect_s": "-"})
    found = read_upstream(log, tmp_path / "error.log")
    assert (found.timeouts, found.errors) == (0, {"no connection": 1})


def test_late_answer_after_a_try_without_connection_is_a_late_answer(tmp_path: Path) -> None:
    log = write_log(tmp_path, {"status": "504", "upstream_status": "504, 504", "upstream_connect_s": "-, 0.000"})
    found = read_upstream(log, tmp_path / "error.log")
    assert (found.timeouts, found.answers["504"]) == (1, 2)


def test_error_log_is_told_by_its_words(tmp_path: Path) -> None:
    (tmp_path / "error.log").write_text(
        "2026/11/22 22:37:51 [error] 12#12: *7 upstream timed out (110: Connection timed out) while reading response "
        "header from upstream, client: 127.0.0.1, server: , request: …\n"
        "2026/11/22 22:37:52 [error] 12#12: *9 upstream timed out (110: Connection timed out) while reading response\n"
        "2026/11/22 22:37:52 [warn] 12#12: *9 a client request body is buffered to a temporary file /x/1, client: …\n"
        "2026/11/22 22:37:53 [alert] 12#12: *31 open socket #10 left in connection 3\n"
        "no line of nginx's own\n"
    )
    found = read_upstream(tmp_path / "access.log", tmp_path / "error.log").complaints
    assert found == {
        "error: upstream timed out (#: Connection timed out)": 2,
        "alert: open socket # left in connection #": 1,
        "no line of nginx's own": 1,
    }


def test_line_of_another_format_is_refused(tmp_path: Path) -> None:
    (tmp_path / "access.log").write_text('127.0.0.1 - - "GET / HTTP/1.1" 200\n')
    with pytest.raises(msgspec.DecodeError):
        read_upstream(tmp_path / "access.log", tmp_path / "error.log")
