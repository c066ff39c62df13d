"""The account of one row: what clients were told, held against what is in the topics and the spool.

Owns: the arithmetic of lost, duplicate and ghost, and of the times of answers. Refuses to know: where the logs come
from, and what a row has to hold.

Theory. Every event has an id of its own and is sent once, so each copy of it that is found is accounted for:

- *lost*: its request was answered 200, and it is in no topic and not in the spool.
- *duplicate*: a further copy of it in the topic. Marked are as many as carry ``maybe-duplicate: 1``.
- *ghost*: in the topic, though its request was not answered 200. *Announced*, where the answer named its position as
  unknown, or counted it as delivered (a batch of which not all was accepted). *Unannounced*, where the answer's own
  counts deny it. *Without word*, where the answer has no counts (a proxy's, or a server's that has none) or there was
  none at all: nobody said anything about the event, true or untrue.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from tests.bench.figures import percentile
from tests.faults.entries import Entry, event_id

__all__ = ["ANSWER_WITHIN_S", "Account", "Copies", "Found", "goodput", "settle"]

#: The smallest timeout among the clients in the field.
ANSWER_WITHIN_S = 5.0


@dataclass(slots=True)
class Copies:
    """Of one event, in the topic."""

    copies: int = 0
    marked: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """Where events are after the row."""

    topic: Mapping[str, Copies]
    bad_topic: Collection[str] = ()
    spool: Collection[str] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """The figures of one row. Requests, unless the name says events; times in seconds."""

    sent: int
    events: int
    ok: int
    unavailable: int
    """503, whoever said it."""
    other: Mapping[int, int]
    """Further statuses."""
    no_answer: int
    """Connected, and never told."""
    not_connected: int
    late: int
    """Sent whole, and answered later than `ANSWER_WITHIN_S`."""
    unknown_events: int
    lost_events: int
    duplicates_marked: int
    duplicates_unmarked: int
    ghosts_announced: int
    ghosts_unannounced: int
    ghosts_without_word: int
    p50_s: float
    p99_s: float
    slowest_s: float
    rude_sent: int = 0
    rude_answered: int = 0
    lost_examples: Sequence[str] = field(default=())

    @property
    def ok_share(self) -> float:
        """200s of all that was sent; 0 of nothing."""
        return self.ok / self.sent if self.sent else 0.0


def settle(run: str, entries: Iterable[Entry], found: Found) -> Account:
    """Make the account of one row."""
    polite: list[Entry] = []
    rude: list[Entry] = []
    for entry in entries:
        (rude if entry.rude else polite).append(entry)
    lost: list[str] = []
    ghosts = [0, 0, 0]
    for entry in (*polite, *rude):
        names = [event_id(run, entry.number, position) for position in range(entry.events)]
        if entry.status == 200:
            lost += [
                name
                for name in names
                if name not in found.topic and name not in found.spool and name not in found.bad_topic
            ]
        elif not entry.rude:
            for kind, count in enumerate(_ghosts(entry, names, found.topic)):
                ghosts[kind] += count
    further = [(each.copies - 1, each.marked) for each in found.topic.values() if each.copies > 1]
    marked = sum(min(copies, carrying) for copies, carrying in further)
    seconds = sorted(answer_times(polite))
    other: dict[int, int] = {}
    for entry in polite:
        if entry.status not in (0, 200, 503):
            other[entry.status] = other.get(entry.status, 0) + 1
    return Account(
        sent=len(polite),
        events=sum(entry.events for entry in polite),
        ok=sum(entry.status == 200 for entry in polite),
        unavailable=sum(entry.status == 503 for entry in polite),
        other=dict(sorted(other.items())),
        no_answer=sum(entry.status == 0 and entry.connected for entry in polite),
        not_connected=sum(not entry.connected for entry in polite),
        late=sum(entry.whole and _seconds(entry) > ANSWER_WITHIN_S for entry in polite),
        unknown_events=sum(len(entry.unknown) for entry in polite),
        lost_events=len(lost),
        duplicates_marked=marked,
        duplicates_unmarked=sum(copies for copies, _ in further) - marked,
        ghosts_announced=ghosts[0],
        ghosts_unannounced=ghosts[1],
        ghosts_without_word=ghosts[2],
        p50_s=percentile(seconds, 0.5),
        p99_s=percentile(seconds, 0.99),
        slowest_s=percentile(seconds, 1.0),
        rude_sent=len(rude),
        rude_answered=sum(entry.status != 0 for entry in rude),
        lost_examples=lost[:5],
    )


def _ghosts(entry: Entry, names: Sequence[str], topic: Mapping[str, Copies]) -> tuple[int, int, int]:
    """How many of the events of a request without a 200 are in the topic: announced, unannounced, without word."""
    there = [position for position, name in enumerate(names) if name in topic]
    if not entry.counted:
        return 0, 0, len(there)
    unnamed = sum(position not in entry.unknown for position in there)
    unannounced = max(0, unnamed - entry.delivered)
    return len(there) - unannounced, unannounced, 0


def answer_times(entries: Iterable[Entry]) -> list[float]:
    """Seconds from the last byte sent to the answer, of those that have one."""
    return [_seconds(entry) for entry in entries if entry.answered_at is not None]


def _seconds(entry: Entry) -> float:
    return 0.0 if entry.answered_at is None else entry.answered_at - entry.sent_at


def goodput(entries: Iterable[Entry], begin: float, end: float) -> float:
    """Requests answered 200 a second, of those answered between two moments."""
    good = sum(
        entry.status == 200 and entry.answered_at is not None and begin <= entry.answered_at < end
        for entry in entries
        if not entry.rude
    )
    return good / (end - begin)
