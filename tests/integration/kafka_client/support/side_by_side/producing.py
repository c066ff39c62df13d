"""Batches: what is taken and what is refused, and how that is said."""

import gzip
import struct
from typing import Any

import cramjam
import trio
import zstandard

from kafka_client.testing import Api
from kafka_client.testing.raw_client import encode_record

from .table import differs_on_purpose, scenario
from .target import CLOSED, Target, Topic, producing

HOUR_MS = 3_600_000


async def asked(t: Target, *records: bytes | None, version: int = 12, **configs: str | int) -> list[Any]:
    """Produce each to a topic of its own settings; the answers, then what the log holds."""
    topic = await t.topic(**configs)
    answers = [await t.produce(topic, each, version=version, client=await t.connect()) for each in records]
    return [answers, await t.stored(topic)]


@scenario
async def one_batch_after_the_other(t: Target) -> Any:
    return await asked(t, t.batch(b"a", b"b"), t.batch(b"c"), t.batch(b"d", b"e", b"f"))


@scenario
async def every_version(t: Target) -> Any:
    topic = await t.topic()
    return [await t.produce(topic, t.batch(b"a"), version=version) for version in range(3, 14)]


@scenario
async def key_null_value_and_tombstone(t: Target) -> Any:
    return await asked(t, t.batch(b"a", key=b"k"), t.batch(None, key=b"k"), t.batch(None))


@scenario
async def wrong_crc(t: Target) -> Any:
    return await asked(t, t.batch(b"a", crc_shift=1))


@scenario
async def wrong_magic(t: Target) -> Any:
    return [await asked(t, t.batch(b"a", magic=magic)) for magic in (0, 1, 3, 127)]


@scenario
async def no_records(t: Target) -> Any:
    return await asked(t, b"")


@differs_on_purpose("Kafka 4.1 fails inside on null records and never answers; the fake closes the connection")
async def null_records(t: Target) -> Any:
    with trio.move_on_after(0.5):
        return await asked(t, None)
    return "silence"


@scenario
async def empty_batch(t: Target) -> Any:
    return await asked(t, t.batch(count=0), t.batch(count=0, last_offset_delta=0), t.batch(count=1))


@scenario
async def wrong_count(t: Target) -> Any:
    return await asked(
        t,
        t.batch(b"a", b"b", count=1),
        t.batch(b"a", b"b", count=3),
        t.batch(b"a", b"b", count=-1),
        t.batch(b"a", b"b", last_offset_delta=0),
        t.batch(b"a", b"b", last_offset_delta=2),
        t.batch(b"a", b"b", last_offset_delta=-1),
        t.batch(b"a", b"b", last_offset_delta=2, count=3),
    )


@scenario
async def wrong_offsets(t: Target) -> Any:
    same = encode_record(b"a", index=0) * 2
    gap = encode_record(b"a", index=0) + encode_record(b"b", index=5)
    compressed = gzip.compress(same)
    return await asked(
        t,
        t.batch(b"a", base_offset=7),
        t.batch(b"", b"", body=same),
        t.batch(b"", b"", body=gap),
        t.batch(b"", b"", body=compressed, attributes=1),
    )


@scenario
async def broken_records(t: Target) -> Any:
    good = encode_record(b"hello")
    return await asked(
        t,
        t.batch(b"", body=good[:-2]),
        t.batch(b"", body=good + b"\0\0"),
        t.batch(b"", body=b"\x7f" + good[1:]),
        t.batch(b"", body=b"\x01" + good[1:]),
        t.batch(b"", body=good[:4] + b"\x40" + good[5:]),
        t.batch(b"", body=b"\xff" * 12),
        t.batch(b"", body=encode_record(b"a", attributes=3)),
        t.batch(b"", body=good[:-1] + b"\x02"),
        t.batch(b"", body=good[:-1] + b"\x01"),
    )


@scenario
async def broken_lengths(t: Target) -> Any:
    good = t.batch(b"hello")
    shorter = good[:8] + struct.pack(">i", len(good) - 12 - 3) + good[12:]
    longer = good[:8] + struct.pack(">i", len(good) - 12 + 3) + good[12:]
    tiny = good[:8] + struct.pack(">i", 5) + good[12:]
    negative = good[:8] + struct.pack(">i", -1) + good[12:]
    return [
        await asked(t, each) for each in (shorter, longer, tiny, negative, good[:40], good[:10], good + b"\0", b"x")
    ]


@scenario
async def two_batches_at_once(t: Target) -> Any:
    return await asked(t, t.batch(b"a") + t.batch(b"b"), t.batch(b"a") + bytes(30))


@scenario
async def attributes_of_others(t: Target) -> Any:
    return [await asked(t, t.batch(b"a", attributes=bits)) for bits in (0x08, 0x10, 0x20, 0x40, 0x80, 0x4000)]


