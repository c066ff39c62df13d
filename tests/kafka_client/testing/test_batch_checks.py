"""What a strict broker refuses to append."""

import gzip
from collections.abc import Callable

import cramjam
import pytest
import zstandard

from kafka_client.testing import FakeCluster, open_fake_cluster
from kafka_client.testing.raw_client import encode_record

UNKNOWN_SERVER_ERROR = -1
CORRUPT_MESSAGE = 2
UNKNOWN_TOPIC_OR_PARTITION = 3
NOT_LEADER_OR_FOLLOWER = 6
MESSAGE_TOO_LARGE = 10
INVALID_REQUIRED_ACKS = 21
INVALID_TIMESTAMP = 32
TRANSACTIONAL_ID_AUTHORIZATION_FAILED = 53
UNSUPPORTED_COMPRESSION_TYPE = 76
INVALID_RECORD = 87
UNKNOWN_TOPIC_ID = 100
NOW_MS = 1_700_000_000_000

Batch = Callable[..., bytes]


@pytest.mark.parametrize(
    ("wrong", "code"),
    [
        ({"crc_shift": 1}, CORRUPT_MESSAGE),
        ({"magic": 1}, INVALID_RECORD),
        ({"magic": 3}, CORRUPT_MESSAGE),
        ({"count": 3}, INVALID_RECORD),
        ({"count": 1}, INVALID_RECORD),
        ({"count": 0}, INVALID_RECORD),
        ({"attributes": 0x10}, TRANSACTIONAL_ID_AUTHORIZATION_FAILED),
        ({"attributes": 0x20}, INVALID_RECORD),
        ({"attributes": 5}, UNKNOWN_SERVER_ERROR),
        ({"attributes": 4}, UNKNOWN_SERVER_ERROR),
        ({"producer_id": 1000, "epoch": 0, "sequence": -1}, INVALID_RECORD),
        ({"body": b"\x08\0\0\0\x01\x02a"}, INVALID_RECORD),
    ],
    ids=str,
)
async def test_wrong_batch_is_refused(client, batch: Batch, cluster: FakeCluster, wrong, code: int) -> None:
    answer = await client.produce(batch([b"a", b"b"], **wrong))
    assert (answer.code, answer.base_offset) == (code, -1)
    assert cluster.records("events") == []
    assert len(cluster.seen.violations) == 1


@pytest.mark.parametrize(
    "odd",
    [
        {"attributes": 0x08},
        {"attributes": 0x40},
        {"epoch": 0},
        {"producer_id": 1000, "epoch": -1, "sequence": 0},
        {"max_timestamp_ms": NOW_MS + 1},
        {"body": encode_record(b"a") * 2},
    ],
    ids=str,
)
async def test_odd_batch_is_taken_and_noted(client, batch: Batch, cluster: FakeCluster, odd) -> None:
    cluster.new_producer_id()
    answer = await client.produce(batch([b"a", b"b"], **odd))
    assert (answer.code, answer.base_offset) == (0, 0)
    assert len(cluster.seen.violations) >= 1


async def test_wrong_timestamp_names_the_record(client, batch: Batch) -> None:
    answer = await client.produce(batch([b"a"], timestamp_ms=NOW_MS + 3_600_001))
    assert [error.batch_index for error in answer.part.record_errors] == [0]


async def test_flipped_bit_anywhere_is_refused(client, batch: Batch, cluster: FakeCluster) -> None:
    good = batch([b"hello"], producer_id=1000, epoch=0, sequence=0)
    assert (await client.produce(batch([b"first"]))).code == 0
    for at in range(8, len(good)):
        if 12 <= at < 16:  # the partition leader epoch is the broker's to write
            continue
        bad = bytearray(good)
        bad[at] ^= 0x01
        answer = await client.produce(bytes(bad))
        assert answer.code in (CORRUPT_MESSAGE, INVALID_RECORD), at
    assert cluster.values("events") == [b"first"]


async def test_two_batches_for_one_partition_are_refused(client, batch: Batch) -> None:
    answer = await client.produce(batch([b"a"]) + batch([b"b"]))
    assert answer.code == INVALID_RECORD


async def test_no_batch_is_refused(client, connect) -> None:
    assert (await client.produce(b"")).code == INVALID_RECORD
    assert await (await connect()).produce(None) is None


def lz4_frame(data: bytes) -> bytes:
    compressor = cramjam.lz4.Compressor(block_linked=False)
    compressor.compress(data)
    return bytes(compressor.finish())


