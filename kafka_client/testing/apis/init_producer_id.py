"""InitProducerId (22), versions 0 to 5: always a fresh producer id with epoch 0, whatever the old one was.

Source: TransactionCoordinator.handleInitProducerId ("if the transactional id is null, then always blindly accept").
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol, cast

from kafka_client.testing.apis.call import Call
from kafka_client.testing.messages import Api, Header, Value, decode_request
from kafka_client.testing.plan import Plan
from kafka_client.testing.seen import RequestSeen

if TYPE_CHECKING:
    from kafka_client.testing.connection import Connection

INVALID_REQUEST = 42
TRANSACTIONAL_ID_AUTHORIZATION_FAILED = 53


class _Request(Protocol):
    transactional_id: str | None
    producer_id: int
    producer_epoch: int


def read(connection: "Connection", request: RequestSeen, frame: bytes, header: Header) -> Call:
    """Decode, and return the call."""
    body = cast("_Request", decode_request(Api.INIT_PRODUCER_ID, request.version, frame, header.body_at))

    def serve(plan: Plan) -> Mapping[str, Value]:
        code = plan.code or 0
        old = getattr(body, "producer_id", -1), getattr(body, "producer_epoch", -1)
        if not code and -1 in old and old != (-1, -1):
            code = INVALID_REQUEST
        if not code and body.transactional_id is not None:
            code = TRANSACTIONAL_ID_AUTHORIZATION_FAILED  # the fake has no transactions
        producer_id = -1 if code else connection.cluster.new_producer_id()
        if not code and plan.identity is not None:
            told, epoch = plan.identity
            producer_id = producer_id if told is None else told
            connection.cluster.hand_out(producer_id)
            return {"throttle_time": 0, "error_code": 0, "producer_id": producer_id, "producer_epoch": epoch}
        return {"throttle_time": 0, "error_code": code, "producer_id": producer_id, "producer_epoch": -1 if code else 0}

    return Call(serve)
