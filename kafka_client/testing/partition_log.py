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

from collections import deque
from dataclasses import dataclass, field

from kafka_client.testing.batches import BatchRejected, Headers, ParsedBatch

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
    """What an append came to: the batch's first offset, and whether it had been there before."""

    base_offset: int
    duplicate: bool
    log_append_time_ms: int = -1
    """Of a duplicate the highest timestamp of the batch, as Apache Kafka answers (``duplicate.timestamp``)."""


@dataclass(slots=True)
class _Producer:
    epoch: int
    #: (first sequence, last sequence, base offset)
    batches: deque[tuple[int, int, int]] = field(default_factory=lambda: deque(maxlen=BATCHES_REMEMBERED))


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

    def append(self, batch: ParsedBatch, leader_epoch: int) -> Appended:
        """Append or recognise; raises `BatchRejected` with OUT_OF_ORDER_SEQUENCE_NUMBER or INVALID_PRODUCER_EPOCH."""
        if batch.producer_id >= 0:
            known = self._producers.get(batch.producer_id)
            if known is not None:
                if (repeated := self._find_duplicate(known, batch)) is not None:
                    return Appended(repeated, duplicate=True, log_append_time_ms=batch.max_timestamp_ms)
                self._check_sequence(known, batch)
            if known is None or known.epoch != batch.producer_epoch:
                known = self._producers[batch.producer_id] = _Producer(batch.producer_epoch)
            known.batches.append((batch.base_sequence, batch.last_sequence, self.end_offset))
        return Appended(self._store(batch, leader_epoch), duplicate=False)

    def _find_duplicate(self, known: _Producer, batch: ParsedBatch) -> int | None:
        if known.epoch != batch.producer_epoch:
            return None
        for first, last, base_offset in known.batches:
            if (first, last) == (batch.base_sequence, batch.last_sequence):
                return base_offset
        return None

    def _check_sequence(self, known: _Producer, batch: ParsedBatch) -> None:
        who = f"producer {batch.producer_id} at offset {self.end_offset} in {self.topic}-{self.partition}"
        if batch.producer_epoch < known.epoch:
            raise BatchRejected(
                INVALID_PRODUCER_EPOCH, f"epoch of {who} is {batch.producer_epoch}, which is smaller than {known.epoch}"
            )
        if batch.producer_epoch > known.epoch:
            expected = 0
        else:
            last = known.batches[-1][1]
            expected = 0 if last == LAST_SEQUENCE else last + 1
        if batch.base_sequence != expected:
            raise BatchRejected(
                OUT_OF_ORDER_SEQUENCE_NUMBER,
                f"out of order sequence number for {who}: {batch.base_sequence} (incoming), {expected} (expected)",
            )

    def _store(self, batch: ParsedBatch, leader_epoch: int) -> int:
        base = self.end_offset
        # The broker assigns the base offset and the leader epoch; the CRC leaves both out.
        raw = base.to_bytes(8) + batch.raw[8:12] + leader_epoch.to_bytes(4, signed=True) + batch.raw[16:]
        idempotent = batch.producer_id >= 0
        records = tuple(
            StoredRecord(
                self.topic,
                self.partition,
                base + record.index,
                record.key,
                record.value,
                record.headers,
                record.timestamp_ms,
                batch.producer_id,
                batch.producer_epoch,
                (batch.base_sequence + record.index) & LAST_SEQUENCE if idempotent else -1,
            )
            for record in batch.records
        )
        self.end_offset = base + len(records)
        self.batches.append(StoredBatch(base, self.end_offset - 1, batch.max_timestamp_ms, raw, records))
        return base

    def read(self, offset: int, max_bytes: int) -> bytes:
        """Whole batches from the one that holds ``offset``; at least one if there is any."""
        out = bytearray()
        for batch in self.batches:
            if batch.last_offset < offset:
                continue
            if out and len(out) + len(batch.raw) > max_bytes:
                break
            out += batch.raw
        return bytes(out)

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

    def forget_producers(self) -> None:
        """Expire every producer's state (``producer.id.expiration.ms``): any first sequence is taken again."""
        self._producers.clear()
