"""Which events were accepted lately, so that a batch that comes back sends only what is missing.

Owns: the memory of ids, its bounds, its counts. Refuses to know: requests, Kafka, the disk; what it is told of an event
is its `Status`.

Theory. Only events with an id of the client's own take part. An entry is two 60-bit words: the keyed hash of (api,
app, type, id), where it is found, and the keyed hash of the body with four bits of state:

- *settled*: delivered, or on our disk. A repeat is not sent, and counted as deduplicated.
- *in doubt*, with the number of sendings whose end is not known: in work, or answered unknown. A repeat is sent with
  ``maybe-duplicate: 1``. One that meets its first sending still in work is sent as well: waiting for the first would
  tie two requests' deadlines together, and a client that asks again has given up on the first answer.
- *forgotten*: every sending was proved absent. A repeat is sent as if it were the first.

The same id with another body is another event: a write key is public, so anyone can send an id first. It is sent,
counted as a conflict, and remembered beside the first, at the exclusive or of both hashes. An event is held back only
if both words are equal: among a million entries by an accident of 1 in 2^96 an event. The hashes are SipHash behind
16 random bytes of this process's own (whatever ``PYTHONHASHSEED`` says), so nobody can aim for an accident.

Two generations, each a dict: writing goes to the young one, which becomes the old one when it is half of ``minutes``
old or holds half of ``max_bytes``; what was the old one is forgotten then. An entry is remembered for at least half of
``minutes`` if the bytes suffice, and never for longer than ``minutes``.

Invariants: an event is never held back unless this process was told that exactly this event is delivered or stored;
what was evicted is only ever sent again.
"""

import math
import secrets
import sys
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass

import msgspec
import trio
from msgspec import Struct

from collector.config import REMEMBERED_EVENT_BYTES, RetryMemoryConfig
from collector.dialects.base import Event, Parsed
from collector.ingest.verdict import Status

__all__ = ["Claim", "RetryMemory", "RetryMemoryStatistics"]

#: 60 bits fit into two digits of an int: 32 B instead of 36 B, which malloc would make 48 B.
_WORD = (1 << 60) - 1
_STATE = 0b1111
_BODY = _WORD & ~_STATE
_SETTLED = 0b1000
#: Sendings in doubt are counted up to here; from then on the entry stays in doubt until one of them is settled.
_MANY = 0b0111
#: The entry of an event that takes no part; no hash is negative.
_NOBODY = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryMemoryStatistics:
    """One reading of the memory. Counts are events."""

    entries: int
    bytes: int
    max_bytes: int
    reach_s: float
    """How far back it remembers: shorter than half of ``minutes`` where the bytes do not suffice."""
    lookups_total: int
    """Events with an id of the client's own."""
    hits_total: int
    """Settled already: not sent again."""
    doubtful_total: int
    """In work, or answered unknown: sent again with ``maybe-duplicate: 1``."""
    conflicts_total: int
    """Known ids with another body: sent."""
    evicted_total: int
    """Forgotten for bytes or minutes."""
    hit_rate: float
    """Hits of all lookups, 0…1."""


