# flake8: noqa: ASYNC910
# A request costs one checkpoint, where its connection waits for it; more would cost 2 µs each.
"""A transport over a socket: reads when the reactor says so, writes at once.

Owns: the socket, from when the connection is accepted until it is closed. Refuses to know: what the bytes are.

Invariant: nothing is read before somebody asks for it. What a client sends beyond that stays in the kernel, which
slows the client down; so read-ahead costs no memory here, and is bounded by the one read that is being asked for.
"""

import socket
from collections.abc import AsyncGenerator, Generator
from typing import Any

import outcome
import trio
from trio.lowlevel import Abort, RaiseCancelT, Task, checkpoint, current_task, reschedule, wait_task_rescheduled

from collector.web.lane.reactor import HANGUP, Reactor

__all__ = ["READ_BYTES", "SocketTransport"]

#: Of one read. A bytes object of that size is made for each and cut down to what came: 64 KiB are below the size from
#: which the C library asks the kernel for fresh pages every time.
READ_BYTES = 64 * 1024

#: Reads of one connection without a checkpoint, for a client that sends faster than it is read.
READS_IN_A_ROW = 8


class _Woken(outcome.Outcome[None]):
    """None, as often as it is unwrapped: making an outcome for each task that is woken costs 1 µs of 30 a request."""

    __slots__ = ()

    def unwrap(self) -> None:
        """As `outcome.Outcome.unwrap`."""

    def send(self, gen: Generator[Any, None, Any]) -> Any:
        """As `outcome.Outcome.send`."""
        return gen.send(None)

    async def asend(self, agen: AsyncGenerator[Any, None]) -> Any:
        """As `outcome.Outcome.asend`."""
        return await agen.asend(None)


_WOKEN = _Woken()


