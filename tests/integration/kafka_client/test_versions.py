"""The client on Apache Kafka 4.1, 3.9 (KRaft) and 2.8 (ZooKeeper), and on librdkafka's mock.

What was written is seen on the socket, what is in a log is read back with librdkafka and with `kafka_client.admin`.
"""

from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import trio
from chaos.nodes import Nodes
from confluent_kafka import Consumer, ElectionType, TopicPartition
from confluent_kafka.admin import AdminClient
from spying import Spy

from collector.devtools.background import hold_open
from collector.devtools.kafka import KafkaCluster, open_kafka
from collector.devtools.mock import open_mock
from kafka_client import Delivered, NotSent, Record, Unknown, open_producer
from kafka_client.admin import EARLIEST, LATEST, NewTopic, open_admin
from kafka_client.config import Compression, ProducerConfig, split_address
from kafka_client.errors import BrokerError
from kafka_client.network.connection import Connection, open_connection
from kafka_client.observe import IdentityChanged, LeaderChanged, MetadataRefreshed, ProducerObserver
from kafka_client.wire import (
    api_versions,
    create_topics,
    describe_configs,
    fetch,
    init_producer_id,
    list_offsets,
    metadata,
    produce,
)
from kafka_client.wire.frames import API_NAMES, decode_response_header
from kafka_client.wire.record_batch import encode_batch, encode_record_tail

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]

VERSIONS = ("4.1.0", "3.9.1", "2.8.2")
CODECS: tuple[Compression, ...] = ("none", "gzip", "snappy", "lz4", "zstd")
NOT_LEADER = 6
TOPIC_ALREADY_EXISTS = 36

#: The newest version of each message that a release has; we speak all of them.
NEWEST = {
    "4.1.0": {
        "Produce": 13,
        "Fetch": 18,
        "ListOffsets": 10,
        "Metadata": 13,
        "SaslHandshake": 1,
        "ApiVersions": 4,
        "CreateTopics": 7,
        "InitProducerId": 5,
        "DescribeConfigs": 4,
        "SaslAuthenticate": 2,
    },
    "3.9.1": {
        "Produce": 11,
        "Fetch": 17,
        "ListOffsets": 9,
        "Metadata": 12,
        "SaslHandshake": 1,
        "ApiVersions": 4,
        "CreateTopics": 7,
        "InitProducerId": 5,
        "DescribeConfigs": 4,
        "SaslAuthenticate": 2,
    },
    "2.8.2": {
        "Produce": 9,
        "Fetch": 12,
        "ListOffsets": 6,
        "Metadata": 11,
        "SaslHandshake": 1,
        "ApiVersions": 3,
        "CreateTopics": 7,
        "InitProducerId": 4,
        "DescribeConfigs": 4,
        "SaslAuthenticate": 2,
    },
}


@pytest.fixture(scope="module")
def clusters(kafka: KafkaCluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, KafkaCluster]]:
    """One node of each release; the two that only this module needs start at the same time."""
    with ExitStack() as stack, ThreadPoolExecutor() as pool:
        starting = {
            version: pool.submit(
                stack.enter_context,
                hold_open(partial(open_kafka, tmp_path_factory.mktemp(f"kafka-{version}"), version=version)),
            )
            for version in VERSIONS[1:]
        }
        yield {VERSIONS[0]: kafka} | {version: cluster.result() for version, cluster in starting.items()}


@pytest.fixture(params=VERSIONS)
def version(request: pytest.FixtureRequest) -> str:
    found: str = request.param
    return found


@pytest.fixture
def servers(clusters: dict[str, KafkaCluster], version: str) -> str:
    """The bootstrap servers of the cluster of this version."""
    return clusters[version].bootstrap_servers


@dataclass(frozen=True, slots=True)
class Read:
    """A record as librdkafka gives it to a consumer."""

    offset: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...]
    timestamp_ms: int


