"""The two encodings of a body, JSON and msgpack: what is well-formed, and slices that are the client's own bytes.

Owns: what counts as well-formed, how it is taken apart without being rewritten, and how little that may cost. Refuses
to know: any dialect.

Invariants: a slice is a contiguous part of the input, byte for byte; what is sliced as JSON is JSON by RFC 8259 and
UTF-8, so it may stand in a record as it is; nothing here raises anything but `ClientFault`; whatever the input, the
work is a small multiple of its bytes, and the memory too (a body of 4 MB must not stop the loop for 300 ms).

Non-obvious (each tried out on msgspec 0.22, and pinned by a test):

- msgspec checks the grammar of what it skips (`msgspec.Raw`, unknown members) as strictly as of what it decodes, with
  one exception: UTF-8. So a body's UTF-8 is checked once as a whole, before (0.01 µs an event).
- It refuses lone surrogates (``"\\ud83d"``), even where it skips. RFC 8259 allows them, and browsers send them whenever
  text is cut in the middle of an emoji; see `collector.dialects.surrogates`.
- Its scanner recurses, and raises RecursionError at a depth that depends on the caller's stack. `deeper_than` bounds
  what is accepted well below that.
- A million elements of two bytes are a million objects of 64: arrays are counted before they are sliced.
"""

import json
import re
from collections.abc import Mapping
from itertools import accumulate
from typing import Protocol

import msgspec

from . import scan
from .base import ClientFault, Encoding
from .scan import Number
from .surrogates import mask_of

__all__ = ["JSON", "MSGPACK", "NESTING_MAX", "Codec", "batch_level", "codec_of", "deeper_than", "has_text"]

NESTING_MAX = 128
"""Levels of objects and arrays in one event. Jackson stops at 1000, Python's scanners below that; nobody means 128."""

UNGUARDED_BYTES = 512 * 1024
"""A body of this size may be sliced without counting first: at most 256 k slices, 25 MB for some milliseconds."""

MEMBERS_MAX = 10_000
"""Of one msgpack map; JSON is bounded by its bytes."""

WORDS_MAX_BYTES = 64 * 1024
"""Of broken JSON up to this size the line and column are found, by the slower scanner of the standard library."""


class Codec(Protocol):
    """One encoding. Slices may be `msgspec.Raw`: for the methods of a codec, or for ``bytes()``."""

    encoding: Encoding

    def checked(self, body: bytes) -> bytes:
        """Return the body as it is to be decoded. Raises `ClientFault` where its characters are broken."""
        ...

    def members(self, body: bytes, beside: int | None = None) -> dict[str, bytes]:
        """Slice an object: its members by name, the last of several with one name.

        Args:
            body: a text, checked.
            beside: how many bytes there may be beside an array of events, if it is large.

        Raises:
            ClientFault: it is broken, no object, or too large.
        """
        ...

    def items(self, raw: bytes, at_most: int) -> list[bytes] | None:
        """Slice an array; None where ``raw``, which is well-formed, is something else.

        Raises:
            ClientFault: there are more than ``at_most``.
        """
        ...

    def look(self, raw: bytes) -> object:
        """Decode a well-formed slice as far as it costs nothing: an object or array as an empty one.

        Numbers of JSON are `Number`: 30 digits are as good as three.
        """
        ...

    def looks(self, raw: bytes, first: int) -> list[object]:
        """Look at the ``first`` items of a well-formed array."""
        ...

    def as_json(self, raw: bytes) -> bytes:
        """The slice in JSON: itself, or a translation."""
        ...


class _Arrays(msgspec.Struct, gc=False):
    """The arrays of events of all dialects."""

    batch: msgspec.Raw = msgspec.Raw()
    events: msgspec.Raw = msgspec.Raw()
    users: msgspec.Raw = msgspec.Raw()
    accounts: msgspec.Raw = msgspec.Raw()


class _AnObject(msgspec.Struct, gc=False):
    pass


# By the first byte; one value each, so that looking costs nothing. Nobody changes them.
_KINDS: Mapping[bytes, tuple[object]] = {b"{": ({},), b"[": ([],), b"t": (True,), b"f": (False,), b"n": (None,)}


