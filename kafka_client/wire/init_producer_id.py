"""InitProducerId (22): the identity under which the broker recognises repeated batches.

Owns: versions 0 to 5 (6 is for two-phase commit and not stable). Refuses to know: transactions.

Source: InitProducerIdRequest.json, InitProducerIdResponse.json of Apache Kafka 4.1; KIP-98, KIP-360.
"""

from dataclasses import dataclass

from .frames import is_flexible
from .primitives import Buffer, Reader, Writer

__all__ = [
    "API_KEY",
    "MAX_VERSION",
    "MIN_VERSION",
    "InitProducerIdRequest",
    "InitProducerIdResponse",
    "decode_response",
    "encode_request",
]

API_KEY = 22
MIN_VERSION = 0
MAX_VERSION = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class InitProducerIdRequest:
    """``producer_id`` and ``producer_epoch`` of -1 ask for a new identity (all that works without transactions)."""

    transactional_id: str | None = None
    transaction_timeout_ms: int = 0x7FFFFFFF
    producer_id: int = -1
    producer_epoch: int = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class InitProducerIdResponse:
    """On 14, 15 and 16 the coordinator is still loading: ask again."""

    error_code: int
    producer_id: int
    producer_epoch: int
    throttle_time_ms: int = 0


def encode_request(request: InitProducerIdRequest, version: int) -> bytes:
    writer = Writer(flexible=is_flexible(API_KEY, version))
    writer.nullable_string(request.transactional_id)
    writer.int32(request.transaction_timeout_ms)
    if version >= 3:
        writer.int64(request.producer_id)
        writer.int16(request.producer_epoch)
    writer.no_tags()
    return writer.finish()


def decode_response(body: Buffer, version: int) -> InitProducerIdResponse:
    """Decode an answer; raises `ProtocolError`."""
    reader = Reader(body, flexible=is_flexible(API_KEY, version))
    throttle_time_ms = reader.int32()
    error_code = reader.int16()
    producer_id = reader.int64()
    producer_epoch = reader.int16()
    reader.skip_tags()
    return InitProducerIdResponse(
        error_code=error_code,
        producer_id=producer_id,
        producer_epoch=producer_epoch,
        throttle_time_ms=throttle_time_ms,
    )
