"""What a head's fields say about the message: where it ends, whether the connection goes on, and to what.

Owns: the reading of Content-Length, Transfer-Encoding, Host, Connection, Expect and Upgrade, and of the form of the
target (RFC 9112 sections 3.2, 6 and 9; RFC 9110 sections 7.2, 7.8 and 10.1.1). Refuses to know: bytes on a connection,
llhttp, what answers are made of.

Invariant: a head that two recipients may read differently as to where its message ends is refused, also where the RFC
offers a repair: whoever sent it is wrong or means harm, and neither is served by a guess.
"""

import re
from collections.abc import Mapping
from typing import Final

from collector.web.lane.request import Refusal, Request

__all__ = ["check_target", "frame", "refuse_repeated"]

MAX_LENGTH_DIGITS = 18
"""Of Content-Length, leading zeros too: what every recipient's 64-bit number holds."""

_SINGLE: Final = (b"host", b"content-length", b"transfer-encoding")
"""Fields of which a second one, even an equal one, is refused."""

# RFC 3986, 3.2.2 and 3.2.3 without user information, which RFC 9110, 4.2.4 wants refused.
_HOST = re.compile(rb"(?:\[[0-9A-Fa-f:.]+\]|(?:[A-Za-z0-9\-._~!$&'()*+,;=]|%[0-9A-Fa-f]{2})*)(?::[0-9]*)?")
_ABSOLUTE = re.compile(rb"https?://([^/?#]+)(?:[/?#].*)?", re.IGNORECASE)
_CODINGS = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+(?:[ \t]*,[ \t]*[!#$%&'*+\-.^_`|~0-9A-Za-z]+)*")

_MAX_REMEMBERED = 1024
_good_hosts: set[bytes] = set()
"""Host fields that were found in order; a process has few."""


def check_target(method: str, target: bytes) -> None:
    """Raise `Refusal` where the target's form does not go with the method (RFC 9112, 3.2): 400; 501 for CONNECT.

    Behind a CONNECT the bytes are somebody else's (RFC 9110, 9.3.6): nobody may look for a request in them.
    """
    if method == "CONNECT":
        raise Refusal(501, "this server makes no tunnels: CONNECT is not implemented")
    if target.startswith(b"/"):
        return
    if target == b"*":
        if method != "OPTIONS":
            raise Refusal(400, "the target * is for OPTIONS alone (RFC 9112, 3.2.4)")
        return
    absolute = _ABSOLUTE.fullmatch(target)
    if absolute is None or absolute[1].startswith(b":") or not _HOST.fullmatch(absolute[1]):
        raise Refusal(400, "the target is neither a path nor an http URI (RFC 9112, 3.2)")


def refuse_repeated(fields: list[tuple[bytes, bytes]]) -> None:
    """Raise `Refusal` (400) where a field that says whose message this is, or where it ends, came twice."""
    names = [name for name, _ in fields]
    for name in _SINGLE:
        if names.count(name) > 1:
            raise Refusal(400, f"more than one {name.decode()} field (RFC 9112, 3.2 and 6.3)")


def frame(request: Request, fields: Mapping[bytes, bytes]) -> None:
    """Fill in what ``fields`` say: repeated ones joined by a comma, `refuse_repeated` asked before.

    Raises:
        Refusal: 400, or 501 for a transfer coding that is none of ours.
    """
    host = fields.get(b"host")
    if host is None:
        if request.http_version == "1.1":
            raise Refusal(400, "HTTP/1.1 without a Host field (RFC 9112, 3.2)")
    elif host not in _good_hosts:
        _check_host(host)
    coding = fields.get(b"transfer-encoding")
    length = fields.get(b"content-length")
    if coding is not None:
        _take_coding(request, coding, length)
    elif length is not None:
        if not length.isdigit() or len(length) > MAX_LENGTH_DIGITS:
            raise Refusal(400, "Content-Length is not one number (RFC 9112, 6.3)")
        request.content_length = int(length)
    connection = fields.get(b"connection")
    if connection is not None:
        _take_connection(request, connection, fields)
    elif request.http_version == "1.0":
        request.keep_alive = False
    if b"expect" in fields and request.http_version == "1.1":
        request.expect_continue = fields[b"expect"].lower() == b"100-continue"


def _check_host(host: bytes) -> None:
    if not _HOST.fullmatch(host):
        raise Refusal(400, "the Host field is no host (RFC 9110, 7.2)")
    if len(_good_hosts) < _MAX_REMEMBERED and len(host) <= 255:
        _good_hosts.add(host)


def _take_coding(request: Request, coding: bytes, length: bytes | None) -> None:
    if length is not None:
        raise Refusal(400, "Content-Length beside Transfer-Encoding (RFC 9112, 6.3)")
    if request.http_version == "1.0":
        raise Refusal(400, "Transfer-Encoding in HTTP/1.0 (RFC 9112, 6.1)")
    if coding.lower() != b"chunked":
        codings = [name.strip(b" \t").lower() for name in coding.split(b",")]
        if _CODINGS.fullmatch(coding) and codings[-1] == b"chunked" and codings.count(b"chunked") == 1:
            raise Refusal(501, "no transfer coding but chunked is known here (RFC 9112, 6.1)")
        raise Refusal(400, "Transfer-Encoding does not end in chunked (RFC 9112, 6.3)")
    request.chunked = True


def _take_connection(request: Request, connection: bytes, fields: Mapping[bytes, bytes]) -> None:
    options = [option.strip(b" \t") for option in connection.lower().split(b",")]
    if request.http_version == "1.0":
        request.keep_alive = b"keep-alive" in options and b"close" not in options
        return
    request.keep_alive = b"close" not in options
    # With a body it is HTTP/1 to its end: what follows the head is not the new protocol's yet (RFC 9110, 7.8).
    bare = request.method == "GET" and not request.chunked and not request.content_length
    if bare and b"upgrade" in options and b"upgrade" in fields:
        protocols = [name.strip(b" \t") for name in fields[b"upgrade"].lower().split(b",")]
        if b"websocket" in protocols:
            request.upgrade = "websocket"
        elif b"h2c" in protocols and b"http2-settings" in options and b"http2-settings" in fields:
            request.upgrade = "h2c"
