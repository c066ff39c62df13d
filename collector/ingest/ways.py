"""Which way each event takes: to Kafka, or to the disk at once.

Owns: the choice for each record, the detour of records without a key. Refuses to know: why a partition is diverted,
what becomes of an event on its way.
"""

from collections.abc import Callable, Sequence

from collector.ingest.diversion import Diversion
from collector.ingest.key_order import KeyOrder, bucket_of
from collector.ingest.shares import KafkaShares
from collector.ingest.spooling import SpoolLike
from collector.spool.base import BUCKETS
from kafka_client.outcome import Record
from kafka_client.wire.murmur2 import key_hash

__all__ = ["Ways"]


class Ways:
    """Of one process with a spool.

    Args:
        shares: Ends Kafka's share of the time for those who wait.
        by_key: ``[spool] order = "key"``: an event goes behind those of its key that are in the spool.
    """

    def __init__(self, spool: SpoolLike, diversion: Diversion, shares: KafkaShares, *, by_key: bool = False) -> None:
        self.spool = spool
        self.shares = shares
        self.diversion = diversion
        self.rows_came: Callable[[], object] = _nothing
        """Called when rows were committed."""
        self.order = KeyOrder() if by_key else None

    def __repr__(self) -> str:
        return f"<Ways {'open' if self.open else 'to Kafka alone'}, {self.diversion!r}>"

    @property
    def open(self) -> bool:
        """Whether the spool takes rows, as of the last `look`; else the whole time is Kafka's."""
        return self.diversion.open

    def look(self) -> bool:
        """Whether there may be anything to choose; to be called for each request, with an event at hand."""
        active = self.diversion.look()
        return active or self.order is not None

    def diverted(self, records: Sequence[Record]) -> list[int]:
        """The places of those that go to the spool at once."""
        diversion, by_key, busy = self.diversion, self.order is not None, self.spool.busy_bucket
        active = diversion.active
        places = []
        for place, record in enumerate(records):
            hashed = None if record.key is None else key_hash(record.key)
            if (active and diversion.is_diverted(hashed)) or (by_key and hashed is not None and busy(hashed % BUCKETS)):
                places.append(place)
        return places

    def bound(self, record: Record) -> bool:
        """Whether it may not go to Kafka even if the spool refuses it: it would overtake rows of its key."""
        if self.order is None:
            return False
        bucket = bucket_of(record)
        return bucket is not None and self.spool.busy_bucket(bucket)

    def around(self, records: Sequence[Record]) -> Sequence[Record]:
        """The records for Kafka; those without a key are told a partition that is not diverted."""
        if not self.diversion.active:
            return records
        partition = self.diversion.healthy_partition()
        if partition is None:
            return records
        return [
            record
            if record.key is not None
            else Record(record.topic, record.value, None, record.headers, record.timestamp_ms, partition)
            for record in records
        ]


def _nothing() -> None:
    """Nobody wants to know."""
