"""The two encodings of a body, JSON and msgpack: strict decoders, and slices that are the client's own bytes.

Owns: what counts as well-formed, and how it is taken apart without being rewritten. Refuses to know: any dialect.

Invariants: a slice is a contiguous part of the input, byte for byte; what is sliced as JSON is JSON by RFC 8259 and
UTF-8, so it may stand in a record as it is; nothing here raises anything but `ClientFault` and, from a typed decoder,
`msgspec.DecodeError`.

Non-obvious (each tried out on msgspec 0.22, and pinned by a test):

- msgspec checks the grammar of what it skips (`msgspec.Raw`, unknown members) as strictly as of what it decodes, with
  one exception: UTF-8. So a body's UTF-8 is checked once as a whole, before (0.01 µs an event).
- It refuses lone surrogates (``"\\ud83d"``), even where it skips. RFC 8259 allows them, and browsers send them whenever
  text is cut in the middle of an emoji. Hence the second, slow way here, with the standard library's scanner; it is
  taken only where the first one failed, gives the same slices, and finds better words for what is wrong.
- Both scanners recurse: they raise RecursionError at a depth that depends on the caller's stack. `deeper_than` bounds
  what is accepted well below that.
- The standard library takes NaN and Infinity unless told, and refuses integers of more than 4300 digits: here number
  literals stay text.
"""

import json
import re
from collections.abc import Callable
from json.decoder import scanstring  # type: ignore[attr-defined]  # public, and left out of typeshed
from typing import Protocol, TypeVar

import msgspec

from .base import ClientFault, Encoding

__all__ = ["JSON", "MSGPACK", "NESTING_MAX", "Codec", "Number", "batch_level", "codec_of", "deeper_than", "has_text"]

T = TypeVar("T")

NESTING_MAX = 128
"""Levels of objects and arrays in one event. Jackson stops at 1000, Python's scanners below that; nobody means 128."""


class Number(str):
    """A JSON number's literal, kept as text by the slow way: 30 digits are as good as three."""

    __slots__ = ()


class Codec(Protocol):
    """One encoding."""

    encoding: Encoding

    def checked(self, body: bytes) -> bytes:
        """Return the body as it is to be decoded. Raises `ClientFault` where its characters are broken."""
        ...

    def members(self, body: bytes) -> dict[str, bytes]:
        """Slice an object: its members by name, the last of several with one name. Raises `ClientFault`.

        The slices may be `msgspec.Raw`: for the other methods of a codec, or for ``bytes()``.
        """
        ...

    def items(self, raw: bytes) -> list[bytes] | None:
        """Slice an array; None where ``raw``, which is well-formed, is something else."""
        ...

    def value(self, raw: bytes) -> object:
        """Decode a slice whole, for a close look: numbers may be `Number`. Raises `ClientFault`."""
        ...

    def as_json(self, raw: bytes) -> bytes:
        """The slice in JSON: itself, or a translation."""
        ...


class _Json:
    encoding: Encoding = "json"

    def __init__(self) -> None:
        self._members = msgspec.json.Decoder(dict[str, msgspec.Raw])
        self._items = msgspec.json.Decoder(list[msgspec.Raw])

    def checked(self, body: bytes) -> bytes:
        if not body.isascii():
            try:
                body.decode()
            except UnicodeDecodeError as error:
                raise ClientFault(
                    "invalid_utf8", f"the body is not UTF-8: {error.reason} at byte {error.start}"
                ) from None
            # RFC 8259 lets a parser ignore a byte order mark.
            return body.removeprefix(b"\xef\xbb\xbf")
        return body

    def members(self, body: bytes) -> dict[str, bytes]:
        try:
            return self._members.decode(body)  # type: ignore[return-value]  # a Raw is used as bytes
        except (msgspec.DecodeError, RecursionError):
            return _scan(_object_slices, body)

    def items(self, raw: bytes) -> list[bytes] | None:
        try:
            return list(map(bytes, self._items.decode(raw)))
        except (msgspec.DecodeError, RecursionError):
            return _scan(_array_slices, raw)

    def value(self, raw: bytes) -> object:
        return _scan(_whole, raw)

    def as_json(self, raw: bytes) -> bytes:
        return bytes(raw)


class _Msgpack:
    encoding: Encoding = "msgpack"

    def __init__(self) -> None:
        self._members = msgspec.msgpack.Decoder(dict[str, msgspec.Raw])
        self._items = msgspec.msgpack.Decoder(list[msgspec.Raw])
        self._value = msgspec.msgpack.Decoder()

    def checked(self, body: bytes) -> bytes:
        return body

    def members(self, body: bytes) -> dict[str, bytes]:
        try:
            return self._members.decode(body)  # type: ignore[return-value]  # a Raw is used as bytes
        except msgspec.ValidationError:
            # Well-formed, but no map, or its keys are no strings.
            raise ClientFault("invalid_body", "the body is not an object") from None
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise _not_msgpack(error) from None

    def items(self, raw: bytes) -> list[bytes] | None:
        try:
            return list(map(bytes, self._items.decode(raw)))
        except msgspec.ValidationError:
            return None
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise _not_msgpack(error) from None

    def value(self, raw: bytes) -> object:
        try:
            return self._value.decode(raw)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError, OverflowError, TypeError) as error:
            raise _not_msgpack(error) from None

    def as_json(self, raw: bytes) -> bytes:
        try:
            # Binary becomes base64, NaN null: the consumer that needs the original has it in `body`.
            return msgspec.json.encode(self.value(raw))
        except (TypeError, ValueError, RecursionError) as error:
            raise ClientFault("invalid_msgpack", f"cannot stand in JSON: {error}") from None


