"""SaslHandshake (17): which SASL mechanism a connection is going to use.

Owns: versions 0 and 1; after 1 the mechanism's bytes travel in SaslAuthenticate frames, after 0 bare.
Refuses to know: mechanisms.

Source: SaslHandshakeRequest.json, SaslHandshakeResponse.json of Apache Kafka 4.1; KIP-43, KIP-152.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from .primitives import Buffer, Reader, Writer

__all__ = [
    "API_KEY",
    "MAX_VERSION",
    "MIN_VERSION",
    "SaslHandshakeRequest",
    "SaslHandshakeResponse",
    "decode_response",
    "encode_request",
]

API_KEY = 17
MIN_VERSION = 0
MAX_VERSION = 1


@dataclass(frozen=True, slots=True)
class SaslHandshakeRequest:
    """``mechanism`` by its registered name, as PLAIN or SCRAM-SHA-512."""

    mechanism: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SaslHandshakeResponse:
    """``mechanisms`` are those that the broker has enabled, also beside error 33."""

    error_code: int
    mechanisms: Sequence[str]


def encode_request(request: SaslHandshakeRequest, version: int) -> bytes:
    writer = Writer()
    writer.string(request.mechanism)
    return writer.finish()


def decode_response(body: Buffer, version: int) -> SaslHandshakeResponse:
    """Decode an answer; raises `ProtocolError`."""
    reader = Reader(body)
    error_code = reader.int16()
    return SaslHandshakeResponse(error_code=error_code, mechanisms=reader.array(Reader.string))
