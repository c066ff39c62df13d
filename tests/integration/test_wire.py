"""Our bytes in front of Apache Kafka and of librdkafka's mock: every codec, TLS; read back by others."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cramjam
import crc32c
import pytest
import trio
import trustme

from collector.devtools.kafka import BrokerTls, KafkaCluster, open_kafka
from collector.devtools.mock import open_mock
from collector.devtools.topic_log import read_topic
from kafka_client.admin import EARLIEST, NewTopic, open_admin
from kafka_client.config import ProducerConfig, SecurityConfig, split_address
from kafka_client.errors import ConnectionLost, ProtocolError, SecurityError
from kafka_client.network.connection import Connection, open_connection
from kafka_client.wire import create_topics, init_producer_id, metadata, produce
from kafka_client.wire.compression import Codec
from kafka_client.wire.init_producer_id import InitProducerIdRequest
from kafka_client.wire.record_batch import BATCH_OVERHEAD_BYTES, encode_batch, encode_record_tail

pytestmark = pytest.mark.integration

CODECS: tuple[Codec, ...] = ("none", "gzip", "snappy", "lz4", "zstd")
NOW_MS = 1_700_000_000_000
COUNT = 1000
COORDINATOR_LOADING = (14, 15, 16)


def value_of(codec: str, index: int) -> bytes:
    return b'{"codec":"%s","n":%d,"pad":"%s"}' % (codec.encode(), index, b"abc" * (index % 200))


def batch_of(codec: Codec, **numbers: int) -> bytes:
    tails = [
        encode_record_tail(b"k%d" % index, value_of(codec, index), [("h", b"x"), ("none", None)])
        for index in range(COUNT)
    ]
    return encode_batch(tails, [NOW_MS + index // 7 for index in range(COUNT)], codec=codec, **numbers)


def open_first(bootstrap_servers: str) -> Any:
    """A connection to the first of these brokers."""
    host, port = split_address(bootstrap_servers.split(",")[0])
    return open_connection(host, port, config=ProducerConfig(bootstrap_servers=bootstrap_servers))


async def send(connection: Connection, topic: str, records: bytes) -> produce.PartitionResult:
    """Produce one batch to partition 0."""
    answer = await connection.exchange(metadata, metadata.MetadataRequest(topics=[topic]))
    batch = produce.PartitionBatch(topic, answer.topics[0].id, 0, records)
    request = produce.ProduceRequest(batches=[batch], timeout_ms=10_000)
    [result] = (await connection.exchange(produce, request)).partitions
    return result


async def new_producer_id(connection: Connection) -> init_producer_id.InitProducerIdResponse:
    """A new cluster answers 14 for about a second."""
    while True:
        answer = await connection.exchange(init_producer_id, InitProducerIdRequest())
        if answer.error_code not in COORDINATOR_LOADING:
            assert answer.error_code == 0
            return answer
        await trio.sleep(0.1)


async def test_batches_of_every_codec_are_read_back_by_librdkafka_and_by_us(
    kafka: KafkaCluster, new_topic: Callable[[int], str]
) -> None:
    topic = new_topic(1)
    async with open_first(kafka.bootstrap_servers) as connection:
        identity = await new_producer_id(connection)
        for turn, codec in enumerate(CODECS):
            records = batch_of(
                codec,
                producer_id=identity.producer_id,
                producer_epoch=identity.producer_epoch,
                base_sequence=turn * COUNT,
            )
            result = await send(connection, topic, records)
            assert (result.error_code, result.base_offset) == (0, turn * COUNT)
    expected = [(b"k%d" % index, value_of(codec, index)) for codec in CODECS for index in range(COUNT)]

    stored = await trio.to_thread.run_sync(read_topic, kafka.bootstrap_servers, topic)
    assert [(one.key, one.value) for one in stored] == expected

    found = []
    config = ProducerConfig(bootstrap_servers=kafka.bootstrap_servers)
    async with open_admin(config) as admin, admin.read_partition(topic, 0, EARLIEST) as reader:
        async for record in reader:
            found.append((record.key, record.value))
            assert record.headers == (("h", b"x"), ("none", None))
            assert record.timestamp_ms == NOW_MS + (record.offset % COUNT) // 7
            if len(found) == len(expected):
                break
    assert found == expected


async def test_a_repeated_batch_is_answered_with_the_offset_of_the_first(
    kafka: KafkaCluster, new_topic: Callable[[int], str]
) -> None:
    topic = new_topic(1)
    async with open_first(kafka.bootstrap_servers) as connection:
        identity = await new_producer_id(connection)
        numbers = {"producer_id": identity.producer_id, "producer_epoch": 0}
        first = await send(connection, topic, batch_of("zstd", base_sequence=0, **numbers))
        await send(connection, topic, batch_of("zstd", base_sequence=COUNT, **numbers))
        again = await send(connection, topic, batch_of("none", base_sequence=0, **numbers))
        gap = await send(connection, topic, batch_of("zstd", base_sequence=9 * COUNT, **numbers))
    assert (first.base_offset, again.error_code, again.base_offset) == (0, 0, 0)
    assert (gap.error_code, gap.base_offset) == (45, -1)
    assert len(await trio.to_thread.run_sync(read_topic, kafka.bootstrap_servers, topic)) == 2 * COUNT


async def test_lz4_frames_with_linked_blocks_are_refused_by_kafka(
    kafka: KafkaCluster, new_topic: Callable[[int], str]
) -> None:
    # Why compression.py puts its frames together itself: this is what cramjam makes by default.
    plain = batch_of("none")
    head = bytearray(plain[:BATCH_OVERHEAD_BYTES])
    records = bytes(cramjam.lz4.compress(plain[BATCH_OVERHEAD_BYTES:]))
    head[8:12] = (BATCH_OVERHEAD_BYTES - 12 + len(records)).to_bytes(4, "big")
    head[21:23] = b"\x00\x03"
    head[17:21] = crc32c.crc32c(bytes(head[21:]) + records).to_bytes(4, "big")
    async with open_first(kafka.bootstrap_servers) as connection:
        result = await send(connection, new_topic(1), bytes(head) + records)
    assert (result.error_code, result.base_offset) == (-1, -1)


async def test_mtls_to_kafka_with_and_without_a_certificate(tmp_path: Path) -> None:
    authority = trustme.CA()
    broker, client = authority.issue_cert("localhost", "127.0.0.1"), authority.issue_cert("collector")
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    pkcs8 = BrokerTls(
        certificate=tmp_path / "broker.pem", key=tmp_path / "broker-key.pem", authorities=tmp_path / "ca.pem"
    )
    (tmp_path / "broker.pem").write_bytes(b"".join(pem.bytes() for pem in broker.cert_chain_pems))
    (tmp_path / "broker-key.pem").write_bytes(to_pkcs8(broker.private_key_pem.bytes()))
    client.private_key_and_cert_chain_pem.write_to_path(str(tmp_path / "client.pem"))

    def configured(certfile: str | None) -> ProducerConfig:
        security = SecurityConfig(protocol="SSL", ssl_cafile=str(tmp_path / "ca.pem"), ssl_certfile=certfile)
        return ProducerConfig(bootstrap_servers=address, security=security)

    async with open_kafka(tmp_path / "kafka", tls=pkcs8) as cluster:
        address = cluster.tls_bootstrap_servers
        async with open_admin(configured(str(tmp_path / "client.pem"))) as admin:
            await admin.create_topics([NewTopic(name="over-tls", partitions=1, replication_factor=1)])
            assert await admin.list_offsets("over-tls") == {0: 0}
        async with open_admin(configured(None)) as admin:
            # The alert, or its loss in a reset: TLS 1.3 leaves it to chance. Both say what to look at.
            with pytest.raises(ConnectionLost, match=r"refused our TLS connection|client certificate") as refused:
                await admin.metadata()
            assert isinstance(refused.value, SecurityError) or "ssl_certfile" in str(refused.value)
        plain = ProducerConfig(bootstrap_servers=address)
        async with open_admin(plain) as admin:
            with pytest.raises(ConnectionLost, match=r"security\.protocol"):
                await admin.metadata()


def to_pkcs8(pem: bytes) -> bytes:
    """The form of a private key that Kafka reads."""
    from cryptography.hazmat.primitives import serialization

    key = serialization.load_pem_private_key(pem, None)
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


async def test_mock_speaks_with_us_at_its_own_versions() -> None:
    # It answers ApiVersions v4 with error 35 and a body that is broken after it.
    async with open_mock({"events": 1}) as mock, open_first(mock.bootstrap_servers) as connection:
        identity = await new_producer_id(connection)
        for turn, codec in enumerate(CODECS):
            records = batch_of(codec, producer_id=identity.producer_id, producer_epoch=0, base_sequence=turn * COUNT)
            result = await send(connection, "events", records)
            assert (result.error_code, result.base_offset) == (0, turn * COUNT)
        with pytest.raises(ProtocolError, match="does not speak CreateTopics"):
            connection.version_of(create_topics)
        stored = await trio.to_thread.run_sync(read_topic, mock.bootstrap_servers, "events")
        assert [one.value for one in stored] == [value_of(codec, n) for codec in CODECS for n in range(COUNT)]
