"""The files that a Kafka node reads: its properties, the configuration of its logging; and the ports they name.

Owns: what a node is configured with, and why. Refuses to know: processes.

Invariant: a directory's cluster id never changes.
"""

import os
import random
import socket
import uuid
from base64 import urlsafe_b64encode
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TypeAlias

from collector.devtools.kafka_install import KafkaUnavailable
from collector.devtools.kafka_release import KafkaRelease
from collector.devtools.kafka_sasl import BrokerSasl, sasl_properties

__all__ = [
    "SESSION_TIMEOUT_MS",
    "BrokerTls",
    "NodeProperties",
    "Ports",
    "claim_port",
    "cluster_id",
    "data_directories",
    "logging_option",
    "node_properties",
    "prepare",
    "write_properties",
]

#: Of ``server.properties``: the same for every node, or made from a node's number, which counts from 1.
NodeProperties: TypeAlias = Mapping[str, str] | Callable[[int], Mapping[str, str]]

#: A broker that was killed may come back only when its old session is over: with Kafka's own 9 s, starting again
#: after a crash took 10 s. Longer than the 3 s for which tests stop a broker.
SESSION_TIMEOUT_MS = 4000

#: Below what Linux gives to outgoing connections and to listeners on port 0 (32768 and up): one of those took a node's
#: port in the seconds between our choice and the JVM's bind, and would while a node is down.
FREE_PORTS = (16384, 32768)

_LOG4J_2 = """<?xml version="1.0" encoding="UTF-8"?>
<Configuration status="ERROR">
  <Appenders>
    <Console name="out" target="SYSTEM_OUT">
      <PatternLayout pattern="%d{ISO8601} %p %c{1} %m%n%throwable{short}"/>
    </Console>
  </Appenders>
  <Loggers>
    <Logger name="kafka.server.KafkaRaftServer" level="INFO"/>
    <Root level="WARN"><AppenderRef ref="out"/></Root>
  </Loggers>
</Configuration>
"""

_LOG4J_1 = """log4j.rootLogger=WARN, out
log4j.appender.out=org.apache.log4j.ConsoleAppender
log4j.appender.out.layout=org.apache.log4j.PatternLayout
log4j.appender.out.layout.ConversionPattern=%d{ISO8601} %p %c{1} %m%n
log4j.logger.kafka.server.KafkaServer=INFO
log4j.logger.kafka.server.KafkaRaftServer=INFO
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerTls:
    """A TLS listener beside the plain one. PEM files; the key is PKCS#8 and unencrypted."""

    certificate: Path
    """The broker's certificate chain."""
    key: Path
    authorities: Path
    """Whose client certificates it trusts."""
    client_auth: bool = True
    """Whether a client must show one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ports:
    """Where one node listens."""

    plain: int
    controller: int
    tls: int
    sasl: int
    sasl_tls: int


def cluster_id(directory: Path) -> str:
    """Kafka's own kind of id: 16 bytes in URL-safe base64; kept, or the nodes refuse each other.

    One in 64 begins with a dash, which Kafka's tools take for an option: Kafka's own ids never do.
    """
    file = directory / "cluster-id"
    kept = file.read_text().strip() if file.exists() else "-"
    while kept.startswith("-"):
        kept = urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
    file.write_text(kept)
    return kept


def claim_port(port: int) -> int:
    """Return a port that is free now: the one asked for, or any that the kernel gives to nobody by itself.

    Raises:
        KafkaUnavailable: It is taken.
    """
    if port:
        try:
            return _bind(port)
        except OSError as error:
            raise KafkaUnavailable(
                f"port {port} for Apache Kafka is taken ({os.strerror(error.errno or 0)}); "
                "choose another with --kafka-port, or use --broker mock"
            ) from error
    for _ in range(100):
        try:
            return _bind(random.randrange(*FREE_PORTS))
        except OSError:
            continue
    return _bind(0)


def _bind(port: int) -> int:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(("127.0.0.1", port))
        return int(probe.getsockname()[1])


def prepare(directory: Path) -> Path:
    """Make a cluster's directory, with the files that say how its JVMs log: to their output, warnings only."""
    directory = directory.absolute()
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "log4j2.xml").write_text(_LOG4J_2)
    (directory / "log4j.properties").write_text(_LOG4J_1)
    return directory


