"""Kept lines for tests, written as nginx writes them."""

from collections.abc import Mapping
from typing import Protocol

import pytest

from collector.nginx.last_resort import MEMBERS


class KeptLine(Protocol):
    """`kept_line`."""

    def __call__(self, body: bytes, **members: "str | bytes") -> bytes: ...


#: 2025-06-15T08:00:00.250Z.
TIME = "1749974400.250"

_SHORT = {0x22: b'\\"', 0x5C: b"\\\\", 0x0A: b"\\n", 0x0D: b"\\r", 0x09: b"\\t", 0x08: b"\\b", 0x0C: b"\\f"}


def nginx_escaped(value: bytes) -> bytes:
    """As ``escape=json`` does: source: nginx's ngx_escape_json."""
    return b"".join(_SHORT.get(byte, b"\\u%04X" % byte if byte < 0x20 else bytes([byte])) for byte in value)


def kept_line(body: bytes, **members: "str | bytes") -> bytes:
    """Return one line with its end; ``members`` replaces what an ordinary one has."""
    values: Mapping[str, str | bytes] = {
        "kept": "1",
        "time": TIME,
        "upstream_s": "0.000",
        "request_id": "request-1",
        "ip": "198.51.100.0",
        "method": "POST",
        "target": "/v1/track",
        "user": "k",
        "user_agent": "curl/8",
        "content_length": str(len(body)),
        "body": body,
        **members,
    }
    parts = []
    for name, _ in MEMBERS:
        value = values.get(name, "")
        raw = value if isinstance(value, bytes) else value.encode()
        parts.append(b'"%b":"%b"' % (name.encode(), nginx_escaped(raw)))
    return b"{" + b",".join(parts) + b"}\n"


@pytest.fixture(name="kept_line", scope="session")
def _kept_line() -> KeptLine:
    """Make one line with its end: its body, and what it has of its own."""
    return kept_line
