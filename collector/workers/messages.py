"""What a worker tells its supervisor, one message a datagram of a socket pair (SOCK_SEQPACKET).

Owns: the forms. Refuses to know: who sends when. The other direction has no messages: its end says that the supervisor
is gone.
"""

from typing import TypeAlias

import msgspec
from msgspec import Struct

__all__ = ["MESSAGE_MAX_BYTES", "Beat", "Message", "Ready", "Stopped", "decode", "encode"]

MESSAGE_MAX_BYTES = 65536


class Ready(Struct, frozen=True, kw_only=True, tag="ready"):
    """It accepts."""

    http: str
    ws: str
    admin: str
    """Of its own admin listener: the supervisor passes on what is asked there."""


class Beat(Struct, frozen=True, kw_only=True, tag="beat"):
    """Its loop turns."""

    ready: bool
    word: str
    """What its own ``/readyz`` says."""
    counts: dict[str, int]
    """What the last line of its log would say now."""


class Stopped(Struct, frozen=True, kw_only=True, tag="stopped"):
    """It has drained."""

    code: int
    counts: dict[str, int]


Message: TypeAlias = Ready | Beat | Stopped

_decoder: msgspec.json.Decoder[Message] = msgspec.json.Decoder(Message)


def encode(message: Message) -> bytes:
    """The message as one datagram."""
    return msgspec.json.encode(message)


def decode(datagram: bytes) -> Message:
    """The message in a datagram. Raises `msgspec.MsgspecError`: a worker of another version."""
    return _decoder.decode(datagram)
