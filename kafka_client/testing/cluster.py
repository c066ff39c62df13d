"""A strict Kafka cluster in this process: for tests, on virtual or real time.

Owns: the connections' tasks, and what the parts together are. Refuses to know the client: it speaks Kafka's protocol
over byte streams, in memory (`FakeCluster.connector`) or over TCP on loopback (`FakeCluster.serve_tcp`), and was
written without a look at it.

It checks what librdkafka's mock cluster does not: CRC, batch format, sequences and epochs with exact-range duplicate
detection over the last five batches, acks, message sizes, timestamps, request syntax to the last byte. What a correct
client never does is listed in ``cluster.seen.violations``.

Invariant: on memory streams nothing here waits for anything but virtual time and the client.
"""

import errno
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager

import trio

from kafka_client.testing.batches import Rules
from kafka_client.testing.connection import Connection
from kafka_client.testing.faults import Faults
from kafka_client.testing.link import open_link
from kafka_client.testing.messages import VERSIONS_OF_KAFKA_4_1, Api
from kafka_client.testing.partition_log import StoredRecord
from kafka_client.testing.parts import PORT, FakeBroker, FakeTopic
from kafka_client.testing.sasl import FakeSasl
from kafka_client.testing.seen import Seen
from kafka_client.testing.topology import Topology

__all__ = ["FakeCluster", "open_fake_cluster"]

#: message.max.bytes of a broker that nobody configured.
MESSAGE_MAX_BYTES = 1024 * 1024 + 12
#: About what the kernel buffers for a loopback connection.
SOCKET_BUFFER_BYTES = 256 * 1024


class FakeCluster(Topology):
    """The cluster; made by `open_fake_cluster`.

    Attributes:
        faults: What shall go wrong; see `kafka_client.testing.faults`.
        seen: What the brokers saw; see `kafka_client.testing.seen`.
        sasl: Who may log in; None: everybody, without SASL.

    Its brokers and topics, and every way to change them: `kafka_client.testing.topology.Topology`.
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
        max_idle_s: float,
        clock: Callable[[], float],
        sasl: FakeSasl | None,
    ) -> None:
        super().__init__(brokers)
        self.faults = Faults()
        self.seen = Seen()
        self.versions = dict(versions)
        self.message_max_bytes = message_max_bytes
        self.auto_create_topics = auto_create_topics
        self.strict_acks = strict_acks
        self.max_idle_s = max_idle_s
        self.sasl = sasl
        self.cluster_id = "fake-cluster"
        self._nursery = nursery
        self._clock = clock
        self._socket_buffer_bytes = socket_buffer_bytes
        self._next_producer_id = 1000
        self._handed_out: set[int] = set()

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
            self.seen.connections_faulted_total += 1
            await trio.sleep_forever()
        if self._refuses(broker):
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

    def _refuses(self, broker: FakeBroker) -> bool:
        if broker.running and self.faults.connect_refused(broker.number):
            self.seen.connections_faulted_total += 1
            return True
        return not broker.running

    def _accept_tcp(self, broker: FakeBroker) -> Callable[[trio.SocketStream], Awaitable[None]]:
        async def serve(stream: trio.SocketStream) -> None:
            if self._refuses(broker):
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

    @property
    def connections_opened_total(self) -> int:
        """How many connections were ever accepted."""
        return self.seen.connections_opened_total

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

    async def wait_records(self, topic: str, count: int) -> list[StoredRecord]:
        """Wait until the topic has at least so many records; returns them."""
        await self.wait_until(lambda: topic in self.topics and len(self.records(topic)) >= count)
        return self.records(topic)

    # For the brokers

    def new_producer_id(self) -> int:
        """A producer id never given before."""
        self._next_producer_id += 1
        return self._next_producer_id - 1

    def hand_out(self, producer_id: int) -> None:
        """Note one that a fault gave."""
        self._handed_out.add(producer_id)

    def handed_out(self, producer_id: int) -> bool:
        """Whether `new_producer_id` or a fault gave it."""
        return 1000 <= producer_id < self._next_producer_id or producer_id in self._handed_out

    def rules_of(self, topic: FakeTopic) -> Rules:
        """What a batch for the topic must be like now."""
        return topic.configs.rules(now_ms=round(self._clock() * 1000), message_max_bytes=self.message_max_bytes)


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
    max_idle_s: float = math.inf,
    clock: Callable[[], float] = time.time,
    sasl: FakeSasl | None = None,
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
        max_idle_s: Close a connection on which nothing came for so long (``connections.max.idle.ms``, 600 s by default
            on Apache Kafka; here never, so that a test on virtual time need not mind).
        clock: Wall clock, seconds since the epoch, for the window of timestamps.
        sasl: Users and sessions; with it every client has to authenticate.

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
            max_idle_s=max_idle_s,
            clock=clock,
            sasl=sasl,
        )
        for name, partitions in ({"events": 12} if topics is None else topics).items():
            cluster.create_topic(name, partitions)
        if listen:
            await cluster.serve_tcp()
        yield cluster
        nursery.cancel_scope.cancel(reason="the fake cluster's block has ended")
