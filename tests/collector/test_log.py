"""Log lines: their two forms, what they never contain, and that they cannot hurt."""

import io
import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from collector.config import LogConfig
from collector.log import configure_logging, dropped_lines_total, get_logger

LOG = get_logger("test.area")  # Before anything is configured, as modules do.


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    configure_logging(LogConfig(format="console"))
    root.handlers[:], root.level = handlers, level


def _json(stream: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_json_lines_carry_area_level_and_values() -> None:
    stream = io.StringIO()
    configure_logging(LogConfig(format="json"), stream=stream)
    LOG.warning("spool nearly full", rows=3, path="/a b")
    (line,) = _json(stream)
    assert line.pop("timestamp")
    assert line == {"event": "spool nearly full", "area": "test.area", "level": "warning", "rows": 3, "path": "/a b"}


def test_console_lines_are_key_value_and_one_line_each() -> None:
    stream = io.StringIO()
    configure_logging(LogConfig(format="console"), stream=stream)
    LOG.info("said", word="a\nb\x1b[31m", number=1)
    text = stream.getvalue()
    assert text.count("\n") == 1
    assert "[info] said" in text
    assert "number=1" in text
    assert "\x1b" not in text


def test_auto_is_json_where_there_is_no_terminal() -> None:
    stream = io.StringIO()
    configure_logging(LogConfig(), stream=stream)
    LOG.info("said")
    assert _json(stream)[0]["event"] == "said"


@pytest.mark.parametrize(("level", "lines"), [("debug", 4), ("info", 3), ("warning", 2), ("error", 1)])
def test_lines_below_the_level_are_not_written(level: str, lines: int) -> None:
    stream = io.StringIO()
    configure_logging(LogConfig(level=level, format="json"), stream=stream)  # type: ignore[arg-type]
    for say in (LOG.debug, LOG.info, LOG.warning, LOG.error):
        say("said")
    assert len(_json(stream)) == lines


@pytest.mark.parametrize("form", ["json", "console"])
def test_a_traceback_is_written_without_local_variables(form: str) -> None:
    stream = io.StringIO()
    configure_logging(LogConfig(format=form), stream=stream)  # type: ignore[arg-type]
    try:
        write_key = "SECRET" + "KEY"
        raise ValueError(len(write_key))
    except ValueError:
        LOG.exception("failed")
    text = stream.getvalue()
    assert "ValueError: 9" in text
    assert "SECRETKEY" not in text


def test_what_libraries_log_comes_out_the_same_way() -> None:
    stream = io.StringIO()
    configure_logging(LogConfig(format="json"), stream=stream)
    logging.getLogger("hypercorn.error").error("lib said %s", "x")
    logging.getLogger("httpx").info("chatter")
    assert [(line["event"], line["area"]) for line in _json(stream)] == [("lib said x", "hypercorn.error")]


def test_a_stream_that_takes_nothing_costs_the_line_and_nothing_else() -> None:
    stream = io.StringIO()
    configure_logging(LogConfig(format="json"), stream=stream)
    stream.close()
    before = dropped_lines_total()
    LOG.error("said")
    assert dropped_lines_total() == before + 1


def test_structlog_of_the_importing_application_is_left_alone() -> None:
    configure_logging(LogConfig(format="json"), stream=io.StringIO())
    assert not structlog.is_configured()
