"""One node of a Kafka cluster: a JVM that can be killed, stopped and started again on the same ports and data.

Owns: the node's process, from the first start to the last end, and the making of its storage. Refuses to know: the
other nodes, and what its properties say beyond where its data are.

Invariant: `KafkaNode.start` returns when the node has said that it is started, and raises what it died of otherwise.
"""

import math
import re
import shutil
import signal
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import trio

from collector.devtools.children import Child, ChildFailed, open_child
from collector.devtools.jvm import java_command, telling
from collector.devtools.kafka_install import KafkaInstall, KafkaUnavailable
from collector.devtools.kafka_properties import SESSION_TIMEOUT_MS, data_directories, write_properties

__all__ = ["KafkaNode", "format_storage"]

#: A node that has not said that it is started by then never will. Three nodes on a busy machine took 11 s.
START_TIMEOUT_S = 60.0

#: By so much ZooKeeper is late to see that a session is over (its ``tickTime``).
ZOOKEEPER_TICK_S = 1.0

#: KRaft's words, and ZooKeeper's.
_STARTED = re.compile(r"\[KafkaRaftServer nodeId=\d+\] Kafka Server started|\[KafkaServer id=\d+\] started")


@dataclass(slots=True, kw_only=True, eq=False)
class KafkaNode:
    """One JVM. ``child.pause()`` is the black hole of the tests: the kernel accepts, nobody answers.

    Attributes:
        node_id: Counts from 1.
        address: ``host:port`` of its plain listener; the same after a new start.
        tls_address: Of its TLS listener, if it has one; ``sasl_address`` and ``sasl_tls_address`` likewise.
        properties: What it was configured with. A changed ``properties`` is what the next start reads.
        directory: The cluster's.
        install: What it runs.
        grace_s: What it gets between SIGTERM and SIGKILL.
    """

    node_id: int
    address: str
    tls_address: str | None
    properties: dict[str, str]
    directory: Path
    install: KafkaInstall
    grace_s: float
    sasl_address: str | None = None
    sasl_tls_address: str | None = None
    _child: Child | None = None
    _gone: trio.Event | None = None
    """Set when the present process has ended and was waited for."""
    _wanted: bool = field(default=False)
    """False from the moment at which its end was asked for."""
    _not_before: float = field(default=-math.inf)
    """Trio's time before which it would not be let in."""

    def __repr__(self) -> str:
        return f"<KafkaNode {self.node_id} {self.address} {self._child!r}>"

    @property
    def child(self) -> Child:
        """The process of the last start."""
        assert self._child is not None, "it was never started"
        return self._child

    @property
    def running(self) -> bool:
        """Whether it has a process that has not ended."""
        return self._child is not None and self._child.running

    async def start(self, nursery: trio.Nursery, failed: "trio.MemorySendChannel[ChildFailed]") -> None:
        """Run it in ``nursery``, the cluster's, until it ends.

        An end that nobody asked for is sent to ``failed``.

        Raises:
            KafkaUnavailable: It ended while starting, or did not start in time.

        On cancellation: the process is ended.
        """
        assert not self.running, "it runs already"
        await trio.sleep_until(self._not_before)
        write_properties(self.directory / f"server-{self.node_id}.properties", self.properties)
        with trio.move_on_after(START_TIMEOUT_S) as scope:
            await nursery.start(self._run, failed, name=f"Kafka node {self.node_id}")
        if scope.cancelled_caught:
            raise KafkaUnavailable(
                f"Apache Kafka did not start within {START_TIMEOUT_S:.0f} s, see {self.directory}/kafka.log; "
                "or use --broker mock"
            )

    async def kill(self) -> None:
        """SIGKILL: what the kernel had not written is what a crash leaves. On cancellation: it ends all the same."""
        self._wanted = False
        self.child.kill()
        if self.install.release.zookeeper:
            # A node of KRaft waits by itself until its old session is over; one of ZooKeeper dies of it.
            self._not_before = trio.current_time() + SESSION_TIMEOUT_MS / 1000 + ZOOKEEPER_TICK_S
        await self._wait_gone()

    async def stop(self) -> None:
        """SIGTERM: it hands its leaderships over, and writes all it has.

        It is killed where that takes longer than ``grace_s``, as it does for the last ones, which have no quorum.

        On cancellation: it is ending.
        """
        self._wanted = False
        self.child.signal(signal.SIGTERM)
        self.child.resume()
        with trio.move_on_after(self.grace_s):
            await self._wait_gone()
            return
        await self.kill()

    def end(self) -> None:
        """Ask it to end; the end of the nursery waits for it."""
        self._wanted = False
        if self._child is not None:
            self._child.signal(signal.SIGTERM)
            self._child.resume()

    async def _wait_gone(self) -> None:
        assert self._gone is not None
        await self._gone.wait()

    async def _run(self, failed: "trio.MemorySendChannel[ChildFailed]", *, task_status: trio.TaskStatus[None]) -> None:
        started = trio.Event()

        def on_line(line: str) -> None:
            if _STARTED.search(line):
                started.set()

        file = self.directory / f"server-{self.node_id}.properties"
        argv = java_command(self.install, self.directory, "kafka.Kafka", str(file))
        log = self.directory / "kafka.log"
        self._gone = gone = trio.Event()
        try:
            async with open_child(
                argv, name=f"kafka-{self.node_id}", on_line=on_line, log=log, grace_s=self.grace_s
            ) as child:
                self._child, self._wanted = child, True
                try:
                    await self._wait_started(started)
                    task_status.started()
                    code = await child.wait_ended()
                finally:
                    if not started.is_set():
                        child.kill()  # a JVM that is still starting hears SIGTERM late, and has nothing to lose
        finally:
            gone.set()
        if self._wanted:
            failed.send_nowait(child.failure(f"has ended with {code}{telling(child.tail)}"))

    async def _wait_started(self, started: trio.Event) -> None:
        """Wait for the line that says so, or raise what the node died of."""
        child = self.child

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
                f"Apache Kafka ended while starting{telling(child.tail)} (all of it: {self.directory}/kafka.log); "
                "choose another port or directory, or use --broker mock"
            )


