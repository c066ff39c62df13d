"""The supervisor: the slots, what a signal does to them, and how they end together.

Owns: the nursery tree of the parent process, its signals, the reload, the last line of the log. Refuses to know: how a
worker is kept alive (`slot`), how its process is (`process`), what it serves.

    supervise()
     ├ signals           SIGTERM, SIGINT: leave; SIGHUP: reload
     ├ admin listener    `collector.workers.admin`
     ├ who waits on a slot without a worker is answered 503
     └[W] workers        ├ slot × count: `Slot.keep`
                         └ process × worker: `WorkerProcess.watch`

A reload reads the configuration again and replaces the workers, with the code that is installed by then, one slot after
the other: the next one accepts before the one before is told to leave. A configuration that is refused changes nothing.
Where a new worker does not become ready the rest of the old ones stay as they are.

Leaving: each SIGTERM or SIGINT is passed on to every worker, so that a second one skips what is left of the delay and a
third one cuts what is in work, as `collector.run` has it. Workers are in sessions of their own: a terminal's Ctrl-C
comes to them through us alone.
"""

import signal
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial

import trio

from collector.log import configure_logging, get_logger
from collector.monitor.listeners import address_of, bind_listener, serve_app
from collector.monitor.opening import kept_alive
from collector.web.websocket.frames import PATH as WEBSOCKET_PATH
from collector.workers.admin import make_admin_app, make_metrics_app
from collector.workers.process import WorkerProcess
from collector.workers.settings import Refused, Settings
from collector.workers.slot import Slot
from collector.workers.sockets import SlotSockets, open_sockets
from collector.workers.statistics import Statistics, WorkerStatistics
from collector.workers.totals import EXIT_CONFIGURATION, Totals

__all__ = ["Running", "Supervisor", "supervise"]

log = get_logger("workers")

