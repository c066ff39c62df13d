"""Brokers, topics, partitions, and who leads what: the state of the fake cluster and every way to change it.

Owns: that state. Refuses to know: requests, answers, faults.

Invariant: each change wakes who waits in `Topology.wait_until`.
"""

import uuid
from collections.abc import Callable

import trio

from kafka_client.testing.parts import FakeBroker, FakePartition, FakeTopic

__all__ = ["Topology"]


class Topology:
    """The brokers and topics of a `kafka_client.testing.FakeCluster`, which is one.

    Attributes:
        brokers: By number, from 1.
        topics: By name.
    """

    def __init__(self, brokers: int) -> None:
        self.brokers = {number: FakeBroker(number) for number in range(1, brokers + 1)}
        self.topics: dict[str, FakeTopic] = {}
        self._changed = trio.Event()

    # Brokers

    @property
    def connections_open(self) -> int:
        """How many connections are open now."""
        return sum(len(broker.connections) for broker in self.brokers.values())

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

    # Waiting

    async def wait_until(self, condition: Callable[[], object]) -> None:
        """Wait until ``condition()`` is true; it is asked again whenever something happened in the cluster."""
        await trio.lowlevel.checkpoint()
        while not condition():
            await self._changed.wait()

    async def wait_changed(self) -> None:
        """Wait until anything happens in the cluster."""
        await self._changed.wait()

    def changed(self) -> None:
        """Wake who waits for something to happen."""
        self._changed.set()
        self._changed = trio.Event()
