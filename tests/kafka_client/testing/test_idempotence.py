"""The sequence and epoch rules of a broker (ProducerStateManager), one test each."""

from collections.abc import Callable

import pytest

from kafka_client.testing import FakeCluster

OUT_OF_ORDER_SEQUENCE_NUMBER = 45
INVALID_PRODUCER_EPOCH = 47

Batch = Callable[..., bytes]


def sequenced(batch: Batch, sequence: int, *values: bytes, epoch: int = 0) -> bytes:
    return batch(values or [b"s%d" % sequence], producer_id=1000, epoch=epoch, sequence=sequence)


async def test_first_batch_any_sequence_is_taken(client, batch: Batch, cluster: FakeCluster) -> None:
    answer = await client.produce(sequenced(batch, 77))
    assert (answer.code, answer.base_offset) == (0, 0)
    assert [record.sequence for record in cluster.log("events", 0)] == [77]


async def test_next_in_sequence_is_appended(client, batch: Batch, cluster: FakeCluster) -> None:
    await client.produce(sequenced(batch, 0, b"a", b"b"))
    answer = await client.produce(sequenced(batch, 2, b"c"))
    assert (answer.code, answer.base_offset) == (0, 2)
    assert cluster.values("events") == [b"a", b"b", b"c"]


async def test_exact_repeat_is_answered_with_its_first_offset(client, batch: Batch, cluster: FakeCluster) -> None:
    await client.produce(sequenced(batch, 0, b"a", b"b"))
    await client.produce(sequenced(batch, 2, b"c"))
    answer = await client.produce(sequenced(batch, 0, b"a", b"b"))
    assert (answer.code, answer.base_offset) == (0, 0)
    assert cluster.values("events") == [b"a", b"b", b"c"]
    assert [seen.duplicate for seen in cluster.seen.batches] == [False, False, True]
    assert cluster.attempts_of(b"a") == 2


async def test_repeat_with_one_record_less_is_out_of_order(client, batch: Batch, cluster: FakeCluster) -> None:
    await client.produce(sequenced(batch, 0, b"a", b"b"))
    answer = await client.produce(sequenced(batch, 0, b"a"))
    assert (answer.code, answer.base_offset) == (OUT_OF_ORDER_SEQUENCE_NUMBER, -1)
    assert cluster.values("events") == [b"a", b"b"]


@pytest.mark.parametrize(("batches", "code"), [(5, 0), (6, OUT_OF_ORDER_SEQUENCE_NUMBER)])
async def test_repeat_is_known_for_the_last_five_batches_only(client, batch: Batch, batches: int, code: int) -> None:
    for sequence in range(batches):
        await client.produce(sequenced(batch, sequence))
    answer = await client.produce(sequenced(batch, 0))
    assert answer.code == code


async def test_gap_is_out_of_order(client, batch: Batch, cluster: FakeCluster) -> None:
    await client.produce(sequenced(batch, 0))
    answer = await client.produce(sequenced(batch, 2))
    assert (answer.code, answer.base_offset) == (OUT_OF_ORDER_SEQUENCE_NUMBER, -1)
    assert answer.part.error_message is None
    assert "2 (incoming), 1 (expected)" in (cluster.seen.batches[-1].message or "")


async def test_lower_epoch_is_refused(client, batch: Batch) -> None:
    await client.produce(sequenced(batch, 0, epoch=3))
    answer = await client.produce(sequenced(batch, 1, epoch=2))
    assert (answer.code, answer.base_offset) == (INVALID_PRODUCER_EPOCH, -1)


@pytest.mark.parametrize(("sequence", "code"), [(0, 0), (1, OUT_OF_ORDER_SEQUENCE_NUMBER)])
async def test_higher_epoch_starts_at_zero(client, batch: Batch, sequence: int, code: int) -> None:
    await client.produce(sequenced(batch, 0, epoch=3))
    answer = await client.produce(sequenced(batch, sequence, epoch=4))
    assert answer.code == code


async def test_same_range_in_a_higher_epoch_is_no_repeat(client, batch: Batch, cluster: FakeCluster) -> None:
    await client.produce(sequenced(batch, 0, b"old", epoch=0))
    await client.produce(sequenced(batch, 0, b"new", epoch=1))
    assert cluster.values("events") == [b"old", b"new"]


async def test_sequence_wraps_to_zero_after_the_last(client, batch: Batch, cluster: FakeCluster) -> None:
    await client.produce(sequenced(batch, 2**31 - 2, b"a", b"b", b"c"))
    assert [record.sequence for record in cluster.log("events", 0)] == [2**31 - 2, 2**31 - 1, 0]
    answer = await client.produce(sequenced(batch, 1, b"d"))
    assert answer.code == 0


async def test_batch_that_ends_at_the_last_sequence_is_followed_by_zero(client, batch: Batch) -> None:
    await client.produce(sequenced(batch, 2**31 - 1))
    answer = await client.produce(sequenced(batch, 0))
    assert (answer.code, answer.base_offset) == (0, 1)


async def test_forgotten_producer_any_sequence_is_taken_again(client, batch: Batch, cluster: FakeCluster) -> None:
    await client.produce(sequenced(batch, 0))
    cluster.partition("events", 0).log.forget_producers()
    answer = await client.produce(sequenced(batch, 9))
    assert answer.code == 0


async def test_producers_and_partitions_are_apart(connect, batch: Batch, cluster: FakeCluster) -> None:
    first, second = await connect(1), await connect(2)
    for client, partition in ((first, 0), (second, 1)):
        for producer_id in (1000, 1001):
            answer = await client.produce(
                batch([b"x"], producer_id=producer_id, epoch=0, sequence=0), partition=partition
            )
            assert answer.code == 0
    assert len(cluster.records("events")) == 4


async def test_producer_id_never_handed_out_is_a_violation(client, batch: Batch, cluster: FakeCluster) -> None:
    await client.produce(batch([b"x"], producer_id=7, epoch=0, sequence=0))
    assert "producer id 7 was never handed out" in cluster.seen.violations[0]