def read_all(servers: str, topic: str, partition: int = 0) -> list[Read]:
    """All of one partition, its checksums checked by librdkafka. Blocks."""
    consumer = Consumer(
        {"bootstrap.servers": servers, "group.id": "reads", "check.crcs": True, "log_level": 0, "fetch.wait.max.ms": 50}
    )
    found: list[Read] = []
    try:
        low, high = consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=30)
        consumer.assign([TopicPartition(topic, partition, low)])
        while not found or found[-1].offset < high - 1:
            if low == high:
                break
            message: Any = consumer.poll(10.0)
            assert message is not None, f"{topic}: only {len(found)} of {high - low} records came"
            assert message.error() is None, message.error()
            headers = tuple(message.headers() or ())
            found.append(Read(message.offset(), message.key(), message.value(), headers, message.timestamp()[1]))
    finally:
        consumer.close()
    return found


async def read_by_librdkafka(servers: str, topic: str) -> list[Read]:
    return await trio.to_thread.run_sync(read_all, servers, topic)


async def read_by_admin(servers: str, topic: str, count: int) -> list[Read]:
    found: list[Read] = []
    config = ProducerConfig(bootstrap_servers=servers)
    async with open_admin(config) as admin, admin.read_partition(topic, 0, EARLIEST) as reader:
        while len(found) < count:
            found += [
                Read(one.offset, one.key, one.value, tuple(one.headers), one.timestamp_ms)
                for one in await reader.receive()
            ]
    return found


async def make_topic(servers: str, name: str, replication_factor: int = 1) -> str:
    """Make a topic of one partition and return its name."""
    async with open_admin(ProducerConfig(bootstrap_servers=servers)) as admin:
        await admin.create_topics([NewTopic(name=name, partitions=1, replication_factor=replication_factor)])
    return name


def as_read(records: Sequence[Record]) -> list[Read]:
    """What a consumer must see of these, sent in this order into an empty partition."""
    return [
        Read(offset, one.key, one.value, tuple(one.headers), one.timestamp_ms or 0)
        for offset, one in enumerate(records)
    ]


async def test_newest_version_that_both_have_is_written_of_every_message(
    clusters: dict[str, KafkaCluster], servers: str, version: str
) -> None:
    spy = Spy()
    host, port = split_address(servers)
    config = ProducerConfig(bootstrap_servers=servers)
    async with open_connection(host, port, config=config, connector=spy.connector) as connection:
        newest = {API_NAMES[key]: connection.versions[key][1] for key in API_NAMES}
    expected = NEWEST[version]
    assert newest == expected

    async with open_admin(config, connector=spy.connector) as admin:
        await admin.create_topics([NewTopic(name="versions", partitions=1, replication_factor=1)])
        await admin.describe_topic_configs("versions")
        await led(partial(admin.list_offsets, "versions"))
        async with open_producer(config, connector=spy.connector) as producer:
            assert (await producer.send(Record("versions", b"x"))).offset == 0
        async with admin.read_partition("versions", 0, EARLIEST) as reader:
            assert [one.value for one in await reader.receive()] == [b"x"]
    written = spy.versions()
    # 2.8 does not know ApiVersions 4, says so, and is asked once more in version 0 (KIP-511).
    assert written.pop("ApiVersions") == ({4, 0} if version == "2.8.2" else {4})
    assert written == {name: {expected[name]} for name in expected if not name.startswith("Sasl") and name in written}
    assert {"Produce", "Metadata", "InitProducerId", "CreateTopics", "DescribeConfigs", "ListOffsets"} <= set(written)


