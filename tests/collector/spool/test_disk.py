"""What can be wrong with the disk, on a real one: states in words, refusals, healing by itself; nothing raises."""

import os
import resource
import sqlite3
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
import trio

from collector.spool import DiskSpool, open_spool, writer
from collector.spool.base import Refused, Selection, Stored, StoredRow
from collector.spool.changes import Changes, NotCommitted
from collector.spool.files import holder_of
from collector.spool.store import Store
from kafka_client.outcome import NotSent
from tests.collector.spool.rows import config_of, row, take_all, values_of

NOBODY = 65534
HEALS_WITHIN_S = 20


@pytest.fixture(autouse=True)
def _short_retry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "RETRY_S", 0.1)


async def store(opened: DiskSpool, values: list[bytes]) -> list[object]:
    receipt = opened.submit([row(value) for value in values])
    with trio.fail_after(10):
        await receipt.wait()
    return list(receipt.outcomes)


async def until(true: Callable[[], bool]) -> None:
    with trio.fail_after(HEALS_WITHIN_S):
        await trio.lowlevel.checkpoint()
        while not true():  # noqa: ASYNC110  # the disk rings no bell
            await trio.sleep(0.02)


async def take_until(opened: DiskSpool, enough: Callable[[Sequence[StoredRow]], bool]) -> Sequence[StoredRow]:
    with trio.fail_after(HEALS_WITHIN_S):
        while True:
            found = await take_all(opened)
            if enough(found):
                return found
            await trio.sleep(0.02)


def file_in(directory: Path) -> Path:
    (file,) = directory.glob("*.sqlite3")
    return file


async def fill(directory: Path, count: int) -> set[bytes]:
    values = {b"%06d" % number + b"x" * 300 for number in range(count)}
    async with open_spool(config_of(directory), node="n") as opened:
        assert set(await store(opened, sorted(values))) == {Stored()}
    return values


async def test_a_restart_finds_everything_and_marks_what_nobody_knows_the_end_of(tmp_path: Path) -> None:
    async with open_spool(config_of(tmp_path), node="n") as opened:
        receipt = opened.submit([row(b"ready"), row(b"held", held=True), row(b"sent"), row(b"gone"), row(b"dead")])
        await receipt.wait()
        ids = {stored.record.value: stored.id for stored in await take_all(opened)}
        await opened.mark_attempted([ids[b"sent"]])
        await opened.gone([ids[b"gone"]], "replayed")
        await opened.dead({ids[b"dead"]: "poison"})
    async with open_spool(config_of(tmp_path), node="later") as opened:
        assert [(stored.record.value, stored.attempted) for stored in await take_all(opened)] == [
            (b"ready", False),
            (b"held", True),
            (b"sent", True),
        ]
        statistics = opened.statistics()
        assert (statistics.rows_in_total, statistics.replayed_total, statistics.dead_total) == (5, 1, 1)
        assert (statistics.held_rows, statistics.attempted_rows, statistics.difference) == (0, 2, 0)
        assert Path(statistics.path).name == "n.sqlite3"


async def test_the_lock_tells_who_has_the_file_and_a_second_process_takes_another(tmp_path: Path) -> None:
    async with open_spool(config_of(tmp_path), node="first", admin="127.0.0.1:8081") as first:
        file = file_in(tmp_path)
        assert holder_of(file) == {"pid": os.getpid(), "node": "first", "admin": "127.0.0.1:8081"}
        async with open_spool(config_of(tmp_path), node="second") as second:
            assert Path(second.statistics().path).name == "second.sqlite3"
            assert (first.statistics().state, second.statistics().state) == ("ok", "ok")
    assert holder_of(file) is None


