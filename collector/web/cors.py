"""Cross-origin requests: what a browser must be told, on every answer, errors included.

Owns: the CORS headers. Refuses to know: everything else about an answer.

Invariant: an answer to a request with an allowed ``Origin`` lets the page read it, whatever its status; without that a
browser SDK sees "network error" instead of our 400 or 503, and cannot know that it may try again.

Source: https://fetch.spec.whatwg.org/#http-cors-protocol. Credentials are allowed because Snowplow's tracker sends
``credentials: include``, for which the origin has to be echoed; we set no cookies and read none.
"""

import re
from functools import lru_cache
from typing import TypeAlias

__all__ = ["Cors"]

Headers: TypeAlias = tuple[tuple[bytes, bytes], ...]

#: What Heap's and Segment's SDKs send, and what our own client does.
ALLOWED_HEADERS = (
    "authorization",
    "content-type",
    "content-encoding",
    "x-retry-count",
    "anonymousid",
    "sp-anonymous",
    "x-collector-timeout-ms",
    "x-request-id",
)
EXPOSED_HEADERS = b"retry-after, x-request-id, x-collector-outcome, x-collector-unknown"

#: A day; Chrome caps it at two hours.
MAX_AGE_S = b"86400"

MAX_REQUESTED = 1024

#: Of so many the headers are remembered; a head of 32 KiB cannot make that more than 4 MiB.
REMEMBERED_ORIGINS = 128
_TOKEN = re.compile(r"[a-z0-9!#$%&'*+.^_`|~-]{1,64}\Z")


class Cors:
    """The policy of ``[http] cors_origins``."""

    def __init__(self, origins: tuple[str, ...]) -> None:
        self._any = "*" in origins
        self._origins = frozenset(origins)
        # A page's origin comes with each of its requests: 0.1 µs remembered, 0.9 µs anew.
        self.headers = lru_cache(maxsize=REMEMBERED_ORIGINS)(self._headers)

    def __repr__(self) -> str:
        return f"<Cors {'any origin' if self._any else sorted(self._origins)}>"

    def _headers(self, origin: bytes) -> Headers:
        """What every answer to a request from ``origin`` carries."""
        if not (self._any or origin.decode("latin-1") in self._origins):
            return ((b"vary", b"Origin"),)
        return (
            (b"access-control-allow-origin", origin),
            (b"access-control-allow-credentials", b"true"),
            (b"access-control-expose-headers", EXPOSED_HEADERS),
            (b"vary", b"Origin"),
        )

    def preflight(self, requested_headers: str) -> Headers:
        """What the answer to a preflight carries beside `headers`.

        Headers that a page asks for are allowed even if we do not know them: SDKs invent them (``PostHog-Sdk-Info``),
        and refusing one loses every event of that page.
        """
        allowed = list(ALLOWED_HEADERS)
        if len(requested_headers) <= MAX_REQUESTED:
            wanted = (name.strip().lower() for name in requested_headers.split(","))
            allowed += [name for name in wanted if _TOKEN.match(name) and name not in ALLOWED_HEADERS]
        return (
            (b"access-control-allow-methods", b"GET, POST, OPTIONS"),
            (b"access-control-allow-headers", ", ".join(allowed).encode("ascii")),
            (b"access-control-max-age", MAX_AGE_S),
        )
