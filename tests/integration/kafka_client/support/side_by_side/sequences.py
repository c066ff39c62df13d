"""Idempotence: sequences, epochs, and what a broker remembers of a producer."""

from typing import Any

import trio

from .table import scenario
from .target import Target, Topic

LAST = 2**31 - 1


async def sent(t: Target, *batches: tuple[int, int, int], producer_id: int | None = None, **configs: str) -> list[Any]:
    """Each (epoch, sequence, count) in turn to one topic: the answers, then the log."""
    topic = await t.topic(**configs)
    answers = await sent_to(t, topic, await t.new_producer_id() if producer_id is None else producer_id, *batches)
    return [answers, await t.stored(topic)]


async def sent_to(t: Target, topic: Topic, producer_id: int, *batches: tuple[int, int, int]) -> list[Any]:
    await trio.lowlevel.checkpoint()
    return [
        await t.produce(
            topic,
            t.batch(*[b"x"] * count, producer_id=producer_id, epoch=epoch, sequence=sequence),
            client=await t.connect(),
        )
        for epoch, sequence, count in batches
    ]


@scenario
async def in_order(t: Target) -> Any:
    return await sent(t, (0, 0, 2), (0, 2, 1), (0, 3, 5))


@scenario
async def repeats_of_the_last_five_and_of_the_sixth_last(t: Target) -> Any:
    first = [(0, sequence, 1) for sequence in range(6)]
    return await sent(t, *first, *reversed(first))


@scenario
async def repeats_in_a_log_append_time_topic(t: Target) -> Any:
    return await sent(t, (0, 0, 2), (0, 2, 1), (0, 0, 2), message_timestamp_type="LogAppendTime")


@scenario
async def repeat_with_another_end_or_beginning(t: Target) -> Any:
    return await sent(t, (0, 0, 3), (0, 0, 2), (0, 0, 4), (0, 1, 2), (0, 3, 1))


@scenario
async def gap(t: Target) -> Any:
    return await sent(t, (0, 0, 1), (0, 2, 1), (0, 1, 1), (0, 2, 1))


@scenario
async def first_batch_of_a_producer_with_any_sequence(t: Target) -> Any:
    return await sent(t, (0, 77, 1), (0, 78, 1), (0, 0, 1))


@scenario
async def first_batch_of_a_producer_with_any_epoch(t: Target) -> Any:
    return await sent(t, (9, 5, 1), (9, 6, 1))


@scenario
async def lower_epoch(t: Target) -> Any:
    return await sent(t, (3, 0, 1), (2, 1, 1), (2, 0, 1), (3, 1, 1))


@scenario
async def higher_epoch_from_zero(t: Target) -> Any:
    return await sent(t, (3, 0, 1), (3, 1, 1), (4, 0, 1), (3, 2, 1), (4, 1, 1))


@scenario
async def higher_epoch_not_from_zero(t: Target) -> Any:
    return await sent(t, (3, 0, 1), (4, 1, 1), (3, 1, 1), (4, 0, 1))


@scenario
async def same_range_in_a_higher_epoch(t: Target) -> Any:
    return await sent(t, (0, 0, 1), (1, 0, 1), (0, 0, 1), (1, 0, 1))


@scenario
async def refused_batch_with_a_new_epoch_leaves_the_old_one(t: Target) -> Any:
    topic, producer_id = await t.topic(max_message_bytes=200), await t.new_producer_id()
    first = await sent_to(t, topic, producer_id, (0, 0, 1))
    large = t.batch(b"x" * 300, producer_id=producer_id, epoch=1, sequence=0)
    refused = await t.produce(topic, large)
    return [first, refused, await sent_to(t, topic, producer_id, (0, 1, 1), (1, 0, 1)), await t.stored(topic)]


@scenario
async def sequence_wraps_inside_a_batch(t: Target) -> Any:
    return await sent(t, (0, LAST - 1, 3), (0, 1, 1), (0, LAST - 1, 3), (0, 0, 1))


@scenario
async def sequence_wraps_between_batches(t: Target) -> Any:
    return await sent(t, (0, LAST, 1), (0, 0, 1), (0, LAST, 1), (0, 1, 2))


@scenario
async def last_epoch(t: Target) -> Any:
    return await sent(t, (32766, 0, 1), (32767, 0, 1), (0, 0, 1), (32767, 1, 1))


@scenario
async def halves_of_an_identity(t: Target) -> Any:
    producer_id = await t.new_producer_id()
    found = []
    for identity in ((producer_id, 0, -1), (producer_id, -1, 0), (-1, 0, -1), (-1, -1, 0), (-1, 0, 0), (-2, 0, 0)):
        topic = await t.topic()
        producer, epoch, sequence = identity
        batch = t.batch(b"x", producer_id=producer, epoch=epoch, sequence=sequence)
        found.append([await t.produce(topic, batch), await t.produce(topic, batch), await t.stored(topic)])
    return found


@scenario
async def producer_id_never_handed_out(t: Target) -> Any:
    return await sent(t, (0, 0, 1), (0, 1, 1), producer_id=2**40)


@scenario
async def producers_and_partitions_are_apart(t: Target) -> Any:
    topic = await t.topic(2)
    found = []
    for producer_id in [await t.new_producer_id() for _ in range(2)]:
        for partition in (0, 1):
            batch = t.batch(b"x", producer_id=producer_id, epoch=0, sequence=0)
            found.append(await t.produce(topic, batch, partition=partition))
    return found


@scenario
async def recreated_topic_knows_no_producer(t: Target) -> Any:
    topic, producer_id = await t.topic(), await t.new_producer_id()
    before = await sent_to(t, topic, producer_id, (0, 0, 1), (0, 1, 1))
    again = await t.recreate(topic)
    stale = await t.produce(topic, t.batch(b"x", producer_id=producer_id, epoch=0, sequence=2), version=13)
    by_name = await sent_to(t, again, producer_id, (0, 2, 1), (0, 0, 1))
    return [before, stale, by_name, await t.stored(again)]


@scenario
async def acks_one_and_repeats(t: Target) -> Any:
    topic, producer_id = await t.topic(), await t.new_producer_id()
    batch = t.batch(b"x", producer_id=producer_id, epoch=0, sequence=0)
    return [await t.produce(topic, batch, acks=acks) for acks in (1, -1, 1)]
