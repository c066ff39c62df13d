"""The replay of kept lines, into a fake broker: what arrives, what is repeated after a crash, what is said."""

import errno
import gzip
import json
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import pytest
import trio

from collector.config import AppKeys, KeysConfig, ShutdownConfig
from collector.devtools.fixtures import default_config, open_collector_app
from collector.devtools.received import ReceivedEvent
from collector.last_resort import cursor as cursor_module
from collector.last_resort import replay as replay_module
from collector.last_resort.cursor import Cursor, CursorFault, cursor_path, read_cursor, write_cursor
from collector.last_resort.feed import Feeder, Prepared
from collector.last_resort.kept import KeptRequest
from collector.last_resort.lines import KeptFile, Unusable
from collector.last_resort.replay import replay
from collector.last_resort.report import Report
from kafka_client.testing import FakeCluster


class Crash(Exception):
    """The process ends here."""


class KeptLine(Protocol):
    """Makes one line, see conftest."""

    def __call__(self, body: bytes, **members: "str | bytes") -> bytes: ...


def track(number: int, **members: object) -> bytes:
    return json.dumps({"event": "x", "userId": f"u{number}", "messageId": f"m{number}", **members}).encode()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "requests.log"


def write(path: Path, data: bytes) -> None:
    path.write_bytes(data)


def append(path: Path, data: bytes) -> None:
    with path.open("ab") as stream:
        stream.write(data)


def move(path: Path, name: str) -> Path:
    return path.rename(path.with_name(name))


@asynccontextmanager
async def open_feeder(broker: FakeCluster, keys: KeysConfig | None = None) -> AsyncIterator[Feeder]:
    """As one process: no memory of another one's events."""
    config = replace(default_config(), shutdown=ShutdownConfig(delay_s=0.0, drain_s=0.2))
    async with open_collector_app(broker, config if keys is None else replace(config, keys=keys)) as app:
        yield Feeder(app.services)


async def run(
    broker: FakeCluster,
    path: Path,
    *,
    patience_s: float = 5.0,
    say: Callable[[str], object] = lambda text: None,
    stopping: Callable[[], bool] = lambda: False,
    keys: KeysConfig | None = None,
) -> Report:
    async with open_feeder(broker, keys) as feeder:
        with KeptFile(path) as opened:
            return await replay(opened, feeder, patience_s=patience_s, say=say, stopping=stopping)


def arrived(broker: FakeCluster) -> list[ReceivedEvent]:
    return [
        ReceivedEvent(
            topic=record.topic,
            partition=record.partition,
            offset=record.offset,
            key=record.key,
            value=record.value,
            headers=record.headers,
        )
        for record in broker.records("events")
    ]


def ids(broker: FakeCluster) -> list[str]:
    return sorted(event.id for event in arrived(broker))


def marked(broker: FakeCluster) -> list[str]:
    return sorted(event.id for event in arrived(broker) if ("maybe-duplicate", b"1") in event.headers)


async def test_line_is_the_record_that_the_collector_would_have_made(
    kafka_broker: FakeCluster, file: Path, kept_line: KeptLine
) -> None:
    body = b' {"event":"x", "userId":"u\xc3\xa9","sentAt":"2025-06-15T08:00:00Z"}'
    write(file, kept_line(body, upstream_s="0.250", dnt="1"))
    report = await run(kafka_broker, file)
    assert (report.fed, report.events["delivered"], report.done) == (1, 1, True)
    [event] = arrived(kafka_broker)
    envelope = event.envelope
    assert envelope["received_at"] == "2025-06-15T08:00:00.000Z"
    assert envelope["flags"] == {"bot": False, "dnt": True, "gpc": None, "skew_ms": 0}
    assert (envelope["ip"], envelope["user_agent"], envelope["app"]) == ("198.51.100.0", "curl/8", "k")
    assert event.key == "ué".encode()
    assert event.value is not None
    assert event.value.endswith(body + b"}")
    assert marked(kafka_broker) == []
    again = kafka_broker.values("events")
    await run(kafka_broker, file)
    assert kafka_broker.values("events") == again, "done is done"


