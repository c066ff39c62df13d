"""Questions to a cluster, and the reading of partitions: for people and their tools, never on the produce path.

Owns: which broker a question belongs to. Refuses to know: consumer groups, and producers.

Every question opens a connection of its own and closes it again: they are rare, and nothing is then left between them.
A `PartitionReader` keeps one, since a broker works on one request of a connection at a time, and a Fetch that waits for
records would make others wait.

Invariant: a question is asked once, and its failure raised; only a reader tries again, with a pause, as long as its
block lasts.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from random import random
from types import MappingProxyType

import trio

from kafka_client.config import Connector, ProducerConfig, split_address
from kafka_client.errors import BrokerError, ConnectionLost
from kafka_client.network.connection import Connection, open_connection
from kafka_client.network.plainly import raise_plainly
from kafka_client.network.sasl import describe
from kafka_client.outcome import Headers
from kafka_client.wire import create_topics, describe_configs, fetch, list_offsets, metadata
from kafka_client.wire.create_topics import CreatedTopic, NewTopic
from kafka_client.wire.describe_configs import ConfigEntry
from kafka_client.wire.error_names import error_name, is_retriable
from kafka_client.wire.list_offsets import EARLIEST, LATEST
from kafka_client.wire.metadata import BrokerMetadata, MetadataResponse, TopicMetadata
from kafka_client.wire.primitives import NULL_UUID
from kafka_client.wire.record_batch import DecodedBatch, decode_batches

__all__ = ["EARLIEST", "LATEST", "Admin", "FetchedRecord", "NewTopic", "PartitionReader", "open_admin"]

_TOPIC_ALREADY_EXISTS = 36
_OFFSET_OUT_OF_RANGE = 1
_LEADER_NOT_AVAILABLE = 5
_UNKNOWN_TOPIC_OR_PARTITION = 3

#: How long the broker may keep a Fetch that finds nothing. Its answer shows that the connection lives.
_FETCH_WAIT_S = 0.5
_FETCH_MAX_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchedRecord:
    """One record as it was read."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: Headers


def check_code(code: int, message: str | None, what: str) -> None:
    """Raise `BrokerError` for a code other than 0; ``what`` says what was asked."""
    if code != 0:
        detail = f"{what}: {message}" if message else what
        raise BrokerError(code, error_name(code), detail, retriable=is_retriable(code))


@asynccontextmanager
async def open_admin(config: ProducerConfig, *, connector: Connector | None = None) -> AsyncIterator["Admin"]:
    """Give out an `Admin`; nothing is connected before the first question.

    On cancellation: nothing is left, since every question closes what it opened.
    """
    yield Admin(config, connector)
    await trio.lowlevel.checkpoint()


