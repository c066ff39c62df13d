"""What the head of a request says: its headers, who sent it, how it is called, how long it may take.

Owns: the trust in proxies (whose X-Forwarded-For and X-Request-Id are believed). Refuses to know: bodies, dialects,
answers.

Invariant: nothing that a client sends can make this raise anything but `ClientFault`, and what is passed on is bounded
and printable.
"""

import base64
import binascii
import ipaddress
import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import TypeAlias
from urllib.parse import parse_qsl

from collector.dialects.base import ClientFault
from collector.web.asgi_types import Scope

__all__ = ["HeadReader", "RequestHead", "parse_query", "timeout_of"]

Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network

MAX_QUERY_FIELDS = 64
MAX_TIMEOUT_MS = 2**31

_REQUEST_ID = re.compile(r"[\x21-\x7e]{1,128}\Z")


class RequestHead:
    """One request's head; ``headers`` are lower-cased, repeated ones joined by a comma."""

    __slots__ = ("headers", "ip", "method", "path", "query_string", "request_id")

    def __init__(
        self,
        *,
        method: str,
        path: str,
        query_string: bytes,
        headers: Mapping[str, str],
        ip: str | None,
        request_id: str,
    ) -> None:
        self.method = method
        self.path = path
        self.query_string = query_string
        self.headers = headers
        self.ip = ip
        self.request_id = request_id

    def __repr__(self) -> str:
        return f"<RequestHead {self.method} {self.path} {self.request_id}>"

    @property
    def origin(self) -> str | None:
        return self.headers.get("origin")

    @property
    def content_length(self) -> int:
        """What the body claims to have, 0 where it does not say. The server has refused what is not a number."""
        value = self.headers.get("content-length", "")
        return int(value) if value.isascii() and value.isdecimal() else 0

    def query(self) -> dict[str, str]:
        """The query's fields, the first of each name. Raises `ClientFault` for absurdly many."""
        return parse_query(self.query_string)

    def credential(self, query: Mapping[str, str]) -> str | None:
        """The head's key, if any: ``Authorization`` (Basic or Bearer) or ``?writeKey=``; for admission."""
        return key_of_authorization(self.headers.get("authorization", "")) or query.get("writeKey") or None


class HeadReader:
    """Makes heads of ASGI scopes.

    Args:
        trusted_proxies: networks whose forwarding headers are believed.
        next_id: names a request that came without a believable name.
    """

    def __init__(self, trusted_proxies: tuple[str, ...], next_id: Callable[[], str]) -> None:
        networks: list[Network] = [ipaddress.ip_network(text, strict=False) for text in trusted_proxies]
        self._next_id = next_id

        @lru_cache(maxsize=4096)
        def trusted(address: str) -> bool | None:
            """Whether this peer is one of our proxies; None where it is no address at all."""
            try:
                parsed = ipaddress.ip_address(address)
            except ValueError:
                return None
            return any(parsed in network for network in networks)

        self._trusted = trusted

    def read(self, scope: Scope) -> RequestHead:
        """The head of an HTTP or websocket scope."""
        headers: dict[str, str] = {}
        for raw_name, raw_value in scope["headers"]:
            name, value = raw_name.decode("latin-1").lower(), raw_value.decode("latin-1")
            headers[name] = f"{headers[name]}, {value}" if name in headers else value
        client = scope.get("client")
        peer = client[0] if client else None
        # No address: a Unix socket or a test's in-process client, both as near as a proxy on this machine.
        believed = peer is None or bool(self._trusted(peer))
        request_id = headers.get("x-request-id", "") if believed else ""
        return RequestHead(
            method=scope.get("method", "GET"),
            path=_path_of(scope["path"]),
            query_string=scope.get("query_string", b""),
            headers=headers,
            ip=self._client_ip(peer, headers.get("x-forwarded-for")) if believed else peer,
            request_id=request_id if _REQUEST_ID.match(request_id) else self._next_id(),
        )

    def _client_ip(self, peer: str | None, forwarded: str | None) -> str | None:
        """Walk back through the proxies: the last address that none of ours vouches for is the client's."""
        address = peer
        for part in reversed(forwarded.split(",") if forwarded else ()):
            candidate = part.strip()
            trusted = self._trusted(candidate)
            if trusted is None:
                break
            address = candidate
            if not trusted:
                break
        return address


def _path_of(target: str) -> str:
    """The path, also of a target in absolute form, which every server must accept (RFC 9112, 3.2.2)."""
    if target.startswith("/"):
        return target
    scheme, separator, rest = target.partition("://")
    if not separator or scheme.lower() not in ("http", "https"):
        return target
    return "/" + rest.partition("/")[2]


def parse_query(query_string: bytes) -> dict[str, str]:
    """The fields of a query, the first of each name. Raises `ClientFault` for absurdly many."""
    if not query_string:
        return {}
    try:
        pairs = parse_qsl(
            query_string.decode("latin-1"), keep_blank_values=True, errors="replace", max_num_fields=MAX_QUERY_FIELDS
        )
    except ValueError as error:
        raise ClientFault("invalid_query", f"the query has more than {MAX_QUERY_FIELDS} fields") from error
    return dict(reversed(pairs))


def key_of_authorization(value: str) -> str | None:
    """The key in ``Basic base64(key:)`` (colon and padding optional) or ``Bearer key``; None for anything else."""
    scheme, _, token = value.partition(" ")
    token = token.strip()
    if scheme.lower() == "bearer":
        return token or None
    if scheme.lower() != "basic":
        return None
    try:
        decoded = base64.b64decode(token + "=" * (-len(token) % 4), validate=True)
    except (binascii.Error, ValueError):
        return None
    return decoded.partition(b":")[0].decode("utf-8", "replace") or None


def timeout_of(value: str | int | None) -> float | None:
    """Milliseconds of a client (``X-Collector-Timeout-Ms``, ``deadline_ms``) as seconds. Raises `ClientFault`."""
    if value is None:
        return None
    text = str(value).strip()
    if not (text.isascii() and text.isdecimal()) or len(text) > 10 or not 0 < int(text) <= MAX_TIMEOUT_MS:
        raise ClientFault("invalid_timeout", f"a timeout is a whole number of milliseconds above 0, not {text[:20]!r}")
    return int(text) / 1000
