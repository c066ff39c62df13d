"""Rows of another topic in the spool: ``[kafka] topic`` was changed."""

from typing import Any

import pytest
import trio

from kafka_client.outcome import Record
from tests.collector.ingest.test_replay import key_of, numbered


@pytest.mark.parametrize("old", [3, 1200])
@pytest.mark.parametrize("order", ["none", "key"])
async def test_rows_of_a_topic_that_is_gone_do_not_keep_a_partition_diverted(
    open_room: Any, autojump_clock: object, old: int, order: str
) -> None:
    """`[kafka] topic` was changed: the oldest row was every partition's probe, and proved nothing."""
    async with open_room(partitions=2, brokers=2, spool={"order": order}) as room:
        leader = room.cluster.partition("events", 0).leader
        room.cluster.stop_broker(leader, elect=False)
        room.cluster.move_leader("events", 0, None)
        await trio.sleep(70)  # metadata is asked for once a minute
        assert room.diversion.probes("events") == {0}
        await room.put([Record("renamed", value) for value in numbered(old)])
        await room.store(b"a", b"b", key=key_of(0, 2))
        await trio.sleep(30)
        room.cluster.start_broker(leader)
        await room.until(lambda: room.values() == [b"a", b"b"])
        await room.until(lambda: room.spool.statistics().rows == old)
        assert room.diversion.diverted("events") == frozenset()


async def test_row_of_another_topic_is_not_sent_to_a_partition_that_only_ours_has(
    open_room: Any, autojump_clock: object
) -> None:
    """It has one partition, and the healthy one of ours was the second: such a row waited for ever."""
    async with open_room(partitions=2, other_topics={"renamed": 1}) as room:
        room.cluster.move_leader("events", 0, None)
        with room.producer.delivery([Record("events", b"finds out", partition=0)]):
            await trio.sleep(5)
            assert room.diversion.diverted("events") == {0}
            assert room.diversion.healthy_partition() == 1
            await room.put([Record("renamed", value) for value in numbered(20)])
            await room.until(lambda: len(room.cluster.values("renamed")) == 20)
        room.cluster.move_leader("events", 0, 1)
        await room.until_empty()
