"""The queue of one partition: what is admitted and not sealed; all of it can still be taken back.

Owns: runs in the order of the calls that brought them, the tombstones among them, and the bytes they hold of the
budget. Refuses to know: sequence numbers, brokers, deadlines.

Theory. Taking back is a tombstone: the payload is dropped and the bytes go back at once, the run's place in the deque
is swept later, when dead ones are the majority: O(1) each, however many leave together (aiokafka's mass cancellation
is O(n²)). Nothing in here has a sequence number or an offset, so a withdrawal leaves no trace (kafka.md rule 1).

Invariant: ``size_bytes`` and ``count`` describe exactly the records that a seal would take.

The same class holds the records of a topic whose partitions are unknown; they are dealt out when that is known.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence

from kafka_client.outcome import NotSent
from kafka_client.wire.record_batch import RECORD_OVERHEAD_MAX_BYTES

from .budget import SWEEP_MIN, ByteBudget, drop_tails
from .run import RECORD_COST_BYTES, Run

__all__ = ["RecordQueue", "Taken"]


class Taken:
    """Records that a seal took, in order, with all that a batch is made of."""

    __slots__ = ("cost", "runs", "tails", "timestamps")

    def __init__(self) -> None:
        self.runs: list[Run] = []
        self.tails: list[bytes] = []
        self.timestamps: list[int] = []
        self.cost = 0
        """What they count on the byte accounts."""


class RecordQueue:
    """First in, first out; the home of its runs."""

    __slots__ = ("_dead", "_runs", "_standing", "budget", "count", "size_bytes")

    def __init__(self, budget: ByteBudget, standing: Callable[[], str | None]) -> None:
        """Args:
        standing: the reason to give while an operator-level error stands, else None.
        """
        self.budget = budget
        self._standing = standing
        self._runs: deque[Run] = deque()
        self._dead = 0
        self.count = 0
        """Records in here."""
        self.size_bytes = 0
        """Their encoded tails, together."""

    def append(self, run: Run) -> None:
        """Take in a run whose bytes the budget has admitted."""
        run.home = self
        self._runs.append(run)
        self.count += run.open
        self.size_bytes += run.size

    def release(self, run: Run, reason: str) -> NotSent:
        """Tombstone: drop the payload, give the bytes back."""
        cost = run.size + RECORD_COST_BYTES * run.open
        self.count -= run.open
        self.size_bytes -= run.size
        self.budget.not_sent_total += run.open
        run.tails = ()
        run.home = None
        self._dead += 1
        if self._dead > SWEEP_MIN and self._dead * 2 > len(self._runs):
            self._runs = deque(other for other in self._runs if other.home is self)
            self._dead = 0
        outcome = self.budget.not_sent(self.reason(reason))
        self.budget.give_back(cost)
        return outcome

    def release_some(self, run: Run, positions: Sequence[int], reason: str) -> NotSent:
        """As `release`, for some records of a run."""
        cost = drop_tails(run, positions)
        self.count -= len(positions)
        self.budget.not_sent_total += len(positions)
        self.size_bytes -= cost - RECORD_COST_BYTES * len(positions)
        outcome = self.budget.not_sent(self.reason(reason))
        self.budget.give_back(cost)
        return outcome

    def released(self) -> None:
        """The bytes that came back may let others in."""
        self.budget.let_in()

    def reason(self, reason: str) -> str:
        """A standing operator-level error says more than that the time was over."""
        return reason if reason == "closed" else self._standing() or reason

    def take(self, max_bytes: int) -> Taken | None:
        """Take records for one batch of at most ``max_bytes`` encoded (a single larger one goes alone), or None.

        The caller gives their bytes back to the budget (`Taken.cost`) once it has accounted for them elsewhere.
        """
        taken = Taken()
        runs, tails, timestamps = taken.runs, taken.tails, taken.timestamps
        room = max_bytes
        size = 0
        queue = self._runs
        while queue:
            run = queue[0]
            if run.home is not self:
                queue.popleft()
                self._dead -= 1
                continue
            need = run.size + RECORD_OVERHEAD_MAX_BYTES * run.open
            if need > room:
                need = self._front(run, room, alone=not tails)
                if need == 0:
                    break
            queue.popleft()
            run.first = len(tails)
            runs.append(run)
            stamp = run.timestamps
            if len(run.indices) == 1 and isinstance(stamp, int):
                tails.append(run.tails[0])  # type: ignore[arg-type]  # not taken back: it is open
                timestamps.append(stamp)
            else:
                run.compact()
                tails.extend(run.tails)  # type: ignore[arg-type]  # compact: no None among them
                stamp = run.timestamps
                timestamps.extend([stamp] * run.open if isinstance(stamp, int) else stamp)
            size += run.size
            run.tails = ()
            room -= need
        if not runs:
            return None
        taken.cost = size + RECORD_COST_BYTES * len(tails)
        self.size_bytes -= size
        self.count -= len(tails)
        return taken

    def _front(self, run: Run, room: int, *, alone: bool) -> int:
        """Cut the head of the queue so that its front fits; returns what the front needs, 0 if nothing fits.

        Args:
            alone: at least one record goes, however large.
        """
        run.compact()
        fitting = 0
        for tail in run.tails:
            assert tail is not None
            room -= len(tail) + RECORD_OVERHEAD_MAX_BYTES
            if room < 0:
                break
            fitting += 1
        if fitting == 0:
            if not alone:
                return 0
            fitting = 1
        if fitting < len(run.indices):
            self._runs.insert(1, run.split(fitting))
        return run.size + RECORD_OVERHEAD_MAX_BYTES * run.open

    def head(self) -> Run | None:
        """The run that has been here longest."""
        while self._runs and self._runs[0].home is not self:
            self._runs.popleft()
            self._dead -= 1
        return self._runs[0] if self._runs else None

    def drain(self) -> list[Run]:
        """Take everything out, to put it into other queues; the budget is not touched."""
        runs = [run for run in self._runs if run.home is self]
        for run in runs:
            run.compact()
        self._runs.clear()
        self._dead = self.count = self.size_bytes = 0
        return runs

    def end_due(self, now: float, reason: str) -> None:
        """End with this reason what is past its delivery timeout."""
        while (run := self.head()) is not None and run.delivery is not None and run.delivery.deadline <= now:
            run.delivery.end_run(run, reason)

    def end_all(self, reason: str) -> None:
        """End everything with this reason."""
        while (run := self.head()) is not None and run.delivery is not None:
            run.delivery.end_run(run, reason)

    def __iter__(self) -> Iterator[Run]:
        return (run for run in self._runs if run.home is self)

    def __len__(self) -> int:
        return self.count

    def __repr__(self) -> str:
        return f"<RecordQueue of {self.count} records, {self.size_bytes} bytes, {self._dead} tombstones>"
