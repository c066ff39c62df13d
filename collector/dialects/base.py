"""What every dialect is: bytes in, events out, and how its answers look.

Owns: the types that pass between the web, a dialect and ingest. Refuses to know: Trio, Kafka, sockets, deadlines.

Invariants: a dialect never rewrites an event (``Event.body`` is a slice of what the client sent); it is a pure function
of its arguments; and every way in which input can be bad ends in a `ClientFault` (the whole request) or a `Rejection`
(one event of a batch whose other events go on).

What is made per request or per event is a msgspec Struct: 0.08 µs instead of 0.9 µs for a frozen dataclass.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal, Protocol, TypeAlias

from msgspec import Struct

__all__ = ["Answer", "ClientFault", "Dialect", "DialectRequest", "Event", "Keyring", "Parsed", "Rejection", "Route"]

Encoding: TypeAlias = Literal["json", "msgpack"]


class ClientFault(Exception):
    """The request as a whole is the client's fault: a 400, and none of it is enqueued.

    ``code`` is a short stable word (``invalid_json``, ``invalid_key``, ``too_large``, ``missing_field``, …),
    ``message`` a sentence for the developer who reads it.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message


class DialectRequest(Struct, frozen=True, kw_only=True):
    """One request, complete. ``headers`` have lower-cased names; ``body`` is inflated; times in ms since 1970."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes
    received_at_ms: int
    request_id: str
    encoding: Encoding = "json"
    credential: str | None = None
    """A key given beside the body (websocket: the message's ``key``, the query's, a header's); it wins over others."""


class Event(Struct, frozen=True, gc=False):
    """One good event. ``body`` is the client's own bytes of it, unchanged.

    ``position`` is its index in the request; ``id`` the client's own id, or None (ingest then derives one);
    ``identity`` what the Kafka key is made of, None where the client gave none; ``timestamp`` when it happened,
    corrected for skew (without a zone: in UTC), None where that is not known.
    """

    position: int
    type: str
    id: str | None
    identity: str | None
    timestamp: datetime | None
    body: bytes


class Rejection(Struct, frozen=True, kw_only=True, gc=False):
    """One bad event of a batch: for the bad topic. ``original`` is its own bytes."""

    position: int
    code: str
    message: str
    original: bytes


class Parsed(Struct, frozen=True, kw_only=True):
    """What a request means. ``batch`` is the JSON of the batch's top level without its array and key, or None.

    ``single`` is True where the client sent one event, not a batch of one: then a single rejection answers 400 in the
    event's own words. ``accept_only`` is True for what is counted and answered but never enqueued (Segment's /v1/m).
    """

    api: str
    app: str
    events: Sequence[Event]
    rejections: Sequence[Rejection] = ()
    sent_at_ms: int | None = None
    batch: bytes | None = None
    encoding: Encoding = "json"
    single: bool = False
    accept_only: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One HTTP answer in a dialect's own form; the web adds request id, CORS and connection headers."""

    status: int
    body: bytes
    content_type: str = "text/plain; charset=utf-8"
    headers: tuple[tuple[str, str], ...] = ()
    fields: tuple[tuple[bytes, bytes], ...] = field(init=False, repr=False, compare=False)
    """``headers`` as bytes, behind the type and the length: made once, for the answers that are given again."""

    def __post_init__(self) -> None:
        described = ("content-type", self.content_type), ("content-length", str(len(self.body)))
        pairs = tuple((name.encode("latin-1"), value.encode()) for name, value in (*described, *self.headers))
        object.__setattr__(self, "fields", pairs)


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One path of a dialect. ``kind`` is the dialect's own word for what is posted there ("track", "batch", …)."""

    method: str
    path: str
    kind: str


class Keyring(Protocol):
    """Who may send. Both return the app's name, or None where the key is not known."""

    def app_of_write_key(self, write_key: str) -> str | None: ...

    def app_of_app_id(self, app_id: str) -> str | None: ...


class Dialect(Protocol):
    """One file a dialect implements this; the web knows no more of it."""

    name: str
    routes: Sequence[Route]

    def parse(self, route: Route, request: DialectRequest, keys: Keyring) -> Parsed:
        """Bytes to events. Raises `ClientFault`."""
        ...

    def message_route(self, body: bytes, encoding: Encoding) -> Route:
        """Which route a websocket message's body stands for: a batch or one event. Raises `ClientFault`."""
        ...

    def accepted(self, route: Route) -> Answer:
        """200: every event delivered, spooled or (in a batch) rejected for good."""
        ...

    def refused(self, route: Route | None, fault: ClientFault) -> Answer:
        """400 in the dialect's own form; ``route`` is None where the path itself is wrong."""
        ...

    def unavailable(self, route: Route | None, message: str) -> Answer:
        """503; the web adds Retry-After and the outcome headers."""
        ...
