"""How a Produce answer is put together: what was found out, what a fault says instead, and where the leader is.

Owns: the answer's members. Refuses to know how a batch is judged.

Invariant: an error found before the append is answered with ``base_offset`` -1, one told after it with the true one,
unless a fault says otherwise. The message goes into the answer where Kafka puts it there: not beside most codes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING
from uuid import UUID

from kafka_client.testing.batches import BatchRejected, ParsedBatch, Stage
from kafka_client.testing.messages import Value
from kafka_client.testing.plan import PartitionAnswer, Plan
from kafka_client.testing.seen import BatchSeen

if TYPE_CHECKING:
    from kafka_client.testing.connection import Connection
    from kafka_client.testing.parts import FakePartition, FakeTopic

__all__ = ["Piece", "answer_pieces", "answer_whole"]

NOT_LEADER_OR_FOLLOWER = 6


@dataclass(slots=True)
class Piece:
    """One partition's part of the request. ``partition`` is set once a leader has been found here."""

    topic_id: UUID | None
    topic: "FakeTopic | None"
    index: int
    data: bytes
    batch: ParsedBatch | BatchRejected
    seen: BatchSeen
    partition: "FakePartition | None" = None
    log_append_time_ms: int = -1
    rejected: BatchRejected | None = None
    leader_epoch: int = -1
    end_offset: int | None = None


def answer_whole(
    piece: Piece, rejected: BatchRejected | None, told: PartitionAnswer | None = None
) -> Mapping[str, Value]:
    """One partition's answer; notes in ``piece.seen`` what it says."""
    code = rejected.code if rejected is not None else told.code if told is not None else 0
    piece.seen.error_code = code
    piece.seen.message = rejected.message if rejected is not None else told.message if told is not None else None
    silent = rejected is not None and not rejected.told
    start_told = piece.partition is not None and (rejected is None or rejected.stage is Stage.LOG)
    answer: dict[str, Value] = {
        "index": piece.index,
        "error_code": code,
        "base_offset": piece.seen.base_offset if told is None or told.base_offset is None else told.base_offset,
        "log_append_time": piece.log_append_time_ms,
        "log_start_offset": piece.partition.log.start_offset if start_told and piece.partition is not None else -1,
        "record_errors": [
            {"batch_index": index, "batch_index_error_message": message}
            for index, message in (rejected.records if rejected is not None else ())
        ],
        "error_message": None if silent else piece.seen.message,
    }
    if (leader := _current_leader(piece, code, told)) is not None:
        answer["current_leader"] = {"leader_id": leader[0], "leader_epoch": leader[1]}
    return answer


def _current_leader(piece: Piece, code: int, told: PartitionAnswer | None) -> tuple[int, int] | None:
    if told is not None and told.leader is not None:
        return told.leader
    if code != NOT_LEADER_OR_FOLLOWER or piece.topic is None or told is not None:
        return None
    if not 0 <= piece.index < len(piece.topic.partitions):
        return None
    leader, epoch = piece.topic.partitions[piece.index].advertised
    return None if leader is None else (leader, epoch)


def answer_pieces(
    connection: "Connection", answers: Sequence[tuple[Piece, Mapping[str, Value]]], plan: Plan
) -> Mapping[str, Value]:
    """The whole answer, with the addresses of the leaders that it names (KIP-951)."""
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
    if endpoints := connection.endpoints(leaders):
        whole["node_endpoints"] = endpoints
    return whole
