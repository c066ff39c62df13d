"""SaslAuthenticate (36): one step of a SASL mechanism.

Owns: versions 0 to 2. Refuses to know: what the bytes mean.

Source: SaslAuthenticateRequest.json, SaslAuthenticateResponse.json of Apache Kafka 4.1; KIP-152, KIP-368.
"""

from dataclasses import dataclass

from .frames import is_flexible
from .primitives import Buffer, Reader, Writer

__all__ = [
    "API_KEY",
    "MAX_VERSION",
    "MIN_VERSION",
    "SaslAuthenticateRequest",
    "SaslAuthenticateResponse",
    "decode_response",
    "encode_request",
]

API_KEY = 36
MIN_VERSION = 0
MAX_VERSION = 2


@dataclass(frozen=True, slots=True)
class SaslAuthenticateRequest:
    """``auth_bytes`` is the mechanism's message; it may be a secret, so it is not shown."""

    auth_bytes: bytes

    def __repr__(self) -> str:
        return f"<SaslAuthenticateRequest {len(self.auth_bytes)} bytes>"


@dataclass(frozen=True, slots=True, kw_only=True)
class SaslAuthenticateResponse:
    """``session_lifetime_ms`` > 0: the broker wants to be convinced again within it (KIP-368)."""

    error_code: int
    error_message: str | None
    auth_bytes: bytes
    session_lifetime_ms: int = 0


def encode_request(request: SaslAuthenticateRequest, version: int) -> bytes:
    writer = Writer(flexible=is_flexible(API_KEY, version))
    writer.bytes_(request.auth_bytes)
    writer.no_tags()
    return writer.finish()


def decode_response(body: Buffer, version: int) -> SaslAuthenticateResponse:
    """Decode an answer; raises `ProtocolError`."""
    reader = Reader(body, flexible=is_flexible(API_KEY, version))
    error_code = reader.int16()
    error_message = reader.nullable_string()
    auth_bytes = bytes(reader.bytes_())
    session_lifetime_ms = reader.int64() if version >= 1 else 0
    reader.skip_tags()
    return SaslAuthenticateResponse(
        error_code=error_code,
        error_message=error_message,
        auth_bytes=auth_bytes,
        session_lifetime_ms=session_lifetime_ms,
    )
