"""What two peers settle on a fresh connection before it carries requests.

Owns: the order of the steps, as a generator that yields each request and is sent its answer; so it can be tested
without a socket. Refuses to know: sockets, time, correlation ids.

Steps: ApiVersions, with the version that the caller starts with. Error 35 → once more with version 0 on the same
connection. A broker that hangs up on a version it does not know needs a fresh connection: the caller's loop over
`START_VERSIONS`. Then SASL, where configured.

Source: KIP-35, KIP-511; Java's NetworkClient and franz-go fall back in the same order.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

from kafka_client.errors import ProtocolError
from kafka_client.wire import api_versions
from kafka_client.wire.error_codes import error_row

from .sasl import Login, Session, authenticate
from .steps import Exchange, Step

__all__ = ["START_VERSIONS", "Greeted", "Versions", "shake_hands"]

Versions: TypeAlias = Mapping[int, tuple[int, int]]

#: Versions of ApiVersions to begin with, one connection each: some brokers reset the connection on 4.
START_VERSIONS = (4, 3, 0)

_UNSUPPORTED_VERSION = 35


@dataclass(frozen=True, slots=True)
class Greeted:
    """What was settled. ``session`` is None without SASL."""

    versions: Versions
    session: Session | None


def shake_hands(start_version: int, login: Login | None = None) -> Exchange[Greeted]:
    """Find out the broker's versions, and convince it. Raises `ProtocolError`, `SecurityError`."""
    response = yield from _ask_versions(start_version)
    if response.error_code == _UNSUPPORTED_VERSION and start_version != 0:
        response = yield from _ask_versions(0)
    if response.error_code != 0:
        row = error_row(response.error_code)
        raise ProtocolError(f"ApiVersions was answered with {row.name} ({row.code})")
    session = None if login is None else (yield from authenticate(login, response.versions))
    return Greeted(response.versions, session)


def _ask_versions(version: int) -> Exchange[api_versions.ApiVersionsResponse]:
    body = api_versions.encode_request(api_versions.ApiVersionsRequest(), version)
    answer = yield Step(api_versions.API_KEY, version, body)
    return api_versions.decode_response(answer, version)
