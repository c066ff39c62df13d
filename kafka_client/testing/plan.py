"""What all faults together do to one request: filled by `kafka_client.testing.faults`, carried out by the brokers."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import trio

__all__ = ["PartitionAnswer", "Plan"]


@dataclass(slots=True)
class PartitionAnswer:
    """What a batch is answered instead of the truth."""

    code: int
    append: bool
    message: str | None
    record_errors: Sequence[tuple[int, str | None]]
    leader: tuple[int, int] | None
    base_offset: int | None


@dataclass(slots=True)
class Plan:
    """What all faults together do to one request."""

    travel_s: float = 0.0
    busy_s: float = 0.0
    replicas_s: float = 0.0
    close_before: bool = False
    close_after: bool = False
    reset: bool = False
    skip_processing: bool = False
    gates: list[trio.Event] = field(default_factory=list)
    code: int | None = None
    partitions: dict[tuple[str, int], PartitionAnswer] = field(default_factory=dict)
    omit: set[tuple[str, int]] = field(default_factory=set)
    repeat: set[tuple[str, int]] = field(default_factory=set)
    throttle_ms: int = 0
    unknown_tags: bool = False
    body: bytes | None = None
    truncate_bytes: int | None = None
    correlation_shift: int = 0
    chunk_bytes: int | None = None
    chunk_interval_s: float = 0.0
    no_brokers: bool = False
    no_partitions: bool = False
    identity: tuple[int | None, int] | None = None
    zero_topic_ids: bool = False
