"""The two lines of a replay: that they add up, and how often they come."""

import io
import json
from collections.abc import Callable, Iterator

import pytest
import trio.testing

from collector.config import Config, LogConfig, SpoolConfig
from collector.ingest.replay_log import LOG_S, ReplayLog
from collector.log import configure_logging
from collector.spool import open_spool
from collector.spool.base import Selection, SpoolRow
from kafka_client.outcome import Delivered, Record, TopicPartition


@pytest.fixture
def lines() -> Iterator[Callable[[], list[dict[str, object]]]]:
    stream = io.StringIO()
    configure_logging(LogConfig(format="json"), stream=stream)
    yield lambda: [line for line in map(json.loads, stream.getvalue().splitlines()) if line["area"] == "replay"]
    configure_logging(LogConfig(format="console"))


def rows(count: int, *, held: bool = False) -> list[SpoolRow]:
    return [SpoolRow(record=Record("events", b"{}"), app="a", key_hash=None, held=held) for _ in range(count)]


async def test_rows_that_kafka_had_are_missing_in_the_sum(lines, autojump_clock: trio.testing.MockClock) -> None:
    async with open_spool(Config(spool=SpoolConfig(path=":memory:")), node="n") as spool:
        log = ReplayLog()
        held = spool.submit(rows(3, held=True))
        await held.wait()
        await spool.submit(rows(5)).wait()
        log.replaying(100.0, spool.statistics())
        taken = await spool.take(Selection(rows=100, bytes=1 << 20))
        await spool.submit(rows(2)).wait()
        for index in range(3):
            held.resolve(index, Delivered(TopicPartition("events", 0), index, 1, 1))
        await spool.gone([row.id for row in taken[:3]], "replayed")
        await spool.gone([taken[3].id], "dropped")
        await spool.dead({taken[4].id: "poison"})
        taken = await spool.take(Selection(rows=100, bytes=1 << 20))
        await spool.gone([row.id for row in taken], "replayed")
        log.empty(103.0, spool.statistics())
    began, ended = lines()
    assert (began["event"], began["rows"]) == ("replaying", 8)
    assert ended["event"] == "the spool is empty"
    names = ("more_came", "replayed", "resolved", "dead", "dropped", "lost", "took_s")
    assert [ended[name] for name in names] == [2, 5, 3, 1, 1, 0, 3.0]


async def test_replay_that_begins_again_and_again_costs_two_lines_in_ten_seconds(
    lines, autojump_clock: trio.testing.MockClock
) -> None:
    async with open_spool(Config(spool=SpoolConfig(path=":memory:")), node="n") as spool:
        log = ReplayLog()
        for tenth in range(round(10 * LOG_S)):
            log.replaying(tenth / 10, spool.statistics())
            log.empty(tenth / 10, spool.statistics())
    assert [line["event"] for line in lines()] == ["replaying", "the spool is empty"]
