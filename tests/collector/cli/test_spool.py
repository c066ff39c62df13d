"""`collector spool`: on a file that a dead process left behind, on a live one, on a damaged one."""

import json
import logging
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import trio
import trio.lowlevel

from collector.cli.main import main
from collector.cli.spool_orders import _until_empty
from collector.config import AdminConfig, Config, KafkaConfig, LogConfig, SpoolConfig
from collector.log import configure_logging
from collector.monitor import open_monitor
from collector.rooms import Rooms, open_rooms
from collector.spool.base import SpoolRow
from collector.spool.files import Lock, holder_of
from collector.spool.schema import ATTEMPTED, HELD, READY, ROW_COST_BYTES, encode
from collector.spool.store import Changes, Kill, Leave, NewRow, Store
from kafka_client.outcome import Record
from kafka_client.testing import FakeCluster, open_fake_cluster


def record(number: int, value: bytes | None = None) -> Record:
    headers = (("message-id", f"m-{number}".encode()), ("raw", b"\xff"))
    return Record(
        "events", value or b'{"n":%d}' % number, f"key-{number}".encode(), headers, 1_700_000_000_000 + number
    )


def leave_behind(directory: Path, name: str = "node1") -> Path:
    """The file of a process that is gone: rows 1 to 6, of which 3 is held, 4 attempted, 6 dead; 7 was delivered."""
    path = directory / f"{name}.sqlite3"
    store = Store(str(path))
    payloads = {number: encode(record(number), "shop") for number in range(1, 8)}
    states = {3: HELD, 4: ATTEMPTED}
    rows = [
        NewRow(
            id=number,
            state=states.get(number, READY),
            key_hash=number,
            size=len(payload) + ROW_COST_BYTES,
            stored_at_ms=1_700_000_000_000,
            payload=payload,
        )
        for number, payload in payloads.items()
    ]
    store.commit(Changes(rows=rows))
    store.commit(Changes(steps=[Kill({6: "MESSAGE_TOO_LARGE: of 2 MB"}, 1_700_000_000_000), Leave([7], "replayed")]))
    store.close()
    return path


@pytest.fixture
def behind(tmp_path: Path) -> Path:
    return leave_behind(tmp_path)


@dataclass
class Said:
    code: int
    out: str
    err: str

    def json(self) -> list[dict[str, object]]:
        return [json.loads(line) for line in self.out.splitlines()]


Collector = Callable[..., Said]


@pytest.fixture
def collector(capsys: pytest.CaptureFixture[str]) -> Collector:
    """The command, in this process."""

    def call(*words: object) -> Said:
        code = main([str(word) for word in words])
        captured = capsys.readouterr()
        return Said(code, captured.out, captured.err)

    return call


