"""What a scenario is played against: a cluster, fake or real, seen through `RawClient` alone.

Owns: connecting, making topics, and turning answers into what can be compared: ids, wall-clock times and wordings
become what they have in common.
"""

import struct
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import crc32c
import trio

from kafka_client.testing import Api, FakeCluster, RawClient, encode_batch

PRODUCE_VERSION = 12
CLOSED = "the connection was closed"
HEADER = struct.Struct(">qiibIhiqqqhii")
COORDINATOR_LOADING = (14, 15, 16)
DELETE_TOPICS = 20
ELECT_LEADERS = 43
ELECTION_NOT_NEEDED = 84
ALTER_PARTITION_REASSIGNMENTS = 45
TOPIC_ALREADY_EXISTS = 36
NOT_YET = (3, 5, 6)
NOBODY = {"leader_id": -1, "leader_epoch": -1}


@dataclass(frozen=True, slots=True)
class Topic:
    """A topic of a scenario's own."""

    name: str
    id: uuid.UUID


@dataclass(slots=True)
class Target:
    """One cluster. ``fake`` is None for Apache Kafka."""

    connect_to: Callable[[int], Awaitable[trio.abc.HalfCloseableStream]]
    fake: FakeCluster | None
    stack: AsyncExitStack
    pause: Callable[[bool], None] | None = None
    now_ms: int = field(default_factory=lambda: int(time.time() * 1000))
    _client: RawClient | None = None

    async def connect(self, node: int = 1) -> RawClient:
        """A new connection to a node."""
        stream = await self.connect_to(node)
        self.stack.push_async_callback(trio.aclose_forcefully, stream)
        return RawClient(stream)

    async def client(self) -> RawClient:
        """The scenario's connection to node 1 for what it does not look at."""
        await trio.lowlevel.checkpoint()
        if self._client is None:
            self._client = await self.connect()
        return self._client

    async def topic(self, partitions: int = 1, *, replicas: int = 1, **configs: str | int) -> Topic:
        """A new topic; ``max_message_bytes=100`` is ``max.message.bytes``. Ready to be written to."""
        name = f"t-{uuid.uuid4().hex[:12]}"
        answer = await self.create(name, partitions, replicas=replicas, **configs)
        assert answer["error_code"] == 0, answer
        for index in range(partitions):
            await self.wait_led(name, index)
        topic = Topic(name, uuid.UUID(answer["topic_id"]))
        if replicas > 1:
            await self.move_leader(topic, 1)
        return topic

    async def create(self, name: str, partitions: int, *, replicas: int = 1, **configs: str | int) -> dict[str, Any]:
        """CreateTopics' answer for one topic."""
        answer: Any = await (await self.client()).call(
            Api.CREATE_TOPICS,
            7,
            timeout=10_000,
            validate_only=0,
            topics=[new_topic(name, partitions, replicas, configs)],
        )
        return answer["topics"][0]  # type: ignore[no-any-return]  # plain values

    async def move_leader(self, topic: Topic, leader: int) -> None:
        """Make another node the leader of partition 0, and wait until node 1 knows."""
        await trio.lowlevel.checkpoint()
        if self.fake is not None:
            self.fake.move_leader(topic.name, 0, leader)
            return
        client = await self.client()
        order = [leader, *({1, 2, 3} - {leader})]
        part = {"partition_index": 0, "replicas": order}
        moved: Any = await client.call(
            ALTER_PARTITION_REASSIGNMENTS, 0, timeout=10_000, topics=[{"name": topic.name, "partitions": [part]}]
        )
        assert moved["error_code"] == 0, moved
        place = [{"topic": topic.name, "partitions": [0]}]
        code = -1
        while code not in (0, ELECTION_NOT_NEEDED):
            elected: Any = await client.call(ELECT_LEADERS, 2, election_type=0, topic_partitions=place, timeout=10_000)
            code = elected["replica_election_results"][0]["partition_result"][0]["error_code"]
        await self.wait_led(topic.name, leader=leader)

    def hold(self, topic: Topic) -> None:
        """Let a follower of partition 0 stand still: not one that leads, and not for as long as its session."""
        if self.fake is not None:
            self.fake.hold_replication(topic.name, 0)
        elif self.pause is not None:
            self.pause(True)

    def release(self, topic: Topic) -> None:
        """Let it go on."""
        if self.fake is not None:
            self.fake.release_replication(topic.name, 0)
        elif self.pause is not None:
            self.pause(False)

    async def recreate(self, topic: Topic) -> Topic:
        """Delete it and create it again: the same name, another id."""
        if self.fake is not None:
            self.fake.delete_topic(topic.name)
        else:
            state = [{"name": topic.name, "topic_id": None}]
            client = await self.client()
            await client.call(DELETE_TOPICS, 6, topics=state, topic_names=[topic.name], timeout=10_000)
        while True:
            answer = await self.create(topic.name, 1)
            if answer["error_code"] != TOPIC_ALREADY_EXISTS:
                break
            await trio.sleep(0.02)
        await self.wait_led(topic.name)
        return Topic(topic.name, uuid.UUID(answer["topic_id"]))

    async def wait_led(self, name: str, index: int = 0, *, leader: int | None = None) -> None:
        """Wait until node 1 knows the partition's leader (or that one), and that leader knows it is."""
        client = await self.client()
        while True:
            found: Any = await client.call(Api.METADATA, 12, **asking_for(name))
            parts = found["topics"][0]["partitions"]
            known = parts_by_index(parts)[index]["leader_id"] if len(parts) > index else -1
            if known >= 0 and leader in (None, known):
                at_leader = client if known == 1 else await self.connect(known)
                answer: Any = await at_leader.call(Api.LIST_OFFSETS, 7, **offsets_of(name, -1, index))
                if answer["topics"][0]["partitions"][0]["error_code"] not in NOT_YET:
                    return
            await trio.sleep(0.02)

    async def new_producer_id(self) -> int:
        """A fresh producer id; a cluster that has just started says "later" for about a second."""
        client = await self.client()
        while True:
            answer: Any = await client.call(
                Api.INIT_PRODUCER_ID, 4, transactional_id=None, transaction_timeout=0, producer_id=-1, producer_epoch=-1
            )
            if answer["error_code"] not in COORDINATOR_LOADING:
                assert answer["error_code"] == 0
                return answer["producer_id"]  # type: ignore[no-any-return]  # plain values
            await trio.sleep(0.05)

    def batch(self, *values: bytes | None, **members: Any) -> bytes:
        """`encode_batch` of now."""
        return encode_batch(values, **{"timestamp_ms": self.now_ms, **members})

    async def produce(
        self,
        topic: Topic,
        records: bytes | None,
        *,
        version: int = PRODUCE_VERSION,
        acks: int = -1,
        partition: int = 0,
        client: RawClient | None = None,
    ) -> Any:
        """What the partition is answered, as `shape_of_partition`."""
        client = client or await self.client()
        answer: Any = await client.call(Api.PRODUCE, version, **producing(topic, records, version, acks, partition))
        return CLOSED if answer is None else self.shape(answer)

    def shape(self, answer: dict[str, Any]) -> Any:
        """A Produce answer with one partition."""
        [topic] = answer["responses"]
        [part] = topic["partition_responses"]
        shape = self.shape_of_partition(part)
        if answer.get("node_endpoints"):
            shape["endpoints"] = [node["node_id"] for node in answer["node_endpoints"]]
        return shape

    def shape_of_partition(self, part: dict[str, Any]) -> dict[str, Any]:
        """What of it is not as if it were not there; wordings as whether there are any, times as `when`."""
        shape: dict[str, Any] = {"code": part["error_code"], "base_offset": part["base_offset"]}
        if part.get("log_append_time") is not None:
            shape["log_append_time"] = self.when(part["log_append_time"])
        if part.get("log_start_offset", -1) != -1:
            shape["log_start_offset"] = part["log_start_offset"]
        if part.get("error_message") is not None:
            shape["message"] = True
        if part.get("record_errors"):
            shape["record_errors"] = [
                (error["batch_index"], error["batch_index_error_message"] is not None)
                for error in part["record_errors"]
            ]
        if part.get("current_leader", NOBODY) != NOBODY:
            shape["current_leader"] = part["current_leader"]
        return shape

    def when(self, timestamp_ms: int | None) -> object:
        """A time as the distance from the scenario's, or "now" for the broker's clock."""
        if timestamp_ms is None or timestamp_ms < 0:
            return timestamp_ms
        distance = timestamp_ms - self.now_ms
        return timestamp_ms if timestamp_ms < 1000 else "now" if 0 < distance < 20_000 else distance

    async def stored(self, topic: Topic, partition: int = 0) -> list[object]:
        """Every batch of the partition as Fetch returns it: its header, and whether its CRC is right."""
        answer: Any = await (await self.client()).call(Api.FETCH, 12, **fetching(topic.name, 0, partition=partition))
        data = answer["responses"][0]["partitions"][0]["records"] or b""
        found: list[object] = []
        while data:
            offset, length, epoch, magic, crc, attributes, *rest = HEADER.unpack_from(data)
            delta, first_ms, last_ms, producer_id, producer_epoch, sequence, count = rest
            found.append(
                {
                    "offset": offset,
                    "length": length,
                    "rest": (epoch, magic, attributes, delta, count, crc32c.crc32c(data[21 : 12 + length]) == crc),
                    "times": (self.when(first_ms), self.when(last_ms)),
                    "producer": (producer_id >= 0, producer_epoch, sequence),
                }
            )
            data = data[12 + length :]
        return found


