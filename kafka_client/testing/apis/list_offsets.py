"""ListOffsets (2), versions 1 to 10: earliest (-2), latest (-1), newest (-3), or the first not older."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Protocol, cast

from kafka_client.testing.apis.call import Call
from kafka_client.testing.messages import Api, Header, Value, decode_request
from kafka_client.testing.plan import Plan
from kafka_client.testing.seen import RequestSeen

if TYPE_CHECKING:
    from kafka_client.testing.connection import Connection

UNKNOWN_TOPIC_OR_PARTITION = 3
NOT_LEADER_OR_FOLLOWER = 6


class _Partition(Protocol):
    partition_index: int
    timestamp: int


class _Topic(Protocol):
    name: str
    partitions: Sequence[_Partition]


class _Request(Protocol):
    topics: Sequence[_Topic]


def read(connection: "Connection", request: RequestSeen, frame: bytes, header: Header) -> Call:
    """Decode, and return the call."""
    body = cast("_Request", decode_request(Api.LIST_OFFSETS, request.version, frame, header.body_at))

    def serve(plan: Plan) -> Mapping[str, Value]:
        return {
            "throttle_time": 0,
            "topics": [
                {
                    "name": topic.name,
                    "partitions": [_partition(connection, topic.name, part, plan) for part in topic.partitions],
                }
                for topic in body.topics
            ],
        }

    return Call(serve)


def _partition(connection: "Connection", name: str, part: _Partition, plan: Plan) -> Mapping[str, Value]:
    topic = connection.cluster.topics.get(name)
    code, timestamp, offset, epoch = 0, -1, -1, -1
    if topic is None or not 0 <= part.partition_index < len(topic.partitions):
        code = UNKNOWN_TOPIC_OR_PARTITION
    elif topic.partitions[part.partition_index].leader != connection.broker.number:
        code = NOT_LEADER_OR_FOLLOWER
    elif plan.code is None:
        log = topic.partitions[part.partition_index].log
        epoch = topic.partitions[part.partition_index].leader_epoch
        match part.timestamp:
            case -2:
                offset = log.start_offset
            case -1:
                offset = log.end_offset
            case -3:
                timestamp, offset = log.newest()
            case wanted:
                timestamp, offset = log.offset_at(wanted)
    return {
        "partition_index": part.partition_index,
        "error_code": plan.code if plan.code is not None else code,
        "timestamp": timestamp,
        "offset": offset,
        "leader_epoch": epoch,
    }
