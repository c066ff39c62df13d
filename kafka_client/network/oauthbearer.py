"""OAUTHBEARER, the client's side: one message with a token.

Owns: its form, and what may stand in it. Refuses to know: where the token comes from.

Invariant: nothing in a token or extension can end its field early; no error shows the token.

Source: RFC 7628 section 3 (messages), RFC 6750 section 2.1 (token), KIP-255, KIP-342 (extensions).
"""

import re
from collections.abc import Generator

from kafka_client.errors import SecurityError
from kafka_client.security import OAuthToken

__all__ = ["oauthbearer"]

_TOKEN = re.compile(r"[A-Za-z0-9\-._~+/]+=*\Z")
_EXTENSION_NAME = re.compile(r"[A-Za-z]+\Z")
_EXTENSION_VALUE = re.compile(r"[\x21-\x7e \t\r\n]+\Z")
_RESERVED = "auth"


def oauthbearer(token: OAuthToken) -> Generator[bytes, bytes, None]:
    """Yield the client's messages; is sent the broker's.

    A refusal comes as JSON, which has to be answered with one byte; the error code comes with the answer to that.

    Raises:
        SecurityError: the token cannot be sent, or was refused without a code.
    """
    fields = "".join(f"\x01{name}={value}" for name, value in _checked(token))
    refusal = yield f"n,,{fields}\x01\x01".encode()
    if refusal:
        yield b"\x01"
        raise SecurityError(f"the broker refused our OAuth token: {refusal[:200].decode(errors='replace')!r}")


def _checked(token: OAuthToken) -> list[tuple[str, str]]:
    if not _TOKEN.match(token.value):
        raise SecurityError("the OAuth token holds characters that a bearer token cannot have (RFC 6750)")
    if not token.lifetime_s > 0:
        raise SecurityError("the OAuth token has expired: its provider has to renew it in time")
    for name, value in token.extensions.items():
        if not _EXTENSION_NAME.match(name) or name == _RESERVED:
            raise SecurityError(f"the SASL extension {name!r} has to be named with letters, and not {_RESERVED!r}")
        if not _EXTENSION_VALUE.match(value):
            raise SecurityError(f"the value of the SASL extension {name!r} is empty or not printable ASCII")
    return [(_RESERVED, f"Bearer {token.value}"), *token.extensions.items()]
