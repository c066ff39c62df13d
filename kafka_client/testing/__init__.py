"""A strict fake Kafka cluster for tests (extra ``testing``): in this process, on memory streams or TCP, with faults.

async with open_fake_cluster(topics={"events": 3}) as cluster:
    config = ProducerConfig(bootstrap_servers=cluster.bootstrap_servers)
    async with open_producer(config, connector=cluster.connector) as producer:
        cluster.faults.drop_answer()                  # the first acknowledgement is lost
        await producer.send(Record("events", b"hello"))
assert cluster.values("events") == [b"hello"]
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
