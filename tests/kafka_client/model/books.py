"""The books: what was handed over, what was told, and whether the logs agree.

Owns: every invariant. Refuses to know: how the producer works; it looks at `Delivery`, `statistics()` and the fake
cluster's logs only, and is told by `play` what happened.

Every record that is handed over has a value of its own (an application's second try is another record here), so "twice
in the log" needs no exception for what an application sends again.

Where the protocol itself cannot protect, the exception is exactly this:

* A broker that forgot the producer's state (`Topic(how="forget")`) takes a repetition for something new: one copy more
  for each time it forgot, the first copy before the log's end at that moment, the next behind it. It also takes a later
  batch as the first: order is not asked for between records handed over before it forgot and what was appended after.
* Where topics have no ids on the wire (Produce up to 12) a broker takes a batch that was meant for the deleted topic:
  one copy in each topic that had the name; and what was acknowledged may have gone with the one or the other. Until
  metadata tells of it the new log takes any sequence for the first: order is not asked for in it.
"""

import itertools
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import trio

from kafka_client import Delivered, Delivery, NotSent, Outcome, Producer, Record, Unknown
from kafka_client.testing import BatchSeen, FakeCluster, FakeTopic, RequestSeen, StoredRecord
from kafka_client.wire.error_codes import error_row
from kafka_client.wire.murmur2 import murmur2

__all__ = ["Books", "Entry"]


#: How much later than ``delivery_timeout_s`` an outcome may be told.
LATE_S = 0.01


@dataclass(eq=False)
class Entry:
    """One call of ``delivery()``."""

    number: int
    records: Sequence[Record]
    called_at: float
    order: int = -1
    """Of the call among all calls."""
    delivery: Delivery | None = None
    told: dict[int, Outcome] = field(default_factory=dict)
    """What was seen in ``outcomes`` first."""
    resolved: dict[int, Outcome] = field(default_factory=dict)
    registered: bool = False
    generation: int = 0
    ended: bool = False
    """The caller's task is over."""


@dataclass(frozen=True)
class Forgotten:
    """A broker forgot every producer of one log."""

    at: float
    end_offset: int


