"""The live nursery tree: every task of this trio run, where it stands, and what it waits for.

Owns: walking the tree and reading one task. Refuses to know: how it is shown (`tasks_page`).

Four questions bring somebody here at night, and the tree answers them without a debugger: what does everything wait
for; which task has not moved, and for how long; what was cancelled and lives on (a shielded send, a thread), and who
cancelled it; and how much time the deadline leaves.

trio keeps three of the facts private (the effective deadline, the reason of a cancellation, the count of steps). They
are read here and nowhere else, and a trio without them costs the fact, not the page.

The walk is synchronous per `CHUNK` tasks and gives way between: ten thousand connections must not block the loop that
serves them. What ends meanwhile is shown as ended.
"""

import gc
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from types import FrameType
from typing import Protocol, cast
from weakref import WeakKeyDictionary

import trio

from .waits import Frame, Wait, describe_wait, own_frame, subject_of

__all__ = ["NurseryNode", "Stillness", "TaskNode", "all_tasks", "capture_tree"]

_TASK_REPR = re.compile(r"<Task ['\"](.*)['\"] at 0x[0-9a-f]+>")

# coroutine.__await__(), and one step of an async generator.
_WRAPPERS = frozenset({"coroutine_wrapper", "async_generator_asend", "async_generator_athrow", "anext_awaitable"})

CHUNK = 100
"""Tasks read between two checkpoints, ~3 ms."""


@dataclass(slots=True, kw_only=True)
class TaskNode:
    """One task. Durations are seconds from the moment of the capture."""

    name: str
    wait: Wait
    place: str | None
    """Innermost frame of our code, ``collector/run.py:88 run``."""
    subject: str | None
    """``repr`` of the object whose method that is."""
    frames: Sequence[str]
    """The chain of awaits, outermost first."""
    deadline_s: float | None
    """Until the nearest deadline that binds it; None: no deadline."""
    cancelled: str | None
    """Why it is cancelled, where it is and has not ended yet; who did it is in the text."""
    shielded: bool
    """An enclosing scope is cancelled, a shield keeps it from this task."""
    runnable: bool
    still_s: float | None
    """It has not moved for at least this long; None: not known."""
    nurseries: list["NurseryNode"] = field(default_factory=list)


@dataclass(slots=True, kw_only=True)
class NurseryNode:
    """One nursery inside a task."""

    children: list[TaskNode]
    deadline_s: float | None
    cancelled: bool
    closed: bool


class _Scope(Protocol):
    shield: bool
    deadline: float
    _cancel_reason: object


class _Status(Protocol):
    """What this module reads of trio's private cancel status."""

    effectively_cancelled: bool
    _scope: _Scope
    _parent: "_Status | None"

    def effective_deadline(self) -> float: ...


class Stillness:
    """Since when each task has not been scheduled; `look` once in a while makes it finer."""

    def __init__(self) -> None:
        self._seen: WeakKeyDictionary[trio.lowlevel.Task, tuple[int, float]] = WeakKeyDictionary()

    async def look(self) -> int:
        """Note every task's step count; returns the number of tasks. Gives way every thousand tasks.

        On cancellation: what was noted stays.
        """
        number = 0
        for number, task in enumerate(all_tasks(), 1):
            self.of(task)
            if number % 1000 == 0:
                await trio.lowlevel.checkpoint()
        await trio.lowlevel.checkpoint()
        return number

    def of(self, task: trio.lowlevel.Task) -> float | None:
        """Seconds since the task was last known to have moved; None where that cannot be known."""
        steps = cast("int | None", getattr(task, "_schedule_points", None))
        if steps is None:
            return None
        now = trio.current_time()
        known = self._seen.get(task)
        if known is None or known[0] != steps:
            self._seen[task] = (steps, now)
            return 0.0
        return now - known[1]


def all_tasks() -> Iterator[trio.lowlevel.Task]:
    """Every task of this run, parents before children."""
    root = trio.lowlevel.current_root_task()
    pending = [root] if root is not None else []
    while pending:
        task = pending.pop()
        yield task
        for nursery in task.child_nurseries:
            pending.extend(nursery.child_tasks)