LOOK_S = 0.25
"""Between two looks at the queues of slots without a worker."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """Where it listens. URLs have no slash at their end; ``ws`` is the whole websocket URL."""

    http: str
    ws: str
    admin: str


class Supervisor:
    """The slots of one address.

    Args:
        settings: what the first workers run with.
        sockets: one for each slot.
        read_anew: the configuration as it stands now, for a reload; raises Refused.
    """

    def __init__(
        self, settings: Settings, sockets: SlotSockets, read_anew: Callable[[Settings], Awaitable[Settings]]
    ) -> None:
        self.settings = settings
        self.slots: list[Slot[WorkerProcess]] = []
        self.totals = Totals()
        self.restarts: Counter[str] = Counter()
        """Workers that went without being asked, by how."""
        self.reloads: Counter[str] = Counter()
        """By how they ended: ``done`` | ``refused`` | ``failed``."""
        self.errors: Counter[str] = Counter()
        """Failures of our own admin listeners, by listener."""
        self.reloading = False
        self.leaving = False
        self.processes: set[WorkerProcess] = set()
        self._sockets = sockets
        self._read_anew = read_anew
        self._wanted = trio.Event()
        """A reload is."""
        self._refused_at_start = False
        self.served = False
        """Somebody has, once."""
        self._first = trio.Event()
        """Somebody has served, or nobody will."""
        self._nursery: trio.Nursery | None = None

    def __repr__(self) -> str:
        return f"<Supervisor {[slot.state for slot in self.slots]}>"

    def statistics(self) -> Statistics:
        """The slots and what was counted, as they are now."""
        return Statistics(
            workers=tuple(map(_statistics_of, self.slots)),
            leaving=self.leaving,
            reloading=self.reloading,
            restarts=dict(self.restarts),
            reloads=dict(self.reloads),
            errors=dict(self.errors),
        )

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> int:
        """Keep the slots until `leave`; returns the exit code.

        It is started when each slot has tried and one of them serves, or when none ever will.

        On cancellation: the workers see that we are gone, and drain.
        """
        async with trio.open_nursery() as nursery, trio.open_nursery() as helpers:
            self._nursery = nursery
            self._add_slots(len(self._sockets))
            helpers.start_soon(self._reloads, name="workers: reload")
            helpers.start_soon(self._answer_waiting, name="workers: who waits in vain")
            for slot in list(self.slots):
                await slot.tried.wait()
            await self._first.wait()
            task_status.started()
            while any(not slot.ended.is_set() for slot in self.slots):
                await next(slot for slot in self.slots if not slot.ended.is_set()).ended.wait()
            helpers.cancel_scope.cancel(reason="the slots are empty")
        code = EXIT_CONFIGURATION if self._refused_at_start else self.totals.code
        log.info(
            "stopped",
            code=code,
            workers=self.totals.workers,
            unreported=self.totals.unreported,
            **self.totals.counts,
        )
        return code

    def leave(self) -> None:
        """Have every worker leave; each call is one more signal to them."""
        again, self.leaving = self.leaving, True
        self._first.set()
        for slot in self.slots:
            slot.stop()
        current = {slot.serving for slot in self.slots} | {slot.starting for slot in self.slots}
        for process in self.processes - current:
            # It is leaving already: the first signal of ours is not its second.
            if again:
                process.leave()

    def reload(self) -> None:
        """Have every worker replaced, with the configuration as it stands; one after the other."""
        self._wanted.set()

    # Slots and processes

    def _add_slots(self, count: int) -> None:
        assert self._nursery is not None
        # A signal may have come while their sockets were opened.
        while len(self.slots) < count and not self.leaving:
            slot = Slot(len(self.slots), self.settings, self._launch, changed=self._spread, lost=self._count_lost)
            self.slots.append(slot)
            self._nursery.start_soon(slot.keep, name=f"workers: slot {slot.number}")

    def _launch(self, slot: Slot[WorkerProcess]) -> WorkerProcess:
        assert self._nursery is not None
        process = WorkerProcess(slot.number, slot.settings, self._sockets[slot.number])
        self.processes.add(process)
        self._nursery.start_soon(self._watch, process, name=f"workers: process {process.pid} of slot {slot.number}")
        return process

    async def _watch(self, process: WorkerProcess) -> None:
        await process.watch()
        self.processes.discard(process)
        end = process.end()
        self.totals.add(end, last=self.leaving)
        if end.status == EXIT_CONFIGURATION and not self.served and not self.leaving:
            # It has said why. The others run with the same.
            self._refused_at_start = True
            self.leave()

    def _count_lost(self, worker: WorkerProcess) -> None:
        self.restarts[worker.why] += 1

    def _spread(self) -> None:
        """New connections go where somebody accepts them."""
        serving = [slot.number for slot in self.slots if slot.serving is not None]
        if serving:
            self.served = True
            self._first.set()
        self._sockets.spread_over(serving)

    async def _answer_waiting(self) -> None:
        """Who waits on a slot that has to pause would wait for longer than anybody does."""
        while True:
            for slot in self.slots:
                if slot.state == "pausing" and (refused := self._sockets.refuse(slot.number)):
                    log.warning("nobody accepts: answered 503", worker=slot.number, connections=refused)
            await trio.sleep(LOOK_S)

    # Reload

    async def _reloads(self) -> None:
        while True:
            await self._wanted.wait()
            self._wanted = trio.Event()
            if self.leaving:
                continue
            self.reloading = True
            try:
                result = await self._reload()
            finally:
                self.reloading = False
            self.reloads[result] += 1

    async def _reload(self) -> str:
        """Its result, for the count. On cancellation: slots that were not replaced go on as they are."""
        await trio.lowlevel.checkpoint()
        log.info("reload: the configuration is read again")
        try:
            settings = await self._read_anew(self.settings)
        except Refused as refusal:
            log.error("reload: refused, everything stays as it is", why=str(refusal))
            return "refused"
        count = settings.config.workers.processes
        for slot in self.slots[:count]:
            if not await slot.replace(settings):
                if not self.leaving:
                    log.error("reload: a new worker does not become ready; the other old ones stay", worker=slot.number)
                return "failed"
            log.info("reload: replaced", worker=slot.number)
        self.settings = settings
        configure_logging(settings.config.log)
        try:
            if not self.leaving:
                await self._resize(count)
        except OSError as error:
            log.error("reload: no sockets for more workers", why=str(error))
            return "failed"
        log.info("reload: done", workers=len(self.slots))
        return "done"

    async def _resize(self, count: int) -> None:
        before = len(self.slots)
        await self._sockets.grow(count)
        self._add_slots(count)
        for slot in self.slots[before:]:
            await slot.tried.wait()
        while len(self.slots) > count and not self.leaving:
            slot = self.slots[-1]
            await self._sockets.empty_last()
            slot.stop()
            await slot.ended.wait()
            # Nobody of it is left that could accept. While leaving, sockets stay until the end.
            self.slots.pop()
            self._sockets.close_last()


def _statistics_of(slot: Slot[WorkerProcess]) -> WorkerStatistics:
    worker = slot.serving
    if worker is None or worker.ready is None:
        return WorkerStatistics(number=slot.number, state=slot.state, ready=False, word=slot.state)
    return WorkerStatistics(
        number=slot.number,
        state=slot.state,
        ready=worker.beat.ready,
        word=worker.beat.word,
        pid=worker.pid,
        served_s=worker.served_s,
        admin=worker.ready.admin,
    )


async def supervise(
    settings: Settings,
    read_anew: Callable[[Settings], Awaitable[Settings]],
    *,
    task_status: trio.TaskStatus[Running] = trio.TASK_STATUS_IGNORED,
) -> int:
    """Run the workers until a signal has them leave; returns the exit code of all of them.

    0: all drained. 3: somebody's outcomes are unknown: it said so, or was killed. 1: one ended by a bug. 2: the first
    workers refused the configuration.

    Raises:
        OSError: an address cannot be bound; the message names the key.

    On cancellation: the workers see that we are gone, and drain.
    """
    config = settings.config
    async with AsyncExitStack() as stack:
        admin = stack.enter_context(bind_listener("admin.bind", config.admin.bind))
        metrics = None
        if config.metrics.bind is not None:
            metrics = stack.enter_context(bind_listener("metrics.bind", config.metrics.bind))
        sockets = await open_sockets(config.http, config.workers.processes)
        stack.callback(sockets.close)
        supervisor = Supervisor(settings, sockets, read_anew)
        secure = "" if config.http.ssl_certfile is None else "s"
        running = Running(
            http=f"http{secure}://{sockets.address}",
            ws=f"ws{secure}://{sockets.address}{WEBSOCKET_PATH}",
            admin=address_of(admin),
        )
        code = 0

        async def work(*, task_status: trio.TaskStatus[None]) -> None:  # noqa: ASYNC128  # run() reports
            nonlocal code
            code = await supervisor.run(task_status=task_status)
            nursery.cancel_scope.cancel(reason="the workers have ended")

        async with trio.open_nursery() as nursery:

            def failed(where: str) -> None:
                supervisor.errors[where] += 1

            listeners = {"admin": (make_admin_app(supervisor.statistics), admin)}
            if metrics is not None:
                listeners["metrics"] = (make_metrics_app(supervisor.statistics), metrics)
            for name, (app, listener) in listeners.items():
                serve = partial(serve_app, app, listener)
                nursery.start_soon(kept_alive, failed, f"{name} server", serve, name=f"workers: {name} server")
            await nursery.start(_signals, supervisor)
            await nursery.start(work)
            if supervisor.served:
                log.info("listening", http=running.http, ws=running.ws, admin=running.admin)
            task_status.started(running)
        return code


async def _signals(supervisor: Supervisor, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as received:
        task_status.started()
        async for number in received:
            log.info("signal", name=signal.Signals(number).name)
            if number == signal.SIGHUP:
                supervisor.reload()
            else:
                supervisor.leave()
