"""The write-ahead log of a file that somebody else reads: it is bounded, said, and given back."""

import os
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from pathlib import Path

import pytest
import trio

from collector.spool import DiskSpool, log_file, open_spool
from collector.spool.base import Refused, Stored
from collector.spool.inspection import exported, faults_of
from tests.collector.spool.rows import config_of, row, take_all

MIB = 1024 * 1024
FREE_BYTES = 4 * MIB
MAX_BYTES = 16 * MIB


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_file, "LOG_KEPT_BYTES", MIB)
    monkeypatch.setattr(log_file, "LOG_FREE_BYTES", FREE_BYTES)


@asynccontextmanager
async def spool_with_a_row(directory: Path) -> AsyncIterator[DiskSpool]:
    async with open_spool(config_of(directory, max_bytes=MAX_BYTES), node="n") as spool:
        await spool.submit([row(b"first")]).wait()
        yield spool


@contextmanager
def reader(directory: Path) -> Iterator[None]:
    with closing(sqlite3.connect(directory / "n.sqlite3", isolation_level=None)) as connection:
        connection.execute("BEGIN")
        connection.execute("SELECT count(*) FROM rows").fetchone()
        yield


def log_bytes(directory: Path) -> int:
    return (directory / "n.sqlite3-wal").stat().st_size


async def come_and_go(spool: DiskSpool) -> bool:
    """2 MB that are replayed at once; whether they were taken."""
    receipt = spool.submit([row(os.urandom(1000)) for _ in range(2000)])
    await receipt.wait()
    await spool.gone([found.id for found in await take_all(spool)], "replayed")
    return set(receipt.outcomes) == {Stored()}


async def until(true: Callable[[], bool]) -> None:
    with trio.fail_after(20):
        await trio.lowlevel.checkpoint()
        while not true():  # noqa: ASYNC110  # files ring no bell
            await trio.sleep(0.02)


async def test_log_does_not_fill_the_disk_while_somebody_reads_the_file(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    async with spool_with_a_row(tmp_path) as spool:
        with reader(tmp_path):
            turns = [await come_and_go(spool) for _ in range(20)]
            assert not turns[-1]
            assert turns == sorted(turns, reverse=True)
            assert log_bytes(tmp_path) < FREE_BYTES + MAX_BYTES + 10 * MIB
            statistics = spool.statistics()
            assert statistics.state == "full"
            assert "by its log: end the program that reads the file" in statistics.problem
            assert spool.submit([row(bytes(MAX_BYTES // 4))]).outcomes == [Refused("spool_full")]
        await until(lambda: spool.statistics().state == "ok")  # although nothing is written
        assert log_bytes(tmp_path) <= MIB
        assert await come_and_go(spool)
    assert capfd.readouterr().err.count("the spool's log grows because another program reads the file") == 1


async def test_log_that_had_grown_gives_its_space_back_when_it_is_idle(tmp_path: Path) -> None:
    async with spool_with_a_row(tmp_path) as spool:
        with reader(tmp_path):
            assert await come_and_go(spool)
            assert log_bytes(tmp_path) > 2 * MIB
        await spool.submit([row()]).wait()
        await until(lambda: log_bytes(tmp_path) <= MIB)


async def test_an_export_that_somebody_leaves_open_does_not_keep_the_log(tmp_path: Path) -> None:
    async with spool_with_a_row(tmp_path) as spool:
        await spool.submit([row(b"%d" % number) for number in range(3000)]).wait()
        damaged: list[int] = []
        lines = exported(tmp_path / "n.sqlite3", damaged=damaged.append)
        assert next(lines).value == "first"
        assert await come_and_go(spool)
        for _ in range(4):
            assert await come_and_go(spool)
        await until(lambda: log_bytes(tmp_path) <= MIB)
        assert len(list(lines)) < 3000  # those that were read before they left
        assert damaged == []
        assert faults_of(tmp_path / "n.sqlite3") == []
