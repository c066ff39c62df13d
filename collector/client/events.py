"""Events and requests as the two dialects want them, from mappings or from a caller's own bytes.

Owns: the bodies of track requests. Refuses to know: HTTP, websockets.

Invariant: an event that the caller gave as bytes leaves byte for byte, except that an event without an id of its own is
given one: without an id, sending again after a lost answer could not be told from a second event.
"""

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import msgspec

__all__ = ["Api", "ApiName", "Event", "EventError", "api_of", "encode_event"]

ApiName: TypeAlias = Literal["segment", "heap"]
Event: TypeAlias = Mapping[str, object] | bytes | str
"""A JSON object: as a mapping, or as its own bytes (UTF-8), which are sent unchanged."""


class EventError(ValueError):
    """The event cannot be sent: it is not a JSON object, or not one of this dialect. The caller's to correct."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Api:
    """One dialect as a client sees it."""

    name: ApiName
    path: str
    id_field: str
    batch_events: int
    """The dialect's own bound of one batch."""

    def body(self, events: Sequence[bytes], key: str) -> bytes:
        """One request's body: a batch, with the key in it (every SDK's way that needs no header)."""
        joined = b",".join(events)
        encoded = msgspec.json.encode(key)
        if self.name == "segment":
            return b'{"writeKey":' + encoded + b',"batch":[' + joined + b"]}"
        return b'{"app_id":' + encoded + b',"events":[' + joined + b"]}"

    def message_body(self, events: Sequence[bytes]) -> bytes:
        """A websocket message's ``body`` for a batch; the key is given beside it."""
        return b'{"%b":[%b]}' % (b"batch" if self.name == "segment" else b"events", b",".join(events))


SEGMENT = Api(name="segment", path="/v1/batch", id_field="messageId", batch_events=2500)
HEAP = Api(name="heap", path="/api/track", id_field="idempotency_key", batch_events=1000)
_APIS: Mapping[str, Api] = {"segment": SEGMENT, "heap": HEAP}


def api_of(name: str) -> Api:
    """The dialect by its name; raises `EventError`."""
    try:
        return _APIS[name]
    except KeyError:
        raise EventError(f"{name!r} is not a dialect this client speaks; allowed: {', '.join(_APIS)}") from None


def encode_event(event: Event, api: Api) -> bytes:
    """One event as bytes, with an id.

    Raises:
        EventError: not a JSON object; the message says what it is.
    """
    raw = _bytes_of(event)
    try:
        fields = msgspec.json.decode(raw, type=dict[str, msgspec.Raw])
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise EventError(f"not a JSON object: {error}") from error
    if api.name == "segment" and "type" not in fields:
        raise EventError('has no "type" (track, identify, page, screen, group, alias)')
    if bytes(fields.get(api.id_field, b"null")) != b"null":
        return raw
    if api.id_field in fields:
        # An explicit null: a second member would leave which of the two counts to the reader.
        decoded: dict[str, object] = msgspec.json.decode(raw)
        decoded[api.id_field] = str(uuid.uuid4())
        return msgspec.json.encode(decoded)
    opened = raw.index(b"{") + 1
    comma = b"," if fields else b""
    return raw[:opened] + f'"{api.id_field}":"{uuid.uuid4()}"'.encode() + comma + raw[opened:]


def _bytes_of(event: Event) -> bytes:
    if isinstance(event, bytes):
        return event.strip()
    if isinstance(event, str):
        return event.strip().encode()
    try:
        return msgspec.json.encode(event)
    except (TypeError, msgspec.ValidationError, ValueError) as error:
        raise EventError(f"cannot be written as JSON: {error}") from error
