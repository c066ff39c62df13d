"""Ends Kafka's share of the time for all requests that wait, with one task and no timer for each.

Owns: which deliveries wait until when. Refuses to know: requests, what becomes of a delivery that was taken back.

Theory. All requests have the same share, but for those whose client is in a hurry, so whoever comes first is due first:
an ordered dictionary is the list of deadlines, and coming and going cost a fifth of a microsecond, where a cancel scope
costs ten. What is taken back wakes its waiter by itself. Who would have to stand before others gets no place, and needs
a scope of its own.

Invariant: nobody's share ends early, nor later than `LATE_S` after its time.
"""

import math
from typing import TYPE_CHECKING, NoReturn

import trio

from kafka_client.cluster.alarm import TaskAlarm

if TYPE_CHECKING:
    from collector.ingest.enqueue import DeliveryLike

__all__ = ["LATE_S", "KafkaShares"]

#: How much earlier than the latest one a deadline may be and still stand behind it: the lag of the loop counts.
LATE_S = 0.1


class KafkaShares:
    """Of one process. `run` is its task; while that does not run, nobody gets a place.

    Args:
        kafka_s: The share of a request whose client is not in a hurry.
    """

    def __init__(self, kafka_s: float) -> None:
        self._kafka_s = kafka_s
        self._waiting: dict[DeliveryLike, float] = {}
        self._latest = -math.inf
        self._alarm = TaskAlarm()
        self._runs = False

    def __repr__(self) -> str:
        return f"<KafkaShares {len(self._waiting)} waiting>"

    def begin(self, delivery: "DeliveryLike", at: float) -> bool:
        """Take the delivery back at this time on Trio's clock; False: it got no place."""
        if at < self._latest - LATE_S or not self._runs:
            return False
        self._latest = max(self._latest, at)
        self._waiting[delivery] = at
        self._alarm.ring_at(at)
        return True

    def end(self, delivery: "DeliveryLike") -> None:
        """It does not wait any more."""
        self._waiting.pop(delivery, None)

    async def run(self) -> NoReturn:
        """Take back what is due, for ever. On cancellation: nothing is taken back any more."""
        self._runs = True
        try:
            while True:
                now = trio.current_time()
                await self._alarm.wait(min(self._take_back(now), now + self._kafka_s))
        finally:
            self._runs = False

    def _take_back(self, now: float) -> float:
        """Withdraw what is due; returns when the next one is."""
        due = []
        next_at = math.inf
        for delivery, at in self._waiting.items():
            if at > now:
                next_at = at
                break
            due.append(delivery)
        for delivery in due:
            del self._waiting[delivery]
            delivery.withdraw()
        return next_at
