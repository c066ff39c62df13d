"""Produce (0), versions 3 to 13: strict checks, idempotent append, and the lies that faults tell about it.

Topics go by name up to version 12, by id from 13. acks must be -1 unless the cluster was told otherwise. As on Apache
Kafka, ``base_offset`` is -1 where nothing was appended and the true one where an error is answered after the append.
"""

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, cast
from uuid import UUID

from kafka_client.testing.apis.call import Call
from kafka_client.testing.batches import BatchRejected, ParsedBatch, parse_produced
from kafka_client.testing.messages import Api, BadRequest, Header, Value, decode_request
from kafka_client.testing.plan import PartitionAnswer, Plan
from kafka_client.testing.seen import BatchSeen, RequestSeen

if TYPE_CHECKING:
    from kafka_client.testing.connection import Connection
    from kafka_client.testing.parts import FakePartition, FakeTopic

UNKNOWN_TOPIC_OR_PARTITION = 3
NOT_LEADER_OR_FOLLOWER = 6
MESSAGE_TOO_LARGE = 10
INVALID_REQUIRED_ACKS = 21
UNKNOWN_TOPIC_ID = 100


class _Partition(Protocol):
    index: int
    records: bytes | None


class _Topic(Protocol):
    topic_id: UUID | None
    name: str
    partition_data: Sequence[_Partition]


class _Request(Protocol):
    transactional_id: str | None
    acks: int
    timeout: datetime.timedelta
    topic_data: Sequence[_Topic]


@dataclass(slots=True)
class _Piece:
    """One partition's part of the request."""

    topic_id: UUID | None
    topic: "FakeTopic | None"
    index: int
    size: int
    batch: ParsedBatch | BatchRejected
    seen: BatchSeen


def read(connection: "Connection", request: RequestSeen, frame: bytes, header: Header) -> Call:
    """Decode, note every batch, and return the call."""
    body = cast("_Request", decode_request(Api.PRODUCE, request.version, frame, header.body_at))
    if body.transactional_id is not None:
        raise BadRequest("the fake has no transactions")
    cluster = connection.cluster
    request.acks = body.acks
    request.timeout_ms = round(body.timeout.total_seconds() * 1000)
    pieces: list[_Piece] = []
    for wanted in body.topic_data:
        topic_id = wanted.topic_id if request.version >= 13 else None
        topic = cluster.topic_by_id(topic_id) if request.version >= 13 else cluster.topics.get(wanted.name)
        name = topic.name if topic is not None else f"id {topic_id}" if request.version >= 13 else wanted.name
        for part in wanted.partition_data:
            piece = _piece(connection, request, topic_id, topic, name, part)
            if any((name, part.index) == (each.seen.topic, each.index) for each in pieces):
                raise BadRequest(f"{name}-{part.index} stands twice in one Produce request")
            pieces.append(piece)
            request.batches.append(piece.seen)
            cluster.seen.count_attempt(piece.seen)

    def serve(plan: Plan) -> Mapping[str, Value] | None:
        answers = [(piece, _serve_piece(connection, request, piece, plan)) for piece in pieces]
        if request.acks == 0:
            if any(piece.seen.error_code for piece in pieces):
                connection.close()
            return None
        return _answer(connection, answers, plan)

    return Call(serve)


def _piece(
    connection: "Connection",
    request: RequestSeen,
    topic_id: UUID | None,
    topic: "FakeTopic | None",
    name: str,
    part: _Partition,
) -> _Piece:
    data = None if part.records is None else bytes(part.records)
    cluster = connection.cluster
    earliest_ms, latest_ms = cluster.timestamp_window_ms()
    seen = BatchSeen(name, part.index, size_bytes=len(data or b""))
    batch: ParsedBatch | BatchRejected
    try:
        batch = parse_produced(data, produce_version=request.version, earliest_ms=earliest_ms, latest_ms=latest_ms)
    except BatchRejected as rejected:
        cluster.seen.violations.append(f"connection {connection.number}: {name}-{part.index}: {rejected.message}")
        batch = rejected
    else:
        seen.producer_id, seen.epoch, seen.base_sequence = batch.producer_id, batch.producer_epoch, batch.base_sequence
        seen.count = len(batch.records)
        seen.codec = batch.codec
        seen.values = tuple(record.value for record in batch.records)
        if batch.producer_id >= 0 and not cluster.handed_out(batch.producer_id):
            cluster.seen.violations.append(
                f"connection {connection.number}: producer id {batch.producer_id} was never handed out"
            )
    return _Piece(topic_id, topic, part.index, len(data or b""), batch, seen)


