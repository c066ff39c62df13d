"""One partition on its way out: queue, window and leader together; decides what is sent next and what an answer means.

Owns: the state of a partition for the producer's whole life: it survives metadata that says the topic is unknown
(librdkafka lost messages there until 1.9). Refuses to know: connections and tasks; it is driven by an outbox (what
next?) and told by it (answered, lost).

Invariants: a batch is sealed in the same synchronous step in which it is handed to the socket, never before, so until
then every record can be taken back without a trace; batches are never in flight to two leaders at once; the partition
has at most one due time, `due`.
"""

import math
from typing import TYPE_CHECKING, Literal

from kafka_client.buffer.budget import ByteBudget
from kafka_client.buffer.delivery import FOREVER_S
from kafka_client.buffer.queue import RecordQueue
from kafka_client.buffer.run import Run
from kafka_client.outcome import NotSent, TopicPartition, Unknown
from kafka_client.wire.error_codes import Action, ErrorRow, error_row
from kafka_client.wire.produce import PartitionResult

from .batch import Phase, SealedBatch
from .decisions import Decision, Step, decide, final_outcome
from .identity import ProducerState
from .office import Office, TopicView
from .remake import remake
from .window import Window

if TYPE_CHECKING:
    from .outbox import Outbox

__all__ = ["PartitionState"]

UNKNOWN_TOPIC = 3
#: So many answers in a row and the topic is taken to be missing, not just unknown to one broker (kafka.md §3).
UNKNOWN_TOPIC_LIMIT = 4


