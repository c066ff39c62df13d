"""The frames of the subprotocol ``collector.v1``.

Owns: how a frame is read and written. Refuses to know: sessions, credit, what a body means.

Invariants: whatever a client sends ends in a `TrackFrame` or a `FrameFault`; a track frame's body is the client's
bytes, unchanged; a fault in a track frame knows its ``id`` wherever that can be read.
"""

from typing import TypeAlias

import msgspec

from collector.dialects.base import ClientFault, Encoding
from collector.dialects.codec import codec_of
from collector.dialects.scan import Number
from collector.web.websocket.front import front_of

__all__ = ["PATH", "SUBPROTOCOL", "FrameFault", "ServerFrame", "TrackFrame", "decode_track", "encode"]

PATH = "/v1/ws"
SUBPROTOCOL = "collector.v1"

#: What a server's frame consists of.
ServerFrame: TypeAlias = dict[str, object]


class FrameFault(Exception):
    """A frame that is no track frame. ``code`` is a stable word; ``id`` is the message's where it is meant as one."""

    def __init__(self, code: str, message: str, id_: int | None = None) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        self.id = id_


class TrackFrame(msgspec.Struct, frozen=True, kw_only=True):
    """``{"op":"track", …}``. ``id`` is checked to be a number here, and to follow its predecessor by the session."""

    op: str
    id: int
    api: str = ""
    key: str | None = None
    body: msgspec.Raw = msgspec.Raw(b"")
    deadline_ms: int | None = None
    again: bool = False


_JSON = msgspec.json.Decoder(TrackFrame)
_MSGPACK = msgspec.msgpack.Decoder(TrackFrame)
_TO_JSON = msgspec.json.Encoder()
_TO_MSGPACK = msgspec.msgpack.Encoder()

#: The members that have to be decoded to understand a frame that the typed decoder refused.
_MEMBERS: dict[str, tuple[type, ...]] = {
    "id": (int,),
    "api": (str,),
    "key": (str, type(None)),
    "deadline_ms": (int, type(None)),
    "again": (bool,),
}


def decode_track(data: bytes, encoding: Encoding) -> TrackFrame:
    """Read one frame of a client's. Raises `FrameFault`.

    The typed decoder takes 1 µs and refuses some bodies that are none of its business (see `collector.dialects.codec`);
    then the frame is taken apart member by member.
    """
    try:
        frame = (_JSON if encoding == "json" else _MSGPACK).decode(data)
    except (msgspec.DecodeError, RecursionError):
        frame = _decode_slowly(data, encoding)
    if frame.op != "track":
        raise FrameFault("unknown_op", f"there is no op {frame.op[:40]!r}; clients send track")
    return frame


def _decode_slowly(data: bytes, encoding: Encoding) -> TrackFrame:
    codec = codec_of(encoding)
    try:
        members = codec.members(codec.checked(data))
        op = codec.look(members["op"]) if "op" in members else None
        if op != "track":
            raise FrameFault("unknown_op", f"there is no op {str(op)[:40]!r}; clients send track")
        if "id" not in members:
            raise FrameFault("invalid_frame", "id is missing")
        values: dict[str, object] = {}
        for name, types in _MEMBERS.items():
            if name in members:
                value = codec.look(members[name])
                if isinstance(value, Number):  # a literal of any length; ours are short
                    value = int(value) if value.isascii() and value.isdecimal() and len(value) < 19 else value
                wrong_kind = isinstance(value, Number) or (isinstance(value, bool) and bool not in types)
                if wrong_kind or not isinstance(value, types):
                    raise FrameFault("invalid_frame", f"{name} has the wrong type", _id_in(values))
                values[name] = value
    except ClientFault as fault:
        # Nested too deep, or broken off: what stands before the body can be read all the same.
        front = front_of(data, encoding)
        id_ = _id_in(front) if front.get("op") == "track" else None
        raise FrameFault("invalid_frame", fault.message, id_) from fault
    return TrackFrame(op="track", body=msgspec.Raw(bytes(members.get("body", b""))), **values)  # type: ignore[arg-type]  # checked


def _id_in(values: dict[str, object]) -> int | None:
    found = values.get("id")
    return found if isinstance(found, int) and not isinstance(found, bool) else None


def encode(frame: ServerFrame, encoding: Encoding) -> bytes:
    """The payload that says ``frame``: of a text frame for JSON, of a binary one for msgpack."""
    return (_TO_JSON if encoding == "json" else _TO_MSGPACK).encode(frame)
