"""A strict Kafka cluster in this process: for tests, on virtual or real time.

Owns: brokers, topics, leaders, the connections' tasks. Refuses to know the client: it speaks Kafka's protocol over byte
streams, in memory (`FakeCluster.connector`) or over TCP on loopback (`FakeCluster.serve_tcp`), and was written without
a look at it.

It checks what librdkafka's mock cluster does not: CRC, batch format, sequences and epochs with exact-range duplicate
detection over the last five batches, acks, message sizes, timestamps, request syntax to the last byte. What a correct
client never does is listed in ``cluster.seen.violations``.

Invariant: on memory streams nothing here waits for anything but virtual time and the client.
"""

import errno
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager

import trio

from kafka_client.testing.connection import Connection
from kafka_client.testing.faults import Faults
from kafka_client.testing.link import open_link
from kafka_client.testing.messages import VERSIONS_OF_KAFKA_4_1, Api
from kafka_client.testing.partition_log import StoredRecord
from kafka_client.testing.parts import PORT, FakeBroker, FakePartition, FakeTopic
from kafka_client.testing.seen import Seen

__all__ = ["FakeCluster", "open_fake_cluster"]

#: message.max.bytes of a broker that nobody configured.
MESSAGE_MAX_BYTES = 1024 * 1024 + 12
#: About what the kernel buffers for a loopback connection.
SOCKET_BUFFER_BYTES = 256 * 1024
#: message.timestamp.after.max.ms since Kafka 4.0.
TIMESTAMP_AFTER_MAX_MS = 3_600_000