def _serve_piece(connection: "Connection", request: RequestSeen, piece: _Piece, plan: Plan) -> Mapping[str, Value]:
    told = plan.partitions.get((piece.seen.topic, piece.index))
    rejected: BatchRejected | None = None
    partition: FakePartition | None = None
    log_append_time_ms = -1
    try:
        if told is not None and not told.append:
            raise BatchRejected(told.code, told.message or "a fault of the test", tuple(told.record_errors))
        partition = _find_partition(connection, request, piece)
        if isinstance(piece.batch, BatchRejected):
            raise piece.batch
        appended = partition.log.append(piece.batch, partition.leader_epoch)
        piece.seen.base_offset = appended.base_offset
        log_append_time_ms = appended.log_append_time_ms
        piece.seen.appended, piece.seen.duplicate = not appended.duplicate, appended.duplicate
    except BatchRejected as error:
        rejected = error
    code = told.code if told is not None and rejected is None else rejected.code if rejected is not None else 0
    piece.seen.error_code = code
    piece.seen.message = rejected.message if rejected is not None else told.message if told is not None else None
    base_offset = piece.seen.base_offset if told is None or told.base_offset is None else told.base_offset
    answer: dict[str, Value] = {
        "index": piece.index,
        "error_code": code,
        "base_offset": base_offset,
        "log_append_time": log_append_time_ms,
        "log_start_offset": -1 if partition is None or rejected is not None else partition.log.start_offset,
        "record_errors": [
            {"batch_index": index, "batch_index_error_message": message}
            for index, message in (rejected.records if rejected is not None else ())
        ],
        "error_message": piece.seen.message,
    }
    if (leader := _current_leader(piece, code, told)) is not None:
        answer["current_leader"] = {"leader_id": leader[0], "leader_epoch": leader[1]}
    return answer


def _find_partition(connection: "Connection", request: RequestSeen, piece: _Piece) -> "FakePartition":
    if request.acks != -1 and (connection.cluster.strict_acks or request.acks not in (0, 1)):
        raise BatchRejected(INVALID_REQUIRED_ACKS, f"acks is {request.acks}, an idempotent producer needs -1")
    if piece.topic is None:
        code = UNKNOWN_TOPIC_ID if request.version >= 13 else UNKNOWN_TOPIC_OR_PARTITION
        raise BatchRejected(code, f"topic {piece.seen.topic} does not exist")
    if not 0 <= piece.index < len(piece.topic.partitions):
        raise BatchRejected(UNKNOWN_TOPIC_OR_PARTITION, f"{piece.topic.name} has no partition {piece.index}")
    partition = piece.topic.partitions[piece.index]
    if partition.leader != connection.broker.number:
        raise BatchRejected(
            NOT_LEADER_OR_FOLLOWER, f"the leader of {piece.topic.name}-{piece.index} is {partition.leader}"
        )
    if piece.size > connection.cluster.message_max_bytes:
        raise BatchRejected(
            MESSAGE_TOO_LARGE,
            f"{piece.size} bytes are more than message.max.bytes {connection.cluster.message_max_bytes}",
        )
    return partition


def _current_leader(piece: _Piece, code: int, told: PartitionAnswer | None) -> tuple[int, int] | None:
    if told is not None and told.leader is not None:
        return told.leader
    if code != NOT_LEADER_OR_FOLLOWER or piece.topic is None or told is not None:
        return None
    if not 0 <= piece.index < len(piece.topic.partitions):
        return None
    leader, epoch = piece.topic.partitions[piece.index].advertised
    return None if leader is None else (leader, epoch)


def _answer(
    connection: "Connection", answers: Sequence[tuple[_Piece, Mapping[str, Value]]], plan: Plan
) -> Mapping[str, Value]:
    by_topic: dict[tuple[str, UUID | None], list[Value]] = {}
    leaders: set[int] = set()
    for piece, answer in answers:
        place = (piece.seen.topic, piece.index)
        if place in plan.omit:
            continue
        parts = by_topic.setdefault((piece.seen.topic, piece.topic_id), [])
        parts.extend([answer] * (2 if place in plan.repeat else 1))
        current = answer.get("current_leader")
        if isinstance(current, Mapping) and isinstance(current["leader_id"], int):
            leaders.add(current["leader_id"])
    whole: dict[str, Value] = {
        "responses": [
            {"name": name, "topic_id": topic_id, "partition_responses": parts}
            for (name, topic_id), parts in by_topic.items()
        ],
        "throttle_time": 0,
    }
    known = [connection.cluster.brokers[number] for number in sorted(leaders) if number in connection.cluster.brokers]
    if known:
        whole["node_endpoints"] = [
            {"node_id": broker.number, "host": host, "port": port, "rack": broker.rack}
            for broker in known
            for host, port in [broker.address(tcp=connection.tcp)]
        ]
    return whole
