"""Who we are to the brokers: producer id and epoch, and the arithmetic of sequence numbers.

Owns: the current (id, epoch), the wish for a new one, the operator-level state while it is refused. Refuses to know:
partitions (each keeps the identity its sequences run under) and how InitProducerId is sent.

Invariants: an identity is never reused after it was left; an epoch grows by one and never beyond 32767, then a new id
is asked for; several partitions that leave the same identity cause one change, not several.

Source: KIP-98, KIP-360; Java's TransactionManager.bumpIdempotentProducerEpoch, DefaultRecordBatch.incrementSequence.
"""

from collections.abc import Callable
from typing import NamedTuple

__all__ = ["MAX_EPOCH", "MAX_SEQUENCE", "ProducerIdentity", "ProducerState", "advance"]

MAX_EPOCH = 32767
MAX_SEQUENCE = 2**31 - 1


def advance(sequence: int, count: int) -> int:
    """The sequence ``count`` records after this one; after 2**31 - 1 comes 0."""
    return (sequence + count) & MAX_SEQUENCE


class ProducerState(NamedTuple):
    """A producer id and an epoch, as a batch carries them."""

    producer_id: int
    epoch: int


NO_STATE = ProducerState(-1, -1)


class ProducerIdentity:
    """The identity under which new sequences start."""

    __slots__ = ("_on_change", "bumps_total", "current", "ids_total", "wanted")

    def __init__(self, on_change: Callable[[], None] = lambda: None) -> None:
        """Args:
        on_change: called after another identity was taken or one became wanted.
        """
        self._on_change = on_change
        self.current = NO_STATE
        self.wanted = True
        """InitProducerId is to be asked; nothing new starts meanwhile."""
        self.bumps_total = 0
        self.ids_total = 0

    @property
    def ready(self) -> bool:
        """Whether sequences can start under `current`."""
        return not self.wanted

    def assign(self, state: ProducerState) -> None:
        """InitProducerId was answered."""
        self.current = state
        self.wanted = False
        self.ids_total += 1
        self._on_change()

    def leave(self, state: ProducerState, *, new_id: bool = False) -> None:
        """A partition cannot go on under ``state``: take the next epoch, or ask for a new id.

        Nothing happens when the current identity is another one already: that one will do.
        """
        if self.wanted or state != self.current:
            return
        if new_id or state.epoch >= MAX_EPOCH:
            self.wanted = True
        else:
            self.current = ProducerState(state.producer_id, state.epoch + 1)
            self.bumps_total += 1
        self._on_change()

    def __repr__(self) -> str:
        wanted = ", a new id is wanted" if self.wanted else ""
        return f"<ProducerIdentity {self.current.producer_id}/{self.current.epoch}{wanted}>"