class Books:
    """One program's."""

    def __init__(self, cluster: FakeCluster, producer: Producer, *, names: bool) -> None:
        self.cluster = cluster
        self.producer = producer
        self.names = names
        self.entries: list[Entry] = []
        self.topics: list[FakeTopic] = list(cluster.topics.values())
        """Every topic there ever was, deleted ones included."""
        self.recreated: set[FakeTopic] = set()
        """Those that took a name over, be it back: what was queued then was dealt out anew."""
        self.counts: dict[str, set[int]] = defaultdict(set)
        """How many partitions each name has had."""
        self.forgotten: dict[tuple[FakeTopic, int], list[Forgotten]] = defaultdict(list)
        self.outcomes: Counter[str] = Counter()
        self._open: list[Entry] = []
        self._calls = itertools.count()
        self._found: dict[bytes | None, list[StoredRecord]] = defaultdict(list)
        self._home: dict[int, FakeTopic] = {}
        self._indexed: Counter[tuple[FakeTopic, int]] = Counter()
        for topic in self.topics:
            self.counts[topic.name].add(len(topic.partitions))

    # What is told to the books.

    def handed_over(self, records: Sequence[Record], now: float, generation: int) -> Entry:
        """A delivery is about to be called."""
        entry = Entry(len(self.entries), records, now, generation=generation)
        self.entries.append(entry)
        return entry

    def calling(self, entry: Entry) -> None:
        """The call happens now."""
        entry.order = next(self._calls)

    def delivered_as(self, entry: Entry, delivery: Delivery) -> None:
        """The call returned."""
        entry.delivery = delivery
        self._open.append(entry)

    def register(self, entry: Entry) -> None:
        """Register `on_resolved`."""
        assert entry.delivery is not None
        entry.registered = True
        entry.delivery.on_resolved(lambda index, outcome: self.resolved(entry, index, outcome))

    def resolved(self, entry: Entry, index: int, outcome: Outcome) -> None:
        """`on_resolved` was called: once, for an Unknown record, and it tells the truth of this moment."""
        who = self._who(entry, index)
        assert entry.delivery is not None
        assert index not in entry.resolved, f"{who}: on_resolved was called twice"
        assert isinstance(entry.delivery.outcomes[index], Unknown), (
            f"{who}: resolved as {outcome} while the outcome is {entry.delivery.outcomes[index]}"
        )
        entry.resolved[index] = outcome
        self.outcomes[f"late {type(outcome).__name__}"] += 1
        self._check_one(entry, index, outcome)

    # What must hold at every moment.

    def check_now(self) -> None:
        """The counters add up, what was told does not change, the bounds are kept."""
        self._note_outcomes()
        statistics = self.producer.statistics()
        config = self.producer.config
        handed = sum(len(entry.records) for entry in self.entries if entry.delivery is not None)
        open_records = sum(entry.delivery.unsettled for entry in self._open if entry.delivery is not None)
        told = statistics.delivered_total + statistics.not_sent_total + statistics.unknown_total
        assert told == handed - open_records, f"{told} outcomes counted, {handed} records, {open_records} open"
        assert statistics.queue_bytes <= config.queue_max_bytes
        assert statistics.waiting_bytes <= config.max_waiting_bytes
        assert statistics.queue_bytes >= 0
        assert statistics.in_flight_bytes >= 0
        assert statistics.detached_records >= 0
        assert statistics.detached_batches <= statistics.in_flight_batches

    def _note_outcomes(self) -> None:
        still_open = []
        for entry in self._open:
            delivery = entry.delivery
            assert delivery is not None
            for index, outcome in enumerate(delivery.outcomes):
                if outcome is None:
                    assert index not in entry.told, f"{self._who(entry, index)}: an outcome was taken back"
                elif index not in entry.told:
                    entry.told[index] = outcome
                    self.outcomes[type(outcome).__name__] += 1
                    self._check_one(entry, index, outcome)
                    self._check_not_early(entry, index, outcome)
                else:
                    self._check_same(entry, index, outcome)
            if delivery.unsettled:
                still_open.append(entry)
                late_s = trio.current_time() - entry.called_at - self.producer.config.delivery_timeout_s
                assert late_s <= LATE_S, f"{self._who(entry, 0)} and others have no outcome {late_s} s after their time"
        self._open = still_open

    def _check_not_early(self, entry: Entry, index: int, outcome: Outcome) -> None:
        if isinstance(outcome, Delivered) or not outcome.reason.startswith("timeout"):
            return
        config = self.producer.config
        least_s = config.delivery_timeout_s
        if isinstance(outcome, NotSent):  # its batch may have been given up, which was proved absent
            least_s = min(least_s, config.batch_timeout_s)
        age_s = trio.current_time() - entry.called_at
        assert age_s >= least_s - 1e-6, f"{self._who(entry, index)}: {outcome} after {age_s} of {least_s} s"

    def _check_same(self, entry: Entry, index: int, outcome: Outcome) -> None:
        assert outcome == entry.told[index], (
            f"{self._who(entry, index)}: was {entry.told[index]}, is {outcome}: an outcome never changes"
        )

    # What must hold at the end.

    def check_end(self) -> None:
        """After everything: the whole ledger against every log."""
        self._note_outcomes()
        assert not self._open, f"without outcome: {[self._who(entry, 0) for entry in self._open]}"
        for entry in self.entries:
            if entry.delivery is None:
                continue
            for index, outcome in enumerate(entry.delivery.outcomes):
                assert outcome is not None, f"{self._who(entry, index)}: no outcome"
                self._check_same(entry, index, outcome)
                self._check_one(entry, index, outcome)
                if not isinstance(outcome, Unknown):
                    assert index not in entry.resolved
                elif entry.registered:
                    assert index in entry.resolved, f"{self._who(entry, index)}: {outcome} was never resolved"
                    self._check_one(entry, index, entry.resolved[index])
        self._check_late_counters()
        self._check_logs()
        self._check_sequences()

    def _check_late_counters(self) -> None:
        statistics = self.producer.statistics()
        late = Counter(type(outcome).__name__ for entry in self.entries for outcome in entry.resolved.values())
        unregistered = any(not entry.registered for entry in self.entries)
        assert unregistered or statistics.late_delivered_total == late["Delivered"]
        assert unregistered or statistics.late_not_sent_total == late["NotSent"]
        # A record whose caller waited until its batch ended Unknown is resolved at once, and not late.
        assert unregistered or statistics.late_unknown_total <= late["Unknown"]
        whole = statistics.late_delivered_total + statistics.late_not_sent_total + statistics.late_unknown_total
        assert whole <= statistics.unknown_total

    def check_idle(self) -> None:
        """Both accounts are 0, nobody waits, nothing is due."""
        statistics = self.producer.statistics()
        left = {
            name: value
            for name in (
                *("queue_bytes", "queued_records", "waiting_bytes", "waiting_deliveries", "waiters", "due_times"),
                *("in_flight_bytes", "in_flight_batches", "detached_batches", "detached_records", "detached_bytes"),
            )
            if (value := getattr(statistics, name)) != 0
        }
        assert left == {}, f"at rest, but {left}"
        for partition in statistics.partitions:
            assert (partition.queued, partition.in_flight, partition.sealed) == (0, 0, 0)

    # One record against the logs.

    def _who(self, entry: Entry, index: int) -> str:
        return f"record {index} of delivery {entry.number}"

    def _stored(self, record: Record) -> list[StoredRecord]:
        assert record.value is not None
        return self._index().get(record.value, [])

    def created(self, topic: FakeTopic) -> None:
        """Another topic has taken a name."""
        self.topics.append(topic)
        self.recreated.add(topic)
        self.counts[topic.name].add(len(topic.partitions))

    def lost(self, topic: FakeTopic, partition: int) -> None:
        """The end of a log is gone, with what nobody was told of."""
        end_offset = topic.partitions[partition].log.end_offset
        place = (topic, partition)
        self.forgotten[place] = [
            replace(each, end_offset=min(each.end_offset, end_offset)) for each in self.forgotten[place]
        ]
        for index in (self._found, self._home, self._indexed):
            index.clear()

    def _index(self) -> dict[bytes | None, list[StoredRecord]]:
        """Values to where they stand; between two calls of `lost` logs only grow."""
        for topic in self.topics:
            for partition in topic.partitions:
                batches = partition.log.batches
                place = (topic, partition.index)
                for batch in batches[self._indexed[place] :]:
                    for stored in batch.records:
                        self._found[stored.value].append(stored)
                        self._home[id(stored)] = topic
                self._indexed[place] = len(batches)
        return self._found

    def _check_one(self, entry: Entry, index: int, outcome: Outcome) -> None:
        record = entry.records[index]
        who = self._who(entry, index)
        stored = self._stored(record)
        if isinstance(outcome, NotSent):
            assert not stored, f"{who}: {outcome}, and in the log: {stored}"
        elif isinstance(outcome, Delivered):
            assert stored, f"{who}: {outcome}, and not in the log"
            told = outcome.partition
            assert told.topic == record.topic
            same = [each for each in stored if each.partition == told.partition]
            assert same, f"{who}: {outcome}, and the log says {stored}"
            if outcome.offset >= 0:
                same = [each for each in same if each.offset == outcome.offset]
                assert same, f"{who}: {outcome}, and the log says {stored}"
                assert outcome.timestamp_ms in [each.timestamp_ms for each in same], f"{who}: {outcome}, log {same}"
            assert outcome.attempts >= 1

    # The logs as a whole.

    def _check_logs(self) -> None:
        records = {
            record.value: (entry, index, record) for entry in self.entries for index, record in enumerate(entry.records)
        }
        for topic in self.topics:
            for partition in topic.partitions:
                self._check_log(topic, partition.index, partition.log.records, records)
        if not self.names:
            for value, stored in self._index().items():
                homes = {id(self._home[id(each)]) for each in stored}
                assert len(homes) <= 1, f"{value!r:.40} is in two topics of one name"

    def _check_log(
        self,
        topic: FakeTopic,
        partition: int,
        log: Sequence[StoredRecord],
        records: dict[bytes | None, tuple[Entry, int, Record]],
    ) -> None:
        forgotten = self.forgotten[topic, partition]
        latest: dict[object, tuple[int, int, float]] = defaultdict(lambda: (-1, -1, -1.0))
        grown = len(self.counts[topic.name]) > 1
        copies: dict[bytes | None, int] = {}
        for stored in log:
            assert stored.value in records, f"{stored.value!r:.40} was never handed over"
            entry, index, record = records[stored.value]
            who = self._who(entry, index)
            self._check_content(stored, record, who)
            before = copies.get(stored.value)
            copies[stored.value] = stored.offset
            if before is not None:
                assert any(before < each.end_offset <= stored.offset for each in forgotten), (
                    f"{who} is in the log twice, at {before} and {stored.offset}"
                )
                continue
            if self.names and topic in self.recreated:
                continue
            final = entry.resolved.get(index, entry.told[index])
            if not isinstance(final, Delivered):
                continue  # given up: it may have stood in a dead connection's buffers for long
            # What waited for the deleted topic is dealt out anew, partition after partition: its keys stay in order.
            route = (record.key, record.partition) if topic in self.recreated else None
            number = (entry.order, index, entry.called_at)
            if number > latest[route]:
                latest[route] = number
                continue
            if grown and record.partition is not None and entry.called_at == latest[route][2]:
                continue  # dealt out anew by the time of their calls: a key and a named partition may be level
            assert any(each.end_offset <= stored.offset and entry.called_at <= each.at for each in forgotten), (
                f"{topic.name}/{partition}: {who}, call {entry.order}, stands behind record {latest[route][1]} of "
                f"call {latest[route][0]}"
            )

    def _check_content(self, stored: StoredRecord, record: Record, who: str) -> None:
        assert stored.topic == record.topic, f"{who} is in the log of {stored.topic}"
        assert stored.key == record.key, f"{who}: the key is {stored.key!r}"
        assert list(stored.headers) == list(record.headers), f"{who}: the headers are {stored.headers}"
        if record.partition is not None:
            assert stored.partition == record.partition, f"{who} is in partition {stored.partition}"
        elif record.key is not None:
            hashed = murmur2(record.key) & 0x7FFFFFFF
            allowed = {hashed % count for count in self.counts[record.topic]}
            assert stored.partition in allowed, f"{who} is in partition {stored.partition}, its key says {allowed}"

    # What went over the wire.

    def _check_sequences(self) -> None:
        """A sequence that may have been appended is never used for another record; a request has one identity."""
        used: dict[tuple[str, int, int, int, int], list[tuple[bytes | None, BatchSeen, RequestSeen]]]
        used = defaultdict(list)
        for request in self.cluster.seen.produce_requests:
            identities = {(batch.producer_id, batch.epoch) for batch in request.batches}
            assert len(identities) <= 1, f"a request with the identities {identities}"
            for batch in request.batches:
                where = (batch.topic, batch.partition, batch.producer_id, batch.epoch)
                for step, value in enumerate(batch.values):
                    sequence = (batch.base_sequence + step) & 0x7FFFFFFF
                    place = (*where, sequence)
                    earlier = used[place]
                    for other, its_batch, its_request in earlier:
                        assert other == value or _proved_absent(its_batch, its_request), (
                            f"sequence {sequence} of {where} was used for {other!r:.20} and then for {value!r:.20}"
                        )
                    if not earlier or earlier[-1][0] != value or not _proved_absent(batch, request):
                        earlier.append((value, batch, request))


def _proved_absent(batch: BatchSeen, request: RequestSeen) -> bool:
    """Whether the client was answered that this attempt was not appended."""
    if request.answered_at is None or batch.appended or batch.duplicate or not batch.error_code:
        return False
    return error_row(batch.error_code).taints != "always"
