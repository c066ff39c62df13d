"""Files of processes that are gone: their rows move into ours, once, whenever somebody dies on the way."""

import os
import sqlite3
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, closing
from pathlib import Path

import pytest
import trio

from collector.spool import DiskSpool, adopt, open_spool
from collector.spool.adopt import Adoption, Known
from collector.spool.base import Stored
from collector.spool.changes import Changes, NewRow
from collector.spool.files import Lock, holder_of
from collector.spool.salvage import salvage
from collector.spool.schema import ATTEMPTED, READY, encode
from collector.spool.store import Store
from tests.collector.spool.rows import config_of, row, take_all

HOLDER: dict[str, object] = {"pid": 0, "node": "test", "admin": None}


@pytest.fixture(autouse=True)
def _look_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adopt, "ADOPT_EVERY_S", 0.1)
    monkeypatch.setattr(adopt, "CHUNK_ROWS", 20)


async def until(true: Callable[[], bool]) -> None:
    with trio.fail_after(20):
        await trio.lowlevel.checkpoint()
        while not true():  # noqa: ASYNC110  # files ring no bell
            await trio.sleep(0.02)


def spools(directory: Path) -> list[str]:
    return sorted(file.name for file in directory.glob("*.sqlite3"))


async def store(spool: DiskSpool, prefix: bytes, count: int) -> None:
    receipt = spool.submit([row(b"%s%d" % (prefix, number)) for number in range(count)])
    await receipt.wait()
    assert set(receipt.outcomes) == {Stored()}


@asynccontextmanager
async def two_processes(directory: Path) -> AsyncIterator[tuple[DiskSpool, DiskSpool]]:
    """Neither looks for the other's file when that ends."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(adopt, "ADOPT_EVERY_S", 1000.0)
        async with open_spool(config_of(directory), node="a") as first:
            async with open_spool(config_of(directory), node="b") as second:
                await trio.sleep(0.2)  # both have looked at the start
                yield first, second


async def two_files(directory: Path) -> None:
    """a: 10 rows. b: 55 that wait, one of which was attempted, one dead, one replayed."""
    async with two_processes(directory) as (first, second):
        await store(first, b"a", 10)
        await store(second, b"b", 57)
        taken = await take_all(second)
        await second.mark_attempted([taken[0].id])
        await second.dead({taken[1].id: "poison"})
        await second.gone([taken[2].id], "replayed")
    assert spools(directory) == ["a.sqlite3", "b.sqlite3"]


async def check_all(spool: DiskSpool, attempted: set[bytes] | None) -> None:
    found = await take_all(spool)
    values = Counter(stored.record.value for stored in found)
    assert set(values.values()) == {1}
    assert set(values) == {b"a%d" % n for n in range(10)} | {b"b%d" % n for n in range(57) if n not in (1, 2)}
    if attempted is not None:
        assert {stored.record.value for stored in found if stored.attempted} == attempted
    statistics = spool.statistics()
    assert (statistics.rows, statistics.rows_in_total, statistics.replayed_total) == (65, 67, 1)
    assert (statistics.dead_total, statistics.difference, statistics.state) == (1, 0, "ok")
    assert sum(spool.busy_bucket(bucket) for bucket in range(4096)) == 1


async def test_a_restart_adopts_the_files_of_all_that_are_gone(tmp_path: Path) -> None:
    await two_files(tmp_path)
    async with open_spool(config_of(tmp_path), node="c") as spool:
        await until(lambda: spools(tmp_path) == ["a.sqlite3"])
        await check_all(spool, {b"b0"})
        await store(spool, b"new", 3)
        await until(lambda: notes_in(tmp_path / "a.sqlite3") == [])
    assert sorted(os.listdir(tmp_path)) == ["a.sqlite3", "a.sqlite3.lock", "a.sqlite3.room"]
    with closing(sqlite3.connect(tmp_path / "a.sqlite3")) as connection:
        assert connection.execute("SELECT reason FROM dead").fetchall() == [("poison",)]


async def test_a_living_process_adopts_the_file_of_one_that_ends(tmp_path: Path) -> None:
    async with open_spool(config_of(tmp_path), node="a") as living:
        async with open_spool(config_of(tmp_path), node="b") as ends:
            await store(ends, b"b", 3)
            await trio.sleep(0.3)
            assert spools(tmp_path) == ["a.sqlite3", "b.sqlite3"]
            assert living.statistics().rows == 0
        await until(lambda: spools(tmp_path) == ["a.sqlite3"])
        assert {stored.record.value for stored in await take_all(living)} == {b"b0", b"b1", b"b2"}
        await until(lambda: holder_of(tmp_path / "b.sqlite3") is None)


def notes_in(file: Path) -> list[tuple[str, str, int]]:
    with closing(sqlite3.connect(file)) as connection:
        return connection.execute("SELECT * FROM moving").fetchall()


class Crash(Exception):
    """Nothing after it happens."""


def crash(changes: Changes) -> None:
    raise Crash


def adoption_of(file: Path) -> Adoption:
    lock = Lock.take(file, HOLDER)
    assert lock is not None
    return Adoption(file, lock)


def step(adoption: Adoption, target: Store) -> bool:
    """One chunk, both halves of it."""
    chunk = adoption.next(Known.read(target, adoption.file.name))
    return chunk is not None and adoption.arrive(target, target.account.last_id, chunk)


@pytest.mark.parametrize("steps", range(7))
@pytest.mark.parametrize("between", [False, True])
async def test_a_crash_at_any_step_neither_loses_nor_doubles(
    tmp_path: Path, steps: int, between: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three chunks of rows, one of dead ones, the account, the removal: before each of them and in its middle."""
    await two_files(tmp_path)
    target = Store(str(tmp_path / "a.sqlite3"))
    adoption = adoption_of(tmp_path / "b.sqlite3")
    more = True
    for _ in range(steps):
        more = step(adoption, target)
    assert more == (steps < 6)
    if between and more:
        monkeypatch.setattr(target, "commit", crash)
        with pytest.raises(Crash):
            step(adoption, target)
    adoption.end()
    target.close()
    async with open_spool(config_of(tmp_path), node="c") as spool:
        await until(lambda: len(spools(tmp_path)) == 1)
        await check_all(spool, {b"b0"})


