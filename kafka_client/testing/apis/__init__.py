"""What a broker does for each API: one module a message, each with ``read(connection, request, frame, header)``.

Owns: the dispatch. ``read`` decodes the request, notes what it saw in the `RequestSeen`, and returns the `Call` that
serves it.
"""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from kafka_client.testing.apis import (
    api_versions,
    create_topics,
    describe_configs,
    fetch,
    find_coordinator,
    init_producer_id,
    list_offsets,
    metadata,
    produce,
    sasl_authenticate,
    sasl_handshake,
)
from kafka_client.testing.apis.call import Call
from kafka_client.testing.messages import Api, Header
from kafka_client.testing.seen import RequestSeen

if TYPE_CHECKING:
    from kafka_client.testing.connection import Connection

__all__ = ["api_versions", "read"]

_READERS: Mapping[Api, "Callable[[Connection, RequestSeen, bytes, Header], Call]"] = {
    Api.PRODUCE: produce.read,
    Api.FETCH: fetch.read,
    Api.LIST_OFFSETS: list_offsets.read,
    Api.METADATA: metadata.read,
    Api.FIND_COORDINATOR: find_coordinator.read,
    Api.SASL_HANDSHAKE: sasl_handshake.read,
    Api.API_VERSIONS: api_versions.read,
    Api.CREATE_TOPICS: create_topics.read,
    Api.INIT_PRODUCER_ID: init_producer_id.read,
    Api.DESCRIBE_CONFIGS: describe_configs.read,
    Api.SASL_AUTHENTICATE: sasl_authenticate.read,
}


def read(connection: "Connection", request: RequestSeen, frame: bytes, header: Header) -> Call:
    """Decode the request; raises `BadRequest`."""
    return _READERS[request.api](connection, request, frame, header)