@pytest.fixture
def log_as_before() -> Iterator[None]:
    """The command's own logging is not that of the tests."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    configure_logging(LogConfig(format="console"))
    root.handlers[:], root.level = handlers, level


# A file that has no owner.


def test_ls_tells_of_a_file_that_was_left_behind(behind: Path, collector: Collector) -> None:
    said = collector("spool", "ls", "--path", behind.parent)
    assert said.code == 0
    head, line = said.out.splitlines()
    assert head.split() == ["FILE", "OWNER", "STATE", "ROWS", "HELD", "ATTEMPTED", "DEAD", "BYTES", "OLDEST"]
    assert line.split()[:8] == ["node1.sqlite3", "none", "left", "behind", "5", "1", "1", "1"]
    assert line.endswith(" d")
    (told,) = collector("spool", "ls", "--path", behind.parent, "--json").json()
    assert (told["file"], told["owner"], told["rows"], told["dead"]) == (str(behind), None, 5, 1)
    assert told["bytes"] == sum(len(encode(record(number), "shop")) + ROW_COST_BYTES for number in range(1, 7))


def test_ls_of_an_empty_directory_says_so(tmp_path: Path, collector: Collector) -> None:
    assert "nothing was ever spooled" in collector("spool", "ls", "--path", tmp_path).out


def test_reading_changes_nothing(behind: Path, collector: Collector) -> None:
    before = {path: path.read_bytes() for path in behind.parent.iterdir()}
    for words in (["ls"], ["verify"], ["export"], ["export", "--dead"]):
        assert collector("spool", *words, "--path", behind.parent).code == 0
    assert {path: path.read_bytes() for path in behind.parent.iterdir() if path in before} == before


def test_verify_balances_the_ledger_of_a_sound_file(behind: Path, collector: Collector) -> None:
    said = collector("spool", "verify", "--path", behind.parent)
    line = "7 rows in = 1 replayed + 0 resolved + 1 dead + 0 dropped + 0 lost + 5 here"
    assert (said.code, said.out) == (0, f"ok   node1.sqlite3: {line}\n")


def test_export_prints_every_row_as_a_line_of_json(behind: Path, collector: Collector) -> None:
    said = collector("spool", "export", "--path", behind.parent)
    assert said.code == 0
    rows = said.json()
    assert [(row["id"], row["state"]) for row in rows] == [
        (1, "ready"),
        (2, "ready"),
        (3, "held"),
        (4, "attempted"),
        (5, "ready"),
    ]
    assert rows[0] == {
        "file": "node1.sqlite3",
        "id": 1,
        "state": "ready",
        "stored_at_ms": 1_700_000_000_000,
        "app": "shop",
        "topic": "events",
        "key": "key-1",
        "value": '{"n":1}',
        "headers": [["message-id", "m-1"], ["raw", {"base64": "/w=="}]],
        "timestamp_ms": 1_700_000_000_001,
        "partition": None,
        "reason": None,
    }


def test_export_of_the_dead_names_their_reasons(behind: Path, tmp_path: Path, collector: Collector) -> None:
    out = tmp_path / "dead.jsonl"
    said = collector("spool", "export", "--dead", "--out", out, "--path", behind.parent)
    assert (said.code, said.out) == (0, "")
    (row,) = map(json.loads, out.read_text().splitlines())
    assert (row["id"], row["state"], row["reason"]) == (6, "dead", "MESSAGE_TOO_LARGE: of 2 MB")
    said = collector("spool", "export", "--dead", "--out", out, "--path", behind.parent)
    assert (said.code, said.err) == (2, f"collector spool: {out}: File exists\n")


@pytest.mark.parametrize(
    ("which", "left", "dead", "dropped"),
    [(["--dead"], [1, 2, 3, 4, 5], [], 1), (["--all"], [], [], 6), (["--ids", "2,6,99"], [1, 3, 4, 5], [], 2)],
)
def test_drop_counts_what_it_drops(behind: Path, collector: Collector, which, left, dead, dropped) -> None:
    said = collector("spool", "drop", *which, "--yes", "--path", behind.parent)
    assert said.code == 0, said.err
    assert f"dropped {dropped - 1} rows that waited and 1 dead ones" in said.out
    assert [row["id"] for row in collector("spool", "export", "--path", behind.parent).json()] == left
    assert collector("spool", "export", "--dead", "--path", behind.parent).json() == dead
    said = collector("spool", "verify", "--path", behind.parent)
    assert said.code == 0
    assert f"{dropped} dropped + 0 lost + {len(left)} here" in said.out


def test_ids_that_are_not_there_are_dropped_without_a_word(behind: Path, collector: Collector) -> None:
    said = collector("spool", "drop", "--ids", "2,99,98", "--yes", "--path", behind.parent)
    assert (said.code, said.out.splitlines()) == (
        0,
        [
            "node1.sqlite3: dropped 1 rows that waited and 0 dead ones",
            "node1.sqlite3: no row, dead or waiting, has the id 98, 99",
        ],
    )


def test_ids_that_are_no_numbers_are_an_invalid_ids_value(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["spool", "drop", "--ids", "abc"])
    assert caught.value.code == 2
    assert (
        "--ids: expected ids such as 17,18 (`collector spool export` shows them), got 'abc'" in capsys.readouterr().err
    )


def test_drop_without_a_word_from_anybody_drops_nothing(behind: Path, collector: Collector, monkeypatch) -> None:
    with open(os.devnull) as nobody:
        monkeypatch.setattr("sys.stdin", nobody)
        said = collector("spool", "drop", "--all", "--path", behind.parent)
    assert said.code == 2
    assert said.err == "collector spool: would drop rows for good (6 of node1.sqlite3): say --yes\n"
    assert len(collector("spool", "export", "--path", behind.parent).json()) == 5


@pytest.mark.parametrize(("answer", "code", "left"), [("y", 0, 0), ("", 2, 5)])
def test_drop_asks_who_sits_there(behind: Path, collector: Collector, monkeypatch, answer, code, left) -> None:
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", lambda _question: answer)
    assert collector("spool", "drop", "--all", "--path", behind.parent).code == code
    assert len(collector("spool", "export", "--path", behind.parent).json()) == left


def test_ids_of_several_files_are_refused(behind: Path, collector: Collector) -> None:
    leave_behind(behind.parent, "node2")
    assert collector("spool", "drop", "--ids", "1", "--yes", "--path", behind.parent).code == 2
    assert collector("spool", "drop", "--ids", "1", "--yes", "--path", behind.parent, "node2").code == 0
    rows = collector("spool", "export", "--path", behind.parent).json()
    assert [row["id"] for row in rows if row["file"] == "node2.sqlite3"] == [2, 3, 4, 5]
    assert [row["id"] for row in rows if row["file"] == "node1.sqlite3"] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--path", "/nowhere"], "/nowhere: no such directory; it is [spool] path"),
        (["--path", ":memory:"], 'spool.path is ":memory:"'),
        (["--path", "HERE", "other"], "other: no such file in HERE; there is: node1.sqlite3"),
    ],
)
def test_what_is_not_there_is_one_line_and_2(behind: Path, collector: Collector, words, line) -> None:
    here = str(behind.parent)
    said = collector("spool", "ls", *(word.replace("HERE", here) for word in words))
    assert said.code == 2
    assert said.err.startswith(f"collector spool: {line.replace('HERE', here)}")


@pytest.mark.usefixtures("log_as_before")
def test_file_whose_rows_are_being_moved_is_left_alone(behind: Path, collector: Collector) -> None:
    with sqlite3.connect(behind) as connection:
        connection.execute("INSERT INTO moved_to VALUES (1, 'node9.sqlite3')")
    connection.close()
    assert "moving to node9.sqlite3" in collector("spool", "ls", "--path", behind.parent).out
    for words in (["replay"], ["drop", "--all", "--yes"]):
        said = collector("spool", *words, "--path", behind.parent)
        assert said.code == 2
        assert "some of its rows are in node9.sqlite3 already" in said.err


# A damaged file.


def test_verify_names_a_changed_payload_and_export_goes_on(behind: Path, collector: Collector) -> None:
    with sqlite3.connect(behind) as connection:
        connection.execute("UPDATE payloads SET payload = substr(payload, 1, 20) || x'00' WHERE id = 2")
        connection.execute("DELETE FROM payloads WHERE id = 4")
        connection.execute("DELETE FROM rows WHERE id = 5")
    connection.close()
    said = collector("spool", "verify", "--path", behind.parent)
    assert said.code == 1
    assert said.out.splitlines()[0] == "FAIL node1.sqlite3"
    faults = [line.strip() for line in said.out.splitlines()[1:]]
    assert "1 row with a payload that was changed (checksum): 2" in faults
    assert "1 row without its payload: 4" in faults
    assert "1 row of which there is the payload alone: 5" in faults
    assert any(fault.startswith("ledger B does not balance: 7 rows in") for fault in faults)
    (told,) = collector("spool", "verify", "--json", "--path", behind.parent).json()
    assert (told["ok"], told["faults"]) == (False, faults)
    said = collector("spool", "export", "--path", behind.parent)
    assert said.code == 1
    assert [row["id"] for row in said.json()] == [1, 3]
    assert said.err == f"collector spool: {behind}: 2 rows cannot be read: 2, 4\n"


@pytest.mark.parametrize("damage", ["a page of zeros", "no database", "no spool"])
def test_verify_names_a_file_that_is_no_spool_any_more(behind: Path, collector: Collector, damage: str) -> None:
    whole = bytearray(behind.read_bytes())
    if damage == "a page of zeros":
        whole[4096:8192] = bytes(4096)
        behind.write_bytes(whole)
    elif damage == "no database":
        behind.write_bytes(b"hello" * 1000)
    else:
        behind.unlink()
        connection = sqlite3.connect(behind)
        connection.execute("CREATE TABLE other (a)")
        connection.close()
    said = collector("spool", "verify", "--path", behind.parent)
    assert said.code == 1
    assert said.out.startswith("FAIL node1.sqlite3\n     ")
    assert "Traceback" not in said.err
    ls = collector("spool", "ls", "--path", behind.parent)
    assert ls.code == 0
    if damage != "a page of zeros":
        assert "unreadable" in ls.out


# Replay of a file that has no owner.


@pytest.fixture
async def cluster() -> AsyncIterator[FakeCluster]:
    async with open_fake_cluster(topics={"events": 3, "events-bad": 1}) as cluster:
        await cluster.serve_tcp()
        yield cluster


def configured(tmp_path: Path, cluster: FakeCluster, spool: Path) -> Path:
    path = tmp_path / "collector.toml"
    path.write_text(
        f"""
        [kafka]
        bootstrap_servers = {json.dumps(cluster.tcp_bootstrap_servers)}
        [spool]
        path = {json.dumps(str(spool))}
        [keys]
        open = true
        """
    )
    return path


@pytest.mark.usefixtures("log_as_before")
@pytest.mark.parametrize("dead", [False, True])
async def test_replay_of_a_file_without_an_owner_delivers_its_rows(
    tmp_path: Path, cluster: FakeCluster, collector: Collector, dead: bool
) -> None:
    spool = tmp_path / "spool"
    spool.mkdir()
    leave_behind(spool)
    empty = leave_behind(spool, "node0")
    assert collector("spool", "drop", "--all", "--yes", "--path", spool, empty.name).code == 0
    config = configured(tmp_path, cluster, spool)
    words = ["spool", "replay", "--config", config, *(["--dead"] if dead else [])]
    said = await trio.to_thread.run_sync(lambda: collector(*words))
    assert said.code == 0, said.err
    delivered = 6 if dead else 5
    assert said.out.splitlines() == [
        "node0.sqlite3: nothing to replay",
        f"node1.sqlite3: {delivered} delivered, 0 died, 0 left",
    ]
    found = {record.value: dict(record.headers) for record in cluster.records("events")}
    assert set(found) == {b'{"n":%d}' % number for number in range(1, delivered + 1)}
    marked = {value for value, headers in found.items() if headers.get("maybe-duplicate") == b"1"}
    assert marked == {b'{"n":%d}' % number for number in ([3, 4, 6] if dead else [3, 4])}
    said = await trio.to_thread.run_sync(lambda: collector("spool", "verify", "--path", spool))
    assert said.code == 0, said.out
    assert f"{1 + delivered} replayed" in said.out


@pytest.mark.usefixtures("log_as_before")
async def test_replay_of_rows_that_die_says_so_and_exits_3(
    tmp_path: Path, cluster: FakeCluster, collector: Collector
) -> None:
    spool = tmp_path / "spool"
    spool.mkdir()
    leave_behind(spool)
    cluster.faults.fail(10, topic="events", times=None)  # MESSAGE_TOO_LARGE
    config = configured(tmp_path, cluster, spool)
    said = await trio.to_thread.run_sync(lambda: collector("spool", "replay", "--config", config))
    assert (said.code, said.out) == (3, "node1.sqlite3: 0 delivered, 5 died, 0 left\n")
    rows = await trio.to_thread.run_sync(lambda: collector("spool", "export", "--dead", "--path", spool).json())
    assert [row["id"] for row in rows] == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_ends_a_replay_that_reaches_no_broker_and_nothing_is_lost(
    behind: Path, collector: Collector, number: signal.Signals
) -> None:
    leave_behind(behind.parent, "node2")
    command = [sys.executable, "-m", "collector", "spool", "replay", "--path", str(behind.parent)]
    environment = {**os.environ, "COLLECTOR__KAFKA__BOOTSTRAP_SERVERS": '["127.0.0.1:9"]'}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as child:
        try:
            until = time.monotonic() + 20
            while holder_of(behind) is None and time.monotonic() < until:
                time.sleep(0.05)
            time.sleep(0.3)
            child.send_signal(number)
            out, _ = child.communicate(timeout=20)
        finally:
            child.kill()
    assert (child.returncode, out) == (3, "node1.sqlite3: 0 delivered, 0 died, 5 left\n")
    said = collector("spool", "verify", "--path", behind.parent)
    assert said.code == 0, said.out


async def test_replay_that_waits_for_kafka_says_the_same_again_and_again(capsys, autojump_clock) -> None:
    began = trio.current_time()

    def spool():
        passed_s = trio.current_time() - began
        return SimpleNamespace(state="ok", rows=5 if passed_s < 33 else 4 if passed_s < 60 else 0)

    replay = SimpleNamespace(statistics=lambda: SimpleNamespace(state="waiting", why="for Kafka"))
    rooms: Any = SimpleNamespace(spool=SimpleNamespace(statistics=spool), replay=replay)
    await _until_empty(rooms, Path("node1.sqlite3"))
    words = "rows left, waiting for Kafka; Ctrl-C stops, the rows stay"
    lines = capsys.readouterr().err.splitlines()
    assert lines == [f"node1.sqlite3: 5 {words}"] * 3 + [f"node1.sqlite3: 4 {words}"] * 3


# A live file.


@dataclass
class Live:
    rooms: Rooms
    directory: Path
    cluster: FakeCluster
    config: Config

    @property
    def name(self) -> str:
        assert self.rooms.spool is not None
        return Path(self.rooms.spool.statistics().path).name

    async def store(self, *numbers: int) -> None:
        assert self.rooms.spool is not None
        rows = [SpoolRow(record=record(number), app="shop", key_hash=number) for number in numbers]
        await self.rooms.spool.submit(rows).wait()


@asynccontextmanager
async def live(directory: Path) -> AsyncIterator[Live]:
    """A collector without clients whose broker is away."""
    async with open_fake_cluster(topics={"events": 3, "events-bad": 1}) as cluster:
        cluster.stop_broker(1, elect=False)
        config = Config(
            admin=AdminConfig(bind="127.0.0.1:0"),
            kafka=KafkaConfig(bootstrap_servers=tuple(cluster.bootstrap_servers)),
            spool=SpoolConfig(path=str(directory)),
        )
        async with (
            open_monitor(config) as monitor,
            open_rooms(config, monitor, connector=cluster.connector) as rooms,
        ):
            yield Live(rooms, directory, cluster, config)
            cluster.start_broker(1)
            await rooms.close(0.5)


@pytest.fixture
def away(collector: Collector) -> Callable[..., object]:
    """The command in a thread, while the collector's loop runs on."""

    async def call(*words: object) -> Said:
        return await trio.to_thread.run_sync(lambda: collector(*words))

    return call


