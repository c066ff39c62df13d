"""The outbox of one broker: which partitions have something for it, what the next request carries, what is in flight.

Owns: the partitions with work, the requests without an answer, the gathering (linger) and the throttle. Refuses to
know: sockets and tasks: a sender asks `next_request`, tells `answered` and `lost`, and sleeps until the alarm.

Theory of the linger. With nothing in flight to the broker a record is sent at once: a quiet server
adds no latency. With something in flight records gather until an answer comes, or `linger_s` is over, or a partition
has a whole batch: under load the answers set the pace, and batches grow by themselves.

Invariants: a request carries at most one batch of a partition, and batches of one identity only; a request that
`next_request` returned is in flight until `answered` or `lost` takes it.
"""

import math
from collections import deque
from typing import Protocol

from kafka_client.config import ProducerConfig
from kafka_client.wire.produce import PartitionResult, ProduceResponse

from .batch import Phase, SealedBatch
from .identity import ProducerState
from .partition import PartitionState

__all__ = ["Alarm", "Outbox", "Request"]

UNSUPPORTED_VERSION = 35


class Alarm(Protocol):
    """Wakes the sender."""

    def ring(self) -> None:
        """Now."""
        ...

    def ring_at(self, time: float) -> None:
        """At this time, if it is earlier than what it waits for."""
        ...


class Request:
    """One Produce request: a batch each of some partitions."""

    __slots__ = ("batches", "size_bytes")

    def __init__(self, batches: list[tuple[PartitionState, SealedBatch]], size_bytes: int) -> None:
        self.batches = batches
        self.size_bytes = size_bytes

    def __repr__(self) -> str:
        return f"<Request of {len(self.batches)} batches, {self.size_bytes} bytes>"


class Outbox:
    """What goes to one broker."""

    __slots__ = (
        "_active",
        "_alarm",
        "_config",
        "_gather_until",
        "_go",
        "_next_due",
        "_throttled_until",
        "answers_total",
        "broker",
        "renegotiate",
        "requests",
        "requests_total",
    )

    def __init__(self, broker: int, config: ProducerConfig, alarm: Alarm) -> None:
        self.broker = broker
        self.requests: deque[Request] = deque()
        """In flight, oldest first."""
        self.requests_total = 0
        self.answers_total = 0
        self.renegotiate = False
        """A broker did not know our version of Produce: the connection is to be opened again."""
        self._alarm = alarm
        self._config = config
        self._active: dict[PartitionState, None] = {}
        self._go = False
        """Something happened since the last look that may allow to send."""
        self._gather_until = math.inf
        self._next_due = math.inf
        self._throttled_until = -math.inf

    # What partitions tell.

    def work(self, partition: PartitionState, now: float) -> None:
        """The partition has something new."""
        self._active[partition] = None
        if not self.requests:
            self.urge()
        elif self._gather_until == math.inf and not self._go:
            self._gather_until = now + self._config.linger_s
            self._alarm.ring_at(self._gather_until)

    def urge(self) -> None:
        """A whole batch has gathered: no more lingering.

        It rings even where ``_go`` is set: a sender without a connection sleeps until there is work, whatever ``_go``.
        """
        self._go = True
        self._alarm.ring()

    def poke(self, partition: PartitionState) -> None:
        """What held the partition up is over."""
        self._active[partition] = None
        self.urge()

    def forget(self, partition: PartitionState) -> None:
        """Another broker leads it."""
        self._active.pop(partition, None)

    @property
    def has_work(self) -> bool:
        """Whether a connection is worth having."""
        return bool(self._active)

    # What the sender asks.

    def next_request(self, now: float) -> Request | None:
        """What to write now, sealed in this very step; None: sleep until `due`."""
        if now < self._throttled_until or not (self._go or now >= min(self._gather_until, self._next_due)):
            return None
        self._go = False
        self._gather_until = self._next_due = math.inf
        room = self._config.request_max_bytes
        identity: ProducerState | None = None
        batches: list[tuple[PartitionState, SealedBatch]] = []
        for partition in list(self._active):
            if batches and room < self._config.batch_max_bytes:
                # The next request begins with those that found no room in this one.
                self._active.pop(partition)
                self._active[partition] = None
                self._go = True
                continue
            batch = partition.pick(now, identity)
            if batch is None:
                self._look_again(partition, identity, now)
                continue
            identity = batch.state
            partition.written(batch)
            batches.append((partition, batch))
            room -= len(batch.wire)
            self._after_pick(partition, now)
        if not batches:
            return None
        request = Request(batches, self._config.request_max_bytes - room)
        self.requests.append(request)
        self.requests_total += 1
        return request

    def due(self) -> float:
        """When `next_request` should be asked again if nothing happens before."""
        return max(self._throttled_until, -math.inf if self._go else min(self._gather_until, self._next_due))

    def has_due_time(self, now: float) -> bool:
        """Whether it waits for time by itself: linger or throttle. Backoffs are the partitions'."""
        until = max(self._throttled_until, self._gather_until if self._gather_until < math.inf else -math.inf)
        return now < until and any(not partition.idle for partition in self._active)

    def _look_again(self, partition: PartitionState, identity: ProducerState | None, now: float) -> None:
        if partition.idle:
            del self._active[partition]
            partition.announced = False
        elif identity is not None and partition.other_identity(identity):
            self._go = True
        else:
            self._next_due = min(self._next_due, partition.due(now))

    def _after_pick(self, partition: PartitionState, now: float) -> None:
        if partition.window.next_attempt() is not None or partition.queue.holds_a_batch:
            self._go = True
        elif partition.queue.segments:
            self._gather_until = min(self._gather_until, now + self._config.linger_s)
        else:
            partition.announced = False

    # What the sender tells.

    def answered(self, request: Request, response: ProduceResponse, now: float, topic_ids: dict[bytes, str]) -> None:
        """The answer to the oldest request in flight."""
        oldest = self.requests.popleft()
        assert oldest is request, "answers come in the order of requests"
        self.answers_total += 1
        self._go = True
        self._alarm.ring()
        if response.throttle_time_ms > 0:
            self._throttled_until = max(self._throttled_until, now + response.throttle_time_ms / 1000)
        results: dict[tuple[str, int], PartitionResult] = {}
        for result in response.partitions:
            topic = result.topic if result.topic is not None else topic_ids.get(result.topic_id or b"", "")
            results.setdefault((topic, result.partition), result)  # a repeated partition: the first answer counts
        for partition, batch in request.batches:
            found = results.get((partition.tp.topic, partition.tp.partition))
            if batch.phase is Phase.ENDED:
                continue  # the producer was closed meanwhile
            if found is None:
                partition.unanswered(batch, now)
            else:
                partition.answered(batch, found, now)
                self.renegotiate |= found.error_code == UNSUPPORTED_VERSION

    def lost(self, now: float) -> None:
        """The connection ended: whatever was written on it may have been appended."""
        requests, self.requests = list(self.requests), deque()
        self._throttled_until = -math.inf
        for request in requests:
            for partition, batch in request.batches:
                if batch.phase is not Phase.ENDED:
                    partition.lost(batch, now)
        self._go = True

    def __repr__(self) -> str:
        return f"<Outbox of broker {self.broker}: {len(self._active)} partitions, {len(self.requests)} in flight>"
