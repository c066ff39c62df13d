"""What a parked task waits for, read off its chain of awaits.

Owns: the table from trio's primitives to sentences, and which frame of a chain is ours. Refuses to know: the tree
around the task, and how the answer is shown.

A task's innermost frames are always trio's own traps; the first known frame outside them names the primitive, and the
frames outside *that* say what it is for (an accept, a read, a send). Where it stands in our code is the innermost frame
of `collector` or `kafka_client`; the ``repr`` of its ``self`` shows state and counts (style rule 14), so the tree says
not only "waits for an event" but of which delivery, with how many records.

No client may be recognised from it: an accepted connection's peer is shown truncated (/24, /48), and
only reprs that our classes wrote on purpose are shown, never a dataclass's generated one, which would print its fields.
"""

import dataclasses
import ipaddress
import os
import socket
import stat
from collections.abc import Callable, Sequence
from pathlib import PurePath
from types import FrameType
from typing import NamedTuple, TypeAlias

import trio

__all__ = ["Frame", "Wait", "describe_wait", "own_frame", "peer_name", "subject_of"]

REPR_CHARACTERS = 160
EPHEMERAL_FROM = 32768
"""Lowest port the kernel gives to a socket that dials. Source: Linux ip-sysctl, ip_local_port_range."""

_OURS = ("collector.", "kafka_client.")


class Frame(NamedTuple):
    """One step of a chain of awaits, outermost first."""

    module: str
    function: str
    line: int
    raw: FrameType

    @property
    def place(self) -> str:
        """``collector/ingest/enqueue.py:88 Enqueue.run``."""
        path = self.module.replace(".", "/") + ".py" if self.module != "__main__" else _short_path(self.raw)
        return f"{path}:{self.line} {self.function.replace('.<locals>', '')}"


class Wait(NamedTuple):
    """``kind`` groups waits ("clock", "peer", "event" …), ``text`` says this one."""

    kind: str
    text: str


_Describe: TypeAlias = Callable[[FrameType, Sequence[Frame]], Wait]


def describe_wait(frames: Sequence[Frame]) -> Wait:
    """What the innermost known primitive of the chain waits for."""
    for index in range(len(frames) - 1, -1, -1):
        frame = frames[index]
        describe = _PRIMITIVES.get((frame.module, frame.function.rpartition(".")[2]))
        if describe is not None:
            return describe(frame.raw, frames[:index])
    if not frames:
        return Wait("ended", "nothing: it has just ended")
    if any(frame.function == "wait_task_rescheduled" for frame in frames):
        return Wait("wake-up", "someone to wake it")
    return Wait("other", f"{frames[-1].module}.{frames[-1].function}")


def own_frame(frames: Sequence[Frame]) -> Frame | None:
    """The innermost frame of ours, else the innermost one that is not trio's; None for trio's own tasks."""
    for frame in reversed(frames):
        if frame.module.startswith(_OURS):
            return frame
    for frame in reversed(frames):
        if not frame.module.startswith(("trio.", "contextlib", "outcome")):
            return frame
    return None


def subject_of(frame: Frame | None) -> str | None:
    """The repr of the ``self`` of a frame of ours, where its class wrote one; None otherwise."""
    if frame is None or not frame.module.startswith(_OURS):
        return None
    subject = frame.raw.f_locals.get("self")
    kind = type(subject)
    if (
        subject is None
        or not kind.__module__.startswith(_OURS)
        or not any("__repr__" in base.__dict__ for base in kind.__mro__[:-1])
        or dataclasses.is_dataclass(kind)
    ):
        return None
    try:
        text = repr(subject)
    except Exception as error:  # the monitor's rim: a half-built object may not be able to show itself yet
        return f"<{kind.__name__}, whose repr raised {type(error).__name__}>"
    return text if len(text) <= REPR_CHARACTERS else text[: REPR_CHARACTERS - 1] + "…"