async def test_every_version_that_both_speak_is_answered(servers: str) -> None:
    topic = await make_topic(servers, "every-version")
    host, port = split_address(servers)
    records = encode_batch([encode_record_tail(b"k", b"v", [("h", None)])], [1_700_000_000_000], codec="none")
    async with open_connection(host, port, config=ProducerConfig(bootstrap_servers=servers)) as connection:
        [found] = (await connection.exchange(metadata, metadata.MetadataRequest(topics=[topic]))).topics
        batch = produce.PartitionBatch(topic, found.id, 0, records)
        new = create_topics.NewTopic(name="never-made", partitions=1, replication_factor=1)
        resource = describe_configs.Resource(type=describe_configs.ResourceType.TOPIC, name=topic)
        requests: dict[ModuleType, object] = {
            api_versions: api_versions.ApiVersionsRequest(),
            create_topics: create_topics.CreateTopicsRequest(topics=[new], timeout_ms=5000, validate_only=True),
            describe_configs: describe_configs.DescribeConfigsRequest(resources=[resource]),
            fetch: fetch.FetchRequest(topic=topic, topic_id=found.id, partition=0, offset=0, max_wait_ms=1),
            init_producer_id: init_producer_id.InitProducerIdRequest(),
            list_offsets: list_offsets.ListOffsetsRequest(topics={topic: [(0, list_offsets.LATEST)]}),
            metadata: metadata.MetadataRequest(topics=[topic]),
            produce: produce.ProduceRequest(batches=[batch], timeout_ms=10_000),
        }
        asked = 0
        for message, request in requests.items():
            low, high = connection.versions[message.API_KEY]
            for version in range(max(low, message.MIN_VERSION), min(high, message.MAX_VERSION) + 1):
                answer = await asked_until_ready(connection, message, request, version)
                parts = getattr(answer, "partitions", ()) or getattr(answer, "topics", ())
                codes = [getattr(answer, "error_code", 0), *(part.error_code for part in parts)]
                assert set(codes) == {0}, (message.__name__, version)
                asked += 1
    assert asked >= 49  # what 2.8 has


async def asked_until_ready(connection: Connection, message: Any, request: object, version: int) -> Any:
    """A new cluster answers InitProducerId with 14, 15 or 16 for about a second."""
    while True:
        answer = await connection.exchange(message, request, version=version)
        if getattr(answer, "error_code", 0) not in (14, 15, 16):
            return answer
        await trio.sleep(0.1)


async def test_records_of_every_codec_are_read_back_byte_for_byte(servers: str) -> None:
    topic = await make_topic(servers, "codecs")
    sent: list[Record] = []
    for turn, codec in enumerate(CODECS):
        records = [
            Record(
                topic,
                None if number == 9 else b'{"codec":"%s","n":%d}' % (codec.encode(), number) * (1 + number % 40),
                key=None if number % 5 == 0 else b"key-%d" % number,
                headers=[("h", b"\x00\xff"), ("h", b"twice"), ("empty", b""), ("ä", None)][: number % 5],
                timestamp_ms=1_700_000_000_000 + 1000 * turn + number,
            )
            for number in range(200)
        ]
        config = ProducerConfig(bootstrap_servers=servers, compression=codec)
        async with open_producer(config) as producer:
            outcomes = await producer.send_many(records)
        for record, outcome in zip(records, outcomes, strict=True):
            assert isinstance(outcome, Delivered)
            assert (outcome.offset, outcome.timestamp_ms) == (len(sent), record.timestamp_ms)
            sent.append(record)
    assert await read_by_librdkafka(servers, topic) == as_read(sent)
    assert await read_by_admin(servers, topic, len(sent)) == as_read(sent)


async def test_lost_acknowledgement_is_no_duplicate(servers: str) -> None:
    topic = await make_topic(servers, "lost-ack")
    spy = Spy()
    async with open_producer(ProducerConfig(bootstrap_servers=servers), connector=spy.connector) as producer:
        first = await producer.send(Record(topic, b"a"))
        spy.to_lose.add("Produce")
        second = await producer.send(Record(topic, b"b"))
        third = await producer.send(Record(topic, b"c"))
    assert [first.attempts, second.attempts, third.attempts] == [1, 2, 1]
    # The broker found the repeated batch among the last five and told its offset.
    assert [first.offset, second.offset, third.offset] == [0, 1, 2]
    assert [one.value for one in await read_by_librdkafka(servers, topic)] == [b"a", b"b", b"c"]


class Events(ProducerObserver):
    """What happened, in order."""

    def __init__(self) -> None:
        self.seen: list[object] = []

    def identity_changed(self, event: IdentityChanged) -> None:
        self.seen.append(event)

    def leader_changed(self, event: LeaderChanged) -> None:
        self.seen.append(event)

    def metadata_refreshed(self, event: MetadataRefreshed) -> None:
        self.seen.append(event)