@pytest.mark.parametrize(
    ("codec", "compress"),
    [
        (1, gzip.compress),
        (2, lambda data: bytes(cramjam.snappy.compress_raw(data))),
        (
            2,
            lambda data: (
                b"\x82SNAPPY\0\0\0\0\1\0\0\0\1"
                + len(cramjam.snappy.compress_raw(data)).to_bytes(4)
                + bytes(cramjam.snappy.compress_raw(data))
            ),
        ),
        (3, lz4_frame),
        (4, lambda data: zstandard.ZstdCompressor().compress(data)),
    ],
    ids=["gzip", "snappy", "snappy-xerial", "lz4", "zstd"],
)
async def test_compressed_batch_is_read(client, batch: Batch, cluster: FakeCluster, codec: int, compress) -> None:
    plain = batch([b"a" * 100, b"b"])[61:]
    answer = await client.produce(batch([b"a" * 100, b"b"], attributes=codec, body=compress(plain)))
    assert answer.code == 0, answer.part.error_message
    assert cluster.values("events") == [b"a" * 100, b"b"]


async def test_zstd_needs_version_seven(client, batch: Batch) -> None:
    body = zstandard.ZstdCompressor().compress(batch([b"a"])[61:])
    answer = await client.produce(batch([b"a"], attributes=4, body=body), version=6)
    assert answer.code == UNSUPPORTED_COMPRESSION_TYPE


async def test_too_large_batch_is_refused(batch: Batch, connect) -> None:
    async with open_fake_cluster(message_max_bytes=1000) as cluster:
        client = type(await connect())(cluster, await cluster.connector("fake-1", 9092))
        assert (await client.produce(batch([b"x" * 1000]))).code == MESSAGE_TOO_LARGE
        assert (await client.produce(batch([b"x" * 900]))).code == 0


async def test_unknown_topic_and_partition_and_leader(client, batch: Batch) -> None:
    assert (await client.produce(batch([b"a"]), topic="nope")).code == UNKNOWN_TOPIC_OR_PARTITION
    assert (await client.produce(batch([b"a"]), topic="nope", version=13)).code == UNKNOWN_TOPIC_ID
    assert (await client.produce(batch([b"a"]), partition=2)).code == UNKNOWN_TOPIC_OR_PARTITION
    assert (await client.produce(batch([b"a"]), partition=1)).code == NOT_LEADER_OR_FOLLOWER


async def test_not_leader_names_the_leader(client, batch: Batch, cluster: FakeCluster) -> None:
    cluster.move_leader("events", 1, 2)
    answer = await client.produce(batch([b"a"]), partition=1, version=10)
    assert (answer.part.current_leader.leader_id, answer.part.current_leader.leader_epoch) == (2, 1)


@pytest.mark.parametrize("version", range(3, 14))
async def test_every_version_appends(client, batch: Batch, cluster: FakeCluster, version: int) -> None:
    answer = await client.produce(batch([b"a"]), version=version)
    assert (answer.code, answer.base_offset) == (0, 0)
    assert cluster.seen.produce_requests[0].version == version


@pytest.mark.parametrize("acks", [0, 1, 2])
async def test_acks_other_than_all_are_refused(client, batch: Batch, acks: int) -> None:
    answer = await client.produce(batch([b"a"]), acks=acks)
    assert (answer and answer.code) == (None if acks == 0 else INVALID_REQUIRED_ACKS)


async def test_acks_zero_gets_no_answer_where_it_is_allowed(batch: Batch, connect) -> None:
    async with open_fake_cluster(strict_acks=False) as cluster:
        client = type(await connect())(cluster, await cluster.connector("fake-1", 9092))
        await client.stream.send_all(client.produce_request(batch([b"silent"]), acks=0))
        assert (await client.produce(batch([b"loud"]))).base_offset == 1


async def test_the_log_returns_what_was_sent(client, batch: Batch, cluster: FakeCluster) -> None:
    sent = batch([b"a", b"b"], producer_id=1000, epoch=2, sequence=5)
    await client.produce(batch([b"before"]))
    await client.produce(sent)
    raw = cluster.partition("events", 0).log.read(1, 10_000)
    assert raw[:8] == (1).to_bytes(8)
    assert raw[16:] == sent[16:]
    record = cluster.log("events", 0)[2]
    assert (record.offset, record.value, record.producer_id, record.epoch, record.sequence) == (2, b"b", 1000, 2, 6)
    assert (record.key, record.headers, record.timestamp_ms) == (None, (), NOW_MS)