async def test_event_without_an_id_gets_the_one_of_its_request(
    kafka_broker: FakeCluster, file: Path, kept_line: KeptLine
) -> None:
    body = b'{"event":"x","userId":"u"}'
    write(file, kept_line(body, request_id="mine-7"))
    await run(kafka_broker, file)
    async with open_collector_app(kafka_broker) as app:
        headers = {"X-Request-Id": "mine-7", "Authorization": "Basic azo="}
        assert (await app.http.post("/v1/track", content=body, headers=headers)).status_code == 200
    first, second = arrived(kafka_broker)
    assert first.id == second.id


async def test_bodies_come_through_in_every_dialect_and_coding(
    kafka_broker: FakeCluster, file: Path, kept_line: KeptLine
) -> None:
    batch = json.dumps({"batch": [{"type": "track", **json.loads(track(n))} for n in range(3)]}).encode()
    heap = b'{"app_id":"11","identity":"h","event":"y","idempotency_key":"heap"}'
    write(
        file,
        kept_line(gzip.compress(batch), target="/v1/batch", content_encoding="gzip")
        + kept_line(gzip.compress(track(3)), target="/v1/track?writeKey=q", user="")
        + kept_line(heap, target="/api/track/", user="")
        + kept_line(b"{}", target="/v1/m"),
    )
    report = await run(kafka_broker, file)
    assert ids(kafka_broker) == ["heap", "m0", "m1", "m2", "m3"]
    assert {event.id: event.app for event in arrived(kafka_broker)} | {"heap": "11", "m3": "q"} == {
        "heap": "11",
        "m0": "k",
        "m1": "k",
        "m2": "k",
        "m3": "q",
    }
    assert (report.fed, report.events["delivered"]) == (4, 5)


async def test_what_is_no_good_is_named_and_stops_nothing(
    kafka_broker: FakeCluster, file: Path, kept_line: KeptLine
) -> None:
    told: list[str] = []
    good = kept_line(track(1), user="known")
    write(
        file,
        kept_line(track(0), user="unknown")
        + good[:150]  # the disk was full
        + good
        + b"\n"
        + b"\0" * 100
        + b"\n"
        + kept_line(b"{", user="known")
        + kept_line(track(2, event=5), user="known")
        + kept_line(track(3), target="/v1/nothing")
        + kept_line(track(4), user="known")[:-3],
    )
    keys = KeysConfig(apps={"app": AppKeys(write_keys=("known",))})
    report = await run(kafka_broker, file, say=told.append, keys=keys)
    assert ids(kafka_broker) == ["m1"]
    assert (report.fed, report.refused.numbers, report.broken.numbers) == (1, [1, 5, 7, 6], [2, 4])
    assert (report.events["delivered"], report.events["rejected"]) == (1, 1)
    lines = ["line 1", "line 2", "line 4", "line 5", "line 7", "line 6"]
    assert [text.split(":")[0] for text in told] == lines
    assert "invalid_key" in told[0]
    assert "half a line" in told[1]
    assert "invalid_field" in told[5]
    assert report.done, "what is no good is no reason to come back"
    assert not report.lossless, "nginx has answered 200 for them"


async def test_line_whose_events_are_all_bad_is_refused_and_they_are_in_the_bad_topic(
    kafka_broker: FakeCluster, file: Path, kept_line: KeptLine
) -> None:
    body = track(2, event=5)
    write(file, kept_line(body))
    report = await run(kafka_broker, file)
    assert (report.fed, report.refused.numbers, report.lossless) == (0, [1], False)
    kept = kafka_broker.values("events-bad")
    async with open_collector_app(kafka_broker) as app:
        assert (
            await app.http.post("/v1/track", content=body, headers={"Authorization": "Basic azo="})
        ).status_code == 400
    live = kafka_broker.values("events-bad")[len(kept) :]
    assert len(kept) == len(live) == 1, "as a live one's"


async def test_batch_that_is_bad_in_part_is_fed_back_as_a_live_one_is_accepted(
    kafka_broker: FakeCluster, file: Path, kept_line: KeptLine
) -> None:
    events = [{"type": "track", **json.loads(track(1))}, {"type": "track", **json.loads(track(2, event=5))}]
    write(file, kept_line(json.dumps({"batch": events}).encode(), target="/v1/batch"))
    report = await run(kafka_broker, file)
    assert (report.fed, report.events["rejected"], report.lossless) == (1, 1, True)
    assert len(kafka_broker.values("events-bad")) == 1


