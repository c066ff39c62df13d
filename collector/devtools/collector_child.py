"""A collector in a process of its own: ``collector serve`` with a configuration made for the occasion.

Owns: the configuration file, the start, the addresses it reports, the reading of its own figures. Refuses to know: what
it is started for.

Invariant: when `open_collector` yields, it listens; when its block is left, the process has ended, and if it was not
killed both of its ledgers balance.
"""

import json
import math
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import trio

from collector.devtools.children import Child, open_child
from collector.devtools.raw_http import HttpConnection, open_http

__all__ = ["CollectorChild", "open_collector"]

START_TIMEOUT_S = 30.0
#: More than delay, drain and the producer's grace of any configuration that a test uses.
GRACE_S = 40.0


@dataclass(slots=True, kw_only=True)
class CollectorChild:
    """A running collector."""

    child: Child
    http: str
    ws: str
    admin: str
    log: list[dict[str, Any]] = field(repr=False)
    """Its log so far, one event each."""

    asking: HttpConnection = field(repr=False)
    """Kept open between questions: a connection for each would show up in the tasks that are counted."""

    async def ask(self, path: str) -> Any:
        """Ask the admin listener for a JSON page. One task at a time. On cancellation: ask no more."""
        reply = await self.asking.request("GET", path)
        return json.loads(reply.body)

    async def stats(self) -> dict[str, Any]:
        """What ``/debug/stats`` says now. On cancellation: as `ask`."""
        found: dict[str, Any] = await self.ask("/debug/stats")
        return found

    async def task_count(self) -> int:
        """How many tasks live in it, those of this question included. On cancellation: as `ask`."""
        return int((await self.ask("/debug/tasks?format=json"))["tasks"])

    async def wait_quiet(self, *, tasks: float = math.inf) -> dict[str, Any]:
        """Wait until nothing is in work, no client is connected, and at most so many tasks live; returns the figures.

        On cancellation: as `ask`.
        """
        while True:
            sources: dict[str, Any] = (await self.stats())["sources"]
            producer = sources["producer"]
            held = sum(producer[name] for name in ("queue_bytes", "waiting_bytes", "in_flight_bytes", "waiters"))
            if held == sources["connections"]["open"] == 0 and await self.task_count() <= tasks:
                return sources
            await trio.sleep(0.1)

    def resident_bytes(self) -> int:
        """The kernel's figure of its resident memory."""
        pages = Path(f"/proc/{self.child.pid}/statm").read_text().split()[1]
        return int(pages) * 4096


@asynccontextmanager
async def open_collector(
    directory: Path,
    settings: Mapping[str, Mapping[str, object]],
    *,
    program: Sequence[str] = (sys.executable, "-m", "collector"),
) -> AsyncIterator[CollectorChild]:
    """Run ``collector serve`` for as long as the block lasts; any key is taken, ports are free ones.

    Args:
        directory: Where its configuration and log are written; made if missing.
        settings: Tables of the configuration and their keys.
        program: What to run in its place, with the same arguments.

    Raises:
        ChildFailed: It did not start.

    On cancellation: as at the end of the block: SIGTERM, and it drains.
    """
    tables: dict[str, dict[str, object]] = {
        "http": {"bind": "127.0.0.1:0"},
        "admin": {"bind": "127.0.0.1:0"},
        "keys": {"open": True},
        "shutdown": {"delay_s": 0.0},
        "log": {"format": "json"},
    }
    # Its own, or collectors of two tests would take each other's events over.
    tables["spool"] = {"path": str((directory / "spool").absolute())}
    for name, keys in settings.items():
        tables[name] = {**tables.get(name, {}), **keys}
    file = _write(directory, tables)
    listening: dict[str, str] = {}
    ready = trio.Event()
    log: list[dict[str, Any]] = []

    def on_line(line: str) -> None:
        try:
            event = json.loads(line)
        except ValueError:
            return  # a traceback's lines; they are in the child's tail
        log.append(event)
        if event.get("event") == "listening":
            listening.update({name: event[name] for name in ("http", "ws", "admin")})
            ready.set()

    argv = [*program, "serve", "--config", str(file)]
    async with open_child(
        argv, name="collector", on_line=on_line, log=file.parent / "collector.log", grace_s=GRACE_S
    ) as child:
        await _wait_ready(child, ready)
        admin = listening["admin"]
        async with open_http(admin) as asking:
            yield CollectorChild(
                child=child,
                http=listening["http"],
                ws=listening["ws"],
                admin=admin if "://" in admin else f"http://{admin}",
                log=log,
                asking=asking,
            )
    _check_ledgers(log)


def _check_ledgers(log: Sequence[Mapping[str, Any]]) -> None:
    """The last line of one that was not killed has its books."""
    for event in log:
        if event.get("event") == "stopped":
            assert event["difference"] == 0, f"ledger A does not balance: {event}"
            assert event.get("spool_difference", 0) == 0, f"ledger B does not balance: {event}"


def _write(directory: Path, tables: Mapping[str, Mapping[str, object]]) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    # JSON's strings, numbers, booleans and arrays are TOML's too.
    lines = []
    for name, keys in tables.items():
        lines += [f"[{name}]", *(f"{key} = {json.dumps(value)}" for key, value in keys.items())]
    file = directory / "collector.toml"
    file.write_text("\n".join(lines) + "\n")
    return file


async def _wait_ready(child: Child, ready: trio.Event) -> None:
    async def ended() -> None:
        await child.wait_ended()
        nursery.cancel_scope.cancel(reason="the collector has ended")

    with trio.move_on_after(START_TIMEOUT_S):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ended)
            await ready.wait()
            nursery.cancel_scope.cancel(reason="the collector listens")
    if not ready.is_set():
        raise child.failure(f"did not start: {' | '.join(list(child.tail)[-5:])}")
