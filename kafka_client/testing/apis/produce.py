"""Produce (0), versions 3 to 13: strict checks, idempotent append, and the lies that faults tell about it.

Owns: the order of the checks, which is Kafka's (KafkaApis.handleProduceRequest, ReplicaManager.appendRecordsToLeader,
UnifiedLog.append). Refuses to know how the answer is put together: `kafka_client.testing.apis.produce_answer` does.

Topics go by name up to version 12, by id from 13. acks must be -1 unless the cluster was told otherwise. As on Apache
Kafka, ``base_offset`` is -1 where nothing was appended and the true one where an error is answered after the append.
"""

import datetime
import struct
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Protocol, cast
from uuid import UUID

from kafka_client.testing.apis.call import Call
from kafka_client.testing.apis.produce_answer import Piece, answer_pieces, answer_whole
from kafka_client.testing.batches import LENGTH_PREFIX, BatchRejected, ParsedBatch, Stage, read_batch, validate
from kafka_client.testing.messages import Api, BadRequest, Header, Value, decode_request
from kafka_client.testing.plan import PartitionAnswer, Plan
from kafka_client.testing.seen import BatchSeen, RequestSeen

if TYPE_CHECKING:
    from kafka_client.testing.connection import Connection
    from kafka_client.testing.parts import FakePartition, FakeTopic

UNKNOWN_TOPIC_OR_PARTITION = 3
NOT_LEADER_OR_FOLLOWER = 6
REQUEST_TIMED_OUT = 7
MESSAGE_TOO_LARGE = 10
NOT_ENOUGH_REPLICAS = 19
NOT_ENOUGH_REPLICAS_AFTER_APPEND = 20
INVALID_REQUIRED_ACKS = 21
INVALID_RECORD = 87
UNKNOWN_TOPIC_ID = 100
ALL_IN_SYNC = -1


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


def read(connection: "Connection", request: RequestSeen, frame: bytes, header: Header) -> Call:
    """Decode, note every batch, and return the call."""
    body = cast("_Request", decode_request(Api.PRODUCE, request.version, frame, header.body_at))
    if body.transactional_id is not None:
        raise BadRequest("the fake has no transactions")
    cluster = connection.cluster
    request.acks = body.acks
    request.timeout_ms = round(body.timeout.total_seconds() * 1000)
    pieces: dict[tuple[str, int], Piece] = {}
    for wanted in body.topic_data:
        topic_id = wanted.topic_id if request.version >= 13 else None
        topic = cluster.topic_by_id(topic_id) if request.version >= 13 else cluster.topics.get(wanted.name)
        name = topic.name if topic is not None else f"id {topic_id}" if request.version >= 13 else wanted.name
        for part in wanted.partition_data:
            if (name, part.index) in pieces:  # Kafka keeps the last one and says nothing
                _violate(connection, f"{name}-{part.index} stands twice in one Produce request")
            piece = _piece(connection, request, topic_id, topic, name, part)
            pieces[name, part.index] = piece
            cluster.seen.count_attempt(piece.seen)
    request.batches.extend(piece.seen for piece in pieces.values())

    def answers(plan: Plan) -> Sequence[tuple[Piece, Mapping[str, Value]]]:
        return [(piece, _conclude(connection, piece, plan)) for piece in pieces.values()]

    def serve(plan: Plan) -> Mapping[str, Value] | None:
        wrong = _wrong_request(pieces.values())
        if wrong is not None:
            found = [(piece, answer_whole(piece, wrong)) for piece in pieces.values()]
        else:
            found = [(piece, _serve_piece(connection, request, piece, plan)) for piece in pieces.values()]
        if request.acks == 0:
            if any(piece.seen.error_code for piece in pieces.values()):
                connection.close()
            return None
        return answer_pieces(connection, found, plan)

    return Call(
        serve,
        waiting=lambda: request.acks == ALL_IN_SYNC and any(_waits(connection, piece) for piece in pieces.values()),
        conclude_s=request.timeout_ms / 1000,
        conclude=lambda plan: answer_pieces(connection, answers(plan), plan),
    )


def _lost(connection: "Connection", piece: Piece) -> int:
    """What became of the partition since the append: an error that does not mean "not appended" (DelayedProduce)."""
    assert piece.partition is not None
    assert piece.topic is not None
    if connection.cluster.topics.get(piece.topic.name) is not piece.topic:
        return UNKNOWN_TOPIC_OR_PARTITION
    if (piece.partition.leader, piece.partition.leader_epoch) != (connection.broker.number, piece.leader_epoch):
        return NOT_LEADER_OR_FOLLOWER
    if len(piece.partition.isr) < piece.topic.min_insync(piece.partition):
        return NOT_ENOUGH_REPLICAS_AFTER_APPEND
    return 0


def _waits(connection: "Connection", piece: Piece) -> bool:
    """Whether its records are appended here, and not yet by the other replicas in sync."""
    held = piece.end_offset is not None and piece.partition is not None
    return held and not _lost(connection, piece) and _behind(piece)


def _behind(piece: Piece) -> bool:
    return (
        piece.partition is not None
        and piece.end_offset is not None
        and piece.partition.high_watermark < piece.end_offset
    )


def _conclude(connection: "Connection", piece: Piece, plan: Plan) -> Mapping[str, Value]:
    told = plan.partitions.get((piece.seen.topic, piece.index))
    rejected = piece.rejected
    if told is None and rejected is None and piece.end_offset is not None:
        code = _lost(connection, piece) or (REQUEST_TIMED_OUT if _behind(piece) else 0)
        if code:
            rejected = BatchRejected(code, "after the append", stage=Stage.LOG)
    return answer_whole(piece, rejected, told)


