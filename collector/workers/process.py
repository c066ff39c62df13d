"""One worker as its supervisor sees it: a process, what it tells, and whether it still does.

Owns: its start, the reading of its channel, the judgement that it hangs, its end by force. Refuses to know: why it is
wanted, and who comes after it.

A worker that says nothing for ``hung_s`` is hung: it is *lost* from that moment, so that a successor can accept on its
socket. Then it is asked for its stacks (faulthandler writes them to the log, whatever the loop is stuck in), told to
leave, woken if it was stopped, and, if it is silent for `GRACE_S` more, killed.

Invariants: `WorkerProcess.watch` returns when the process has ended and was waited for; who was told to leave ends
within delay, drain and `LEAVE_MARGIN_S` of the first telling, by force at the latest, whatever it says meanwhile. Who
is killed so has not reported: it is one of the ``unreported`` of the last line, and of those that make its code 3.

Non-obvious: after we were stopped ourselves (a debugger, a machine that was paused) the clock says that everybody was
silent, and epoll, interrupted, that nothing has come. So what has come is looked at once more before anybody is called
hung.
"""

import os
import signal
import socket
import subprocess
import sys
import time

import msgspec
import trio

from collector.log import get_logger
from collector.workers.messages import MESSAGE_MAX_BYTES, Beat, Ready, Stopped, decode
from collector.workers.settings import Settings, safe_path
from collector.workers.totals import WorkerEnd
from collector.workers.worker import DUMP_SIGNAL

__all__ = ["GRACE_S", "START_S", "WorkerProcess"]

log = get_logger("workers")

START_S = 30.0
"""From the start of the process to its first beat: interpreters of busy machines need seconds."""

READY_S = 120.0
"""From there to its being ready: a spool may have to be mended first."""

GRACE_S = 3.0
"""Between SIGTERM and SIGKILL, for one that hung; and for the process to go when its channel has ended."""

DUMP_S = 0.2
"""For the stacks to be written before anything else happens to the process."""

LEAVE_MARGIN_S = 15.0
"""Beyond delay and drain: what a worker's end may take; then it is killed."""


