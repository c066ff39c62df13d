"""One partition's log, with the idempotence rules of Apache Kafka.

Owns: the records appended, their offsets, and for each producer id its epoch and last five batches. Refuses to know
connections, leaders and time.

Invariant: a batch is appended whole and once; the same (epoch, first sequence, last sequence) among the last five of
its producer is answered with the offset it has.

Non-obvious, and all as in the broker (ProducerAppendInfo.checkSequence, ProducerStateEntry.findDuplicateBatch):
* Duplicates are looked for before epoch and order are checked, by the *exact* range: a batch sent again with one record
  less is no duplicate.
* With no state for the producer id, any first sequence is taken.
* A repeat older than the last five is OUT_OF_ORDER_SEQUENCE_NUMBER; brokers of today never answer
  DUPLICATE_SEQUENCE_NUMBER by themselves (a fault can).
"""

import struct
from collections import deque
from dataclasses import dataclass, field

import crc32c

from kafka_client.testing.batches import CRC_FROM, LOG_APPEND_TIME, BatchRejected, Headers, ParsedBatch, Stage

__all__ = ["Appended", "PartitionLog", "StoredBatch", "StoredRecord"]

OUT_OF_ORDER_SEQUENCE_NUMBER = 45
INVALID_PRODUCER_EPOCH = 47
BATCHES_REMEMBERED = 5
LAST_SEQUENCE = 2**31 - 1


