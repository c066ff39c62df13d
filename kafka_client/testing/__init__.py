"""A strict fake Kafka cluster for tests (extra ``testing``): in this process, on memory streams or TCP, with faults.

async with open_fake_cluster(topics={"events": 3}) as cluster:
    config = ProducerConfig(bootstrap_servers=cluster.bootstrap_servers)
    async with open_producer(config, connector=cluster.connector) as producer:
        cluster.faults.drop_answer()                  # the first acknowledgement is lost
        await producer.send(Record("events", b"hello"))
assert cluster.values("events") == [b"hello"]

What a healthy cluster goes through needs no fault: `FakeCluster.stop_broker`, ``move_leader``, ``hold_replication``,
``add_broker``, ``delete_topic``… are methods of the cluster. Faults are what is told otherwise; what they met says so
(`RequestSeen.injected`, `Seen.injected`). What no fault met is answered as by Apache Kafka 4.1: the project's tests
hold the two against each other, field by field. What a broker takes although no correct client sends it stands in
``seen.violations``.
"""

from kafka_client.testing.cluster import FakeCluster, open_fake_cluster
from kafka_client.testing.faults import Fault, Faults
from kafka_client.testing.messages import VERSIONS_OF_KAFKA_4_1, Api
from kafka_client.testing.partition_log import StoredRecord
from kafka_client.testing.parts import FakeBroker, FakePartition, FakeTopic
from kafka_client.testing.raw_client import RawClient, encode_batch
from kafka_client.testing.sasl import Authentication, FakeSasl
from kafka_client.testing.seen import BatchSeen, RequestSeen, Seen

__all__ = [
    "VERSIONS_OF_KAFKA_4_1",
    "Api",
    "Authentication",
    "BatchSeen",
    "FakeBroker",
    "FakeCluster",
    "FakePartition",
    "FakeSasl",
    "FakeTopic",
    "Fault",
    "Faults",
    "RawClient",
    "RequestSeen",
    "Seen",
    "StoredRecord",
    "encode_batch",
    "open_fake_cluster",
]