async def test_old_half_line_at_the_end_is_broken(kafka_broker: FakeCluster, file: Path, kept_line: KeptLine) -> None:
    write(file, kept_line(track(0)) + kept_line(track(1))[:50])
    report = await run(kafka_broker, file)
    assert (report.fed, report.behind_bytes, report.lossless) == (1, 50, True), "nginx may be writing it"
    os.utime(file, (1, 1))
    told: list[str] = []
    report = await run(kafka_broker, file, say=told.append)
    assert (report.fed, report.broken.numbers, report.lossless) == (0, [2], False)
    assert "no end" in told[0]


async def test_half_a_line_at_the_end_is_read_when_it_is_whole(
    kafka_broker: FakeCluster, file: Path, kept_line: KeptLine
) -> None:
    line = kept_line(track(1))
    for part in (b"", line[:50]):
        write(file, part)
        assert (await run(kafka_broker, file)).fed == 0
    write(file, kept_line(track(0)) + line[:50])
    assert (await run(kafka_broker, file)).fed == 1
    append(file, line[50:] + kept_line(track(2)))
    report = await run(kafka_broker, file)
    assert (report.before, report.fed, report.broken.count) == (1, 2, 0)
    assert ids(kafka_broker) == ["m0", "m1", "m2"]
    assert marked(kafka_broker) == []


async def test_replay_goes_on_where_the_file_was_moved(
    kafka_broker: FakeCluster, file: Path, kept_line: KeptLine
) -> None:
    write(file, kept_line(track(0)))
    await run(kafka_broker, file)
    append(file, kept_line(track(1), request_id="late"))
    moved = move(file, "requests.log.1")
    write(file, kept_line(track(2), request_id="new"))
    assert (await run(kafka_broker, moved)).before == 1
    assert (await run(kafka_broker, file)).before == 0
    assert ids(kafka_broker) == ["m0", "m1", "m2"]


async def test_file_that_was_cut_is_refused(kafka_broker: FakeCluster, file: Path, kept_line: KeptLine) -> None:
    first = kept_line(track(0))
    write(file, first + kept_line(track(1)))
    await run(kafka_broker, file)
    write(file, first)
    with pytest.raises(CursorFault, match="it was cut"):
        await run(kafka_broker, file)


async def test_two_replays_of_one_file_do_not_meet(kafka_broker: FakeCluster, file: Path, kept_line: KeptLine) -> None:
    write(file, kept_line(track(0)))
    with KeptFile(file), pytest.raises(Unusable, match="another process"):
        await run(kafka_broker, file)


async def test_events_that_were_not_sent_are_left_and_named(
    kafka_broker: FakeCluster, file: Path, kept_line: KeptLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replay_module, "CHUNK_LINES", 2)
    write(file, b"".join(kept_line(track(number), request_id=f"r{number}") for number in range(4)))
    kafka_broker.faults.refuse_connects()
    report = await run(kafka_broker, file, patience_s=0.1)
    assert not report.done
    assert (report.events["not_sent"], report.fed) == (2, 0)
    assert "left: line 1-2 (not acknowledged in time: " in "\n".join(report.lines())
    kafka_broker.faults.clear()
    report = await run(kafka_broker, file)
    assert report.done
    assert (report.before, report.fed) == (0, 4)
    assert ids(kafka_broker) == ["m0", "m1", "m2", "m3"]
    assert marked(kafka_broker) == [], "they were proved absent"


async def test_events_whose_end_is_unknown_come_again_marked(
    kafka_broker: FakeCluster, file: Path, kept_line: KeptLine
) -> None:
    write(file, kept_line(track(0)) + kept_line(track(1)))
    with kafka_broker.faults.stall():
        report = await run(kafka_broker, file, patience_s=0.3)
    assert report.events["unknown"] == 2
    assert len(report.left) == 2
    assert (await run(kafka_broker, file)).done
    assert set(marked(kafka_broker)) == {"m0", "m1"}


