"""Fetch (1), versions 4 to 18: batches from an offset on; waits up to ``max_wait`` for ``min_bytes``.

As on Apache Kafka the last batch may be cut off at the limit; the first one never is.

No fetch sessions (every answer says session 0, so a client sends full requests), no replicas, no transactions.
"""

import datetime
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Protocol, cast
from uuid import UUID

from kafka_client.testing.apis.call import Call
from kafka_client.testing.messages import Api, Header, Value, decode_request
from kafka_client.testing.plan import Plan
from kafka_client.testing.seen import RequestSeen

if TYPE_CHECKING:
    from kafka_client.testing.connection import Connection
    from kafka_client.testing.parts import FakeTopic

OFFSET_OUT_OF_RANGE = 1
UNKNOWN_TOPIC_OR_PARTITION = 3
UNKNOWN_TOPIC_ID = 100
#: KIP-392.
FIRST_VERSION_FROM_FOLLOWERS = 11
#: NOT_LEADER_OR_FOLLOWER and FENCED_LEADER_EPOCH name the leader (KIP-951).
HINTED = (6, 74)
FIRST_VERSION_WITH_HINTS = 16


class _Partition(Protocol):
    partition: int
    current_leader_epoch: int
    fetch_offset: int
    partition_max_bytes: int


class _Topic(Protocol):
    topic: str
    topic_id: UUID | None
    partitions: Sequence[_Partition]


class _Request(Protocol):
    max_wait: datetime.timedelta
    min_bytes: int
    max_bytes: int
    topics: Sequence[_Topic]


def read(connection: "Connection", request: RequestSeen, frame: bytes, header: Header) -> Call:
    """Decode, and return the call."""
    body = cast("_Request", decode_request(Api.FETCH, request.version, frame, header.body_at))
    cluster = connection.cluster
    by_id = request.version >= 13
    followers = request.version >= FIRST_VERSION_FROM_FOLLOWERS

    def collect(plan: Plan) -> tuple[list[Value], int, bool, set[int]]:
        room = body.max_bytes
        size = 0
        failed = False
        leaders: set[int] = set()
        topics: list[Value] = []
        for wanted in body.topics:
            topic = cluster.topic_by_id(wanted.topic_id) if by_id else cluster.topics.get(wanted.topic)
            parts: list[Value] = []
            for part in wanted.partitions:
                code, records, end, start = _partition(
                    connection,
                    topic,
                    part,
                    room,
                    UNKNOWN_TOPIC_ID if by_id else 3,
                    whole=size == 0,
                    followers=followers,
                )
                code = plan.code if plan.code is not None and request.version < 7 else code
                failed |= code != 0
                size += len(records)
                room = max(0, room - len(records))
                hint: dict[str, Value] = {}
                if topic is not None and code in HINTED:
                    leader, epoch = topic.partitions[part.partition].advertised
                    hint = {"current_leader": {"leader_id": -1 if leader is None else leader, "leader_epoch": epoch}}
                    leaders |= set() if leader is None else {leader}
                parts.append(
                    {
                        **(hint if request.version >= FIRST_VERSION_WITH_HINTS else {}),
                        "partition_index": part.partition,
                        "error_code": code,
                        "high_watermark": end,
                        "last_stable_offset": end,
                        "log_start_offset": start,
                        # Kafka says "none" of a partition, and nothing of one that is not there.
                        "aborted_transactions": [] if code in (UNKNOWN_TOPIC_OR_PARTITION, UNKNOWN_TOPIC_ID) else None,
                        "records": records,
                    }
                )
            topics.append(
                {
                    "topic": None if by_id else wanted.topic,
                    "topic_id": wanted.topic_id if by_id else None,
                    "partitions": parts,
                }
            )
        return topics, size, failed, leaders

    def serve(plan: Plan) -> Mapping[str, Value]:
        topics, _size, _failed, leaders = collect(plan)
        whole: Mapping[str, Value] = {
            "throttle_time": 0,
            "error_code": plan.code or 0,
            "session_id": 0,
            "responses": topics,
        }
        endpoints = connection.endpoints(leaders)
        return {**whole, "node_endpoints": endpoints} if endpoints else whole

    def ready() -> bool:
        _topics, size, failed, _leaders = collect(Plan())
        return failed or size >= body.min_bytes

    return Call(serve, ready, body.max_wait.total_seconds())


def _partition(
    connection: "Connection",
    topic: "FakeTopic | None",
    part: _Partition,
    room: int,
    unknown: int,
    *,
    whole: bool,
    followers: bool,
) -> tuple[int, bytes, int, int]:
    """(code, records, end offset, start offset)."""
    if topic is None:
        return unknown, b"", -1, -1
    if not 0 <= part.partition < len(topic.partitions):
        return UNKNOWN_TOPIC_OR_PARTITION, b"", -1, -1
    partition = topic.partitions[part.partition]
    if code := partition.refusal(
        connection.broker.number, getattr(part, "current_leader_epoch", -1), followers=followers
    ):
        return code, b"", -1, -1
    log = partition.log
    if not log.start_offset <= part.fetch_offset <= partition.high_watermark:
        return OFFSET_OUT_OF_RANGE, b"", -1, -1
    room = min(part.partition_max_bytes, room)
    records = log.read(part.fetch_offset, room, whole=whole, before=partition.high_watermark)
    return 0, records, partition.high_watermark, log.start_offset