class Admin:
    """Asks a cluster. Made by `open_admin`; any number of tasks may use it at once.

    Every method raises `ConnectionLost` where no broker answers or where one hangs up instead of answering
    (some do so for what they do not know), and `BrokerError` for an error code. None tries again by itself.
    """

    def __init__(self, config: ProducerConfig, connector: Connector | None) -> None:
        self._config = config
        self._connector = connector

    def __repr__(self) -> str:
        return f"<Admin {','.join(self._config.bootstrap_servers)}>"

    async def whoami(self) -> str:
        """Say in a sentence who we are to a broker, and how that was proved. On cancellation: the connection is closed.

        It is what we showed; under which principal a broker knows it is its own (``principal.builder.class``).
        """
        async with self._open_any() as connection:
            return f"connected to {connection.address}: {describe(self._config.security, connection.session)}"

    async def metadata(self, topics: Sequence[str] | None = ()) -> MetadataResponse:
        """The brokers and ``topics`` (None: all of them). Topics that do not exist are not created by asking.

        On cancellation: the connection is closed.
        """
        async with self._open_any() as connection:
            answer = await connection.exchange(metadata, metadata.MetadataRequest(topics=topics))
        check_code(answer.error_code, None, "metadata")
        return answer

    async def topic(self, name: str) -> TopicMetadata:
        """One topic's partitions. On cancellation: the connection is closed."""
        return _topic_of(await self.metadata([name]), name)

    async def create_topics(
        self, topics: Sequence[NewTopic], *, exist_ok: bool = False, validate_only: bool = False
    ) -> Sequence[CreatedTopic]:
        """Create ``topics``, or with ``validate_only`` see whether that would work.

        Args:
            exist_ok: a topic that exists already is no error; its row in the result keeps code 36.

        On cancellation: the connection is closed; the topics may be created all the same.
        """
        request = create_topics.CreateTopicsRequest(
            topics=topics, timeout_ms=round(self._config.produce_timeout_s * 1000), validate_only=validate_only
        )
        cluster = await self.metadata()
        async with self._open_controller(cluster) as connection:
            answer = await connection.exchange(create_topics, request)
        for created in answer.topics:
            if not (exist_ok and created.error_code == _TOPIC_ALREADY_EXISTS):
                check_code(created.error_code, created.error_message, f"create topic {created.name}")
        return answer.topics

    async def describe_topic_configs(self, topic: str, keys: Sequence[str] | None = None) -> Mapping[str, ConfigEntry]:
        """``topic``'s configuration by name; ``keys`` None takes all. On cancellation: the connection is closed."""
        resource = describe_configs.Resource(type=describe_configs.ResourceType.TOPIC, name=topic, keys=keys)
        request = describe_configs.DescribeConfigsRequest(resources=[resource])
        async with self._open_any() as connection:
            answer = await connection.exchange(describe_configs, request)
        found: dict[str, ConfigEntry] = {}
        for described in answer.resources:
            check_code(described.error_code, described.error_message, f"configuration of topic {topic}")
            found.update((entry.name, entry) for entry in described.configs)
        return MappingProxyType(found)

    async def list_offsets(self, topic: str, at: int = LATEST) -> Mapping[int, int]:
        """Partition → offset: where each begins (`EARLIEST`), ends (`LATEST`), or the first record at or after a time.

        Args:
            at: milliseconds since the Unix epoch, or one of the two names. No record that late: where it ends.

        On cancellation: the connections are closed.
        """
        cluster = await self.metadata([topic])
        found_topic = _topic_of(cluster, topic)
        by_leader: dict[int, list[int]] = {}
        for partition in found_topic.partitions:
            by_leader.setdefault(partition.leader, []).append(partition.index)
        found: dict[int, int] = {}
        for leader, partitions in by_leader.items():
            async with self._open_broker(_broker_of(cluster, leader, topic)) as connection:
                found.update(await _ask_offsets(connection, topic, partitions, at))
                missing = [partition for partition in partitions if found[partition] < 0]
                if missing:
                    found.update(await _ask_offsets(connection, topic, missing, LATEST))
        return MappingProxyType(dict(sorted(found.items())))

    @asynccontextmanager
    async def read_partition(self, topic: str, partition: int, offset: int) -> AsyncIterator["PartitionReader"]:
        """Read ``partition`` from ``offset`` (or `EARLIEST`, `LATEST`) on, for as long as the block lasts.

        `LATEST` is resolved before the block is entered: what is sent after that is read. Where the leader moves or is
        away the reader waits; an offset that retention has deleted jumps to the first one that is left.

        On cancellation: the connection is closed.
        """
        if offset < 0:
            offset = (await self.list_offsets(topic, offset))[partition]
        # One answer is read ahead: while its records are looked at, the next Fetch is under way.
        send, receive = trio.open_memory_channel[list[FetchedRecord]](1)
        reader = PartitionReader(topic, partition, offset, receive)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._fetch_loop, reader, send, name=f"fetch {topic}/{partition}")
                yield reader
                nursery.cancel_scope.cancel(reason="the reading of a partition is over")
        except BaseExceptionGroup as group:
            raise_plainly(group)
        finally:
            receive.close()

    async def _fetch_loop(self, reader: "PartitionReader", send: "trio.MemorySendChannel[list[FetchedRecord]]") -> None:
        config = self._config
        pause_s = config.reconnect_backoff_min_s
        with send:
            while True:
                try:
                    async with self._open_leader(reader.topic, reader.partition) as (connection, topic_id):
                        while True:
                            records, next_offset = await _fetch(connection, reader, topic_id)
                            pause_s = config.reconnect_backoff_min_s
                            if records:
                                await send.send(records)
                            # Only now: a connection that ends during the send has cancelled it.
                            reader.next_offset = next_offset
                except ConnectionLost:
                    pass  # the broker is away: look again who leads
                except BrokerError as error:
                    if not error.retriable:
                        reader.fail(error)
                        return  # noqa: ASYNC910  # the reading is over
                await trio.sleep(random() * pause_s)
                pause_s = min(2 * pause_s, config.reconnect_backoff_max_s)

    @asynccontextmanager
    async def _open_leader(self, topic: str, partition: int) -> AsyncIterator[tuple[Connection, bytes]]:
        cluster = await self.metadata([topic])
        found = _topic_of(cluster, topic)
        leaders = [one.leader for one in found.partitions if one.index == partition]
        if not leaders:
            check_code(_UNKNOWN_TOPIC_OR_PARTITION, None, f"{topic}/{partition}")
        async with self._open_broker(_broker_of(cluster, leaders[0], topic)) as connection:
            yield connection, found.id

    @asynccontextmanager
    async def _open_controller(self, cluster: MetadataResponse) -> AsyncIterator[Connection]:
        for broker in cluster.brokers:
            if broker.id == cluster.controller_id:
                async with self._open_broker(broker) as connection:
                    yield connection
                return
        async with self._open_any() as connection:
            yield connection

    @asynccontextmanager
    async def _open_broker(self, broker: BrokerMetadata) -> AsyncIterator[Connection]:
        async with open_connection(
            broker.host, broker.port, config=self._config, connector=self._connector
        ) as connection:
            yield connection

    @asynccontextmanager
    async def _open_any(self) -> AsyncIterator[Connection]:
        """A connection to the first bootstrap server that takes one."""
        failures: list[ConnectionLost] = []
        for address in self._config.bootstrap_servers:
            host, port = split_address(address)
            entered = False
            try:
                async with open_connection(host, port, config=self._config, connector=self._connector) as connection:
                    entered = True
                    yield connection
            except ConnectionLost as error:
                if entered or len(self._config.bootstrap_servers) == 1:
                    raise
                failures.append(error)
            else:
                return
        raise ConnectionLost("; ".join(map(str, failures))) from failures[-1]


