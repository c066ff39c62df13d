"""What the spool promises, on memory and in virtual time."""

from dataclasses import replace

import pytest
import trio
import trio.lowlevel

from collector.config import Config
from collector.spool import open_spool
from collector.spool.base import BUCKETS, Decided, Refused, Selection, Stored
from collector.spool.operator import Choice
from collector.spool.schema import ROW_COST_BYTES, decode, encode
from kafka_client.outcome import Delivered, NotSent, Outcome, Record, TopicPartition, Unknown
from tests.collector.spool.rows import config_of, row, take_all, values_of

DELIVERED = Delivered(TopicPartition("events", 0), 1, 1, 1)


async def test_rows_come_back_as_they_were_and_in_order(memory: Config, autojump_clock: trio.testing.MockClock) -> None:
    async with open_spool(memory, node="n") as spool:
        receipt = spool.submit([row(b"%d" % number) for number in range(5)])
        assert receipt.outcomes == [None] * 5
        await receipt.wait()
        assert receipt.outcomes == [Stored()] * 5
        taken = await take_all(spool)
        assert [stored.record.value for stored in taken] == [b"0", b"1", b"2", b"3", b"4"]
        assert [stored.id for stored in taken] == sorted({stored.id for stored in taken})
        assert {(stored.app, stored.attempted) for stored in taken} == {("app", False)}


@pytest.mark.parametrize(
    "record",
    [
        Record("t", b"v"),
        Record("t", None, b"k"),
        Record("t", b"", b""),
        Record("t", b"v", None, (("a", None), ("b", b""), ("ü", b"\xff")), 1_700_000_000_000, 3),
    ],
)
def test_a_record_is_read_as_it_was_written_and_null_is_not_empty(record: Record) -> None:
    assert decode(encode(record, "Ä")) == (replace_headers(record), "Ä")


def replace_headers(record: Record) -> Record:
    return Record(record.topic, record.value, record.key, tuple(record.headers), record.timestamp_ms, record.partition)


async def test_requests_during_a_commit_share_the_next_one(
    memory: Config, autojump_clock: trio.testing.MockClock
) -> None:
    async with open_spool(memory, node="n") as spool:
        before = spool.statistics().commits_total
        receipts = [spool.submit([row()]) for _ in range(50)]
        for receipt in receipts:
            await receipt.wait()
        assert spool.statistics().commits_total == before + 1


async def test_withdrawn_before_taking_is_not_stored(memory: Config, autojump_clock: trio.testing.MockClock) -> None:
    async with open_spool(memory, node="n") as spool:
        receipt = spool.submit([row()])
        receipt.withdraw()
        receipt.withdraw()
        await receipt.wait()
        assert receipt.outcomes == [Refused("withdrawn")]
        await trio.sleep(5)
        statistics = spool.statistics()
        assert (statistics.rows, statistics.pending_rows, statistics.pending_bytes, statistics.bytes) == (0, 0, 0, 0)
        assert not any(spool.busy_bucket(bucket) for bucket in range(BUCKETS))


@pytest.mark.parametrize("outcome", [DELIVERED, NotSent("timeout"), Unknown("timeout")])
async def test_held_row_resolved_before_taking_is_decided(
    memory: Config, autojump_clock: trio.testing.MockClock, outcome: Outcome
) -> None:
    async with open_spool(memory, node="n") as spool:
        receipt = spool.submit([row(held=True), row()])
        receipt.resolve(0, outcome)
        receipt.resolve(1, outcome)  # was not held: nothing carries it
        await receipt.wait()
        assert receipt.outcomes == [Decided(outcome), Stored()]
        assert spool.statistics().rows_in_total == 1


@pytest.mark.parametrize(
    ("outcome", "rows", "attempted"),
    [(DELIVERED, 0, None), (NotSent("closed"), 1, False), (Unknown("closed"), 1, True)],
)
async def test_held_row_resolved_after_its_commit_is_dropped_or_ready(
    memory: Config,
    autojump_clock: trio.testing.MockClock,
    outcome: Outcome,
    rows: int,
    attempted: bool | None,
) -> None:
    async with open_spool(memory, node="n") as spool:
        receipt = spool.submit([row(held=True)])
        await receipt.wait()
        assert spool.statistics().held_rows == 1
        assert await take_all(spool) == []
        receipt.withdraw()  # too late, and no reason to forget its resolution
        receipt.resolve(0, outcome)
        receipt.resolve(0, DELIVERED)  # the first one counts
        await trio.sleep(1)
        statistics = spool.statistics()
        assert (statistics.rows, statistics.held_rows, statistics.resolved_total) == (rows, 0, 1 - rows)
        assert statistics.difference == 0
        assert [stored.attempted for stored in await take_all(spool)] == ([] if attempted is None else [attempted])


