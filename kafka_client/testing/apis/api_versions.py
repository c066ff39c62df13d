"""ApiVersions (18), versions 0 to 4: what the broker speaks.

A version that the broker does not know is answered with code 35 in version 0's form, naming ApiVersions alone
(KIP-511).
"""

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol, cast

from kafka_client.testing.apis.call import Call
from kafka_client.testing.messages import Api, Header, Value, decode_request, encode_answer
from kafka_client.testing.plan import Plan
from kafka_client.testing.seen import RequestSeen

if TYPE_CHECKING:
    from kafka_client.testing.connection import Connection

UNSUPPORTED_VERSION = 35
INVALID_REQUEST = 42
SOFTWARE = re.compile(r"[a-zA-Z0-9](?:[a-zA-Z0-9\-.]*[a-zA-Z0-9])?")


class _Request(Protocol):
    client_software_name: str
    client_software_version: str


def refusal(connection: "Connection", correlation_id: int) -> bytes:
    """The answer to a version never heard of."""
    low, high = connection.cluster.versions[Api.API_VERSIONS]
    answer: Mapping[str, Value] = {
        "error_code": UNSUPPORTED_VERSION,
        "api_keys": [{"api_key": Api.API_VERSIONS, "min_version": low, "max_version": high}],
    }
    return encode_answer(Api.API_VERSIONS, 0, correlation_id, answer)


def read(connection: "Connection", request: RequestSeen, frame: bytes, header: Header) -> Call:
    """Decode, and return the call."""
    body = cast("_Request", decode_request(Api.API_VERSIONS, request.version, frame, header.body_at))
    valid = request.version < 3 or (
        SOFTWARE.fullmatch(body.client_software_name) and SOFTWARE.fullmatch(body.client_software_version)
    )
    if not valid:
        connection.cluster.seen.violations.append(f"connection {connection.number}: client software has no valid name")

    def serve(plan: Plan) -> Mapping[str, Value]:
        return {
            "error_code": plan.code if plan.code is not None else 0 if valid else INVALID_REQUEST,
            "api_keys": []
            if not valid
            else [
                {"api_key": int(api), "min_version": low, "max_version": high}
                for api, (low, high) in sorted(connection.cluster.versions.items())
            ],
            "throttle_time": 0,
        }

    return Call(serve)
