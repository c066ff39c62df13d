"""DescribeConfigs (32), versions 1 to 4: of topics (resource type 2), and a little of the broker asked (4)."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Protocol, cast

from kafka_client.testing.apis.call import Call
from kafka_client.testing.configs import DEFAULTS, LEGAL_NAME
from kafka_client.testing.messages import Api, Header, Value, decode_request
from kafka_client.testing.plan import Plan
from kafka_client.testing.seen import RequestSeen

if TYPE_CHECKING:
    from kafka_client.testing.connection import Connection

UNKNOWN_TOPIC_OR_PARTITION = 3
INVALID_TOPIC = 17
INVALID_REQUEST = 42
TOPIC, BROKER = 2, 4
TOPIC_CONFIG, DEFAULT_CONFIG = 1, 5


class _Resource(Protocol):
    resource_type: int
    resource_name: str
    configuration_keys: Sequence[str] | None


class _Request(Protocol):
    resources: Sequence[_Resource]


def read(connection: "Connection", request: RequestSeen, frame: bytes, header: Header) -> Call:
    """Decode, and return the call."""
    body = cast("_Request", decode_request(Api.DESCRIBE_CONFIGS, request.version, frame, header.body_at))

    def serve(plan: Plan) -> Mapping[str, Value]:
        return {"throttle_time": 0, "results": [_describe(connection, resource, plan) for resource in body.resources]}

    return Call(serve)


def _describe(connection: "Connection", resource: _Resource, plan: Plan) -> Mapping[str, Value]:
    cluster = connection.cluster
    own: Mapping[str, str] = {}
    defaults = {**DEFAULTS, "max.message.bytes": str(cluster.message_max_bytes)}
    code, message = plan.code or 0, ""
    if resource.resource_type == TOPIC:
        topic = cluster.topics.get(resource.resource_name)
        if not LEGAL_NAME.fullmatch(resource.resource_name):
            code, message = code or INVALID_TOPIC, "no legal name"
        elif topic is None:
            code, message = code or UNKNOWN_TOPIC_OR_PARTITION, "no such topic"
        else:
            own = topic.configs
    elif resource.resource_type == BROKER and resource.resource_name == str(connection.broker.number):
        defaults = {
            "auto.create.topics.enable": "true" if cluster.auto_create_topics else "false",
            "message.max.bytes": str(cluster.message_max_bytes),
            "min.insync.replicas": DEFAULTS["min.insync.replicas"],
        }
    else:
        code = code or INVALID_REQUEST
        message = f"resource type {resource.resource_type}, {resource.resource_name!r} is not described here"
    wanted = resource.configuration_keys
    values = {name: value for name, value in {**defaults, **own}.items() if wanted is None or name in wanted}
    return {
        "error_code": code,
        "error_message": message,
        "resource_type": resource.resource_type,
        "resource_name": resource.resource_name,
        "configs": []
        if code
        else [
            {
                "name": name,
                "value": value,
                "read_only": False,
                "config_source": TOPIC_CONFIG if name in own else DEFAULT_CONFIG,
                "is_sensitive": False,
                "synonyms": [],
                "config_type": 0,
                "documentation": None,
            }
            for name, value in sorted(values.items())
        ],
    }