class RetryMemory:
    """The memory of one process.

    Args:
        clock: seconds, never going back.
    """

    def __init__(self, config: RetryMemoryConfig, *, clock: Callable[[], float] = trio.current_time) -> None:
        self._enabled = config.enabled
        self._max_bytes = config.max_bytes
        self._clock = clock
        self._lifetime_s = config.minutes * 60
        self._generation_entries = config.max_bytes // (2 * REMEMBERED_EVENT_BYTES)
        self._salt = secrets.token_bytes(16)
        self._prefix = self._salt.hex()
        # Of the last single event.
        self._source = ("", "", "")
        self._source_prefix = ""
        self._young: dict[int, int] = {}
        self._old: dict[int, int] = {}
        # When the first entry of each was written, or earlier.
        self._young_since = self._old_since = -math.inf
        self._aging_at = -math.inf
        self._lookups = 0
        self._hits = 0
        self._doubtful = 0
        self._conflicts = 0
        self._evicted = 0

    def __repr__(self) -> str:
        return f"<RetryMemory {len(self._young)} + {len(self._old)} entries, {self._hits} hits of {self._lookups}>"

    def claim(self, parsed: Parsed) -> "tuple[Parsed, Claim | None]":
        """Look up the events of one request, and remember that they are in work now.

        Returns: the request without the events that are settled already, and the claim on the others; None where
            nothing is to be remembered: no event has an id of the client's own, or the memory is off.
        """
        events = parsed.events
        if not self._enabled or parsed.accept_only:
            return parsed, None
        if len(events) == 1:
            return self._claim_one(parsed, events[0])
        named = [event for event in events if event.id is not None]
        if not named:
            return parsed, None
        self._lookups += len(named)
        self._make_room(len(named))
        salt, prefix = self._salt, f"{self._prefix}{parsed.api}:{parsed.app}:"
        # Most batches are of one type; then a key costs one joining of strings.
        if len({event.type for event in named}) == 1:
            prefix = f"{prefix}{named[0].type}:"
            keys = [hash(prefix + event.id) & _WORD for event in named]  # type: ignore[operator]  # see named
        else:
            keys = [hash(f"{prefix}{event.type}:{event.id}") & _WORD for event in named]
        bodies = [hash(salt + event.body) & _BODY for event in named]
        young = self._young
        new = young.keys().isdisjoint(keys) and self._old.keys().isdisjoint(keys) and len(set(keys)) == len(keys)
        if not new or len(named) < len(events):
            return self._claim_each(parsed, keys, bodies)
        young.update(zip(keys, [body + 1 for body in bodies], strict=True))
        return parsed, Claim(self, keys, bodies)

    def _claim_one(self, parsed: Parsed, event: Event) -> "tuple[Parsed, Claim | None]":
        """What the rest of `claim` would do, for a fifth of its cost."""
        if event.id is None:
            return parsed, None
        self._lookups += 1
        if self._clock() >= self._aging_at or len(self._young) >= self._generation_entries:
            self._make_room(1)
        source = (parsed.api, parsed.app, event.type)
        if source != self._source:
            self._source, self._source_prefix = source, f"{self._prefix}{parsed.api}:{parsed.app}:{event.type}:"
        key = hash(self._source_prefix + event.id) & _WORD
        body = hash(self._salt + event.body) & _BODY
        if key in self._young or key in self._old:
            return self._claim_each(parsed, (key,), (body,))
        self._young[key] = body + 1
        return parsed, Claim(self, (key,), (body,))

    def _claim_each(self, parsed: Parsed, keys: Sequence[int], bodies: Sequence[int]) -> "tuple[Parsed, Claim]":
        words = iter(zip(keys, bodies, strict=True))
        missing: list[Event] = []
        entries: list[int] = []
        of_missing: list[int] = []
        doubtful: set[int] = set()
        for event in parsed.events:
            entry, body = _NOBODY, 0
            if event.id is not None:
                key, body = next(words)
                entry, state = self._find(key, body)
                if state & _SETTLED:
                    self._hits += 1
                    continue
                if state:
                    self._doubtful += 1
                    doubtful.add(event.position)
                self._young[entry] = body | min(state + 1, _MANY)
            missing.append(event)
            entries.append(entry)
            of_missing.append(body)
        deduplicated = len(parsed.events) - len(missing)
        if deduplicated:
            parsed = msgspec.structs.replace(parsed, events=missing)
        return parsed, Claim(self, entries, of_missing, doubtful, deduplicated)

    def _find(self, key: int, body: int) -> tuple[int, int]:
        """Where the entry of this event is or would be, and its state (0: none, or forgotten)."""
        value = self._get(key)
        if value is None:
            return key, 0
        if value & _BODY == body:
            return key, value & _STATE
        # Both live equally long from here on; else the other body would lose its way to its entry.
        self._young[key] = value
        key ^= body
        value = self._get(key)
        if value is not None and value & _BODY == body:
            return key, value & _STATE
        self._conflicts += 1
        return key, 0

    def _get(self, entry: int) -> int | None:
        value = self._young.get(entry)
        return self._old.get(entry) if value is None else value

    def _settle_all(self, entries: Sequence[int], bodies: Sequence[int]) -> None:
        self._make_room(len(entries))
        self._young.update(zip(entries, [body | _SETTLED for body in bodies], strict=True))
        self._young.pop(_NOBODY, None)

    def _settle(self, entry: int, body: int, status: Status) -> None:
        """One sending of this event has ended, or will not be waited for (unknown: it stays in doubt)."""
        if entry == _NOBODY:
            return
        if status <= Status.SPOOLED:
            self._young[entry] = body | _SETTLED
            return
        value = self._get(entry)
        state = value & _STATE if value is not None and value & _BODY == body else None
        if status is Status.UNKNOWN:
            # Evicted meanwhile: it is in doubt all the same.
            state = state or 1
        elif state is None or state & _SETTLED or state == _MANY:
            return
        else:
            state = max(0, state - 1)
        self._young[entry] = body | state

    def _others(self, entry: int, body: int) -> bool:
        """Whether one sending in work is not all there is of this event."""
        value = self._get(entry)
        return value is not None and value & _BODY == body and value & _STATE != 1

    def _make_room(self, coming: int) -> None:
        """Age the generations, so that ``coming`` more entries may be written to the young one."""
        now = self._clock()
        full = len(self._young) + coming > self._generation_entries
        if now < self._aging_at and not full:
            return
        if now - self._old_since >= self._lifetime_s:
            self._forget_old(now)
        if now - self._young_since >= self._lifetime_s:
            self._rotate(now)
            self._forget_old(now)
        elif full or now - self._young_since >= self._lifetime_s / 2:
            self._rotate(now)
        self._aging_at = min(self._old_since + self._lifetime_s, self._young_since + self._lifetime_s / 2)

    def _rotate(self, now: float) -> None:
        self._evicted += len(self._old)
        self._old, self._old_since = self._young, self._young_since
        self._young, self._young_since = {}, now

    def _forget_old(self, now: float) -> None:
        self._evicted += len(self._old)
        self._old, self._old_since = {}, now

    def statistics(self) -> RetryMemoryStatistics:
        """What is remembered now, and what came of it so far."""
        entries = len(self._young) + len(self._old)
        reach_s = self._clock() - min(self._young_since, self._old_since) if entries else 0.0
        return RetryMemoryStatistics(
            entries=entries,
            bytes=sys.getsizeof(self._young) + sys.getsizeof(self._old) + entries * 2 * sys.getsizeof(_WORD),
            max_bytes=self._max_bytes if self._enabled else 0,
            reach_s=min(reach_s, self._lifetime_s),
            lookups_total=self._lookups,
            hits_total=self._hits,
            doubtful_total=self._doubtful,
            conflicts_total=self._conflicts,
            evicted_total=self._evicted,
            hit_rate=self._hits / self._lookups if self._lookups else 0.0,
        )