@contextmanager
def file_size_limit(limit_bytes: int) -> Iterator[None]:
    """Files of this process cannot grow beyond it: writing ends with EFBIG, which is what a full disk looks like."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


async def test_full_disk_refuses_keeps_what_it_has_and_heals(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    async with open_spool(config_of(tmp_path), node="n") as opened:
        assert await store(opened, [b"before"]) == [Stored()]
        with file_size_limit(256 * 1024):
            outcomes = await store(opened, [b"y" * 100_000] * 10)
            assert all(isinstance(outcome, Refused) for outcome in outcomes)
            statistics = opened.statistics()
            assert statistics.state == "failed"
            assert str(tmp_path) in statistics.problem
            (told,) = await store(opened, [b"while it is full"])
            assert isinstance(told, Refused)
            assert told.reason.startswith("spool_failed: ")
            assert opened.statistics().refused_total == 11
        await until(lambda: opened.statistics().state == "ok")
        assert await store(opened, [b"after"]) == [Stored()]
        assert await values_of(opened) == [b"before", b"after"]
        assert opened.statistics().difference == 0
    lines = [line for line in capfd.readouterr().err.splitlines() if "the spool" in line]
    assert sum("does not work" in line for line in lines) == 1
    assert sum("works again" in line for line in lines) == 1


def no_room() -> NotCommitted:
    """What a full disk says, which RLIMIT_FSIZE does not."""
    cause = sqlite3.OperationalError("database or disk is full")
    cause.sqlite_errorcode = sqlite3.SQLITE_FULL
    error = NotCommitted("database or disk is full")
    error.__cause__ = cause
    return error


async def test_rows_of_a_full_disk_are_not_those_of_a_failed_one_which_the_replay_leaves_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    really = Store.commit

    def commit(self: Store, changes: Changes) -> None:
        if changes.rows:
            raise no_room()
        really(self, changes)

    def probe(*_: object) -> None:
        raise no_room()

    async with open_spool(config_of(tmp_path), node="n") as opened:
        assert await store(opened, [b"before"]) == [Stored()]
        monkeypatch.setattr(Store, "commit", commit)
        monkeypatch.setattr("collector.spool.writer.probe", probe)
        (told,) = await store(opened, [b"no room"])
        assert isinstance(told, Refused)
        assert opened.statistics().state == "full"
        assert "disk is full" in opened.statistics().problem
        (kept,) = await opened.take(Selection(rows=10, bytes=1_000_000))
        await opened.mark_attempted([kept.id])
        await opened.gone([kept.id], "replayed")
        statistics = opened.statistics()
        assert (statistics.rows, statistics.replayed_total, statistics.difference) == (0, 1, 0)


@contextmanager
def not_writable(directory: Path) -> Iterator[None]:
    """For everybody: root, whom modes do not stop, is nobody meanwhile."""
    directory.chmod(0o555)
    was_root = os.geteuid() == 0
    if was_root:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        if was_root:
            os.seteuid(0)
        directory.chmod(0o755)


@pytest.fixture
def directory() -> Iterator[Path]:
    """One that nobody may look into; pytest's own are for their owner."""
    with tempfile.TemporaryDirectory() as made:
        Path(made).chmod(0o755)
        yield Path(made)


async def test_directory_that_cannot_be_written_is_a_state_and_heals(directory: Path) -> None:
    with not_writable(directory):
        async with open_spool(config_of(directory), node="n") as opened:
            statistics = opened.statistics()
            assert statistics.state == "failed"
            assert "Permission denied" in statistics.problem
            assert str(directory) in statistics.problem
            (told,) = await store(opened, [b"refused"])
            assert isinstance(told, Refused)
    async with open_spool(config_of(directory), node="n") as opened:
        with not_writable(directory):
            assert await store(opened, [b"an open file needs no directory"]) == [Stored()]


async def test_path_below_a_file_is_a_state_until_the_file_is_gone(tmp_path: Path) -> None:
    obstacle = tmp_path / "file"
    obstacle.touch()
    async with open_spool(config_of(obstacle / "spool"), node="n") as opened:
        statistics = opened.statistics()
        assert statistics.state == "failed"
        assert "make the directory" in statistics.problem
        obstacle.unlink()
        await until(lambda: opened.statistics().state == "ok")
        assert await store(opened, [b"now"]) == [Stored()]


async def test_file_locked_by_another_program_refuses_in_time_and_heals(tmp_path: Path) -> None:
    async with open_spool(config_of(tmp_path), node="n") as opened:
        with closing(sqlite3.connect(file_in(tmp_path), isolation_level=None)) as other:
            other.execute("BEGIN EXCLUSIVE")
            began = trio.current_time()
            (told,) = await store(opened, [b"refused"])
            assert isinstance(told, Refused)
            assert trio.current_time() - began < 0.8  # what a request has for the disk
            assert "locked" in opened.statistics().problem
            other.execute("ROLLBACK")
        await until(lambda: opened.statistics().state == "ok")
        assert await store(opened, [b"stored"]) == [Stored()]
        assert await values_of(opened) == [b"stored"]


