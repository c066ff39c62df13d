"""Segment: `/v1/track`, `/v1/batch` and their relatives, as dozens of SDKs speak them.

Owns: Segment's HTTP API but for the pixel, and the form of its answers: 200 ``{"success": true}``, else
``{"code", "message"}``. Refuses to know: Content-Type (SDKs lie about it), compression, CORS.

Invariants: a typed decoder and the close look (`_closely`) accept the same events and yield the same `SegmentEvent`;
the second one is taken only where the first refused. What a batch says for all of its events (``context``,
``integrations`` …) is passed on beside them, not merged: the consumer merges.

What Segment leaves open, decided here: an id may be a whole number (its digits are the key); the path of a single
call decides its type, whatever its ``type`` says; an event without a time has none (``received_at`` stands beside it);
a batch without events is a success.
"""

import base64
import binascii
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Annotated

import msgspec
from msgspec import UNSET, Meta, Raw, Struct, UnsetType

from collector.config import LimitsConfig
from collector.times import shifted, to_ms

from .base import Answer, ClientFault, DialectRequest, Encoding, Event, Keyring, Parsed, Rejection, Route
from .codec import NESTING_MAX, Codec, batch_level, codec_of, deeper_than
from .fields import (
    NOBODY,
    BadEvent,
    is_text,
    looked_at,
    object_or_none,
    read_id,
    read_text,
    read_time,
    shown,
    usable_identity,
)

__all__ = ["Segment"]

MESSAGE_ID_MAX_CHARS = 99
"""Source: segment.com/docs, spec, common fields: "must be less than 100 characters"."""
TEXT_MAX_CHARS = 1024
"""Of ids and names. Segment names no limit beside the size of the event; ids become Kafka keys."""

Text = Annotated[str, Meta(max_length=TEXT_MAX_CHARS)]


class AnObject(Struct, gc=False):
    """Any object: its grammar is checked, its members are skipped."""


class SegmentEvent(Struct, rename="camel", gc=False):
    """One event of any type; also the body of a single call."""

    type: Text | None = None
    user_id: Text | int | None = None
    anonymous_id: Text | int | None = None
    group_id: Text | int | None = None
    previous_id: Text | int | None = None
    event: Text | None = None
    message_id: Annotated[str, Meta(max_length=MESSAGE_ID_MAX_CHARS)] | None = None
    timestamp: datetime | None = None
    original_timestamp: datetime | None = None
    sent_at: datetime | None = None
    properties: AnObject | None = None
    traits: AnObject | None = None
    context: AnObject | None = None
    integrations: AnObject | None = None


class SegmentCall(SegmentEvent, gc=False):
    """The body of a single call, with its key."""

    write_key: str | None = None


class SegmentShape(Struct, gc=False):
    """Just enough of a websocket message to tell which call it is."""

    batch: Raw | UnsetType = UNSET
    type: str | None = None


_MEMBERS = SegmentEvent.__struct_encode_fields__

_TYPES = ("track", "identify", "page", "screen", "group", "alias")
_SHORT = {"t": "track", "i": "identify", "p": "page", "s": "screen", "g": "group", "a": "alias"}
_BATCH = Route(method="POST", path="/v1/batch", kind="batch")
_SINGLE = {kind: Route(method="POST", path=f"/v1/{kind}", kind=kind) for kind in _TYPES}


class _Decoders:
    """The typed decoders of one encoding."""

    __slots__ = ("call", "event", "events", "shape")

    def __init__(self, encoding: Encoding) -> None:
        make = msgspec.json.Decoder if encoding == "json" else msgspec.msgpack.Decoder
        self.call: Callable[[bytes], SegmentCall] = make(SegmentCall).decode
        self.event: Callable[[bytes], SegmentEvent] = make(SegmentEvent).decode
        self.events: Callable[[bytes], list[SegmentEvent]] = make(list[SegmentEvent]).decode
        self.shape: Callable[[bytes], SegmentShape] = make(SegmentShape).decode