async def format_storage(node: KafkaNode, cluster_id: str, scram: Sequence[str] = ()) -> None:
    """Make a node's storage, unless it is there; ``scram`` are StorageTool's arguments for users of SCRAM.

    Whole or not at all in the cluster's directory: what was interrupted is thrown away at the next start. Elsewhere, on
    a file system of its own perhaps, which cannot be renamed, in place.

    Raises:
        KafkaUnavailable: It cannot be made.
    """
    await trio.lowlevel.checkpoint()
    directories = data_directories(node.properties)
    if all((made / "meta.properties").exists() for made in directories):
        return
    partials: dict[Path, Path] = {}
    for made in directories:
        if made.parent == node.directory and not made.exists():
            partials[made] = made.with_name(f"{made.name}.partial")
            shutil.rmtree(partials[made], ignore_errors=True)
    shown = node.directory / f"format-{node.node_id}.properties"
    places = ",".join(str(partials.get(made, made)) for made in directories)
    write_properties(shown, node.properties | {"log.dirs": places})
    argv = java_command(node.install, node.directory, "kafka.tools.StorageTool", "format", "--ignore-formatted")
    argv += ["-t", cluster_id, "-c", str(shown), *scram]
    async with open_child(argv, name="kafka-storage", log=node.directory / "kafka.log", grace_s=1.0) as child:
        code = await child.wait_ended()
    shown.unlink()
    if code != 0:
        raise KafkaUnavailable(
            f"Apache Kafka's storage in {node.directory} cannot be made{telling(child.tail)}; or use --broker mock"
        )
    for made, partial in partials.items():
        partial.rename(made)