async def test_lines_in_work_at_a_crash_are_marked_and_no_others(
    kafka_broker: FakeCluster, file: Path, kept_line: KeptLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replay_module, "CHUNK_LINES", 2)
    write(file, b"".join(kept_line(track(number), request_id=f"r{number}") for number in range(6)))
    deliver, chunks = Feeder.deliver, 0

    async def crash_at_the_second(self: Feeder, *arguments: object) -> object:
        nonlocal chunks
        chunks += 1
        if chunks == 2:
            await deliver(self, *arguments)  # type: ignore[arg-type]  # as they came
            raise Crash
        return await deliver(self, *arguments)  # type: ignore[arg-type]  # the same

    monkeypatch.setattr(Feeder, "deliver", crash_at_the_second)
    with pytest.raises(Crash):
        await run(kafka_broker, file)
    report = await run(kafka_broker, file)
    assert (report.before, report.fed) == (2, 4)
    assert ids(kafka_broker) == ["m0", "m1", "m2", "m2", "m3", "m3", "m4", "m5"]
    assert marked(kafka_broker) == ["m2", "m3"]


async def test_replay_that_is_asked_to_stop_ends_after_its_chunk(
    kafka_broker: FakeCluster, file: Path, kept_line: KeptLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replay_module, "CHUNK_LINES", 1)
    write(file, b"".join(kept_line(track(number), request_id=f"r{number}") for number in range(3)))
    asked = iter((False, True))
    report = await run(kafka_broker, file, stopping=lambda: next(asked))
    assert (report.fed, report.done) == (1, False)
    assert (await run(kafka_broker, file)).fed == 2
    assert ids(kafka_broker) == ["m0", "m1", "m2"]
    assert marked(kafka_broker) == []


async def test_events_of_one_key_arrive_in_the_order_of_their_lines(
    kafka_broker: FakeCluster, file: Path, kept_line: KeptLine
) -> None:
    lines = [kept_line(track(0, messageId=f"{n:04}", userId="one")) for n in range(1200)]
    write(file, b"".join(lines))
    report = await run(kafka_broker, file)
    assert report.events["delivered"] == 1200
    assert [event.id for event in arrived(kafka_broker)] == [f"{number:04}" for number in range(1200)]


async def test_lines_that_come_meanwhile_are_fed_back_too(
    kafka_broker: FakeCluster, file: Path, kept_line: KeptLine
) -> None:
    write(file, kept_line(track(0)))

    def append_once() -> bool:
        if file.stat().st_size < 1000:
            append(file, kept_line(track(1)) * 3)
        return False

    report = await run(kafka_broker, file, stopping=append_once)
    await trio.lowlevel.checkpoint()
    assert report.fed == 4
    assert report.behind_bytes == 0


async def test_compressed_file_is_refused_not_read_as_broken(kafka_broker: FakeCluster, file: Path) -> None:
    write(file, gzip.compress(b"{}"))
    with pytest.raises(Unusable, match="gunzip"):
        await run(kafka_broker, file)


async def test_line_that_meets_a_bug_is_left_and_the_others_go_on(
    kafka_broker: FakeCluster, file: Path, kept_line: KeptLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replay_module, "CHUNK_LINES", 2)
    write(file, b"".join(kept_line(track(number), request_id=f"r{number}") for number in range(4)))
    prepare = Feeder.prepare

    async def fail_for_one(self: Feeder, kept: KeptRequest, *, maybe_duplicate: bool) -> Prepared:
        if kept.request_id == "r1":
            raise ZeroDivisionError
        return await prepare(self, kept, maybe_duplicate=maybe_duplicate)

    with monkeypatch.context() as patch:
        patch.setattr(Feeder, "prepare", fail_for_one)
        report = await run(kafka_broker, file)
    assert (report.fed, report.done) == (3, False)
    assert "left: line 2 (internal error)" in "\n".join(report.lines())
    report = await run(kafka_broker, file)
    assert (report.before, report.fed, report.done) == (3, 1, True)
    assert ids(kafka_broker) == ["m0", "m1", "m2", "m3"]
    assert marked(kafka_broker) == []


