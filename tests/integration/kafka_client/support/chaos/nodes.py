"""A cluster of three nodes that lives in another thread's Trio, and questions to it that share no code with ours.

Owns: crossing from the test's Trio to the cluster's; making and changing topics; waiting until the cluster is whole.
Refuses to know: producers.
"""

import time
import warnings
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path

import trio
from confluent_kafka.admin import AdminClient, NewPartitions
from confluent_kafka.cimpl import NewTopic

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # kafka-python reads its schemas in a way that is deprecated
    from kafka.admin import KafkaAdminClient
    from kafka.protocol.admin import AlterClientQuotasRequest

from collector.devtools.background import hold_open
from collector.devtools.kafka import KafkaCluster, KafkaNode, open_kafka
from collector.devtools.kafka_properties import NodeProperties
from collector.devtools.kafka_release import DEFAULT_RELEASE

__all__ = ["Nodes", "hold_nodes"]

COUNT = 3
WHOLE_WITHIN_S = 60.0


class Nodes:
    """Three nodes of Apache Kafka, driven from any Trio."""

    def __init__(self, cluster: KafkaCluster, token: trio.lowlevel.TrioToken) -> None:
        self.cluster = cluster
        self._token = token
        self._admin: AdminClient | None = None

    def __repr__(self) -> str:
        return f"<Nodes of {self.cluster!r}>"

    @property
    def bootstrap_servers(self) -> str:
        return self.cluster.bootstrap_servers

    @property
    def addresses(self) -> list[str]:
        """``host:port`` of each node."""
        return [node.address for node in self.cluster.nodes]

    def node(self, node_id: int) -> KafkaNode:
        return self.cluster.node(node_id)

    async def kill(self, node_id: int) -> None:
        """SIGKILL, and wait until it is gone."""
        await self._there(partial(self.cluster.kill_node, node_id))

    async def stop(self, node_id: int) -> None:
        """SIGTERM, and wait until it is gone."""
        await self._there(partial(self.cluster.stop_node, node_id))

    async def start(self, node_id: int) -> None:
        """Start one that has ended, and wait until it says that it is started."""
        await self._there(partial(self.cluster.start_node, node_id))

    async def start_all(self, *node_ids: int) -> None:
        """As `start`, together: those that are no quorum without each other."""
        async with trio.open_nursery() as nursery:
            for node_id in node_ids:
                nursery.start_soon(self.start, node_id)

    async def _there(self, call: "partial[object]") -> None:
        await trio.to_thread.run_sync(partial(trio.from_thread.run, call, trio_token=self._token))

    # Blocking: to be called in a thread.

    @property
    def admin(self) -> AdminClient:
        if self._admin is None:
            self._admin = AdminClient({"bootstrap.servers": self.bootstrap_servers, "log_level": 0})
        return self._admin

    def make_topic(self, name: str, partitions: int, settings: dict[str, str] | None = None) -> None:
        """Make a topic on all three nodes."""
        topic = NewTopic(name, num_partitions=partitions, replication_factor=COUNT, config=settings or {})
        self.admin.create_topics([topic])[name].result(30)

    def delete_topic(self, name: str) -> None:
        self.admin.delete_topics([name])[name].result(30)

    def add_partitions(self, name: str, total: int) -> None:
        self.admin.create_partitions([NewPartitions(name, total)])[name].result(30)

    def set_quota(self, client_id: str, bytes_per_s: int | None) -> None:
        """Limit what a client may produce at each node; None: no more."""
        entry = AlterClientQuotasRequest.EntryData
        limit = {"value": float(bytes_per_s), "remove": False} if bytes_per_s else {"value": 0.0, "remove": True}
        request = AlterClientQuotasRequest(
            entries=[
                entry(
                    entity=[entry.EntityData(entity_type="client-id", entity_name=client_id)],
                    ops=[entry.OpData(key="producer_byte_rate", **limit)],
                )
            ],
            validate_only=False,
        )
        admin = KafkaAdminClient(bootstrap_servers=self.bootstrap_servers)
        try:
            answer = admin._manager.run(admin._manager.send, request)  # the one question that it has no method for
        finally:
            admin.close()
        assert [one.error_code for one in answer.entries] == [0], answer

    def leaders(self, name: str) -> dict[int, int]:
        """Partition → node that leads it; -1: nobody."""
        partitions = self.admin.list_topics(name, timeout=10).topics[name].partitions
        return {number: partition.leader for number, partition in partitions.items()}

    def wait_whole(self, topic: str | None = None) -> None:
        """Wait until every node is there and every partition (of ``topic``) is in sync on all of its replicas."""
        give_up = time.monotonic() + WHOLE_WITHIN_S
        while True:
            lacking = self._lacking(topic)
            if not lacking:
                return
            assert time.monotonic() < give_up, f"the cluster does not come back: {lacking}"
            time.sleep(0.1)

    def _lacking(self, topic: str | None) -> str:
        try:
            metadata = self.admin.list_topics(topic, timeout=5) if topic else self.admin.list_topics(timeout=5)
        except Exception as error:  # librdkafka has one class for all
            return str(error)
        if len(metadata.brokers) < COUNT:
            return f"only {len(metadata.brokers)} nodes"
        for name, found in metadata.topics.items():
            for number, partition in found.partitions.items():
                if partition.leader < 0 or len(partition.isrs) < len(partition.replicas):
                    return f"{name}/{number} led by {partition.leader}, in sync on {partition.isrs}"
        return ""


@asynccontextmanager
async def _open(directory: Path, properties: NodeProperties | None, version: str) -> AsyncIterator[Nodes]:
    async with open_kafka(directory, nodes=COUNT, properties=properties, version=version, grace_s=3.0) as cluster:
        yield Nodes(cluster, trio.lowlevel.current_trio_token())


@contextmanager
def hold_nodes(
    directory: Path, properties: NodeProperties | None = None, *, version: str = DEFAULT_RELEASE.version
) -> Iterator[Nodes]:
    """Run three nodes for as long as the block lasts, in a thread of their own."""
    with hold_open(partial(_open, directory, properties, version)) as nodes:
        nodes.wait_whole()
        yield nodes
