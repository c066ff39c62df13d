"""Heap: `/api/track` and its relatives. The tenant is ``app_id`` in the body; there is no secret.

Owns: Heap's API, and the form of its answers: 200 with ``{}``, everything else in plain text. Refuses to know:
rate limits over time (`collector.dialects.quota`), and how long anything may take.

Invariants: every way through here accepts the same events; the short ones are for what SDKs send. Joining and cutting
of array values is validation, not rewriting: the client's bytes stay as they are.

What Heap leaves open, decided here: an optional member that is null counts as absent; a property value is a
number or a string, or an array of them, and nothing else.
"""

from collections.abc import Mapping, Sequence

from msgspec import UNSET, Raw, UnsetType

from collector.config import LimitsConfig
from collector.times import moment_of

from .base import Answer, ClientFault, DialectRequest, Encoding, Event, Keyring, Parsed, Rejection, Route
from .codec import NESTING_MAX, UNGUARDED_BYTES, Codec, batch_level, codec_of, deeper_than
from .fields import NOBODY, BadEvent, is_text, shown, usable_identity
from .heap_events import DECODERS, PLAIN_MAX_BYTES, REFUSED, HeapEvent, HeapShape, PlainEvent, closely

__all__ = ["Heap"]

# Source: developers.heap.io, server-side API.
BATCH_MAX_EVENTS = 1000
USER_ID_MAX = 2**53 - 1

HEAD_BYTES = 256
"""Where the name of a bulk array is looked for; SDKs put nothing but the app before it."""

TRACK = Route(method="POST", path="/api/track", kind="track")
USERS = Route(method="POST", path="/api/add_user_properties", kind="add_user_properties")
ACCOUNTS = Route(method="POST", path="/api/add_account_properties", kind="add_account_properties")
IDENTIFY = Route(method="POST", path="/api/v1/identify", kind="identify")
LEGACY_IDENTIFY = Route(method="POST", path="/api/identify", kind="legacy_identify")

#: kind -> (name of the bulk array, type in the record).
_KINDS: Mapping[str, tuple[str | None, str]] = {
    "track": ("events", "track"),
    "add_user_properties": ("users", "add_user_properties"),
    "add_account_properties": ("accounts", "add_account_properties"),
    "identify": (None, "identify"),
    "legacy_identify": (None, "identify"),
}

_ARRAY_NAMES = {name: name.encode() for name, _ in _KINDS.values() if name is not None}