class PartitionState:
    """Queue, window and leader of one partition."""

    __slots__ = (
        "_batch_max",
        "_failures",
        "_office",
        "_renegotiated",
        "_topic",
        "_unknown_answers",
        "announced",
        "answered_at",
        "in_flight_at",
        "leader",
        "leader_epoch",
        "not_before",
        "outbox",
        "queue",
        "tp",
        "window",
    )

    def __init__(self, topic: TopicView, index: int, office: Office, budget: ByteBudget) -> None:
        self.tp = TopicPartition(topic.name, index)
        self.queue = RecordQueue(budget, lambda: office.standing_reason(topic))
        self.window = Window(office.config.max_in_flight_per_partition)
        self.leader: int | None = None
        self.leader_epoch = -1
        self.outbox: Outbox | None = None
        """The leader's."""
        self.in_flight_at: Outbox | None = None
        """Where the batches in flight were written; another than `outbox` until they are answered."""
        self.not_before = -math.inf
        """End of the backoff."""
        self.announced = False
        """The outbox knows that the queue is not empty."""
        self.answered_at: float | None = None
        """The last Produce answer for it, whatever it said."""
        self._batch_max = office.config.batch_max_bytes
        self._failures = 0
        self._renegotiated = False
        self._topic = topic
        self._unknown_answers = 0
        self._office = office

    # What comes in.

    def enqueue(self, run: Run, now: float) -> None:
        """Queue a run whose bytes the budget has admitted."""
        queue = self.queue
        queue.append(run)
        if not self.announced:
            self.announce(now)
        elif queue.size_bytes >= self._batch_max > queue.size_bytes - run.size and self.outbox is not None:
            self.outbox.urge()

    def announce(self, now: float) -> None:
        """Tell the outbox of new work; without a leader ask for metadata."""
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
            self.not_before = -math.inf
            self.announce(now)

    def topic_recreated(self) -> None:
        """Another topic has the name now: a new log, sequences start again (kafka.md §3, code 100).

        Under another identity: a broker that lags behind may make the topic flap, so the log may have seen the old one.
        """
        self.leader_epoch = -1
        self.window.leave("abandoned: the topic was deleted and created again")
        if self.window.batches and self.outbox is not None:
            self.outbox.poke(self)

    # What goes out.

    @property
    def idle(self) -> bool:
        """Nothing queued and nothing sealed."""
        return self.queue.count == 0 and not self.window.batches

    def due(self, now: float) -> float:
        """When something can be sent that cannot be sent now for want of time; inf: it waits for an event."""
        until = self.not_before
        for hold in (self._topic.hold, self._office.hold):
            if hold.error is not None:
                until = max(until, hold.next_try)
        return until if until > now else math.inf

    def pick(self, now: float, only: ProducerState | None) -> SealedBatch | None:
        """The next batch to write, numbered and encoded; sealed here if it is a new one.

        Args:
            only: the identity of the request that it would join; a request never mixes identities.
        """
        office, window = self._office, self.window
        if now < self.not_before or self._topic.hold.blocks(now) or office.hold.blocks(now):
            return None
        if window.in_flight and self.in_flight_at is not self.outbox:
            return None
        ready = window.prepare(office.identity)
        while window.ended:
            ended = window.ended.pop()
            self._ended(ended, "delivered" if ended.proved else "unknown", now)
        if not ready:
            return None
        batch = window.next_attempt()
        if batch is not None:
            if only is not None and batch.state != only:
                return None
        elif self.queue.count and window.can_seal(office.identity) and (only is None or only == window.state):
            batch = self._seal(now)
        if batch is None:
            return None
        self._topic.hold.claim(now)
        office.hold.claim(now)
        if not batch.wire:
            batch.encode()
        return batch

    def other_identity(self, only: ProducerState) -> bool:
        """Whether `pick` found nothing only because the request under way has another identity."""
        state = self.window.state
        return state != only and (self.window.waits_for_retry or (self.queue.count > 0 and not self.window.unresolved))

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
        taken = self.queue.take(config.batch_max_bytes)
        if taken is None:
            return None
        batch = SealedBatch.seal(
            self.tp,
            taken,
            account=office.account,
            now=now,
            called_at=now if oldest is None else oldest,
            timeout_s=config.batch_timeout_s,
            codec=config.compression,
            compression_min_bytes=config.compression_min_bytes,
        )
        self.window.add(batch)
        # Last: it lets the next in line into the queues, perhaps into this one.
        self.queue.budget.give_back(taken.cost)
        self.queue.budget.let_in()
        return batch

    # What comes back.

    def unanswered(self, batch: SealedBatch, now: float) -> None:
        """The answer said nothing of this batch."""
        self._back_off(now)
        self.lost(batch, "the answer said nothing of it")

    def lost(self, batch: SealedBatch, reason: str = "the connection was lost") -> None:
        """The connection ended, or the answer said nothing of this batch: it may have been appended."""
        self.window.again(batch, taints=True)
        if batch.phase is Phase.ENDED:
            self._office.room_made()
        else:
            self._office.batch_retried(batch, None, reason)
        self._drained()

    def answered(self, batch: SealedBatch, result: PartitionResult, now: float) -> None:
        """Carry out what the answer means."""
        self.answered_at = now
        row = error_row(result.error_code)
        self._unknown_answers = self._unknown_answers + 1 if row.code == UNKNOWN_TOPIC else 0
        window = self.window
        if batch.phase is Phase.ABANDONED:
            if row.action is Action.DELIVERED:
                window.acknowledged(batch, result.base_offset, result.log_append_time_ms)
            else:
                window.again(batch, taints=True)
            self._office.room_made()
        else:
            decision = decide(batch, row, result, is_next=window.is_next(batch))
            self._carry_out(decision, batch, row, result, now)
        if result.error_code and row.refresh_metadata:
            named = result.current_leader
            if named is not None and self._office.leader_named(self, named):
                self.not_before = -math.inf
            else:
                self._office.want_metadata()
        self._drained()

    def _carry_out(
        self, decision: Decision, batch: SealedBatch, row: ErrorRow, result: PartitionResult, now: float
    ) -> None:
        window, office, topic = self.window, self._office, self._topic
        step = decision.step
        if step is Step.DELIVERED:
            self._failures = 0
            self._renegotiated = False
            offset = result.base_offset if result.error_code == 0 else -1
            window.acknowledged(batch, offset, result.log_append_time_ms if offset >= 0 else -1)
            if topic.hold.error is not None or office.hold.error is not None:
                office.topic_works(topic)
            self._ended(batch, "delivered", now)
            return
        if step is Step.FINAL:
            self._final(batch, row, result, decision.taints, now)
            return
        window.again(batch, taints=decision.taints)
        office.batch_retried(batch, row.code, row.name)
        match step:
            case Step.AGAIN:
                self._back_off(now)
                if self._unknown_answers >= UNKNOWN_TOPIC_LIMIT:
                    office.topic_error(topic, row, row.advice, now)
            case Step.LEAVE:
                self._back_off(now, first_free=True)
                window.leave(f"{row.name}: the broker has other sequences", new_id=decision.new_id)
            case Step.OPERATOR_TOPIC:
                office.topic_error(topic, row, result.error_message or row.advice, now)
            case Step.OPERATOR_PRODUCER:
                office.producer_error(row, result.error_message or row.advice, now)
            case Step.RENEGOTIATE:
                # The outbox opens a new connection, and with it asks for the versions again.
                if self._renegotiated:
                    office.producer_error(row, result.error_message or row.advice, now)
                self._renegotiated = True
            case Step.BEHIND:
                pass  # its turn comes after the earlier one
            case _:
                outcome = final_outcome(row, result, tainted=False)
                remake(decision, batch, window, office.account, outcome, office.wall_clock_ms())

    def _final(self, batch: SealedBatch, row: ErrorRow, result: PartitionResult, taints: bool, now: float) -> None:
        window = self.window
        window.again(batch, taints=taints)
        if batch.proved:
            window.lose(batch)
            batch.acknowledge(-1, -1)
            self._ended(batch, "delivered", now)
            return
        outcome = final_outcome(row, result, tainted=batch.tainted)
        if batch.tainted:
            window.lose(batch)
        else:
            window.refused(batch)
        batch.resolve(outcome)
        self._ended(batch, "unknown" if batch.tainted else "not_sent", now)

    def _back_off(self, now: float, *, first_free: bool = False) -> None:
        self._failures += 1
        if self._failures > 1 or not first_free:
            self.not_before = now + self._office.backoff_s(self._failures)

    def _ended(self, batch: SealedBatch, outcome: Literal["delivered", "not_sent", "unknown"], now: float) -> None:
        self._office.batch_ended(batch, outcome, now)
        self._office.room_made()

    def _drained(self) -> None:
        """After each answer: a new leader may have waited for the last batch at the old one."""
        if self.window.in_flight == 0:
            moved = self.in_flight_at is not self.outbox
            self.in_flight_at = None
            if moved:
                self.window.no_pipelining()  # the old leader's last answer is none of the new one's
            if moved and self.outbox is not None:
                self.outbox.poke(self)  # idle or not: it was told of us, and has to see that nothing is left

    # Time.

    def end_due(self, now: float) -> None:
        """End what is past its delivery timeout, abandon what is past its batch's deadline."""
        queue = self.queue
        if queue.count:
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
        if batch.proved:
            window.lose(batch)
            batch.acknowledge(-1, -1)
            self._ended(batch, "delivered", now)
        elif batch.tainted:
            window.lose(batch)
            batch.resolve(Unknown("abandoned: no acknowledgement within batch_timeout_s"))
            self._ended(batch, "unknown", now)
        else:
            window.refused(batch)
            batch.resolve(NotSent(self.queue.reason("timeout")))
            self._ended(batch, "not_sent", now)
        if self.outbox is not None:
            self.outbox.poke(self)

    def next_end(self) -> float:
        """The earliest moment at which `end_due` has something to do."""
        earliest = math.inf
        head = self.queue.head()
        if head is not None and head.delivery is not None:
            earliest = head.delivery.deadline
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
        if head is None or head.delivery is None:
            return None
        return head.delivery.deadline - min(self._office.config.delivery_timeout_s, FOREVER_S)

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
