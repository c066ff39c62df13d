"""A real Apache Kafka in child processes: what ``collector dev`` runs and what the integration tests talk to.

Owns: a cluster's directory, its properties, the formatting of its storage, its start and end, one JVM a node. Refuses
to know: topics and records (`kafka_client.admin` makes those) and how the jars came to be here (`kafka_install`).

Invariant: what `open_kafka` yields answers Metadata with every node in it; when its block is left, every JVM has ended.

Why it looks as it does, all measured on two shared cores: one combined broker and controller a node, client compilation
only, the serial collector: listening after 1.7 s and 205 MB instead of 4 s and 400 MB. The quorum is the static one,
since a dynamic quorum writes the controller's port into its log, and our ports change with every start. The internal
topics have one partition instead of fifty. Everything it logs goes to ``kafka.log`` in its directory.
"""

import os
import re
import shutil
import signal
import socket
import uuid
from base64 import urlsafe_b64encode
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import trio

from collector.devtools.children import Child, ChildFailed, bare_error, open_child
from collector.devtools.kafka_install import KafkaInstall, KafkaUnavailable, ShowStep, install_kafka

__all__ = ["BrokerTls", "KafkaCluster", "KafkaNode", "open_kafka"]

JVM_OPTIONS = (
    "-Xmx320m",
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",
    "-XX:-UsePerfData",
    "--sun-misc-unsafe-memory-access=allow",
    "--enable-native-access=ALL-UNNAMED",
)

#: A node that has not said that it is started by then never will. Three nodes on a busy machine took 11 s.
START_TIMEOUT_S = 60.0

#: A broker that was killed may come back only when its old session is over: with Kafka's own 9 s, starting again
#: after a crash took 10 s. Longer than the 3 s for which tests stop a broker.
SESSION_TIMEOUT_MS = "4000"

_STARTED = re.compile(r"\[KafkaRaftServer nodeId=\d+\] Kafka Server started")