async def test_ls_verify_and_export_read_a_live_file(tmp_path: Path, away) -> None:
    async with live(tmp_path) as collector:
        await collector.store(1, 2, 3)
        (told,) = (await away("spool", "ls", "--json", "--path", tmp_path)).json()
        assert (told["owner"], told["state"], told["rows"]) == (os.getpid(), "live", 3)
        assert str(told["admin"]).startswith("http://127.0.0.1:")
        said = await away("spool", "verify", "--path", tmp_path)
        assert said.code == 0, said.out
        assert "3 rows in = 0 replayed" in said.out
        rows = (await away("spool", "export", "--path", tmp_path)).json()
        assert [row["value"] for row in rows] == ['{"n":1}', '{"n":2}', '{"n":3}']


async def test_drop_is_done_by_the_owner_of_a_live_file(tmp_path: Path, away) -> None:
    async with live(tmp_path) as collector:
        await collector.store(1, 2, 3)
        spool = collector.rooms.spool
        assert spool is not None
        assert collector.rooms.replay is not None
        while collector.rooms.replay.statistics().in_work_rows:  # noqa: ASYNC110  # its first try has no event for us
            await trio.sleep(0.05)
        said = await away("spool", "drop", "--ids", "2", "--yes", "--path", tmp_path)
        assert (said.code, said.out) == (0, f"{collector.name}: dropped 1 rows that waited and 0 dead ones\n")
        statistics = spool.statistics()
        assert (statistics.rows, statistics.dropped_total, statistics.difference) == (2, 1, 0)
        said = await away("spool", "drop", "--all", "--yes", "--path", tmp_path)
        assert said.code == 0, said.err
        assert spool.statistics().rows == 0
        collector.cluster.start_broker(1)
        await trio.sleep(0.5)
        assert collector.cluster.records("events") == []


