"""Structured logging: one event a line, key=value for people, JSON for machines, always to stderr.

Owns: how a line looks and where it goes, for our own events and for what libraries log through `logging`. Refuses to
know: what is logged. stdout belongs to what a command prints on purpose (`collector tail`).

Invariants: nothing global of structlog is configured, so that an application or a test suite that imports us keeps its
own; a traceback never carries local variables (they hold client data and keys); and a line that cannot be written (a
closed pipe, a full disk) is counted and dropped, because logging must never end a request.
"""

import logging
import sys
from collections.abc import Callable, Mapping
from typing import Any, TextIO, cast

import structlog
from structlog.typing import EventDict, FilteringBoundLogger, Processor

from collector.config import LogConfig

__all__ = ["Logger", "configure_logging", "dropped_lines_total", "get_logger"]

Logger = FilteringBoundLogger

_LEVELS: Mapping[str, int] = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
    "exception": logging.ERROR,
    "critical": logging.CRITICAL,
}

# Libraries that say at INFO what we say ourselves, once an event at least.
_CHATTY = ("httpx", "httpcore", "hypercorn.access", "trio-websocket", "asyncio")


class _Sink:
    """Where lines go. One per process; `configure_logging` replaces its settings, the loggers keep pointing at it."""

    def __init__(self) -> None:
        self.stream: TextIO | None = None
        self.level = logging.INFO
        self.render: Callable[[EventDict], str] = _renderer(colors=False, json=False)
        self.dropped_total = 0

    def msg(self, line: str) -> None:
        """Write one line; a stream that refuses it costs the line and nothing else."""
        stream = self.stream if self.stream is not None else sys.stderr
        try:
            stream.write(line + "\n")
            stream.flush()
        except (OSError, ValueError):  # ValueError: the stream is closed
            self.dropped_total += 1

    log = debug = info = warning = error = exception = critical = fatal = warn = msg


def _plain_traceback(stream: TextIO, exc_info: Any) -> None:
    structlog.dev.plain_traceback(stream, exc_info)


def _renderer(*, colors: bool, json: bool) -> Callable[[EventDict], str]:
    chain: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
        structlog.processors.UnicodeDecoder(),
    ]
    if json:
        chain += [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(default=repr)]
    else:
        chain.append(
            structlog.dev.ConsoleRenderer(
                colors=colors, exception_formatter=_plain_traceback, pad_event_to=0, pad_level=False
            )
        )

    def render(event: EventDict) -> str:
        value: Any = event
        for process in chain:
            value = process(None, str(event.get("level", "info")), value)
        return cast("str", value)

    return render


def _process(_logger: Any, method: str, event: EventDict) -> str:
    level = _LEVELS.get(method, logging.INFO)
    if level < _SINK.level:
        raise structlog.DropEvent
    event["level"] = "error" if method == "exception" else method
    return _SINK.render(event)


class _FromLogging(logging.Handler):
    """Takes what libraries log through `logging` into the same lines."""

    def emit(self, record: logging.LogRecord) -> None:
        event: EventDict = {"event": record.getMessage(), "area": record.name, "level": record.levelname.lower()}
        if record.exc_info and record.exc_info[0] is not None:
            event["exc_info"] = record.exc_info
        _SINK.msg(_SINK.render(event))


_SINK = _Sink()
_HANDLER = _FromLogging()


def configure_logging(config: LogConfig | None = None, *, stream: TextIO | None = None) -> None:
    """Set level and form of every line from now on, for loggers that exist already too.

    Args:
        config: ``format = "auto"`` is console on a terminal and JSON elsewhere. None: the defaults.
        stream: where to write; None follows ``sys.stderr``.
    """
    settings = config if config is not None else LogConfig()
    target = stream if stream is not None else sys.stderr
    terminal = target.isatty()
    json = settings.format == "json" or (settings.format == "auto" and not terminal)
    _SINK.stream = stream
    _SINK.level = _LEVELS[settings.level]
    _SINK.render = _renderer(colors=terminal, json=json)
    root = logging.getLogger()
    if _HANDLER not in root.handlers:
        root.addHandler(_HANDLER)
    root.setLevel(_SINK.level)
    for name in _CHATTY:
        logging.getLogger(name).setLevel(max(logging.WARNING, _SINK.level))


def get_logger(area: str) -> Logger:
    """A logger whose lines carry ``area``; usable at import time, before `configure_logging`.

    Args:
        area: the room and its part, as in ``ingest.spool``.
    """
    return cast(
        "Logger",
        structlog.wrap_logger(
            _SINK,
            processors=[_process],
            wrapper_class=structlog.make_filtering_bound_logger(logging.DEBUG),
            context_class=dict,
            cache_logger_on_first_use=False,
            area=area,
        ),
    )


def dropped_lines_total() -> int:
    """How many lines could not be written since the start."""
    return _SINK.dropped_total
