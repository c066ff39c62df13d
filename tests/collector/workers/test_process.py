"""One worker's process: when it is ended by force. In its place runs a script that beats and ignores SIGTERM."""

from collections.abc import AsyncIterator, Callable
from contextlib import closing

import pytest
import trio

from collector.config import Config, HttpConfig, ShutdownConfig, WorkersConfig
from collector.workers import process as module
from collector.workers.messages import Beat, Ready, encode
from collector.workers.process import WorkerProcess
from collector.workers.settings import Settings
from collector.workers.sockets import open_sockets
from collector.workers.totals import EXIT_UNKNOWN, Totals

BEAT = encode(Beat(ready=True, word="ready", counts={"received": 7}))
READY = encode(Ready(http="", ws="", admin=""))
BEAT_S, HUNG_S, DRAIN_S, MARGIN_S = 0.1, 0.5, 0.3, 0.4

# The channel's number is the last but one argument, as of a worker.
SCRIPT = f"""
import os, signal, sys, time
for number in (signal.SIGTERM, signal.{module.DUMP_SIGNAL.name}):
    signal.signal(number, signal.SIG_IGN)
channel = int(sys.argv[-2])
os.write(channel, {BEAT!r})
os.write(channel, {READY!r})
time.sleep(SILENT_S)
while True:
    os.write(channel, {BEAT!r})
    time.sleep({BEAT_S})
"""

Start = Callable[[float], WorkerProcess]


@pytest.fixture
async def start(nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Start]:
    monkeypatch.setattr(module, "LEAVE_MARGIN_S", MARGIN_S)
    http = HttpConfig(bind="127.0.0.1:0")
    settings = Settings.of(
        Config(
            http=http,
            workers=WorkersConfig(count=1, hung_s=HUNG_S),
            shutdown=ShutdownConfig(delay_s=0.0, drain_s=DRAIN_S),
        )
    )
    with closing(await open_sockets(http, 1)) as sockets:

        def started(silent_s: float) -> WorkerProcess:
            script = SCRIPT.replace("SILENT_S", str(silent_s))
            monkeypatch.setattr(module, "safe_path", lambda: ("-c", script))
            worker = WorkerProcess(0, settings, sockets[0])
            nursery.start_soon(worker.watch)
            return worker

        yield started


async def ended_by_force(worker: WorkerProcess) -> float:
    """Wait for its end; how long that took."""
    began = trio.current_time()
    try:
        with trio.fail_after(10):
            await worker.ended.wait()
    finally:
        if worker._process.returncode is None:
            worker._process.kill()
            worker._process.wait()
    assert worker._process.returncode == -9
    totals = Totals()
    totals.add(worker.end(), last=True)
    assert (totals.unreported, totals.code, totals.counts) == (1, EXIT_UNKNOWN, {"received": 7})
    return trio.current_time() - began


async def test_worker_that_beats_and_never_ends_is_killed_after_delay_and_drain_and_margin(start: Start) -> None:
    worker = start(0.0)
    with trio.fail_after(10):
        await worker.settled.wait()
    worker.leave()
    await trio.sleep(0.1)
    worker.leave()  # a further signal does not give it more time
    took_s = await ended_by_force(worker)
    assert took_s >= DRAIN_S + MARGIN_S - 0.2
    assert not worker.hung


async def test_worker_that_hung_and_recovered_and_never_ends_is_killed(start: Start) -> None:
    worker = start(HUNG_S * 2)
    with trio.fail_after(10):
        await worker.lost.wait()
    assert worker.hung
    await ended_by_force(worker)


async def test_worker_that_was_replaced_and_never_ends_is_killed(start: Start) -> None:
    worker = start(0.0)
    with trio.fail_after(10):
        await worker.settled.wait()
        await worker.wait_left()
    await ended_by_force(worker)
