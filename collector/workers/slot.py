"""One slot: a place for one worker at a time, and the order in which workers follow each other.

Owns: when a worker is started, that its successor serves before it is told to leave, the pauses between failures.
Refuses to know: processes (`collector.workers.process`), sockets, what the others do.

        ┌────────────── died, hung ── pause ───────────────┐
        ▼                                                  │
    starting ─── ready ──▶ serving ── reload ──▶ serving (the next one, ready) + leaving (the one before)
        │                                                  │
        └ never ready: pause, again                        └ stop: leaving ─▶ empty

Invariants: at most one worker is starting, and who serves is told to leave only after the next one is ready. A worker
that was never ready replaces nobody.
"""

from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

import trio

from collector.log import get_logger
from collector.workers.backoff import Backoff
from collector.workers.settings import Settings

__all__ = ["Slot", "Worker"]

log = get_logger("workers")


class Worker(Protocol):
    """What a slot has to know of a worker."""

    number: int
    settled: trio.Event
    lost: trio.Event
    ended: trio.Event

    @property
    def pid(self) -> int: ...
    @property
    def state(self) -> str: ...
    @property
    def served_s(self) -> float: ...
    @property
    def why(self) -> str: ...
    def leave(self) -> None: ...
    async def wait_left(self) -> None: ...


W = TypeVar("W", bound=Worker)


class Slot(Generic[W]):
    """A place for a worker; `keep` is its task.

    Args:
        number: from 0.
        settings: what its next worker runs with.
        launch: starts a worker; raises OSError where no process can be started.
        changed: told after anything that `serving` or `state` says has changed.
        lost: told of each worker that went without being asked.
    """

    def __init__(
        self,
        number: int,
        settings: Settings,
        launch: Callable[["Slot[W]"], W],
        *,
        backoff: Backoff | None = None,
        changed: Callable[[], object] = lambda: None,
        lost: Callable[[W], object] = lambda worker: None,
    ) -> None:
        self.number = number
        self.settings = settings
        self.serving: W | None = None
        self.starting: W | None = None
        self.tried = trio.Event()
        """Its first worker is ready, or has failed."""
        self.ended = trio.Event()
        """It was stopped, and its worker does not serve any more."""
        self._launch = launch
        self._backoff = backoff if backoff is not None else Backoff()
        self._changed = changed
        self._lost = lost
        self._turn = trio.Lock()
        self._stopping = False
        self._pausing = False
        self._news = trio.Event()
        self._serves = trio.CancelScope()
        """For as long as the one that `keep` watches is `serving`."""

    def __repr__(self) -> str:
        return f"<Slot {self.number} {self.state}>"

    @property
    def state(self) -> str:
        """``serving`` | ``starting`` | ``pausing`` (before the next try) | ``stopped``."""
        if self._stopping:
            return "stopped"
        if self.serving is not None:
            return "serving"
        return "pausing" if self._pausing else "starting"

    async def keep(self) -> None:
        """Keep a worker alive until `stop`. On cancellation: whoever serves goes on."""
        await trio.lowlevel.checkpoint()
        while not self._stopping:
            gone: W | None = None
            async with self._turn:
                if self.serving is None and not self._stopping:
                    gone = await self._try()
            self.tried.set()
            # One that was replaced may be leaving for long: its successor is watched at once.
            while self.serving is not None:
                gone = self.serving
                with trio.CancelScope() as self._serves:
                    await gone.lost.wait()
                if self.serving is gone:
                    self.serving = None
            if not self._stopping:
                await self._pause(gone)
        self.tried.set()
        self.ended.set()

    async def replace(self, settings: Settings) -> bool:
        """Have a worker with these settings take over; whether it did. Returns when the one before has ended.

        On cancellation: the slot goes on with whoever serves by then.
        """
        async with self._turn:
            if self._stopping:
                return False
            before, kept = self.serving, self.settings
            self.settings = settings
            took_over = False
            try:
                after = await self._try()
                took_over = after is not None and self.serving is after
            finally:
                if not took_over:
                    self.settings = kept
            self._news.set()  # who pauses need not
        if took_over and before is not None:
            await before.wait_left()
        return took_over

    def stop(self) -> None:
        """Start nobody any more, and have whoever is here leave; each call is one more signal to them."""
        self._stopping = True
        self._news.set()
        for worker in (self.serving, self.starting):
            if worker is not None:
                worker.leave()
        self._changed()

    async def _try(self) -> W | None:
        """Start a worker, which serves if it becomes ready; None where there is no process."""
        try:
            worker = self.starting = self._launch(self)
        except OSError as error:
            log.error("no worker can be started", worker=self.number, error=str(error))
            await trio.lowlevel.checkpoint()
            return None
        self._changed()
        try:
            await worker.settled.wait()
        finally:
            self.starting = None
        if not worker.lost.is_set():
            self.serving = worker
            self._serves.cancel(reason="somebody else serves")
        self._changed()
        return worker

    async def _pause(self, gone: W | None) -> None:
        """Say who is gone, and wait before the next one."""
        pause_s = self._backoff.after(0.0 if gone is None else gone.served_s)
        if gone is not None:
            log.error(
                "a worker is gone",
                worker=self.number,
                pid=gone.pid,
                why=gone.why,
                served_s=round(gone.served_s, 1),
                next_in_s=round(pause_s, 1),
            )
            self._lost(gone)
        self._pausing = pause_s > 0
        self._changed()
        self._news = trio.Event()
        with trio.move_on_after(pause_s):
            await self._news.wait()
        self._pausing = False