def _violate(connection: "Connection", what: str) -> None:
    connection.cluster.seen.violations.append(f"connection {connection.number}: {what}")


def _wrong_request(pieces: "Sequence[Piece] | object") -> BatchRejected | None:
    """The first batch with which no batch of the request is looked at."""
    for piece in cast("Sequence[Piece]", pieces):
        if isinstance(piece.batch, BatchRejected) and piece.batch.stage is Stage.REQUEST:
            return piece.batch
    return None


def _piece(
    connection: "Connection",
    request: RequestSeen,
    topic_id: UUID | None,
    topic: "FakeTopic | None",
    name: str,
    part: _Partition,
) -> Piece:
    if part.records is None:
        # Kafka 4.1 falls over this and never answers.
        raise BadRequest(f"{name}-{part.index} has no records at all")
    data = bytes(part.records)
    seen = BatchSeen(name, part.index, size_bytes=len(data))
    batch: ParsedBatch | BatchRejected
    try:
        batch = read_batch(data, request.version)
    except BatchRejected as rejected:
        _violate(connection, f"{name}-{part.index}: {rejected.message}")
        batch = rejected
    else:
        for oddity in batch.oddities:
            _violate(connection, f"{name}-{part.index}: {oddity}")
        seen.producer_id, seen.epoch, seen.base_sequence = batch.producer_id, batch.producer_epoch, batch.base_sequence
        seen.count = len(batch.records)
        seen.codec = batch.codec
        seen.values = tuple(record.value for record in batch.records)
        if batch.producer_id >= 0 and not connection.cluster.handed_out(batch.producer_id):
            _violate(connection, f"producer id {batch.producer_id} was never handed out")
    return Piece(topic_id, topic, part.index, data, batch, seen)


def _serve_piece(connection: "Connection", request: RequestSeen, piece: Piece, plan: Plan) -> Mapping[str, Value]:
    told = plan.partitions.get((piece.seen.topic, piece.index))
    rejected: BatchRejected | None = None
    try:
        if told is not None and not told.append:
            raise _as_told(told)
        piece.partition = _find_partition(connection, request, piece)
        _append(connection, piece)
    except BatchRejected as error:
        rejected = piece.rejected = error
    answer = answer_whole(piece, rejected, told)
    hinted = told is None and "current_leader" in answer
    if hinted and piece.topic is not None and piece.topic.partitions[piece.index].lying:
        request.faults.append(f"advertise({piece.topic.name}-{piece.index})")
    return answer


def _as_told(told: PartitionAnswer) -> BatchRejected:
    message = told.message or "a fault of the test"
    return BatchRejected(told.code, message, tuple(told.record_errors), told=told.message is not None)


def _find_partition(connection: "Connection", request: RequestSeen, piece: Piece) -> "FakePartition":
    if piece.topic is None:
        code = UNKNOWN_TOPIC_ID if request.version >= 13 else UNKNOWN_TOPIC_OR_PARTITION
        raise BatchRejected(code, f"topic {piece.seen.topic} does not exist")
    if not 0 <= piece.index < len(piece.topic.partitions):
        raise BatchRejected(UNKNOWN_TOPIC_OR_PARTITION, f"{piece.topic.name} has no partition {piece.index}")
    if isinstance(piece.batch, BatchRejected) and piece.batch.stage is Stage.PARTITION:
        raise piece.batch
    if request.acks != ALL_IN_SYNC and (connection.cluster.strict_acks or request.acks not in (0, 1)):
        raise BatchRejected(INVALID_REQUIRED_ACKS, f"acks is {request.acks}, an idempotent producer needs -1")
    partition = piece.topic.partitions[piece.index]
    if partition.leader != connection.broker.number:
        raise BatchRejected(
            NOT_LEADER_OR_FOLLOWER, f"the leader of {piece.topic.name}-{piece.index} is {partition.leader}"
        )
    if request.acks == ALL_IN_SYNC and len(partition.isr) < piece.topic.min_insync(partition):
        raise BatchRejected(NOT_ENOUGH_REPLICAS, f"in sync are only {sorted(partition.isr)}", stage=Stage.LOG)
    return partition


def _append(connection: "Connection", piece: Piece) -> None:
    """Append or recognise; raises `BatchRejected`."""
    assert piece.topic is not None
    assert piece.partition is not None
    rules = connection.cluster.rules_of(piece.topic)
    base_offset, length = struct.unpack_from(">qi", piece.data)
    if base_offset != 0:
        raise BatchRejected(INVALID_RECORD, f"the base offset should be 0, but it is {base_offset}", stage=Stage.LOG)
    if length + LENGTH_PREFIX > rules.max_bytes:
        raise BatchRejected(
            MESSAGE_TOO_LARGE,
            f"{length + LENGTH_PREFIX} bytes are more than max.message.bytes {rules.max_bytes}",
            stage=Stage.APPEND,
        )
    if isinstance(piece.batch, BatchRejected):
        raise piece.batch
    validate(piece.batch, rules)
    appended = piece.partition.log.append(piece.batch, piece.partition.leader_epoch, rules.append_time_ms)
    piece.log_append_time_ms = appended.log_append_time_ms
    piece.seen.base_offset = appended.base_offset
    piece.leader_epoch = piece.partition.leader_epoch
    piece.end_offset = appended.base_offset + len(piece.batch.records)
    piece.seen.appended, piece.seen.duplicate = not appended.duplicate, appended.duplicate
