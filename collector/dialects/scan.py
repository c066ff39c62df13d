"""A second scanner of JSON, on the standard library's: slower, but it finds the words for what is wrong.

Owns: slicing an object or an array at its top level; line and column of an error. Refuses to know: when it is needed
(`collector.dialects.codec` does).

Invariants: what it takes is JSON by RFC 8259; a slice is a part of the text; only `ClientFault` is raised.

Non-obvious: the standard library takes NaN and Infinity unless told, and refuses integers of more than 4300 digits.
"""

import json
import re
from collections.abc import Callable
from json.decoder import scanstring  # type: ignore[attr-defined]  # public, and left out of typeshed
from typing import TypeVar

from .base import ClientFault

__all__ = ["Number", "items", "members"]

T = TypeVar("T")


class Number(str):
    """A JSON number's literal, kept as text."""

    __slots__ = ()


def members(body: bytes) -> dict[str, bytes]:
    """Slice an object. Raises `ClientFault` with the place where it is broken, or where it is no object."""
    return _scan(_object_slices, body)


def items(raw: bytes, at_most: int) -> list[bytes]:
    """Slice the first ``at_most`` items of an array that is known to be well-formed."""

    def slices(text: str, at: int) -> tuple[list[bytes], int]:
        return _array_slices(text, at, at_most)

    return _scan(slices, raw)


_SPACE = re.compile(r"[ \t\n\r]*")


def _refuse_constant(name: str) -> object:
    raise ClientFault("invalid_json", f"the body is not JSON: {name} is no JSON value")


# The values are thrown away: what counts is where they end.
_DECODER = json.JSONDecoder(parse_constant=_refuse_constant)
_PATIENT = json.JSONDecoder(parse_constant=_refuse_constant, parse_int=len)


def _end_of(text: str, at: int) -> int:
    """Where the value that begins at ``at`` ends."""
    try:
        return _DECODER.raw_decode(text, at)[1]
    except json.JSONDecodeError:
        raise
    except ValueError:
        # Some thousand digits.
        return _PATIENT.raw_decode(text, at)[1]


def _scan(scan: Callable[[str, int], tuple[T, int]], raw: bytes) -> T:
    """Run one of the scanners below over all of ``raw``, and put what goes wrong into words."""
    text = raw.decode()
    try:
        found, at = scan(text, _skip(text, 0))
        if (at := _skip(text, at)) != len(text):
            raise json.JSONDecodeError("Extra data", text, at)
    except json.JSONDecodeError as error:
        where = f"line {error.lineno} column {error.colno}"
        raise ClientFault("invalid_json", f"the body is not JSON: {error.msg} at {where}") from None
    except RecursionError:
        raise ClientFault("too_deep", "nested deeper than any event may be") from None
    return found


def _skip(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    return at if found is None else found.end()


def _object_slices(text: str, at: int) -> tuple[dict[str, bytes], int]:
    found: dict[str, bytes] = {}
    if text[at : at + 1] != "{":
        # Tell broken JSON from JSON of another kind.
        end = _end_of(text, at)
        if _skip(text, end) == len(text):
            raise ClientFault("invalid_body", "the body is not an object")
        raise json.JSONDecodeError("Extra data", text, end)
    at = _skip(text, at + 1)
    if text[at : at + 1] == "}":
        return found, at + 1
    while True:
        if text[at : at + 1] != '"':
            raise json.JSONDecodeError("Expecting property name enclosed in double quotes", text, at)
        name, at = scanstring(text, at + 1, True)
        at = _skip(text, at)
        if text[at : at + 1] != ":":
            raise json.JSONDecodeError("Expecting ':' delimiter", text, at)
        start = _skip(text, at + 1)
        at = _end_of(text, start)
        found[name] = text[start:at].encode()
        at = _skip(text, at)
        match text[at : at + 1]:
            case "}":
                return found, at + 1
            case ",":
                at = _skip(text, at + 1)
            case _:
                raise json.JSONDecodeError("Expecting ',' delimiter", text, at)


def _array_slices(text: str, at: int, at_most: int) -> tuple[list[bytes], int]:
    found: list[bytes] = []
    at = _skip(text, at + 1)
    if text[at : at + 1] == "]":
        return found, at + 1
    while len(found) < at_most:
        start = at
        at = _end_of(text, start)
        found.append(text[start:at].encode())
        at = _skip(text, at)
        if text[at : at + 1] == "]":
            return found, at + 1
        at = _skip(text, at + 1)
    return found, len(text)
