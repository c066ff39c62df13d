"""What is in one file at this moment, counted in memory, and what one transaction will change of it.

Owns: the counts. Refuses to know: SQL.

Invariant: a transaction's changes are applied when it has been committed, all of them.
"""

from array import array
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

import msgspec

from collector.spool.base import BUCKETS
from collector.spool.schema import ATTEMPTED, HELD, Account

__all__ = ["NOTHING_SEEN", "Gauges", "Seen", "Transaction"]


@dataclass(slots=True, kw_only=True)
class Gauges:
    """What is in the file now."""

    rows: int = 0
    held: int = 0
    attempted: int = 0
    bytes: int = 0
    """Rows and dead ones."""
    dead_rows: int = 0
    oldest_ms: int | None = None
    buckets: "array[int]" = field(default_factory=lambda: array("q", bytes(8 * BUCKETS)))

    def count(self, state: int, key_hash: int | None, size: int, sign: Literal[1, -1]) -> None:
        """A row came or went."""
        self.rows += sign
        self.bytes += sign * size
        self.count_state(state, sign)
        if key_hash is not None:
            self.buckets[key_hash % BUCKETS] += sign

    def count_state(self, state: int, sign: Literal[1, -1]) -> None:
        """A row entered or left this state."""
        if state == HELD:
            self.held += sign
        elif state == ATTEMPTED:
            self.attempted += sign


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """One reading of a file: its numbers belong together, whatever its thread does next."""

    account: Account
    gauges: Gauges
    """A copy, but for the buckets: those are of now."""
    used_bytes: int


NOTHING_SEEN = Seen(account=Account(), gauges=Gauges(), used_bytes=0)

_Row: TypeAlias = tuple[int, int | None, int, Literal[1, -1]]


class Transaction:
    """What one transaction does to account and gauges, put aside until it is committed."""

    def __init__(self, account: Account) -> None:
        self.account = msgspec.structs.replace(account)
        self.rows: list[_Row] = []
        self.states: list[tuple[int, Literal[1, -1]]] = []
        self.dead_rows = 0
        self.dead_bytes = 0

    def new_id(self) -> int:
        """One that no row has."""
        self.account.last_id += 1
        return self.account.last_id

    def dead_left(self, size: int) -> None:
        """A dead row is dead no more: an operator has decided."""
        self.dead_rows -= 1
        self.dead_bytes -= size
        self.account.dead -= 1

    def apply(self, gauges: Gauges) -> None:
        for state, key_hash, size, sign in self.rows:
            gauges.count(state, key_hash, size, sign)
        for state, sign in self.states:
            gauges.count_state(state, sign)
        gauges.dead_rows += self.dead_rows
        gauges.bytes += self.dead_bytes
