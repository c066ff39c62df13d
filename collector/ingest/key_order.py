"""The order of a key's events where some of them go to the disk: ``[spool] order = "key"``.

Owns: which requests have events of which bucket in Kafka's hands. Refuses to know: why an event goes to the disk, what
becomes of it there.

Theory. The replay sends a bucket's rows in the order of their ids, and a new event of a bucket that has rows becomes a
row behind them. What is missing is the change: events wait in the producer while the first of their bucket becomes a
row. So whoever is about to make a row calls `to_disk` before, and all of the bucket become rows with it, in the order
in which they were handed over: the unsealed are taken back, the sealed become held rows. Other buckets of the same
requests stay where they are.

Invariant: a bucket that has rows has no events here, but for those that Kafka has taken and whose request does not know
yet.
"""

from collections.abc import Iterable, Sequence
from typing import Protocol

from collector.spool.base import BUCKETS
from kafka_client.outcome import Record
from kafka_client.wire.murmur2 import key_hash

__all__ = ["KeyOrder", "bucket_of"]


def bucket_of(record: Record) -> int | None:
    """The bucket of its key; None without a key."""
    return None if record.key is None else key_hash(record.key) % BUCKETS


class WaitingWork(Protocol):
    """What this needs of `collector.ingest.work.Work`."""

    def take_back(self, indices: Sequence[int]) -> None:
        """Make rows of these of its delivery's records, as far as Kafka has not taken them. Synchronous."""
        ...


class KeyOrder:
    """Of one process."""

    def __init__(self) -> None:
        self._waiting: dict[int, dict[WaitingWork, list[int]]] = {}
        self._numbers: dict[WaitingWork, int] = {}
        """Of the hand-over."""
        self._buckets: dict[WaitingWork, set[int]] = {}
        self._last = 0

    def __repr__(self) -> str:
        return f"<KeyOrder of {len(self._numbers)} requests, {len(self._waiting)} buckets>"

    def enter(self, work: WaitingWork, records: Iterable[Record]) -> None:
        """These are handed to Kafka now, as one delivery."""
        buckets = set()
        for index, record in enumerate(records):
            bucket = bucket_of(record)
            if bucket is not None:
                buckets.add(bucket)
                self._waiting.setdefault(bucket, {}).setdefault(work, []).append(index)
        self._last += 1
        self._numbers[work] = self._last
        self._buckets[work] = buckets

    def leave(self, work: WaitingWork) -> None:
        """Nothing of it waits any more. Idempotent."""
        self._numbers.pop(work, None)
        for bucket in self._buckets.pop(work, ()):
            waiting = self._waiting.get(bucket)
            if waiting is not None:
                waiting.pop(work, None)
                if not waiting:
                    del self._waiting[bucket]

    def to_disk(self, records: Iterable[Record]) -> None:
        """These are about to become rows: whatever waits of their buckets becomes rows now."""
        found: dict[WaitingWork, list[int]] = {}
        for bucket in {bucket_of(record) for record in records}:
            if bucket is not None:
                for work, indices in self._waiting.pop(bucket, {}).items():
                    found.setdefault(work, []).extend(indices)
        for work in sorted(found, key=self._numbers.__getitem__):
            work.take_back(found[work])