async def capture_tree(stillness: Stillness | None = None) -> TaskNode:
    """The tree as it is now.

    Returns:
        The node of trio's init task; the program's main task is in its last nursery.

    On cancellation: ends at the next checkpoint, nothing to undo.
    """
    root = trio.lowlevel.current_root_task()
    assert root is not None, "there is no trio run"
    read = 0
    await trio.lowlevel.checkpoint()
    top = _read(root, stillness)
    pending = [(root, top)]
    while pending:
        task, node = pending.pop()
        for nursery in list(task.child_nurseries):
            children: list[TaskNode] = []
            for child in sorted(nursery.child_tasks, key=lambda each: each.name):
                child_node = _read(child, stillness)
                children.append(child_node)
                pending.append((child, child_node))
                read += 1
                if read % CHUNK == 0:
                    await trio.lowlevel.checkpoint()
            node.nurseries.append(
                NurseryNode(
                    children=children,
                    deadline_s=_until(nursery.cancel_scope.deadline),
                    cancelled=nursery.cancel_scope.cancel_called,
                    closed=bool(getattr(nursery, "_closed", False)),
                )
            )
    return top


def _read(task: trio.lowlevel.Task, stillness: Stillness | None) -> TaskNode:
    frames = list(_chain(task.coro))
    here = task is trio.lowlevel.current_task()
    # On the scheduler's queue: it has a value to be resumed with.
    runnable = getattr(task, "_next_send_fn", None) is not None and not here
    wait = Wait("running", "nothing: it is drawing this page") if here else describe_wait(frames)
    own = own_frame(frames)
    status = cast("_Status | None", getattr(task, "_cancel_status", None))
    cancelled, shielded = _cancellation(status)
    return TaskNode(
        name=task.name,
        wait=Wait("runnable", "its turn") if runnable else wait,
        place=own.place if own is not None else None,
        subject=subject_of(own),
        frames=tuple(frame.place for frame in frames if not frame.module.startswith("trio._core._traps")),
        deadline_s=None if wait.kind == "clock" else _until(_deadline(status)),
        cancelled=cancelled,
        shielded=shielded,
        runnable=runnable,
        still_s=stillness.of(task) if stillness is not None else None,
    )


def _chain(awaited: object) -> Iterator[Frame]:
    """The chain of awaits, outermost first.

    `trio.lowlevel.Task.iter_await_frames` ends at an object with an ``__await__`` of its own, as Hypercorn's
    connections are: coroutine wrappers, like the steps of async generators, keep what they drive where only the
    garbage collector sees it. Source: https://github.com/python/cpython/issues/76991
    """
    while awaited is not None:
        frame: FrameType | None = None
        inner: object = None
        if hasattr(awaited, "cr_frame"):
            frame, inner = awaited.cr_frame, getattr(awaited, "cr_await", None)
        elif hasattr(awaited, "gi_frame"):
            frame, inner = awaited.gi_frame, getattr(awaited, "gi_yieldfrom", None)
        elif hasattr(awaited, "ag_frame"):
            frame, inner = awaited.ag_frame, getattr(awaited, "ag_await", None)
        elif type(awaited).__name__ in _WRAPPERS:
            inner = next((each for each in gc.get_referents(awaited) if _drives(each)), None)
        if frame is not None:
            yield Frame(str(frame.f_globals.get("__name__", "?")), frame.f_code.co_qualname, frame.f_lineno, frame)
        awaited = inner


def _drives(value: object) -> bool:
    return any(hasattr(value, name) for name in ("cr_frame", "gi_frame", "ag_frame"))


def _deadline(status: _Status | None) -> float:
    if status is None or status.effectively_cancelled:
        return math.inf
    return status.effective_deadline()


def _until(deadline: float) -> float | None:
    return deadline - trio.current_time() if math.isfinite(deadline) else None


def _cancellation(status: _Status | None) -> tuple[str | None, bool]:
    """(why it is cancelled or None, whether a shield keeps an outer cancellation away)."""
    if status is None:
        return None, False
    if status.effectively_cancelled:
        reason: object = getattr(status._scope, "_cancel_reason", None)
        return _reason(reason), False
    outer: _Status | None = status
    behind_shield = False
    while outer is not None:
        behind_shield = behind_shield or outer._scope.shield
        outer = outer._parent
        if outer is not None and outer.effectively_cancelled:
            return _reason(getattr(outer._scope, "_cancel_reason", None)), behind_shield
    return None, False


def _reason(reason: object) -> str:
    source: object = getattr(reason, "source", None)
    text: object = getattr(reason, "reason", None)
    by: object = getattr(reason, "source_task", None)
    if source == "deadline":
        return "its deadline passed"
    said = f"“{text}”" if text else str(source or "cancelled")
    if not by or by == "None":
        return said
    named = _TASK_REPR.fullmatch(str(by))
    return f"{said}, by {named[1] if named else by}"
