"""A real Apache Kafka in child processes: what ``collector dev`` runs and what the integration tests talk to.

Owns: a cluster: its directory, the start of its nodes, their end, and single nodes that end and come back in between.
Refuses to know: topics and records (`kafka_client.admin` makes those), how the jars came to be here (`kafka_install`),
what a node is configured with (`kafka_properties`).

Invariant: what `open_kafka` yields answers Metadata with every node in it; when its block is left, every JVM has ended.

Why it looks as it does, all measured on two shared cores: one combined broker and controller a node, client compilation
only, the serial collector: listening after 1.7 s and 205 MB instead of 4 s and 400 MB. The quorum is the static one,
since a dynamic quorum writes the controller's port into its log, and our ports change with every start of a cluster.
The internal topics have one partition instead of fifty. Everything it logs goes to ``kafka.log`` in its directory.
"""

import math
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import trio

from collector.devtools.children import ChildFailed, bare_error
from collector.devtools.kafka_install import KafkaInstall, ShowStep, install_kafka
from collector.devtools.kafka_node import KafkaNode, format_storage
from collector.devtools.kafka_properties import (
    BrokerTls,
    NodeProperties,
    Ports,
    claim_port,
    cluster_id,
    node_properties,
    prepare,
)
from collector.devtools.kafka_release import DEFAULT_RELEASE
from collector.devtools.kafka_sasl import BrokerSasl, scram_arguments
from collector.devtools.zookeeper import open_zookeeper

__all__ = ["BrokerSasl", "BrokerTls", "KafkaCluster", "KafkaNode", "open_kafka"]


@dataclass(frozen=True, slots=True, kw_only=True)
class KafkaCluster:
    """A running cluster."""

    directory: Path
    nodes: tuple[KafkaNode, ...]
    _nursery: trio.Nursery = field(repr=False)
    _failed: "tuple[trio.MemorySendChannel[ChildFailed], trio.MemoryReceiveChannel[ChildFailed]]" = field(repr=False)

    @property
    def bootstrap_servers(self) -> str:
        """``h:p,h:p`` of the plain listeners."""
        return ",".join(node.address for node in self.nodes)

    @property
    def tls_bootstrap_servers(self) -> str:
        """``h:p,h:p`` of the TLS listeners."""
        return ",".join(node.tls_address for node in self.nodes if node.tls_address is not None)

    def __repr__(self) -> str:
        return f"<KafkaCluster {self.bootstrap_servers} in {self.directory}>"

    def node(self, node_id: int) -> KafkaNode:
        """The node of this number; they count from 1."""
        return self.nodes[node_id - 1]

    def pause(self) -> None:
        """Stop every node where it stands (SIGSTOP)."""
        for node in self.nodes:
            node.child.pause()

    def resume(self) -> None:
        """Let every node go on (SIGCONT)."""
        for node in self.nodes:
            node.child.resume()

    async def kill_node(self, node_id: int) -> None:
        """SIGKILL a node, and return when it is gone. On cancellation: it ends all the same."""
        await self.node(node_id).kill()

    async def stop_node(self, node_id: int) -> None:
        """End a node in good order (SIGTERM), and return when it is gone. On cancellation: it is ending."""
        await self.node(node_id).stop()

    async def start_node(self, node_id: int) -> None:
        """Start a node that has ended, on the ports and data that it had, and return when it says that it is started.

        One that was killed is let in only when its old session is over, up to 4 s later.

        Raises:
            KafkaUnavailable: It does not start.

        On cancellation: it is ended.
        """
        await self.node(node_id).start(self._nursery, self._failed[0])

    async def wait_ended(self) -> ChildFailed:
        """Wait until some node has ended that nobody asked to, and return the error that says so.

        On cancellation: nothing happens.
        """
        return await self._failed[1].receive()


@asynccontextmanager
async def open_kafka(
    directory: Path,
    *,
    nodes: int = 1,
    ports: Sequence[int] = (),
    tls: BrokerTls | None = None,
    sasl: BrokerSasl | None = None,
    properties: NodeProperties | None = None,
    show_download: ShowStep | None = None,
    version: str = DEFAULT_RELEASE.version,
    install: KafkaInstall | None = None,
    grace_s: float = 10.0,
) -> AsyncIterator[KafkaCluster]:
    """Run Apache Kafka for as long as the block lasts.

    Args:
        directory: Where its data stay between starts; made if missing. One cluster at a time.
        nodes: How many, each broker and controller; the same number at every start of a directory.
        ports: Of the plain listeners, one a node; 0 or absent takes any free one.
        tls: Adds a TLS listener to each node.
        sasl: Adds a SASL listener to each node, and with ``tls`` another over TLS. Its users are made with the
            directory, by Kafka 3.5 or later.
        properties: More of ``server.properties``, the same for every node, or a function of its number.
        show_download: See `install_kafka`.
        version: Which release, one of `RELEASES`; the same at every start of a directory. One that keeps its metadata
            in ZooKeeper gets one.
        install: What to run instead of what `install_kafka` finds or fetches.
        grace_s: What each node gets between SIGTERM and SIGKILL. One node needs 0.3 s; of several the last ones
            wait in vain for a quorum, and lose nothing by being killed.

    Raises:
        KafkaUnavailable: It cannot be fetched or started; one line that names ``--broker mock``.

    On cancellation: as at the end of the block, the JVMs are ended (SIGTERM, ``grace_s``, SIGKILL).
    """
    install = install or await install_kafka(show_download, version=version)
    directory = prepare(directory)
    wanted = [*ports, *[0] * (nodes - len(ports))]
    chosen = [
        Ports(
            plain=claim_port(port),
            controller=claim_port(0),
            tls=claim_port(0),
            sasl=claim_port(0),
            sasl_tls=claim_port(0),
        )
        for port in wanted
    ]
    async with AsyncExitStack() as stack:
        zookeeper = None
        if install.release.zookeeper:
            zookeeper = await stack.enter_async_context(open_zookeeper(install, directory))
        made = [
            KafkaNode(
                node_id=number,
                address=f"127.0.0.1:{port.plain}",
                tls_address=f"127.0.0.1:{port.tls}" if tls else None,
                sasl_address=f"127.0.0.1:{port.sasl}" if sasl else None,
                sasl_tls_address=f"127.0.0.1:{port.sasl_tls}" if sasl and tls else None,
                properties=node_properties(
                    directory, number, chosen, tls=tls, sasl=sasl, zookeeper=zookeeper, extra=properties or {}
                ),
                directory=directory,
                install=install,
                grace_s=grace_s,
            )
            for number, port in enumerate(chosen, 1)
        ]
        yield await stack.enter_async_context(_open_nodes(directory, made, scram_arguments(sasl)))


@asynccontextmanager
async def _open_nodes(directory: Path, nodes: Sequence[KafkaNode], scram: Sequence[str]) -> AsyncIterator[KafkaCluster]:
    """Run the nodes for as long as the block lasts."""
    for node in nodes:
        if not node.install.release.zookeeper:
            await format_storage(node, cluster_id(directory), scram)
    failed = trio.open_memory_channel[ChildFailed](math.inf)  # as many as there are starts: a sender must not wait
    with bare_error():
        async with trio.open_nursery() as nursery:
            cluster = KafkaCluster(directory=directory, nodes=tuple(nodes), _nursery=nursery, _failed=failed)
            async with trio.open_nursery() as starting:
                for node in nodes:
                    starting.start_soon(cluster.start_node, node.node_id)
            try:
                yield cluster
            finally:
                for node in nodes:
                    node.end()
                nursery.cancel_scope.cancel(reason="the cluster is closed")
