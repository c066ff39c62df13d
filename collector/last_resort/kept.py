"""One line of what nginx kept: from bytes to the request that it was.

Owns: the line's form. Refuses to know: files, dialects.

Invariant: the body of a line that is read has the bytes that the client sent. A line that was cut is `BrokenLine`: its
JSON does not end, or its body is not as long as its Content-Length.

nginx's ``escape=json`` leaves bytes from 0x80 as they are, so a line is JSON in Latin-1, one character a byte.
"""

import base64
from collections.abc import Mapping
from typing import Literal

import msgspec
from msgspec import Struct

__all__ = ["LINE_START", "BrokenLine", "KeptRequest", "read_kept"]

#: How each line begins. It cannot stand inside of one: quotes are escaped there.
LINE_START = b'{"kept":"1","time":"'

#: Names of headers, and of the members that keep them.
_HEADERS = (
    ("content-encoding", "content_encoding"),
    ("user-agent", "user_agent"),
    ("dnt", "dnt"),
    ("sec-gpc", "sec_gpc"),
)


class BrokenLine(Exception):
    """The line cannot be read; the message says why, and quotes nothing of it."""


class KeptRequest(Struct, frozen=True, kw_only=True):
    """One request. ``headers`` have names in lower case; ``body`` is as it was sent, compressed or not."""

    received_at_ms: int
    """When its body was complete, milliseconds since 1970."""
    request_id: str
    ip: str
    method: str
    path: str
    query_string: bytes
    headers: Mapping[str, str]
    body: bytes


class _Line(Struct):
    kept: Literal["1"]
    time: str
    """Seconds since 1970, with milliseconds, when it was answered."""
    upstream_s: str
    """How long each try to reach a collector took: ``0.300, 0.001``; ``-`` where there was none."""
    request_id: str
    ip: str
    method: str
    target: str
    user: str
    """The key of Basic authorization, where it had a colon."""
    authorization: str
    content_encoding: str
    user_agent: str
    dnt: str
    sec_gpc: str
    content_length: str
    """Empty for a chunked body."""
    body: str


_decode = msgspec.json.Decoder(_Line).decode


def read_kept(line: bytes) -> KeptRequest:
    """Read a line, without its end.

    Raises:
        BrokenLine: It is none, or not all of one.
    """
    try:
        found = _decode(line.decode("latin-1").encode())
        tries_s = [float(part) for part in found.upstream_s.split(",") if part.strip() not in ("", "-")]
        received_at_ms = round((float(found.time) - sum(tries_s)) * 1000)
        length = int(found.content_length or -1)
        body = found.body.encode("latin-1")
        headers = _headers(found)
        query_string = found.target.partition("?")[2].encode("latin-1")
    except (msgspec.DecodeError, ValueError, OverflowError) as error:
        raise BrokenLine(f"not a kept request: {error}") from None
    if length not in (-1, len(body)):
        raise BrokenLine(f"the body has {len(body)} bytes of {length}")
    return KeptRequest(
        received_at_ms=received_at_ms,
        request_id=found.request_id,
        ip=found.ip,
        method=found.method,
        path=found.target.partition("?")[0],
        query_string=query_string,
        headers=headers,
        body=body,
    )


def _headers(line: _Line) -> dict[str, str]:
    headers = {name: value for name, member in _HEADERS if (value := getattr(line, member))}
    if line.user:
        headers["authorization"] = "Basic " + base64.b64encode(f"{line.user}:".encode("latin-1")).decode()
    elif line.authorization:
        headers["authorization"] = line.authorization
    return headers