_DECODERS = {"json": _Decoders("json"), "msgpack": _Decoders("msgpack")}
_REFUSED = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class Segment:
    """The dialect; see `Dialect`."""

    name = "segment"
    routes: Sequence[Route] = (
        *_SINGLE.values(),
        _BATCH,
        Route(method="POST", path="/v1/import", kind="batch"),
        *(Route(method="POST", path=f"/v1/{letter}", kind=kind) for letter, kind in _SHORT.items()),
        Route(method="POST", path="/v1/b", kind="batch"),
        Route(method="POST", path="/v1/m", kind="metrics"),
    )

    def __init__(self, limits: LimitsConfig) -> None:
        self._event_bytes = limits.event_bytes
        self._batch_events = limits.batch_events
        self._batch_copies_bytes = limits.batch_copies_bytes

    def parse(self, route: Route, request: DialectRequest, keys: Keyring) -> Parsed:
        if route.kind == "metrics":
            # The browser SDK's word about itself: any body is as good as another.
            return Parsed(api=self.name, app="", events=(), single=True, accept_only=True)
        codec = codec_of(request.encoding)
        body = codec.checked(request.body)
        if route.kind == "batch":
            return self._bulk(request, codec, body, keys)
        return self._single(route.kind, request, codec, body, keys)

    def _single(self, kind: str, request: DialectRequest, codec: Codec, body: bytes, keys: Keyring) -> Parsed:
        call: SegmentCall | None
        try:
            call = _DECODERS[codec.encoding].call(body)
        except _REFUSED:
            if len(body) > self._event_bytes:
                raise ClientFault("too_large", f"an event has at most {self._event_bytes} bytes") from None
            call = None
            write_key = _write_key_in(codec, codec.members(body))
        else:
            write_key = call.write_key
        app = _app_of(request, keys, write_key)
        try:
            event = self._decided(codec, body, call)
            sent_at_ms = None if event.sent_at is None else to_ms(event.sent_at)
            made = _event(kind, 0, body, event, request.received_at_ms, None)
        except BadEvent as bad:
            rejection = Rejection(position=0, code=bad.code, message=bad.message, original=body)
            return Parsed(
                api=self.name, app=app, events=(), rejections=(rejection,), encoding=codec.encoding, single=True
            )
        return Parsed(
            api=self.name, app=app, events=(made,), sent_at_ms=sent_at_ms, encoding=codec.encoding, single=True
        )

    def _bulk(self, request: DialectRequest, codec: Codec, body: bytes, keys: Keyring) -> Parsed:
        members = codec.members(body, self._event_bytes)
        app = _app_of(request, keys, _write_key_in(codec, members))
        members.pop("writeKey", None)
        raw = members.pop("batch", None)
        if raw is None:
            raise ClientFault("missing_field", "batch is missing")
        slices = codec.items(raw, self._batch_events)
        if slices is None:
            raise ClientFault("invalid_field", "batch is not an array")
        sent_at_ms = _check_level(codec, members)
        batch = batch_level(codec, members, len(slices), self._batch_copies_bytes)
        try:
            decoded: Sequence[SegmentEvent | None] = _DECODERS[codec.encoding].events(raw)
        except _REFUSED:
            decoded = [_decoded(codec.encoding, piece) for piece in slices]
        events: list[Event] = []
        rejections: list[Rejection] = []
        received_at_ms, event_bytes = request.received_at_ms, self._event_bytes
        skew = None if sent_at_ms is None else timedelta(milliseconds=received_at_ms - sent_at_ms)
        for position, (piece, event) in enumerate(zip(slices, decoded, strict=True)):
            try:
                # What `_decided` would find out, without the call: most events are small, flat and well-typed.
                if event is None or len(piece) > event_bytes or piece.count(b"{") + piece.count(b"[") > NESTING_MAX:
                    event = self._decided(codec, piece, event)
                # What `_event` would make of what SDKs send.
                elif event.event and event.type == "track" and skew is not None:
                    user_id, moment = event.user_id, event.original_timestamp or event.timestamp
                    if user_id and isinstance(user_id, str) and user_id not in NOBODY:
                        if moment is not None:
                            moment = shifted(moment, skew)
                        events.append(Event(position, "track", event.message_id or None, user_id, moment, piece))
                        continue
                events.append(_event(event.type or "", position, piece, event, received_at_ms, skew))
            except BadEvent as bad:
                rejections.append(Rejection(position=position, code=bad.code, message=bad.message, original=piece))
        return Parsed(
            api=self.name,
            app=app,
            events=events,
            rejections=rejections,
            sent_at_ms=sent_at_ms,
            batch=batch,
            encoding=codec.encoding,
        )

    def _decided(self, codec: Codec, body: bytes, event: SegmentEvent | None) -> SegmentEvent:
        """The event of these bytes, within the bounds of every event. Raises `BadEvent`."""
        if len(body) > self._event_bytes:
            raise BadEvent("too_large", f"the event has {len(body)} bytes; at most {self._event_bytes} are allowed")
        if codec.encoding == "json" and deeper_than(body, NESTING_MAX):
            raise BadEvent("too_deep", f"nested deeper than {NESTING_MAX} levels")
        return _closely(codec, body) if event is None else event

    def message_route(self, body: bytes, encoding: Encoding) -> Route:
        codec = codec_of(encoding)
        body = codec.checked(body)
        try:
            shape = _DECODERS[encoding].shape(body)
        except _REFUSED:
            members = codec.members(body)
            if "batch" in members:
                return _BATCH
            kind = codec.look(members["type"]) if "type" in members else None
            if kind is not None and not is_text(kind):
                raise ClientFault("invalid_field", f"type is {shown(kind)}; expected a string") from None
            shape = SegmentShape(type=None if kind is None else str(kind))
        if shape.batch is not UNSET:
            return _BATCH
        kind = shape.type or "track"
        if kind not in _SINGLE:
            raise ClientFault("invalid_field", f"type is none of {', '.join(_TYPES)}")
        return _SINGLE[kind]

    def accepted(self, route: Route) -> Answer:
        return _ACCEPTED

    def refused(self, route: Route | None, fault: ClientFault) -> Answer:
        return _said(400, fault.code, fault.message)

    def unavailable(self, route: Route | None, message: str) -> Answer:
        return _said(503, "unavailable", message)


