"""What comes back for one partition's batches: answers, silence, lost connections; and the pace that follows from it.

Owns: the carrying out of `decide`'s decisions, the backoff, and what has to be counted over several answers. Refuses to
know: queues, leaders, and what is sent next (the partition).

Invariant: after each call every batch that came back is either to be tried again or has ended, with its observer told.
"""

import math
from typing import Literal

from kafka_client.wire.error_codes import Action, ErrorRow, error_row
from kafka_client.wire.produce import PartitionResult

from .batch import Phase, SealedBatch
from .decisions import Decision, Step, decide, final_outcome
from .office import Office, TopicView
from .remake import remake
from .window import Window

__all__ = ["UNKNOWN_TOPIC", "UNKNOWN_TOPIC_LIMIT", "Answers"]

UNKNOWN_TOPIC = 3
#: So many answers in a row and the topic is taken to be missing, not just unknown to one broker.
UNKNOWN_TOPIC_LIMIT = 4
#: And for so long, where Produce says so: a leader may learn of a new topic later than the broker that metadata came
#: from, by most of a second on a busy machine, in which four answers go by.
UNKNOWN_TOPIC_FOR_S = 5.0


class Answers:
    """For one partition."""

    __slots__ = (
        "_failures",
        "_office",
        "_renegotiated",
        "_topic",
        "_unknown_answers",
        "_unknown_since",
        "_window",
        "answered_at",
        "not_before",
    )

    def __init__(self, topic: TopicView, office: Office, window: Window) -> None:
        self.answered_at: float | None = None
        """The last Produce answer for the partition, whatever it said."""
        self.not_before = -math.inf
        """End of the backoff."""
        self._failures = 0
        self._renegotiated = False
        self._unknown_answers = 0
        self._unknown_since = 0.0
        self._topic = topic
        self._office = office
        self._window = window

    def missing(self, batch: SealedBatch, now: float) -> None:
        """The answer to its request said nothing of this batch."""
        self._back_off(now)
        self.lost(batch, "the answer said nothing of it")

    def lost(self, batch: SealedBatch, reason: str = "the connection was lost") -> None:
        """The connection ended, or the answer said nothing of this batch: it may have been appended."""
        self._window.again(batch, taints=True)
        if batch.phase is Phase.ENDED:
            self._office.room_made()
        else:
            self._office.batch_retried(batch, None, reason)

    def answered(self, batch: SealedBatch, result: PartitionResult, now: float) -> None:
        """Carry out what the answer means."""
        self.answered_at = now
        row = error_row(result.error_code)
        if row.code != UNKNOWN_TOPIC:
            self._unknown_answers = 0
        else:
            if self._unknown_answers == 0:
                self._unknown_since = now
            self._unknown_answers += 1
        window = self._window
        if batch.phase is not Phase.ABANDONED:
            decision = decide(batch, row, result, is_next=window.is_next(batch))
            self._carry_out(decision, batch, row, result, now)
            return
        if row.action is Action.DELIVERED:
            window.acknowledged(batch, result.base_offset, result.log_append_time_ms)
        else:
            window.again(batch, taints=True)
        self._office.room_made()

    def ended(self, batch: SealedBatch, outcome: Literal["delivered", "not_sent", "unknown"], now: float) -> None:
        """A batch was resolved."""
        self._office.batch_ended(batch, outcome, now)
        self._office.room_made()

    def _carry_out(
        self, decision: Decision, batch: SealedBatch, row: ErrorRow, result: PartitionResult, now: float
    ) -> None:
        window, office = self._window, self._office
        step = decision.step
        if step is Step.DELIVERED:
            self._delivered(batch, result, now)
            return
        window.again(batch, taints=decision.taints)
        if step is Step.FINAL:
            outcome = final_outcome(row, result, tainted=batch.tainted)
            self.ended(batch, window.end(batch, unknown=outcome.reason, not_sent=outcome.reason), now)
            return
        office.batch_retried(batch, row.code, row.name)
        match step:
            case Step.AGAIN:
                self._back_off(now)
                long_s = now - self._unknown_since
                if self._unknown_answers >= UNKNOWN_TOPIC_LIMIT and long_s >= UNKNOWN_TOPIC_FOR_S:
                    office.standing.topic_error(self._topic, row, row.advice, now)
            case Step.LEAVE:
                self._back_off(now, first_free=True)
                window.leave(f"{row.name}: the broker has other sequences", new_id=decision.new_id)
            case Step.OPERATOR_TOPIC:
                office.standing.topic_error(self._topic, row, result.error_message or row.advice, now)
            case Step.OPERATOR_PRODUCER:
                office.standing.producer_error(row, result.error_message or row.advice, now)
            case Step.RENEGOTIATE:
                # The outbox opens a new connection, and with it asks for the versions again.
                if self._renegotiated:
                    office.standing.producer_error(row, result.error_message or row.advice, now)
                self._renegotiated = True
            case Step.BEHIND:
                pass  # its turn comes after the earlier one
            case _:
                named = final_outcome(row, result, tainted=False)
                remake(decision, batch, window, office.account, named, office.wall_clock_ms())

    def _delivered(self, batch: SealedBatch, result: PartitionResult, now: float) -> None:
        topic, office = self._topic, self._office
        self._failures = 0
        self._renegotiated = False
        offset = result.base_offset if result.error_code == 0 else -1
        self._window.acknowledged(batch, offset, result.log_append_time_ms if offset >= 0 else -1)
        if topic.hold.error is not None or office.standing.hold.error is not None:
            office.standing.topic_works(topic)
        self.ended(batch, "delivered", now)

    def _back_off(self, now: float, *, first_free: bool = False) -> None:
        self._failures += 1
        if self._failures > 1 or not first_free:
            self.not_before = now + self._office.backoff_s(self._failures)

    def __repr__(self) -> str:
        return f"<Answers {self._failures} failures in a row>"
