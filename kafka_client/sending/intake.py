"""The intake: `Record` values become deliveries in queues.

Owns: checking, encoding and routing records, asking the budget. Refuses to know: what happens to them afterwards.

Theory. Everything that depends on a record alone is done here, once: its encoded tail, its route, its timestamp. A
record alone takes a path without lists; it is the usual case where every event is answered by itself, and its cost is
what a pipelining producer is made of. In bulk there is one parcel for each topic, dealt out by route.

Invariant: what cannot be encoded is refused before anything of the delivery is queued.

Non-obvious: the clock that deadlines count on is read for each delivery, the wall clock only when a millisecond has
passed on the other: reading both for each record took a tenth of all the time.
"""

import time
from collections.abc import Sequence

import trio

from kafka_client.buffer.bulk import Bulk
from kafka_client.buffer.check import check_timestamp, check_topic, timestamps_of
from kafka_client.buffer.delivery import FOREVER_S, Delivery, Single
from kafka_client.buffer.encoded import Encoded
from kafka_client.buffer.partitioner import NO_ROUTE, route_of
from kafka_client.buffer.run import RECORD_COST_BYTES, Part
from kafka_client.buffer.segment import Parcel
from kafka_client.outcome import Record
from kafka_client.wire.record_batch import (
    BATCH_OVERHEAD_BYTES,
    PLAIN_VALUES_BELOW_BYTES,
    RECORD_OVERHEAD_MAX_BYTES,
    encode_record_tail,
    plain_size,
    plain_sizes,
)

from .dispatch import Dispatch

__all__ = ["Intake"]

_TOO_LARGE = "too_large: larger than record_max_bytes"
_NS_PER_MS = 1_000_000


