"""What `collector spool` changes: replay now, drop for good.

Owns: the order to a live file's owner, the work on a dead process's file, the question before something is dropped.
Refuses to know: how rows are sent (`collector.ingest.replay`) and deleted (`collector.spool.operator`).

Exit codes: 0 done; 3 rows are left, or died on the way; 2 what an operator can mend, a refusal of the owner's included.
"""

import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from dataclasses import replace as changed
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

from .main import Mendable
from .spool import SpoolFile

if TYPE_CHECKING:
    from collections.abc import Iterator

    import trio

    from collector.config import Config
    from collector.rooms import Rooms
    from collector.spool.base import SpoolStatistics
    from collector.spool.inspection import Contents
    from collector.spool.operator import Choice, Done
    from collector.spool.store import Store

__all__ = ["drop", "replay"]

EXIT_DONE, EXIT_LEFT = 0, 3

ANSWER_S: Final = 30.0
"""An owner answers after 20 s at the latest, done or not."""

LOOK_S: Final = 0.1

SAY_S: Final = 5.0
"""Between two lines of a replay …"""

SAY_AGAIN_S: Final = 10.0
"""… and between two that are the same."""

T = TypeVar("T")


def replay(config: "Config", files: Sequence[SpoolFile], *, dead: bool) -> int:
    """Have the rows of these files sent to Kafka now: live ones by their owners, the others by us."""
    code = EXIT_DONE
    for file in files:
        if file.holder is not None:
            done = _ordered(file, "replay", {"dead": dead})
            also = f", {done.dead} dead ones among them" if done.dead else ""
            print(f"{file.path.name}: {file.owner} replays now: {done.rows + done.dead} rows wait{also}")
        else:
            died, left = _replay_ourselves(config, file, dead=dead)
            code = EXIT_LEFT if died or left else code
            if left:  # a signal: it is meant for the other files too
                break
        sys.stdout.flush()
    return code


def _replay_ourselves(config: "Config", file: SpoolFile, *, dead: bool) -> tuple[int, int]:
    """Be this file's process until it is empty; returns how many rows died, and how many are left."""
    import trio

    from collector.log import configure_logging

    level = "warning" if config.log.level == "info" else config.log.level
    configure_logging(changed(config.log, level=level))
    contents = _contents(file)
    if not contents.rows and not (dead and contents.dead):
        print(f"{file.path.name}: nothing to replay")
        return 0, 0
    before, after = trio.run(_replay_file, config, file.path, dead)
    died = max(0, after.dead_total - before.dead_total)
    delivered = after.replayed_total - before.replayed_total
    print(f"{file.path.name}: {delivered} delivered, {died} died, {after.rows} left")
    return died, after.rows


async def _replay_file(config: "Config", path: Path, dead: bool) -> "tuple[SpoolStatistics, SpoolStatistics]":
    """Own the file, with a collector's producer and replay, but without clients, until a signal at the latest."""
    import trio

    from collector.monitor import open_monitor
    from collector.rooms import open_rooms

    config = changed(config, spool=changed(config.spool, path=str(path.parent)))
    async with open_monitor(config, listen=False) as monitor, open_rooms(config, monitor, spool_file=path) as rooms:
        spool = rooms.spool
        assert spool is not None
        _usable(spool.statistics())
        if dead and await spool.revive() is None:
            _usable(spool.statistics())
        before = spool.statistics()
        async with trio.open_nursery() as nursery:
            # Signals are the main thread's.
            if threading.current_thread() is threading.main_thread():
                nursery.start_soon(_until_signal, nursery.cancel_scope)
            await _until_empty(rooms, path)
            nursery.cancel_scope.cancel(reason="the spool is empty")
        await rooms.close(config.shutdown.drain_s)
        return before, spool.statistics()


async def _until_empty(rooms: "Rooms", path: Path) -> None:
    import trio

    assert rooms.spool is not None
    assert rooms.replay is not None
    said, said_at = "", trio.current_time()
    await trio.lowlevel.checkpoint()
    while (now := rooms.spool.statistics()).rows:  # neither the disk nor the broker has an event for it
        _usable(now)
        state = rooms.replay.statistics()
        line = f"{path.name}: {now.rows} rows left, " + f"{state.state} {state.why}".rstrip()
        if trio.current_time() - said_at >= (SAY_S if line != said else SAY_AGAIN_S):
            said, said_at = line, trio.current_time()
            print(f"{line}; Ctrl-C stops, the rows stay", file=sys.stderr)
        await trio.sleep(LOOK_S)


