"""The broker of a benchmark: a real Apache Kafka, not on the core that is measured; its topic cannot fill the disk.

Owns: its pinning, its TLS listener and the certificates, the topic and how far it has been written. Refuses to know:
who produces to it.
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import trio
import trustme
from cryptography.hazmat.primitives import serialization

from collector.devtools.kafka import BrokerTls, KafkaCluster, open_kafka
from collector.devtools.mock import open_mock
from kafka_client import ProducerConfig
from kafka_client.admin import Admin, NewTopic, open_admin
from tests.bench.machine import Cores

__all__ = ["BAD_TOPIC", "PARTITIONS", "TOPIC", "Broker", "Certificates", "make_certificates", "open_broker"]

TOPIC, BAD_TOPIC = "bench", "bench-bad"
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
class Certificates:
    """PEM files of one authority; the keys are PKCS#8 and unencrypted."""

    ca_file: Path
    server: Path
    server_key: Path
    client: Path
    client_key: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Broker:
    """A running broker."""

    bootstrap_servers: str
    tls_bootstrap_servers: str
    """Empty: it has no such listener."""
    pid: int
    certificates: Certificates
    cluster: KafkaCluster | None
    """None: it is the mock."""
    admin: Admin = field(repr=False)

    async def written(self) -> int:
        """Records that were ever appended to the topic. On cancellation: nothing happens."""
        return sum((await self.admin.list_offsets(TOPIC)).values())

    def pause(self) -> None:
        """Stop it where it stands; the mock goes on."""
        if self.cluster is not None:
            self.cluster.pause()

    def resume(self) -> None:
        """Let it go on."""
        if self.cluster is not None:
            self.cluster.resume()


@asynccontextmanager
async def open_broker(
    directory: Path, cores: Cores, *, client_auth: bool = False, mock: bool = False
) -> AsyncIterator[Broker]:
    """Run it, and pin this process to its core too: the JVM inherits that, and this process has little to do.

    Args:
        client_auth: its TLS listener wants a certificate of the client's.
        mock: take librdkafka's mock cluster, for a trial of the program: its figures mean nothing.

    On cancellation: the broker is ended.
    """
    os.sched_setaffinity(0, {cores.rest})
    certificates = make_certificates(directory)
    if mock:
        async with open_mock({TOPIC: PARTITIONS, BAD_TOPIC: 1}) as mocked:
            async with open_admin(ProducerConfig(bootstrap_servers=mocked.bootstrap_servers)) as admin:
                yield Broker(
                    bootstrap_servers=mocked.bootstrap_servers,
                    tls_bootstrap_servers="",
                    pid=mocked.child.pid,
                    certificates=certificates,
                    cluster=None,
                    admin=admin,
                )
        return
    tls = BrokerTls(
        certificate=certificates.server,
        key=certificates.server_key,
        authorities=certificates.ca_file,
        client_auth=client_auth,
    )
    async with open_kafka(directory / "kafka", tls=tls, properties=_PROPERTIES) as cluster:
        async with open_admin(ProducerConfig(bootstrap_servers=cluster.bootstrap_servers)) as admin:
            await admin.create_topics(
                [NewTopic(name=TOPIC, partitions=PARTITIONS), NewTopic(name=BAD_TOPIC, partitions=1)]
            )
            await trio.lowlevel.checkpoint()
            yield Broker(
                bootstrap_servers=cluster.bootstrap_servers,
                tls_bootstrap_servers=cluster.tls_bootstrap_servers,
                pid=cluster.nodes[0].child.pid,
                certificates=certificates,
                cluster=cluster,
                admin=admin,
            )


def make_certificates(directory: Path) -> Certificates:
    """Issue a certificate to each side, from an authority that is made for it."""
    authority = trustme.CA()
    made = Certificates(
        ca_file=directory / "ca.pem",
        server=directory / "server.pem",
        server_key=directory / "server-key.pem",
        client=directory / "client.pem",
        client_key=directory / "client-key.pem",
    )
    authority.cert_pem.write_to_path(str(made.ca_file))
    for names, certificate, key in (
        (("127.0.0.1", "localhost"), made.server, made.server_key),
        (("collector.example",), made.client, made.client_key),
    ):
        issued = authority.issue_cert(*names)
        certificate.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
        private = serialization.load_pem_private_key(issued.private_key_pem.bytes(), None)
        key.write_bytes(
            private.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
    return made
