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
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import TypeAlias
from urllib.parse import parse_qsl

from msgspec import Struct

from collector.dialects.base import ClientFault
from collector.web.asgi_types import Scope

__all__ = ["HeadReader", "Headers", "RequestHead", "key_of_authorization", "parse_query", "timeout_of"]

Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network

MAX_QUERY_FIELDS = 64
MAX_TIMEOUT_MS = 2**31
MAX_LENGTH_DIGITS = 20
FORWARDED_MAX_BYTES = 512

#: A name that a proxy gives to a request: bounded and printable.
_REQUEST_ID = re.compile(rb"[\x21-\x7e]{1,128}\Z")


class Headers(Mapping[str, str]):
    """The header fields of one request by lower-case name, decoded when somebody asks; repeated ones are joined.

    ``fields`` are the bytes behind it, for who asks for many: looking one up there takes a fifth of the time.
    """

    __slots__ = ("fields",)

    def __init__(self, pairs: Sequence[tuple[bytes, bytes]]) -> None:
        fields = dict(pairs)
        self.fields = fields if len(fields) == len(pairs) else _joined(pairs)

    @classmethod
    def of(cls, values: Mapping[str, str]) -> "Headers":
        """Headers from elsewhere than a request; what Latin-1 cannot hold becomes a question mark."""
        return cls([(name.encode(), value.encode("latin-1", "replace")) for name, value in values.items()])

    def __getitem__(self, name: str) -> str:
        return self.fields[name.encode()].decode("latin-1")

    def __iter__(self) -> Iterator[str]:
        return (name.decode("latin-1") for name in self.fields)

    def __len__(self) -> int:
        return len(self.fields)

    def __repr__(self) -> str:
        return f"<Headers {', '.join(self)}>"


def _joined(pairs: Sequence[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    fields: dict[bytes, bytes] = {}
    for name, value in pairs:
        fields[name] = b"%b, %b" % (fields[name], value) if name in fields else value
    return fields


class RequestHead(Struct, frozen=True, eq=False):
    """One request's head."""

    method: str
    path: str
    query_string: bytes
    headers: Headers
    ip: str | None
    request_id: str

    def __repr__(self) -> str:
        return f"<RequestHead {self.method} {self.path} {self.request_id}>"

    @property
    def content_length(self) -> int:
        """What the body claims to have, 0 where it does not say. The server has refused what is not a number."""
        value = self.headers.fields.get(b"content-length", b"")
        return int(value) if value.isdigit() and len(value) < MAX_LENGTH_DIGITS else 0

    def query(self) -> dict[str, str]:
        """The query's fields, the first of each name. Raises `ClientFault` for absurdly many."""
        return parse_query(self.query_string)

    def credential(self, query: Mapping[str, str]) -> str | None:
        """The head's key, if any: ``Authorization`` (Basic or Bearer) or ``?writeKey=``; for admission."""
        authorization = self.headers.fields.get(b"authorization")
        key = None if authorization is None else key_of_authorization(authorization.decode("latin-1"))
        return key or (query.get("writeKey") or None if query else None)


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

        @lru_cache(maxsize=4096)
        def client_ip(peer: str | None, forwarded: bytes) -> str | None:
            """Walk back through the proxies: the last address that none of ours vouches for is the client's."""
            address = peer
            for part in reversed(forwarded.decode("latin-1").split(",")):
                candidate = part.strip()
                vouched = trusted(candidate)
                if vouched is None:
                    break
                address = candidate
                if not vouched:
                    break
            return address

        self._trusted = trusted
        self._client_ip = client_ip

    def read(self, scope: Scope) -> RequestHead:
        """The head of an HTTP or websocket scope. Names of headers are in lower case, as ASGI has them."""
        headers = Headers(scope["headers"])
        field = headers.fields.get
        client = scope.get("client")
        ip = client[0] if client else None
        request_id = None
        # No address: a Unix socket or a test's in-process client, both as near as a proxy on this machine.
        if ip is None or self._trusted(ip):
            forwarded = field(b"x-forwarded-for")
            if forwarded is not None:
                if len(forwarded) > FORWARDED_MAX_BYTES:
                    # It is read from its end, and remembered: nobody has so many proxies.
                    forwarded = forwarded[-FORWARDED_MAX_BYTES:].partition(b",")[2]
                ip = self._client_ip(ip, forwarded)
            given = field(b"x-request-id")
            if given is not None and _REQUEST_ID.match(given):
                request_id = given.decode("ascii")
        path = scope["path"]
        return RequestHead(
            scope.get("method", "GET"),
            path if path[:1] == "/" else _path_of(path),
            scope.get("query_string", b""),
            headers,
            ip,
            request_id or self._next_id(),
        )


def _path_of(target: str) -> str:
    """The path of a target in absolute form, which every server must accept (RFC 9112, 3.2.2)."""
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
