"""FindCoordinator (10), versions 0 to 6: there is none, the fake has neither groups nor transactions.

It is offered because librdkafka takes a broker without it for one too old for lz4.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Protocol, cast

from kafka_client.testing.apis.call import Call
from kafka_client.testing.messages import Api, Header, Value, decode_request
from kafka_client.testing.plan import Plan
from kafka_client.testing.seen import RequestSeen

if TYPE_CHECKING:
    from kafka_client.testing.connection import Connection

COORDINATOR_NOT_AVAILABLE = 15


class _Request(Protocol):
    coordinator_keys: Sequence[str]


def read(_connection: "Connection", request: RequestSeen, frame: bytes, header: Header) -> Call:
    """Decode, and return the call."""
    body = cast("_Request", decode_request(Api.FIND_COORDINATOR, request.version, frame, header.body_at))

    def serve(plan: Plan) -> Mapping[str, Value]:
        nowhere: Mapping[str, Value] = {
            "error_code": plan.code or COORDINATOR_NOT_AVAILABLE,
            "error_message": "the fake has no coordinator",
            "node_id": -1,
            "host": "",
            "port": -1,
        }
        keys = body.coordinator_keys if request.version >= 4 else ()
        return {**nowhere, "throttle_time": 0, "coordinators": [{**nowhere, "key": key} for key in keys]}

    return Call(serve)