@scenario
async def unknown_codecs(t: Target) -> Any:
    return [await asked(t, t.batch(b"a", attributes=bits)) for bits in (5, 6, 7)]


def compressed(codec: int, body: bytes) -> bytes:
    """``body`` in the codec with this number."""
    match codec:
        case 1:
            return gzip.compress(body)
        case 2:
            raw = bytes(cramjam.snappy.compress_raw(body))
            return b"\x82SNAPPY\0" + struct.pack(">iii", 1, 1, len(raw)) + raw
        case 3:
            compressor = cramjam.lz4.Compressor(block_linked=False)
            compressor.compress(body)
            return bytes(compressor.finish())
        case _:
            return zstandard.ZstdCompressor().compress(body)


@scenario
async def every_codec(t: Target) -> Any:
    values = [b"%d" % number * 50 for number in range(20)]
    body = b"".join(encode_record(value, index=index) for index, value in enumerate(values))
    good = [t.batch(*values, body=compressed(codec, body), attributes=codec) for codec in (1, 2, 3, 4)]
    bare = t.batch(*values, body=bytes(cramjam.snappy.compress_raw(body)), attributes=2)
    return await asked(t, *good, bare)


@scenario
async def corrupt_compression(t: Target) -> Any:
    await trio.lowlevel.checkpoint()
    body = encode_record(b"hello" * 50)
    found: list[Any] = []
    for codec in (1, 2, 3, 4):
        whole = compressed(codec, body)
        payloads = (whole[:-5], b"junk", b"", whole[:8] + b"\xff\xff" + whole[10:], whole + b"tail")
        found += [await asked(t, t.batch(b"", body=payload, attributes=codec)) for payload in payloads]
    return found


@scenario
async def compressed_wrong_counts(t: Target) -> Any:
    body = encode_record(b"a") + encode_record(b"b", index=1)
    batches = [
        t.batch(b"", b"", body=compressed(codec, body), attributes=codec, count=count)
        for codec in (1, 4)
        for count in (1, 3)
    ]
    return await asked(t, *batches, t.batch(b"", b"", body=compressed(1, body[:-3]), attributes=1))


@scenario
async def lz4_with_linked_blocks(t: Target) -> Any:
    body = b"".join(encode_record(b"%d" % index * 3000, index=index) for index in range(30))
    return await asked(t, t.batch(*[b""] * 30, body=bytes(cramjam.lz4.compress(body)), attributes=3))


@scenario
async def zstd_before_version_seven(t: Target) -> Any:
    body = compressed(4, encode_record(b"a"))
    return await asked(t, t.batch(b"", body=body, attributes=4), version=6)


@scenario
async def too_large_for_the_topic(t: Target) -> Any:
    exactly = 61 + len(encode_record(b"x" * 200))
    return await asked(
        t, t.batch(b"x" * 200), t.batch(b"x" * 201), t.batch(b"x" * 201, crc_shift=1), max_message_bytes=exactly
    )


@scenario
async def too_large_for_the_broker(t: Target) -> Any:
    room = 1024 * 1024 + 12 - 61
    size = next(size for size in range(room, 0, -1) if len(encode_record(b"x" * size)) <= room)
    return await asked(t, t.batch(b"x" * size), t.batch(b"x" * (size + 1)))


@scenario
async def timestamps_in_any_order(t: Target) -> Any:
    return await asked(
        t,
        t.batch(b"a", b"b", b"c", timestamp_deltas=[0, -500, -100]),
        t.batch(b"a", b"b", b"c", timestamp_deltas=[-5, 0, -1]),
        t.batch(b"a", b"b", timestamp_deltas=[-5, -1], max_timestamp_ms=t.now_ms + 99),
        t.batch(b"a", max_timestamp_ms=-1),
    )


@scenario
async def max_timestamp_wrong_in_a_compressed_batch(t: Target) -> Any:
    body = gzip.compress(encode_record(b"a"))
    return await asked(t, t.batch(b"", body=body, attributes=1, max_timestamp_ms=t.now_ms + 99))


@scenario
async def timestamps_out_of_the_default_window(t: Target) -> Any:
    return await asked(
        t,
        t.batch(b"a", timestamp_ms=t.now_ms + HOUR_MS + 60_000),
        t.batch(b"a", timestamp_ms=t.now_ms + HOUR_MS - 60_000),
        t.batch(b"a", b"b", b"c", timestamp_deltas=[0, HOUR_MS * 2, -5]),
        t.batch(b"a", timestamp_ms=1),
        t.batch(b"a", timestamp_ms=0),
        t.batch(b"a", timestamp_ms=-1),
        t.batch(b"a", timestamp_ms=-2),
        t.batch(b"a", timestamp_ms=2**62),
    )


