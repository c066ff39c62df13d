"""The servers under test: the collector and the baseline, started, killed and started again on the same port.

Owns: their processes, the highest memory of each, the collector's own books. Refuses to know: what a row does to them.

Invariant: when the nursery that was given here ends, every process that was started has been waited for.
"""

import json
import os
import re
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import trio

from collector.devtools.children import Child, open_child
from collector.devtools.collector_child import CollectorChild, open_collector
from collector.devtools.raw_http import NoAnswer, open_http

__all__ = ["Books", "Collector", "HasChild", "Peer", "Restartable", "Server"]

START_WITHIN_S = 30.0
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
SAMPLE_EVERY_S = 0.5


class HasChild(Protocol):
    """What has a process of its own."""

    @property
    def child(self) -> Child: ...


T = TypeVar("T", bound=HasChild)


class Restartable(Generic[T]):
    """Something with a process, opened by ``open_`` as often as a row wants, one at a time."""

    def __init__(self, nursery: trio.Nursery, open_: Callable[[], AbstractAsyncContextManager[T]]) -> None:
        # The stage's nursery: a process outlives the call that starts it.
        self._nursery = nursery
        self._open = open_
        self._leave = trio.Event()
        self._left = trio.Event()
        self.now: T

    async def start(self) -> None:
        """Open it. Raises what ``open_`` raises. On cancellation: it is closed."""
        self._leave, self._left = trio.Event(), trio.Event()
        await self._nursery.start(self._run)

    async def _run(self, *, task_status: trio.TaskStatus[None]) -> None:
        try:
            async with self._open() as self.now:
                task_status.started()
                await self._leave.wait()
        finally:
            self._left.set()

    async def stop(self) -> None:
        """Close it, as its own context manager does. On cancellation: it is closing."""
        self._leave.set()
        await self._left.wait()

    async def kill(self) -> None:
        """SIGKILL, and wait until it is gone. On cancellation: it ends all the same."""
        self.now.child.kill()
        await self.now.child.wait_ended()
        await self.stop()


@dataclass(frozen=True, slots=True, kw_only=True)
class Books:
    """What the collector says of itself when all is over."""

    differences: Mapping[str, float]
    """Of its ledgers, by the name of the metric: 0, always."""
    spool_rows: int
    """Neither replayed nor dead."""


class Server(Protocol):
    """What a row needs of either."""

    name: str
    highest_bytes: int
    idle_bytes: int

    async def start(self) -> None: ...
    async def kill(self) -> None: ...
    async def terminate(self) -> int: ...
    async def watch(self) -> None: ...


class _Process(Generic[T]):
    """A process that a row may start and end, and what it takes."""

    def __init__(self, nursery: trio.Nursery, open_: Callable[[], AbstractAsyncContextManager[T]]) -> None:
        self.process: Restartable[T] = Restartable(nursery, open_)
        self.exit_codes: list[int] = []
        self.worst_difference = 0.0
        """Of the collector's ledgers, whenever somebody looked."""
        self.highest_bytes = 0
        self.idle_bytes = 0
        """When it had started, before its first request."""

    async def start(self) -> None:
        """Start it, and return when it listens."""
        await self.process.start()
        if not self.idle_bytes:
            self.note_idle(self.process.now.child.pid)

    async def kill(self) -> None:
        """SIGKILL."""
        self.note(self.process.now.child.pid)
        await self.process.kill()

    async def terminate(self) -> int:
        """SIGTERM; returns the exit code when it has drained."""
        child = self.process.now.child
        self.note(child.pid)
        await self.process.stop()
        code = child.process.returncode
        assert code is not None
        self.exit_codes.append(code)
        return code

    def note(self, pid: int) -> None:
        """Read the kernel's high-water mark; of a process that has just ended there is none."""
        try:
            status = Path(f"/proc/{pid}/status").read_text()
        except OSError:
            return
        found = re.search(r"^VmHWM:\s+(\d+) kB", status, re.MULTILINE)
        if found is not None:
            self.highest_bytes = max(self.highest_bytes, int(found[1]) * 1024)

    def note_idle(self, pid: int) -> None:
        """What it takes before it has anything to do."""
        self.idle_bytes = int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE_BYTES