@pytest.mark.parametrize("failing", ["open", "fsync"])
async def test_place_where_no_cursor_can_be_written_is_refused_before_the_first_line(
    kafka_broker: FakeCluster, file: Path, kept_line: KeptLine, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    write(file, kept_line(track(0)))

    def fail(*arguments: object, **options: object) -> int:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    async with open_feeder(kafka_broker) as feeder:
        with (
            monkeypatch.context() as patch,
            KeptFile(file) as opened,
            pytest.raises(CursorFault, match=f"{file.parent}: .*Read-only file system.*--cursors"),
        ):
            patch.setattr(cursor_module.os, failing, fail)
            await replay(opened, feeder, patience_s=5, say=lambda text: None)
    assert arrived(kafka_broker) == []


@pytest.mark.parametrize(
    ("fails_at", "fed", "words", "again"),
    [
        (1, 0, "it goes on with line 1", []),
        (2, 2, "it feeds line 1-2 back again and goes on with line 3", ["m0", "m1"]),
        (4, 6, "it feeds line 5-6 back again and goes on with line 7", ["m4", "m5"]),
    ],
)
async def test_cursor_that_fails_midway_ends_the_replay_and_says_which_lines_come_again(
    kafka_broker: FakeCluster,
    file: Path,
    kept_line: KeptLine,
    monkeypatch: pytest.MonkeyPatch,
    fails_at: int,
    fed: int,
    words: str,
    again: list[str],
) -> None:
    """The fourth is the one at the end."""
    monkeypatch.setattr(replay_module, "CHUNK_LINES", 2)
    write(file, b"".join(kept_line(track(number), request_id=f"r{number}") for number in range(6)))
    count = 0

    def fail_once(path: Path, cursor: Cursor) -> None:
        nonlocal count
        count += 1
        if count == fails_at:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write_cursor(path, cursor)

    with monkeypatch.context() as patch:
        patch.setattr(replay_module, "write_cursor", fail_once)
        report = await run(kafka_broker, file)
    assert count == fails_at, "it is not tried again"
    assert (report.fed, report.done, report.lossless) == (fed, False, False)
    said = "\n".join(report.lines())
    assert "No space left on device" in said
    assert words in said
    assert (await run(kafka_broker, file)).lossless
    assert sorted(set(ids(kafka_broker))) == [f"m{number}" for number in range(6)]
    assert marked(kafka_broker) == again


async def test_cursor_of_root_belongs_to_the_owner_of_its_directory(
    kafka_broker: FakeCluster, tmp_path: Path, kept_line: KeptLine
) -> None:
    """Who is not root has no other owner to give it to."""
    directory = tmp_path / "kept"
    directory.mkdir()
    file = directory / "requests.log"
    write(file, kept_line(track(0)))
    if os.geteuid() == 0:
        os.chown(directory, 65534, 65534)
    await run(kafka_broker, file)
    [cursor] = directory.glob("*.cursor")
    assert (cursor.stat().st_uid, cursor.stat().st_gid) == (directory.stat().st_uid, directory.stat().st_gid)


def test_cursor_is_not_written_through_a_link_that_waits_in_its_place(tmp_path: Path) -> None:
    """Root writes into a directory of somebody else."""
    other = tmp_path / "other"
    other.write_bytes(b"mine")
    path = cursor_path(tmp_path, "x")
    path.with_suffix(".partial").symlink_to(other)
    write_cursor(path, Cursor(offset=5))
    assert other.read_bytes() == b"mine"
    assert read_cursor(path) == Cursor(offset=5)


async def test_cursor_may_be_elsewhere_where_the_place_is_full(
    kafka_broker: FakeCluster, file: Path, tmp_path: Path, kept_line: KeptLine
) -> None:
    write(file, kept_line(track(0)))
    elsewhere = trio.Path(tmp_path / "cursors")
    await elsewhere.mkdir()
    for fed in (1, 0):
        async with open_feeder(kafka_broker) as feeder:
            with KeptFile(file) as opened:
                report = await replay(opened, feeder, patience_s=5, say=lambda text: None, cursors=Path(elsewhere))
        assert report.fed == fed
    [cursor] = await elsewhere.iterdir()
    assert cursor.suffix == ".cursor"
    assert (await cursor.stat()).st_mode & 0o777 == 0o600