class _Json:
    encoding: Encoding = "json"

    def __init__(self) -> None:
        self._arrays = msgspec.json.Decoder(_Arrays)
        self._members = msgspec.json.Decoder(dict[str, msgspec.Raw])
        self._items = msgspec.json.Decoder(list[msgspec.Raw])
        self._objects = msgspec.json.Decoder(list[_AnObject])
        self._text = msgspec.json.Decoder(str)
        self._scalars = msgspec.json.Decoder(list[float | str])

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

    def members(self, body: bytes, beside: int | None = None) -> dict[str, bytes]:
        mask = None
        try:
            try:
                slices = self._sliced(body, beside)
            except msgspec.DecodeError:
                mask = mask_of(bytes(body))
                if mask is None:
                    raise
                slices = self._sliced(mask.text, beside)
        except RecursionError:
            raise _too_deep() from None
        except msgspec.DecodeError as error:
            if len(body) <= WORDS_MAX_BYTES:
                return scan.members(bytes(body))
            raise _not_json(error) from None
        if mask is None:
            return slices
        if any(map(mask.touches, slices)):
            return scan.members(bytes(body))
        return {name: mask.undone(bytes(raw)) for name, raw in slices.items()}

    def _sliced(self, body: bytes, beside: int | None) -> dict[str, bytes]:
        if beside is not None and len(body) > UNGUARDED_BYTES:
            arrays = self._arrays.decode(body)
            rest = len(body) - sum(map(len, (arrays.batch, arrays.events, arrays.users, arrays.accounts)))
            if rest > beside:
                raise ClientFault("too_large", f"{rest} bytes beside the array of events; at most {beside} are allowed")
        return self._members.decode(body)  # type: ignore[return-value]  # a Raw is used as bytes

    def items(self, raw: bytes, at_most: int) -> list[bytes] | None:
        text, mask = bytes(raw), None
        if text[:1] != b"[":
            return None
        try:
            try:
                slices = self._counted(text, at_most)
            except msgspec.DecodeError:
                mask = mask_of(text)
                if mask is None:
                    raise
                slices = self._counted(mask.text, at_most)
        except RecursionError:
            raise _too_deep() from None
        except msgspec.DecodeError as error:
            if len(text) > WORDS_MAX_BYTES:
                raise _not_json(error) from None
            slices, mask = scan.items(text, at_most + 1), None
        if len(slices) > at_most:
            raise _too_many(at_most)
        pieces = list(map(bytes, slices))
        return pieces if mask is None else list(map(mask.undone, pieces))

    def _counted(self, text: bytes, at_most: int) -> list[bytes]:
        if len(text) > UNGUARDED_BYTES and text.count(b",") > 64 * at_most:
            try:
                number = len(self._objects.decode(text))
            except msgspec.ValidationError:
                # Nobody sends half a megabyte of this; what it holds cannot be counted for little.
                raise ClientFault("invalid_field", "the array holds something that is no event") from None
            if number > at_most:
                raise _too_many(at_most)
        return self._items.decode(text)  # type: ignore[return-value]  # a Raw is used as bytes

    def look(self, raw: bytes) -> object:
        text = bytes(raw).strip(b" \t\n\r")
        kind = text[:1]
        if kind == b'"':
            try:
                return self._text.decode(text)
            except msgspec.DecodeError:
                return json.loads(text)
        found = _KINDS.get(kind)
        return Number(text.decode()) if found is None else found[0]

    def looks(self, raw: bytes, first: int) -> list[object]:
        text = bytes(raw)
        try:
            return list(self._scalars.decode(text)[:first])
        except (msgspec.DecodeError, RecursionError):
            return [self.look(piece) for piece in scan.items(text, first)]

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

    def members(self, body: bytes, beside: int | None = None) -> dict[str, bytes]:
        if _msgpack_count(body) > MEMBERS_MAX:
            raise ClientFault("too_large", f"more than {MEMBERS_MAX} members")
        try:
            return self._members.decode(body)  # type: ignore[return-value]  # a Raw is used as bytes
        except msgspec.ValidationError:
            # Well-formed, but no map, or its keys are no strings.
            raise ClientFault("invalid_body", "the body is not an object") from None
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise _not_msgpack(error) from None

    def items(self, raw: bytes, at_most: int) -> list[bytes] | None:
        try:
            if not isinstance(self.look(raw), list):
                return None
            if _msgpack_count(raw) > at_most:
                raise _too_many(at_most)
            return list(map(bytes, self._items.decode(raw)))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise _not_msgpack(error) from None

    def look(self, raw: bytes) -> object:
        kind = bytes(raw[:1]) if isinstance(raw, bytes) else bytes(raw)[:1]
        if b"\x80" <= kind <= b"\x8f" or kind in (b"\xde", b"\xdf"):
            return {}
        if b"\x90" <= kind <= b"\x9f" or kind in (b"\xdc", b"\xdd"):
            return []
        return self._whole(raw)

    def looks(self, raw: bytes, first: int) -> list[object]:
        found = self._whole(raw)
        return found[:first] if isinstance(found, list) else []

    def as_json(self, raw: bytes) -> bytes:
        try:
            # Binary becomes base64, NaN null: the consumer that needs the original has it in `body`.
            return msgspec.json.encode(self._whole(raw))
        except (TypeError, ValueError, RecursionError) as error:
            raise ClientFault("invalid_msgpack", f"cannot stand in JSON: {error}") from None

    def _whole(self, raw: bytes) -> object:
        try:
            return self._value.decode(raw)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError, OverflowError, TypeError) as error:
            raise _not_msgpack(error) from None


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