async def test_a_row_in_work_is_not_taken_again_until_it_is_back(
    memory: Config, autojump_clock: trio.testing.MockClock
) -> None:
    async with open_spool(memory, node="n") as spool:
        await spool.submit([row(b"a"), row(b"b"), row(b"c"), row(b"d")]).wait()
        ids = [stored.id for stored in await take_all(spool)]
        assert await take_all(spool) == []
        await spool.mark_attempted(ids)
        assert spool.statistics().attempted_rows == 4
        await spool.gone(ids[:1], "replayed")
        await spool.dead({ids[1]: "MESSAGE_TOO_LARGE"})
        await spool.back(ids[2:3], attempted=False)
        await spool.back(ids[3:], attempted=True)
        assert [(stored.record.value, stored.attempted) for stored in await take_all(spool)] == [
            (b"c", False),
            (b"d", True),
        ]
        statistics = spool.statistics()
        assert (statistics.rows, statistics.replayed_total, statistics.dead_total) == (2, 1, 1)
        assert (statistics.attempted_rows, statistics.difference) == (1, 0)
        assert statistics.bytes == 3 * (ROW_COST_BYTES + len(encode(row(b"x").record, "app")))


async def test_proof_about_this_attempt_says_nothing_about_an_earlier_one(
    memory: Config, autojump_clock: trio.testing.MockClock
) -> None:
    async with open_spool(memory, node="n") as spool:
        receipt = spool.submit([row(held=True)])
        await receipt.wait()
        receipt.resolve(0, Unknown("closed"))
        await trio.sleep(1)
        (stored,) = await take_all(spool)
        await spool.mark_attempted([stored.id])
        await spool.back([stored.id], attempted=False)
        (again,) = await take_all(spool)
        assert again.attempted


async def test_full_spool_refuses_and_says_so_until_there_is_room(autojump_clock: trio.testing.MockClock) -> None:
    size = ROW_COST_BYTES + len(encode(row().record, "app"))
    async with open_spool(config_of(":memory:", max_bytes=10 * size), node="n") as spool:
        receipt = spool.submit([row() for _ in range(12)])
        await receipt.wait()
        assert receipt.outcomes == [Stored()] * 10 + [Refused("spool_full")] * 2
        statistics = spool.statistics()
        assert (statistics.state, statistics.refused_total, statistics.bytes) == ("full", 2, 10 * size)
        assert "max_bytes" in statistics.problem
        ids = [stored.id for stored in await take_all(spool)]
        await spool.gone(ids[:1], "replayed")
        assert spool.statistics().state == "full"  # 90 %: not below it
        await spool.gone(ids[1:2], "replayed")
        assert (spool.statistics().state, spool.statistics().problem) == ("ok", "")
        receipt = spool.submit([row() for _ in range(3)])
        await receipt.wait()
        assert receipt.outcomes == [Stored()] * 2 + [Refused("spool_full")]


async def test_dead_rows_count_against_the_bound(autojump_clock: trio.testing.MockClock) -> None:
    size = ROW_COST_BYTES + len(encode(row().record, "app"))
    async with open_spool(config_of(":memory:", max_bytes=size), node="n") as spool:
        await spool.submit([row()]).wait()
        (stored,) = await take_all(spool)
        await spool.dead({stored.id: "poison"})
        receipt = spool.submit([row()])
        await receipt.wait()
        assert receipt.outcomes == [Refused("spool_full")]


async def test_a_bucket_is_busy_from_the_submission_until_its_last_row_is_gone(
    memory: Config, autojump_clock: trio.testing.MockClock
) -> None:
    async with open_spool(memory, node="n") as spool:
        first = row(key=b"one")
        assert first.key_hash is not None
        bucket = first.key_hash % BUCKETS
        receipt = spool.submit([first, row(key=None)])
        assert spool.busy_bucket(bucket)
        await receipt.wait()
        assert spool.busy_bucket(bucket)
        ids = [stored.id for stored in await take_all(spool)]
        assert spool.busy_bucket(bucket)
        await spool.gone(ids, "replayed")
        assert not spool.busy_bucket(bucket)


async def test_leaving_commits_what_was_submitted_and_refuses_what_comes_later(
    memory: Config, autojump_clock: trio.testing.MockClock
) -> None:
    async with open_spool(memory, node="n") as spool:
        receipt = spool.submit([row()])
    assert receipt.outcomes == [Stored()]
    late = spool.submit([row()])
    assert late.outcomes == [Refused("spool_failed: closed")]


async def test_an_exception_of_the_block_comes_out_as_it_is(memory: Config) -> None:
    with pytest.raises(KeyError):
        async with open_spool(memory, node="n"):
            raise KeyError


async def test_cancelled_wait_leaves_the_row_to_its_commit(
    memory: Config, autojump_clock: trio.testing.MockClock
) -> None:
    async with open_spool(memory, node="n") as spool:
        receipt = spool.submit([row()])
        with trio.CancelScope() as scope:
            scope.cancel(reason="the test")
            await receipt.wait()
        assert receipt.outcomes == [None]
        await receipt.wait()
        assert await values_of(spool) == [b"{}"]