def new_topic(name: str, partitions: int, replicas: int, configs: dict[str, str | int]) -> dict[str, Any]:
    """One of CreateTopics' topics."""
    rows = [{"name": key.replace("_", "."), "value": str(value)} for key, value in configs.items()]
    return {
        "name": name,
        "num_partitions": partitions,
        "replication_factor": replicas,
        "assignments": [],
        "configs": rows,
    }


def producing(topic: Topic, records: bytes | None, version: int, acks: int, partition: int) -> dict[str, Any]:
    """Members of a Produce request for one partition."""
    parts = [{"index": partition, "records": records}]
    return {
        "transactional_id": None,
        "acks": acks,
        "timeout": 5000,
        "topic_data": [{"name": topic.name, "topic_id": topic.id, "partition_data": parts}],
    }


def asking_for(*names: str | None, auto_create: bool = False) -> dict[str, Any]:
    """Members of a Metadata request by name."""
    return {
        "topics": [{"name": name, "topic_id": None} for name in names],
        "allow_auto_topic_creation": auto_create,
        "include_cluster_authorized_operations": False,
        "include_topic_authorized_operations": False,
    }


def offsets_of(name: str, timestamp: int, partition: int = 0, *, epoch: int = -1) -> dict[str, Any]:
    """Members of a ListOffsets request for one partition."""
    part = {"partition_index": partition, "current_leader_epoch": epoch, "timestamp": timestamp}
    topics: Sequence[dict[str, Any]] = [{"name": name, "partitions": [part]}]
    return {"replica_id": -1, "isolation_level": 0, "topics": topics, "timeout": 1000}


