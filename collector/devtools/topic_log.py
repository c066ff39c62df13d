"""What is in a topic, read back with librdkafka: an eye that shares no code with ours.

Owns: reading all partitions from their beginning to their end as of now. Refuses to know: our wire code, on purpose.
"""

from dataclasses import dataclass

import msgspec
from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

__all__ = ["Envelope", "Stored", "make_topic", "read_topic"]

_QUIET = {"log_level": 0}


class Envelope(msgspec.Struct, frozen=True):
    """The record's value; ``body`` is its bytes as they stand there."""

    v: int
    id: str
    api: str
    type: str
    app: str
    received_at: str
    sent_at: str | None
    timestamp: str | None
    ip: str | None
    user_agent: str | None
    flags: dict[str, bool | int | None]
    batch: msgspec.Raw
    encoding: str
    body: msgspec.Raw


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """One record."""

    partition: int
    offset: int
    key: bytes | None
    value: bytes
    headers: dict[str, bytes]

    @property
    def envelope(self) -> Envelope:
        return msgspec.json.decode(self.value, type=Envelope)


def make_topic(bootstrap_servers: str, name: str, partitions: int, settings: dict[str, str] | None = None) -> str:
    """Make a topic and return its name."""
    admin = AdminClient({"bootstrap.servers": bootstrap_servers, **_QUIET})
    topic = NewTopic(name, num_partitions=partitions, replication_factor=1, config=settings or {})
    admin.create_topics([topic])[name].result(30)
    return name


def read_topic(bootstrap_servers: str, topic: str) -> list[Stored]:
    """Read all that is in ``topic`` now, partition by partition in order of offset. Blocks; run it in a thread."""
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap_servers,
            "group.id": f"reads {topic}",
            "enable.auto.commit": False,
            "enable.partition.eof": False,
            **_QUIET,
        }
    )
    try:
        partitions = consumer.list_topics(topic, timeout=30).topics[topic].partitions
        ends = {
            number: consumer.get_watermark_offsets(TopicPartition(topic, number), timeout=30) for number in partitions
        }
        left = {number: high - low for number, (low, high) in ends.items() if high > low}
        consumer.assign([TopicPartition(topic, number, ends[number][0]) for number in left])
        found: list[Stored] = []
        while left:
            for message in consumer.consume(10_000, timeout=1.0):
                if message.error() is not None:
                    raise RuntimeError(f"{topic}: {message.error()}")
                found.append(_stored(message))
                last = found[-1]
                if last.offset >= ends[last.partition][1] - 1:
                    left.pop(last.partition, None)
        return sorted(found, key=lambda record: (record.partition, record.offset))
    finally:
        consumer.close()


def _stored(message: object) -> Stored:
    return Stored(
        partition=message.partition(),  # type: ignore[attr-defined]  # confluent_kafka.Message
        offset=message.offset(),  # type: ignore[attr-defined]
        key=message.key(),  # type: ignore[attr-defined]
        value=message.value(),  # type: ignore[attr-defined]
        headers=dict(message.headers() or ()),  # type: ignore[attr-defined]
    )