@scenario
async def timestamps_out_of_the_topics_window(t: Target) -> Any:
    return await asked(
        t,
        t.batch(b"a", b"b", timestamp_deltas=[0, -120_000]),
        t.batch(b"a", b"b", timestamp_deltas=[0, 120_000]),
        t.batch(b"a", b"b", timestamp_deltas=[-30_000, 30_000]),
        message_timestamp_before_max_ms=60_000,
        message_timestamp_after_max_ms=60_000,
    )


@scenario
async def log_append_time(t: Target) -> Any:
    body = gzip.compress(encode_record(b"a") + encode_record(b"b", index=1))
    return await asked(
        t,
        t.batch(b"a", b"b", timestamp_deltas=[-3, 0]),
        t.batch(b"", b"", body=body, attributes=1),
        t.batch(b"a", timestamp_ms=5),
        t.batch(b"a", timestamp_ms=t.now_ms + 9 * HOUR_MS),
        t.batch(b"a", attributes=8),
        message_timestamp_type="LogAppendTime",
    )


@scenario
async def compacted_topic_wants_keys(t: Target) -> Any:
    mixed = encode_record(b"a", key=b"k") + encode_record(b"b", index=1) + encode_record(b"c", index=2)
    return await asked(
        t,
        t.batch(b"a", b"b"),
        t.batch(b"a", b"b", key=b"k"),
        t.batch(b"", b"", b"", body=mixed),
        t.batch(b"", b"", b"", body=gzip.compress(mixed), attributes=1),
        t.batch(*[b"x"] * 12),
        t.batch(b"a", timestamp_deltas=[9 * HOUR_MS]),
        cleanup_policy="compact",
    )


@scenario
async def min_insync_replicas_of_more_than_there_are(t: Target) -> Any:
    return await asked(t, t.batch(b"a"), min_insync_replicas=2)


@scenario
async def unknown_places(t: Target) -> Any:
    topic = await t.topic(2)
    nowhere = Topic("nowhere", topic.id)
    absent = Topic(topic.name, type(topic.id)(int=77))
    found = []
    for version in (9, 12):
        found.append(await t.produce(nowhere, t.batch(b"a"), version=version))
        found.append(await t.produce(topic, t.batch(b"a"), version=version, partition=2))
        found.append(await t.produce(topic, t.batch(b"a"), version=version, partition=-1))
        found.append(await t.produce(Topic("a/b", topic.id), t.batch(b"a"), version=version))
    unknown_id = await t.produce(absent, t.batch(b"a"), version=13)
    return [found, unknown_id, await t.produce(topic, t.batch(b"a"), version=13, partition=2)]


@scenario
async def acks(t: Target) -> Any:
    topic = await t.topic()
    return [await t.produce(topic, t.batch(b"a"), acks=acks) for acks in (1, -1, 2, -2)]


@scenario
async def acks_none(t: Target) -> Any:
    topic, client = await t.topic(), await t.connect()
    request = client.encode(Api.PRODUCE, 9, **producing(topic, t.batch(b"silent"), 9, 0, 0))
    await client.stream.send_all(request)
    after = await t.produce(topic, t.batch(b"loud"), client=client)
    refused = await t.produce(topic, t.batch(b"a", crc_shift=1), acks=0, client=client)
    elsewhere = await t.produce(Topic("nowhere", topic.id), t.batch(b"a"), acks=0, client=await t.connect())
    return [after, refused, elsewhere]


@scenario
async def several_partitions_at_once(t: Target) -> Any:
    topic, other = await t.topic(3), await t.topic()
    parts = [(1, t.batch(b"a")), (0, t.batch(b"b", crc_shift=1)), (7, t.batch(b"c")), (2, t.batch(b"d"))]
    topics: list[Any] = [
        {"name": topic.name, "partition_data": [{"index": index, "records": data} for index, data in parts]},
        {"name": other.name, "partition_data": [{"index": 0, "records": t.batch(b"e")}]},
    ]
    client = await t.connect()
    answer: Any = await client.call(Api.PRODUCE, 9, transactional_id=None, acks=-1, timeout=5000, topic_data=topics)
    return {
        (each["name"] == topic.name, part["index"]): t.shape_of_partition(part)
        for each in answer["responses"]
        for part in each["partition_responses"]
    }


@scenario
async def one_partition_twice(t: Target) -> Any:
    topic = await t.topic()
    parts = [{"index": 0, "records": t.batch(value)} for value in (b"a", b"bcd")]
    client = await t.connect()
    answer: Any = await client.call(
        Api.PRODUCE,
        9,
        transactional_id=None,
        acks=-1,
        timeout=5000,
        topic_data=[{"name": topic.name, "partition_data": parts}],
    )
    return [CLOSED if answer is None else t.shape(answer), await t.stored(topic)]


@scenario
async def nothing_to_produce(t: Target) -> Any:
    client = await t.connect()
    answer: Any = await client.call(Api.PRODUCE, 9, transactional_id=None, acks=-1, timeout=5000, topic_data=[])
    return CLOSED if answer is None else answer
