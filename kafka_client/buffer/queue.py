"""The queue of one partition: what is admitted and not sealed; all of it can still be taken back.

Owns: the segments, in the order of the calls, and the bytes they hold of the budget. Refuses to know: sequence numbers,
brokers, deadlines.

Theory. A segment is a batch in the making, see `kafka_client.buffer.segment`: records are put into the last one until
it is full, a seal takes the first one whole. Taking back is a tombstone: the payload is dropped and the bytes go back
at once, the place is swept later, when dead ones are the majority: O(1) each, however many leave together (aiokafka's
mass cancellation is O(n²)). Nothing in here has a sequence number or an offset, so a withdrawal leaves no trace.

Invariant: ``size_bytes`` and ``count`` describe exactly the records that seals would take; a segment in here holds at
least one of them.

`Undealt` holds the records of a topic whose partitions are unknown; they are dealt out when that is known.
"""

from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Sequence
from itertools import accumulate

from kafka_client.outcome import NotSent
from kafka_client.wire.record_batch import RECORD_OVERHEAD_MAX_BYTES, encode_record_tail, plain_sizes

from .budget import ByteBudget, reason_of
from .delivery import Single, Tally
from .partitioner import routes_of_tails
from .run import RECORD_COST_BYTES, Part, Run
from .segment import SWEEP_MIN, Parcel, Segment

__all__ = ["RecordQueue", "Undealt"]


