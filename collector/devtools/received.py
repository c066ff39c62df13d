"""What arrived in a topic, as a test wants to look at it.

Owns: reading a topic from its beginning, and taking an envelope apart. Refuses to know: who sent it.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import msgspec
import trio

from kafka_client.admin import EARLIEST, LATEST, Admin, open_admin
from kafka_client.config import ProducerConfig
from kafka_client.testing import FakeCluster

__all__ = ["FakeReceived", "ReceivedEvent", "ReceivedEvents", "TopicReceived"]

POLL_S = 0.02


class _Slice(msgspec.Struct):
    body: msgspec.Raw


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceivedEvent:
    """One record of the topic. The properties take its value for the collector's envelope."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes | None]]

    @property
    def envelope(self) -> Mapping[str, object]:
        """The whole value, decoded."""
        decoded = json.loads(self.value or b"")
        if not isinstance(decoded, dict):
            raise ValueError(f"the record's value is no JSON object: {self.value!r}")
        return decoded

    @property
    def id(self) -> str:
        """The event's id: the client's own, or the hash that stands for it."""
        return str(self.envelope["id"])

    @property
    def api(self) -> str:
        """The dialect that it came by."""
        return str(self.envelope["api"])

    @property
    def app(self) -> str:
        """Whose key it came with."""
        return str(self.envelope["app"])

    @property
    def type(self) -> str:
        """``track``, ``identify``, …"""
        return str(self.envelope["type"])

    @property
    def body(self) -> object:
        """The client's event, decoded."""
        return self.envelope["body"]

    @property
    def body_bytes(self) -> bytes:
        """The client's bytes of this event, unchanged (``encoding`` ``json``)."""
        return bytes(msgspec.json.decode(self.value or b"", type=_Slice).body)


class ReceivedEvents(Protocol):
    """Reads a topic."""

    async def __call__(self, count: int = 0, *, topic: str | None = None) -> list[ReceivedEvent]:
        """Wait until at least ``count`` records have arrived, then return all there are, partition after partition.

        Args:
            topic: Another one than the collector's own, such as that of the bad events.

        On cancellation: nothing is left; the topic is as it was.
        """
        ...


class FakeReceived:
    """The logs of a fake cluster."""

    def __init__(self, broker: FakeCluster, topic: str) -> None:
        self._broker = broker
        self._topic = topic

    def __repr__(self) -> str:
        return f"<FakeReceived {self._topic}>"

    async def __call__(self, count: int = 0, *, topic: str | None = None) -> list[ReceivedEvent]:
        """As `ReceivedEvents`."""
        return [
            ReceivedEvent(
                topic=record.topic,
                partition=record.partition,
                offset=record.offset,
                key=record.key,
                value=record.value,
                headers=record.headers,
            )
            for record in await self._broker.wait_records(topic or self._topic, count)
        ]


class TopicReceived:
    """A topic of a real or mock cluster, read anew at each call."""

    def __init__(self, bootstrap_servers: str, topic: str) -> None:
        self._bootstrap_servers = bootstrap_servers
        self._topic = topic

    def __repr__(self) -> str:
        return f"<TopicReceived {self._topic} at {self._bootstrap_servers}>"

    async def __call__(self, count: int = 0, *, topic: str | None = None) -> list[ReceivedEvent]:
        """As `ReceivedEvents`."""
        name = topic or self._topic
        async with open_admin(ProducerConfig(bootstrap_servers=self._bootstrap_servers)) as admin:
            while True:
                first, end = await admin.list_offsets(name, EARLIEST), await admin.list_offsets(name, LATEST)
                if sum(end.values()) - sum(first.values()) >= count:
                    break
                await trio.sleep(POLL_S)  # a broker tells nobody that its log has grown, but who fetches
            events: list[ReceivedEvent] = []
            for partition in sorted(first):
                events += await _read(admin, name, partition, first[partition], end[partition])
            return events


async def _read(admin: Admin, topic: str, partition: int, start: int, end: int) -> list[ReceivedEvent]:
    events: list[ReceivedEvent] = []
    await trio.lowlevel.checkpoint()
    if start == end:
        return events
    async with admin.read_partition(topic, partition, start) as reader:
        while True:
            for record in await reader.receive():
                if record.offset < end:
                    events.append(
                        ReceivedEvent(
                            topic=topic,
                            partition=partition,
                            offset=record.offset,
                            key=record.key,
                            value=record.value,
                            headers=record.headers,
                        )
                    )
                if record.offset >= end - 1:
                    return events
