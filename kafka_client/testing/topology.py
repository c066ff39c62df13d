"""Brokers, topics, partitions, and who leads what: the state of the fake cluster and every way to change it.

Owns: that state. Refuses to know: requests, answers, faults.

Invariant: each change wakes who waits in `Topology.wait_until`.
"""

import uuid
from collections.abc import Callable

import trio

from kafka_client.testing.parts import FakeBroker, FakePartition, FakeTopic, View

__all__ = ["Topology"]


class Topology:
    """The brokers and topics of a `kafka_client.testing.FakeCluster`, which is one.

    Attributes:
        brokers: By number, from 1.
        topics: By name.
        controller: Which broker Metadata names as controller; None, or one that does not run: the first that does.
    """

    def __init__(self, brokers: int) -> None:
        self.brokers = {number: FakeBroker(number) for number in range(1, brokers + 1)}
        self.topics: dict[str, FakeTopic] = {}
        self.controller: int | None = None
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
        for partition in self._partitions():
            if partition.isr != {number}:  # the last one in sync stays so, it has all there is
                partition.isr.discard(number)
            if elect and partition.leader == number:
                alive = (replica for replica in partition.replicas if self.brokers[replica].running)
                partition.lead(next(alive, None))
        self.changed()

    def start_broker(self, number: int) -> None:
        """Start it again; it leads what has had no leader and is replicated on it."""
        self.brokers[number].running = True
        for partition in self._partitions():
            if number in partition.replicas:
                partition.isr.add(number)
                if partition.leader is None:
                    partition.lead(number)
        self.changed()

    def add_broker(self, *, rack: str | None = None) -> FakeBroker:
        """Add one to the cluster, with the next number; it leads nothing yet. For TCP call ``serve_tcp`` again."""
        broker = FakeBroker(max(self.brokers, default=0) + 1)
        broker.rack = rack
        self.brokers[broker.number] = broker
        self.changed()
        return broker

    def remove_broker(self, number: int) -> None:
        """Take one out of the cluster for good; what it led goes to other replicas, where there are any."""
        self.stop_broker(number)
        del self.brokers[number]
        self.changed()

    def freeze_metadata(self, number: int) -> None:
        """Let one broker tell in Metadata what is true now, whatever happens, until `thaw_metadata`.

        Real brokers lag so for milliseconds; one that is cut off from the controller does for longer (KIP-631).
        """
        broker = self.brokers[number]
        broker.view = None
        now = self.view(number)
        topics = {name: topic.snapshot() for name, topic in now.topics.items()}
        broker.view = View(now.brokers, now.controller, topics)

    def thaw_metadata(self, number: int) -> None:
        """Let it tell what is true."""
        self.brokers[number].view = None

    def view(self, number: int) -> View:
        """What a broker tells in Metadata."""
        frozen = self.brokers[number].view
        if frozen is not None:
            return frozen
        running = tuple(broker for broker in self.brokers.values() if broker.running)
        known = self.controller in {broker.number for broker in running}
        controller = self.controller if known else min((broker.number for broker in running), default=None)
        return View(running, controller, self.topics)

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
        factor = min(3, len(self.brokers)) if replicas is None else replicas
        self.topics[name] = FakeTopic(name, [self._new_partition(name, index, factor) for index in range(partitions)])
        self.changed()
        return self.topics[name]

    def delete_topic(self, name: str) -> None:
        """Delete it with its records; created again it has another id (KIP-516)."""
        del self.topics[name]
        self.changed()

    def add_partitions(self, name: str, total: int) -> None:
        """Grow a topic to so many partitions."""
        topic = self.topics[name]
        factor = len(topic.partitions[0].replicas)
        topic.partitions += [self._new_partition(name, index, factor) for index in range(len(topic.partitions), total)]
        self.changed()

    def _new_partition(self, name: str, index: int, factor: int) -> FakePartition:
        numbers = list(self.brokers)
        return FakePartition(name, index, [numbers[(index + step) % len(numbers)] for step in range(factor)])

    def partition(self, topic: str, index: int) -> FakePartition:
        """One partition."""
        return self.topics[topic].partitions[index]

    def move_leader(self, topic: str, index: int, leader: int | None, *, lose_unreplicated: bool = False) -> None:
        """Elect another leader, or none.

        Args:
            lose_unreplicated: What was appended while replication was held is lost, as where a follower takes over that
                never got it. It was acknowledged to nobody who asked for acks=all.
        """
        partition = self.partition(topic, index)
        if lose_unreplicated:
            partition.lose_unreplicated()
        partition.lead(leader)
        self.changed()

    def hold_replication(self, topic: str, index: int) -> None:
        """Let the followers stand still: a Produce with acks=all waits for them.

        It is answered when they go on, and otherwise with an error beside its base offset, as by a real broker
        (DelayedProduce): REQUEST_TIMED_OUT after its own timeout, NOT_LEADER_OR_FOLLOWER when the leader moves,
        UNKNOWN_TOPIC_OR_PARTITION when the topic is deleted, NOT_ENOUGH_REPLICAS_AFTER_APPEND when the replicas in sync
        become too few.
        """
        self.partition(topic, index).hold_replication()

    def release_replication(self, topic: str, index: int) -> None:
        """Let them go on."""
        self.partition(topic, index).release_replication()
        self.changed()

    def set_isr(self, topic: str, index: int, *numbers: int) -> None:
        """Say which replicas are in sync; fewer than ``min.insync.replicas`` refuse acks=all (19)."""
        self.partition(topic, index).isr = set(numbers)
        self.changed()

    def expire_producers(self, topic: str, index: int) -> None:
        """Forget every producer of a partition (``producer.id.expiration.ms``, a day): any first sequence is taken."""
        self.partition(topic, index).log.forget_producers()

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
