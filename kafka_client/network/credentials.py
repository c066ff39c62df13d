"""What the connections of one configuration share: the TLS context, and salted passwords.

Owns: their life, which is that of the `SecurityConfig`. Refuses to know: connections.

Invariant: nothing here is needed: it only saves doing the same again for each connection.
"""

from weakref import WeakKeyDictionary

from kafka_client.security import SecurityConfig

from .sasl import Login, read_login
from .scram import SaltedPasswords
from .tls import TlsContext

__all__ = ["Credentials", "credentials_of"]


class Credentials:
    """Made by `credentials_of`."""

    __slots__ = ("_salted", "tls")

    def __init__(self) -> None:
        self.tls = TlsContext()
        self._salted: SaltedPasswords = {}

    async def login(self, security: SecurityConfig) -> Login:
        """`read_login`, with the salted passwords of before. On cancellation: see there."""
        return await read_login(security, self._salted)

    def __repr__(self) -> str:
        return f"<Credentials {self.tls!r}, {len(self._salted)} salted passwords>"


# By value: two equal configurations name the same files and secrets. It must not refer to its keys.
_SHARED: "WeakKeyDictionary[SecurityConfig, Credentials]" = WeakKeyDictionary()


def credentials_of(security: SecurityConfig) -> Credentials:
    """Those of ``security``."""
    found = _SHARED.get(security)
    if found is None:
        found = _SHARED[security] = Credentials()
    return found
