"""What an operator may order a running collector's spool to do, through its admin listener.

Owns: the orders' names and forms. Refuses to know: HTTP (`collector.monitor.control`), how it is done.

    spool/replay  {"file": NAME, "dead": false}                              replay now; ``dead``: dead rows too
    spool/drop    {"file": NAME, "dead": …, "rows": …, "ids": [ … ]}         drop these rows for good

An order names the file that it means: whoever gave it has read a lock, and the file may have changed hands since.
"""

from pathlib import Path
from typing import Protocol

import msgspec
import trio
from msgspec import Struct

from collector.monitor import Monitor, OrderRefused
from collector.spool.base import SpoolStatistics
from collector.spool.operator import Choice, Done

__all__ = ["DropOrder", "ReplayOrder", "offer_control"]


class ReplayOrder(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Body of ``spool/replay``."""

    file: str
    """Its name, without a directory."""
    dead: bool = False


class DropOrder(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Body of ``spool/drop``."""

    file: str
    choice: Choice


class _Spool(Protocol):
    async def drop(self, choice: Choice) -> Done | None: ...
    async def revive(self) -> Done | None: ...
    def statistics(self) -> SpoolStatistics: ...


class _Replay(Protocol):
    def hurry(self) -> None: ...


def offer_control(monitor: Monitor, spool: _Spool, replay: _Replay) -> None:
    """Take orders for this spool from now on."""

    def meant(file: str) -> None:
        statistics = spool.statistics()
        if file != Path(statistics.path).name:
            raise OrderRefused(f"{file} is not this process's file, {Path(statistics.path).name} is")

    def done(result: Done | None) -> Done:
        if result is None:
            raise OrderRefused(f"the spool cannot be used now: {spool.statistics().problem}")
        return result

    async def take_replay(body: bytes) -> object:
        order = msgspec.json.decode(body, type=ReplayOrder)
        meant(order.file)
        await trio.lowlevel.checkpoint()
        result = done(await spool.revive()) if order.dead else Done(rows=spool.statistics().rows)
        replay.hurry()
        return result

    async def take_drop(body: bytes) -> object:
        order = msgspec.json.decode(body, type=DropOrder)
        meant(order.file)
        return done(await spool.drop(order.choice))

    monitor.offer("spool/replay", take_replay)
    monitor.offer("spool/drop", take_drop)
