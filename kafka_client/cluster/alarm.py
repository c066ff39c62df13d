"""One sleeping task that can be woken now or at a time that moves.

Owns: the park. Refuses to know what for. Used by tasks of the producer's own nursery, never by callers.

Invariant: a ring is never lost: one that comes while the task is awake makes the next sleep end at once.

Non-obvious: a scope costs three times what the sleep does, and most sleeps end by a ring. So a sleep without a time has
none, and a time that is named during it ends it early: the task looks again, and sleeps until then.
"""

import math

import trio

__all__ = ["TaskAlarm"]


class TaskAlarm:
    """For one task."""

    __slots__ = ("_rung", "_scope", "_task")

    def __init__(self) -> None:
        self._rung = False
        self._task: trio.lowlevel.Task | None = None
        self._scope: trio.CancelScope | None = None

    def ring(self) -> None:
        """Wake it now."""
        self._rung = True
        if self._task is not None:
            task, self._task = self._task, None
            trio.lowlevel.reschedule(task)

    def ring_at(self, time: float) -> None:
        """See to it that it sleeps no longer than until then; no effect while it is awake: it will look by itself."""
        if self._scope is None:
            if self._task is not None:
                self.ring()
        elif time < self._scope.deadline:
            self._scope.deadline = time

    async def wait(self, until: float = math.inf) -> None:
        """Sleep until rung, or until this time on Trio's clock, or until another time was named. Always a checkpoint.

        On cancellation: a ring that came before stays for the next sleep.
        """
        if self._rung or (until < math.inf and until <= trio.current_time()):
            await trio.lowlevel.checkpoint()
        elif until == math.inf:
            await self._sleep()
        else:
            with trio.CancelScope(deadline=until) as self._scope:
                try:
                    await self._sleep()
                finally:
                    self._scope = None
        self._rung = False

    async def _sleep(self) -> None:
        self._task = trio.lowlevel.current_task()
        try:
            await trio.lowlevel.wait_task_rescheduled(self._abort)
        finally:
            self._task = None

    def _abort(self, _: trio.lowlevel.RaiseCancelT) -> trio.lowlevel.Abort:
        self._task = None
        return trio.lowlevel.Abort.SUCCEEDED

    def __repr__(self) -> str:
        return f"<TaskAlarm {'rung' if self._rung else 'quiet'}{', waited on' if self._task else ''}>"