class Intake:
    """Of one producer."""

    def __init__(self, dispatch: Dispatch) -> None:
        config = dispatch.config
        self.closed = False
        """Nothing is taken any more."""
        self._dispatch = dispatch
        self._budget = dispatch.budget
        self._tally = dispatch.tally
        self._topics = dispatch.topics
        self._timeout_s = min(config.delivery_timeout_s, FOREVER_S)
        self._record_max = config.record_max_bytes - RECORD_OVERHEAD_MAX_BYTES - BATCH_OVERHEAD_BYTES
        self._plain_max = min(PLAIN_VALUES_BELOW_BYTES - 1, self._record_max - RECORD_OVERHEAD_MAX_BYTES)
        self._clock = trio.lowlevel.current_clock().current_time
        self._stamp = 0
        self._stamped_until = -1.0

    def one(self, record: Record) -> Delivery:
        """Queue one record.

        Raises:
            TypeError, ValueError: it cannot be encoded.
        """
        now = self._clock()
        value, key, headers = record.value, record.key, record.headers
        tail: bytes
        plain = key is None and not headers and value.__class__ is bytes and len(value) < PLAIN_VALUES_BELOW_BYTES
        if plain:
            tail = value  # type: ignore[assignment]  # that is bytes
            size = len(tail) + 4 if len(tail) > 63 else plain_size(tail)
        else:
            tail = encode_record_tail(key, value, headers)
            size = len(tail)
        stamp = record.timestamp_ms
        if stamp is None:
            stamp = self._stamp if now < self._stamped_until else self._read_stamp(now)
        else:
            check_timestamp(stamp)
        route = NO_ROUTE if key is None and record.partition is None else route_of(record)
        single = self._one_tail(record.topic, tail, size, plain, route, stamp, now)
        if single is None:
            check_topic(record.topic)
            tail = encode_record_tail(key, value, headers)
            single = self._one_slowly(record.topic, tail, route, stamp, now + self._timeout_s)
        return single

    def _one_tail(
        self, name: str, tail: bytes, size: int, plain: bool, route: int, stamp: int, now: float
    ) -> Delivery | None:
        """Queue one record; None: something stands in the way."""
        topic = self._topics.get(name)
        if topic is None or not topic.partitions or size > self._record_max or self.closed:
            return None
        # As `ByteBudget.try_take`, without the call.
        budget = self._budget
        used = budget.used_bytes + size + RECORD_COST_BYTES
        if budget.waiting_bytes or used > budget.limit_bytes:
            return None
        budget.used_bytes = used
        sticky = topic.sticky
        if route == NO_ROUTE and sticky.room > 0:
            sticky.room -= size
            partition = topic.partitions[sticky.partition]
        else:
            partition = topic.partition_of(route, size)
        queue = partition.queue
        segment = queue.last
        single = queue.put(tail, size, plain, stamp, now + self._timeout_s, self._tally, route >= 0)
        if not partition.announced or queue.last is not segment:
            partition.enqueued_one(now)
        return single

    def _one_slowly(self, topic: str, tail: bytes, route: int, stamp: int, deadline: float) -> Delivery:
        """Where something stands in the way: it is refused, or waits for metadata or for the budget."""
        if self.closed or len(tail) > self._record_max:
            return self._refused(1, deadline, "closed" if self.closed else _TOO_LARGE)
        single = Single(deadline, self._tally, None, None, None, 0, stamp)
        parcel = Parcel(topic, single, (tail,), len(tail), (route,))
        if self._budget.try_take(parcel.cost):
            self._dispatch.topic(topic).deal(parcel, self._clock())
        else:
            self._dispatch.stand_in_line(single, (parcel,), parcel.cost)
        return single

    def many(self, records: Sequence[Record]) -> Delivery:
        """Queue records together.

        Raises:
            TypeError, ValueError: one that cannot be encoded; nothing was queued then.
        """
        if not isinstance(records, Sequence):
            raise TypeError(f"records: a sequence, not {type(records).__name__}: outcomes come in its order")
        count = len(records)
        topic = records[0].topic
        # In one pass, for the usual case: values of one topic and nothing else.
        values = [
            record.value
            for record in records
            if record.key is None
            and record.partition is None
            and record.timestamp_ms is None
            and not record.headers
            and record.topic == topic
        ]
        if len(values) == count and set(map(type, values)) == {bytes}:
            lengths = list(map(len, values))  # type: ignore[arg-type]  # they are bytes
            if max(lengths) <= self._plain_max:
                return self._many_plain(topic, values, sum(plain_sizes(lengths)))  # type: ignore[arg-type]
        return self._many_of_any_kind(records)

    def encoded(self, encoded: Encoded) -> Delivery:
        """Queue what its caller has encoded."""
        now = self._clock()
        topic, tails, routes, stamp = encoded.topic, encoded.tails, encoded.routes, encoded.timestamp_ms
        count = len(tails)
        if count == 1:
            tail, route = tails[0], routes[0]
            single = self._one_tail(topic, tail, len(tail), False, route, stamp, now)
            return single or self._one_slowly(topic, tail, route, stamp, now + self._timeout_s)
        if not count:
            return self.none()
        if self.closed:
            return self._refused(count, now + self._timeout_s, "closed")
        delivery = Bulk(now + self._timeout_s, self._tally, None, None, count, count, [])
        return self._put_together(delivery, (topic,) * count, tails, routes, stamp, now)

    def _many_plain(self, topic: str, values: list[bytes], size: int) -> Delivery:
        """Values of one topic, none too large."""
        now = self._clock()
        count = len(values)
        check_topic(topic)
        if self.closed:
            return self._refused(count, now + self._timeout_s, "closed")
        delivery = Bulk(now + self._timeout_s, self._tally, None, None, count, count, [])
        part = Part(delivery, range(count), self._read_stamp(now), count)
        delivery.parts = [part]
        parcel = Parcel(topic, part, values, size, (NO_ROUTE,) * count, plain=True)
        return self._taken_in(delivery, [parcel], now)

    def _many_of_any_kind(self, records: Sequence[Record]) -> Delivery:
        now = self._clock()
        count = len(records)
        tails = [encode_record_tail(record.key, record.value, record.headers) for record in records]
        routes = [
            NO_ROUTE if record.key is None and record.partition is None else route_of(record) for record in records
        ]
        stamps = timestamps_of(records, self._read_stamp(now))
        for name in {record.topic for record in records}:
            check_topic(name)
        if self.closed:
            return self._refused(count, now + self._timeout_s, "closed")
        delivery = Bulk(now + self._timeout_s, self._tally, None, None, count, count, [])
        return self._put_together(delivery, [record.topic for record in records], tails, routes, stamps, now)

    def _put_together(
        self,
        delivery: Bulk,
        topics: Sequence[str],
        tails: Sequence[bytes],
        routes: Sequence[int],
        stamps: int | list[int],
        now: float,
    ) -> Delivery:
        """In one parcel, as a rule."""
        count = len(tails)
        sizes = list(map(len, tails))
        if max(sizes) <= self._record_max and topics.count(topics[0]) == count:
            part = Part(delivery, range(count), stamps, count)
            parcels = [Parcel(topics[0], part, tails, sum(sizes), routes)]
        else:
            parcels = self._sorted(delivery, topics, tails, sizes, routes, stamps)
        delivery.parts = [parcel.run for parcel in parcels if isinstance(parcel.run, Part)]
        return self._taken_in(delivery, parcels, now) if parcels else delivery

    def _taken_in(self, delivery: Bulk, parcels: Sequence[Parcel], now: float) -> Delivery:
        cost = sum([parcel.cost for parcel in parcels])
        if self._budget.try_take(cost):
            for parcel in parcels:
                (self._topics.get(parcel.topic) or self._dispatch.topic(parcel.topic)).deal(parcel, now)
        else:
            self._dispatch.stand_in_line(delivery, parcels, cost)
        return delivery

    def none(self) -> Delivery:
        """A delivery of no records."""
        return Bulk(self._clock() + self._timeout_s, self._tally, None, None, 0, 0, [])

    def _sorted(
        self,
        delivery: Bulk,
        topics: Sequence[str],
        tails: Sequence[bytes],
        sizes: Sequence[int],
        routes: Sequence[int],
        stamps: int | list[int],
    ) -> list[Parcel]:
        """One parcel a topic, without the records that are too large."""
        positions: dict[str, list[int]] = {}
        too_large = []
        for index, name in enumerate(topics):
            if sizes[index] <= self._record_max:
                positions.setdefault(name, []).append(index)
            else:
                too_large.append(index)
        if too_large:
            self._budget.not_sent_total += len(too_large)
            delivery.refuse_some(too_large, self._budget.not_sent(_TOO_LARGE))
        parcels = []
        for topic, indices in positions.items():
            its_stamps = stamps if isinstance(stamps, int) else [stamps[index] for index in indices]
            parcels.append(
                Parcel(
                    topic,
                    Part(delivery, indices, its_stamps, len(indices)),
                    [tails[index] for index in indices],
                    sum([sizes[index] for index in indices]),
                    [routes[index] for index in indices],
                )
            )
        return parcels

    def _refused(self, count: int, deadline: float, reason: str) -> Delivery:
        delivery: Delivery
        if count == 1:
            delivery = Single(deadline, self._tally, None, None, None, 0, 0, outcome=self._budget.not_sent(reason))
            self._budget.not_sent_total += 1
        else:
            delivery = Bulk(deadline, self._tally, None, None, count, count, [])
            self._dispatch.refuse(delivery, reason)
        return delivery

    def _read_stamp(self, now: float) -> int:
        """The wall clock in milliseconds; valid until the next millisecond begins."""
        stamp, ns = divmod(time.time_ns(), _NS_PER_MS)
        self._stamp = stamp
        self._stamped_until = now + (_NS_PER_MS - ns) / 1e9
        return stamp
