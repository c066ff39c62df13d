"""A commit that is in doubt: its rows are told what the file has, whatever else goes wrong before it can be asked."""

import errno
import sqlite3
from pathlib import Path

import pytest
import trio

from collector.spool import DiskSpool, open_spool, writer
from collector.spool.base import Refused, Selection, Stored
from collector.spool.changes import Changes, CommitInDoubt, NotCommitted
from collector.spool.files import SpoolFiles
from collector.spool.store import Store
from tests.collector.spool.rows import config_of, values_of
from tests.collector.spool.test_disk import store, until


@pytest.fixture(autouse=True)
def _short_retry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "RETRY_S", 0.1)


def in_doubt(code: int = sqlite3.SQLITE_IOERR) -> CommitInDoubt:
    cause = sqlite3.OperationalError("as the disk says")
    cause.sqlite_errorcode = code
    error = CommitInDoubt("as the disk says")
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(("there", "told"), [(True, Stored), (False, Refused)])
async def test_commit_in_doubt_is_settled_by_what_the_file_says_when_it_is_opened_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, there: bool, told: type
) -> None:
    really = Store.commit
    doubts = iter([True])

    def commit(self: Store, changes: Changes) -> None:
        if changes.rows and next(doubts, False):
            if there:
                really(self, changes)
                self.account.commits -= 1  # as it is in memory when COMMIT reports an error
            raise CommitInDoubt("disk I/O error")
        really(self, changes)

    async with open_spool(config_of(tmp_path), node="n") as opened:
        monkeypatch.setattr(Store, "commit", commit)
        (outcome,) = await store(opened, [b"in doubt"])
        assert isinstance(outcome, told)
        await until(lambda: opened.statistics().state == "ok")
        assert await store(opened, [b"after"]) == [Stored()]
        assert await values_of(opened) == ([b"in doubt", b"after"] if there else [b"after"])
        statistics = opened.statistics()
        assert (statistics.difference, statistics.pending_rows, statistics.pending_bytes) == (0, 0, 0)


def balanced(opened: DiskSpool) -> bool:
    statistics = opened.statistics()
    return (statistics.difference, statistics.pending_rows, statistics.pending_bytes) == (0, 0, 0)


async def test_lost_row_is_not_told_stored_when_the_proof_of_its_absence_ends_in_doubt_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    really = Store.commit
    script = ["absent", "present"]

    def commit(self: Store, changes: Changes) -> None:
        what = script.pop(0) if script else "works"
        if what != "absent":
            really(self, changes)
        if what != "works":
            raise in_doubt()

    async with open_spool(config_of(tmp_path), node="n") as opened:
        monkeypatch.setattr(Store, "commit", commit)
        (outcome,) = await store(opened, [b"nowhere"])
        assert isinstance(outcome, Refused)
        assert not script
        await until(lambda: opened.statistics().state == "ok")
        assert await store(opened, [b"after"]) == [Stored()]
        assert await values_of(opened) == [b"after"]
        assert balanced(opened)
        assert opened.statistics().refused_total == 1


async def test_row_that_a_salvage_without_an_account_has_saved_is_not_told_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    really = Store.commit

    def commit(self: Store, changes: Changes) -> None:
        really(self, changes)
        if changes.rows:
            monkeypatch.setattr(Store, "commit", really)
            self.copied()
            lose_account(self)
            raise in_doubt(sqlite3.SQLITE_CORRUPT)

    async with open_spool(config_of(tmp_path), node="n") as opened:
        monkeypatch.setattr(Store, "commit", commit)
        assert await store(opened, [b"saved"]) == [Stored()]
        await until(lambda: opened.statistics().state == "ok")
        assert await values_of(opened) == [b"saved"]
        assert balanced(opened)


def lose_account(damaged: Store) -> None:
    """Its page in the file."""
    (page,) = damaged.connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'account'").fetchone()
    (size,) = damaged.connection.execute("PRAGMA page_size").fetchone()
    with Path(damaged.path).open("r+b") as stream:
        stream.seek((page - 1) * size)
        stream.write(b"\xff" * size)


async def test_refusals_are_counted_once_where_the_commit_that_counts_them_was_in_doubt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    really = Store.commit

    def commit(self: Store, changes: Changes) -> None:
        really(self, changes)
        if changes.rows:
            monkeypatch.setattr(Store, "commit", really)
            raise in_doubt()

    async with open_spool(config_of(tmp_path, max_bytes=1024 * 1024), node="n") as opened:
        (told,) = await store(opened, [b"x" * 1024 * 1024])
        assert told == Refused("spool_full")
        monkeypatch.setattr(Store, "commit", commit)
        assert await store(opened, [b"in doubt"]) == [Stored()]
        await until(lambda: not opened.writer.trouble)
        assert opened.statistics().refused_total == 1


async def test_full_disk_that_leaves_a_commit_in_doubt_can_still_be_emptied_by_the_replay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    really = Store.commit
    room = tmp_path / "n.sqlite3.room"

    def commit(self: Store, changes: Changes) -> None:
        if changes.rows:
            raise in_doubt(sqlite3.SQLITE_FULL)
        if room.exists():
            error = NotCommitted("database or disk is full")
            error.__cause__ = in_doubt(sqlite3.SQLITE_FULL).__cause__
            raise error
        really(self, changes)

    def no_space(self: SpoolFiles) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(room))

    async with open_spool(config_of(tmp_path), node="n") as opened:
        assert await store(opened, [b"kept"]) == [Stored()]
        assert room.exists()
        monkeypatch.setattr(Store, "commit", commit)
        monkeypatch.setattr(SpoolFiles, "keep_room", no_space)
        (outcome,) = await store(opened, [b"too much"])
        assert isinstance(outcome, Refused)
        with trio.fail_after(5):
            (kept,) = await opened.take(Selection(rows=10, bytes=10_000))
            await opened.mark_attempted([kept.id])
            await opened.gone([kept.id], "replayed")
        assert opened.statistics().rows == 0
        monkeypatch.undo()
        assert balanced(opened)