async def test_batch_given_up_is_followed_by_an_epoch_of_its_own(servers: str) -> None:
    topic = await make_topic(servers, "abandoned")
    spy, events = Spy(), Events()
    config = ProducerConfig(
        bootstrap_servers=servers,
        produce_timeout_s=0.5,
        request_timeout_s=1.0,
        delivery_timeout_s=30.0,
        batch_timeout_s=1.0,
    )
    async with open_producer(config, connector=spy.connector, observer=events) as producer:
        await producer.send(Record(topic, b"a"))
        spy.to_lose.add("Produce")
        spy.refusing = True
        [outcome] = await producer.send_many([Record(topic, b"b")])
        assert isinstance(outcome, Unknown)
        spy.refusing = False
        delivered = await producer.send(Record(topic, b"c"))
    assert delivered.offset == 2
    identities = [event for event in events.seen if isinstance(event, IdentityChanged)]
    assert len({event.producer_id for event in identities}) == 1
    assert [event.epoch for event in identities] == [0, 1]
    assert [one.value for one in await read_by_librdkafka(servers, topic)] == [b"a", b"b", b"c"]


async def test_record_of_a_caller_who_gave_up_is_not_in_the_log_if_it_says_so(servers: str) -> None:
    topic = await make_topic(servers, "cancelled")
    spy = Spy()
    spy.refusing = True
    async with open_producer(ProducerConfig(bootstrap_servers=servers), connector=spy.connector) as producer:
        with producer.delivery([Record(topic, b"never")]) as delivery:
            with trio.move_on_after(0.05):
                await delivery.wait()
        assert isinstance(delivery.outcomes[0], NotSent)
        spy.refusing = False
        await producer.send(Record(topic, b"a"))
        outcomes = []
        for number in range(30):
            with producer.delivery([Record(topic, b"%d" % number)]) as delivery:
                with trio.move_on_after(number * 0.0002):
                    await delivery.wait()
            outcomes.append(delivery.outcomes[0])
        await producer.send(Record(topic, b"z"))
    values = [one.value for one in await read_by_librdkafka(servers, topic)]
    assert (values[0], values[-1]) == (b"a", b"z")
    assert b"never" not in values
    assert len(values) == len(set(values))
    for number, outcome in enumerate(outcomes):
        if isinstance(outcome, Delivered):
            assert values[outcome.offset] == b"%d" % number
        elif isinstance(outcome, NotSent):
            assert b"%d" % number not in values


async def test_topic_made_again_under_its_name_is_a_new_log(servers: str) -> None:
    topic = await make_topic(servers, "again")
    async with open_producer(ProducerConfig(bootstrap_servers=servers)) as producer:
        for number in range(3):
            assert (await producer.send(Record(topic, b"old %d" % number))).offset == number
        await trio.to_thread.run_sync(delete_topic, servers, topic)
        await make_again(servers, topic)
        delivered = await producer.send_many([Record(topic, b"new %d" % number) for number in range(3)])
    assert [type(outcome) for outcome in delivered] == [Delivered] * 3
    assert [one.value for one in await read_by_librdkafka(servers, topic)] == [b"new 0", b"new 1", b"new 2"]


def delete_topic(servers: str, topic: str) -> None:
    admin = AdminClient({"bootstrap.servers": servers, "log_level": 0})  # lives until its answer is there
    admin.delete_topics([topic])[topic].result(30)


async def make_again(servers: str, topic: str) -> None:
    """A broker of ZooKeeper deletes a topic some time after it has said so."""
    while True:
        try:
            await make_topic(servers, topic)
            return
        except BrokerError as error:
            if error.code != TOPIC_ALREADY_EXISTS:
                raise
        await trio.sleep(0.1)


async def test_admin_asks_and_is_answered(servers: str, version: str) -> None:
    async with open_admin(ProducerConfig(bootstrap_servers=servers)) as admin:
        new = NewTopic(name="by-admin", partitions=3, replication_factor=1, configs=[("max.message.bytes", "7777")])
        await admin.create_topics([new])
        [found] = (await admin.metadata(["by-admin"])).topics
        assert sorted(one.index for one in found.partitions) == [0, 1, 2]
        assert (found.id == bytes(16)) is False
        configs = await admin.describe_topic_configs("by-admin", ["max.message.bytes", "min.insync.replicas"])
        assert {name: entry.value for name, entry in configs.items()} == {
            "max.message.bytes": "7777",
            "min.insync.replicas": "1",
        }
        for at in (EARLIEST, LATEST):
            assert await led(partial(admin.list_offsets, "by-admin", at)) == {0: 0, 1: 0, 2: 0}