async def test_steps_of_a_spool_that_fails_wait_and_are_not_forgotten(tmp_path: Path) -> None:
    async with open_spool(config_of(tmp_path), node="n") as opened:
        await store(opened, [b"a", b"b"])
        ids = [stored.id for stored in await take_all(opened)]
        with closing(sqlite3.connect(file_in(tmp_path), isolation_level=None)) as other:
            other.execute("BEGIN EXCLUSIVE")
            with trio.move_on_after(0.6) as waiting:
                await opened.gone(ids[:1], "replayed")
            assert waiting.cancelled_caught
            assert opened.statistics().state == "failed"
            other.execute("ROLLBACK")
        await until(lambda: opened.statistics().replayed_total == 1)
        assert (opened.statistics().rows, opened.statistics().difference) == (1, 0)


def flip_pages(file: Path, numbers: range) -> None:
    with file.open("r+b") as stream:
        for number in numbers:
            stream.seek(number * 4096 + 1000)
            was = stream.read(600)
            stream.seek(number * 4096 + 1000)
            stream.write(bytes(255 - byte for byte in was))


def flip_middle(file: Path) -> None:
    pages = file.stat().st_size // 4096
    flip_pages(file, range(pages // 2, pages // 2 + 5))


def smash_structure(file: Path) -> None:
    """The heads of some pages in the middle: SQLite itself finds these malformed."""
    pages = file.stat().st_size // 4096
    with file.open("r+b") as stream:
        for number in range(pages // 3, pages // 3 + 4):
            stream.seek(number * 4096)
            stream.write(b"\xee" * 64)


def cut_in_half(file: Path) -> None:
    os.truncate(file, file.stat().st_size // 4096 // 2 * 4096)


@pytest.mark.parametrize("damage", [flip_middle, smash_structure, cut_in_half])
async def test_damaged_file_is_kept_aside_and_what_can_be_read_is_salvaged(
    tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    values = await fill(tmp_path, 2000)
    file = file_in(tmp_path)
    damage(file)
    async with open_spool(config_of(tmp_path), node="n") as opened:
        found = await take_until(opened, bool)
        statistics = opened.statistics()
        assert {stored.record.value for stored in found} <= values
        assert all(stored.attempted for stored in found)
        assert statistics.lost_total > 0
        assert statistics.rows == len(found) == 2000 - statistics.lost_total
        assert len(found) > 700
        assert (statistics.difference, statistics.state) == (0, "ok")
        assert await store(opened, [b"goes on"]) == [Stored()]
    assert (tmp_path / "n.sqlite3.damaged").exists()
    assert f"Lost in all: {statistics.lost_total}." in (tmp_path / "n.sqlite3.damaged.lost").read_text()
    with closing(sqlite3.connect(file)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


async def test_file_that_is_no_database_is_kept_aside(tmp_path: Path) -> None:
    (tmp_path / "old.sqlite3").write_bytes(b"this is no database" * 1000)
    async with open_spool(config_of(tmp_path), node="n") as opened:
        await until(lambda: opened.statistics().state == "ok")
        assert await store(opened, [b"goes on"]) == [Stored()]
    assert (tmp_path / "old.sqlite3.damaged").read_bytes().startswith(b"this is no database")


async def test_held_row_survives_a_salvage_at_work_and_hears_of_its_batch(tmp_path: Path) -> None:
    async with open_spool(config_of(tmp_path), node="n") as opened:
        receipt = opened.submit([row(b"held", held=True)])
        await receipt.wait()
        await store(opened, [b"%d" % number + b"z" * 1000 for number in range(6000)])  # more than SQLite's cache
        await trio.sleep(1.5)  # the log is copied into the file when there was nothing to do for a second
        flip_pages(file_in(tmp_path), range(200, 204))
        await take_until(opened, lambda _: opened.statistics().lost_total > 0)
        assert opened.statistics().held_rows == 1
        receipt.resolve(0, NotSent("closed"))
        await until(lambda: opened.statistics().held_rows == 0)
        assert b"held" in {stored.record.value for stored in await take_all(opened)}
        assert opened.statistics().difference == 0


async def test_emptied_spool_gives_its_disk_space_back(tmp_path: Path) -> None:
    async with open_spool(config_of(tmp_path), node="n") as opened:
        for _ in range(4):
            await store(opened, [b"x" * 1000] * 3000)
        await trio.sleep(1.3)
        assert file_in(tmp_path).stat().st_size > 12_000_000
        await opened.gone([stored.id for stored in await take_all(opened)], "replayed")
        await until(lambda: file_in(tmp_path).stat().st_size < 100_000)
        assert opened.statistics().bytes == 0