class PartitionReader:
    """What was read, in order. Iterate over it, or take whole answers with `receive`."""

    def __init__(
        self, topic: str, partition: int, offset: int, receive: "trio.MemoryReceiveChannel[list[FetchedRecord]]"
    ) -> None:
        self.topic = topic
        self.partition = partition
        self.next_offset = offset
        """Where the next Fetch begins: after all that was received, and after one answer that is read ahead."""
        self.high_watermark = -1
        """Where the partition ended at the last answer; -1 before the first."""
        self._receive = receive
        self._pending: list[FetchedRecord] = []
        self._error: BrokerError | None = None

    def __repr__(self) -> str:
        return f"<PartitionReader {self.topic}/{self.partition} at {self.next_offset} of {self.high_watermark}>"

    def fail(self, error: BrokerError) -> None:
        """End the reading; `receive` raises ``error`` once what was read before is taken."""
        self._error = error

    async def receive(self) -> list[FetchedRecord]:
        """The records of one answer, one or more; waits for them.

        Raises:
            BrokerError: reading this partition cannot go on.

        On cancellation: nothing is lost.
        """
        try:
            return await self._receive.receive()
        except trio.EndOfChannel:
            assert self._error is not None
            raise self._error from None

    def __aiter__(self) -> "PartitionReader":
        return self

    async def __anext__(self) -> FetchedRecord:
        if self._pending:
            await trio.lowlevel.checkpoint()
        else:
            self._pending = await self.receive()
            self._pending.reverse()
        return self._pending.pop()


