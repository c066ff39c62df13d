"""Heap's own rate limits, for operators who want them (`[quota] heap_per_identity`; off by default).

Owns: Heap's rates: 30 requests in 30 s with single events of one identity of an app; 1000 events a minute
of one identity of an app in bulk, and 15 000 of an app. Refuses to know: clocks (the caller says what time it is),
answers.

Invariants: a request is taken whole or not at all; one that is not taken costs nothing; at most `KEYS` identities are
remembered, beyond which the longest unused is forgotten, to its advantage.

Theory (GCRA, as in ATM): of each key one number is kept, the time at which it would be idle if its events had been
spread evenly. Each event moves it by ``window / limit``; more than a window ahead of now is too much.
"""

from collections import Counter, OrderedDict
from collections.abc import Mapping

from .base import Parsed

__all__ = ["KEYS", "HeapQuota"]

KEYS = 100_000
"""Identities with a number, for each of the limits: about 20 MB at worst."""

# Source: developers.heap.io, server-side API, "Limits". (events or requests, milliseconds)
SINGLE_PER_IDENTITY = (30, 30_000)
BULK_PER_IDENTITY = (1000, 60_000)
BULK_PER_APP = (15_000, 60_000)


class HeapQuota:
    """Counts the track calls of Heap; everything else passes."""

    def __init__(self) -> None:
        self._single = _Rate(*SINGLE_PER_IDENTITY)
        self._bulk = _Rate(*BULK_PER_IDENTITY)
        self._apps = _Rate(*BULK_PER_APP)

    def __repr__(self) -> str:
        return f"<HeapQuota {len(self._single)} single, {len(self._bulk)} in bulk, {len(self._apps)} apps>"

    def take(self, parsed: Parsed, now_ms: int) -> float:
        """Count a request. Returns 0 where it is taken, else after how many seconds it would have been."""
        if parsed.api != "heap" or not parsed.events or parsed.events[0].type != "track":
            return 0.0
        identities = Counter(event.identity for event in parsed.events if event.identity is not None)
        wanted = {f"{parsed.app}:{identity}": number for identity, number in identities.items()}
        if parsed.single:
            rates = [(self._single, wanted)]
        else:
            rates = [(self._bulk, wanted), (self._apps, {parsed.app: len(parsed.events)})]
        wait_ms = max((rate.wait_ms(keys, now_ms) for rate, keys in rates), default=0.0)
        if wait_ms <= 0:
            for rate, keys in rates:
                rate.take(keys, now_ms)
        return max(wait_ms, 0.0) / 1000


class _Rate:
    """One limit: ``number`` in any ``window_ms``, for each key."""

    def __init__(self, number: int, window_ms: int) -> None:
        self._window_ms = window_ms
        self._step_ms = window_ms / number
        self._idle_at_ms: OrderedDict[str, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._idle_at_ms)

    def wait_ms(self, keys: Mapping[str, int], now_ms: int) -> float:
        """After how long all ``keys`` could be taken; 0 or less: now."""
        ahead = [max(self._idle_at_ms.get(key, 0), now_ms) + number * self._step_ms for key, number in keys.items()]
        return max(ahead, default=0.0) - self._window_ms - now_ms

    def take(self, keys: Mapping[str, int], now_ms: int) -> None:
        for key, number in keys.items():
            idle_at_ms = max(self._idle_at_ms.pop(key, 0), now_ms)
            self._idle_at_ms[key] = idle_at_ms + number * self._step_ms
        while len(self._idle_at_ms) > KEYS:
            self._idle_at_ms.popitem(last=False)
