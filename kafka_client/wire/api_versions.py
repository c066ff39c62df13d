"""ApiVersions (18): which versions of which messages a broker speaks.

Owns: versions 0 to 4. Refuses to know: which version to ask with first (network/handshake).

Non-obvious: a broker that does not know the version it was asked with answers in version 0 with error 35 (KIP-511).
Some answer with a body that is broken after the error code, so with an error nothing else is read.

Source: ApiVersionsRequest.json, ApiVersionsResponse.json of Apache Kafka 4.1; KIP-35, KIP-511.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from .frames import is_flexible
from .primitives import Buffer, Reader, Writer

__all__ = [
    "API_KEY",
    "MAX_VERSION",
    "MIN_VERSION",
    "ApiVersionsRequest",
    "ApiVersionsResponse",
    "decode_response",
    "encode_request",
]

API_KEY = 18
MIN_VERSION = 0
MAX_VERSION = 4

_REFUSED = re.compile(r"[^a-zA-Z0-9.-]")
_UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiVersionsRequest:
    """From version 3 on the broker is told who asks. What it would refuse (42) in these two is sent as dashes."""

    client_software_name: str = "kafka-client"
    client_software_version: str = "0"


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiVersionsResponse:
    """``versions`` maps an api key to its lowest and highest version; empty beside an error."""

    error_code: int
    versions: Mapping[int, tuple[int, int]]
    throttle_time_ms: int = 0


def encode_request(request: ApiVersionsRequest, version: int) -> bytes:
    if not is_flexible(API_KEY, version):
        return b""
    writer = Writer(flexible=True)
    writer.string(_accepted(request.client_software_name))
    writer.string(_accepted(request.client_software_version))
    writer.no_tags()
    return writer.finish()


def _accepted(text: str) -> str:
    """``text`` as the broker takes it: ``[a-zA-Z0-9](?:[a-zA-Z0-9\\-.]*[a-zA-Z0-9])?`` (Kafka's ApiVersionsRequest)."""
    return _REFUSED.sub("-", text).strip("-.") or _UNKNOWN


def decode_response(body: Buffer, version: int) -> ApiVersionsResponse:
    """Decode an answer; raises `ProtocolError`. Beside an error code only the error code is read."""
    reader = Reader(body, flexible=is_flexible(API_KEY, version))
    error_code = reader.int16()
    if error_code != 0:
        return ApiVersionsResponse(error_code=error_code, versions=MappingProxyType({}))
    versions = dict(reader.array(_read_version))
    throttle_time_ms = reader.int32() if version >= 1 else 0
    reader.skip_tags()
    return ApiVersionsResponse(error_code=0, versions=MappingProxyType(versions), throttle_time_ms=throttle_time_ms)


def _read_version(reader: Reader) -> tuple[int, tuple[int, int]]:
    api_key, low, high = reader.int16(), reader.int16(), reader.int16()
    reader.skip_tags()
    return api_key, (low, high)