def logging_option(release: KafkaRelease, directory: Path) -> str:
    """The JVM's option that leads to the file that `prepare` made for it."""
    if release.log4j2:
        return f"-Dlog4j2.configurationFile={directory / 'log4j2.xml'}"
    return f"-Dlog4j.configuration=file:{directory / 'log4j.properties'}"


def node_properties(
    directory: Path,
    number: int,
    chosen: Sequence[Ports],
    *,
    tls: BrokerTls | None = None,
    sasl: BrokerSasl | None = None,
    zookeeper: str | None = None,
    extra: NodeProperties = MappingProxyType({}),
) -> dict[str, str]:
    """Make the properties of node ``number``; ``extra`` has the last word.

    ``zookeeper`` is the address of the one that keeps the metadata; without one the nodes do, as a KRaft quorum.
    """
    own = chosen[number - 1]
    listeners = [f"PLAINTEXT://127.0.0.1:{own.plain}"]
    copies = str(min(3, len(chosen)))
    rows = _in_quorum(number, chosen) if zookeeper is None else _in_zookeeper(number, zookeeper)
    rows |= {
        "inter.broker.listener.name": "PLAINTEXT",
        "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SSL:SSL,"
        "SASL_PLAINTEXT:SASL_PLAINTEXT,SASL_SSL:SASL_SSL",
        "log.dirs": str(directory / f"node-{number}"),
        "auto.create.topics.enable": "false",
        "default.replication.factor": copies,
        "min.insync.replicas": "2" if len(chosen) >= 3 else "1",
        "offsets.topic.num.partitions": "1",
        "offsets.topic.replication.factor": copies,
        "transaction.state.log.num.partitions": "1",
        "transaction.state.log.replication.factor": copies,
        "transaction.state.log.min.isr": "1",
        "share.coordinator.state.topic.num.partitions": "1",
        "share.coordinator.state.topic.replication.factor": copies,
        "share.coordinator.state.topic.min.isr": "1",
        "group.initial.rebalance.delay.ms": "0",
        "num.network.threads": "2",
        "num.io.threads": "4",
        "num.replica.fetchers": "1",
        "log.segment.bytes": str(64 * 1024 * 1024),
    }
    if tls is not None:
        listeners.append(f"SSL://127.0.0.1:{own.tls}")
        keystore = directory / f"keystore-{number}.pem"
        keystore.write_text(tls.key.read_text() + "\n" + tls.certificate.read_text())
        keystore.chmod(0o600)
        rows |= {
            "ssl.keystore.type": "PEM",
            "ssl.keystore.location": str(keystore),
            "ssl.truststore.type": "PEM",
            "ssl.truststore.location": str(tls.authorities.absolute()),
            "ssl.client.auth": "required" if tls.client_auth else "none",
        }
    if sasl is not None:
        names = ["SASL_PLAINTEXT"] if tls is None else ["SASL_PLAINTEXT", "SASL_SSL"]
        listeners += [f"{name}://127.0.0.1:{port}" for name, port in zip(names, (own.sasl, own.sasl_tls), strict=False)]
        rows |= sasl_properties(sasl, names)
    rows["advertised.listeners"] = ",".join(listeners)
    if zookeeper is None:
        listeners.append(f"CONTROLLER://127.0.0.1:{own.controller}")
    rows["listeners"] = ",".join(listeners)
    return rows | dict(extra(number) if callable(extra) else extra)


def _in_quorum(number: int, chosen: Sequence[Ports]) -> dict[str, str]:
    return {
        "process.roles": "broker,controller",
        "node.id": str(number),
        "controller.quorum.voters": ",".join(f"{n}@127.0.0.1:{p.controller}" for n, p in enumerate(chosen, 1)),
        "controller.listener.names": "CONTROLLER",
        "broker.session.timeout.ms": str(SESSION_TIMEOUT_MS),
        "broker.heartbeat.interval.ms": "1000",
    }


def _in_zookeeper(number: int, address: str) -> dict[str, str]:
    return {
        "broker.id": str(number),
        "zookeeper.connect": address,
        "zookeeper.session.timeout.ms": str(SESSION_TIMEOUT_MS),
    }


def write_properties(file: Path, rows: Mapping[str, str]) -> None:
    """Write a ``.properties`` file."""
    file.write_text("".join(f"{key}={value}\n" for key, value in rows.items()))


def data_directories(rows: Mapping[str, str]) -> tuple[Path, ...]:
    """Where a node with these properties keeps its data."""
    return tuple(Path(name.strip()) for name in rows["log.dirs"].split(","))
