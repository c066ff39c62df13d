"""What passes between ingest, the spool and the replay: rows, receipts, the account of the spool.

Owns: the types and the interface. Refuses to know: SQLite, threads, Kafka's brokers, requests.

Theory. A row is an event's record, ready-made, and what the replay has to know of it. It is in one of these states, and
what is written here is what the file says, so a restart finds it:

- *ready*: nobody else has it; the replay may send it.
- *held*: a sealed batch may carry it (its caller's outcome was Unknown); the replay leaves it alone until the batch
  ends. After a restart nobody knows how it ended: it is ready, and its replay carries ``maybe-duplicate: 1``.
- *attempted*: the replay has sent it, or is about to; set before the first Produce that carries it, cleared by proof
  that it is not in the log. A row found so at a start is replayed with ``maybe-duplicate: 1``.
- *dead*: final for this record; an operator decides.

Ledger B, persisted: rows in = replayed + resolved + dead + dropped + lost + rows now. Lost is what a damaged file did
not give back; it is 0 on a sound disk.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias

from msgspec import Struct

from kafka_client.outcome import Outcome, Record

__all__ = [
    "BUCKETS",
    "Decided",
    "Gone",
    "Receipt",
    "Refused",
    "RowOutcome",
    "Selection",
    "Spool",
    "SpoolRow",
    "SpoolStatistics",
    "Stored",
    "StoredRow",
]

BUCKETS = 4096
"""Of keys, by their murmur2: with ``[spool] order = "key"`` the events of one bucket keep their order."""

#: Why a row leaves the spool for good.
Gone: TypeAlias = Literal["replayed", "resolved", "dropped"]


class SpoolRow(Struct, kw_only=True, eq=False, gc=False):
    """One event for the disk."""

    record: Record
    """As for Kafka, without a partition."""
    app: str
    key_hash: int | None
    """murmur2 of the key as Java's partitioner has it (31 bits, not negative); None without a key."""
    held: bool = False


class StoredRow(Struct, kw_only=True, frozen=True, eq=False, gc=False):
    """One row as it is in the file."""

    id: int
    """Grows in the order of storing; of one file."""
    record: Record
    app: str
    key_hash: int | None
    stored_at_ms: int
    attempted: bool


@dataclass(frozen=True, slots=True)
class Stored:
    """The row is on the disk: written and synchronised."""


@dataclass(frozen=True, slots=True)
class Refused:
    """The row is not on the disk and will not be: ``spool_full``, ``spool_failed: …``, ``withdrawn``."""

    reason: str


@dataclass(frozen=True, slots=True)
class Decided:
    """A held row whose batch ended before the writer took it: it never goes to the disk, its outcome is Kafka's."""

    outcome: Outcome


RowOutcome: TypeAlias = Stored | Refused | Decided


class Receipt(Protocol):
    """Of the rows of one `Spool.submit`."""

    @property
    def outcomes(self) -> Sequence[RowOutcome | None]:
        """One per row, in order; None: not known yet. One that the writer took stays None until its commit."""
        ...

    async def wait(self) -> None:
        """Wait until every row has an outcome. Always a checkpoint. On cancellation: the waiting ends, nothing else."""
        ...

    def withdraw(self) -> None:
        """Take back the rows that the writer has not taken (``Refused("withdrawn")``). Synchronous, idempotent.

        A row that was taken stays: if its commit comes, it is in the spool although nobody was told.
        """
        ...

    def resolve(self, index: int, outcome: Outcome) -> None:
        """The batch of a held row has ended: Delivered drops it, NotSent makes it ready, Unknown makes it ready as
        attempted. Synchronous, at any time, before or after the commit and after `withdraw`."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Which rows the replay wants next: ready ones, the oldest first, up to a number and a size.

    ``partitions`` is how many the topic has; rows whose key falls into ``without`` are left out. With ``by_key`` no row
    is taken behind an older one of its bucket that is held, in work or left out.
    """

    rows: int
    bytes: int
    after_id: int = 0
    partitions: int = 0
    without: Collection[int] = ()
    by_key: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class SpoolStatistics:
    """One reading of the spool. Counters are of this file, persisted; gauges are of now."""

    state: Literal["ok", "full", "failed"]
    """``full`` is ``max_bytes`` or the disk: rows are refused, and those that are there may leave."""
    problem: str
    """Why it is not ok; empty where it is."""
    path: str
    rows: int
    """Not gone and not dead; held and attempted ones among them."""
    held_rows: int
    attempted_rows: int
    bytes: int
    """What counts against ``max_bytes``: rows, held and dead ones too; and what the file's log has beyond 64 MiB while
    another program reads the file."""
    max_bytes: int
    pending_rows: int
    """Submitted and not committed."""
    pending_bytes: int
    oldest_age_s: float
    rows_in_total: int
    replayed_total: int
    resolved_total: int
    """Held rows whose batch turned out to be delivered."""
    dead_total: int
    """Dead until an operator puts them back or drops them, which takes them off this count."""
    dropped_total: int
    """By the operator."""
    difference: int
    """Ledger B: rows_in less everything else: 0, always."""
    refused_total: int
    """Rows not taken: full, or failed."""
    lost_total: int
    """Rows of a damaged file that could not be read."""
    commits_total: int
    commit_p99_s: float
    """Over the last thousand commits: from the writer's taking them to the disk's word."""


class Spool(Protocol):
    """One process's spool. Every method is called from Trio's thread."""

    def submit(self, rows: Sequence[SpoolRow]) -> Receipt:
        """Hand rows to the writer; never blocks. Those that do not fit are refused at once."""
        ...

    def busy_bucket(self, bucket: int) -> bool:
        """Whether a row of this bucket is in the spool or on its way there."""
        ...

    async def take(self, selection: Selection) -> Sequence[StoredRow]:
        """The next rows for the replay; they are *in work* until `gone`, `dead` or `back` names them.

        There may be fewer than there are to be had, but none only if there is none, or if the file cannot be read, or
        with ``by_key`` if what is near waits for a row in work.
        """
        ...

    async def mark_attempted(self, ids: Sequence[int]) -> None:
        """One commit: before the first Produce with them. It waits while the spool fails, as the next three do."""
        ...

    async def gone(self, ids: Sequence[int], why: Gone) -> None:
        """They are delivered (or dropped): out of the file."""
        ...

    async def dead(self, reasons: Mapping[int, str]) -> None:
        """Final failures: into the table ``dead``, with the reason."""
        ...

    async def back(self, ids: Sequence[int], *, attempted: bool) -> None:
        """Not delivered, ready again. ``attempted`` False is proof that what this `take` led to is not in the log.

        A row that was attempted when it was taken stays so: the proof says nothing about its earlier copy.
        """
        ...

    def statistics(self) -> SpoolStatistics: ...
