"""Child processes that cannot outlive us and never hear our Ctrl-C.

Owns: starting a child in a session of its own (else the terminal's Ctrl-C stops the broker while we still drain into
it), its death with its parent (``PR_SET_PDEATHSIG``), the pump that reads its output line by line, and an ending that
is bounded: SIGTERM, a grace, SIGKILL. Refuses to know: what the child is.

Invariant: when `open_child`'s block has been left, for whatever reason, the process has been waited for.

Non-obvious:
- ``PR_SET_PDEATHSIG`` is bound to the *thread* that forked. `trio.run_process` forks in a worker thread that ends
  when it has been idle for ten seconds, and takes the child along. Hence a plain `subprocess.Popen` on Trio's own
  thread.
- It is set by a small launcher that then becomes the child, not by ``preexec_fn``, which forks instead of vforking and
  warns in a process that has threads.
"""

import os
import signal
import subprocess
import sys
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import trio

__all__ = ["Child", "ChildFailed", "bare_error", "open_child"]

#: Lines of output kept for an error message.
TAIL_LINES = 200

#: Sets the death signal, then checks that the parent did not die before it was set, then becomes the child.
_LAUNCHER = """
import os, sys
if sys.platform == "linux":
    import ctypes
    ctypes.CDLL(None).prctl(1, int(sys.argv[2]))
    if os.getppid() != int(sys.argv[1]):
        sys.exit(1)
os.execvp(sys.argv[3], sys.argv[3:])
"""


class ChildFailed(Exception):
    """A child ended by itself, or did not become ready. The message is one line; ``output`` has its last lines."""

    def __init__(self, message: str, output: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.output = tuple(output)


@dataclass(slots=True, kw_only=True)
class Child:
    """One running child process."""

    name: str
    process: "subprocess.Popen[bytes]"
    tail: "deque[str]" = field(default_factory=lambda: deque(maxlen=TAIL_LINES))
    ended: trio.Event = field(default_factory=trio.Event)

    def __repr__(self) -> str:
        state = "running" if self.process.returncode is None else f"ended {self.process.returncode}"
        return f"<Child {self.name} pid {self.process.pid} {state}>"

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def running(self) -> bool:
        """False once the process has ended and was waited for."""
        return self.process.returncode is None

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the child alone; one that has ended takes none."""
        if self.running:
            self.process.send_signal(number)

    def pause(self) -> None:
        """SIGSTOP: the kernel goes on accepting connections for it, nobody answers."""
        self.signal(signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT."""
        self.signal(signal.SIGCONT)

    def kill(self) -> None:
        """SIGKILL, to whatever it started in its session too."""
        if self.running:
            try:
                os.killpg(self.process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass

    async def wait_ended(self) -> int:
        """Wait until the process has ended and return its code. On cancellation: the process goes on."""
        await self.ended.wait()
        code = self.process.returncode
        assert code is not None
        return code

    def failure(self, what: str) -> ChildFailed:
        """Make the one-line error that says what happened, with the last lines of output attached."""
        return ChildFailed(f"{self.name} {what}", self.tail)


async def _reap(child: Child) -> None:
    """Wait by the process's file descriptor: no thread, no SIGCHLD handler. Any number of tasks may."""
    await trio.lowlevel.checkpoint()
    if child.process.poll() is None:
        if hasattr(os, "pidfd_open"):
            descriptor = os.pidfd_open(child.process.pid)
            try:
                await trio.lowlevel.wait_readable(descriptor)
            finally:
                os.close(descriptor)
            child.process.wait()
        else:
            await trio.to_thread.run_sync(child.process.wait, abandon_on_cancel=True)
    child.ended.set()


async def _pump(
    child: Child, stream: trio.lowlevel.FdStream, log: Path | None, on_line: Callable[[str], None] | None
) -> None:
    """Read until the end of the output, so that the child never blocks on a full pipe."""
    descriptor = os.open(log or os.devnull, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    rest = b""
    try:
        while chunk := await stream.receive_some(65536):
            os.write(descriptor, chunk)
            *lines, rest = (rest + chunk).split(b"\n")
            for raw in lines:
                line = raw.decode("utf-8", "replace").rstrip("\r")
                child.tail.append(line)
                if on_line is not None:
                    on_line(line)
            rest = rest[-65536:]
    finally:
        os.close(descriptor)


@contextmanager
def bare_error() -> Iterator[None]:
    """Take a lone exception out of the groups that nurseries wrapped it in: one cause, one line for the user."""
    try:
        yield
    except BaseExceptionGroup as group:
        lone = _innermost(group)
        raise lone from lone.__cause__


def _innermost(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


@asynccontextmanager
async def open_child(
    argv: Sequence[str],
    *,
    name: str,
    on_line: Callable[[str], None] | None = None,
    log: Path | None = None,
    environ: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    stop_signal: signal.Signals = signal.SIGTERM,
    death_signal: signal.Signals = signal.SIGKILL,
    grace_s: float = 5.0,
    keep_stdin: bool = False,
) -> AsyncIterator[Child]:
    """Run a child process for as long as the block lasts.

    Args:
        argv: The program and its arguments.
        name: What error messages call it.
        on_line: Called, synchronously, with each line of its output (stdout and stderr are one stream).
        log: A file to which the output is appended.
        environ: Its whole environment; ours when None.
        cwd: Its working directory; ours when None.
        keep_stdin: Give it a pipe (``child.process.stdin``) instead of the null device.
        stop_signal: What asks it to end when the block is left.
        death_signal: What it gets when we die without a word; a program with children of its own wants SIGTERM.
        grace_s: Seconds between that and SIGKILL.

    Resource handling: leaving the block, by whatever way, ends the process and waits for it.

    On cancellation: as at the end of the block.

    Raises:
        ChildFailed: The program cannot be started at all.
    """
    launcher = [sys.executable, "-I", "-S", "-c", _LAUNCHER, str(os.getpid()), str(int(death_signal)), *argv]
    try:
        process = subprocess.Popen(  # noqa: ASYNC220  # the death signal belongs to this thread, see above; ~2 ms
            launcher,
            stdin=subprocess.PIPE if keep_stdin else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=None if environ is None else dict(environ),
            cwd=cwd,
            start_new_session=True,
        )
    except OSError as error:
        raise ChildFailed(f"{name}: cannot be started: {error.strerror or error}") from error
    assert process.stdout is not None
    stream = trio.lowlevel.FdStream(os.dup(process.stdout.fileno()))
    process.stdout.close()
    child = Child(name=name, process=process)
    try:
        with bare_error():
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_reap, child, name=f"reap {name}")
                nursery.start_soon(_pump, child, stream, log, on_line, name=f"output of {name}")
                try:
                    yield child
                finally:
                    with trio.CancelScope(shield=True):  # bounded by grace_s and SIGKILL
                        await _end(child, stop_signal, grace_s)
                    nursery.cancel_scope.cancel(reason=f"{name} has ended")
    finally:
        if process.stdin is not None:
            process.stdin.close()
        child.kill()
        if child.running:
            child.process.wait()
        stream.close()


async def _end(child: Child, stop_signal: signal.Signals, grace_s: float) -> None:
    # It reaps by itself: where the block is left by cancellation, the nursery's tasks are being cancelled too.
    child.signal(stop_signal)
    child.resume()  # a stopped process does not hear SIGTERM
    with trio.move_on_after(grace_s):
        await _reap(child)
        return
    child.kill()
    await _reap(child)