class Claim(Struct, frozen=True, eq=False, gc=False):
    """The events of one request in the memory, from its beginning to the last late resolution.

    An index is one among the events that are to be sent.
    """

    _memory: RetryMemory
    _entries: Sequence[int]
    _bodies: Sequence[int]
    doubtful: Collection[int] = ()
    """Positions of the events that are sent with ``maybe-duplicate: 1``."""
    deduplicated: int = 0
    """How many events are settled already."""

    def __repr__(self) -> str:
        return (
            f"<Claim on {len(self._entries)} events, {self.deduplicated} deduplicated, {len(self.doubtful)} in doubt>"
        )

    def settle_all(self) -> None:
        """Every event that was sent is delivered or stored."""
        if len(self._entries) == 1:
            self._memory._settle(self._entries[0], self._bodies[0], Status.DELIVERED)
        else:
            self._memory._settle_all(self._entries, self._bodies)

    def settle(self, statuses: Sequence[Status]) -> None:
        """What became of the events that were sent, one status each, in order."""
        self._memory._make_room(len(self._entries))
        for index, status in enumerate(statuses):
            self.resolved(index, status)

    def repeated(self, indices: Iterable[int]) -> set[int]:
        """Those of these, still in work, of which other sendings are in doubt or settled."""
        return {index for index in indices if self._memory._others(self._entries[index], self._bodies[index])}

    def resolved(self, index: int, status: Status) -> None:
        """One event that was answered as unknown has its end now; again unknown changes nothing."""
        self._memory._settle(self._entries[index], self._bodies[index], status)