def _topic_of(cluster: MetadataResponse, name: str) -> TopicMetadata:
    for topic in cluster.topics:
        if topic.name == name:
            check_code(topic.error_code, None, f"topic {name}")
            return topic
    raise BrokerError(
        _UNKNOWN_TOPIC_OR_PARTITION,
        error_name(_UNKNOWN_TOPIC_OR_PARTITION),
        f"topic {name} is missing in the answer",
        retriable=True,
    )


def _broker_of(cluster: MetadataResponse, node_id: int, topic: str) -> BrokerMetadata:
    for broker in cluster.brokers:
        if broker.id == node_id:
            return broker
    raise BrokerError(
        _LEADER_NOT_AVAILABLE, error_name(_LEADER_NOT_AVAILABLE), f"topic {topic} has no leader", retriable=True
    )


async def _ask_offsets(connection: Connection, topic: str, partitions: Sequence[int], at: int) -> dict[int, int]:
    request = list_offsets.ListOffsetsRequest(topics={topic: [(partition, at) for partition in partitions]})
    answer = await connection.exchange(list_offsets, request)
    found = {}
    for one in answer.partitions:
        check_code(one.error_code, None, f"offsets of {topic}/{one.partition}")
        found[one.partition] = one.offset
    for partition in partitions:
        if partition not in found:
            check_code(_UNKNOWN_TOPIC_OR_PARTITION, "missing in the answer", f"offsets of {topic}/{partition}")
    return found


async def _fetch(connection: Connection, reader: PartitionReader, topic_id: bytes) -> tuple[list[FetchedRecord], int]:
    """Some records from ``reader.next_offset`` on, and the offset after them."""
    at_most = fetch.FIRST_VERSION_WITH_TOPIC_IDS - 1 if topic_id == NULL_UUID else None
    request = fetch.FetchRequest(
        topic=reader.topic,
        topic_id=topic_id,
        partition=reader.partition,
        offset=reader.next_offset,
        max_wait_ms=round(_FETCH_WAIT_S * 1000),
        max_bytes=_FETCH_MAX_BYTES,
    )
    answer = await connection.exchange(fetch, request, version=connection.version_of(fetch, at_most=at_most))
    what = f"fetch {reader.topic}/{reader.partition}"
    check_code(answer.error_code, None, what)
    records: list[FetchedRecord] = []
    next_offset = reader.next_offset
    for fetched in answer.partitions:
        if fetched.error_code == _OFFSET_OUT_OF_RANGE:
            earliest = await _ask_offsets(connection, reader.topic, [reader.partition], EARLIEST)
            if reader.next_offset < earliest[reader.partition]:
                next_offset = earliest[reader.partition]
                continue
        check_code(fetched.error_code, None, what)
        reader.high_watermark = fetched.high_watermark
        for batch in decode_batches(fetched.records):
            records.extend(_records_of(batch, reader))
            next_offset = max(next_offset, batch.next_offset)
    return records, next_offset


def _records_of(batch: DecodedBatch, reader: PartitionReader) -> list[FetchedRecord]:
    if batch.is_control:
        return []  # a transaction's end, not a record
    # A Fetch answers with whole batches: the first may begin before the offset asked for.
    return [
        FetchedRecord(
            topic=reader.topic,
            partition=reader.partition,
            offset=record.offset,
            timestamp_ms=record.timestamp_ms,
            key=record.key,
            value=record.value,
            headers=record.headers,
        )
        for record in batch.records
        if record.offset >= reader.next_offset
    ]
