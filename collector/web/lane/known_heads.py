"""Heads that came before, byte for byte: what a client sends again and again is read once.

Owns: which heads are remembered, and for how long. Refuses to know: how a head is read.

A client on a kept connection mostly sends the head of its last request again. The bytes being the same, so is
everything that follows from them, and a look into a dictionary (the price of hashing the bytes) stands for reading
them. Behind a proxy that numbers its requests no head comes twice, and what is lost then is that look.

Invariants: only heads that were read without complaint, under the same limits, are remembered; only those that came
twice, so that numbered ones do not push the others out; memory is bounded by `MAX_HEADS` times `MAX_HEAD_BYTES`.
"""

from collector.config import LimitsConfig
from collector.web.lane.request import Request

__all__ = ["KnownHeads", "known_heads"]

MAX_HEADS = 512
MAX_HEAD_BYTES = 1024
#: Hashes of heads that came once.
MAX_SEEN = 4096


class KnownHeads:
    """Heads, and the requests that they are."""

    def __init__(self) -> None:
        self._requests: dict[bytes, Request] = {}
        self._seen: set[int] = set()

    def __repr__(self) -> str:
        return f"<KnownHeads {len(self._requests)} known, {len(self._seen)} seen once>"

    def find(self, head: bytes) -> Request | None:
        """A new request with this head; None: it is not known."""
        known = self._requests.get(head)
        return None if known is None else known.copy()

    def remember(self, head: bytes, request: Request) -> None:
        """Note that ``head`` was read, and is ``request``, of which nothing but the head is there yet."""
        if len(head) > MAX_HEAD_BYTES:
            return
        mark = hash(head)
        if mark not in self._seen:
            if len(self._seen) >= MAX_SEEN:
                self._seen.clear()
            self._seen.add(mark)
            return
        if len(self._requests) >= MAX_HEADS:
            self._requests.clear()
        self._requests[head] = request.copy()


_by_limits: dict[tuple[int, int, int], KnownHeads] = {}


def known_heads(limits: LimitsConfig) -> KnownHeads:
    """Those of this process that were read under these limits."""
    key = (limits.request_line_bytes, limits.head_bytes, limits.head_fields)
    found = _by_limits.get(key)
    if found is None:
        found = _by_limits[key] = KnownHeads()
    return found
