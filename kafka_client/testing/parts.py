"""What the fake cluster is made of: brokers that run, pause or stop; topics; partitions and who leads them.

Owns: their state. Refuses to know the protocol.

Invariant: every election counts the leader epoch up, and only an election changes the leader.

Replication is not simulated message by message. All replicas in sync have everything at once, unless replication is
held: then what is appended stays above the high watermark, and who waits for acks=all goes on waiting.
"""

import copy
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import trio

from kafka_client.testing.configs import TopicConfigs
from kafka_client.testing.connection import Connection
from kafka_client.testing.partition_log import PartitionLog

__all__ = ["PORT", "FakeBroker", "FakePartition", "FakeTopic", "View"]

#: Where every fake broker listens in memory.
PORT = 9092
NOT_LEADER_OR_FOLLOWER = 6
FENCED_LEADER_EPOCH = 74
UNKNOWN_LEADER_EPOCH = 75


class FakePartition:
    """One partition: its log, and who leads it. ``leader`` is None while there is none."""

    def __init__(self, topic: str, index: int, replicas: Sequence[int]) -> None:
        self.index = index
        self.log = PartitionLog(topic, index)
        self.replicas = tuple(replicas)
        self.leader: int | None = replicas[0]
        self.leader_epoch = 0
        self.isr = set(replicas)
        self._replicated_to: int | None = None
        self._stale: tuple[int | None, int] | None = None

    def __repr__(self) -> str:
        return f"<FakePartition {self.log.topic}-{self.index} leader={self.leader} epoch={self.leader_epoch}>"

    @property
    def advertised(self) -> tuple[int | None, int]:
        """(leader, epoch) as Metadata tells it."""
        return (self.leader, self.leader_epoch) if self._stale is None else self._stale

    def advertise(self, leader: int | None, epoch: int) -> None:
        """Let Metadata lie: stale or wrong, until `advertise_truth`."""
        self._stale = (leader, epoch)

    def advertise_truth(self) -> None:
        """Let Metadata tell what is."""
        self._stale = None

    @property
    def lying(self) -> bool:
        """Whether Metadata tells something else than what is (`advertise`)."""
        return self._stale is not None

    @property
    def high_watermark(self) -> int:
        """Up to here every replica in sync has the log."""
        return self.log.end_offset if self._replicated_to is None else self._replicated_to

    @property
    def replication_held(self) -> bool:
        """Whether the followers stand still."""
        return self._replicated_to is not None

    def hold_replication(self) -> None:
        """Let the followers stand still, though in sync."""
        if self._replicated_to is None:
            self._replicated_to = self.log.end_offset

    def release_replication(self) -> None:
        """Let them catch up."""
        self._replicated_to = None

    def lose_unreplicated(self) -> None:
        """Cut the log at the high watermark, as a follower's log that becomes the leader's does."""
        self.log.truncate(self.high_watermark)

    def refusal(self, broker: int, epoch: int, *, followers: bool = False) -> int:
        """Why this broker does not serve who knows this leader epoch (-1: none); 0 if it does.

        Args:
            followers: Followers serve too.
        """
        if epoch not in (-1, self.leader_epoch):
            return FENCED_LEADER_EPOCH if epoch < self.leader_epoch else UNKNOWN_LEADER_EPOCH
        serves = self.leader == broker or (followers and broker in self.replicas)
        return 0 if serves else NOT_LEADER_OR_FOLLOWER

    def lead(self, leader: int | None) -> None:
        """Elect; every election counts the epoch up."""
        self.leader = leader
        self.leader_epoch += 1
        if leader is not None:
            self.isr.add(leader)


class FakeTopic:
    """One topic. ``hidden`` makes Metadata say it does not exist; ``error_code`` is what Metadata says about it."""

    def __init__(self, name: str, partitions: Sequence[FakePartition]) -> None:
        self.name = name
        self.topic_id = uuid.uuid4()
        self.partitions = list(partitions)
        self.configs = TopicConfigs()
        self.hidden = False
        self.error_code = 0

    def __repr__(self) -> str:
        return f"<FakeTopic {self.name} partitions={len(self.partitions)}>"

    def snapshot(self) -> "FakeTopic":
        """As it is now, for who tells it later; the logs are shared."""
        told = copy.copy(self)
        told.partitions = [copy.copy(partition) for partition in self.partitions]
        for partition in told.partitions:
            partition.isr = set(partition.isr)
        return told

    def min_insync(self, partition: FakePartition) -> int:
        """How many replicas must be in sync for acks=all: never more than there are (Partition.effectiveMinIsr)."""
        return min(self.configs.min_insync_replicas, len(partition.replicas))


class FakeBroker:
    """One broker: running or stopped, reading or paused."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.host = f"fake-{number}"
        self.rack: str | None = None
        self.running = True
        self.connections: set[Connection] = set()
        self.view: View | None = None
        self.tcp_address: tuple[str, int] | None = None
        self._paused = False
        self._allowance_bytes = 0
        self._resumed = trio.Event()

    def __repr__(self) -> str:
        state = "stopped" if not self.running else "paused" if self._paused else "running"
        return f"<FakeBroker {self.number} {state} connections={len(self.connections)}>"

    def address(self, *, tcp: bool) -> tuple[str, int]:
        """Where a client that came by this kind of listener finds it."""
        return self.tcp_address if tcp and self.tcp_address is not None else (self.host, PORT)

    def pause(self, after_bytes: int = 0) -> None:
        """Stop as by SIGSTOP: connections stay open, nothing is read (after so many bytes), nothing is written."""
        if not self._paused:  # who waits already is woken by the one `resume`
            self._resumed = trio.Event()
        self._paused = True
        self._allowance_bytes = after_bytes
        for connection in self.connections:
            connection.interrupt_read()

    def resume(self) -> None:
        """Go on."""
        self._paused = False
        self._resumed.set()

    async def wait_running(self) -> None:
        """Wait until not paused."""
        await trio.lowlevel.checkpoint()
        while self._paused:
            await self._resumed.wait()

    async def wait_readable(self, max_bytes: int) -> int:
        """Wait until something may be read; how many bytes at most."""
        await trio.lowlevel.checkpoint()
        while self._paused and self._allowance_bytes <= 0:
            await self._resumed.wait()
        return min(max_bytes, self._allowance_bytes) if self._paused else max_bytes

    def took(self, size: int) -> None:
        """Count what was read."""
        self._allowance_bytes -= size


@dataclass(frozen=True, slots=True)
class View:
    """What one broker knows of the cluster, and tells in Metadata."""

    brokers: tuple[FakeBroker, ...]
    controller: int | None
    topics: Mapping[str, FakeTopic]
