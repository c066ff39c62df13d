"""What two peers settle on a fresh connection before it carries requests.

Owns: the order of the steps, as a generator that yields each request and is sent its answer; so it can be tested
without a socket, and a SASL mechanism is a ``yield from`` more. Refuses to know: sockets, time, correlation ids.

Steps: ApiVersions, with the version that the caller starts with. Error 35 → once more with version 0 on the same
connection. A broker that hangs up on a version it does not know needs a fresh connection: the caller's loop over
`START_VERSIONS`.

Source: KIP-35, KIP-511; Java's NetworkClient and franz-go fall back in the same order.
"""

from collections.abc import Generator, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from kafka_client.errors import ProtocolError
from kafka_client.wire import api_versions
from kafka_client.wire.error_codes import error_row

__all__ = ["START_VERSIONS", "Handshake", "Step", "Versions", "shake_hands"]

Versions: TypeAlias = Mapping[int, tuple[int, int]]

#: Versions of ApiVersions to begin with, one connection each: some brokers reset the connection on 4.
START_VERSIONS = (4, 3, 0)

_UNSUPPORTED_VERSION = 35


@dataclass(frozen=True, slots=True)
class Step:
    """One request to write; the generator is then sent the body of its answer."""

    api_key: int
    version: int
    body: bytes


Handshake: TypeAlias = Generator[Step, memoryview, Versions]


def shake_hands(start_version: int) -> Handshake:
    """Find out the broker's versions. Raises `ProtocolError`."""
    response = yield from _ask_versions(start_version)
    if response.error_code == _UNSUPPORTED_VERSION and start_version != 0:
        response = yield from _ask_versions(0)
    if response.error_code != 0:
        row = error_row(response.error_code)
        raise ProtocolError(f"ApiVersions was answered with {row.name} ({row.code})")
    return response.versions


def _ask_versions(version: int) -> Generator[Step, memoryview, api_versions.ApiVersionsResponse]:
    body = api_versions.encode_request(api_versions.ApiVersionsRequest(), version)
    answer = yield Step(api_versions.API_KEY, version, body)
    return api_versions.decode_response(answer, version)
