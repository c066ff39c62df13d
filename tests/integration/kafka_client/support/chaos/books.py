"""The books of one load: what was handed over, what was told, what became of it, and what the topic has.

Owns: the records (each told from all others by its value) and every claim made about them. Refuses to know: producers
and faults. The topic is read with librdkafka, which shares no code with ours.

Invariant: a record is handed over once and never again, so that *anything* that stands in the topic twice is a fault.
"""

import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from confluent_kafka import Consumer, KafkaException, TopicPartition

from kafka_client import Delivered, NotSent, Outcome, Record, Unknown

__all__ = ["Books", "Found", "read_back"]

NUMBER_DIGITS = 9
FILLER = bytes(range(32, 127)) * 4


@dataclass(frozen=True, slots=True)
class Found:
    """Where one record stands in the topic."""

    partition: int
    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes
    headers: tuple[tuple[str, bytes], ...]


@dataclass(slots=True)
class Books:
    """Records by number, in the order in which they were handed over."""

    topic: str
    records: list[Record] = field(default_factory=list)
    told: list[Outcome | None] = field(default_factory=list)
    """None: nobody was told, since its `send()` was cancelled."""
    untold: set[int] = field(default_factory=set)
    late: dict[int, Outcome] = field(default_factory=dict)
    """What `on_resolved` reported."""
    reported_twice: list[int] = field(default_factory=list)

    def new(self, size: int, key: bytes | None, partition: int | None, header: bool) -> int:
        """Make the next record; the caller hands it over before it makes another with the same key."""
        number = len(self.records)
        value = b"%0*d" % (NUMBER_DIGITS, number) + FILLER[number % 95 : number % 95 + size]
        headers = (("number", b"%d" % number),) if header else ()
        self.records.append(Record(self.topic, value, key=key, partition=partition, headers=headers))
        self.told.append(None)
        return number

    def tell(self, numbers: Sequence[int], outcomes: Sequence[Outcome | None]) -> None:
        """Enter what a delivery said at the end of its block."""
        for number, outcome in zip(numbers, outcomes, strict=True):
            assert self.told[number] is None, "told twice"
            self.told[number] = outcome

    def resolved(self, number: int, outcome: Outcome) -> None:
        """Enter what `on_resolved` reported."""
        if number in self.late:
            self.reported_twice.append(number)
        self.late[number] = outcome

    def count(self, kind: type[Outcome]) -> int:
        """How many were told this kind of outcome."""
        return sum(isinstance(outcome, kind) for outcome in self.told)

    def count_late(self, kind: type[Outcome]) -> int:
        """How many of the Unknown became this in the end."""
        return sum(isinstance(outcome, kind) for outcome in self.late.values())

    def acknowledged(self) -> Iterable[tuple[int, Delivered]]:
        """Records whose acknowledgement somebody was told, at once or late."""
        for number, outcome in enumerate(self.told):
            final = self.late.get(number) if isinstance(outcome, Unknown) else outcome
            if isinstance(final, Delivered):
                yield number, final

    def check(self, found: Sequence[Found], *, lost_before: Sequence[int] = ()) -> None:
        """Compare every claim with what the topic has.

        Args:
            found: the whole topic, each partition in order of offset.
            lost_before: records that were in a topic which was deleted since; nothing is asked of them but outcomes.
        """
        gone = set(lost_before)
        where: dict[int, Found] = {}
        twice = []
        for one in found:
            number = int(one.value[:NUMBER_DIGITS])
            if number in where:
                twice.append(number)
            where[number] = one
        assert not twice, f"{len(twice)} records are there twice: {self._describe(twice)}"
        self._check_settled()
        missing = [n for n, outcome in enumerate(self.told) if isinstance(outcome, Delivered) and n not in where]
        missing = [n for n in missing if n not in gone]
        assert not missing, f"{len(missing)} delivered records are missing: {self._describe(missing)}"
        present = [n for n, outcome in enumerate(self.told) if isinstance(outcome, NotSent) and n in where]
        assert not present, f"{len(present)} records are there that were not sent: {self._describe(present)}"
        self._check_late(where, gone)
        self._check_bytes(where)
        self._check_offsets(where, gone)
        self._check_order(where)

    def _check_settled(self) -> None:
        open_ones = [n for n, outcome in enumerate(self.told) if outcome is None and n not in self.untold]
        assert not open_ones, f"{len(open_ones)} records have no outcome: {open_ones[:10]}"

    def _check_late(self, where: dict[int, Found], gone: set[int]) -> None:
        assert not self.reported_twice, f"resolved twice: {self._describe(self.reported_twice)}"
        unknown = {n for n, outcome in enumerate(self.told) if isinstance(outcome, Unknown)}
        assert set(self.late) == unknown, "late resolutions are not exactly those of what was unknown"
        wrong = [
            number
            for number, outcome in self.late.items()
            if (isinstance(outcome, Delivered) and number not in where and number not in gone)
            or (isinstance(outcome, NotSent) and number in where)
        ]
        assert not wrong, f"{len(wrong)} late resolutions are wrong: {self._describe(wrong)}"

    def _check_bytes(self, where: dict[int, Found]) -> None:
        for number, one in where.items():
            record = self.records[number]
            assert (one.value, one.key, one.headers) == (record.value, record.key, tuple(record.headers)), number
            assert record.partition is None or one.partition == record.partition, number

    def _check_offsets(self, where: dict[int, Found], gone: set[int]) -> None:
        wrong = []
        for number, outcome in self.acknowledged():
            if number in gone:
                continue
            one = where[number]
            told = (outcome.partition.partition, outcome.offset, outcome.timestamp_ms)
            stands = (one.partition, one.offset if outcome.offset >= 0 else -1, one.timestamp_ms)
            if told != stands:
                wrong.append((number, told, stands))
        assert not wrong, f"{len(wrong)} records stand elsewhere than was told: {wrong[:5]}"

    def _check_order(self, where: dict[int, Found]) -> None:
        """Of one key, whatever is in one partition stands there in the order of the calls."""
        last: dict[tuple[bytes, int], tuple[int, int]] = {}
        disorder = []
        for number, record in enumerate(self.records):
            one = where.get(number)
            if record.key is None or one is None:
                continue
            before = last.get((record.key, one.partition))
            if before is not None and before[1] >= one.offset:
                disorder.append((before[0], number))
            last[record.key, one.partition] = (number, one.offset)
        assert not disorder, f"{len(disorder)} records of one key are out of order: {disorder[:5]}"

    def _describe(self, numbers: Sequence[int]) -> str:
        kinds: Counter[str] = Counter()
        for number in numbers:
            kinds[f"{_short(self.told[number])} then {_short(self.late.get(number))}"] += 1
        return f"{dict(kinds.most_common(5))}, the first are {list(numbers[:10])}"