class RecordQueue:
    """First in, first out; keeps its segments."""

    __slots__ = ("_closed", "_standing", "budget", "last", "segment_bytes", "segments")

    def __init__(self, budget: ByteBudget, standing: Callable[[], str | None], segment_bytes: int) -> None:
        """Args:
        standing: the reason to give while an operator-level error stands, else None.
        segment_bytes: what one segment holds, framing included; a single larger record has one of its own.
        """
        self.budget = budget
        self.segment_bytes = segment_bytes
        self.segments: deque[Segment] = deque()
        self._closed = Segment(self, -1)
        self.last = self._closed
        """Where the next record goes if there is room; there is none in the one that stands here for want of any."""
        self._standing = standing

    @property
    def count(self) -> int:
        """Records in here."""
        return sum([segment.live for segment in self.segments])

    @property
    def size_bytes(self) -> int:
        """Their encoded tails, together."""
        return sum([segment.size_bytes for segment in self.segments])

    @property
    def holds_a_batch(self) -> bool:
        """Whether as much has gathered as one batch may hold."""
        return len(self.segments) > 1 or self.last.room <= 0 < len(self.segments)

    # What comes in; the budget has admitted it.

    def put(
        self, tail: bytes, size: int, plain: bool, timestamp_ms: int, deadline: float, tally: Tally, explicit: bool
    ) -> Single:
        """Queue one record as a delivery of its own; ``tail`` and ``size`` as of `Segment.put`."""
        need = size + RECORD_OVERHEAD_MAX_BYTES
        segment = self.last
        if segment.room < need:
            segment = self.open_segment()
        segment.room -= need
        if segment.plain is not plain:
            if plain:
                tail = encode_record_tail(None, tail)
            else:
                segment.encode()
        tails = segment.tails
        single = Single(deadline, tally, None, None, segment, len(tails), timestamp_ms, explicit)
        segment.runs.append(single)
        segment.timestamps.append(timestamp_ms)
        tails.append(tail)
        return single

    def put_parcel(self, run: Run, tails: Sequence[bytes | None], size: int, plain: bool) -> None:
        """Queue a run whose records, none of them taken back, lay elsewhere; it is cut where a segment is full."""
        need = size + RECORD_OVERHEAD_MAX_BYTES * len(tails)
        if need <= self.segment_bytes and self.last.room < min(need, self.segment_bytes // 4):
            self.open_segment()  # a batch that is nearly full is worth less than a run that stays whole
        if need <= self.last.room:
            self.last.put(run, tails, size, plain)
            return
        sizes = _sizes(tails, plain)
        ends = self._cuts(sizes)
        pieces = [run]
        if len(ends) > 1:
            assert isinstance(run, Part)
            pieces += run.cut(ends[:-1])
        begin = 0
        for piece, end in zip(pieces, ends, strict=True):
            size = sum(sizes[begin:end])
            if size + RECORD_OVERHEAD_MAX_BYTES * (end - begin) > self.last.room:
                self.open_segment()
            self.last.put(piece, tails[begin:end], size, plain)
            begin = end

    def _cuts(self, sizes: Sequence[int]) -> list[int]:
        """The ends of pieces that fit into what room the last segment has, and into new ones."""
        needs = list(accumulate([size + RECORD_OVERHEAD_MAX_BYTES for size in sizes]))
        first = bisect_right(needs, self.last.room)
        ends = [first] if first else []
        begin = first
        while begin < len(sizes):
            before = needs[begin - 1] if begin else 0
            begin = max(begin + 1, bisect_right(needs, before + self.segment_bytes, begin))
            ends.append(begin)
        return ends

    def open_segment(self) -> Segment:
        """The last one is full: begin another."""
        segment = self.last = Segment(self, self.segment_bytes)
        self.segments.append(segment)
        return segment

    # The keeper of its segments.

    def release(self, run: Run, reason: str) -> NotSent:
        """Tombstone: drop the payload, give the bytes back."""
        segment = run.home
        assert isinstance(segment, Segment)
        count = run.open
        size = segment.bury(range(run.first, run.first + run.count))
        run.home = None
        return self._left(segment, count, size, reason)

    def release_some(self, run: Part, positions: Sequence[int], reason: str) -> NotSent:
        """As `release`, for some records of a run."""
        segment = run.home
        assert isinstance(segment, Segment)
        size = segment.bury([run.first + position for position in positions])
        return self._left(segment, len(positions), size, reason)

    def _left(self, segment: Segment, count: int, size: int, reason: str) -> NotSent:
        dead, places = segment.dead, len(segment.tails)
        if dead == places:
            self.segments.remove(segment)
            segment.runs, segment.watched = [], []  # it is left to `released`, which comes next
            if segment is self.last:
                self.last = self.segments[-1] if self.segments else self._closed
        elif dead > SWEEP_MIN and dead * 2 > places:
            segment.compact()
        self.budget.not_sent_total += count
        outcome = self.budget.not_sent(self.reason(reason))
        self.budget.give_back(size + RECORD_COST_BYTES * count)
        return outcome

    def released(self) -> None:
        """The bytes that came back may let others in."""
        self.budget.let_in()

    def reason(self, reason: str) -> str:
        """A standing operator-level error says more than that the time was over."""
        return reason_of(reason, self._standing)

    # What goes out.

    def take(self) -> Segment | None:
        """Take the first segment for a batch; None when there is none.

        The caller becomes its keeper, and gives the bytes back to the budget once it has accounted for them elsewhere.
        """
        if not self.segments:
            return None
        segment = self.segments.popleft()
        if segment is self.last:
            self.last = self._closed
        segment.compact()
        return segment

    def head(self) -> Run | None:
        """The run that has been here longest."""
        return self.segments[0].head() if self.segments else None

    def drain(self, topic: str, route: int) -> list[Parcel]:
        """Take everything out, to put it into other queues; the budget is not touched.

        Args:
            route: of the single records that name their partition.
        """
        parcels = []
        for segment in self.segments:
            segment.compact()
            segment.encode()
            for run in segment.runs:
                places = slice(run.first, run.first + run.count)
                tails = [tail for tail in segment.tails[places] if tail is not None]
                if isinstance(run, Part):
                    routes = run.routes
                else:
                    routes = (route,) if run.explicit else None
                parcels.append(Parcel(topic, run, tails, sum(map(len, tails)), routes or routes_of_tails(tails)))
            segment.finish()
        self.segments.clear()
        self.last = self._closed
        return parcels

    def end_due(self, now: float, reason: str) -> None:
        """End with this reason what is past its delivery timeout."""
        while (run := self.head()) is not None and run.deadline <= now:
            run.end(reason)

    def end_all(self, reason: str) -> None:
        """End everything with this reason."""
        while (run := self.head()) is not None:
            run.end(reason)

    def __repr__(self) -> str:
        return f"<RecordQueue of {self.count} records, {self.size_bytes} bytes in {len(self.segments)} segments>"


def _sizes(tails: Sequence[bytes | None], plain: bool) -> list[int]:
    """The lengths of tails none of which was taken back, or what they would be for plain ones."""
    lengths = map(len, tails)  # type: ignore[arg-type]  # no None among them
    return plain_sizes(lengths) if plain else list(lengths)


class Undealt:
    """Parcels of one topic, first in, first out, until its partitions are known; their keeper."""

    __slots__ = ("_dead", "_parcels", "_standing", "budget", "count")

    def __init__(self, budget: ByteBudget, standing: Callable[[], str | None]) -> None:
        """Args:
        standing: the reason to give while an operator-level error stands, else None.
        """
        self.budget = budget
        self.count = 0
        """Records in here."""
        self._standing = standing
        self._parcels: deque[Parcel] = deque()
        self._dead = 0

    def append(self, parcel: Parcel) -> None:
        """Take in a parcel whose bytes the budget has admitted."""
        parcel.keeper = self
        self._parcels.append(parcel)
        self.count += parcel.live

    def left(self, parcel: Parcel, cost: int, count: int) -> None:
        """So many of its records, which counted ``cost``, were taken back."""
        self.count -= count
        self.budget.not_sent_total += count
        self.budget.give_back(cost)
        if parcel.live == 0:
            self._dead += 1
            if self._dead > SWEEP_MIN and self._dead * 2 > len(self._parcels):
                self._parcels = deque(other for other in self._parcels if other.live)
                self._dead = 0

    def not_sent(self, reason: str) -> NotSent:
        """The outcome of records that never had a partition."""
        return self.budget.not_sent(reason_of(reason, self._standing))

    def released(self) -> None:
        """The bytes that came back may let others in."""
        self.budget.let_in()

    def head(self) -> Run | None:
        """The run that has been here longest."""
        while self._parcels and self._parcels[0].live == 0:
            self._parcels.popleft()
            self._dead -= 1
        return self._parcels[0].run if self._parcels else None

    def drain(self) -> list[Parcel]:
        """Take everything out, to deal it out; the budget is not touched."""
        parcels = [parcel for parcel in self._parcels if parcel.live]
        self._parcels.clear()
        self._dead = self.count = 0
        return parcels

    def end_due(self, now: float, reason: str) -> None:
        """End with this reason what is past its delivery timeout."""
        while (run := self.head()) is not None and run.deadline <= now:
            run.end(reason)

    def end_all(self, reason: str) -> None:
        """End everything with this reason."""
        while (run := self.head()) is not None:
            run.end(reason)

    def __repr__(self) -> str:
        return f"<Undealt of {self.count} records, {self._dead} tombstones>"
