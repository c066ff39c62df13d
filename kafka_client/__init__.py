"""A Kafka producer for Trio: idempotent, acks=all, and clean under cancellation.

    async with open_producer(ProducerConfig(bootstrap_servers="localhost:9092")) as producer:
        with producer.delivery([Record("events", b"value", key=b"user-1")]) as d:
            with trio.move_on_after(2):
                await d.wait()
        print(d.outcomes)  # Delivered | NotSent | Unknown, one per record

Three outcomes, never two: what is not proved to be absent from the log is Unknown.
"""

from kafka_client.config import ProducerConfig, SecurityConfig
from kafka_client.errors import (
    BrokerError,
    ConfigError,
    ConnectionLost,
    KafkaError,
    NotSentError,
    ProtocolError,
    SecurityError,
    UnknownOutcomeError,
)
from kafka_client.observe import (
    BatchEnded,
    BatchRetried,
    BatchWritten,
    BrokerConnected,
    BrokerDisconnected,
    BrokerStatistics,
    BrokerThrottled,
    IdentityChanged,
    LeaderChanged,
    MetadataFailed,
    MetadataRefreshed,
    OperatorError,
    PartitionHealth,
    PartitionStatistics,
    ProducerObserver,
    ProducerStatistics,
)
from kafka_client.outcome import Delivered, NotSent, Outcome, Record, TopicPartition, Unknown
from kafka_client.producer import Delivery, Producer, open_producer
from kafka_client.security import OAuthToken

__all__ = [
    "BatchEnded",
    "BatchRetried",
    "BatchWritten",
    "BrokerConnected",
    "BrokerDisconnected",
    "BrokerError",
    "BrokerStatistics",
    "BrokerThrottled",
    "ConfigError",
    "ConnectionLost",
    "Delivered",
    "Delivery",
    "IdentityChanged",
    "KafkaError",
    "LeaderChanged",
    "MetadataFailed",
    "MetadataRefreshed",
    "NotSent",
    "NotSentError",
    "OAuthToken",
    "OperatorError",
    "Outcome",
    "PartitionHealth",
    "PartitionStatistics",
    "Producer",
    "ProducerConfig",
    "ProducerObserver",
    "ProducerStatistics",
    "ProtocolError",
    "Record",
    "SecurityConfig",
    "SecurityError",
    "TopicPartition",
    "Unknown",
    "UnknownOutcomeError",
    "open_producer",
]
