"""SaslHandshake (17), versions 0 and 1: which mechanism is to follow (KIP-43).

Where nobody expects it, on a listener without SASL or too soon after the last, the answer is 34.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol, cast

import trio

from kafka_client.testing.apis.call import Call
from kafka_client.testing.messages import Api, BadRequest, Header, Value, decode_request
from kafka_client.testing.plan import Plan
from kafka_client.testing.seen import RequestSeen

if TYPE_CHECKING:
    from kafka_client.testing.connection import Connection

UNSUPPORTED_SASL_MECHANISM = 33
ILLEGAL_SASL_STATE = 34
#: As much as an answer ever has: all of it is written before the connection is closed.
WHOLE = 1 << 30


class _Request(Protocol):
    mechanism: str


def read(connection: "Connection", request: RequestSeen, frame: bytes, header: Header) -> Call:
    """Decode, and return the call."""
    body = cast("_Request", decode_request(Api.SASL_HANDSHAKE, request.version, frame, header.body_at))
    sasl, state = connection.cluster.sasl, connection.sasl
    if request.version == 0 and sasl is not None:
        raise BadRequest("SaslHandshake version 0: the tokens behind it would have no frames")

    def serve(plan: Plan) -> Mapping[str, Value]:
        if sasl is None or state is None:
            return {"error_code": ILLEGAL_SASL_STATE, "mechanisms": ()}
        code = 0
        if plan.code is not None:
            code = plan.code
        elif body.mechanism not in sasl.mechanisms:
            code = UNSUPPORTED_SASL_MECHANISM
            plan.travel_s += sasl.failure_delay_s
            plan.truncate_bytes = WHOLE
        elif not state.begin(body.mechanism, trio.current_time()):
            code = ILLEGAL_SASL_STATE
        return {"error_code": code, "mechanisms": tuple(sasl.mechanisms)}

    return Call(serve)