class SocketTransport:
    """One accepted, non-blocking socket.

    Args:
        sock: the transport's own from now on.
        reactor: None where there is none: reading waits as Trio does.
        send_timeout_s: how long a client may not read while something is to be sent.
    """

    __slots__ = (
        "_alone",
        "_descriptor",
        "_ended",
        "_hangup",
        "_interrupted",
        "_reactor",
        "_readable",
        "_reads",
        "_send_timeout_s",
        "_task",
        "_unsent",
        "_waits_as_trio",
        "_watched",
        "closed",
        "read_bytes",
        "socket",
    )

    def __init__(self, sock: socket.socket, reactor: Reactor | None, send_timeout_s: float) -> None:
        self.socket = sock
        self.closed = False
        self.read_bytes = READ_BYTES
        """The most that one read asks for."""
        self._descriptor = sock.fileno()
        self._reactor = reactor
        self._send_timeout_s = send_timeout_s
        # The first read is tried before the socket is watched at all: most clients send as soon as they are connected.
        self._readable = True
        self._hangup = False
        self._watched = False
        self._interrupted = False
        self._ended = False
        self._reads = 0
        self._task: Task | None = None
        self._alone: trio.CancelScope | None = None
        self._waits_as_trio = 0
        self._unsent: memoryview | None = None

    def __repr__(self) -> str:
        state = "closed" if self.closed else "reading" if self._task is not None else "open"
        return f"<SocketTransport {state}, descriptor {self._descriptor}>"

    @property
    def pending(self) -> bool:
        return self._unsent is not None

    async def receive(self) -> bytes:
        """As `Transport.receive`."""
        # One function and not several, because a task that is woken goes through each that waits.
        while True:
            if self._readable:
                data = self._read()
                if data is not None:
                    if self._reads >= READS_IN_A_ROW:
                        self._reads = 0
                        await checkpoint()
                    return data
            self._reads = 0
            if self.closed:
                raise trio.BrokenResourceError("the connection was closed")
            if self._task is not None:
                raise trio.BusyResourceError("another task is reading this connection")
            if self._watched or self._watch():
                self._task = current_task()
                await wait_task_rescheduled(self._stop_waiting)
            else:
                await self._wait_alone()
            if self._interrupted:
                self._interrupted = False
                return b""

    def receive_now(self) -> bytes | None:
        """As `Transport.receive_now`; it asks the kernel, who may know more than the reactor has told."""
        return self._read()

    def _read(self) -> bytes | None:
        """What can be read now; None: nothing."""
        size = self.read_bytes
        try:
            data = self.socket.recv(size)
        except (BlockingIOError, InterruptedError):
            self._readable = False
            return None
        except OSError as error:
            raise trio.BrokenResourceError(f"reading failed: {error}") from error
        if len(data) < size and not self._hangup:
            # Short: everything that was there. After a hang-up there is the end behind it still, without an edge.
            self._readable = False
        self._reads += 1
        return data

    def _watch(self) -> bool:
        """Have the reactor tell us from now on; False: there is none."""
        if self._reactor is None:
            return False
        self._reactor.watch(self._descriptor, self)
        self._watched = True
        return True

    async def _wait_alone(self) -> None:
        try:
            with trio.CancelScope() as self._alone:
                self._waits_as_trio += 1
                await trio.lowlevel.wait_readable(self.socket)
        except trio.ClosedResourceError as error:
            raise trio.BrokenResourceError("the connection was closed") from error
        finally:
            self._alone = None
            self._waits_as_trio -= 1
        self._readable = True

    def _stop_waiting(self, _: RaiseCancelT) -> Abort:
        self._task = None
        return Abort.SUCCEEDED

    def readable(self, flags: int) -> None:
        """The reactor's word."""
        self._readable = True
        if flags & HANGUP:
            self._hangup = True
        task = self._task
        if task is not None:
            self._task = None
            reschedule(task, _WOKEN)

    def _wake(self) -> None:
        task = self._task
        if task is not None:
            self._task = None
            reschedule(task, _WOKEN)

    def interrupt(self) -> bool:
        """As `Transport.interrupt`."""
        if self._task is None and self._alone is None:
            return False
        self._interrupted = True
        self._wake()
        if self._alone is not None:
            self._alone.cancel(reason="reading was interrupted")
        return True

    def send_now(self, data: bytes) -> bool:
        """As `Transport.send_now`."""
        if self._unsent is not None:
            self._unsent = memoryview(bytes(self._unsent) + data)
            return False
        try:
            sent = self.socket.send(data)
        except (BlockingIOError, InterruptedError):
            sent = 0
        except OSError as error:
            raise trio.BrokenResourceError(f"writing failed: {error}") from error
        if sent == len(data):
            return True
        self._unsent = memoryview(data)[sent:]
        return False

    async def send(self, data: bytes) -> None:
        """As `Transport.send`."""
        whole = False
        try:
            if data:
                self.send_now(data)
            while self._unsent is not None:
                with trio.move_on_after(self._send_timeout_s) as waiting:
                    self._waits_as_trio += 1
                    try:
                        await trio.lowlevel.wait_writable(self.socket)
                    finally:
                        self._waits_as_trio -= 1
                if waiting.cancelled_caught:
                    raise trio.BrokenResourceError(f"the client read nothing for {self._send_timeout_s:g} s")
                rest, self._unsent = self._unsent, None
                self._send_some(rest)
            whole = True
        except trio.ClosedResourceError as error:
            raise trio.BrokenResourceError("the connection was closed") from error
        finally:
            if not whole:
                self.abort()

    def _send_some(self, rest: memoryview) -> None:
        try:
            sent = self.socket.send(rest)
        except (BlockingIOError, InterruptedError):
            sent = 0
        except OSError as error:
            raise trio.BrokenResourceError(f"writing failed: {error}") from error
        self._unsent = rest[sent:] if sent < len(rest) else None

    def end(self) -> None:
        """As `Transport.end`."""
        if not self._ended and not self.closed:
            self._ended = True
            try:
                self.socket.shutdown(socket.SHUT_WR)
            except OSError:
                pass  # the client was faster

    def abort(self) -> None:
        """As `Transport.abort`."""
        if self.closed:
            return
        self.closed = True
        self._readable = False
        if self._watched:
            assert self._reactor is not None
            self._reactor.forget(self._descriptor)
        if self._waits_as_trio:
            trio.lowlevel.notify_closing(self.socket)
        self.socket.close()
        self._unsent = None
        self._wake()
