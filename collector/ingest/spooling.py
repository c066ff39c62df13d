"""The second stage of a request: its rows in the spool, and what the batches of held ones come to.

Owns: which event is in which receipt, the word on an event when Kafka and the disk have both spoken, who is told later.
Refuses to know: when events go to the spool (`collector.ingest.work`), SQLite, HTTP.

Invariants: a held row's hold (`Rows.batch_ended`, as ``on_resolved``) is registered before the row is submitted, so no
resolution is missed; an event is spooled only if its row was committed; what was told unknown is counted late once.

The word on an event that has a row: committed → spooled. Decided → what Kafka said, in memory. Not on the disk, and not
going there → as Kafka left it, not sent or unknown. Taken by the writer and not committed in time → unknown, unless its
batch turned out to be delivered meanwhile.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Protocol, TypeAlias

from collector.ingest.record import MAYBE_DUPLICATE
from collector.ingest.verdict import Fate, Status, status_of
from collector.spool.base import Decided, Receipt, Refused, RowOutcome, SpoolRow, Stored
from kafka_client.outcome import Delivered, NotSent, Outcome, Record, Unknown
from kafka_client.wire.murmur2 import key_hash

__all__ = ["LateWord", "Rows", "SpoolLike"]

NOT_IN_TIME = Unknown("spool: its commit did not come in time")

#: Tells the word on an event that was told unknown before; the event by its place.
LateWord: TypeAlias = Callable[[int, Fate], None]


class SpoolLike(Protocol):
    """What ingest uses of `collector.spool.base.Spool`."""

    def submit(self, rows: Sequence[SpoolRow]) -> Receipt: ...
    def busy_bucket(self, bucket: int) -> bool: ...


class Rows:
    """The rows of one request. An event is named by its place among the request's events."""

    __slots__ = ("_app", "_ended", "_events", "_late", "_receipts", "_rows", "_sealed", "_spool", "_told_unknown")

    def __init__(self, spool: SpoolLike, app: str, late: LateWord) -> None:
        self._spool = spool
        self._app = app
        self._late = late
        self._receipts: list[Receipt] = []
        self._rows: dict[int, tuple[Receipt, int]] = {}
        self._ended: dict[int, Outcome] = {}
        self._events: Sequence[int] = ()
        self._sealed: set[int] = set()
        """Those that Kafka left Unknown: the end of their batch will be told."""
        self._told_unknown: set[int] = set()

    def __repr__(self) -> str:
        return f"<Rows of {len(self._rows)} events, {len(self._told_unknown)} told unknown>"

    # Into the spool.

    def submit(self, records: Mapping[int, Record], held: Iterable[int] = ()) -> list[int]:
        """Hand these events' records to the spool, in order; returns those that it refused at once."""
        holds = frozenset(held)
        rows = [
            SpoolRow(
                record=record,
                app=self._app,
                key_hash=None if record.key is None else key_hash(record.key),
                held=event in holds,
            )
            for event, record in records.items()
        ]
        receipt = self._spool.submit(rows)
        self._receipts.append(receipt)
        for index, event in enumerate(records):
            self._rows[event] = (receipt, index)
        outcomes = receipt.outcomes
        return [event for event, outcome in zip(records, outcomes, strict=True) if isinstance(outcome, Refused)]

    def forget(self, events: Iterable[int]) -> None:
        """These have no row after all: they go another way."""
        for event in events:
            del self._rows[event]

    def catch(
        self,
        events: Sequence[int],
        outcomes: Sequence[Outcome | None],
        records: Sequence[Record],
        repeated: Collection[int] = (),
    ) -> None:
        """Submit what Kafka did not take in its share of the time; ``events`` names the event of each outcome.

        Those ``repeated`` were sent again meanwhile: the other copy may be in the log before this one.

        To be called when the hold is registered: what has been resolved since is not submitted, or not held. And again,
        when more has been taken back: what has a row is passed over.
        """
        plain: dict[int, Record] = {}
        held: list[int] = []
        for event, outcome in zip(events, outcomes, strict=True):
            if event in self._rows:
                continue
            if isinstance(outcome, Unknown):
                self._sealed.add(event)
            match self._ended.get(event, outcome):
                case NotSent() as not_sent if status_of(not_sent) is not Status.REJECTED:
                    plain[event] = records[event]
                case Unknown() if event in self._ended:
                    plain[event] = _marked(records[event])
                case Unknown():
                    plain[event] = records[event]
                    held.append(event)
                case _:
                    pass
        for event in plain.keys() & repeated:
            plain[event] = _marked(plain[event])
        if plain:
            self.submit(plain, held)

    async def wait(self, records: Sequence[Record]) -> None:  # noqa: ASYNC910  # there is a receipt to wait for
        """Wait until every row has its outcome. Always a checkpoint.

        On cancellation: the waiting ends and nothing else; `withdraw` takes back what is not taken.
        """
        waited = 0
        while waited < len(self._receipts):
            await self._receipts[waited].wait()
            waited += 1
            if waited == len(self._receipts):
                self._again(records)

    def _again(self, records: Sequence[Record]) -> None:
        """Submit what its batch's end put back into our hands, and what that leaves in doubt as it is: never held."""
        again: dict[int, Record] = {}
        for event, (receipt, index) in self._rows.items():
            outcome = receipt.outcomes[index]
            if isinstance(outcome, Decided):
                match outcome.outcome:
                    case Unknown():
                        again[event] = _marked(records[event])
                    case NotSent() as not_sent if status_of(not_sent) is not Status.REJECTED:
                        again[event] = records[event]
                    case _:
                        pass
        if again:
            self.submit(again)

    def withdraw(self) -> None:
        """Take back the rows that the writer has not taken."""
        for receipt in self._receipts:
            receipt.withdraw()

    # What their batches come to.

    def hold(self, events: Sequence[int]) -> Callable[[int, Outcome], None]:
        """The delivery's ``on_resolved``; ``events`` names the event of each of its records."""
        self._events = events
        return self.batch_ended

    @property
    def holding(self) -> bool:
        """Whether `batch_ended` is told of the delivery's Unknown records."""
        return bool(self._events)

    def batch_ended(self, index: int, outcome: Outcome) -> None:
        """The batch of an Unknown record has ended."""
        event = self._events[index]
        self._ended[event] = outcome
        row = self._rows.get(event)
        if row is not None:
            receipt, place = row
            receipt.resolve(place, outcome)
        if event in self._told_unknown and (row is None or isinstance(outcome, Delivered) or self._lost(event)):
            self._told_unknown.discard(event)
            self._late(event, outcome)

    def _lost(self, event: int) -> bool:
        receipt, place = self._rows[event]
        return isinstance(receipt.outcomes[place], Refused)

    # The word.

    def word(self, event: int, outcome: Outcome | None) -> Fate:
        """What became of the event, Kafka having left it at ``outcome`` (None: it was not asked)."""
        kafka = self._ended.get(event, outcome)
        row = self._rows.get(event)
        if row is None:
            return kafka or NotSent("withdrawn")
        receipt, place = row
        told: RowOutcome | None = receipt.outcomes[place]
        match told:
            case Stored():
                return told
            case Decided(decided):
                return decided
            case Refused(reason):
                if kafka is None or (isinstance(kafka, NotSent) and kafka.reason == "withdrawn"):
                    return NotSent(reason)
                return kafka
            case None:
                return kafka if isinstance(kafka, Delivered) else NOT_IN_TIME

    def told(self, unknown: Iterable[int]) -> bool:
        """The request is answered, and these events were told unknown; returns whether a commit may still come.

        From here on `batch_ended` and `look_back` tell what becomes of them.
        """
        self._told_unknown = {event for event in unknown if event in self._rows or self.holding}
        for event in list(self._told_unknown):
            if event in self._ended and (event not in self._rows or self._lost(event)):
                self._told_unknown.discard(event)
                self._late(event, self._ended[event])
        return self.look_back()

    def look_back(self) -> bool:
        """Tell of commits that came too late; returns whether more may come."""
        more = False
        for event in list(self._told_unknown):
            row = self._rows.get(event)
            if row is None:
                continue
            receipt, place = row
            match receipt.outcomes[place]:
                case None:
                    more = True
                case Stored() as stored:
                    self._told_unknown.discard(event)
                    self._late(event, stored)
                case Refused(reason):
                    # Kafka's word counts again. A row that was never held has none: it is proved not to be stored.
                    if event in self._ended:
                        self._told_unknown.discard(event)
                        self._late(event, self._ended[event])
                    elif event not in self._sealed:
                        self._told_unknown.discard(event)
                        self._late(event, NotSent(reason))
                case Decided(outcome):
                    self._told_unknown.discard(event)
                    self._late(event, outcome)
        return more


def _marked(record: Record) -> Record:
    """With the header that says so: its batch has ended, and nobody knows how."""
    headers = record.headers
    if MAYBE_DUPLICATE not in headers:
        headers = (*headers, MAYBE_DUPLICATE)
    return Record(record.topic, record.value, record.key, headers, record.timestamp_ms, record.partition)