_LOG4J = """<?xml version="1.0" encoding="UTF-8"?>
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
class KafkaNode:
    """One JVM. ``child.pause()`` is the black hole of the tests: the kernel accepts, nobody answers."""

    node_id: int
    child: Child
    address: str
    tls_address: str | None

    def __repr__(self) -> str:
        return f"<KafkaNode {self.node_id} {self.address} {self.child!r}>"


@dataclass(frozen=True, slots=True, kw_only=True)
class KafkaCluster:
    """A running cluster."""

    directory: Path
    nodes: tuple[KafkaNode, ...]

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

    def pause(self) -> None:
        """Stop every node where it stands (SIGSTOP)."""
        for node in self.nodes:
            node.child.pause()

    def resume(self) -> None:
        """Let every node go on (SIGCONT)."""
        for node in self.nodes:
            node.child.resume()

    async def wait_ended(self) -> ChildFailed:
        """Wait until some node has ended and return the error that says so. On cancellation: nothing happens."""
        failures: list[ChildFailed] = []

        async def watch(node: KafkaNode) -> None:
            code = await node.child.wait_ended()
            failures.append(node.child.failure(f"has ended with {code}{_reason(node.child.tail)}"))
            nursery.cancel_scope.cancel(reason="a node has ended")

        async with trio.open_nursery() as nursery:
            for node in self.nodes:
                nursery.start_soon(watch, node)
        return failures[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Ports:
    plain: int
    controller: int
    tls: int


@asynccontextmanager
async def open_kafka(
    directory: Path,
    *,
    nodes: int = 1,
    ports: Sequence[int] = (),
    tls: BrokerTls | None = None,
    properties: dict[str, str] | None = None,
    show_download: ShowStep | None = None,
    install: KafkaInstall | None = None,
    grace_s: float = 10.0,
) -> AsyncIterator[KafkaCluster]:
    """Run Apache Kafka for as long as the block lasts.

    Args:
        directory: Where its data stay between starts; made if missing. One cluster at a time.
        nodes: How many, each broker and controller; the same number at every start of a directory.
        ports: Of the plain listeners, one a node; 0 or absent takes any free one.
        tls: Adds a TLS listener to each node.
        properties: More of ``server.properties``, the same for every node.
        show_download: See `install_kafka`.
        install: What to run; by default what `install_kafka` finds or fetches.
        grace_s: What the nodes together get between SIGTERM and SIGKILL. One node needs 0.3 s; of several the last ones
            wait in vain for a quorum, and lose nothing by being killed.

    Raises:
        KafkaUnavailable: It cannot be fetched or started; one line that names ``--broker mock``.

    On cancellation: as at the end of the block, the JVMs are ended (SIGTERM, ``grace_s``, SIGKILL).
    """
    install = install or await install_kafka(show_download)
    directory = _prepare(directory)
    wanted = [*ports, *[0] * (nodes - len(ports))]
    chosen = [_Ports(plain=_claim(port), controller=_claim(0), tls=_claim(0)) for port in wanted]
    cluster_id = _cluster_id(directory)
    files = [_write_properties(directory, number, chosen, tls, properties or {}) for number in range(1, nodes + 1)]
    for number, file in enumerate(files, 1):
        if not (directory / f"node-{number}" / "meta.properties").exists():
            await _format(install, directory, number, file, cluster_id)
    async with AsyncExitStack() as stack:
        children = [
            await stack.enter_async_context(_open_node(install, directory, number, file, grace_s))
            for number, file in enumerate(files, 1)
        ]
        with trio.move_on_after(START_TIMEOUT_S) as scope:
            with bare_error():
                async with trio.open_nursery() as nursery:
                    for child, started in children:
                        nursery.start_soon(_wait_started, child, started, directory)
        if scope.cancelled_caught:
            raise KafkaUnavailable(
                f"Apache Kafka did not start within {START_TIMEOUT_S:.0f} s, see {directory}/kafka.log; "
                "or use --broker mock"
            )
        cluster = KafkaCluster(
            directory=directory,
            nodes=tuple(
                KafkaNode(
                    node_id=number,
                    child=child,
                    address=f"127.0.0.1:{port.plain}",
                    tls_address=f"127.0.0.1:{port.tls}" if tls else None,
                )
                for number, ((child, _), port) in enumerate(zip(children, chosen, strict=True), 1)
            ),
        )
        try:
            yield cluster
        finally:
            cluster.resume()
            for node in cluster.nodes:
                node.child.signal(signal.SIGTERM)


@asynccontextmanager
async def _open_node(
    install: KafkaInstall, directory: Path, number: int, file: Path, grace_s: float
) -> AsyncIterator[tuple[Child, trio.Event]]:
    started = trio.Event()

    def on_line(line: str) -> None:
        if _STARTED.search(line):
            started.set()

    argv = [
        str(install.java),
        *JVM_OPTIONS,
        f"-Dlog4j2.configurationFile={directory / 'log4j2.xml'}",
        f"-XX:ErrorFile={directory / 'hs_err.log'}",
        "-cp",
        install.classpath,
        "kafka.Kafka",
        str(file),
    ]
    name = f"kafka-{number}"
    async with open_child(argv, name=name, on_line=on_line, log=directory / "kafka.log", grace_s=grace_s) as child:
        try:
            yield child, started
        finally:
            if not started.is_set():
                child.kill()  # a JVM that is still starting hears SIGTERM late, and has nothing to lose


async def _wait_started(child: Child, started: trio.Event, directory: Path) -> None:
    """Wait for the line that says so, or raise what the node died of."""

    async def wait_started() -> None:
        await started.wait()
        nursery.cancel_scope.cancel(reason="started")

    async def wait_ended() -> None:
        await child.wait_ended()
        nursery.cancel_scope.cancel(reason="ended")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait_started)
        nursery.start_soon(wait_ended)
    if not started.is_set():
        raise KafkaUnavailable(
            f"Apache Kafka ended while starting{_reason(child.tail)} (all of it: {directory}/kafka.log); "
            "choose another port or directory, or use --broker mock"
        )


async def _format(install: KafkaInstall, directory: Path, number: int, file: Path, cluster_id: str) -> None:
    """Make a node's storage whole or not at all: what was interrupted is thrown away at the next start."""
    partial = directory / f"node-{number}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    made = directory / f"node-{number}"
    shown = directory / f"format-{number}.properties"
    text = await trio.Path(file).read_text()
    await trio.Path(shown).write_text(text.replace(f"log.dirs={made}\n", f"log.dirs={partial}\n"))
    argv = [str(install.java), *JVM_OPTIONS, f"-Dlog4j2.configurationFile={directory / 'log4j2.xml'}"]
    argv += ["-cp", install.classpath, "kafka.tools.StorageTool", "format", "-t", cluster_id, "-c", str(shown)]
    async with open_child(argv, name="kafka-storage", log=directory / "kafka.log", grace_s=1.0) as child:
        code = await child.wait_ended()
    shown.unlink()
    if code != 0:
        raise KafkaUnavailable(
            f"Apache Kafka's storage in {directory} cannot be made{_reason(child.tail)}; or use --broker mock"
        )
    partial.rename(made)


