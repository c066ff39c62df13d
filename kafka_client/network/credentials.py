"""What the connections of one configuration share: the TLS context, salted passwords, and which form of one worked.

Owns: their life, which is that of the `SecurityConfig`. Refuses to know: connections.

Invariant: nothing here is needed: it only saves doing the same again for each connection.
"""

import weakref

from kafka_client.security import SecurityConfig

from .sasl import Form, Login, read_login
from .scram import SaltedPasswords
from .tls import TlsContext

__all__ = ["Credentials", "credentials_of"]


class Credentials:
    """Made by `credentials_of`."""

    __slots__ = ("_form", "_salted", "hashed_in_vain", "tls")

    def __init__(self) -> None:
        self.tls = TlsContext()
        self._salted: SaltedPasswords = {}
        self._form: Form = "typed"
        self.hashed_in_vain = 0
        """How many times in a row a broker made us hash the password and then hung up, or said nothing more."""

    async def login(self, security: SecurityConfig) -> Login:
        """`read_login`, with the salted passwords of before. On cancellation: see there."""
        return await read_login(security, self._salted, self._form)

    def took(self, login: Login) -> None:
        """A broker took ``login``: its form comes first from now on."""
        self._form = login.form

    def __repr__(self) -> str:
        return f"<Credentials {self.tls!r}, {len(self._salted)} salted passwords>"


# By identity: what one configuration found out shall not end with another one that happens to be equal.
_OF: dict[int, Credentials] = {}


def credentials_of(security: SecurityConfig) -> Credentials:
    """Those of ``security``; they end with it."""
    found = _OF.get(id(security))
    if found is None:
        found = _OF[id(security)] = Credentials()
        weakref.finalize(security, _OF.pop, id(security)).atexit = False
    return found