class FakeCluster:
    """The cluster; made by `open_fake_cluster`.

    Attributes:
        faults: What shall go wrong; see `kafka_client.testing.faults`.
        seen: What the brokers saw; see `kafka_client.testing.seen`.
        brokers: By number, from 1.
        topics: By name.
    """

    def __init__(
        self,
        nursery: trio.Nursery,  # the cluster's own, opened by open_fake_cluster: connections live in it
        *,
        brokers: int,
        versions: Mapping[Api, tuple[int, int]],
        message_max_bytes: int,
        socket_buffer_bytes: int,
        auto_create_topics: int,
        strict_acks: bool,
        clock: Callable[[], float],
    ) -> None:
        self.faults = Faults()
        self.seen = Seen()
        self.brokers = {number: FakeBroker(number) for number in range(1, brokers + 1)}
        self.topics: dict[str, FakeTopic] = {}
        self.versions = dict(versions)
        self.message_max_bytes = message_max_bytes
        self.auto_create_topics = auto_create_topics
        self.strict_acks = strict_acks
        self.cluster_id = "fake-cluster"
        self._nursery = nursery
        self._clock = clock
        self._socket_buffer_bytes = socket_buffer_bytes
        self._changed = trio.Event()
        self._next_producer_id = 1000

    def __repr__(self) -> str:
        records = sum(partition.log.end_offset for topic in self.topics.values() for partition in topic.partitions)
        return (
            f"<FakeCluster brokers={len(self.brokers)} topics={sorted(self.topics)} records={records} "
            f"connections={self.connections_open}>"
        )

    # Connecting

    @property
    def bootstrap_servers(self) -> list[str]:
        """Addresses that `connector` resolves."""
        return [f"{broker.host}:{PORT}" for broker in self.brokers.values()]

    @property
    def tcp_bootstrap_servers(self) -> list[str]:
        """Addresses on loopback, once `serve_tcp` has run."""
        return [f"{host}:{port}" for broker in self.brokers.values() for host, port in [broker.address(tcp=True)]]

    async def connector(self, host: str, port: int) -> trio.abc.HalfCloseableStream:
        """Connect to a broker in memory; pass this method to ``open_producer(connector=…)``. Raises OSError."""
        await trio.lowlevel.checkpoint()
        for broker in self.brokers.values():
            if (broker.host, PORT) == (host, port):
                break
        else:
            raise OSError(errno.EHOSTUNREACH, f"no fake broker at {host}:{port}")
        if self.faults.connect_black_holed(broker.number):
            await trio.sleep_forever()
        if not broker.running or self.faults.connect_refused(broker.number):
            self.seen.connections_refused_total += 1
            self.changed()
            raise ConnectionRefusedError(errno.ECONNREFUSED, f"fake broker {broker.number} refuses connections")
        ours, theirs = open_link(self._socket_buffer_bytes)
        self._nursery.start_soon(self._open(broker, theirs, tcp=False).serve)
        return ours

    def _open(self, broker: FakeBroker, stream: trio.abc.HalfCloseableStream, *, tcp: bool) -> Connection:
        self.seen.connections_opened_total += 1
        connection = Connection(self, broker, stream, self.seen.connections_opened_total, tcp=tcp)
        self.changed()
        return connection

    def _accept_tcp(self, broker: FakeBroker) -> Callable[[trio.SocketStream], Awaitable[None]]:
        async def serve(stream: trio.SocketStream) -> None:
            if not broker.running or self.faults.connect_refused(broker.number):
                self.seen.connections_refused_total += 1
                await trio.aclose_forcefully(stream)
            else:
                await self._open(broker, stream, tcp=True).serve()

        return serve

    async def serve_tcp(self) -> list[str]:
        """Listen on loopback, one free port a broker, until the cluster ends. Returns `tcp_bootstrap_servers`.

        For clients that bring their own sockets; real time only. A stopped broker still accepts there and closes at
        once.
        """
        await trio.lowlevel.checkpoint()
        for broker in self.brokers.values():
            if broker.tcp_address is None:
                listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
                broker.tcp_address = listeners[0].socket.getsockname()[:2]
                self._nursery.start_soon(trio.serve_listeners, self._accept_tcp(broker), listeners)
        return self.tcp_bootstrap_servers

    # Brokers

    @property
    def connections_open(self) -> int:
        """How many connections are open now."""
        return sum(len(broker.connections) for broker in self.brokers.values())

    @property
    def connections_opened_total(self) -> int:
        """How many connections were ever accepted."""
        return self.seen.connections_opened_total

    def close_connections(self, broker: int | None = None, *, reset: bool = False) -> None:
        """Close the connections of one broker, or of all; answers not yet written are lost."""
        for each in self.brokers.values():
            if broker in (None, each.number):
                for connection in list(each.connections):
                    connection.close(reset=reset)

    def stop_broker(self, number: int, *, elect: bool = True) -> None:
        """Stop it: its connections break, new ones are refused.

        With ``elect`` another running replica takes over what it led; where there is none the partition has no leader.
        """
        broker = self.brokers[number]
        broker.running = False
        broker.resume()
        self.close_connections(number, reset=True)
        for partition in self._partitions() if elect else ():
            if partition.leader == number:
                alive = (replica for replica in partition.replicas if self.brokers[replica].running)
                partition.lead(next(alive, None))
        self.changed()

    def start_broker(self, number: int) -> None:
        """Start it again; it leads what has had no leader and is replicated on it."""
        self.brokers[number].running = True
        for partition in self._partitions():
            if partition.leader is None and number in partition.replicas:
                partition.lead(number)
        self.changed()

    def pause_broker(self, number: int, *, after_bytes: int = 0) -> None:
        """Stop it as by SIGSTOP: connections stay open, it reads so many bytes more, and writes nothing."""
        self.brokers[number].pause(after_bytes)

    def resume_broker(self, number: int) -> None:
        """Let a paused broker go on."""
        self.brokers[number].resume()

    # Topics

    def create_topic(self, name: str, partitions: int, *, replicas: int | None = None) -> FakeTopic:
        """Create a topic with a fresh id and empty logs; leaders go round the brokers."""
        if name in self.topics:
            raise ValueError(f"topic {name!r} exists")
        numbers = list(self.brokers)
        factor = min(3, len(numbers)) if replicas is None else replicas
        self.topics[name] = FakeTopic(
            name,
            [
                FakePartition(name, index, [numbers[(index + step) % len(numbers)] for step in range(factor)])
                for index in range(partitions)
            ],
        )
        self.changed()
        return self.topics[name]

    def delete_topic(self, name: str) -> None:
        """Delete it with its records; created again it has another id (KIP-516)."""
        del self.topics[name]
        self.changed()

    def partition(self, topic: str, index: int) -> FakePartition:
        """One partition."""
        return self.topics[topic].partitions[index]

    def move_leader(self, topic: str, index: int, leader: int | None) -> None:
        """Elect another leader, or none; the log goes with it."""
        self.partition(topic, index).lead(leader)
        self.changed()

    def topic_by_id(self, topic_id: uuid.UUID | None) -> FakeTopic | None:
        """The topic with this id."""
        return next((topic for topic in self.topics.values() if topic.topic_id == topic_id), None)

    def _partitions(self) -> list[FakePartition]:
        return [partition for topic in self.topics.values() for partition in topic.partitions]

    # What is in the logs

    def log(self, topic: str, partition: int) -> list[StoredRecord]:
        """One partition's records, in order."""
        return self.partition(topic, partition).log.records

    def records(self, topic: str) -> list[StoredRecord]:
        """A topic's records, partition after partition."""
        return [record for partition in self.topics[topic].partitions for record in partition.log.records]

    def values(self, topic: str) -> list[bytes | None]:
        """A topic's values, partition after partition."""
        return [record.value for record in self.records(topic)]

    def attempts_of(self, value: bytes | None) -> int:
        """How many Produce requests carried a record with this value."""
        return self.seen.attempts_of(value)

    async def wait_until(self, condition: Callable[[], object]) -> None:
        """Wait until ``condition()`` is true; it is asked again whenever something happened in the cluster."""
        await trio.lowlevel.checkpoint()
        while not condition():
            await self._changed.wait()

    async def wait_records(self, topic: str, count: int) -> list[StoredRecord]:
        """Wait until the topic has at least so many records; returns them."""
        await self.wait_until(lambda: topic in self.topics and len(self.records(topic)) >= count)
        return self.records(topic)

    async def wait_changed(self) -> None:
        """Wait until anything happens in the cluster."""
        await self._changed.wait()

    # For the brokers

    def changed(self) -> None:
        """Wake who waits for something to happen."""
        self._changed.set()
        self._changed = trio.Event()

    def new_producer_id(self) -> int:
        """A producer id never given before."""
        self._next_producer_id += 1
        return self._next_producer_id - 1

    def handed_out(self, producer_id: int) -> bool:
        """Whether `new_producer_id` gave it."""
        return 1000 <= producer_id < self._next_producer_id

    def timestamp_window_ms(self) -> tuple[int, int]:
        """What CreateTime may be now."""
        return 0, round(self._clock() * 1000) + TIMESTAMP_AFTER_MAX_MS


