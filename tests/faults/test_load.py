"""What the load writes down of an answer, and where ids are found again."""

import io
import json
import os
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest

from collector.devtools.raw_http import Reply
from tests.faults.entries import Entry, read_entries
from tests.faults.full_disk import small_disk
from tests.faults.load import Log, Spec, track_body
from tests.faults.load_http import note_reply, positions
from tests.faults.load_websocket import Session
from tests.faults.spooled import ids_in_spool

SPEC = Spec(run="r", log="", address="127.0.0.1:1", seconds=1.0)


class Written(io.BytesIO):
    """The file of a log, read back."""

    def entries(self) -> list[Entry]:
        return [msgspec.json.decode(line, type=Entry) for line in self.getvalue().splitlines()]


@pytest.mark.parametrize(
    ("text", "found"), [("", ()), ("3", (3,)), ("0-2", (0, 1, 2)), ("3,17-20,22", (3, 17, 18, 19, 20, 22))]
)
def test_unknown_positions_are_read_as_they_are_written(text: str, found: tuple[int, ...]) -> None:
    assert positions(text) == found


def test_cut_list_of_unknown_positions_is_refused() -> None:
    with pytest.raises(ValueError, match="invalid literal"):
        positions("1,2,…")


def test_counts_of_an_answer_are_noted() -> None:
    entry = Entry(number=1, events=10, sent_at=time.monotonic())
    headers = {
        "x-collector-outcome": "delivered=3, spooled=2, rejected=0, not_sent=4, unknown=1",
        "x-collector-unknown": "9",
    }
    note_reply(entry, Reply(status=503, headers=headers, body=b"", seconds=0.0))
    assert (entry.status, entry.counted, entry.delivered, entry.unknown) == (503, True, 5, (9,))
    assert entry.answered_at is not None


def test_answer_of_a_proxy_counts_nothing() -> None:
    entry = Entry(number=1, events=1, sent_at=0.0)
    note_reply(entry, Reply(status=503, headers={}, body=b"", seconds=0.0))
    assert (entry.status, entry.counted) == (503, False)


def test_upto_settles_all_that_was_not_named() -> None:
    written = Written()
    session = Session(Log(SPEC, written))
    for _ in range(4):
        session.written(session.next_message()[0])
    session.on_frame({"op": "ack", "id": 2, "status": "unknown"})
    session.on_frame({"op": "ack", "upto": 3})
    session.on_frame({"op": "ack", "upto": 3})
    session.end()
    told = {entry.number: (entry.status, entry.unknown, entry.counted) for entry in written.entries()}
    assert told == {1: (200, (), True), 2: (503, (0,), True), 3: (200, (), True), 4: (0, (), False)}
    assert len(written.entries()) == 4


def test_message_that_was_not_written_whole_is_known_as_that() -> None:
    written = Written()
    session = Session(Log(SPEC, written))
    session.next_message()
    session.end()
    assert [(entry.whole, entry.status) for entry in written.entries()] == [(False, 0)]


def test_drain_ends_the_sending_on_this_connection() -> None:
    session = Session(Log(SPEC, Written()))
    session.on_frame({"op": "drain", "retry_after_s": 4})
    assert session.leaving


def test_log_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    file = tmp_path / "load.log"
    with file.open("wb") as opened:
        log = Log(SPEC, opened)
        first, second = log.new(1), log.new(10, rude=True)
        second.status, second.answered_at, second.unknown = 503, 2.5, (1, 2)
        log.put(second)
        log.put(first)
    assert list(read_entries(file)) == [second, first]
    assert (first.number, second.number) == (1, 2)


def test_ids_are_found_in_every_table_of_every_file(tmp_path: Path) -> None:
    assert ids_in_spool(tmp_path / "none") == set()
    for name, table in (("one.db", "payloads"), ("two.db", "dead")):
        with sqlite3.connect(tmp_path / name) as database:
            database.execute(f"create table {table} (id integer, payload blob, reason text)")
            value = json.dumps({"v": 1, "id": f"r-1-{table}", "body": {"id": "no"}}, separators=(",", ":"))
            database.execute(f"insert into {table} values (1, ?, 'x')", (b"\x95\xa1" + value.encode(),))
        database.close()
    (tmp_path / "lock").write_text('"id":"no"')
    assert ids_in_spool(tmp_path) == {"r-1-payloads", "r-1-dead"}


def test_value_of_the_collector_is_found_in_a_spool(tmp_path: Path) -> None:
    from collector.spool.schema import CREATE, encode
    from kafka_client.outcome import Record

    with sqlite3.connect(tmp_path / "spool.db") as database:
        database.executescript(CREATE)
        record = Record("events", b'{"v":1,"id":"r-7-3","api":"segment","body":{"messageId":"r-7-3"}}', b"key")
        database.execute("insert into payloads values (1, ?)", (encode(record, "app"),))
    database.close()
    assert ids_in_spool(tmp_path) == {"r-7-3"}


def test_events_have_the_size_of_real_ones_and_a_name_of_their_own() -> None:
    log = Log(SPEC, Written())
    entry = log.new(2)
    bodies = [track_body(SPEC, entry, position) for position in range(2)]
    assert [body["messageId"] for body in bodies] == ["r-1-0", "r-1-1"]
    assert all(220 <= len(json.dumps(body)) <= 300 for body in bodies)


def test_disk_of_any_size_is_a_directory(tmp_path: Path) -> None:
    notes: list[str] = []
    with small_disk(tmp_path / "spool", 0, notes) as environ:
        assert (tmp_path / "spool").is_dir()
    assert (environ, notes) == ({}, [])


def test_small_disk_says_how_it_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    notes: list[str] = []
    with small_disk(tmp_path / "spool", 8 << 20, notes) as environ:
        assert environ == {"FAULTS_FILE_BYTES": str(4 << 20)}
    assert notes == ["no file system could be mounted: instead RLIMIT_FSIZE of 4 MiB (EFBIG)"]


def test_wrapped_clock_jumps_when_it_is_told_to(tmp_path: Path) -> None:
    clock = tmp_path / "clock"
    program = f"""
import os, signal, time
from tests.faults.wrapped_collector import let_clock_jump, limit_files
let_clock_jump({str(clock)!r})
limit_files("1000")
before, monotonic = time.time(), time.monotonic()
open({str(clock)!r}, "w").write("3600")
os.kill(os.getpid(), signal.SIGUSR1)
print(round(time.time() - before), round(time.time_ns() / 1e9 - before), round(time.monotonic() - monotonic))
large = open({str(tmp_path / "large")!r}, "wb", buffering=0)
print(large.write(bytes(2000)))
try:
    large.write(b"x")
except OSError as error:
    print(error.errno)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["3600", "3600", "0", "1000", "27"]
