"""ListOffsets (2), versions 1 to 10: earliest (-2, -4), latest (-1), newest (-3), tiered (-5, none), or the
first record not older.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Protocol, cast

from kafka_client.testing.apis.call import Call
from kafka_client.testing.messages import Api, Header, Value, decode_request
from kafka_client.testing.plan import Plan
from kafka_client.testing.seen import RequestSeen

if TYPE_CHECKING:
    from kafka_client.testing.connection import Connection
    from kafka_client.testing.parts import FakePartition

UNKNOWN_TOPIC_OR_PARTITION = 3
UNSUPPORTED_VERSION = 35
LATEST_TIERED = -5


class _Partition(Protocol):
    partition_index: int
    current_leader_epoch: int
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
    if plan.code is not None:
        code = plan.code
    elif topic is None or not 0 <= part.partition_index < len(topic.partitions):
        code = UNKNOWN_TOPIC_OR_PARTITION
    else:
        partition = topic.partitions[part.partition_index]
        code = partition.refusal(connection.broker.number, getattr(part, "current_leader_epoch", -1))
        if not code and part.timestamp < LATEST_TIERED:
            code = UNSUPPORTED_VERSION
        if not code:
            timestamp, offset = _find(partition, part.timestamp)
            epoch = -1 if offset == -1 else partition.leader_epoch
    return {
        "partition_index": part.partition_index,
        "error_code": code,
        "timestamp": timestamp,
        "offset": offset,
        "leader_epoch": epoch,
    }


def _find(partition: "FakePartition", wanted: int) -> tuple[int, int]:
    log = partition.log
    match wanted:
        case -2 | -4:
            return -1, log.start_offset
        case -1:
            return -1, partition.high_watermark
        case -3:
            return log.newest()
        case -5:
            return -1, -1  # nothing is tiered
        case _:
            return log.offset_at(wanted)
