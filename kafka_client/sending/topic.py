"""One topic: its partitions, and the records that cannot be dealt out yet.

Owns: partition states for the producer's whole life, the sticky choice, the records whose partition is unknown because
the topic is. Refuses to know: where metadata comes from.

Invariant: records of one key leave in the order of their calls: as long as anything waits to be dealt out, everything
of the topic waits behind it.
"""

import random

from kafka_client.buffer.budget import ByteBudget
from kafka_client.buffer.partitioner import NO_ROUTE, StickyPartitioner, partitions_of_routes, routed_partition
from kafka_client.buffer.queue import Undealt
from kafka_client.buffer.run import Part
from kafka_client.buffer.segment import Parcel
from kafka_client.cluster.snapshot import NULL_TOPIC_ID
from kafka_client.wire.record_batch import plain_size

from .hold import Hold
from .office import Office
from .partition import PartitionState

__all__ = ["TopicState"]


class TopicState:
    """One topic that somebody produced to."""

    def __init__(self, name: str, office: Office, budget: ByteBudget, rng: random.Random) -> None:
        self.name = name
        self.hold = Hold(office.config.operator_retry_s)
        self.metadata_misses = 0
        """Metadata answers in a row that did not know the topic."""
        self.metadata_error = False
        """`hold` was set by a metadata answer and ends with a better one."""
        self.leaderless = False
        """Some known partition had no leader when metadata was last looked at."""
        self.topic_id = NULL_TOPIC_ID
        self.partitions: list[PartitionState] = []
        """In order; empty until the first metadata."""
        self.beyond: dict[int, PartitionState] = {}
        """Partitions that callers named and metadata does not know."""
        self.undealt = Undealt(budget, lambda: office.standing.reason_for(self))
        self.sticky = StickyPartitioner(rng)
        self._office = office
        self._budget = budget

    @property
    def waits_for_operator(self) -> bool:
        """Metadata refuses it for a reason that people have to mend; a topic that is only unknown may yet appear."""
        return self.metadata_error and self.hold.error is not None and self.metadata_misses == 0

    def partition_of(self, route: int, size: int) -> PartitionState:
        """Where a record of this size goes; only while there are partitions."""
        partitions = self.partitions
        if route == NO_ROUTE:
            return partitions[self._sticky(size)]
        if route >= 0:
            return self.partition(route)
        return partitions[routed_partition(route, len(partitions))]

    def deal(self, parcel: Parcel, now: float) -> None:
        """Queue a parcel by the routes of its records; the budget has admitted it."""
        parcel.compact()
        if not self.partitions:
            self.undealt.append(parcel)
            self._office.want_metadata()
            return
        count = len(self.partitions)
        run, tails, routes = parcel.run, parcel.tails, parcel.routes
        assert run is not None
        if routes.count(NO_ROUTE) == len(routes):
            self.partitions[self._sticky(parcel.size)].enqueue(run, tails, parcel.size, parcel.plain, now)
            return
        sticky = self._sticky(parcel.size) if NO_ROUTE in routes else NO_ROUTE
        groups = partitions_of_routes(routes, count, sticky)
        explicit = max(routes) >= 0
        if not isinstance(run, Part):
            run.explicit = explicit
            self.partition(next(iter(groups))).enqueue(run, tails, parcel.size, parcel.plain, now)
            return
        run.routes = routes if explicit else None
        if len(groups) == 1:
            self.partition(next(iter(groups))).enqueue(run, tails, parcel.size, parcel.plain, now)
            return
        delivery = run.delivery
        assert delivery is not None
        pieces = [(index, positions, run.piece(positions)) for index, positions in groups.items()]
        delivery.replace(run, [piece for _, _, piece in pieces])
        for index, positions, piece in pieces:
            its_tails = [tails[j] for j in positions]
            size = sum(map(plain_size if parcel.plain else len, its_tails))  # type: ignore[arg-type]  # no tombstones
            self.partition(index).enqueue(piece, its_tails, size, parcel.plain, now)

    def resize(self, count: int, *, recreated: bool) -> list[PartitionState]:
        """Metadata knows so many partitions; `deal_out` follows when their leaders are known.

        Returns the partitions that are gone, for the caller to cut off when all is dealt out: ``on_resolved`` may take
        records back, and hand others over.

        What is queued and not sealed is dealt out anew, in the order of the calls: a key's partition follows from their
        number, and no record of it may leave before an earlier one. (Java leaves queued records where they are.)

        Args:
            recreated: another topic has the name. Only then there can be fewer: those beyond wait as named ones do.
        """
        if recreated:
            for partition in self.partitions:
                partition.topic_recreated()
        before = len(self.partitions)
        if count == before:
            return []
        appeared = [self.beyond[index] for index in range(before, count) if index in self.beyond]
        waiting = [parcel for partition in [*self.partitions, *appeared] for parcel in partition.take_back()]
        waiting.sort(key=_called)
        gone = self.partitions[count:]
        for partition in gone:
            self.sticky.leave(partition.tp.partition)
            self.beyond[partition.tp.partition] = partition
        del self.partitions[count:]
        for index in range(before, count):
            named = self.beyond.pop(index) if index in self.beyond else None
            if named is not None:
                named.restored()
            self.partitions.append(named or PartitionState(self, index, self._office, self._budget))
        for parcel in waiting:
            self.undealt.append(parcel)
        return gone

    def deal_out(self, now: float) -> None:
        """The partitions are known: deal out what waited, in order."""
        for parcel in self.undealt.drain():
            self.deal(parcel, now)

    def partition(self, index: int) -> PartitionState:
        """One partition, known or named by a caller."""
        if index < len(self.partitions):
            return self.partitions[index]
        found = self.beyond.get(index)
        if found is None:
            found = self.beyond[index] = PartitionState(self, index, self._office, self._budget)
        return found

    def all_partitions(self) -> list[PartitionState]:
        """Known ones, then those only named."""
        return [*self.partitions, *self.beyond.values()] if self.beyond else self.partitions

    def _sticky(self, size: int) -> int:
        sticky = self.sticky
        if sticky.room <= 0:
            sticky.choose(
                [
                    None if partition.leader is None else partition.queue.size_bytes + partition.window.cost
                    for partition in self.partitions
                ]
            )
        sticky.room -= size
        return sticky.partition

    def __repr__(self) -> str:
        return f"<TopicState {self.name}: {len(self.partitions)} partitions, {self.undealt.count} records undealt>"


def _called(parcel: Parcel) -> float:
    assert parcel.run is not None
    return parcel.run.deadline