async def test_a_half_moved_file_is_nobodys_own_and_waits_for_the_file_that_has_the_notes(tmp_path: Path) -> None:
    await two_files(tmp_path)
    target = Store(str(tmp_path / "b.sqlite3"))
    adoption = adoption_of(tmp_path / "a.sqlite3")
    assert step(adoption, target)  # all of a is in b too, and a is the first by name
    adoption.end()
    target.close()
    async with open_spool(config_of(tmp_path), node="c") as spool:
        await until(lambda: len(spools(tmp_path)) == 1)
        assert spools(tmp_path) == ["b.sqlite3"]
        await check_all(spool, {b"b0"})


async def test_without_the_notes_what_may_be_twice_is_marked(tmp_path: Path) -> None:
    await two_files(tmp_path)
    target = Store(str(tmp_path / "a.sqlite3"))
    adoption = adoption_of(tmp_path / "b.sqlite3")
    assert step(adoption, target)
    adoption.end()
    target.close()
    (tmp_path / "a.sqlite3").unlink()
    async with open_spool(config_of(tmp_path), node="c") as spool:
        await until(lambda: spools(tmp_path) == ["c.sqlite3"])
        found = await take_all(spool)
        assert len(found) == 55
        assert all(stored.attempted for stored in found)
        assert spool.statistics().difference == 0


async def test_a_damaged_file_is_salvaged_and_then_adopted(tmp_path: Path) -> None:
    async with two_processes(tmp_path) as (_, second):
        await store(second, b"x" * 500, 500)
    file = tmp_path / "b.sqlite3"
    with file.open("r+b") as stream:
        stream.seek(30 * 4096)
        stream.write(b"\xff" * 4096)
    async with open_spool(config_of(tmp_path), node="c") as spool:
        await until(lambda: spools(tmp_path) == ["a.sqlite3"])
        statistics = spool.statistics()
        assert statistics.lost_total > 0
        assert statistics.rows + statistics.lost_total == 500
        assert statistics.difference == 0
    assert (tmp_path / "b.sqlite3.damaged").exists()


async def test_a_full_spool_adopts_when_there_is_room(tmp_path: Path) -> None:
    await two_files(tmp_path)
    async with open_spool(config_of(tmp_path, max_bytes=1000), node="c") as spool:
        await trio.sleep(0.4)
        assert spools(tmp_path) == ["a.sqlite3", "b.sqlite3"]
        await spool.gone([stored.id for stored in await take_all(spool)], "replayed")
        await until(lambda: spool.statistics().rows > 0)
        assert spool.statistics().difference == 0


