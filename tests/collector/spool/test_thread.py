"""The thread that waits for the disk: what is seen of it while it is at work, and when it does not come back."""

import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import trio

from collector.spool import DiskSpool, open_spool, spool, writer
from collector.spool.base import Refused, Stored
from collector.spool.changes import Changes
from collector.spool.gauges import Gauges, Transaction
from collector.spool.store import Store
from tests.collector.spool.rows import config_of, row, take_all
from tests.collector.spool.test_disk import store, until


async def test_hanging_disk_holds_up_neither_requests_nor_the_exit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spool, "CLOSE_S", 0.3)
    monkeypatch.setattr(writer, "HANGS_S", 0.1)
    goes_on = threading.Event()
    really = Store.commit

    def commit(self: Store, changes: Changes) -> None:
        if changes.rows:
            goes_on.wait()
        really(self, changes)

    monkeypatch.setattr(Store, "commit", commit)
    try:
        async with open_spool(config_of(tmp_path), node="n") as opened:
            taken = opened.submit([row(b"taken")])
            await trio.sleep(0.2)
            assert opened.statistics().state == "failed"
            assert "waiting for the disk" in opened.statistics().problem
            (told,) = opened.submit([row(b"later")]).outcomes
            assert isinstance(told, Refused)
            began = trio.current_time()
        assert trio.current_time() - began < 1
        taken.withdraw()
        assert taken.outcomes == [None]  # nobody knows
    finally:
        goes_on.set()


def _tidies(opened: DiskSpool) -> None:
    """Nothing: it does so by itself when there is no work."""


def _is_read(opened: DiskSpool) -> None:
    trio.lowlevel.spawn_system_task(take_all, opened)


@pytest.mark.parametrize(("where", "asks"), [("tidy", _tidies), ("select", _is_read)])
async def test_disk_that_hangs_outside_a_commit_is_not_reported_ok(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str, asks: Callable[[DiskSpool], None]
) -> None:
    monkeypatch.setattr(writer, "HANGS_S", 0.1)
    monkeypatch.setattr(writer, "REST_S", 0.01)
    goes_on, hangs = threading.Event(), threading.Event()
    owner = Store if where == "tidy" else spool
    really = getattr(owner, where)

    def hanging(*args: object) -> object:
        hangs.set()
        goes_on.wait()
        return really(*args)

    try:
        async with open_spool(config_of(tmp_path), node="n") as opened:
            monkeypatch.setattr(owner, where, hanging)
            assert await store(opened, [b"before"]) == [Stored()]
            asks(opened)
            await until(hangs.is_set)
            waits = opened.submit([row(b"meanwhile")])
            await until(lambda: opened.statistics().state == "failed")
            assert "waiting for the disk" in opened.statistics().problem
            (told,) = opened.submit([row(b"later")]).outcomes
            assert isinstance(told, Refused)
            goes_on.set()
            await waits.wait()
            assert waits.outcomes == [Stored()]
            await until(lambda: opened.statistics().state == "ok")
    finally:
        goes_on.set()


async def test_ledger_balances_while_the_thread_is_between_account_and_gauges(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    really = Transaction.apply
    between, goes_on = threading.Event(), threading.Event()

    def apply(self: Transaction, gauges: Gauges) -> None:
        between.set()
        goes_on.wait()
        really(self, gauges)

    try:
        async with open_spool(config_of(tmp_path), node="n") as opened:
            monkeypatch.setattr(Transaction, "apply", apply)
            receipt = opened.submit([row(b"a"), row(b"b")])
            await until(between.is_set)
            statistics = opened.statistics()
            assert (statistics.difference, statistics.rows, statistics.pending_rows) == (0, 0, 2)
            goes_on.set()
            await receipt.wait()
            statistics = opened.statistics()
            assert (statistics.difference, statistics.rows, statistics.pending_rows) == (0, 2, 0)
    finally:
        goes_on.set()
