"""What one transaction is to do, and how it can fail.

Owns: the types. Refuses to know: how it is done (`collector.spool.store`).
"""

import sqlite3
from collections.abc import Mapping, Sequence
from typing import Protocol, TypeAlias

from msgspec import Struct

from collector.spool.base import Gone
from collector.spool.dead import Discard, Revive
from collector.spool.gauges import Transaction

__all__ = [
    "Changes",
    "CommitInDoubt",
    "Damaged",
    "Extra",
    "Kill",
    "Leave",
    "MarkAttempted",
    "NewRow",
    "NotCommitted",
    "Return",
    "Step",
]


class NotCommitted(Exception):
    """Nothing of the transaction is in the file, nor can it appear there. The cause is the reason."""


class CommitInDoubt(Exception):
    """COMMIT failed. The frames may be in the log, and a recovery may find them: open the file again and look."""


class Damaged(Exception):
    """The file does not contain what was written into it."""


class NewRow(Struct, frozen=True, kw_only=True, eq=False, gc=False):
    """One row to insert."""

    id: int
    state: int
    key_hash: int | None
    size: int
    """What it counts against the bound."""
    stored_at_ms: int
    payload: bytes


class MarkAttempted(Struct, frozen=True, eq=False):
    """The replay is about to send them."""

    ids: Sequence[int]


class Leave(Struct, frozen=True, eq=False):
    """Out of the file."""

    ids: Sequence[int]
    why: Gone


class Kill(Struct, frozen=True, eq=False):
    """Into the table ``dead``."""

    reasons: Mapping[int, str]
    at_ms: int


class Return(Struct, frozen=True, eq=False):
    """Ready again: as attempted, or proved absent from the log."""

    ids: Sequence[int]
    attempted: bool


Step: TypeAlias = MarkAttempted | Leave | Kill | Return | Revive | Discard


class Changes(Struct, kw_only=True, eq=False):
    """One transaction."""

    rows: Sequence[NewRow] = ()
    steps: Sequence[Step] = ()
    refused: int = 0
    """Rows refused since the last commit; they are no part of ledger B."""
    extra: "Extra | None" = None


class Extra(Protocol):
    """Something rarer that is to happen in the same transaction."""

    def apply(self, connection: sqlite3.Connection, transaction: Transaction) -> None:
        """Do it, and count in ``transaction`` what it does to account and gauges."""
        ...