def deeper_than(raw: bytes, levels: int) -> bool:
    """Whether a well-formed JSON text nests deeper than ``levels``. Cheap where it plainly cannot."""
    if raw.count(b"{") + raw.count(b"[") <= levels:
        return False
    # Brackets alone, of one kind, eight to a word: 9 ns a bracket where a loop over them takes 150. Between the ends of
    # two words the depth is at most four higher than at the higher one.
    brackets = _STRING.sub(b"", raw).translate(_ONE_KIND, _NO_BRACKETS)
    whole = len(brackets) // 8 * 8
    depths = list(accumulate(map(_RISE_OF_WORD.__getitem__, memoryview(brackets)[:whole].cast("Q")), initial=0))
    if max(depths) > levels:
        return True
    if max(depths) + 8 <= levels:
        return False
    return max(accumulate(map(_RISE.__getitem__, brackets)), default=0) > levels


_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
_ONE_KIND = bytes.maketrans(b"{}", b"[]")
_NO_BRACKETS = bytes(set(range(256)) - set(b"{}[]"))
_RISE = {ord("["): 1, ord("]"): -1}


def _rises_of_words() -> dict[int, int]:
    words = (bytes(b"[]"[number >> bit & 1] for bit in range(8)) for number in range(256))
    return {memoryview(word).cast("Q")[0]: word.count(b"[") - word.count(b"]") for word in words}


_RISE_OF_WORD = _rises_of_words()


def _quoted(name: str) -> bytes:
    return msgspec.json.encode(name) if has_text(name) else json.dumps(name).encode()


def _msgpack_count(raw: bytes) -> int:
    """What the head of a map or array claims to hold; 0 for anything else. Source: the msgpack specification."""
    head = bytes(memoryview(raw)[:5])
    if not head:
        return 0
    if 0x80 <= head[0] <= 0x9F:
        return head[0] & 0x0F
    if head[0] in (0xDC, 0xDE):
        return int.from_bytes(head[1:3])
    if head[0] in (0xDD, 0xDF):
        return int.from_bytes(head[1:5])
    return 0


def _too_many(number: int) -> ClientFault:
    return ClientFault("too_many", f"more than {number} events in one request")


def _too_deep() -> ClientFault:
    return ClientFault("too_deep", f"nested deeper than {NESTING_MAX} levels")


def _not_json(error: Exception) -> ClientFault:
    if isinstance(error, msgspec.ValidationError):
        return ClientFault("invalid_body", "the body is not an object")
    return ClientFault("invalid_json", f"the body is not JSON: {error}")


def _not_msgpack(error: Exception) -> ClientFault:
    if isinstance(error, RecursionError):
        return _too_deep()
    return ClientFault("invalid_msgpack", f"the body is not msgpack: {error}")
