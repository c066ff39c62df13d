"""One partition on its way out: queue, window and leader together; decides what is sent next.

Owns: the state of a partition for the producer's whole life: it survives metadata that says the topic is unknown
(librdkafka lost messages there until 1.9). Refuses to know: connections and tasks; it is driven by an outbox (what
next?) and told by it (answered, lost).

Invariants: a batch is sealed in the same synchronous step in which it is handed to the socket, never before, so until
then every record can be taken back without a trace; batches are never in flight to two leaders at once; the partition
has at most one due time, `due`.
"""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from kafka_client.buffer.budget import ByteBudget
from kafka_client.buffer.delivery import FOREVER_S
from kafka_client.buffer.queue import RecordQueue
from kafka_client.buffer.run import Run
from kafka_client.buffer.segment import Parcel
from kafka_client.outcome import TopicPartition, Unknown
from kafka_client.wire.error_codes import error_row
from kafka_client.wire.produce import PartitionResult

from .answers import Answers
from .batch import Phase, SealedBatch
from .identity import ProducerState
from .office import Office, TopicView
from .window import Window

if TYPE_CHECKING:
    from .outbox import Outbox

__all__ = ["PartitionState"]

_RECREATED = "the topic was deleted and created again"


class PartitionState:
    """Queue, window and leader of one partition."""

    __slots__ = (
        "_answers",
        "_cut_off",
        "_office",
        "_topic",
        "announced",
        "in_flight_at",
        "leader",
        "leader_epoch",
        "outbox",
        "queue",
        "tp",
        "window",
    )

    def __init__(self, topic: TopicView, index: int, office: Office, budget: ByteBudget) -> None:
        self.tp = TopicPartition(topic.name, index)
        self.queue = RecordQueue(budget, lambda: office.standing.reason_for(topic), office.config.batch_max_bytes)
        self.window = Window(office.config.max_in_flight_per_partition)
        self._answers = Answers(topic, office, self.window)
        self.leader: int | None = None
        self.leader_epoch = -1
        self.outbox: Outbox | None = None
        """The leader's."""
        self.in_flight_at: Outbox | None = None
        """Where the batches in flight were written; another than `outbox` until they are answered."""
        self.announced = False
        """The outbox knows that the queue is not empty."""
        self._cut_off = False
        """The topic was created again without this partition."""
        self._topic = topic
        self._office = office

    @property
    def answered_at(self) -> float | None:
        """When the last Produce answer for it came, whatever it said."""
        return self._answers.answered_at

    # What comes in.

    def enqueued_one(self, now: float) -> None:
        """One record was put into `queue`; to be called if it began a segment, or while not `announced`."""
        if not self.announced:
            self.announce(now)
        elif self.outbox is not None and self.queue.holds_a_batch:
            self.outbox.urge()

    def enqueue(self, run: Run, tails: Sequence[bytes | None], size: int, plain: bool, now: float) -> None:
        """Queue a run whose bytes the budget has admitted."""
        queue = self.queue
        held = queue.holds_a_batch
        queue.put_parcel(run, tails, size, plain)
        if not self.announced:
            self.announce(now)
        elif not held and queue.holds_a_batch and self.outbox is not None:
            self.outbox.urge()

    def announce(self, now: float) -> None:
        """Tell the outbox of new work; without a leader ask for metadata."""
        self._office.in_use(self)
        if self.outbox is not None:
            self.announced = True
            self.outbox.work(self, now)
        else:
            self._office.want_metadata()

    def lead_by(self, leader: int | None, epoch: int, outbox: "Outbox | None", now: float) -> None:
        """Metadata or a hint names the leader; None: there is none for now."""
        self.leader_epoch = max(epoch, self.leader_epoch) if epoch >= 0 else self.leader_epoch
        self.leader = leader
        if outbox is self.outbox:
            return
        if self.outbox is not None:
            self.outbox.forget(self)
        self.outbox = outbox
        self.announced = False
        self.window.no_pipelining()
        if outbox is not None and not self.idle:
            self._answers.not_before = -math.inf
            self.announce(now)

    def topic_recreated(self) -> None:
        """Another topic has the name now: a new log, sequences start again (KIP-516).

        Under another identity: a broker that lags behind may make the topic flap, so the log may have seen the old one.
        """
        self.leader_epoch = -1
        self.window.leave(f"abandoned: {_RECREATED}")
        if self.window.batches and self.outbox is not None:
            self.outbox.poke(self)

    def take_back(self) -> list[Parcel]:
        """Take everything that is queued out, to be dealt out anew."""
        self.announced = False  # the outbox finds it idle; what is queued later has to announce itself
        return self.queue.drain(self.tp.topic, self.tp.partition)

    def cut_off(self, now: float) -> None:
        """The topic was created again without this partition: what is sealed ends as soon as it is answered.

        Nothing of it can be sent: there is no such log. What cannot be in the deleted one is NotSent.
        """
        self._cut_off = True
        if self.window.in_flight == 0:
            self._end_cut_off(now)

    def restored(self) -> None:
        """The partition exists again."""
        self._cut_off = False

    def _end_cut_off(self, now: float) -> None:
        for batch in list(self.window.batches):
            ended = self.window.end(batch, unknown=f"abandoned: {_RECREATED}", not_sent=f"rejected: {_RECREATED}")
            self._answers.ended(batch, ended, now)

    # What goes out.

    @property
    def idle(self) -> bool:
        """Nothing queued and nothing sealed."""
        return not self.queue.segments and not self.window.batches

    def due(self, now: float) -> float:
        """When something can be sent that cannot be sent now for want of time; inf: it waits for an event."""
        until = self._answers.not_before
        for hold in (self._topic.hold, self._office.standing.hold):
            if hold.error is not None:
                until = max(until, hold.next_try)
        return until if until > now else math.inf

    def pick(self, now: float, only: ProducerState | None) -> SealedBatch | None:
        """The next batch to write, numbered and encoded; sealed here if it is a new one.

        Args:
            only: the identity of the request that it would join; a request never mixes identities.
        """
        office, window = self._office, self.window
        if now < self._answers.not_before or self._topic.hold.blocks(now) or office.standing.hold.blocks(now):
            return None
        if window.in_flight and self.in_flight_at is not self.outbox:
            return None
        ready = window.prepare(office.identity)
        while window.ended:
            ended = window.ended.pop()
            self._answers.ended(ended, "delivered" if ended.proved else "unknown", now)
        if not ready:
            return None
        batch = window.next_attempt()
        if batch is not None:
            if only is not None and batch.state != only:
                return None
        elif self.queue.segments and window.can_seal(office.identity) and (only is None or only == window.state):
            batch = self._seal(now)
        if batch is None:
            return None
        self._topic.hold.claim(now)
        office.standing.hold.claim(now)
        if not batch.wire:
            batch.encode()
        return batch

    def other_identity(self, only: ProducerState) -> bool:
        """Whether `pick` found nothing only because the request under way has another identity."""
        state = self.window.state
        return state != only and (
            self.window.waits_for_retry or (bool(self.queue.segments) and not self.window.unresolved)
        )

    def written(self, batch: SealedBatch) -> None:
        """The batch is handed to the socket, in this same synchronous step."""
        self.window.written(batch, self.leader_epoch)
        self.in_flight_at = self.outbox

    def _seal(self, now: float) -> SealedBatch | None:
        office = self._office
        config = office.config
        if self.window.cost >= config.in_flight_max_bytes_per_partition:
            return None
        if office.account.full:
            office.starved()
            return None
        oldest = self._oldest_queued()
        segment = self.queue.take()
        if segment is None:
            return None
        batch = SealedBatch.seal(
            self.tp,
            segment,
            account=office.account,
            now=now,
            called_at=now if oldest is None else oldest,
            timeout_s=config.batch_timeout_s,
            codec=config.compression,
            compression_min_bytes=config.compression_min_bytes,
        )
        self.window.add(batch)
        # Last: it lets the next in line into the queues, perhaps into this one.
        self.queue.budget.give_back(batch.cost)
        self.queue.budget.let_in()
        return batch

    # What comes back.

    def unanswered(self, batch: SealedBatch, now: float) -> None:
        """The answer to its request said nothing of this batch."""
        self._answers.missing(batch, now)
        self._drained(now)

    def lost(self, batch: SealedBatch, now: float) -> None:
        """The connection ended: the batch may have been appended."""
        self._answers.lost(batch)
        self._drained(now)

    def answered(self, batch: SealedBatch, result: PartitionResult, now: float) -> None:
        """Carry out what the answer means."""
        self._answers.answered(batch, result, now)
        if result.error_code and error_row(result.error_code).refresh_metadata:
            named = result.current_leader
            if named is not None and self._office.leaders.leader_named(self, named):
                self._answers.not_before = -math.inf
            else:
                self._office.want_metadata()
        self._drained(now)

    def _drained(self, now: float) -> None:
        """After each answer: a new leader may have waited for the last batch at the old one."""
        if self.window.in_flight == 0:
            moved = self.in_flight_at is not self.outbox
            self.in_flight_at = None
            if moved:
                self.window.no_pipelining()  # the old leader's last answer is none of the new one's
            if moved and self.outbox is not None:
                self.outbox.poke(self)  # idle or not: it was told of us, and has to see that nothing is left
            if self._cut_off:
                self._end_cut_off(now)

    # Time.

    def end_due(self, now: float) -> None:
        """End what is past its delivery timeout, abandon what is past its batch's deadline."""
        queue = self.queue
        if queue.segments:
            queue.end_due(now, "timeout" if self.leader is not None else "timeout: no leader of the partition is known")
        for batch in list(self.window.batches):
            if batch.phase is Phase.ABANDONED:
                continue
            batch.end_due(now, "timeout")
            if batch.deadline <= now:
                self._abandon(batch, now)

    def _abandon(self, batch: SealedBatch, now: float) -> None:
        window = self.window
        if batch.phase is Phase.IN_FLIGHT:
            window.abandon(batch, Unknown("abandoned: no answer within batch_timeout_s"))
            self._office.batch_ended(batch, "unknown", now)
            return
        unknown = "abandoned: no acknowledgement within batch_timeout_s"
        self._answers.ended(batch, window.end(batch, unknown=unknown, not_sent=self.queue.reason("timeout")), now)
        if self.outbox is not None:
            self.outbox.poke(self)

    def next_end(self) -> float:
        """The earliest moment at which `end_due` has something to do."""
        earliest = math.inf
        head = self.queue.head()
        if head is not None:
            earliest = head.deadline
        for batch in self.window.batches:
            if batch.phase is Phase.ABANDONED:
                continue
            waiter = batch.next_delivery_deadline()
            earliest = min(earliest, batch.deadline, math.inf if waiter is None else waiter)
        return earliest

    def oldest_call(self) -> float | None:
        """When the oldest unresolved record was handed over, detached ones included."""
        return self.window.batches[0].called_at if self.window.batches else self._oldest_queued()

    def _oldest_queued(self) -> float | None:
        head = self.queue.head()
        if head is None:
            return None
        return head.deadline - min(self._office.config.delivery_timeout_s, FOREVER_S)

    def close(self) -> None:
        """End everything: queued NotSent, sealed Unknown."""
        self.queue.end_all("closed")
        for batch in self.window.drop_all():
            if batch.phase is Phase.ABANDONED:
                batch.close_account()
            else:
                if batch.phase is Phase.IN_FLIGHT:
                    batch.phase = Phase.RETRY_WAIT
                batch.resolve(Unknown("closed"))

    def __repr__(self) -> str:
        return (
            f"<PartitionState {self.tp.topic}/{self.tp.partition} leader {self.leader}, "
            f"{self.queue.count} queued, {self.window!r}>"
        )
