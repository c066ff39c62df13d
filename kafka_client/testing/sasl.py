"""SASL as a broker does it: users, mechanisms, sessions that end; strict.

Owns: who may log in, the server's side of each mechanism, and what a connection may send in which state. Refuses to
know: frames, and the client: nothing here is shared with `kafka_client.network`.

What Kafka's SaslServerAuthenticator does, and this: before authentication only ApiVersions, once, and SaslHandshake;
from the handshake on only SaslAuthenticate; whatever else comes closes the connection, and is a violation here. A
refusal is answered late and closes the connection. A session that is over ends with the next request, unless that is a
handshake; a handshake less than a second after the last one is refused; another principal at re-authentication is too.
"""

import base64
import hashlib
import hmac
import re
import secrets
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from kafka_client.testing.messages import Api, BadRequest

__all__ = ["Authentication", "FakeSasl", "Refused", "SaslState"]

ALL_MECHANISMS = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER")
#: KafkaChannel's MIN_REAUTH_INTERVAL_ONE_SECOND_NANOS.
BETWEEN_MIN_S = 1.0

_SCRAM_FIRST = re.compile(r"n,,(n=([^,]+),r=([\x21-\x2b\x2d-\x7e]+))\Z")
_SCRAM_FINAL = re.compile(r"(c=biws,r=([\x21-\x2b\x2d-\x7e]+)),p=([A-Za-z0-9+/=]+)\Z")
_BEARER = re.compile(r"n,,\x01auth=Bearer ([A-Za-z0-9\-._~+/]+=*)\x01(?:[A-Za-z]+=[\x20-\x7e]+\x01)*\x01\Z")


class Refused(Exception):
    """58, with Kafka's words."""


@dataclass(frozen=True, slots=True)
class Authentication:
    """One that succeeded. ``time`` is `trio.current_time()`."""

    time: float
    connection: int
    mechanism: str
    principal: str
    again: bool
    """It was a re-authentication."""


@dataclass(slots=True, kw_only=True)
class FakeSasl:
    """What the brokers know of their users. Everything may be changed while they run.

    Attributes:
        users: Name → password, for PLAIN and SCRAM.
        tokens: Token → principal, for OAUTHBEARER.
        mechanisms: Which are enabled.
        session_lifetime_s: How long an authentication holds; 0 sets no end.
        iterations: Of SCRAM.
        failure_delay_s: connection.failed.authentication.delay.ms.
        authentications: Those that succeeded, in order.
        refusals: The words of those that did not.
    """

    users: dict[str, str] = field(default_factory=dict)
    tokens: dict[str, str] = field(default_factory=dict)
    mechanisms: Sequence[str] = ALL_MECHANISMS
    session_lifetime_s: float = 0.0
    iterations: int = 4096
    failure_delay_s: float = 0.1
    authentications: list[Authentication] = field(default_factory=list)
    refusals: list[str] = field(default_factory=list)


#: Yields the server's message, is sent the client's; returns the last message and the principal.
_Exchange: TypeAlias = Generator[bytes, bytes, tuple[bytes, str]]


