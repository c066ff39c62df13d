"""The lines of a head, read one after the other and strictly: what is wrong with them first, and what they say.

Owns: the syntax of request lines and header fields (RFC 9112 sections 2 to 5, RFC 9110 section 5), and the limits on
them. Refuses to know: what a field means, where a message ends, llhttp.

Invariant: what is refused, and with which status, is decided by the first offending byte alone; so it is the same
however the bytes were cut into reads. A limit is passed by the byte behind it, whatever that byte is.

This is the reading that refuses: the parser has a quicker one for heads that are in order, and comes here with an
incomplete head, and with one that the quick reading did not want.
"""

import re

from collector.config import LimitsConfig
from collector.web.lane.request import Refusal

__all__ = ["MAX_LINE_QUOTED", "HeadScan", "read_request_line"]

MAX_LINE_QUOTED = 60
"""Bytes of a client's line that are repeated to its developer."""

_BAD_BYTE = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
"""No control character but HTAB stands in a head (RFC 9110, 5.5); CR and LF only as the CRLF that ends a line."""

_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_METHOD = re.compile(_TOKEN)
_REQUEST_LINE = re.compile(rb"(" + _TOKEN + rb") ([\x21-\x7e]+) (HTTP/[0-9]\.[0-9])")
_FIELD = re.compile(rb"(" + _TOKEN + rb"):([\t\x20-\x7e\x80-\xff]*)")


def read_request_line(line: bytes) -> tuple[str, bytes, str]:
    """Method, target and version (``1.0`` or ``1.1``) of a request line without its CRLF.

    The target may have any printable ASCII character: RFC 3986 allows fewer, but clients send ``|`` and ``{`` and none
    of them says where a request ends.

    Raises:
        Refusal: 400, or 505 for another version of HTTP. Source: RFC 9112, 3; white space is not made up for.
    """
    match = _REQUEST_LINE.fullmatch(line)
    if match is None:
        raise Refusal(400, f"no request line (RFC 9112, 3): {line[:MAX_LINE_QUOTED]!r}")
    method, target, version = match.groups()
    if version not in (b"HTTP/1.1", b"HTTP/1.0"):
        raise Refusal(505, f"this server speaks HTTP/1.1 and 1.0, not {version.decode()}")
    return method.decode(), target, version[5:].decode()


class HeadScan:
    """Reads one head (or, ``trailers=True``, one trailer section) as it grows.

    Args:
        limits: ``request_line_bytes``, ``head_bytes`` and ``head_fields``.
        trailers: there is no request line.
    """

    __slots__ = ("_at", "_checked", "_limits", "_line", "fields", "request_line")

    def __init__(self, limits: LimitsConfig, *, trailers: bool = False) -> None:
        self._limits = limits
        self._at = 0
        """Where the first line begins that was not read yet."""
        self._checked = 0
        """Up to where no bad byte stands: a line that comes byte by byte is not looked through from its start again."""
        self._line = 1 if trailers else 0
        """Its number; the request line is 0."""
        self.request_line: tuple[str, bytes, str] = ("", b"", "1.1")
        self.fields: list[tuple[bytes, bytes]] = []

    def advance(self, head: bytes) -> int:
        """Read on in ``head``: everything that came so far, from the first byte of the head on.

        Returns where the head ends, behind its empty line; 0 while that has not come.

        Raises:
            Refusal: 400, 414, 431 or 505.
        """
        while True:
            end = head.find(b"\r\n", max(self._at, self._checked))
            complete = end >= 0
            if not complete:
                # A CR at the very end may yet become a CRLF.
                end = len(head) - 1 if head.endswith(b"\r", self._at) else len(head)
            self._check_bytes(head, end, complete=complete)
            if not complete:
                return 0
            line = head[self._at : end]
            self._at = end + 2
            if self._line == 0:
                self.request_line = read_request_line(line)
            elif not line:
                return self._at
            else:
                self.fields.append(_read_field(line))
            self._line += 1

    def _check_bytes(self, head: bytes, end: int, *, complete: bool) -> None:
        """Whether this line, as far as it has come, has bytes that no line may have, or too many."""
        limits, at = self._limits, self._at
        if self._line == 0:
            last = at + limits.request_line_bytes
        else:
            last = limits.head_bytes
            if end > at and len(self.fields) >= limits.head_fields:
                raise Refusal(431, f"more than {limits.head_fields} header fields")
        bad = _BAD_BYTE.search(head, max(at, self._checked), min(end, last))
        self._checked = end
        if bad is not None:
            byte = bad.group()
            what = {b"\n": "a bare LF", b"\r": "a bare CR"}.get(byte, f"the control character {byte!r}")
            raise Refusal(400, f"{what} in the head (RFC 9112, 2.2)")
        if self._line == 0:
            if end > last:
                raise Refusal(414, f"the request line is longer than {limits.request_line_bytes} bytes")
            last = limits.head_bytes
        if (end + 2 if complete else len(head)) > last:
            raise Refusal(431, f"the head is longer than {limits.head_bytes} bytes")


def _read_field(line: bytes) -> tuple[bytes, bytes]:
    """Name, lower-cased, and value, stripped, of one field line. Raises `Refusal` (400)."""
    match = _FIELD.fullmatch(line)
    if match is None:
        quoted = f"{line[:MAX_LINE_QUOTED]!r}"
        if line[:1] in b" \t":
            raise Refusal(400, f"a folded header field (RFC 9112, 5.2): {quoted}")
        name, colon, _ = line.partition(b":")
        if colon and name[-1:] in (b" ", b"\t"):
            raise Refusal(400, f"white space before the colon (RFC 9112, 5.1): {quoted}")
        raise Refusal(400, f"no header field (RFC 9110, 5.1): {quoted}")
    name, value = match.groups()
    return name.lower(), value.strip(b" \t")
