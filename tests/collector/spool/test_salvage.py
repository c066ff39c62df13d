"""A salvage that is interrupted, and one of which little is left: the rows are found, and the new file works."""

import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import trio

from collector.spool import open_spool, salvage, writer
from collector.spool.base import Stored
from collector.spool.changes import Changes, NewRow
from collector.spool.schema import encode
from collector.spool.store import Store
from kafka_client.outcome import Record
from tests.collector.spool.rows import config_of, values_of
from tests.collector.spool.test_disk import store, until
from tests.collector.spool.test_doubt import lose_account

VALUES = [b"%02d" % number for number in range(50)]


class Killed(BaseException):
    pass


class Steps:
    """What changes the directory, and a kill after one of them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._monkeypatch = monkeypatch
        self.until_kill = -1

    def watch(self, owner: Any, name: str, really: Callable[..., Any] | None = None) -> None:
        really = really or getattr(owner, name)

        def step(*args: Any, **settings: Any) -> Any:
            result = really(*args, **settings)
            self.until_kill -= 1
            if self.until_kill == 0:
                raise Killed
            return result

        self._monkeypatch.setattr(owner, name, step)


def no_links(*_: object) -> None:
    raise PermissionError("no links on this disk")


def fill(file: Path) -> None:
    """Rows in the file and, as after a kill, rows in its log."""
    filled = Store(str(file))
    rows = [
        NewRow(id=number, state=0, key_hash=5, size=99, stored_at_ms=1, payload=encode(Record("t", value, b"k"), "app"))
        for number, value in enumerate(VALUES, 1)
    ]
    filled.commit(Changes(rows=rows[:25]))
    filled.copied()
    filled.commit(Changes(rows=rows[25:]))
    log = Path(f"{file}-wal")
    as_killed = {part: part.read_bytes() for part in (file, log)}
    filled.close()
    for part, written in as_killed.items():
        part.write_bytes(written)


@pytest.mark.parametrize("links", [True, False])
@pytest.mark.parametrize("own", [True, False])
async def test_rows_are_not_stranded_by_a_kill_after_any_step_of_a_salvage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool, own: bool
) -> None:
    await trio.lowlevel.checkpoint()
    for kill_after in count(1):
        directory = tmp_path / str(kill_after)
        directory.mkdir()
        file = directory / "old.sqlite3"
        fill(file)
        with monkeypatch.context() as patched:
            steps = Steps(patched)
            if links:
                steps.watch(os, "link")
            else:
                patched.setattr(os, "link", no_links)
            for owner, name in ((Path, "rename"), (Path, "unlink"), (os, "fsync")):
                steps.watch(owner, name)
            steps.until_kill = kill_after
            try:
                salvage.salvage(file)
            except Killed:
                pass
            else:
                assert kill_after > 6
                break
        if links:
            assert file.exists()
        if own:
            async with open_spool(config_of(directory), node="fresh") as opened:
                assert opened.statistics().path == str(file)
                assert await values_of(opened) == VALUES
                assert (opened.statistics().lost_total, opened.statistics().difference) == (0, 0)
        else:
            await adopted(directory)
        assert not list(directory.glob("*.salvaged"))


async def adopted(directory: Path) -> None:
    """By a node that has a file of its own."""
    with closing(Store(str(directory / "a.sqlite3"))):
        pass
    async with open_spool(config_of(directory), node="fresh") as opened:
        assert opened.statistics().path == str(directory / "a.sqlite3")
        await until(lambda: opened.statistics().rows == len(VALUES))
        assert await values_of(opened) == VALUES


async def test_dead_rows_whose_account_is_lost_do_not_make_the_spool_fail_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "RETRY_S", 0.1)
    async with open_spool(config_of(tmp_path), node="n") as opened:
        await store(opened, [b"a", b"b", b"c"])
        await opened.dead(dict.fromkeys((1, 2, 3), "poison"))
    with closing(Store(str(tmp_path / "n.sqlite3"))) as closed:
        closed.copied()
        lose_account(closed)
    async with open_spool(config_of(tmp_path), node="n") as opened:
        await until(lambda: opened.statistics().state == "ok")
        assert await store(opened, [b"new"]) == [Stored()]
        await opened.dead({4: "poison"})
        assert await store(opened, [b"later"]) == [Stored()]
        assert (opened.statistics().dead_total, opened.statistics().difference) == (4, 0)


async def with_an_id_given_twice(directory: Path) -> None:
    """As a salvage left a file that had lost its account: the next row gets the id of a dead one."""
    async with open_spool(config_of(directory), node="n") as opened:
        await store(opened, [b"first"])
        await opened.dead({1: "poison"})
    with closing(sqlite3.connect(directory / "n.sqlite3")) as connection, connection:
        connection.execute("UPDATE account SET last_id = 0")


async def test_poison_row_whose_id_a_dead_one_has_does_not_make_every_commit_fail(tmp_path: Path) -> None:
    await with_an_id_given_twice(tmp_path)
    async with open_spool(config_of(tmp_path), node="n") as opened:
        await store(opened, [b"second"])
        with trio.fail_after(5):
            await opened.dead({1: "poison too"})
        assert await store(opened, [b"later"]) == [Stored()]
        assert (opened.statistics().dead_total, opened.statistics().difference) == (2, 0)
        assert await opened.revive() is not None
        assert sorted(map(str, await values_of(opened))) == ["b'first'", "b'later'", "b'second'"]


async def test_dead_row_whose_id_another_row_has_is_revived(tmp_path: Path) -> None:
    await with_an_id_given_twice(tmp_path)
    async with open_spool(config_of(tmp_path), node="n") as opened:
        await store(opened, [b"second"])
        with trio.fail_after(5):
            assert await opened.revive() is not None
        assert await values_of(opened) == [b"second", b"first"]
        assert (opened.statistics().dead_total, opened.statistics().difference) == (0, 0)
