"""CreateTopics (19), versions 2 to 7. Any broker takes it, as KRaft's forward it to the controller."""

import uuid
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Protocol, cast

from kafka_client.testing.apis.call import Call
from kafka_client.testing.configs import DEFAULTS, LEGAL_NAME, BadConfig, TopicConfigs
from kafka_client.testing.messages import Api, Header, Value, decode_request
from kafka_client.testing.plan import Plan
from kafka_client.testing.seen import RequestSeen

if TYPE_CHECKING:
    from kafka_client.testing.connection import Connection

INVALID_TOPIC = 17
TOPIC_ALREADY_EXISTS = 36
INVALID_PARTITIONS = 37
INVALID_REPLICATION_FACTOR = 38
INVALID_CONFIG = 40
INVALID_REQUEST = 42
TOPIC_CONFIG, DEFAULT_CONFIG = 1, 5


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
    names = Counter(topic.name for topic in body.topics)
    once = {topic.name: topic for topic in body.topics}.values()

    def serve(plan: Plan) -> Mapping[str, Value]:
        topics = [
            _create(connection, topic, plan, validate_only=body.validate_only, twice=names[topic.name] > 1)
            for topic in once
        ]
        return {"throttle_time": 0, "topics": topics}

    return Call(serve)


def _refusal(connection: "Connection", wanted: _Topic) -> tuple[int, str] | None:
    brokers = len(connection.cluster.brokers)
    if not LEGAL_NAME.fullmatch(wanted.name):
        return INVALID_TOPIC, f"topic name {wanted.name!r} is illegal"
    if wanted.name in connection.cluster.topics:
        return TOPIC_ALREADY_EXISTS, f"Topic '{wanted.name}' already exists."
    configs = TopicConfigs()
    try:
        for config in wanted.configs:
            configs[config.name] = config.value or ""
    except BadConfig as error:
        return INVALID_CONFIG, str(error)
    if wanted.replication_factor < -1 or wanted.replication_factor == 0:
        return INVALID_REPLICATION_FACTOR, "Replication factor must be larger than 0, or -1 to use the default value."
    if wanted.num_partitions < -1 or wanted.num_partitions == 0:
        return INVALID_PARTITIONS, "Number of partitions was set to an invalid non-positive value."
    if wanted.replication_factor > brokers:
        return INVALID_REPLICATION_FACTOR, f"{brokers} brokers cannot hold {wanted.replication_factor} replicas"
    return None


def _create(
    connection: "Connection", wanted: _Topic, plan: Plan, *, validate_only: bool, twice: bool
) -> Mapping[str, Value]:
    cluster = connection.cluster
    partitions = 1 if wanted.num_partitions == -1 else wanted.num_partitions
    factor = min(3, len(cluster.brokers)) if wanted.replication_factor == -1 else wanted.replication_factor
    code, message = 0, None
    if plan.code is not None:
        code, message = plan.code, "a fault of the test"
    elif twice:
        code, message = INVALID_REQUEST, "Duplicate topic name."
    elif (refusal := _refusal(connection, wanted)) is not None:
        code, message = refusal
    configs = TopicConfigs()
    topic_id = None
    if not code:
        topic_id = uuid.uuid4()  # made up even where nothing is made
        for config in wanted.configs:
            configs[config.name] = config.value or ""
        if not validate_only:
            topic = cluster.create_topic(wanted.name, partitions, replicas=factor)
            topic.configs = configs
            topic_id = topic.topic_id
    return {
        "name": wanted.name,
        "topic_id": topic_id,
        "error_code": code,
        "error_message": message,
        "num_partitions": -1 if code else partitions,
        "replication_factor": -1 if code else factor,
        "configs": [] if code else [_as_created(configs, name, value) for name, value in sorted(DEFAULTS.items())],
    }


def _as_created(configs: TopicConfigs, name: str, default: str) -> Mapping[str, Value]:
    return {
        "name": name,
        "value": configs.get(name, default),
        "read_only": False,
        "config_source": TOPIC_CONFIG if name in configs else DEFAULT_CONFIG,
        "is_sensitive": False,
    }