async def test_partitions_left_out_keep_their_rows_and_keyless_ones_are_never_left_out(
    memory: Config, autojump_clock: trio.testing.MockClock
) -> None:
    keys = [b"%d" % number for number in range(40)]
    async with open_spool(memory, node="n") as spool:
        await spool.submit([row(key, key) for key in keys] + [row(b"keyless", None)]).wait()
        selection = Selection(rows=100, bytes=1 << 20, partitions=6, without=(1, 4))
        taken = await spool.take(selection)
        assert {stored.key_hash % 6 for stored in taken if stored.key_hash is not None} == {0, 2, 3, 5}
        assert taken[-1].record.value == b"keyless"
        assert await spool.take(selection) == []
        rest = await spool.take(replace(selection, without=(4,)))
        assert {stored.key_hash % 6 for stored in rest if stored.key_hash is not None} == {1}
        last = await spool.take(replace(selection, without=()))
        assert len(taken) + len(rest) + len(last) == len(keys) + 1


async def test_take_keeps_to_rows_and_bytes_but_gives_one_row_at_least(
    memory: Config, autojump_clock: trio.testing.MockClock
) -> None:
    async with open_spool(memory, node="n") as spool:
        await spool.submit([row(b"x" * 1000) for _ in range(10)]).wait()
        assert len(await spool.take(Selection(rows=3, bytes=1 << 20))) == 3
        assert len(await spool.take(Selection(rows=9, bytes=2500))) == 2
        assert len(await spool.take(Selection(rows=9, bytes=1))) == 1
        assert len(await spool.take(Selection(rows=9, bytes=1 << 20, after_id=8))) == 2
        assert [stored.id for stored in await take_all(spool)] == [7, 8]


async def test_by_key_nothing_overtakes_its_bucket(memory: Config, autojump_clock: trio.testing.MockClock) -> None:
    ordered = Selection(rows=100, bytes=1 << 20, by_key=True)
    async with open_spool(memory, node="n") as spool:
        receipt = spool.submit(
            [row(b"a1", b"a", held=True), row(b"a2", b"a"), row(b"b1", b"b"), row(b"b2", b"b"), row(b"-", None)]
        )
        await receipt.wait()
        taken = await spool.take(ordered)
        assert [stored.record.value for stored in taken] == [b"b1", b"b2", b"-"]
        await spool.submit([row(b"b3", b"b"), row(b"c1", b"c")]).wait()
        assert [stored.record.value for stored in await spool.take(ordered)] == [b"c1"]
        await spool.gone([taken[0].id], "replayed")
        assert await spool.take(ordered) == []  # b2 is in work
        await spool.back([taken[1].id], attempted=False)
        assert [stored.record.value for stored in await spool.take(ordered)] == [b"b2", b"b3"]
        receipt.resolve(0, NotSent("closed"))
        await trio.sleep(1)
        assert [stored.record.value for stored in await spool.take(ordered)] == [b"a1", b"a2"]


async def test_by_key_a_row_of_a_partition_left_out_blocks_its_bucket_alone(
    memory: Config, autojump_clock: trio.testing.MockClock
) -> None:
    async with open_spool(memory, node="n") as spool:
        one, other = row(b"1", b"one"), row(b"2", b"two")
        assert one.key_hash is not None
        assert other.key_hash is not None
        away = one.key_hash % 7
        assert other.key_hash % 7 != away
        # The same bucket in another partition: what a topic has whose number of partitions does not divide 4096.
        behind = row(b"3", b"x")
        behind.key_hash = next(
            number for number in range(one.key_hash % BUCKETS, 1 << 20, BUCKETS) if number % 7 != away
        )
        await spool.submit([one, other, behind]).wait()
        selection = Selection(rows=9, bytes=1 << 20, partitions=7, without=(away,), by_key=True)
        assert [stored.record.value for stored in await spool.take(selection)] == [b"2"]
        assert await spool.take(selection) == []
        assert [stored.record.value for stored in await spool.take(replace(selection, without=()))] == [b"1", b"3"]


async def test_a_drop_whose_client_hangs_up_leaves_no_rows_behind(
    memory: Config, autojump_clock: trio.testing.MockClock
) -> None:
    """More rows than two commits drop; cancelled in the first."""
    async with open_spool(memory, node="n") as spool:
        await spool.submit([row(key=b"%d" % number) for number in range(22_000)]).wait()
        commits = spool.statistics().commits_total
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:

                async def hang_up() -> None:
                    while True:
                        await trio.lowlevel.checkpoint()
                        if spool.statistics().dropped_total:
                            scope.cancel()  # between two commits
                            return

                nursery.start_soon(hang_up)
                await spool.drop(Choice(rows=True))
        assert scope.cancelled_caught
        await trio.sleep(5)
        statistics = spool.statistics()
        assert (statistics.dropped_total, statistics.rows, statistics.difference) == (22_000, 0, 0)
        assert statistics.commits_total >= commits + 3
        assert not spool._in_work
