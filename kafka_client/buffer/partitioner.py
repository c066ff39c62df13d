"""Which partition a record goes to.

Owns: the rule (explicit, else Java's murmur2 of the key, else sticky) and the sticky choice. Refuses to know: queues
and brokers; it is told the load of each partition.

Theory of the sticky choice. A record with neither key nor partition may go anywhere, and larger batches are cheaper, so
such records stay on one partition for `STICKY_BYTES` and then move (KIP-480, KIP-794). Choosing the next one at random
feeds a slow broker as much as a fast one and piles up behind it (KAFKA-10888): here the partition with the least bytes
queued and in flight is chosen, ties broken at random, leaderless ones last.

Non-obvious: the partition of a key depends on the number of partitions, which is unknown until the first metadata.
Until then a record carries its *route*, one int: the explicit partition (>= 0), `NO_ROUTE`, or a key's hash below
that.
"""

import random
from collections.abc import Sequence

from kafka_client.outcome import Record
from kafka_client.wire.murmur2 import key_hash
from kafka_client.wire.record_batch import record_key

from .check import check_partition

__all__ = [
    "NO_ROUTE",
    "STICKY_BYTES",
    "StickyPartitioner",
    "partitions_of_routes",
    "route_of",
    "route_of_key",
    "routed_partition",
    "routes_of_tails",
]

#: Neither key nor partition.
NO_ROUTE = -1
_HASH_BASE = -2
#: Java's batch.size, its unit of stickiness (KIP-794).
STICKY_BYTES = 16 * 1024


def route_of(record: Record) -> int:
    """What decides the record's partition, as one int; raises TypeError, ValueError for a partition that is none."""
    if record.partition is not None:
        check_partition(record.partition)
        return record.partition
    if record.key is None:
        return NO_ROUTE
    return route_of_key(record.key)


def route_of_key(key: bytes) -> int:
    """The route of a key."""
    return _HASH_BASE - key_hash(key)


def routes_of_tails(tails: Sequence[bytes | None]) -> list[int]:
    """The routes of encoded records; a partition that was given cannot be told from them. None: one taken back."""
    routes = []
    for tail in tails:
        key = None if tail is None else record_key(tail)
        routes.append(NO_ROUTE if key is None else route_of_key(key))
    return routes


def routed_partition(route: int, partitions: int) -> int:
    """The partition of a route other than `NO_ROUTE`."""
    return route if route >= 0 else (_HASH_BASE - route) % partitions


def partitions_of_routes(routes: Sequence[int], partitions: int, sticky: int) -> dict[int, list[int]]:
    """The positions of the routes of each partition; `NO_ROUTE` goes to ``sticky``."""
    if 2 * partitions <= len(routes) and max(routes) < NO_ROUTE:
        # Keys alone, and records enough for a list of each partition: 79 µs instead of 155 for 1000 records on 6
        # partitions. Two records on 1000 took 137 µs so, and take 0.6 below.
        lists: list[list[int]] = [[] for _ in range(partitions)]
        appends = [positions.append for positions in lists]
        for position, route in enumerate(routes):
            appends[(_HASH_BASE - route) % partitions](position)
        return {index: positions for index, positions in enumerate(lists) if positions}
    groups: dict[int, list[int]] = {}
    for position, route in enumerate(routes):
        index = sticky if route == NO_ROUTE else routed_partition(route, partitions)
        groups.setdefault(index, []).append(position)
    return groups


class StickyPartitioner:
    """The partition that records without a key go to at the moment."""

    __slots__ = ("_random", "partition", "room")

    def __init__(self, rng: random.Random) -> None:
        self._random = rng
        self.partition = -1
        self.room = 0
        """Bytes that may still go to `partition`; whoever sends them there counts them off. None left: `choose`."""

    def choose(self, loads: Sequence[int | None]) -> int:
        """Take the least loaded partition; ``loads`` are bytes, None for one without a leader."""
        least = min((load for load in loads if load is not None), default=None)
        self.partition = self._random.choice([index for index, load in enumerate(loads) if load == least])
        self.room = STICKY_BYTES
        return self.partition

    def leave(self, partition: int) -> None:
        """Choose again for the next record if this is the current partition: it lost its leader or stalls."""
        if self.partition == partition:
            self.room = 0