def _prepare(directory: Path) -> Path:
    directory = directory.absolute()
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "log4j2.xml").write_text(_LOG4J)
    return directory


def _cluster_id(directory: Path) -> str:
    """Kafka's own kind of id: 16 bytes in URL-safe base64; kept, or the nodes refuse each other.

    One in 64 begins with a dash, which Kafka's tools take for an option: Kafka's own ids never do.
    """
    file = directory / "cluster-id"
    kept = file.read_text().strip() if file.exists() else "-"
    while kept.startswith("-"):
        kept = urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
    file.write_text(kept)
    return kept


def _claim(port: int) -> int:
    """Return a port that is free now: the one asked for, or any.

    Raises:
        KafkaUnavailable: It is taken.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise KafkaUnavailable(
                f"port {port} for Apache Kafka is taken ({os.strerror(error.errno or 0)}); "
                "choose another with --kafka-port, or use --broker mock"
            ) from error
        return int(probe.getsockname()[1])


def _write_properties(
    directory: Path, number: int, chosen: Sequence[_Ports], tls: BrokerTls | None, extra: dict[str, str]
) -> Path:
    own = chosen[number - 1]
    listeners = [f"PLAINTEXT://127.0.0.1:{own.plain}"]
    copies = str(min(3, len(chosen)))
    rows = {
        "process.roles": "broker,controller",
        "node.id": str(number),
        "controller.quorum.voters": ",".join(f"{n}@127.0.0.1:{p.controller}" for n, p in enumerate(chosen, 1)),
        "controller.listener.names": "CONTROLLER",
        "inter.broker.listener.name": "PLAINTEXT",
        "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SSL:SSL",
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
        "broker.session.timeout.ms": SESSION_TIMEOUT_MS,
        "broker.heartbeat.interval.ms": "1000",
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
    rows["advertised.listeners"] = ",".join(listeners)
    rows["listeners"] = ",".join([*listeners, f"CONTROLLER://127.0.0.1:{own.controller}"])
    file = directory / f"server-{number}.properties"
    file.write_text("".join(f"{key}={value}\n" for key, value in (rows | extra).items()))
    return file


def _reason(tail: Sequence[str]) -> str:
    """The most telling of a JVM's last lines, in one."""
    for pattern in ("Address already in use", "Failed to acquire lock", "Caused by:", "Exception", "ERROR", "Error"):
        for line in tail:
            if pattern in line:
                return f": {line.strip()[:300]}"
    return f": {tail[-1].strip()[:300]}" if tail else ""