JSON: Codec = _Json()
MSGPACK: Codec = _Msgpack()


def codec_of(encoding: Encoding) -> Codec:
    """Return the codec of that name."""
    return JSON if encoding == "json" else MSGPACK


def batch_level(codec: Codec, members: dict[str, bytes], events: int, max_bytes: int) -> bytes:
    """The JSON of a batch's top level, from the slices of its members without its array and key.

    Raises:
        ClientFault: its copies in the records of ``events`` events would have more than ``max_bytes`` together, or it
            is nested too deep.
    """
    if not members:
        return b"{}"
    level = b"{" + b",".join(_quoted(name) + b":" + codec.as_json(raw) for name, raw in members.items()) + b"}"
    if len(level) * events > max_bytes:
        raise ClientFault(
            "too_large",
            f"the batch's top level has {len(level)} bytes beside its {events} events, and stands in the record of "
            f"each; at most {max_bytes} bytes are allowed for all of them together",
        )
    if deeper_than(level, NESTING_MAX):
        raise ClientFault("too_deep", f"the batch's top level is nested deeper than {NESTING_MAX} levels")
    return level


def has_text(text: str) -> bool:
    """Whether ``text`` can be written as UTF-8: it holds no lone surrogate."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _quoted(name: str) -> bytes:
    return msgspec.json.encode(name) if has_text(name) else json.dumps(name).encode()


def deeper_than(raw: bytes, levels: int) -> bool:
    """Whether a well-formed JSON text nests deeper than ``levels``. Cheap where it plainly cannot."""
    if raw.count(b"{") + raw.count(b"[") <= levels:
        return False
    # Brackets alone, of one kind; each pass takes the innermost level away. A loop over tokens took 150 ms for 1 MB.
    left = _STRING.sub(b"", raw).translate(_ONE_KIND, _NO_BRACKETS)
    for _ in range(levels):
        left = left.replace(b"[]", b"")
        if not left:
            return False
    return True


_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
_ONE_KIND = bytes.maketrans(b"{}", b"[]")
_NO_BRACKETS = bytes(set(range(256)) - set(b"{}[]"))
_SPACE = re.compile(r"[ \t\n\r]*")


def _refuse_constant(name: str) -> object:
    raise ClientFault("invalid_json", f"the body is not JSON: {name} is no JSON value")


_DECODER = json.JSONDecoder(parse_constant=_refuse_constant, parse_float=Number, parse_int=Number)


def _scan(scan: Callable[[str, int], tuple[T, int]], raw: bytes) -> T:
    """Run one of the scanners below over all of ``raw``, and put what goes wrong into words."""
    text = bytes(raw).decode()
    try:
        found, at = scan(text, _skip(text, 0))
        if (at := _skip(text, at)) != len(text):
            raise json.JSONDecodeError("Extra data", text, at)
    except json.JSONDecodeError as error:
        where = f"line {error.lineno} column {error.colno}"
        raise ClientFault("invalid_json", f"the body is not JSON: {error.msg} at {where}") from None
    except RecursionError:
        raise ClientFault("too_deep", f"nested deeper than {NESTING_MAX} levels") from None
    return found


def _skip(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    return at if found is None else found.end()


def _whole(text: str, at: int) -> tuple[object, int]:
    return _DECODER.raw_decode(text, at)


def _object_slices(text: str, at: int) -> tuple[dict[str, bytes], int]:
    found: dict[str, bytes] = {}
    if text[at : at + 1] != "{":
        # Tell broken JSON from JSON of another kind.
        _, end = _DECODER.raw_decode(text, at)
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
        _, at = _DECODER.raw_decode(text, start)
        found[name] = text[start:at].encode()
        at = _skip(text, at)
        match text[at : at + 1]:
            case "}":
                return found, at + 1
            case ",":
                at = _skip(text, at + 1)
            case _:
                raise json.JSONDecodeError("Expecting ',' delimiter", text, at)


def _array_slices(text: str, at: int) -> tuple[list[bytes] | None, int]:
    if text[at : at + 1] != "[":
        _, at = _DECODER.raw_decode(text, at)
        return None, at
    found: list[bytes] = []
    at = _skip(text, at + 1)
    if text[at : at + 1] == "]":
        return found, at + 1
    while True:
        start = at
        _, at = _DECODER.raw_decode(text, start)
        found.append(text[start:at].encode())
        at = _skip(text, at)
        match text[at : at + 1]:
            case "]":
                return found, at + 1
            case ",":
                at = _skip(text, at + 1)
            case _:
                raise json.JSONDecodeError("Expecting ',' delimiter", text, at)


def _not_msgpack(error: Exception) -> ClientFault:
    if isinstance(error, RecursionError):
        return ClientFault("too_deep", f"nested deeper than {NESTING_MAX} levels")
    return ClientFault("invalid_msgpack", f"the body is not msgpack: {error}")