@asynccontextmanager
async def open_fake_cluster(
    *,
    brokers: int = 1,
    topics: Mapping[str, int] | None = None,
    listen: bool = False,
    versions: Mapping[Api, tuple[int, int]] | None = None,
    message_max_bytes: int = MESSAGE_MAX_BYTES,
    socket_buffer_bytes: int = SOCKET_BUFFER_BYTES,
    auto_create_topics: int = 0,
    strict_acks: bool = True,
    clock: Callable[[], float] = time.time,
) -> AsyncIterator[FakeCluster]:
    """Run a fake cluster for the time of the block.

    Args:
        brokers: How many, numbered from 1, at ``fake-1:9092``, …
        topics: Name → partitions; ``{"events": 12}`` by default.
        listen: Listen on loopback as well (`FakeCluster.serve_tcp`).
        versions: API → (lowest, highest) to offer instead of Kafka 4.1's, the whole table:
            ``{**VERSIONS_OF_KAFKA_4_1, Api.PRODUCE: (3, 9)}`` caps one.
        message_max_bytes: A larger batch is MESSAGE_TOO_LARGE.
        socket_buffer_bytes: What each direction of an in-memory connection holds before a sender blocks.
        auto_create_topics: Create an unknown topic that Metadata asks for with so many partitions; 0: do not.
        strict_acks: Refuse acks 0 and 1, which an idempotent producer never sends.
        clock: Wall clock, seconds since the epoch, for the window of timestamps.

    On cancellation: every connection is closed.
    """
    async with trio.open_nursery() as nursery:
        cluster = FakeCluster(
            nursery,
            brokers=brokers,
            versions=VERSIONS_OF_KAFKA_4_1 if versions is None else versions,
            message_max_bytes=message_max_bytes,
            socket_buffer_bytes=socket_buffer_bytes,
            auto_create_topics=auto_create_topics,
            strict_acks=strict_acks,
            clock=clock,
        )
        for name, partitions in ({"events": 12} if topics is None else topics).items():
            cluster.create_topic(name, partitions)
        if listen:
            await cluster.serve_tcp()
        yield cluster
        nursery.cancel_scope.cancel(reason="the fake cluster's block has ended")
