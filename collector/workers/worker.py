"""One worker process: a collector on a socket that it was given.

Owns: its start from what the supervisor hands over (configuration on standard input, listening socket and channel as
descriptors), its beats, its last report. Refuses to know: the other workers.

Invariant: it never outlives its supervisor without a word: when the channel ends, it drains as on a signal.

Exit codes are those of `collector serve`; ended by a signal before it was ready, it had nothing.
"""

import faulthandler
import os
import signal
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial

import msgspec
import structlog
import trio

from collector.config import AdminConfig, Config, MetricsConfig
from collector.garbage import spare_the_collector
from collector.log import configure_logging, get_logger
from collector.run import ExitReport, Started, run
from collector.workers.messages import Beat, Message, Ready, Stopped, encode
from collector.workers.settings import Settings
from collector.workers.totals import EXIT_CONFIGURATION
from kafka_client.errors import ConfigError

__all__ = ["ADMIN_BIND", "DUMP_SIGNAL", "beat_s", "main"]

log = get_logger("worker")

DUMP_SIGNAL = signal.SIGUSR2
"""Writes the stacks of all threads to the log, whatever the loop is stuck in."""

ADMIN_BIND = "127.0.0.1:0"
"""Its own admin listener: for the supervisor, and for `collector spool`, which finds it in the spool file's lock."""

REPORT_S = 1.0


def beat_s(hung_s: float) -> float:
    """Seconds between two beats: four may be late before a worker is taken for hung."""
    return min(1.0, hung_s / 5)


def main(number: int, channel: int, listener: int) -> int:
    """The process; the arguments are the slot and two descriptors."""
    # Stacks go where the log goes. A hangup is the supervisor's.
    faulthandler.register(DUMP_SIGNAL, all_threads=True)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        settings = Settings.decode(sys.stdin.buffer.read())
    except msgspec.MsgspecError as error:
        log.error("cannot start: the supervisor's configuration is not understood", worker=number, why=str(error))
        return EXIT_CONFIGURATION
    config = replace(settings.config, admin=AdminConfig(bind=ADMIN_BIND), metrics=MetricsConfig())
    configure_logging(config.log)
    structlog.contextvars.bind_contextvars(worker=number)
    for descriptor in (channel, listener):
        os.set_inheritable(descriptor, False)
    worker = _Worker(config, socket.socket(fileno=channel), socket.socket(fileno=listener))
    code = 0
    try:
        code = trio.run(worker.run)
    except* (ConfigError, OSError) as group:
        if worker.started is not None:
            raise
        log.error("cannot start", why=str(_first(group)))
        code = EXIT_CONFIGURATION
    return code


class _Worker:
    def __init__(self, config: Config, channel: socket.socket, listener: socket.socket) -> None:
        self._config = config
        self._channel = trio.socket.from_stdlib_socket(channel)
        self._listener = listener
        self.started: Started | None = None

    async def run(self) -> int:
        """Serve until a signal, or until the supervisor is gone."""
        stop = trio.Event()
        reports: list[ExitReport] = []

        async def collect(*, task_status: trio.TaskStatus[Started]) -> None:  # noqa: ASYNC128  # run() reports
            reports.append(await run(self._config, listener=self._listener, stop=stop, task_status=task_status))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._beat, name="worker: beats")
            nursery.start_soon(self._until_alone, stop.set, name="worker: is the supervisor there")
            async with trio.open_nursery() as serving:
                self.started = await serving.start(partial(collect))
                started = self.started
                spare_the_collector()
                assert started.admin is not None
                self._tell(self._state())
                self._tell(Ready(http=started.http, ws=started.ws, admin=started.admin))
            nursery.cancel_scope.cancel(reason="the collector has ended")
        (report,) = reports
        with trio.move_on_after(REPORT_S):
            await trio.lowlevel.wait_writable(self._channel)
        self._tell(Stopped(code=report.code, counts=report.counts))
        return report.code

    async def _beat(self) -> None:
        while True:
            self._tell(self._state())
            await trio.sleep(beat_s(self._config.workers.hung_s))

    def _state(self) -> Beat:
        if self.started is None:
            return Beat(ready=False, word="starting", counts={})
        word = self.started.services.lifecycle.status()
        return Beat(ready=word == "ready", word=word, counts=self.started.counts())

    def _tell(self, message: Message) -> None:
        # A supervisor that does not read is not waited for: it was stopped, or is gone, of which the channel tells.
        with suppress(OSError):
            os.write(self._channel.fileno(), encode(message))

    async def _until_alone(self, leave: Callable[[], None]) -> None:
        # The other direction has no messages, only an end.
        await trio.lowlevel.wait_readable(self._channel)
        log.warning("the supervisor is gone")
        leave()


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:4])))