def _short(outcome: Outcome | None) -> str:
    return "nothing" if outcome is None else type(outcome).__name__ + str(getattr(outcome, "reason", ""))


def read_back(bootstrap_servers: str, topic: str) -> list[Found]:
    """Read all that is in ``topic`` now, partition by partition in order of offset. Blocks; run it in a thread."""
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap_servers,
            "group.id": f"reads {topic}",
            "enable.auto.commit": False,
            "check.crcs": True,
            "log_level": 0,
        }
    )
    try:
        ends = _watermarks(consumer, topic)
        consumer.assign([TopicPartition(topic, number, low) for number, (low, high) in ends.items() if high > low])
        left = {number for number, (low, high) in ends.items() if high > low}
        found: dict[int, list[Found]] = defaultdict(list)
        silent_until = time.monotonic() + 30
        while left:
            messages = consumer.consume(20_000, timeout=0.2)
            for message in messages:
                if (error := message.error()) is not None:
                    raise KafkaException(error)
                number, offset = message.partition(), message.offset()
                if offset < ends[number][1]:
                    stamp = message.timestamp()[1]
                    headers = tuple(message.headers() or ())
                    found[number].append(Found(number, offset, stamp, message.key(), message.value(), headers))
                if offset >= ends[number][1] - 1:
                    left.discard(number)
            if messages:
                silent_until = time.monotonic() + 30
            assert time.monotonic() < silent_until, f"nothing comes any more of {topic} {sorted(left)}"
        return [one for number in sorted(found) for one in found[number]]
    finally:
        consumer.close()


def _watermarks(consumer: Consumer, topic: str) -> dict[int, tuple[int, int]]:
    numbers = consumer.list_topics(topic, timeout=30).topics[topic].partitions
    return {number: consumer.get_watermark_offsets(TopicPartition(topic, number), timeout=30) for number in numbers}
