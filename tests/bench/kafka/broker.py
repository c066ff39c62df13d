"""The broker of a benchmark: a real Apache Kafka on a core of its own, with a topic that cannot fill the disk.

Owns: its pinning, its TLS listener, the topic. Refuses to know: who produces to it.
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import trio
import trustme
from cryptography.hazmat.primitives import serialization

from collector.devtools.kafka import BrokerTls, KafkaCluster, open_kafka
from kafka_client import ProducerConfig
from kafka_client.admin import NewTopic, open_admin
from tests.bench.machine import Cores

__all__ = ["PARTITIONS", "TOPIC", "Broker", "open_broker"]

TOPIC = "bench"
PARTITIONS = 6

#: A run writes up to 200 MB a second. Kept are one closed segment a partition and what came since the last look.
_PROPERTIES = {
    "log.segment.bytes": str(64 * 1024 * 1024),
    "log.retention.bytes": str(64 * 1024 * 1024),
    "log.retention.check.interval.ms": "1000",
    "log.segment.delete.delay.ms": "500",
    "log.initial.task.delay.ms": "1000",
    "transaction.partition.verification.enable": "false",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Broker:
    """A running broker."""

    cluster: KafkaCluster
    ca_file: Path

    @property
    def pid(self) -> int:
        """Of its JVM."""
        return self.cluster.nodes[0].child.pid


@asynccontextmanager
async def open_broker(directory: Path, cores: Cores) -> AsyncIterator[Broker]:
    """Run it, and pin this process to its core too: the JVM inherits that, and this process has little to do.

    On cancellation: the JVM is ended.
    """
    os.sched_setaffinity(0, {cores.broker})
    authority = trustme.CA()
    ca_file = directory / "ca.pem"
    authority.cert_pem.write_to_path(str(ca_file))
    tls = _listener(directory, authority, ca_file)
    async with open_kafka(directory / "kafka", tls=tls, properties=_PROPERTIES) as cluster:
        config = ProducerConfig(bootstrap_servers=cluster.bootstrap_servers)
        async with open_admin(config) as admin:
            await admin.create_topics([NewTopic(name=TOPIC, partitions=PARTITIONS)])
        await trio.lowlevel.checkpoint()
        yield Broker(cluster=cluster, ca_file=ca_file)


def _listener(directory: Path, authority: trustme.CA, ca_file: Path) -> BrokerTls:
    issued = authority.issue_cert("127.0.0.1", "localhost")
    certificate, key = directory / "broker.pem", directory / "broker-key.pem"
    certificate.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
    private = serialization.load_pem_private_key(issued.private_key_pem.bytes(), None)
    key.write_bytes(
        private.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    return BrokerTls(certificate=certificate, key=key, authorities=ca_file, client_auth=False)
