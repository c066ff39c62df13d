"""How many rejected events of one key go to the bad topic: a token bucket a key.

Owns: the buckets. Refuses to know: what is rejected, and where it goes.

Invariant: at most `KEYS` buckets exist; beyond that the longest unused is forgotten, which is likely full again.
"""

import math
from collections import OrderedDict

import trio

__all__ = ["BadLimit"]

#: Keys with a bucket. In open mode the keys are the clients' to choose.
KEYS = 10_000

#: A bucket holds what comes in over so many seconds, so that one bad batch is seen whole.
BURST_S = 10.0


class BadLimit:
    """Allows ``rate_per_s`` events of a key in the long run; 0 allows none."""

    def __init__(self, rate_per_s: float) -> None:
        self._rate = rate_per_s
        self._burst = rate_per_s * BURST_S
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def __repr__(self) -> str:
        return f"<BadLimit {self._rate:g}/s, {len(self._buckets)} keys>"

    def take(self, key: str, wanted: int) -> int:
        """Up to ``wanted`` events of ``key``: how many may go now."""
        now = trio.current_time()
        tokens, at = self._buckets.pop(key, (self._burst, now))
        tokens = min(self._burst, tokens + (now - at) * self._rate)
        allowed = min(wanted, math.floor(tokens))
        self._buckets[key] = (tokens - allowed, now)
        if len(self._buckets) > KEYS:
            self._buckets.popitem(last=False)
        return allowed
