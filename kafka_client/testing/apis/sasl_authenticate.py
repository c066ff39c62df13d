"""SaslAuthenticate (36), versions 0 to 2: one step of a mechanism (KIP-152), and how long it holds (KIP-368)."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol, cast

import trio

from kafka_client.testing.apis.call import Call
from kafka_client.testing.apis.sasl_handshake import ILLEGAL_SASL_STATE, WHOLE
from kafka_client.testing.messages import Api, Header, Value, decode_request
from kafka_client.testing.plan import Plan
from kafka_client.testing.sasl import Refused
from kafka_client.testing.seen import RequestSeen

if TYPE_CHECKING:
    from kafka_client.testing.connection import Connection

SASL_AUTHENTICATION_FAILED = 58


class _Request(Protocol):
    auth_bytes: bytes


def read(connection: "Connection", request: RequestSeen, frame: bytes, header: Header) -> Call:
    """Decode, and return the call."""
    body = cast("_Request", decode_request(Api.SASL_AUTHENTICATE, request.version, frame, header.body_at))
    sasl, state = connection.cluster.sasl, connection.sasl

    def answer(code: int, message: str | None = None, content: bytes = b"", lifetime_ms: int = 0) -> dict[str, Value]:
        return {
            "error_code": code,
            "error_message": message,
            "auth_bytes": content,
            "session_lifetime": lifetime_ms,
        }

    def serve(plan: Plan) -> Mapping[str, Value]:
        if sasl is None or state is None:
            return answer(ILLEGAL_SASL_STATE)
        if plan.code is not None:
            return answer(plan.code)
        try:
            content, lifetime_ms = state.step(body.auth_bytes, trio.current_time())
        except Refused as refusal:
            sasl.refusals.append(str(refusal))
            plan.travel_s += sasl.failure_delay_s
            plan.truncate_bytes = WHOLE
            return answer(SASL_AUTHENTICATION_FAILED, str(refusal))
        return answer(0, content=content, lifetime_ms=lifetime_ms)

    return Call(serve)
