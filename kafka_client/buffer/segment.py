"""Where records lie, as parallel lists: a segment of one partition's queue, or a parcel that has no partition yet.

Owns: the lists, the places of runs in them, the tombstones. Refuses to know: budgets, sequences, sockets: a *keeper*
answers for what is in here.

Theory. A **segment** is a batch in the making: records of one partition in the order of the calls, as many as one batch
may hold. A seal takes a segment as it is and gives it another keeper: the queue before, the batch after. So neither the
seal nor the end of a batch looks at its records one by one: the lists are joined by C code, the end is one assignment
to ``resolution``, and a run finds its outcome there when somebody asks (a task that waits, and a bulk delivery that
counts, are *told*: they `watch`). A pass over ten thousand objects that have left the processor's cache is what a
pipelining producer would otherwise spend its time with.

A **parcel** holds records of one run whose partition is not decided: while they wait for the byte budget, or for the
topic's metadata.

Invariants: a run's ``home`` is the segment or parcel in whose lists it lies, at ``first``; ``dead`` places hold None.
After a segment was sealed its places never change.

Non-obvious: runs refer to their home and the home to its runs, and the collector of cycles does not see runs. `finish`
cuts the cycle; every segment comes to it, by its batch's end or because all in it were taken back.
"""

from collections.abc import Sequence
from typing import Protocol

from kafka_client.outcome import NotSent, Unknown
from kafka_client.wire.record_batch import RECORD_OVERHEAD_MAX_BYTES, encode_record_tail, plain_size

from .run import RECORD_COST_BYTES, Part, Resolution, Run

__all__ = ["SWEEP_MIN", "Keeper", "Parcel", "ParcelKeeper", "Segment"]

#: Tombstones are swept when there are more than this many and they are the majority.
SWEEP_MIN = 64


class Keeper(Protocol):
    """Answers for a segment: the queue or the batch that has it."""

    def release(self, run: Run, reason: str) -> NotSent | Unknown:
        """As `kafka_client.buffer.run.Home.release`."""
        ...

    def release_some(self, run: Part, positions: Sequence[int], reason: str) -> NotSent | Unknown:
        """As `kafka_client.buffer.run.Home.release_some`."""
        ...

    def released(self) -> None:
        """As `kafka_client.buffer.run.Home.released`."""
        ...


class Segment:
    """Records of one partition that are sealed together; the home of their runs."""

    __slots__ = (
        "_front",
        "_limit",
        "dead",
        "keeper",
        "plain",
        "resolution",
        "room",
        "runs",
        "tails",
        "timestamps",
        "watched",
    )

    def __init__(self, keeper: Keeper, room: int) -> None:
        self.keeper: Keeper | None = keeper
        self._limit = self.room = room
        """Bytes that may still be put in, the records' framing included."""
        self.runs: list[Run] = []
        self.watched: list[Run] = []
        """Those to tell of the end."""
        self.tails: list[bytes | None] = []
        self.plain = True
        """`tails` are values, by reference: see `kafka_client.wire.record_batch`. Ends with the first record that is
        not plain, or was encoded before it came here."""
        self.timestamps: list[int] = []
        self.resolution: Resolution | None = None
        self.dead = 0
        """Places whose record was taken back."""
        self._front = 0
        """Before this place among ``runs`` nothing is open."""

    @property
    def live(self) -> int:
        """Records in here."""
        return len(self.tails) - self.dead

    @property
    def size_bytes(self) -> int:
        """Their encoded tails, together."""
        return self._limit - self.room - RECORD_OVERHEAD_MAX_BYTES * (len(self.tails) - self.dead)

    # The home of its runs.

    def watch(self, run: Run) -> None:
        """Tell this run of the end."""
        self.watched.append(run)

    def release(self, run: Run, reason: str) -> NotSent | Unknown:
        """The keeper decides."""
        assert self.keeper is not None
        return self.keeper.release(run, reason)

    def release_some(self, run: Part, positions: Sequence[int], reason: str) -> NotSent | Unknown:
        """The keeper decides."""
        assert self.keeper is not None
        return self.keeper.release_some(run, positions, reason)

    def released(self) -> None:
        """The keeper may use what came back."""
        if self.keeper is not None:
            self.keeper.released()

    # What its keeper does with it.

    def encode(self) -> None:
        """Encode what is there by reference; nobody's account changes."""
        if self.plain:
            self.plain = False
            self.tails = [None if value is None else encode_record_tail(None, value) for value in self.tails]

    def put(self, run: Run, tails: Sequence[bytes | None], size: int, plain: bool) -> None:
        """Append a run whole; ``size`` is the sum of its tails, or what it would be for ``plain`` ones."""
        if plain and not self.plain:
            tails = [None if value is None else encode_record_tail(None, value) for value in tails]
        elif not plain:
            self.encode()
        run.home = self
        run.first = len(self.tails)
        self.runs.append(run)
        if run.watched:
            self.watched.append(run)
        self.tails += tails
        stamps = run.timestamps
        self.timestamps += [stamps] * len(tails) if isinstance(stamps, int) else stamps
        self.room -= size + RECORD_OVERHEAD_MAX_BYTES * len(tails)

    def bury(self, places: Sequence[int]) -> int:
        """Drop these records, their room is free again; returns the size of their tails."""
        size = 0
        tails = self.tails
        for place in places:
            tail = tails[place]
            if tail is not None:
                its_size = plain_size(tail) if self.plain else len(tail)
                size += its_size
                tails[place] = None
                self.dead += 1
                self.room += its_size + RECORD_OVERHEAD_MAX_BYTES
        return size

    def compact(self) -> None:
        """Close the gaps that tombstones left; only in a queue."""
        if self.dead == 0:
            return
        tails = self.tails
        runs = [run for run in self.runs if run.home is self]
        kept: list[int] = []
        for run in runs:
            first, count = run.first, run.count
            run.first = len(kept)
            if count == 1:
                kept.append(first)
                continue
            alive = [j for j in range(count) if tails[first + j] is not None]
            assert isinstance(run, Part)
            run.keep(alive)
            kept += [first + j for j in alive]
        self.runs = runs
        self.watched = [run for run in self.watched if run.home is self]
        self.tails = [tails[place] for place in kept]
        self.timestamps = [self.timestamps[place] for place in kept]
        self.dead = self._front = 0

    def head(self) -> Run | None:
        """The run that has been here longest and is open."""
        runs = self.runs
        while self._front < len(runs):
            run = runs[self._front]
            if run.home is self and run.open:
                return run
            self._front += 1
        return None

    def adopt(self, runs: Sequence[Run]) -> None:
        """Take over runs of another segment, in order; the caller has put their records here."""
        place = 0
        for run in runs:
            run.home = self
            run.first = place
            place += run.count
            if run.watched:
                self.watched.append(run)
        self.runs = list(runs)

    def finish(self) -> None:
        """Forget the records and the runs: all have an outcome, or another home."""
        self.runs, self.watched, self.tails, self.timestamps = [], [], [], []
        self.keeper = None
        self.dead = self._front = 0

    def end(self, resolution: Resolution) -> None:
        """End everything in here alike, exactly once: first all are settled, then those that watch are told."""
        self.resolution = resolution
        watched = self.watched
        self.finish()
        for run in [run for run in watched if run.told(resolution)]:
            run.report(resolution)

    def __repr__(self) -> str:
        return f"<Segment of {self.live} records, {self.dead} tombstones, room for {self.room} bytes>"


