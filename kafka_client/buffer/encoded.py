"""Records that their caller has encoded: a bulk delivery without an object for each of them.

Owns: what such a delivery consists of. Refuses to know: who makes records, and of what.

It is an inner door, for a caller who makes the values himself and can write them where they are sent from: a `Record`
with its value, headers and their tuples costs more than everything that the queue does with it.
"""

from collections.abc import Sequence

from msgspec import Struct

from kafka_client.outcome import Record
from kafka_client.wire.record_tail import NULL, decode_record_tail, sized

from .partitioner import NO_ROUTE, route_of_key

__all__ = ["NO_KEY", "Encoded", "keyed"]

#: What `keyed` would say of no key.
NO_KEY = (NULL, NO_ROUTE)


def keyed(key: bytes) -> tuple[bytes, int]:
    """How a tail with this key begins, and its route."""
    return sized(key), route_of_key(key)


class Encoded(Struct, frozen=True, gc=False):
    """Records of one topic and one moment. Nothing in here is checked: a mistake is the caller's bug."""

    topic: str
    timestamp_ms: int
    tails: Sequence[bytes]
    """As `kafka_client.wire.record_tail.encode_record_tail` makes them."""
    routes: Sequence[int]
    """See `kafka_client.buffer.partitioner`; none that names a partition."""

    def records(self) -> list[Record]:
        """The same as values of their own."""
        records = []
        for tail in self.tails:
            key, value, headers = decode_record_tail(tail)
            records.append(Record(self.topic, value, key, headers, self.timestamp_ms))
        return records