async def test_rows_that_kafka_never_got_are_on_their_way_to_it(tmp_path: Path, away) -> None:
    async with live(tmp_path) as collector:
        await collector.store(1, 2, 3)
        assert collector.rooms.replay is not None
        with trio.fail_after(5):
            await trio.lowlevel.checkpoint()
            while not collector.rooms.replay.statistics().in_work_rows:  # noqa: ASYNC110  # it has no event for us
                await trio.sleep(0.05)
        said = await away("spool", "drop", "--all", "--yes", "--path", tmp_path)
        assert (said.code, said.out.splitlines()) == (
            3,
            [
                f"{collector.name}: dropped 2 rows that waited and 0 dead ones",
                f"{collector.name}: the replay has 1 rows; they stay until it is told how they ended",
            ],
        )


async def test_replay_puts_the_dead_of_a_live_file_back_and_they_are_delivered_at_once(tmp_path: Path, away) -> None:
    leave_behind(tmp_path)
    async with live(tmp_path) as collector:
        spool = collector.rooms.spool
        assert spool is not None
        assert collector.name == "node1.sqlite3"
        collector.cluster.start_broker(1)
        said = await away("spool", "replay", "--dead", "--path", tmp_path)
        assert said.code == 0, said.err
        assert said.out.startswith(f"node1.sqlite3: pid {os.getpid()} replays now: ")
        with trio.fail_after(5):
            await trio.lowlevel.checkpoint()
            while spool.statistics().rows:  # noqa: ASYNC110  # the spool has no event for it
                await trio.sleep(0.02)
        statistics = spool.statistics()
        assert (statistics.replayed_total, statistics.dead_total, statistics.difference) == (7, 0, 0)
        found = {record.value for record in collector.cluster.records("events")}
        assert found == {b'{"n":%d}' % number for number in range(1, 7)}