def peer_name(address: object, *, truncated: bool) -> str:
    """``10.1.2.3:9092``, or for a client ``10.1.2.0/24``; a unix socket's path, or ``?``."""
    if isinstance(address, (str, bytes)):
        return "a unix socket"
    if not isinstance(address, tuple) or len(address) < 2:
        return "?"
    host, port = str(address[0]).partition("%")[0], address[1]
    if not truncated:
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    try:
        parsed = ipaddress.ip_address(host)
    except ValueError:
        return "?"
    if isinstance(parsed, ipaddress.IPv6Address) and parsed.ipv4_mapped is not None:
        parsed = parsed.ipv4_mapped
    return str(ipaddress.ip_network((parsed, 24 if parsed.version == 4 else 48), strict=False))


def _short_path(frame: FrameType) -> str:
    return "/".join(PurePath(frame.f_code.co_filename).parts[-2:])


# The primitives. Each takes its frame and the frames around it.


def _clock(frame: FrameType, _around: Sequence[Frame]) -> Wait:
    deadline = frame.f_locals.get("deadline")
    if isinstance(deadline, (int, float)):
        return Wait("clock", f"the clock, {_duration(deadline - trio.current_time())}")
    return Wait("clock", "the clock")


def _duration(seconds: float) -> str:
    if seconds < 0:
        return f"due {-seconds:.3f} s ago"
    return f"{seconds:.3f} s to go" if seconds < 10 else f"{seconds:.0f} s to go"


def _for_ever(_frame: FrameType, around: Sequence[Frame]) -> Wait:
    if around and around[-1].function == "sleep_until":
        return _clock(around[-1].raw, around[:-1])
    return Wait("cancellation", "nothing but its cancellation")


def _children(frame: FrameType, _around: Sequence[Frame]) -> Wait:
    nursery = frame.f_locals.get("self")
    number = len(nursery.child_tasks) if isinstance(nursery, trio.Nursery) else 0
    return Wait("children", f"its {number} child tasks" if number != 1 else "its child task")


def _start(_frame: FrameType, _around: Sequence[Frame]) -> Wait:
    return Wait("start", "a child task to say that it has started")


def _event(_frame: FrameType, _around: Sequence[Frame]) -> Wait:
    return Wait("event", "an event")


def _lock(frame: FrameType, _around: Sequence[Frame]) -> Wait:
    lock = frame.f_locals.get("self")
    owner = getattr(lock, "_owner", None)
    held = f", held by {owner.name}" if isinstance(owner, trio.lowlevel.Task) else ""
    return Wait("lock", f"a lock{held}")


def _receive(_frame: FrameType, _around: Sequence[Frame]) -> Wait:
    return Wait("channel", "an item from a channel")


def _send(frame: FrameType, _around: Sequence[Frame]) -> Wait:
    channel = frame.f_locals.get("self")
    if isinstance(channel, trio.MemorySendChannel):
        statistics = channel.statistics()
        return Wait("channel", f"room in a channel ({statistics.current_buffer_used} of {statistics.max_buffer_size})")
    return Wait("channel", "room in a channel")


def _thread(frame: FrameType, _around: Sequence[Frame]) -> Wait:
    function = frame.f_locals.get("sync_fn")
    function = getattr(function, "func", function)
    return Wait("thread", f"a thread: {getattr(function, '__qualname__', '?')}")


def _process(frame: FrameType, _around: Sequence[Frame]) -> Wait:
    process = frame.f_locals.get("self")
    return Wait("child process", f"child process {getattr(process, 'pid', '?')} to end")


def _other_threads(_frame: FrameType, _around: Sequence[Frame]) -> Wait:
    return Wait("trio", "calls from other threads (trio's own task)")


def _signal(_frame: FrameType, _around: Sequence[Frame]) -> Wait:
    return Wait("signal", "a signal")


def _checkpoint(_frame: FrameType, _around: Sequence[Frame]) -> Wait:
    return Wait("runnable", "its turn")


def _parked(_frame: FrameType, around: Sequence[Frame]) -> Wait:
    if around and (describe := _PRIMITIVES.get((around[-1].module, around[-1].function.rpartition(".")[2]))):
        return describe(around[-1].raw, around[:-1])
    return Wait("wake-up", "someone to wake it")


