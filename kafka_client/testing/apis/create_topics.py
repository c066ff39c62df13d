"""CreateTopics (19), versions 2 to 7. Any broker takes it, as KRaft's forward it to the controller."""

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Protocol, cast

from kafka_client.testing.apis.call import Call
from kafka_client.testing.messages import Api, Header, Value, decode_request
from kafka_client.testing.plan import Plan
from kafka_client.testing.seen import RequestSeen

if TYPE_CHECKING:
    from kafka_client.testing.connection import Connection

INVALID_TOPIC = 17
TOPIC_ALREADY_EXISTS = 36
INVALID_PARTITIONS = 37
INVALID_REPLICATION_FACTOR = 38
LEGAL_NAME = re.compile(r"(?!\.{1,2}$)[a-zA-Z0-9._-]{1,249}")


class _Config(Protocol):
    name: str
    value: str | None


class _Topic(Protocol):
    name: str
    num_partitions: int
    replication_factor: int
    configs: Sequence[_Config]


class _Request(Protocol):
    topics: Sequence[_Topic]
    validate_only: bool


def read(connection: "Connection", request: RequestSeen, frame: bytes, header: Header) -> Call:
    """Decode, and return the call."""
    body = cast("_Request", decode_request(Api.CREATE_TOPICS, request.version, frame, header.body_at))

    def serve(plan: Plan) -> Mapping[str, Value]:
        return {
            "throttle_time": 0,
            "topics": [_create(connection, topic, plan, validate_only=body.validate_only) for topic in body.topics],
        }

    return Call(serve)


def _create(connection: "Connection", wanted: _Topic, plan: Plan, *, validate_only: bool) -> Mapping[str, Value]:
    cluster = connection.cluster
    partitions = 1 if wanted.num_partitions == -1 else wanted.num_partitions
    factor = 1 if wanted.replication_factor == -1 else wanted.replication_factor
    code, message = 0, None
    if plan.code is not None:
        code, message = plan.code, "a fault of the test"
    elif not LEGAL_NAME.fullmatch(wanted.name):
        code, message = INVALID_TOPIC, f"topic name {wanted.name!r} is illegal"
    elif wanted.name in cluster.topics:
        code, message = TOPIC_ALREADY_EXISTS, f"Topic '{wanted.name}' already exists."
    elif partitions < 1:
        code, message = INVALID_PARTITIONS, "Number of partitions was set to an invalid non-positive value."
    elif not 1 <= factor <= len(cluster.brokers):
        code, message = INVALID_REPLICATION_FACTOR, f"{len(cluster.brokers)} brokers cannot hold {factor} replicas"
    topic = None
    if not code and not validate_only:
        topic = cluster.create_topic(wanted.name, partitions, replicas=factor)
        for config in wanted.configs:
            topic.configs[config.name] = config.value or ""
    return {
        "name": wanted.name,
        "topic_id": None if topic is None else topic.topic_id,
        "error_code": code,
        "error_message": message,
        "num_partitions": -1 if code else partitions,
        "replication_factor": -1 if code else factor,
        "configs": [],
    }
