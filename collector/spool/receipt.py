"""What a submitter holds of its rows, from the submission to the word about each.

Owns: the outcome of each row, the rule what a withdrawal and a resolution do in each state. Refuses to know: SQLite,
the order of commits, the bound.

Invariant: an outcome, once there, stays; `SpoolReceipt.wait` returns when every row has one. A row goes pending →
taken → stored or refused; withdrawn and decided ones leave from pending alone.
"""

from collections.abc import Sequence
from enum import Enum, auto
from typing import Protocol

import trio
from msgspec import Struct

from collector.spool.base import BUCKETS, Decided, Refused, RowOutcome, Stored
from kafka_client.outcome import Outcome

__all__ = ["PendingRow", "RowWatcher", "SpoolReceipt", "Stage"]

WITHDRAWN = Refused("withdrawn")
STORED = Stored()


class Stage(Enum):
    """How far a row has come."""

    PENDING = auto()
    TAKEN = auto()
    STORED = auto()
    ENDED = auto()
    """Refused, withdrawn or decided; or stored and resolved."""


class PendingRow(Struct, kw_only=True, eq=False):
    """One row between its submission and its end, and as long as its batch may be resolved."""

    payload: bytes
    key_hash: int | None
    size: int
    """What it counts against the bound."""
    held: bool
    stored_at_ms: int
    receipt: "SpoolReceipt | None" = None
    index: int = 0
    stage: Stage = Stage.PENDING
    id: int = 0
    """Given when the writer takes it."""
    resolution: Outcome | None = None
    """How its batch ended, when that came between taking and commit."""

    @property
    def bucket(self) -> int | None:
        return None if self.key_hash is None else self.key_hash % BUCKETS

    def end(self, outcome: RowOutcome) -> None:
        """Give it its outcome. A held one may stay for long; its bytes do not."""
        self.payload = b""
        self.stage = Stage.STORED if isinstance(outcome, Stored) else Stage.ENDED
        if self.receipt is not None:
            self.receipt._settle(self.index, outcome)


class RowWatcher(Protocol):
    """What the writer is told by receipts; synchronous."""

    def left_pending(self, row: PendingRow) -> None:
        """It was pending and has ended: its bytes are free."""
        ...

    def resolved(self, row: PendingRow, outcome: Outcome) -> None:
        """The batch of a stored held row has ended."""
        ...


class SpoolReceipt:
    """See `collector.spool.base.Receipt`."""

    __slots__ = ("_all_known", "_outcomes", "_rows", "_unknown", "_watcher")

    def __init__(self, watcher: RowWatcher, count: int) -> None:
        self._watcher = watcher
        self._rows: list[PendingRow | None] = [None] * count
        self._outcomes: list[RowOutcome | None] = [None] * count
        self._unknown = count
        self._all_known = trio.Event()
        if count == 0:
            self._all_known.set()

    def __repr__(self) -> str:
        return f"<SpoolReceipt of {len(self._outcomes)} rows, {self._unknown} without an outcome>"

    def add(self, index: int, row: PendingRow) -> None:
        """This row is on its way."""
        row.receipt = self
        row.index = index
        self._rows[index] = row

    def refuse(self, index: int, reason: Refused) -> None:
        """This row never was on its way."""
        self._settle(index, reason)

    def _settle(self, index: int, outcome: RowOutcome) -> None:
        self._outcomes[index] = outcome
        row = self._rows[index]
        if row is not None and not (isinstance(outcome, Stored) and row.held):
            self._rows[index] = None
        self._unknown -= 1
        if not self._unknown:
            self._all_known.set()

    @property
    def outcomes(self) -> Sequence[RowOutcome | None]:
        return self._outcomes

    async def wait(self) -> None:
        await self._all_known.wait()

    def withdraw(self) -> None:
        for row in self._rows:
            if row is not None and row.stage is Stage.PENDING:
                self._leave(row, WITHDRAWN)

    def resolve(self, index: int, outcome: Outcome) -> None:
        row = self._rows[index]
        if row is None or not row.held:
            return
        match row.stage:
            case Stage.PENDING:
                self._leave(row, Decided(outcome))
            case Stage.TAKEN:
                # Its commit is under way. The writer looks here when it is over.
                row.resolution = row.resolution or outcome
            case Stage.STORED:
                row.stage = Stage.ENDED
                self._rows[index] = None
                self._watcher.resolved(row, outcome)
            case Stage.ENDED:
                pass

    def _leave(self, row: PendingRow, outcome: RowOutcome) -> None:
        row.end(outcome)
        self._watcher.left_pending(row)