def _readable(frame: FrameType, around: Sequence[Frame]) -> Wait:
    functions = {each.function.rpartition(".")[2] for each in around[-6:]}
    modules = {each.module for each in around[-6:]}
    if "trio._core._wakeup_socketpair" in modules:
        return _other_threads(frame, around)
    if "accept" in functions:
        return Wait("listener", f"a connection on {_local(frame.f_locals.get('fd'))}")
    return Wait("peer", f"bytes from {_peer(frame.f_locals.get('fd'))}")


def _writable(frame: FrameType, around: Sequence[Frame]) -> Wait:
    functions = {each.function.rpartition(".")[2] for each in around[-6:]}
    peer = _peer(frame.f_locals.get("fd"))
    if "connect" in functions:
        return Wait("connect", f"a TCP connect{'' if peer == '?' else ' to ' + peer}")
    return Wait("slow peer", f"{peer} to read what we wrote")


def _socket_of(fd: object) -> socket.socket | None:
    number = fd if isinstance(fd, int) else getattr(fd, "fileno", lambda: -1)()
    if number < 0:
        return None
    try:
        return socket.socket(fileno=number)
    except OSError:
        return None


def _kind_of(fd: object) -> str:
    """What a descriptor is that is no socket: a child's output, or the child itself."""
    try:
        mode = os.fstat(fd).st_mode if isinstance(fd, int) else 0
    except OSError:
        return "?"
    return "a pipe" if stat.S_ISFIFO(mode) else "a child process or a file"


def _local(fd: object) -> str:
    borrowed = _socket_of(fd)
    if borrowed is None:
        return "?"
    try:
        return peer_name(borrowed.getsockname(), truncated=False)
    finally:
        borrowed.detach()


def _peer(fd: object) -> str:
    borrowed = _socket_of(fd)
    if borrowed is None:
        return _kind_of(fd)
    try:
        return peer_name(borrowed.getpeername(), truncated=not _dialled(borrowed))
    except OSError:
        return "?"
    finally:
        borrowed.detach()


def _dialled(borrowed: socket.socket) -> bool:
    """Whether we opened this connection, so that its peer is a broker and not a client.

    Listeners set SO_REUSEADDR and what they accept inherits it, a socket that dialled has it off and a port of the
    kernel's choosing. In doubt it is taken for a client's, whose address is not shown whole.
    """
    address: object = borrowed.getsockname()
    port = address[1] if isinstance(address, tuple) else 0
    return port >= EPHEMERAL_FROM and not borrowed.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR)


_PRIMITIVES: dict[tuple[str, str], _Describe] = {
    ("trio._timeouts", "sleep_until"): _clock,
    ("trio._timeouts", "sleep_forever"): _for_ever,
    ("trio._core._run", "_nested_child_finished"): _children,
    ("trio._core._run", "start"): _start,
    ("trio._core._run", "checkpoint"): _checkpoint,
    ("trio._core._run", "cancel_shielded_checkpoint"): _checkpoint,
    ("trio._core._traps", "cancel_shielded_checkpoint"): _checkpoint,
    ("trio._sync", "wait"): _event,
    ("trio._sync", "acquire"): _lock,
    ("trio._sync", "acquire_on_behalf_of"): _lock,
    ("trio._core._parking_lot", "park"): _parked,
    ("trio._signals", "__anext__"): _signal,
    ("trio._channel", "receive"): _receive,
    ("trio._channel", "send"): _send,
    ("trio._threads", "to_thread_run_sync"): _thread,
    ("trio._subprocess", "wait"): _process,
    ("trio._core._io_epoll", "wait_readable"): _readable,
    ("trio._core._io_epoll", "wait_writable"): _writable,
    ("trio._core._io_kqueue", "wait_readable"): _readable,
    ("trio._core._io_kqueue", "wait_writable"): _writable,
    ("trio._core._entry_queue", "task"): _other_threads,
}
