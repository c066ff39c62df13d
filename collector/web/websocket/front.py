"""The front of a websocket frame that cannot be read as a whole: its body is nested too deep, or it breaks off.

Owns: reading the short scalars before the first value that is none. Refuses to know: what they mean.

Invariant: it never raises, and does a bounded amount of work whatever follows the front.
"""

import re

import msgspec

from collector.dialects.base import Encoding

__all__ = ["front_of"]

MEMBERS_MAX = 16

_OPENED = re.compile(rb"[ \t\n\r]*\{")
_MEMBER = re.compile(
    rb'[ \t\n\r]*("(?:[^"\\]|\\.){0,99}")[ \t\n\r]*:[ \t\n\r]*'
    rb'("(?:[^"\\]|\\.){0,999}"|[0-9.eE+-]{1,30}|true|false|null)[ \t\n\r]*[,}]'
)

# Bytes of a msgpack scalar by its first byte. Source: the msgpack specification, "Formats".
_SIZES = {0xC0: 1, 0xC2: 1, 0xC3: 1, 0xCA: 5, 0xCB: 9, 0xCC: 2, 0xCD: 3, 0xCE: 5, 0xCF: 9}
_SIZES |= {0xD0: 2, 0xD1: 3, 0xD2: 5, 0xD3: 9}


def front_of(data: bytes, encoding: Encoding) -> dict[str, object]:
    """The members at the front of an object as long as they are short scalars; empty where it is no object."""
    found: dict[str, object] = {}
    try:
        if encoding == "json":
            _read_json(data, found)
        else:
            _read_msgpack(data, found)
    except (msgspec.DecodeError, UnicodeDecodeError, IndexError):
        pass  # here the front ends
    return found


def _read_json(data: bytes, found: dict[str, object]) -> None:
    part = _OPENED.match(data)
    for _ in range(MEMBERS_MAX):
        if part is None or (part := _MEMBER.match(data, part.end())) is None:
            return
        found[msgspec.json.decode(part[1], type=str)] = msgspec.json.decode(part[2])


def _read_msgpack(data: bytes, found: dict[str, object]) -> None:
    if data[0] == 0xDE:
        at = 3
    elif data[0] & 0xF0 == 0x80:
        at = 1
    else:
        return
    for _ in range(MEMBERS_MAX):
        middle = at + _size_of(data, at)
        end = middle + _size_of(data, middle)
        name = msgspec.msgpack.decode(data[at:middle], type=str)
        found[name] = msgspec.msgpack.decode(data[middle:end])
        at = end


def _size_of(data: bytes, at: int) -> int:
    """How many bytes the scalar at ``at`` has. Raises IndexError where there is none, or a long one."""
    kind = data[at]
    if kind < 0x80 or kind >= 0xE0:
        return 1
    if kind & 0xE0 == 0xA0:
        return 1 + (kind & 0x1F)
    if kind == 0xD9:
        return 2 + data[at + 1]
    if kind not in _SIZES:
        raise IndexError("no short scalar")
    return _SIZES[kind]