class WorkerProcess:
    """A worker. It is started by the constructor; `watch` is its task.

    Args:
        number: its slot.
        settings: what it runs with.
        listener: the slot's socket; the process gets a duplicate.

    Raises:
        OSError: no process can be started.
    """

    def __init__(self, number: int, settings: Settings, listener: socket.socket) -> None:
        self.number = number
        self.settings = settings
        self.ready: Ready | None = None
        self.beat = Beat(ready=False, word="starting", counts={})
        self.stopped: Stopped | None = None
        self.hung = False
        self._heard = False
        self.leaving = False
        self._told = trio.Event()
        """To leave, by us or because it hung."""
        self.settled = trio.Event()
        """It is ready, or will never be."""
        self.lost = trio.Event()
        """It does not serve any more, or hangs."""
        self.ended = trio.Event()
        self.started_at = time.time()
        self._started_at = trio.current_time()
        self._ready_at: float | None = None
        ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        argv = [sys.executable, *safe_path(), "-m", "collector.workers.worker"]
        argv += [str(number), str(its.fileno()), str(listener.fileno())]
        try:
            with its, settings.as_file() as encoded:
                self._process = subprocess.Popen(  # a plain one, 2 ms: Trio's would start in a thread
                    argv, stdin=encoded, pass_fds=(its.fileno(), listener.fileno()), start_new_session=True
                )
        except OSError:
            ours.close()
            raise
        self._channel = trio.socket.from_stdlib_socket(ours)

    def __repr__(self) -> str:
        return f"<WorkerProcess {self.number} pid {self.pid} {self.state}>"

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def state(self) -> str:
        """``starting`` | ``ready`` | ``leaving`` | ``hung`` | ``ended``."""
        if self.ended.is_set():
            return "ended"
        if self.hung:
            return "hung"
        if self.leaving:
            return "leaving"
        return "starting" if self.ready is None else "ready"

    @property
    def served_s(self) -> float:
        """Seconds since it was ready; 0 where it never was."""
        return 0.0 if self._ready_at is None else trio.current_time() - self._ready_at

    @property
    def why(self) -> str:
        """In one word, how an end came that nobody asked for: ``hung`` | ``killed`` | ``failed`` | ``left``."""
        if self.hung:
            return "hung"
        status = self._process.returncode
        if status is None or status < 0:
            return "killed"
        return "left" if self.stopped is not None else "failed"

    def end(self) -> WorkerEnd:
        """How it ended; once it has."""
        counts = self.beat.counts if self.stopped is None else self.stopped.counts
        return WorkerEnd(
            status=self._process.returncode,
            counts=counts,
            reported=self.stopped is not None,
            served=self.ready is not None,
        )

    async def watch(self) -> None:
        """Read what it tells, until it has ended.

        On cancellation: it sees that we are gone, and drains.
        """
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._end_in_time, name=f"workers: end of process {self.pid}")
                await self._listen()
                with trio.move_on_after(GRACE_S) as grace:
                    await self._reap()
                if grace.cancelled_caught:
                    self._signal(signal.SIGKILL)
                    await self._reap()
                nursery.cancel_scope.cancel(reason="it has ended")
        finally:
            self._channel.close()
            self._mark_lost()
        self.ended.set()

    def leave(self) -> None:
        """Have it leave, or leave faster: SIGTERM, as often as this is called. Its time counts from the first call."""
        self.leaving = True
        self._told.set()
        self._signal(signal.SIGTERM)

    async def wait_left(self) -> None:
        """Have it leave, and wait until it has. On cancellation: it is leaving."""
        self.leave()
        await self.ended.wait()

    async def _end_in_time(self) -> None:
        """Kill it where it takes longer to leave than it may."""
        await self._told.wait()
        shutdown = self.settings.config.shutdown
        await trio.sleep(shutdown.delay_s + shutdown.drain_s + LEAVE_MARGIN_S)
        log.error("a worker does not end: killed", worker=self.number, pid=self.pid)
        self._signal(signal.SIGKILL)

    async def _listen(self) -> None:
        while True:
            datagram: bytes | None = None
            with trio.move_on_at(self._silent_until()):
                datagram = await self._channel.recv(MESSAGE_MAX_BYTES)
            if datagram is None and not self._overdue:
                datagram = self._come_meanwhile()
            if datagram is None:
                await self._silent()
            elif not datagram:
                return
            else:
                self._take(datagram)

    def _come_meanwhile(self) -> bytes | None:
        try:
            return os.read(self._channel.fileno(), MESSAGE_MAX_BYTES)
        except BlockingIOError:
            return None

    @property
    def _overdue(self) -> bool:
        """It turns its loop, and is not ready in time."""
        return self.ready is None and trio.current_time() >= self._started_at + READY_S

    def _silent_until(self) -> float:
        if self.hung:
            return trio.current_time() + GRACE_S
        if not self._heard:
            return self._started_at + START_S
        until = trio.current_time() + self.settings.config.workers.hung_s
        return until if self.ready is not None else min(until, self._started_at + READY_S)

    async def _silent(self) -> None:
        await trio.lowlevel.checkpoint()
        if self.hung:
            log.error("a hung worker is killed", worker=self.number, pid=self.pid)
            self._signal(signal.SIGKILL)
            return
        self.hung = True
        log.error("a worker hangs: its stacks follow, and it is replaced", worker=self.number, pid=self.pid)
        self._mark_lost()
        # Before it is woken, or the stacks would show it at work.
        self._signal(DUMP_SIGNAL)
        await trio.sleep(DUMP_S)
        self._told.set()
        self._signal(signal.SIGTERM)
        self._signal(signal.SIGCONT)

    def _take(self, datagram: bytes) -> None:
        self._heard = True
        try:
            message = decode(datagram)
        except msgspec.MsgspecError as error:
            log.error("a worker is not understood", worker=self.number, pid=self.pid, error=str(error))
            return
        match message:
            case Beat():
                self.beat = message
            case Ready():
                self.ready = message
                self._ready_at = trio.current_time()
                self.settled.set()
            case Stopped():
                self.stopped = message

    def _mark_lost(self) -> None:
        self.lost.set()
        self.settled.set()

    async def _reap(self) -> None:
        """Wait by the process's file descriptor: no thread, no handler of SIGCHLD."""
        await trio.lowlevel.checkpoint()
        if self._process.poll() is None:
            descriptor = os.pidfd_open(self._process.pid)
            try:
                await trio.lowlevel.wait_readable(descriptor)
            finally:
                os.close(descriptor)
            self._process.wait()

    def _signal(self, number: signal.Signals) -> None:
        if self._process.returncode is None:
            self._process.send_signal(number)
