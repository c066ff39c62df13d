"""What the log says while a spool fills, refuses and empties."""

import io
import json
from collections.abc import Callable, Iterator

import pytest
import trio
import trio.testing

from collector.config import LogConfig
from collector.log import configure_logging
from collector.spool import DiskSpool, open_spool
from collector.spool.fill_log import LOG_S
from collector.spool.schema import ROW_COST_BYTES, encode
from tests.collector.spool.rows import config_of, row, take_all

SIZE = ROW_COST_BYTES + len(encode(row().record, "app"))


@pytest.fixture
def lines() -> Iterator[Callable[[], list[dict[str, object]]]]:
    """The new lines, as JSON objects."""
    stream = io.StringIO()
    configure_logging(LogConfig(format="json"), stream=stream)

    def new() -> list[dict[str, object]]:
        text = stream.getvalue()
        stream.seek(0)
        stream.truncate()
        return [json.loads(line) for line in text.splitlines()]

    yield new
    configure_logging(LogConfig(format="console"))


async def fill(spool: DiskSpool, rows: int) -> None:
    await spool.submit([row() for _ in range(rows)]).wait()
    spool.statistics()  # the replay and the monitor look once a second


async def empty(spool: DiskSpool, rows: int) -> None:
    taken = await take_all(spool, rows)
    await spool.gone([stored.id for stored in taken], "replayed")
    spool.statistics()


async def test_full_spool_refused_without_a_word_in_the_log(lines, autojump_clock: trio.testing.MockClock) -> None:
    async with open_spool(config_of(":memory:", max_bytes=10 * SIZE), node="n") as spool:
        await fill(spool, 7)
        assert lines() == []
        await fill(spool, 1)
        [line] = lines()
        assert (line["level"], line["event"], line["rows"]) == ("warning", "the spool is 80% full", 8)
        for _ in range(5):
            await fill(spool, 3)
        [line] = lines()
        assert (line["level"], line["rows"], line["bytes"], line["max_bytes"]) == ("error", 10, 10 * SIZE, 10 * SIZE)
        assert "the spool is full" in str(line["event"])
        assert all(words in str(line["to_do"]) for words in ("collector spool ls", "[spool] max_bytes", "Kafka"))
        await empty(spool, 1)
        assert lines() == [], "90 % is not room"
        await empty(spool, 1)
        [line] = lines()
        assert (line["event"], line["rows_refused"], line["rows"]) == ("the spool has room again", 13, 8)


async def test_spool_that_fills_and_empties_again_and_again_costs_each_line_once_a_minute(
    lines, autojump_clock: trio.testing.MockClock
) -> None:
    async with open_spool(config_of(":memory:", max_bytes=10 * SIZE), node="n") as spool:
        for _ in range(20):
            await fill(spool, 11)
            await empty(spool, 10)
            await trio.sleep(1)
        assert [line["level"] for line in lines()] == ["error", "info"]
        await trio.sleep(LOG_S)
        await fill(spool, 11)
        await empty(spool, 10)
        assert [(line["level"], line.get("rows_refused")) for line in lines()] == [("error", None), ("info", 20)]


async def test_level_that_stays_is_said_although_it_came_too_soon(
    lines, autojump_clock: trio.testing.MockClock
) -> None:
    async with open_spool(config_of(":memory:", max_bytes=10 * SIZE), node="n") as spool:
        await fill(spool, 11)
        await empty(spool, 10)
        await fill(spool, 11)
        assert [line["level"] for line in lines()] == ["error", "info"]
        await trio.sleep(LOG_S)
        spool.statistics()
        assert [line["level"] for line in lines()] == ["error"]
