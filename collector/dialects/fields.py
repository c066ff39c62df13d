"""Reading the members of one event, in the words of the field's name: the close look where a typed decoder refused.

Owns: what a text, an id, a time and an object may be, and the words for what is wrong. Refuses to know: which members a
dialect has, and bytes.

Invariant: a `BadEvent` is the only thing raised; values come from `Codec.look`, so numbers of JSON are `Number`, and
objects and arrays are empty.
"""

from collections.abc import Iterable, Mapping
from datetime import datetime

from collector.times import parse_iso8601

from .base import ClientFault
from .codec import Codec, has_text
from .scan import Number

__all__ = [
    "NOBODY",
    "BadEvent",
    "is_number",
    "is_text",
    "looked_at",
    "object_or_none",
    "read_id",
    "read_text",
    "read_time",
    "shown",
    "usable_identity",
]

# What clients send when they mean "nobody".
NOBODY = frozenset({"", "null", "undefined", "0", "anonymous"})


class BadEvent(Exception):
    """One event is the client's fault. ``code`` and ``message`` as in `ClientFault`."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message


def looked_at(codec: Codec, body: bytes, names: Iterable[str]) -> dict[str, object]:
    """Look at those members of an event that have one of ``names``. Raises `BadEvent`, also where it is no object."""
    try:
        whole = codec.look(body)
        if not isinstance(whole, dict):
            raise BadEvent("invalid_body", f"the event is {shown(whole)}; expected an object")
        members = codec.members(body)
        return {name: codec.look(members[name]) for name in names if name in members}
    except ClientFault as fault:
        raise BadEvent(fault.code, fault.message) from None


def usable_identity(*candidates: str | None) -> str | None:
    """Return the first that names somebody: a key that all strangers shared would be one hot partition."""
    for candidate in candidates:
        if candidate is not None and candidate not in NOBODY:
            return candidate
    return None


def is_text(value: object) -> bool:
    return isinstance(value, str) and not isinstance(value, Number)


def is_number(value: object) -> bool:
    return isinstance(value, Number) or (isinstance(value, int | float) and not isinstance(value, bool))


def read_text(event: Mapping[str, object], name: str, *, max_chars: int, exact: bool = True) -> str | None:
    """Return a text of at most ``max_chars`` characters, or None where it is absent or null.

    ``exact`` refuses lone surrogates: what becomes a key, an id or a header must be UTF-8.
    """
    value = event.get(name)
    if value is None:
        return None
    if not isinstance(value, str) or isinstance(value, Number):
        raise BadEvent("invalid_field", f"{name} is {shown(value)}; expected a string")
    if len(value) > max_chars:
        raise BadEvent("too_long", f"{name} has {len(value)} characters; at most {max_chars} are allowed")
    if exact and not has_text(value):
        raise BadEvent("invalid_field", f"{name} holds half of a surrogate pair")
    return value


def read_id(event: Mapping[str, object], name: str, *, max_chars: int) -> str | None:
    """Return a text, or a whole number as its digits: SDKs differ in what they make of a numeric user id."""
    value = event.get(name)
    if isinstance(value, Number):
        if not value.removeprefix("-").isdecimal():
            raise BadEvent("invalid_field", f"{name} is a fraction; expected a string")
        value = str(value)
    elif isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    return read_text({name: value}, name, max_chars=max_chars)


def read_time(event: Mapping[str, object], name: str) -> datetime | None:
    """Return a moment, or None where it is absent or null."""
    value = event.get(name)
    if value is None or isinstance(value, datetime):
        return value
    if not isinstance(value, str) or isinstance(value, Number):
        raise BadEvent("invalid_field", f"{name} is {shown(value)}; expected an ISO 8601 time as a string")
    moment = parse_iso8601(value)
    if moment is None:
        raise BadEvent("invalid_field", f"{name} is no ISO 8601 time such as 2026-11-20T08:15:30.000Z")
    return moment


def object_or_none(event: Mapping[str, object], name: str) -> Mapping[str, object] | None:
    """Return an object, or None where it is absent or null."""
    value = event.get(name)
    if value is not None and not isinstance(value, dict):
        raise BadEvent("invalid_field", f"{name} is {shown(value)}; expected an object")
    return value


def shown(value: object) -> str:
    """Name the kind of a value in JSON's words; the value itself is the client's own and not repeated."""
    match value:
        case None:
            return "null"
        case bool():
            return "a boolean"
        case Number() | int() | float():
            return "a number"
        case str():
            return "a string"
        case dict():
            return "an object"
        case list():
            return "an array"
        case _:
            return f"a {type(value).__name__}"