async def led(ask: Callable[[], Awaitable[Mapping[int, int]]]) -> Mapping[int, int]:
    """A new partition has no leader for some moments, and who asks for it then is told so."""
    while True:
        try:
            return await ask()
        except BrokerError as error:
            if not error.retriable:
                raise
        await trio.sleep(0.05)


class SaidAsItIs:
    """ApiVersions as `kafka_client.wire` has it, but for the name, which goes out as it is."""

    API_KEY = api_versions.API_KEY
    MIN_VERSION = api_versions.MIN_VERSION
    MAX_VERSION = api_versions.MAX_VERSION
    decode_response = staticmethod(api_versions.decode_response)

    @staticmethod
    def encode_request(request: api_versions.ApiVersionsRequest, version: int) -> bytes:
        name = request.client_software_name.encode()
        return bytes((len(name) + 1,)) + name + b"\x020" + b"\x00"


async def test_name_of_our_software_is_never_refused(servers: str) -> None:
    host, port = split_address(servers)
    config = ProducerConfig(bootstrap_servers=servers, client_id="my_app ü/1")
    for name, refused in (("kafka_client", True), ("my app", True), ("-a", True), ("kafka-client", False)):
        request = api_versions.ApiVersionsRequest(client_software_name=name)
        async with open_connection(host, port, config=config) as connection:
            as_it_is = await connection.exchange(SaidAsItIs, request, version=3)  # type: ignore[arg-type]  # as a module of wire
            assert as_it_is.error_code == (42 if refused else 0)
        async with open_connection(host, port, config=config) as connection:
            assert (await connection.exchange(api_versions, request, version=3)).error_code == 0
    topic = await make_topic(servers, "names")
    async with open_producer(config) as producer:
        assert (await producer.send(Record(topic, b"x"))).offset == 0


async def test_metadata_of_a_healthy_cluster_never_asks_to_rebootstrap(servers: str, version: str) -> None:
    # KIP-1102's top-level error exists from Metadata 13 on; a broker itself does not set it, proxies may.
    host, port = split_address(servers)
    async with open_connection(host, port, config=ProducerConfig(bootstrap_servers=servers)) as connection:
        asked = connection.version_of(metadata)
        answer = await connection.exchange(metadata, metadata.MetadataRequest(topics=["nowhere"]))
    assert (asked, answer.error_code) == (NEWEST[version]["Metadata"], 0)
    assert [topic.error_code for topic in answer.topics] == [3]


@pytest.mark.timeout(120)
async def test_leader_that_moved_is_known_from_the_answer_to_produce(nodes: Nodes) -> None:
    servers, topic = nodes.bootstrap_servers, "moved"
    await make_topic(servers, topic, replication_factor=3)
    async with open_admin(ProducerConfig(bootstrap_servers=servers)) as admin:
        preferred = (await admin.topic(topic)).partitions[0].replicas[0]
    await nodes.stop(preferred)
    spy, events = Spy(), Events()
    config = ProducerConfig(bootstrap_servers=servers, metadata_max_age_s=3600)
    async with open_producer(config, connector=spy.connector, observer=events) as producer:
        first = await producer.send(Record(topic, b"a"))
        await nodes.start(preferred)
        await trio.to_thread.run_sync(elect_preferred, servers, topic)
        events.seen.clear()
        spy.exchanges.clear()
        second = await producer.send(Record(topic, b"b"))
    assert (first.attempts, second.attempts, second.offset) == (1, 2, 1)
    kinds = [type(event) for event in events.seen]
    assert kinds[0] is LeaderChanged, "the hint came first, Metadata after it"
    before, after = [one for one in spy.exchanges if one.message == "Produce"]
    assert before.answer is not None
    _, body = decode_response_header(before.answer, produce.API_KEY, before.version)
    answer = produce.decode_response(body, before.version)
    [refused] = answer.partitions
    assert refused.error_code == NOT_LEADER
    assert refused.current_leader is not None
    assert refused.current_leader.leader_id == preferred
    assert [f"{one.host}:{one.port}" for one in answer.node_endpoints] == [after.address]
    assert after.address == nodes.node(preferred).address != before.address
    assert [one.value for one in await read_by_librdkafka(servers, topic)] == [b"a", b"b"]


