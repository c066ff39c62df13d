"""The shapes of Heap's events and bodies, for the typed decoders, and the close look at what those refuse.

Owns: the types and lengths that Heap's API documents. Refuses to know: which members a call needs, keys, answers.

Invariant: every `HeapEvent` is within the limits, whether a typed decoder made it or `closely`; both accept the same.
"""

from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Annotated

import msgspec
from msgspec import UNSET, Meta, Raw, Struct, UnsetType

from .base import Encoding
from .codec import Codec
from .fields import BadEvent, is_number, is_text, looked_at, object_or_none, read_text, read_time, shown

__all__ = [
    "DECODERS",
    "PLAIN_MAX_BYTES",
    "REFUSED",
    "HeapEvent",
    "HeapShape",
    "PlainEvent",
    "closely",
]

# Source of all limits: developers.heap.io, server-side API.
EVENT_MAX_CHARS = 1024
IDENTITY_MAX_CHARS = 255
PROPERTY_MAX_CHARS = 1024

PLAIN_MAX_BYTES = PROPERTY_MAX_CHARS
"""No text in so many bytes has more characters."""

Text = Annotated[str, Meta(max_length=PROPERTY_MAX_CHARS)]
Identity = Annotated[str, Meta(max_length=IDENTITY_MAX_CHARS)]
Properties = dict[Text, float | Text | list[float | str]]


class HeapEvent(Struct, gc=False):
    """One event, user or account, of any of the calls; also the top level of a call with a single one."""

    event: Annotated[str, Meta(max_length=EVENT_MAX_CHARS)] | None = None
    identity: Identity | None = None
    user_id: Text | None = None
    account_id: Identity | None = None
    session_id: Text | float | None = None
    properties: Properties | None = None
    timestamp: datetime | None = None
    idempotency_key: Text | None = None


class PlainEvent(HeapEvent, gc=False, forbid_unknown_fields=True):
    """An event of at most `PLAIN_MAX_BYTES` without unknown members, which most are.

    Nothing in it can be too long but an identity, nor nested too deep: measuring neither saves 0.6 of 2.3 µs.
    """

    event: str | None = None
    user_id: str | None = None
    session_id: str | float | None = None
    properties: dict[str, float | str | list[float | str]] | None = None
    idempotency_key: str | None = None


class PlainBulk(Struct, forbid_unknown_fields=True, gc=False):
    """A body with an array, and nothing else beside the app: sliced at once."""

    app_id: str | None = None
    events: list[Raw] | UnsetType = UNSET
    users: list[Raw] | UnsetType = UNSET
    accounts: list[Raw] | UnsetType = UNSET


class PlainEvents(Struct, gc=False):
    """The same body, its events decoded."""

    events: list[PlainEvent] = []
    users: list[PlainEvent] = []
    accounts: list[PlainEvent] = []


class HeapCall(HeapEvent, gc=False):
    """A whole body. Which array is set decides what the call is."""

    app_id: str | None = None
    events: Raw | UnsetType = UNSET
    users: Raw | UnsetType = UNSET
    accounts: Raw | UnsetType = UNSET


class PlainCall(PlainEvent, gc=False, forbid_unknown_fields=True):
    """A whole body with a single event, as SDKs send it."""

    app_id: str | None = None


class HeapShape(Struct, gc=False):
    """Just enough of a websocket message to tell which call it is."""

    events: Raw | UnsetType = UNSET
    users: Raw | UnsetType = UNSET
    accounts: Raw | UnsetType = UNSET
    event: Raw | UnsetType = UNSET
    account_id: Raw | UnsetType = UNSET
    user_id: Raw | UnsetType = UNSET


class Decoders:
    """The typed decoders of one encoding."""

    __slots__ = ("bulk", "call", "event", "events", "plain", "plain_call", "shape")

    def __init__(self, encoding: Encoding) -> None:
        make = msgspec.json.Decoder if encoding == "json" else msgspec.msgpack.Decoder
        self.bulk: Callable[[bytes], PlainBulk] = make(PlainBulk).decode
        self.plain: Callable[[bytes], PlainEvents] = make(PlainEvents).decode
        self.plain_call: Callable[[bytes], PlainCall] = make(PlainCall).decode
        self.call: Callable[[bytes], HeapCall] = make(HeapCall).decode
        self.event: Callable[[bytes], HeapEvent] = make(HeapEvent).decode
        self.events: Callable[[bytes], list[HeapEvent]] = make(list[HeapEvent]).decode
        self.shape: Callable[[bytes], HeapShape] = make(HeapShape).decode


DECODERS = {"json": Decoders("json"), "msgpack": Decoders("msgpack")}
#: What a typed decoder raises where it does not take a body.
REFUSED = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


def closely(codec: Codec, body: bytes) -> HeapEvent:
    """Take one event apart by hand: for what the typed decoder refused, rightly or not. Raises `BadEvent`."""
    value = looked_at(codec, body, HeapEvent.__struct_fields__)
    session_id = value.get("session_id")
    if session_id is not None and not is_number(session_id):
        read_text(value, "session_id", max_chars=PROPERTY_MAX_CHARS, exact=False)
    names = None
    if object_or_none(value, "properties") is not None:
        names = _checked_properties(codec, codec.members(codec.members(body)["properties"]))
    return HeapEvent(
        event=read_text(value, "event", max_chars=EVENT_MAX_CHARS, exact=False),
        identity=read_text(value, "identity", max_chars=IDENTITY_MAX_CHARS),
        user_id=read_text(value, "user_id", max_chars=PROPERTY_MAX_CHARS),
        account_id=read_text(value, "account_id", max_chars=IDENTITY_MAX_CHARS),
        properties=None if names is None else dict.fromkeys(names, 0.0),
        timestamp=read_time(value, "timestamp"),
        idempotency_key=read_text(value, "idempotency_key", max_chars=PROPERTY_MAX_CHARS),
    )


def _checked_properties(codec: Codec, properties: dict[str, bytes]) -> Iterable[str]:
    """Check names and values; returns the names. Raises `BadEvent`."""
    for name, raw in properties.items():
        if len(name) > PROPERTY_MAX_CHARS:
            raise BadEvent("too_long", f"a property's name has {len(name)} characters; at most 1024 are allowed")
        value = codec.look(raw)
        if isinstance(value, list):
            # Joined with "||" and cut at 1024: an array is never too long, and what is behind the cut does not count.
            if not all(is_number(item) or is_text(item) for item in codec.looks(raw, PROPERTY_MAX_CHARS)):
                raise BadEvent("invalid_field", "a property's array holds something beside numbers and strings")
        elif is_text(value):
            if len(str(value)) > PROPERTY_MAX_CHARS:
                raise BadEvent("too_long", f"a property has {len(str(value))} characters; at most 1024 are allowed")
        elif not is_number(value):
            raise BadEvent("invalid_field", f"a property is {shown(value)}; expected a number or a string")
    return properties