class Collector(_Process[CollectorChild]):
    """``collector serve``, wrapped."""

    name = "collector"

    def __init__(
        self,
        nursery: trio.Nursery,
        directory: Path,
        settings: Mapping[str, Mapping[str, object]],
        environ: Mapping[str, str],
    ) -> None:
        program = ("env", *(f"{name}={value}" for name, value in environ.items()))
        program = (*program, sys.executable, "-m", "tests.faults.wrapped_collector")
        super().__init__(nursery, lambda: open_collector(directory, settings, program=program))

    async def watch(self) -> None:
        """Look at its memory and its books every half second, whichever process it is now; never ends."""
        while True:
            now = self.process.now
            self.note(now.child.pid)
            try:
                with trio.move_on_after(5):
                    async with open_http(now.admin) as http:
                        found = self._differences((await http.request("GET", "/metrics")).body.decode())
                    self.worst_difference = max([self.worst_difference, *map(abs, found.values())])
            except (OSError, NoAnswer):
                pass  # it is being killed or started
            await trio.sleep(SAMPLE_EVERY_S)

    @staticmethod
    def _differences(metrics: str) -> dict[str, float]:
        found = re.findall(r"^(\w*difference\w*)(?:\{[^}]*\})? (\S+)$", metrics, re.MULTILINE)
        return {name: float(value) for name, value in found}

    async def settle(self) -> Books:
        """Wait until nothing is in work and the spool is empty; returns the books as they are then.

        On cancellation: the books of this moment are still to be asked for (`books`).
        """
        while True:
            sources = await self._sources()
            producer = sources["producer"]
            held = sum(producer[name] for name in ("queue_bytes", "waiting_bytes", "in_flight_bytes", "waiters"))
            spool = sources.get("spool", {})
            if held == 0 and spool.get("rows", 0) == 0 and spool.get("pending_rows", 0) == 0:
                return await self.books()
            await trio.sleep(0.2)

    async def _sources(self) -> dict[str, Any]:
        # A connection of its own: one that was idle for as long as a row takes has been closed.
        async with open_http(self.process.now.admin) as http:
            found: dict[str, Any] = json.loads((await http.request("GET", "/debug/stats")).body)["sources"]
        return found

    async def books(self) -> Books:
        """What it says now."""
        sources = await self._sources()
        async with open_http(self.process.now.admin) as http:
            metrics = (await http.request("GET", "/metrics")).body.decode()
        return Books(differences=self._differences(metrics), spool_rows=int(sources.get("spool", {}).get("rows", 0)))


@dataclass(frozen=True, slots=True, kw_only=True)
class _PeerProcess:
    child: Child


class Peer(_Process[_PeerProcess]):
    """FastAPI with aiokafka."""

    name = "FastAPI + aiokafka"

    def __init__(
        self, nursery: trio.Nursery, address: str, arguments: tuple[str, ...], environ: Mapping[str, str], log: Path
    ) -> None:
        super().__init__(nursery, self._open)
        self._address = address
        self._argv = (sys.executable, "-m", "tests.faults.peer_fastapi", address.rpartition(":")[2], *arguments)
        self._environ = {**os.environ, **environ}
        self._log = log

    @asynccontextmanager
    async def _open(self) -> AsyncIterator[_PeerProcess]:
        async with open_child(self._argv, name="peer", environ=self._environ, log=self._log, grace_s=20.0) as child:
            if not await self._listening(child):
                raise child.failure(f"did not start: {' | '.join(list(child.tail)[-3:])}")
            yield _PeerProcess(child=child)

    async def _listening(self, child: Child) -> bool:
        until = trio.current_time() + START_WITHIN_S
        await trio.lowlevel.checkpoint()
        while child.running and trio.current_time() < until:
            try:
                async with open_http(self._address):
                    return True
            except OSError:
                await trio.sleep(0.05)
        return False

    async def watch(self) -> None:
        """Look at its memory every half second; never ends."""
        while True:
            self.note(self.process.now.child.pid)
            await trio.sleep(SAMPLE_EVERY_S)