async def _until_signal(work: "trio.CancelScope") -> None:
    # The scope is a parameter because a signal ends what its neighbour waits for.
    import trio

    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as received:
        async for _ in received:
            work.cancel(reason="a signal")


def _contents(file: SpoolFile) -> "Contents":
    """What is in the file, if it is one that may be changed."""
    from collector.spool.inspection import Unreadable, contents_of

    try:
        contents = contents_of(file.path)
    except Unreadable as error:
        raise Mendable(str(error)) from error
    if file.holder is None and contents.moved_to is not None:
        raise Mendable(
            f"{file.path}: some of its rows are in {contents.moved_to} already; a collector that starts in this "
            "directory goes on moving them"
        )
    return contents


def _usable(statistics: "SpoolStatistics") -> None:
    if statistics.state == "failed":
        raise Mendable(statistics.problem)


def drop(files: Sequence[SpoolFile], *, dead: bool, everything: bool, ids: Sequence[int], yes: bool) -> int:
    """Delete rows for good, counted as dropped by the operator in ledger B."""
    from collector.spool.operator import Choice, drop_from

    if ids and len(files) != 1:
        raise Mendable("--ids are those of one file: name it")
    choice = Choice(dead=dead or everything, rows=everything, ids=tuple(ids))
    counts = []
    for file in files:
        contents = _contents(file)
        count = len(set(ids)) or contents.dead + (contents.rows if everything else 0)
        counts.append((file, count))
    if not yes:
        _ask([(file, count) for file, count in counts if count])
    left = False
    for file, count in counts:
        if not count:
            print(f"{file.path.name}: nothing to drop")
            continue
        done = _dropped_by_owner(file, choice) if file.holder is not None else _with_file(file, choice, drop_from)
        print(f"{file.path.name}: dropped {done.rows} rows that waited and {done.dead} dead ones")
        if done.on_their_way:
            print(
                f"{file.path.name}: the replay has {done.on_their_way} rows; they stay until it is told how they ended"
            )
            left = True
        if done.missing:
            print(f"{file.path.name}: no row, dead or waiting, has the id {', '.join(map(str, done.missing))}")
    return EXIT_LEFT if left else EXIT_DONE


def _ask(counts: Sequence[tuple[SpoolFile, int]]) -> None:
    """Go on only if somebody who sees what will be gone says so."""
    if not counts:
        return
    total = ", ".join(f"{count} of {file.path.name}" for file, count in counts)
    if not sys.stdin.isatty():
        raise Mendable(f"would drop rows for good ({total}): say --yes")
    if input(f"Drop rows for good: {total}? [y/N] ").strip().lower() not in ("y", "yes"):
        raise Mendable("nothing was dropped")


def _dropped_by_owner(file: SpoolFile, choice: "Choice") -> "Done":
    import msgspec

    return _ordered(file, "drop", {"choice": msgspec.to_builtins(choice)})


def _ordered(file: SpoolFile, order: str, members: dict[str, object]) -> "Done":
    """Have the file's owner do it, through its admin listener."""
    import httpx  # noqa: ASYNC127  # as `collector.client.http`
    import msgspec

    from collector.spool.operator import Done

    if file.admin is None:
        raise Mendable(
            f"{file.path}: {file.owner} has it, and its lock names no admin listener: end that process first"
        )
    url = f"{file.admin}/control/spool/{order}"
    try:
        answer = httpx.post(url, json={"file": file.path.name, **members}, timeout=ANSWER_S, trust_env=False)
    except httpx.HTTPError as error:
        raise Mendable(f"{file.path}: {file.owner} has it, and does not answer at {url}: {error}") from error
    if answer.status_code != 200:
        raise Mendable(f"{file.path}: {file.owner} answered {answer.status_code}: {answer.text.strip()}")
    return msgspec.json.decode(answer.content, type=Done)


def _with_file(file: SpoolFile, choice: "Choice", act: "Callable[[Store, Choice], T]") -> T:
    """Do it in a file that has no owner, as its owner for this moment."""
    with _owned(file.path) as store:
        return act(store, choice)


@contextmanager
def _owned(path: Path) -> "Iterator[Store]":
    import sqlite3

    from collector.spool.changes import CommitInDoubt, Damaged, NotCommitted
    from collector.spool.files import SpoolFiles
    from collector.spool.trouble import explain

    files = SpoolFiles(str(path.parent), node=f"operator-{os.getpid()}", admin=None, file=path)
    try:
        store = files.open()
        try:
            yield store
            store.tidy()
        finally:
            store.close()
    except (sqlite3.Error, OSError, Damaged, NotCommitted, CommitInDoubt) as error:
        raise Mendable(explain(error, str(path)).problem) from error
    finally:
        files.close()