class Heap:
    """The dialect; see `Dialect`."""

    name = "heap"
    routes: Sequence[Route] = (TRACK, USERS, ACCOUNTS, IDENTIFY, LEGACY_IDENTIFY)

    def __init__(self, limits: LimitsConfig) -> None:
        self._event_bytes = limits.event_bytes
        self._batch_events = min(limits.batch_events, BATCH_MAX_EVENTS)
        self._batch_copies_bytes = limits.batch_copies_bytes

    def parse(self, route: Route, request: DialectRequest, keys: Keyring) -> Parsed:
        codec = codec_of(request.encoding)
        body = codec.checked(request.body)
        array = _KINDS[route.kind][0]
        # A larger body may be made of more slices than there is memory for: the long way counts first.
        if array is not None and len(body) <= UNGUARDED_BYTES and body.find(_ARRAY_NAMES[array], 0, HEAD_BYTES) >= 0:
            parsed = self._plain_bulk(route, request, codec, body, array, keys)
            if parsed is not None:
                return parsed
        elif len(body) <= min(PLAIN_MAX_BYTES, self._event_bytes):
            try:
                plain = DECODERS[request.encoding].plain_call(body)
            except REFUSED:
                pass
            else:
                if route is TRACK and (usual := _usual(plain, request.received_at_ms, body)) is not None:
                    app = _app_of(request, keys, plain.app_id)
                    return Parsed(api="heap", app=app, events=(usual,), encoding=codec.encoding, single=True)
                return self._single(route, request, codec, body, _app_of(request, keys, plain.app_id), plain)
        try:
            call = DECODERS[request.encoding].call(body)
        except REFUSED:
            # Broken, or only one member is not as it should be: the slices tell.
            if array is None and len(body) > self._event_bytes:
                raise ClientFault("too_large", f"an event has at most {self._event_bytes} bytes") from None
            members = codec.members(body, self._event_bytes)
            app = _app(request, keys, codec, members.get("app_id"))
            if array is None or members.get(array) is None:
                return self._single(route, request, codec, body, app, None)
            return self._bulk(route, request, codec, members, app)
        app = _app_of(request, keys, call.app_id)
        if array is None or getattr(call, array) is UNSET:
            return self._single(route, request, codec, body, app, call)
        return self._bulk(route, request, codec, codec.members(body, self._event_bytes), app)

    def _single(
        self, route: Route, request: DialectRequest, codec: Codec, body: bytes, app: str, event: HeapEvent | None
    ) -> Parsed:
        kind = _KINDS[route.kind][1]
        try:
            made = self._event(route.kind, kind, 0, body, event, codec, request.received_at_ms)
        except BadEvent as bad:
            rejection = Rejection(position=0, code=bad.code, message=bad.message, original=body)
            return Parsed(
                api=self.name, app=app, events=(), rejections=(rejection,), encoding=codec.encoding, single=True
            )
        return Parsed(api=self.name, app=app, events=(made,), encoding=codec.encoding, single=True)

    def _plain_bulk(
        self, route: Route, request: DialectRequest, codec: Codec, body: bytes, array: str, keys: Keyring
    ) -> Parsed | None:
        """The short way for what SDKs send; None sends a body the long way, which judges it."""
        decoders = DECODERS[codec.encoding]
        try:
            bulk = decoders.bulk(body)
            raws: list[Raw] | UnsetType = getattr(bulk, array)
            if raws is UNSET or len(raws) > self._batch_events:
                return None
            slices = list(map(bytes, raws))
            if max(map(len, slices), default=0) > min(PLAIN_MAX_BYTES, self._event_bytes):
                return None
            decoded: Sequence[HeapEvent] = getattr(decoders.plain(body), array)
        except REFUSED:
            return None
        app = _app_of(request, keys, bulk.app_id)
        return self._judged(route.kind, request, codec, app, b"{}", slices, decoded)

    def _bulk(self, route: Route, request: DialectRequest, codec: Codec, members: dict[str, bytes], app: str) -> Parsed:
        array = _KINDS[route.kind][0]
        assert array is not None
        raw = members.pop(array)
        members.pop("app_id", None)
        slices = codec.items(raw, self._batch_events)
        if slices is None:
            raise ClientFault("invalid_field", f"{array} is not an array")
        batch = batch_level(codec, members, len(slices), self._batch_copies_bytes)
        try:
            decoded: Sequence[HeapEvent | None] = DECODERS[codec.encoding].events(raw)
        except REFUSED:
            decoded = [self._decoded(codec.encoding, piece) for piece in slices]
        return self._judged(route.kind, request, codec, app, batch, slices, decoded)

    def _judged(
        self,
        call: str,
        request: DialectRequest,
        codec: Codec,
        app: str,
        batch: bytes,
        slices: Sequence[bytes],
        decoded: Sequence[HeapEvent | None],
    ) -> Parsed:
        """Sort the events of a bulk call into the good and the bad."""
        kind, received_at_ms, make = _KINDS[call][1], request.received_at_ms, self._event
        track, received_at = call == "track", moment_of(received_at_ms)
        events: list[Event] = []
        rejections: list[Rejection] = []
        for position, (piece, event) in enumerate(zip(slices, decoded, strict=True)):
            # What `_event` would find of what SDKs send, without the call.
            if track and isinstance(event, PlainEvent) and event.event and event.user_id is None:
                identity = event.identity
                if identity and identity not in NOBODY:
                    moment = event.timestamp or received_at
                    events.append(Event(position, kind, event.idempotency_key or None, identity, moment, piece))
                    continue
            try:
                events.append(make(call, kind, position, piece, event, codec, received_at_ms))
            except BadEvent as bad:
                rejections.append(Rejection(position=position, code=bad.code, message=bad.message, original=piece))
        return Parsed(
            api=self.name, app=app, events=events, rejections=rejections, batch=batch, encoding=codec.encoding
        )

    @staticmethod
    def _decoded(encoding: Encoding, piece: bytes) -> HeapEvent | None:
        try:
            return DECODERS[encoding].event(piece)
        except REFUSED:
            return None

    def _event(
        self,
        call: str,
        kind: str,
        position: int,
        body: bytes,
        event: HeapEvent | None,
        codec: Codec,
        received_at_ms: int,
    ) -> Event:
        """One event from its bytes; ``event`` is None where the typed decoder refused. Raises `BadEvent`."""
        if not isinstance(event, PlainEvent):
            if len(body) > self._event_bytes:
                raise BadEvent("too_large", f"the event has {len(body)} bytes; at most {self._event_bytes} are allowed")
            if codec.encoding == "json" and deeper_than(body, NESTING_MAX):
                raise BadEvent("too_deep", f"nested deeper than {NESTING_MAX} levels")
        if event is None:
            event = closely(codec, body)
        identity = event.identity
        if call == "track":
            if not event.event:
                raise BadEvent("missing_field", "event is missing")
            if (identity is None) is (event.user_id is None):
                raise BadEvent("missing_field", "exactly one of identity and user_id is needed")
            if identity is None:
                _check_user_id(event.user_id)
                identity = event.user_id
            elif not identity:
                raise BadEvent("missing_field", "identity is empty")
        else:
            identity = _check_other(call, event)
        return Event(
            position=position,
            type=kind,
            id=event.idempotency_key or None,
            identity=usable_identity(identity),
            timestamp=event.timestamp or moment_of(received_at_ms),
            body=body,
        )

    def message_route(self, body: bytes, encoding: Encoding) -> Route:
        codec = codec_of(encoding)
        body = codec.checked(body)
        try:
            shape = DECODERS[encoding].shape(body)
        except REFUSED:
            members = codec.members(body)
            shape = HeapShape(**{name: Raw(members[name]) for name in HeapShape.__struct_fields__ if name in members})
        if shape.events is not UNSET or shape.event is not UNSET:
            return TRACK
        if shape.users is not UNSET:
            return USERS
        if shape.accounts is not UNSET or shape.account_id is not UNSET:
            return ACCOUNTS
        return IDENTIFY if shape.user_id is not UNSET else USERS

    def accepted(self, route: Route) -> Answer:
        return _ACCEPTED

    def refused(self, route: Route | None, fault: ClientFault) -> Answer:
        return Answer(status=400, body=f"{fault.code}: {fault.message}\n".encode(errors="replace"))

    def unavailable(self, route: Route | None, message: str) -> Answer:
        return Answer(status=503, body=f"{message}\n".encode(errors="replace"))