class ParcelKeeper(Protocol):
    """Answers for a parcel: a place in the budget's line, or a topic whose partitions are unknown."""

    def left(self, parcel: "Parcel", cost: int, count: int) -> None:
        """So many of its records, which counted ``cost`` on the accounts, were taken back."""
        ...

    def not_sent(self, reason: str) -> NotSent:
        """The outcome of records that never had a partition."""
        ...

    def released(self) -> None:
        """As `kafka_client.buffer.run.Home.released`."""
        ...


class Parcel:
    """Records of one run and one topic without a partition; the home of the run."""

    __slots__ = ("keeper", "live", "plain", "routes", "run", "size", "tails", "topic")

    #: Nothing ends in here but by `release`.
    resolution: Resolution | None = None

    def __init__(
        self, topic: str, run: Run, tails: Sequence[bytes], size: int, routes: Sequence[int], *, plain: bool = False
    ) -> None:
        self.topic = topic
        self.plain = plain
        """As of a segment."""
        self.run: Run | None = run
        self.tails: Sequence[bytes | None] = tails
        self.routes = routes
        """One for each record: see `kafka_client.buffer.partitioner`."""
        self.size = size
        """Sum of the lengths of ``tails``, or what it would be for plain ones."""
        self.live = len(tails)
        self.keeper: ParcelKeeper | None = None
        run.home = self
        run.first = 0

    @property
    def cost(self) -> int:
        """What it counts on the byte accounts."""
        return self.size + RECORD_COST_BYTES * self.live

    def watch(self, run: Run) -> None:
        """It is told in the segment that it comes to; until then its delivery itself ends it."""

    def release(self, run: Run, reason: str) -> NotSent:
        """Take all of it out."""
        assert self.keeper is not None
        cost, count = self.cost, self.live
        self.tails, self.routes = (), ()
        self.size = self.live = 0
        self.run = None
        outcome = self.keeper.not_sent(reason)
        self.keeper.left(self, cost, count)
        return outcome

    def release_some(self, run: Part, positions: Sequence[int], reason: str) -> NotSent:
        """Take these records out; the rest keeps its place."""
        assert self.keeper is not None
        tails = self.tails if isinstance(self.tails, list) else list(self.tails)
        cost = RECORD_COST_BYTES * len(positions)
        for position in positions:
            tail = tails[position]
            assert tail is not None
            size = plain_size(tail) if self.plain else len(tail)
            cost += size
            self.size -= size
            tails[position] = None
        self.tails = tails
        self.live -= len(positions)
        outcome = self.keeper.not_sent(reason)
        self.keeper.left(self, cost, len(positions))
        return outcome

    def released(self) -> None:
        """The keeper may use what came back."""
        if self.keeper is not None:
            self.keeper.released()

    def compact(self) -> None:
        """Forget what was taken back."""
        if self.live == len(self.tails):
            return
        alive = [j for j, tail in enumerate(self.tails) if tail is not None]
        assert isinstance(self.run, Part)
        self.run.keep(alive)
        self.tails = [self.tails[j] for j in alive]
        self.routes = [self.routes[j] for j in alive]

    def __repr__(self) -> str:
        return f"<Parcel of {self.live} records, {self.size} bytes, for {self.topic}>"