def fetching(
    name: str,
    offset: int,
    *,
    topic_id: uuid.UUID | None = None,
    partition: int = 0,
    epoch: int = -1,
    max_bytes: int = 10_000_000,
    partition_max_bytes: int = 10_000_000,
    wait_ms: int = 0,
    min_bytes: int = 0,
) -> dict[str, Any]:
    """Members of a Fetch request for one partition, without a session."""
    part = {
        "partition": partition,
        "current_leader_epoch": epoch,
        "fetch_offset": offset,
        "last_fetched_epoch": -1,
        "log_start_offset": -1,
        "partition_max_bytes": partition_max_bytes,
    }
    return {
        "replica_id": -1,
        "max_wait": wait_ms,
        "min_bytes": min_bytes,
        "max_bytes": max_bytes,
        "isolation_level": 0,
        "session_id": 0,
        "session_epoch": -1,
        "topics": [{"topic": name, "topic_id": topic_id, "partitions": [part]}],
        "forgotten_topics_data": [],
        "rack_id": "",
    }


def parts_by_index(parts: Sequence[dict[str, Any]]) -> dict[int, dict[str, Any]]:
    """Metadata's partitions, which come in any order."""
    return {part["partition_index"]: part for part in parts}


@asynccontextmanager
async def open_fake(cluster: FakeCluster) -> AsyncIterator[Target]:
    """The fake, in memory."""
    async with AsyncExitStack() as stack:
        yield Target(lambda node: cluster.connector(f"fake-{node}", 9092), cluster, stack)


@asynccontextmanager
async def open_real(addresses: Sequence[str], pause: Callable[[bool], None] | None = None) -> AsyncIterator[Target]:
    """Apache Kafka: its nodes' addresses, from node 1 on; ``pause`` stops node 3 or lets it go on."""

    async def connect(node: int) -> trio.SocketStream:
        host, port = addresses[node - 1].split(":")
        return await trio.open_tcp_stream(host, int(port))

    async with AsyncExitStack() as stack:
        yield Target(connect, None, stack, pause)
