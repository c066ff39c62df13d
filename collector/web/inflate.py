"""Content codings of request bodies, undone in steps of bounded size.

Owns: zlib's state for one body. Refuses to know: where the bytes come from, how many are allowed.

Invariant: one `feed` step never yields more than `STEP_BYTES`, however small its input: a bomb costs one step, then the
caller's bound stops it.

Source: RFC 9110 section 8.4.1. "deflate" means the zlib format there, and raw deflate in several clients: both are
taken.
"""

import zlib
from collections.abc import Iterator

from collector.dialects.base import ClientFault

__all__ = ["GZIP_MAGIC", "STEP_BYTES", "Inflater", "inflater_for"]

STEP_BYTES = 64 * 1024
GZIP_MAGIC = b"\x1f\x8b"

#: gzip allows one file to be many members; each costs a decompressor. Clients send one.
MAX_MEMBERS = 16

_GZIP, _ZLIB, _RAW = 31, 15, -15


class Inflater:
    """Undoes ``gzip`` or ``deflate`` for one body."""

    def __init__(self, coding: str) -> None:
        self._coding = coding
        self._head = b""
        self._members = 0
        self._object: zlib._Decompress | None = None

    def __repr__(self) -> str:
        return f"<Inflater {self._coding}, {self._members} members>"

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield what ``data`` inflates to, in pieces of at most `STEP_BYTES`. Raises `ClientFault` for broken data."""
        if self._object is None and not self._members:
            # The first two bytes tell the zlib format from raw deflate (RFC 1950: CMF and FLG, divisible by 31).
            data = self._head + data
            if len(data) < 2:
                self._head = data
                return
        view = memoryview(data)
        for start in range(0, len(view), STEP_BYTES):
            yield from self._feed_step(bytes(view[start : start + STEP_BYTES]))

    def _feed_step(self, data: bytes) -> Iterator[bytes]:
        while data:
            if self._object is None:
                self._object = self._new_member(data)
            try:
                piece = self._object.decompress(data, STEP_BYTES)
            except zlib.error as error:
                raise ClientFault("invalid_encoding", f"the body is not valid {self._coding}: {error}") from error
            if piece:
                yield piece
            if self._object.eof:
                data = self._object.unused_data
                self._object = None
            else:
                data = self._object.unconsumed_tail

    def _new_member(self, data: bytes) -> "zlib._Decompress":
        self._members += 1
        if self._coding == "gzip":
            if self._members > MAX_MEMBERS:
                raise ClientFault("invalid_encoding", f"the body has more than {MAX_MEMBERS} gzip members")
            return zlib.decompressobj(_GZIP)
        if self._members > 1:
            raise ClientFault("invalid_encoding", "there is something after the end of the deflate data")
        zlib_format = data[0] & 0x0F == 8 and (data[0] << 8 | data[1]) % 31 == 0
        return zlib.decompressobj(_ZLIB if zlib_format else _RAW)

    def finish(self) -> None:
        """The body is complete. Raises `ClientFault` when the data is not."""
        if self._object is not None or not self._members:
            raise ClientFault("invalid_encoding", f"the {self._coding} data ends too early")


def inflater_for(content_encoding: str) -> Inflater | None:
    """The inflater for a ``Content-Encoding`` header, None for none. Raises `ClientFault` for an unknown one."""
    codings = [
        coding for part in content_encoding.split(",") if (coding := part.strip().lower()) not in ("", "identity")
    ]
    if not codings:
        return None
    if len(codings) > 1 or codings[0] not in ("gzip", "x-gzip", "deflate"):
        raise ClientFault(
            "unsupported_encoding", f"Content-Encoding {content_encoding!r}: gzip and deflate are understood"
        )
    return Inflater("deflate" if codings[0] == "deflate" else "gzip")
