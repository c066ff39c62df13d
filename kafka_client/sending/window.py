"""The window of one partition: its sealed, unresolved batches, and the sequences they use.

Owns: the order of attempts, the next sequence, gaps in the range, the moment at which an identity has to be left.
Refuses to know: queues, brokers' addresses, backoff, error codes.

Theory. The broker accepts a batch whose first sequence follows the last one it has, and recognises the
last five it has by their exact range; with no state at all it accepts *any* first sequence. Hence:

* One batch in flight until the first acknowledgement under (identity, partition, leader), one again after any error.
  `max_in_flight` otherwise, counted from the *oldest unresolved* batch: a batch that is being retried stays among the
  last five that the broker has seen, or its repetition would not be recognised.
* Retries go first and in order; nothing new is sealed behind a batch that waits for a retry.
* A batch that ended NotSent leaves a *gap*: nothing is sent until the batches behind it are answered (45, as a rule);
  then those proved absent move down into it. No new epoch is needed.
* A batch that ended Unknown is *lost*: the broker may or may not have it. Later batches that are sealed already are
  tried on: an acknowledgement of one of them shows that the sequences go on. Otherwise, when the window is empty, or
  the broker says 45 to its head, the identity is left: next epoch, sequences from 0.

Invariants: ordinals and sequences grow along ``batches``; a sequence that may have touched a socket is used again under
its identity only by the same records, or after an answer proved the batch absent and no other attempt is tainted.
"""

from collections import deque
from collections.abc import Sequence
from typing import Literal

from kafka_client.outcome import NotSent, Unknown

from .batch import Event, Phase, SealedBatch
from .identity import NO_STATE, ProducerIdentity, ProducerState

__all__ = ["Window"]