_ACCEPTED = Answer(status=200, body=b'{"success": true}', content_type="application/json")


def _said(status: int, code: str, message: str) -> Answer:
    body = msgspec.json.encode({"code": code, "message": message.encode(errors="replace").decode()})
    return Answer(status=status, body=body, content_type="application/json")


def _event(
    kind: str,
    position: int,
    body: bytes,
    event: SegmentEvent,
    received_at_ms: int,
    skew: timedelta | None,
) -> Event:
    """Check what this kind of event needs, and make it; ``skew`` is the batch's, if it says when it was sent.

    Raises `BadEvent`.
    """
    user_id, anonymous_id = event.user_id, event.anonymous_id
    if isinstance(user_id, int):
        user_id = str(user_id)
    if isinstance(anonymous_id, int):
        anonymous_id = str(anonymous_id)
    if kind != "track":
        _check_kind(kind, event)
    elif not event.event:
        raise BadEvent("missing_field", "event is missing")
    if not user_id and (not anonymous_id or kind == "alias"):
        needed = "userId" if kind == "alias" else "userId or anonymousId"
        raise BadEvent("missing_field", f"{needed} is needed")
    moment = event.original_timestamp or event.timestamp
    if moment is not None:
        if skew is None and event.sent_at is not None:
            skew = timedelta(milliseconds=received_at_ms - to_ms(event.sent_at))
        if skew is not None:
            moment = shifted(moment, skew)
    identity = user_id if user_id and user_id not in NOBODY else usable_identity(anonymous_id)
    return Event(position, kind, event.message_id or None, identity, moment, body)


