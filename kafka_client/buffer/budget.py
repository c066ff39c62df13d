"""The byte budget of the queue: strictly first come, first served, in units of deliveries.

Owns: how many bytes are admitted, who waits for room, and how much may wait. Refuses to know: partitions, brokers, and
what admitting means (a function it is given).

Theory. A smaller delivery never overtakes a larger one that came first: that would break the order of a key. So only
the head of the line is ever looked at, and whenever bytes come back *all* that now fit go in, not one: waking one per
release loses wake-ups when one release makes room for several (franz-go #777, #787, #832). Nobody is parked here: a
delivery in the line is an entry in a deque and its waiter, if any, is parked on the delivery.

Invariants: ``used_bytes <= limit_bytes``; while the line is not empty its head does not fit; ``waiting_bytes`` is the
sum of the line's entries and at most ``waiting_limit_bytes``.

Non-obvious: admitting runs code that may release bytes again (a refused record). `_admit_fitting` is therefore not
re-entered; the outer loop sees what the inner call freed.
"""

from collections import deque
from collections.abc import Callable, Sequence

from kafka_client.outcome import NotSent

from .delivery import Delivery
from .segment import SWEEP_MIN, Parcel

__all__ = ["ByteBudget", "Waiting", "reason_of"]


def reason_of(reason: str, standing: Callable[[], str | None]) -> str:
    """A standing operator-level error says more than that the time was over; a close is said as it is."""
    return reason if reason == "closed" else standing() or reason


class Waiting:
    """One delivery's place in the line; the keeper of its parcels while they wait."""

    __slots__ = ("budget", "cost", "delivery", "parcels")

    def __init__(self, budget: "ByteBudget", delivery: Delivery, parcels: Sequence[Parcel], cost: int) -> None:
        self.budget = budget
        self.delivery: Delivery | None = delivery
        self.parcels: Sequence[Parcel] = parcels
        self.cost = cost
        for parcel in parcels:
            parcel.keeper = self

    def left(self, parcel: Parcel, cost: int, count: int) -> None:
        """So many records of the parcel, which counted ``cost``, were taken back; the rest keeps its place."""
        self.budget.not_sent_total += count
        self.cost -= cost
        if self.cost == 0:
            self.delivery = None
            self.parcels = ()
        self.budget.shrunk(self, cost)

    def not_sent(self, reason: str) -> NotSent:
        """The outcome of records that never had a partition."""
        return self.budget.not_sent(self.budget.reason(reason))

    def released(self) -> None:
        """The next may have become the head, or fit."""
        self.budget.let_in()


class ByteBudget:
    """Admits deliveries up to a number of bytes and keeps the rest in line."""

    def __init__(
        self,
        limit_bytes: int,
        waiting_limit_bytes: int,
        admit: Callable[[Parcel], None],
        standing: Callable[[], str | None],
    ) -> None:
        """Args:
        admit: queues one parcel.
        standing: the reason to give while an operator-level error stands, else None.
        """
        self.limit_bytes = limit_bytes
        self.waiting_limit_bytes = waiting_limit_bytes
        self.used_bytes = 0
        self.waiting_bytes = 0
        self.not_sent_total = 0
        """Records that ended NotSent before they were sealed."""
        self.on_less: Callable[[], None] | None = None
        """Called whenever bytes came back, while somebody waits for the end of all work."""
        self._admit = admit
        self._standing = standing
        self._line: deque[Waiting] = deque()
        self._dead = 0
        self._admitting = False
        self._not_sent: dict[str, NotSent] = {}

    @property
    def room_bytes(self) -> int:
        """What the next delivery may cost and be admitted at once; 0 while others wait."""
        return 0 if self._line else max(0, self.limit_bytes - self.used_bytes)

    def try_take(self, cost: int) -> bool:
        """Take ``cost`` bytes now if nobody waits and they fit."""
        if self._line or self.used_bytes + cost > self.limit_bytes:
            return False
        self.used_bytes += cost
        return True

    def try_wait(self, delivery: Delivery, parcels: Sequence[Parcel], cost: int) -> bool:
        """Put a delivery's parcels at the end of the line; False when too much waits already."""
        if self.waiting_bytes + cost > self.waiting_limit_bytes:
            return False
        self._line.append(Waiting(self, delivery, parcels, cost))
        self.waiting_bytes += cost
        return True

    def give_back(self, cost: int) -> None:
        """Return bytes of records that left the queue; `let_in` follows as soon as the caller's state is whole."""
        self.used_bytes -= cost

    def let_in(self) -> None:
        """Admit all that fit, in order."""
        if self._line:
            self._admit_fitting()
        if self.on_less is not None:
            self.on_less()

    def shrunk(self, place: Waiting, cost: int) -> None:
        """A place in the line lost ``cost`` bytes, perhaps all it had; `let_in` follows."""
        self.waiting_bytes -= cost
        if place.cost == 0:
            self._dead += 1
            if self._dead > SWEEP_MIN and self._dead * 2 > len(self._line):
                self._line = deque(waiting for waiting in self._line if waiting.cost)
                self._dead = 0

    def head(self) -> Delivery | None:
        """The delivery that has waited longest."""
        self._drop_dead_heads()
        return self._line[0].delivery if self._line else None

    def waiting_deliveries(self) -> int:
        """How many deliveries are in the line."""
        return len(self._line) - self._dead

    def deliveries(self) -> list[Delivery]:
        """All deliveries in the line, in order."""
        return [place.delivery for place in self._line if place.delivery is not None]

    def reason(self, reason: str) -> str:
        """A standing operator-level error says more than that the time was over."""
        return reason_of(reason, self._standing)

    def not_sent(self, reason: str) -> NotSent:
        """One shared value per reason: a mass withdrawal makes no objects."""
        outcome = self._not_sent.get(reason)
        if outcome is None:
            outcome = NotSent(reason)
            if len(self._not_sent) < 64:  # reasons are few; prose in them may not grow this without bound
                self._not_sent[reason] = outcome
        return outcome

    def _drop_dead_heads(self) -> None:
        while self._line and self._line[0].cost == 0:
            self._line.popleft()
            self._dead -= 1

    def _admit_fitting(self) -> None:
        if self._admitting:
            return
        self._admitting = True
        try:
            while True:
                self._drop_dead_heads()
                if not self._line or self.used_bytes + self._line[0].cost > self.limit_bytes:
                    return
                place = self._line.popleft()
                self.waiting_bytes -= place.cost
                self.used_bytes += place.cost
                # Nothing looks at the place any more. A run that is cut up now keeps its parcel, and the collector of
                # cycles does not see runs: what the place still held would stay for ever.
                parcels, place.parcels, place.delivery = place.parcels, (), None
                for parcel in parcels:
                    if parcel.live:
                        self._admit(parcel)
        finally:
            self._admitting = False

    def __repr__(self) -> str:
        return (
            f"<ByteBudget {self.used_bytes} of {self.limit_bytes} bytes, "
            f"{self.waiting_deliveries()} waiting with {self.waiting_bytes} bytes>"
        )