class Window:
    """Sealed batches in order, and what may be sent next."""

    __slots__ = (
        "_acked_ordinal",
        "_gap",
        "_lost_ordinal",
        "_must_leave",
        "_new_id",
        "_next_ordinal",
        "_ok_under",
        "_pipelining",
        "batches",
        "cost",
        "ended",
        "in_flight",
        "max_in_flight",
        "next_sequence",
        "state",
    )

    def __init__(self, max_in_flight: int) -> None:
        self.max_in_flight = max_in_flight
        self.batches: deque[SealedBatch] = deque()
        self.cost = 0
        self.ended: list[SealedBatch] = []
        """Batches that `prepare` resolved, for the caller to take: their bytes came back."""
        self.in_flight = 0
        self.state: ProducerState = NO_STATE
        """The identity that the sequences here run under; another than the current one until they are drained."""
        self.next_sequence = 0
        self._next_ordinal = 0
        self._acked_ordinal = -1
        self._lost_ordinal = -1
        self._gap: tuple[int, int] | None = None
        """(ordinal, base sequence) of the first batch that was rejected and given back."""
        self._must_leave: str | None = None
        """Why the identity has to be left."""
        self._new_id = False
        self._pipelining = False
        self._ok_under: tuple[ProducerState, int] | None = None
        """(identity, leader epoch) of the last acknowledgement."""

    @property
    def unresolved(self) -> bool:
        """Whether the broker's next sequence is in doubt, so that nothing new is sealed."""
        return self._lost_ordinal >= 0 or self._gap is not None or self._must_leave is not None

    @property
    def limit(self) -> int:
        """Batches that may be in flight now."""
        return self.max_in_flight if self._pipelining else 1

    # What may be sent.

    def prepare(self, identity: ProducerIdentity) -> bool:
        """Bring gaps and identities in order; False while that has to wait."""
        if self._gap is not None:
            if self.in_flight:
                return False
            self._close_gap()
        if self._lost_ordinal >= 0 and not self.batches and self._must_leave is None:
            self._must_leave = "abandoned: an earlier batch of the partition may or may not be in the log"
        if self._must_leave is not None:
            if self.in_flight:
                return False
            identity.leave(self.state, new_id=self._new_id)
            if not identity.ready:
                return False
            self._restart(identity.current, self._must_leave)
        elif not self.batches and self.state != identity.current:
            if not identity.ready:
                return False
            self._restart(identity.current, "")
        return True

    def next_attempt(self) -> SealedBatch | None:
        """The batch that is to be tried again next, if its turn has come."""
        if self.in_flight >= self.limit:
            return None
        for batch in self.batches:
            if batch.phase is Phase.RETRY_WAIT or batch.phase is Phase.SEALED:
                return batch
        return None

    @property
    def waits_for_retry(self) -> bool:
        """Whether a batch is to be tried again."""
        return any(batch.phase is Phase.RETRY_WAIT or batch.phase is Phase.SEALED for batch in self.batches)

    def can_seal(self, identity: ProducerIdentity) -> bool:
        """Whether a new batch may take the next sequences."""
        if self.in_flight >= self.limit or self.unresolved or not identity.ready or self.state != identity.current:
            return False
        return not self.batches or (
            self._next_ordinal - self.batches[0].ordinal < self.max_in_flight and not self.waits_for_retry
        )

    def add(self, batch: SealedBatch) -> None:
        """Give a new batch the next range."""
        batch.number(self.state, self.next_sequence)
        batch.ordinal = self._next_ordinal
        self._next_ordinal += 1
        self.next_sequence = batch.next_sequence
        self.batches.append(batch)
        self.cost += batch.cost

    def written(self, batch: SealedBatch, leader_epoch: int) -> None:
        """An attempt starts: from here on the batch may be in the log until an answer says otherwise."""
        batch.step(Event.WRITE)
        batch.attempts += 1
        batch.leader_epoch = leader_epoch
        self.in_flight += 1

    def is_next(self, batch: SealedBatch) -> bool:
        """Whether its first sequence is the one that the broker should expect: nothing before it is open or free."""
        return self.batches[0] is batch and self._gap is None

    # What came of an attempt.

    def acknowledged(self, batch: SealedBatch, base_offset: int, log_append_time_ms: int) -> None:
        """The log has it."""
        self.in_flight -= 1
        under = (batch.state, batch.leader_epoch)
        if self._ok_under == under and batch.leader_epoch >= 0:
            # This leader had our state before and accepted this range: what precedes it must be in its log. Unless all
            # attempts were refused: then it has forgotten us meanwhile, and took this range for a first one.
            for earlier in self.batches:
                if earlier.ordinal >= batch.ordinal:
                    break
                earlier.proved |= earlier.tainted
        self._ok_under = under
        self._acked_ordinal = max(self._acked_ordinal, batch.ordinal)
        if self._lost_ordinal <= self._acked_ordinal:
            self._lost_ordinal = -1
        if self._gap is not None and self._gap[0] < batch.ordinal:
            self._gap = None
        if self.batches[0] is batch:
            self._pipelining = True
        self._remove(batch)
        if batch.phase is Phase.ABANDONED:
            batch.step(Event.END)
            batch.close_account()
        else:
            batch.acknowledge(base_offset, log_append_time_ms)

    def again(self, batch: SealedBatch, *, taints: bool) -> None:
        """To be tried again; an abandoned one ends here."""
        self.in_flight -= 1
        self._pipelining = False
        batch.tainted |= taints
        if batch.phase is Phase.ABANDONED:
            self._end_abandoned(batch)
        else:
            batch.step(Event.AGAIN)

    def end(self, batch: SealedBatch, *, unknown: str, not_sent: str) -> Literal["delivered", "not_sent", "unknown"]:
        """Resolve one that is not tried again, by what its attempts left open; returns which it was.

        Proved by a later acknowledgement: Delivered. Tainted: Unknown, and its range is not used again. Neither:
        NotSent, and its range is free.
        """
        self._pipelining = False
        self._remove(batch)
        if not batch.tainted:
            self._free(batch.ordinal, batch.base_sequence)
            batch.resolve(NotSent(not_sent))
            return "not_sent"
        if batch.ordinal > self._acked_ordinal:
            self._lost_ordinal = max(self._lost_ordinal, batch.ordinal)
        if batch.proved:
            batch.acknowledge(-1, -1)
            return "delivered"
        batch.resolve(Unknown(unknown))
        return "unknown"

    def abandon(self, batch: SealedBatch, outcome: Unknown) -> None:
        """Its deadline is over while it is in flight: tell its records, keep its place until the answer."""
        batch.step(Event.ABANDON)
        batch.settle(outcome)
        if batch.ordinal > self._acked_ordinal:
            self._lost_ordinal = max(self._lost_ordinal, batch.ordinal)

    def leave(self, reason: str, *, new_id: bool = False) -> None:
        """The broker will not take our sequences any more: leave the identity when nothing is in flight."""
        self._must_leave = reason
        self._new_id = self._new_id or new_id

    def replace(self, batch: SealedBatch, others: Sequence[SealedBatch]) -> None:
        """Put others, made of a batch proved absent, in its place; they take its range from its first sequence on."""
        assert not batch.tainted
        self._pipelining = False
        place = self.batches.index(batch)
        del self.batches[place]
        self.cost -= batch.cost
        behind = list(self.batches)[place:]
        sequence = batch.base_sequence
        for offset, other in enumerate(others):
            other.number(batch.state, sequence)
            other.ordinal = batch.ordinal + offset
            sequence = other.next_sequence
            self.batches.insert(place + offset, other)
            self.cost += other.cost
        shift = len(others) - 1
        if shift:
            for later in behind:
                later.ordinal += shift
            self._next_ordinal += shift
            if self._acked_ordinal > batch.ordinal:
                self._acked_ordinal += shift
            if self._lost_ordinal > batch.ordinal:
                self._lost_ordinal += shift
            if self._gap is not None and self._gap[0] > batch.ordinal:
                self._gap = (self._gap[0] + shift, self._gap[1])
        if sequence != batch.next_sequence:
            self._free(others[-1].ordinal, sequence)

    def no_pipelining(self) -> None:
        """One at a time until the next acknowledgement: the leader is another one."""
        self._pipelining = False

    def drop_all(self) -> list[SealedBatch]:
        """Take out every batch, for the end of the producer; the caller resolves them."""
        batches = list(self.batches)
        self.batches.clear()
        self.cost = 0
        self.in_flight = 0
        return batches

    def _remove(self, batch: SealedBatch) -> None:
        if self.batches[0] is batch:
            self.batches.popleft()
        else:
            self.batches.remove(batch)
        self.cost -= batch.cost

    def _end_abandoned(self, batch: SealedBatch) -> None:
        self._remove(batch)
        batch.step(Event.END)
        batch.close_account()

    def _free(self, ordinal: int, base_sequence: int) -> None:
        """The range from ``base_sequence`` on, behind the batches up to ``ordinal``, is not in the log."""
        if self._acked_ordinal > ordinal:
            return  # the broker went on behind it: nothing to fill
        if self._lost_ordinal > ordinal:
            self._must_leave = self._must_leave or "abandoned: a later batch of the partition may be in the log"
        elif self._gap is None or ordinal < self._gap[0]:
            if not self.batches or self.batches[-1].ordinal <= ordinal:
                self.next_sequence = base_sequence
                self._gap = None
            else:
                self._gap = (ordinal, base_sequence)

    def _close_gap(self) -> None:
        assert self._gap is not None
        ordinal, sequence = self._gap
        self._gap = None
        later = [batch for batch in self.batches if batch.ordinal > ordinal]
        if any(batch.tainted for batch in later):
            self._must_leave = self._must_leave or "abandoned: sequences behind a rejected batch may be in the log"
            return
        for batch in later:
            batch.number(self.state, sequence)
            sequence = batch.next_sequence
        self.next_sequence = sequence

    def _restart(self, state: ProducerState, reason: str) -> None:
        """Begin at sequence 0 under another identity. What may be in the log is not sent again."""
        assert self.in_flight == 0
        remaining, self.batches = list(self.batches), deque()
        self.cost = 0
        self.state = state
        self.next_sequence = 0
        self._pipelining = False
        self._lost_ordinal = -1
        self._gap = None
        self._must_leave = None
        self._new_id = False
        self._ok_under = None
        for batch in remaining:
            if not batch.tainted:
                self.add(batch)
        for batch in remaining:
            if batch.proved:
                batch.acknowledge(-1, -1)
            elif batch.tainted:
                batch.resolve(Unknown(reason))
            else:
                continue
            self.ended.append(batch)

    def __repr__(self) -> str:
        doubt = ", unresolved" if self.unresolved else ""
        return (
            f"<Window {len(self.batches)} batches, {self.in_flight} in flight, "
            f"next {self.state.producer_id}/{self.state.epoch}/{self.next_sequence}{doubt}>"
        )