def elect_preferred(servers: str, topic: str) -> None:
    """Give the leadership back, once the node that came back has all that the others have."""
    admin = AdminClient({"bootstrap.servers": servers, "log_level": 0})
    partition = TopicPartition(topic, 0)
    for _ in range(200):
        error = admin.elect_leaders(ElectionType.PREFERRED, [partition]).result(30)[partition]
        leads = admin.list_topics(topic, timeout=30).topics[topic].partitions[0]
        if error is None or leads.leader == leads.replicas[0]:
            return
    raise AssertionError(f"{topic}: {error}")


async def test_cluster_that_moved_away_as_a_whole_is_found_by_its_bootstrap_address(tmp_path: Path) -> None:
    spy = Spy()
    config = ProducerConfig(bootstrap_servers="kafka.test:9092", rebootstrap_after_s=0.5)
    async with open_producer(config, connector=spy.connector) as producer:
        async with open_kafka(tmp_path / "kafka") as cluster:
            old = spy.moved["kafka.test:9092"] = cluster.bootstrap_servers
            await make_topic(cluster.bootstrap_servers, "moves")
            first = await producer.send(Record("moves", b"a"))
        with producer.delivery([Record("moves", b"withdrawn")]) as delivery:
            with trio.move_on_after(0.2):
                await delivery.wait()
        assert isinstance(delivery.outcomes[0], NotSent)
        async with open_kafka(tmp_path / "kafka") as cluster:
            assert cluster.bootstrap_servers != old
            spy.moved["kafka.test:9092"] = cluster.bootstrap_servers
            second = await producer.send(Record("moves", b"b"))
            assert (first.offset, second.offset) == (0, 1)
            values = [one.value for one in await read_by_librdkafka(cluster.bootstrap_servers, "moves")]
    assert values == [b"a", b"b"]


async def test_mock_takes_records_of_every_codec_and_survives_a_partition_without_a_leader() -> None:
    async with open_mock({"events": 1}) as mock:
        sent: list[Record] = []
        spy = Spy()
        for codec in CODECS:
            records = [
                Record("events", b"%s %d" % (codec.encode(), number) * 20, key=b"k", headers=[("h", b"x")])
                for number in range(100)
            ]
            config = ProducerConfig(bootstrap_servers=mock.bootstrap_servers, compression=codec)
            async with open_producer(config, connector=spy.connector) as producer:
                outcomes = await producer.send_many(records)
            assert [type(outcome) for outcome in outcomes] == [Delivered] * len(records)
            sent += records
        # It does not know ApiVersions 4, and its answer to it is broken behind the error code.
        assert spy.versions() == {
            "ApiVersions": {4, 0},
            "Metadata": {13},
            "InitProducerId": {4},
            "Produce": {10},
        }
        async with open_producer(ProducerConfig(bootstrap_servers=mock.bootstrap_servers)) as producer:
            sent.append(Record("events", b"before"))
            await producer.send(sent[-1])
            # A Produce 10 to a partition without a leader would be the end of it.
            await mock.command("leader", "events", 0, -1)
            with producer.delivery([Record("events", b"nobody leads")]) as delivery:
                with trio.move_on_after(0.5):
                    await delivery.wait()
            assert mock.child.running
            await mock.command("leader", "events", 0, 1)
            sent.append(Record("events", b"after"))
            await producer.send(sent[-1])
        found = await read_by_librdkafka(mock.bootstrap_servers, "events")
    kept = [one for one in found if one.value != b"nobody leads"]
    assert [(one.key, one.value, one.headers) for one in kept] == [
        (one.key, one.value, tuple(one.headers)) for one in sent
    ]
    assert len(found) - len(kept) == (0 if isinstance(delivery.outcomes[0], NotSent) else 1)
