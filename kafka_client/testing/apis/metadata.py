"""Metadata (3), versions 0 to 13: brokers, topics by name or id, partitions and their leaders."""

from collections.abc import Mapping, Sequence, Set
from typing import TYPE_CHECKING, Protocol, cast
from uuid import UUID

from kafka_client.testing.apis.call import Call
from kafka_client.testing.configs import LEGAL_NAME
from kafka_client.testing.messages import Api, Header, Value, decode_request
from kafka_client.testing.plan import Plan
from kafka_client.testing.seen import RequestSeen

if TYPE_CHECKING:
    from kafka_client.testing.connection import Connection
    from kafka_client.testing.parts import FakePartition, FakeTopic

UNKNOWN_TOPIC_OR_PARTITION = 3
LEADER_NOT_AVAILABLE = 5
INVALID_TOPIC = 17
INVALID_REQUEST = 42
UNKNOWN_TOPIC_ID = 100
#: Versions 10 and 11 have the field, and refuse it.
FIRST_VERSION_WITH_IDS = 12
NOT_ASKED_FOR = -(2**31)


class _Topic(Protocol):
    topic_id: UUID | None
    name: str | None


class _Request(Protocol):
    topics: Sequence[_Topic] | None
    allow_auto_topic_creation: bool


def read(connection: "Connection", request: RequestSeen, frame: bytes, header: Header) -> Call:
    """Decode, and return the call."""
    body = cast("_Request", decode_request(Api.METADATA, request.version, frame, header.body_at))
    cluster = connection.cluster

    def topics(plan: Plan) -> list[Value]:
        if body.topics is None or (request.version == 0 and not body.topics):
            known = cluster.view(connection.broker.number).topics.values()
            request.faults += [f"hidden({topic.name})" for topic in known if topic.hidden]
            return [_known(connection, request, topic, plan) for topic in known if not topic.hidden]
        return [_wanted(connection, request, body, wanted, plan) for wanted in _once(body.topics)]

    def serve(plan: Plan) -> Mapping[str, Value]:
        view = cluster.view(connection.broker.number)
        if connection.broker.view is not None:
            request.faults.append("freeze_metadata")
        return {
            "throttle_time": 0,
            "brokers": [
                {"node_id": broker.number, "host": host, "port": port, "rack": broker.rack}
                for broker in (() if plan.no_brokers else view.brokers)
                for host, port in [broker.address(tcp=connection.tcp)]
            ],
            "cluster_id": cluster.cluster_id,
            "controller_id": -1 if plan.no_brokers or view.controller is None else view.controller,
            "topics": topics(plan),
            "cluster_authorized_operations": NOT_ASKED_FOR,
            "error_code": plan.code or 0,
        }

    return Call(serve)


def _once(topics: "Sequence[_Topic]") -> "list[_Topic]":
    """A topic that was asked for twice is answered once."""
    return list({(wanted.name, getattr(wanted, "topic_id", None)): wanted for wanted in topics}.values())


def _wanted(
    connection: "Connection", request: RequestSeen, body: _Request, wanted: _Topic, plan: Plan
) -> Mapping[str, Value]:
    cluster = connection.cluster
    topics = cluster.view(connection.broker.number).topics
    topic_id = getattr(wanted, "topic_id", None)
    if wanted.name is None:
        if request.version < FIRST_VERSION_WITH_IDS:
            return _absent("", topic_id, INVALID_REQUEST)
        by_id = next((topic for topic in topics.values() if topic.topic_id == topic_id), None)
        return _absent(None, topic_id, UNKNOWN_TOPIC_ID) if by_id is None else _known(connection, request, by_id, plan)
    topic = topics.get(wanted.name)
    if topic is not None and not topic.hidden:
        return _known(connection, request, topic, plan)
    if topic is not None:
        request.faults.append(f"hidden({topic.name})")
    elif not LEGAL_NAME.fullmatch(wanted.name):
        return _absent(wanted.name, None, INVALID_TOPIC)
    elif (
        wanted.name not in cluster.topics
        and cluster.auto_create_topics
        and getattr(body, "allow_auto_topic_creation", True)
    ):
        # The answer does not wait for the controller: the next one will know the topic.
        cluster.create_topic(wanted.name, cluster.auto_create_topics)
    return _absent(wanted.name, None, UNKNOWN_TOPIC_OR_PARTITION)


def _absent(name: str | None, topic_id: UUID | None, code: int) -> Mapping[str, Value]:
    return {
        "error_code": code,
        "name": name,
        "topic_id": topic_id,
        "is_internal": 0,
        "partitions": [],
        "topic_authorized_operations": NOT_ASKED_FOR,
    }


def _known(connection: "Connection", request: RequestSeen, topic: "FakeTopic", plan: Plan) -> Mapping[str, Value]:
    code = 0 if request.version >= 13 or plan.code is None else plan.code
    if topic.error_code:
        request.faults.append(f"error_code({topic.name}, {topic.error_code})")
    request.faults += [f"advertise({topic.name}-{each.index})" for each in topic.partitions if each.lying]
    running = {broker.number for broker in connection.cluster.view(connection.broker.number).brokers}
    bare = code or topic.error_code or plan.no_partitions
    return {
        "error_code": code or topic.error_code,
        "name": topic.name,
        "topic_id": None if plan.zero_topic_ids else topic.topic_id,
        "is_internal": 0,
        "partitions": [] if bare else [_partition(running, partition) for partition in topic.partitions],
        "topic_authorized_operations": NOT_ASKED_FOR,
    }


def _partition(running: Set[int], partition: "FakePartition") -> Mapping[str, Value]:
    leader, epoch = partition.advertised
    return {
        "error_code": LEADER_NOT_AVAILABLE if leader is None else 0,
        "partition_index": partition.index,
        "leader_id": -1 if leader is None else leader,
        "leader_epoch": epoch,
        "replica_nodes": list(partition.replicas),
        "isr_nodes": [replica for replica in partition.replicas if replica in partition.isr],
        "offline_replicas": [replica for replica in partition.replicas if replica not in running],
    }