def _check_kind(kind: str, event: SegmentEvent) -> None:
    """What the types beside track need. Raises `BadEvent`."""
    if kind not in _SINGLE:
        code = "invalid_field" if kind else "missing_field"
        raise BadEvent(code, f"type is none of {', '.join(_TYPES)}")
    if kind == "group" and event.group_id in (None, ""):
        raise BadEvent("missing_field", "groupId is missing")
    if kind == "alias" and event.previous_id in (None, ""):
        raise BadEvent("missing_field", "previousId is missing")


def _decoded(encoding: Encoding, piece: bytes) -> SegmentEvent | None:
    try:
        return _DECODERS[encoding].event(piece)
    except _REFUSED:
        return None


def _closely(codec: Codec, body: bytes) -> SegmentEvent:
    """Take one event apart by hand: for what the typed decoder refused, rightly or not. Raises `BadEvent`."""
    value = looked_at(codec, body, _MEMBERS)

    def an_object(name: str) -> AnObject | None:
        return None if object_or_none(value, name) is None else AnObject()

    return SegmentEvent(
        type=read_text(value, "type", max_chars=TEXT_MAX_CHARS),
        user_id=read_id(value, "userId", max_chars=TEXT_MAX_CHARS),
        anonymous_id=read_id(value, "anonymousId", max_chars=TEXT_MAX_CHARS),
        group_id=read_id(value, "groupId", max_chars=TEXT_MAX_CHARS),
        previous_id=read_id(value, "previousId", max_chars=TEXT_MAX_CHARS),
        event=read_text(value, "event", max_chars=TEXT_MAX_CHARS, exact=False),
        message_id=read_text(value, "messageId", max_chars=MESSAGE_ID_MAX_CHARS),
        timestamp=read_time(value, "timestamp"),
        original_timestamp=read_time(value, "originalTimestamp"),
        sent_at=read_time(value, "sentAt"),
        properties=an_object("properties"),
        traits=an_object("traits"),
        context=an_object("context"),
        integrations=an_object("integrations"),
    )


def _check_level(codec: Codec, members: dict[str, bytes]) -> int | None:
    """Check what a batch says for all of its events; returns its ``sentAt``. Raises `ClientFault`."""
    given: dict[str, object] = {}
    for name in ("sentAt", "context", "integrations"):
        if name in members:
            given[name] = codec.look(members[name])
    try:
        for name in ("context", "integrations"):
            object_or_none(given, name)
        sent_at = read_time(given, "sentAt")
    except BadEvent as bad:
        raise ClientFault(bad.code, bad.message) from None
    return None if sent_at is None else to_ms(sent_at)


def _write_key_in(codec: Codec, members: dict[str, bytes]) -> str | None:
    raw = members.get("writeKey")
    value = None if raw is None else codec.look(raw)
    if value is not None and not is_text(value):
        raise ClientFault("invalid_field", f"writeKey is {shown(value)}; expected a string")
    return value  # type: ignore[return-value]  # is_text() said so


def _app_of(request: DialectRequest, keys: Keyring, in_body: str | None) -> str:
    """Find the key in its places, first hit wins, and whose it is. Raises `ClientFault`."""
    write_key = request.credential or in_body or _basic(request) or request.query.get("writeKey")
    if not write_key:
        raise ClientFault("invalid_key", "a write key is missing: in the body, by Basic authorization, or in the query")
    app = keys.app_of_write_key(write_key)
    if app is None:
        raise ClientFault("invalid_key", "the write key is not known here")
    return app


def _basic(request: DialectRequest) -> str | None:
    """The write key of ``Authorization: Basic base64(key + ":")``; the colon, and what follows it, may be missing."""
    scheme, _, value = request.headers.get("authorization", "").strip().partition(" ")
    if scheme.lower() != "basic":
        return None
    value = value.strip()
    try:
        text = base64.b64decode(value + "=" * (-len(value) % 4), validate=True).decode()
    except (binascii.Error, ValueError):
        return None
    return text.partition(":")[0]