def states(target: Store) -> list[int]:
    return [state for (state,) in target.connection.execute("SELECT state FROM rows ORDER BY id")]


def file_with(path: Path, count: int) -> Path:
    payload = encode(row().record, "app")
    rows = [
        NewRow(id=1 + n, state=READY, key_hash=None, size=len(payload), stored_at_ms=1, payload=payload)
        for n in range(count)
    ]
    with closing(Store(str(path))) as made:
        made.commit(Changes(rows=rows))
    return path


def adopt_all(names: Sequence[str], target: Store) -> None:
    for name in names:
        adoption = adoption_of(Path(target.path).with_name(name))
        while step(adoption, target):
            pass
        adoption.end()


def test_the_heir_of_a_file_that_died_adopting_leaves_no_second_copy_without_a_mark(tmp_path: Path) -> None:
    a = file_with(tmp_path / "a.sqlite3", 5)
    with closing(Store(str(tmp_path / "b.sqlite3"))) as b:
        adoption = adoption_of(a)
        assert step(adoption, b)  # killed before a's half: a's rows are in both
        adoption.end()
    with closing(Store(str(tmp_path / "x.sqlite3"))) as x, closing(Store(str(tmp_path / "y.sqlite3"))) as y:
        adopt_all(["a.sqlite3", "b.sqlite3"], x)
        adopt_all(["a.sqlite3", "b.sqlite3"], y)  # x lives, and y looks first
        assert (states(x), states(y)) == ([READY] * 5, [])
        adopt_all(["a.sqlite3", "b.sqlite3"], x)
        assert states(x) == [READY] * 5
        assert x.account.rows_in == 5
        adopt_all(["b.sqlite3"], x)
        assert spools(tmp_path) == ["x.sqlite3", "y.sqlite3"]
        assert x.connection.execute("SELECT * FROM moving WHERE what != 'rows'").fetchall() == []


def test_a_salvage_that_loses_the_notes_leaves_no_second_copy_without_a_mark(tmp_path: Path) -> None:
    b = file_with(tmp_path / "b.sqlite3", 5)
    a = tmp_path / "a.sqlite3"
    with closing(Store(str(a))) as target:
        adoption = adoption_of(b)
        assert step(adoption, target)  # killed before b's half
        adoption.end()
        (page,) = target.connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'moving'").fetchone()
    with a.open("r+b") as stream:
        stream.seek((page - 1) * 4096)
        stream.write(b"\xff" * 4096)
    salvage(a)
    with closing(Store(str(a))) as target:
        adopt_all(["b.sqlite3"], target)
        assert states(target) == [ATTEMPTED] * 10
    assert spools(tmp_path) == ["a.sqlite3"]


def test_an_adoption_that_ends_while_a_thread_is_at_it_is_let_go_of_by_the_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lock is held as long as the thread writes, and no longer."""
    file = file_with(tmp_path / "b.sqlite3", 5)
    adoption = adoption_of(file)

    def end_meanwhile(connection: sqlite3.Connection) -> None:
        adoption.end()
        assert Lock.take(file, HOLDER) is None

    monkeypatch.setattr(adopt, "check", end_meanwhile)
    with closing(Store(str(tmp_path / "a.sqlite3"))) as target:
        adoption.next(Known.read(target, file.name))
        lock = Lock.take(file, HOLDER)
        assert lock is not None
        lock.release()
        assert adoption.next(Known.read(target, file.name)) is None


async def test_commits_do_not_wait_for_the_check_of_a_big_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file_with(tmp_path / "b.sqlite3", 5)
    checked = threading.Event()
    checking = threading.Event()

    def slow_check(connection: sqlite3.Connection) -> None:
        checking.set()
        assert checked.wait(20)

    monkeypatch.setattr(adopt, "check", slow_check)
    file_with(tmp_path / "a.sqlite3", 0)
    async with open_spool(config_of(tmp_path), node="c") as spool:
        await until(checking.is_set)
        with trio.fail_after(10):
            await store(spool, b"live", 3)
        assert spool.statistics().rows == 3
        checked.set()
        await until(lambda: spools(tmp_path) == ["a.sqlite3"])
        assert spool.statistics().rows == 8