async def test_owner_that_has_another_file_refuses(tmp_path: Path, away) -> None:
    other = leave_behind(tmp_path, "other")
    lock = Lock.take(other, {})
    assert lock is not None
    try:
        async with live(tmp_path) as collector:
            lock.path.write_bytes((tmp_path / f"{collector.name}.lock").read_bytes())
            said = await away("spool", "drop", "--all", "--yes", "--path", tmp_path, "other")
            assert said.code == 2
            assert "answered 409: other.sqlite3 is not this process's file" in said.err
    finally:
        lock.release()
    assert len((await away("spool", "export", "--path", tmp_path, "other")).json()) == 5


async def test_owner_that_does_not_answer_is_one_line_and_2(tmp_path: Path, away) -> None:
    async with live(tmp_path) as collector:
        await collector.store(1)
        lock = tmp_path / f"{collector.name}.lock"
        told = json.loads(lock.read_text())
        lock.write_text(json.dumps({**told, "admin": "http://127.0.0.1:9"}))
        said = await away("spool", "replay", "--path", tmp_path)
        assert said.code == 2
        assert f"pid {os.getpid()} has it, and does not answer at http://127.0.0.1:9/control/spool/replay" in said.err
        lock.write_text(json.dumps({**told, "admin": None}))
        said = await away("spool", "replay", "--path", tmp_path)
        assert said.code == 2
        assert "names no admin listener" in said.err