class SaslState:
    """Of one connection."""

    def __init__(self, sasl: FakeSasl, connection: int) -> None:
        self._sasl = sasl
        self._connection = connection
        self._asked_versions = False
        self._exchange: _Exchange | None = None
        self._mechanism = ""
        self._principal = ""
        self._expires_at = float("inf")
        self._handshake_at: float | None = None
        """When the last *re*-authentication began."""

    def __repr__(self) -> str:
        return f"<SaslState {self._principal or 'nobody'}{', in an exchange' if self._exchange else ''}>"

    def admit(self, api: Api, now: float) -> None:
        """Raise `BadRequest` for what closes the connection."""
        if self._exchange is not None:
            if api is not Api.SASL_AUTHENTICATE:
                raise BadRequest(f"{api.name} between SaslHandshake and the end of the authentication")
        elif not self._principal:
            if api not in (Api.API_VERSIONS, Api.SASL_HANDSHAKE) or (api is Api.API_VERSIONS and self._asked_versions):
                raise BadRequest(f"{api.name} before the authentication")
            self._asked_versions |= api is Api.API_VERSIONS
        elif api is not Api.SASL_HANDSHAKE and now > self._expires_at:
            raise BadRequest(f"{api.name} after the session was over")

    def begin(self, mechanism: str, now: float) -> bool:
        """A handshake for an enabled mechanism; False where it is none (too soon after the last)."""
        if self._principal:
            if self._handshake_at is not None and now - self._handshake_at < BETWEEN_MIN_S:
                return False
            if mechanism != self._mechanism:
                raise BadRequest(f"re-authentication with {mechanism} instead of {self._mechanism}")
            self._handshake_at = now
        self._mechanism = mechanism
        match mechanism:
            case "PLAIN":
                self._exchange = _plain(self._sasl.users)
            case "OAUTHBEARER":
                self._exchange = _oauthbearer(self._sasl.tokens)
            case _:
                self._exchange = _scram(mechanism, self._sasl)
        next(self._exchange)
        return True

    def step(self, message: bytes, now: float) -> tuple[bytes, int]:
        """(the answer's bytes, session lifetime in ms). Raises `Refused`."""
        exchange = self._exchange
        if exchange is None:
            raise BadRequest("SaslAuthenticate without SaslHandshake")
        try:
            return exchange.send(message), 0
        except StopIteration as end:
            last, principal = end.value
        if self._principal not in ("", principal):
            raise Refused(
                f"Cannot change principals during re-authentication from User.{self._principal}: User.{principal}"
            )
        again, self._exchange, self._principal = bool(self._principal), None, principal
        lifetime_s = self._sasl.session_lifetime_s
        self._expires_at = now + lifetime_s if lifetime_s else float("inf")
        self._sasl.authentications.append(Authentication(now, self._connection, self._mechanism, principal, again))
        return last, round(lifetime_s * 1000)


def _plain(users: Mapping[str, str]) -> _Exchange:
    message = (yield b"").decode()
    parts = message.split("\0")
    if len(parts) != 3 or parts[0] not in ("", parts[1]) or not parts[1] or users.get(parts[1]) != parts[2]:
        raise Refused("Authentication failed: Invalid username or password")
    return b"", parts[1]


def _oauthbearer(tokens: Mapping[str, str]) -> _Exchange:
    found = _BEARER.match((yield b"").decode())
    if found is None:
        raise Refused(_words("OAUTHBEARER"))
    principal = tokens.get(found[1])
    if principal is None:
        error = '{"status":"invalid_token"}'
        if (yield error.encode()) != b"\x01":
            raise BadRequest("an OAUTHBEARER error has to be answered with 0x01")
        raise Refused(error)
    return b"", principal


def _scram(mechanism: str, sasl: FakeSasl) -> _Exchange:
    algorithm = "sha256" if mechanism.endswith("256") else "sha512"
    first = _SCRAM_FIRST.match((yield b"").decode())
    if first is None:
        raise Refused(_words(mechanism))
    bare, name, nonce = first.groups()
    user = name.replace("=2C", ",").replace("=3D", "=")
    password = sasl.users.get(user)
    if password is None:
        raise Refused(_words(mechanism))
    salt = hashlib.sha256(user.encode()).digest()[:16]
    salted = hashlib.pbkdf2_hmac(algorithm, password.encode(), salt, sasl.iterations)
    whole = nonce + secrets.token_hex(8)
    challenge = f"r={whole},s={base64.b64encode(salt).decode()},i={sasl.iterations}"
    final = _SCRAM_FINAL.match((yield challenge.encode()).decode())
    if final is None or final[2] != whole:
        raise Refused(_words(mechanism))
    signed = f"{bare},{challenge},{final[1]}".encode()
    stored = hashlib.new(algorithm, hmac.new(salted, b"Client Key", algorithm).digest()).digest()
    mask = hmac.new(stored, signed, algorithm).digest()
    proof = base64.b64decode(final[3])
    client_key = bytes(a ^ b for a, b in zip(proof, mask, strict=False))
    if hashlib.new(algorithm, client_key).digest() != stored:
        raise Refused(_words(mechanism))
    server_key = hmac.new(salted, b"Server Key", algorithm).digest()
    verifier = hmac.new(server_key, signed, algorithm).digest()
    return b"v=" + base64.b64encode(verifier), user


def _words(mechanism: str) -> str:
    return f"Authentication failed during authentication due to invalid credentials with SASL mechanism {mechanism}"