def _usual(event: PlainEvent, received_at_ms: int, body: bytes) -> Event | None:
    """What `Heap._event` would make of what SDKs send to track; None where it has to look."""
    identity = event.identity
    if not event.event or event.user_id is not None or not identity or identity in NOBODY:
        return None
    moment = event.timestamp or moment_of(received_at_ms)
    return Event(0, "track", event.idempotency_key or None, identity, moment, body)


_ACCEPTED = Answer(status=200, body=b"{}", content_type="application/json")


def _app(request: DialectRequest, keys: Keyring, codec: Codec, raw: bytes | None) -> str:
    value = None if raw is None else codec.look(raw)
    if value is not None and not is_text(value):
        raise ClientFault("invalid_field", f"app_id is {shown(value)}; expected a string")
    return _app_of(request, keys, value)  # type: ignore[arg-type]  # is_text() said so


def _app_of(request: DialectRequest, keys: Keyring, app_id: str | None) -> str:
    app_id = request.credential or app_id
    if not app_id:
        raise ClientFault("missing_field", "app_id is missing")
    app = keys.app_of_app_id(app_id)
    if app is None:
        raise ClientFault("invalid_key", "app_id is not known here")
    return app


def _check_user_id(user_id: str | None) -> None:
    # ASCII digits only: str.isdecimal() is true for those of every script.
    if not user_id or not (user_id.isascii() and user_id.isdecimal()):
        raise BadEvent("invalid_field", "user_id is not a decimal number written as a string")
    if int(user_id) > USER_ID_MAX:
        raise BadEvent("invalid_field", f"user_id is above {USER_ID_MAX}")


def _check_other(call: str, event: HeapEvent) -> str:
    """What the calls beside track need; returns what the record's key is made of."""
    if call == "add_account_properties":
        if not event.account_id:
            raise BadEvent("missing_field", "account_id is missing")
        return event.account_id
    if not event.identity:
        raise BadEvent("missing_field", "identity is missing")
    if call == "identify":
        if event.user_id is None:
            raise BadEvent("missing_field", "user_id is missing")
        _check_user_id(event.user_id)
    elif call == "add_user_properties" and event.properties is not None:
        for name in event.properties:
            if name.lower() == "id" or name == "user_id":
                raise BadEvent("invalid_field", f"a property of a user may not be called {name}")
    return event.identity