@dataclass(frozen=True, slots=True)
class StoredRecord:
    """One record as it stands in the log. ``producer_id``, ``epoch`` and ``sequence`` are -1 without idempotence."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: Headers
    timestamp_ms: int
    producer_id: int
    epoch: int
    sequence: int


@dataclass(frozen=True, slots=True)
class StoredBatch:
    """One batch as it stands in the log; ``raw`` is what Fetch returns."""

    base_offset: int
    last_offset: int
    max_timestamp_ms: int
    raw: bytes
    records: tuple[StoredRecord, ...]


@dataclass(frozen=True, slots=True)
class Appended:
    """What an append came to.

    Attributes:
        base_offset: Of its first record.
        duplicate: It had been there before.
        log_append_time_ms: Of a topic with LogAppendTime. A repeated batch is answered with its highest timestamp,
            whatever the topic says (ProducerStateManager keeps no other), else -1.
    """

    base_offset: int
    duplicate: bool
    log_append_time_ms: int = -1


@dataclass(frozen=True, slots=True)
class _Known:
    """What is remembered of one batch."""

    first: int
    last: int
    base_offset: int
    timestamp_ms: int


@dataclass(slots=True)
class _Producer:
    epoch: int
    batches: deque[_Known] = field(default_factory=lambda: deque(maxlen=BATCHES_REMEMBERED))


class PartitionLog:
    """The log of one partition, shared by all its replicas: nothing acknowledged is ever lost here."""

    def __init__(self, topic: str, partition: int) -> None:
        self.topic = topic
        self.partition = partition
        self.start_offset = 0
        self.end_offset = 0
        self.batches: list[StoredBatch] = []
        self._producers: dict[int, _Producer] = {}

    def __repr__(self) -> str:
        return f"<PartitionLog {self.topic}-{self.partition} {self.start_offset}…{self.end_offset}>"

    @property
    def records(self) -> list[StoredRecord]:
        """Every record, in order."""
        return [record for batch in self.batches for record in batch.records]

    def append(self, batch: ParsedBatch, leader_epoch: int, append_time_ms: int | None = None) -> Appended:
        """Append or recognise; raises `BatchRejected` with OUT_OF_ORDER_SEQUENCE_NUMBER or INVALID_PRODUCER_EPOCH.

        Args:
            append_time_ms: The time to write into every record (LogAppendTime); None keeps the producer's.
        """
        if batch.producer_id >= 0:
            known = self._producers.get(batch.producer_id)
            if known is not None:
                if (repeated := self._find_duplicate(known, batch)) is not None:
                    return Appended(repeated.base_offset, True, repeated.timestamp_ms)
                self._check_sequence(known, batch)
            if known is None or known.epoch != batch.producer_epoch:
                known = self._producers[batch.producer_id] = _Producer(batch.producer_epoch)
            timestamp_ms = batch.max_timestamp_ms if append_time_ms is None else append_time_ms
            known.batches.append(_Known(batch.base_sequence, batch.last_sequence, self.end_offset, timestamp_ms))
        stored_at = self._store(batch, leader_epoch, append_time_ms)
        return Appended(stored_at, False, -1 if append_time_ms is None else append_time_ms)

    def _find_duplicate(self, known: _Producer, batch: ParsedBatch) -> _Known | None:
        if known.epoch != batch.producer_epoch:
            return None
        for each in known.batches:
            if (each.first, each.last) == (batch.base_sequence, batch.last_sequence):
                return each
        return None

    def _check_sequence(self, known: _Producer, batch: ParsedBatch) -> None:
        who = f"producer {batch.producer_id} at offset {self.end_offset} in {self.topic}-{self.partition}"
        if batch.producer_epoch < known.epoch:
            raise BatchRejected(
                INVALID_PRODUCER_EPOCH,
                f"epoch of {who} is {batch.producer_epoch}, which is smaller than {known.epoch}",
                stage=Stage.LOG,
            )
        if batch.producer_epoch > known.epoch:
            expected = 0
        else:
            last = known.batches[-1].last
            expected = 0 if last == LAST_SEQUENCE else last + 1
        if batch.base_sequence != expected:
            raise BatchRejected(
                OUT_OF_ORDER_SEQUENCE_NUMBER,
                f"out of order sequence number for {who}: {batch.base_sequence} (incoming), {expected} (expected)",
                stage=Stage.LOG,
            )

    def _store(self, batch: ParsedBatch, leader_epoch: int, append_time_ms: int | None) -> int:
        base = self.end_offset
        newest_ms = batch.max_timestamp_ms if append_time_ms is None else append_time_ms
        raw = _as_stored(batch.raw, base, leader_epoch, newest_ms, log_append_time=append_time_ms is not None)
        idempotent = batch.producer_id >= 0
        records = tuple(
            StoredRecord(
                self.topic,
                self.partition,
                base + record.index,
                record.key,
                record.value,
                record.headers,
                record.timestamp_ms if append_time_ms is None else append_time_ms,
                batch.producer_id,
                batch.producer_epoch,
                (batch.base_sequence + record.index) & LAST_SEQUENCE if idempotent else -1,
            )
            for record in batch.records
        )
        self.end_offset = base + len(records)
        self.batches.append(StoredBatch(base, self.end_offset - 1, newest_ms, raw, records))
        return base

    def read(self, offset: int, max_bytes: int, *, whole: bool = True, before: int | None = None) -> bytes:
        """From the batch that holds ``offset`` on, cut off at the limit; with ``whole`` the first batch is not."""
        end = self.end_offset if before is None else before
        wanted = [batch.raw for batch in self.batches if offset <= batch.last_offset < end]
        limit = max(0, max_bytes)
        if whole and wanted:
            limit = max(limit, len(wanted[0]))
        out = bytearray()
        for raw in wanted:
            if len(out) >= limit:
                break
            out += raw
        return bytes(out[:limit])

    def offset_at(self, timestamp_ms: int) -> tuple[int, int]:
        """(timestamp, offset) of the first record not older than ``timestamp_ms``; (-1, -1) when there is none."""
        for record in self.records:
            if record.timestamp_ms >= timestamp_ms:
                return record.timestamp_ms, record.offset
        return -1, -1

    def newest(self) -> tuple[int, int]:
        """(timestamp, offset) of the record with the highest timestamp; (-1, -1) when empty."""
        newest = max(self.records, key=lambda record: record.timestamp_ms, default=None)
        return (-1, -1) if newest is None else (newest.timestamp_ms, newest.offset)

    def delete_before(self, offset: int) -> None:
        """Retention: drop whole batches below ``offset``."""
        self.batches = [batch for batch in self.batches if batch.last_offset >= offset]
        self.start_offset = max(self.start_offset, min(offset, self.end_offset))

    def truncate(self, offset: int) -> None:
        """Drop whole batches from ``offset`` on; of the producers is known what the rest of the log tells."""
        if offset >= self.end_offset:
            return
        self.batches = [batch for batch in self.batches if batch.last_offset < offset]
        self.end_offset = max(offset, self.start_offset)
        for producer_id, known in list(self._producers.items()):
            left = [each for each in known.batches if each.base_offset < offset]
            known.batches = deque(left, maxlen=BATCHES_REMEMBERED)
            if not left:
                del self._producers[producer_id]

    def forget_producers(self) -> None:
        """Expire every producer's state (``producer.id.expiration.ms``): any first sequence is taken again."""
        self._producers.clear()


def _as_stored(raw: bytes, base_offset: int, leader_epoch: int, newest_ms: int, *, log_append_time: bool) -> bytes:
    """The batch as the broker writes it.

    It assigns the base offset and the leader epoch, which the CRC leaves out, and sets the kind of timestamp and the
    newest one; where that changes anything, the CRC is made anew (DefaultRecordBatch.setMaxTimestamp).
    """
    attributes = int.from_bytes(raw[21:23])
    attributes = attributes | LOG_APPEND_TIME if log_append_time else attributes & ~LOG_APPEND_TIME
    tail = attributes.to_bytes(2) + raw[23:35] + newest_ms.to_bytes(8, signed=True) + raw[43:]
    crc = raw[17:21] if tail == raw[CRC_FROM:] else struct.pack(">I", crc32c.crc32c(tail))
    return base_offset.to_bytes(8) + raw[8:12] + leader_epoch.to_bytes(4, signed=True) + raw[16:17] + crc + tail
