"""SASL on a Kafka connection: SaslHandshake, then SaslAuthenticate until both sides are content.

Owns: which mechanism is begun with what, the reading of error codes, and the sentences for people who have to mend
something. Refuses to know: who drives the exchange (a fresh connection or one that re-authenticates), and time.

Non-obvious: the last answer tells for how long the broker is convinced (KIP-368); 0 is for ever. PLAIN sends the
password as it is (RFC 4616 leaves the preparation to the server).

Source: KIP-43, KIP-152, KIP-255, KIP-368; RFC 4616 (PLAIN); Kafka's SaslServerAuthenticator.
"""

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from functools import partial
from math import inf
from typing import TypeAlias

from kafka_client.errors import ConfigError, KafkaError, SecurityError
from kafka_client.security import OAuthToken, SecurityConfig, read_secret
from kafka_client.wire import sasl_authenticate, sasl_handshake
from kafka_client.wire.error_names import error_name

from .oauthbearer import oauthbearer
from .saslprep import saslprep
from .scram import SaltedPasswords, ScramCredentials, scram
from .steps import Exchange, Step, Work

__all__ = ["Login", "Session", "authenticate", "describe", "read_login"]

Versions: TypeAlias = Mapping[int, tuple[int, int]]

_HANDSHAKE_VERSION = 1  # after version 0 the mechanism's bytes would travel without frames; since Kafka 1.0
_UNSUPPORTED_MECHANISM = 33
_ILLEGAL_STATE = 34
_AUTHENTICATION_FAILED = 58
_UNPREPARED = (
    "check sasl_username and sasl_password; SASLprep (RFC 4013), which SCRAM demands, spells them in another way than "
    "they were typed, and Apache Kafka stores what was typed: choose a spelling that it leaves alone"
)
#: Of a broker's own words.
_SHOWN_CHARS = 300


@dataclass(frozen=True, slots=True)
class Login:
    """What one authentication proves, and how: read anew each time."""

    mechanism: str
    who: str
    """For people."""
    advice: str
    """What to look at where it is refused."""
    start: Callable[[], Generator[bytes | Work, bytes, None]]

    def __repr__(self) -> str:
        return f"<Login {self.who} {self.mechanism}>"  # `start` holds the secret


@dataclass(frozen=True, slots=True)
class Session:
    """The broker is convinced."""

    mechanism: str
    who: str
    lifetime_s: float
    """From the moment at which the last step was asked; ``inf`` where the broker sets no end."""


def describe(security: SecurityConfig, session: Session | None) -> str:
    """Who a connection is to its broker, in words."""
    hidden = "encrypted" if security.protocol.endswith("SSL") else "not encrypted"
    if session is not None:
        return f"{security.protocol}, {session.mechanism} as {session.who}, {hidden}"
    if security.ssl_certfile is not None:
        return f"{security.protocol}, with the certificate of {security.ssl_certfile}, {hidden}"
    return f"{security.protocol}, as nobody (ANONYMOUS), {hidden}"


async def read_login(security: SecurityConfig, salted: SaltedPasswords) -> Login:
    """Read the secrets of now.

    Raises:
        SecurityError: there is none, or it cannot be used.
        ConnectionLost: the provider of tokens could not reach its source.

    On cancellation: so is the provider of tokens.
    """
    mechanism = security.sasl_mechanism
    assert mechanism is not None
    if security.sasl_oauth_token is not None:
        return _token_login(mechanism, await _ask_token(security))
    try:
        return _password_login(mechanism, security, salted)  # noqa: ASYNC910  # nothing to wait for
    except ConfigError as error:
        raise SecurityError(str(error)) from None  # the cause may hold the secret


def _password_login(mechanism: str, security: SecurityConfig, salted: SaltedPasswords) -> Login:
    username = security.sasl_username
    assert username is not None
    if security.sasl_password_file is not None:
        password = read_secret("sasl_password_file", security.sasl_password_file)
    else:
        assert security.sasl_password is not None
        password = security.sasl_password
    advice = "check sasl_username and sasl_password"
    start: Callable[[], Generator[bytes | Work, bytes, None]]
    if mechanism == "PLAIN":
        if "\0" in username or "\0" in password:
            raise ConfigError("sasl_password: PLAIN takes no NUL in user name and password")
        start = partial(_plain, username, password)
    else:
        prepared = ScramCredentials(saslprep(username, "sasl_username"), saslprep(password, "sasl_password"))
        start = partial(scram, mechanism, prepared, salted)
        if (prepared.username, prepared.password) != (username, password):
            advice = _UNPREPARED
    return Login(mechanism, f"user {username!r}", advice, start)


def _plain(username: str, password: str) -> Generator[bytes | Work, bytes, None]:
    yield f"\0{username}\0{password}".encode()


def _token_login(mechanism: str, token: OAuthToken) -> Login:
    who = "our OAuth token" if token.principal is None else f"the OAuth token of {token.principal!r}"
    advice = "check the token's issuer, audience, scope and lifetime against the broker's sasl.oauthbearer settings"
    return Login(mechanism, who, advice, partial(oauthbearer, token))


async def _ask_token(security: SecurityConfig) -> OAuthToken:
    assert security.sasl_oauth_token is not None
    try:
        return await security.sasl_oauth_token()
    except KafkaError:
        raise
    except Exception as error:
        # A rim: the provider is not ours, its network trouble shall not end the producer, and its words may hold a
        # secret.
        raise SecurityError(f"sasl_oauth_token: the provider failed with {type(error).__name__}") from error


def authenticate(login: Login, versions: Versions) -> Exchange[Session]:
    """Convince the broker. Raises `SecurityError`, `ProtocolError`."""
    version = _authenticate_version(versions)
    request = sasl_handshake.SaslHandshakeRequest(login.mechanism)
    body = sasl_handshake.encode_request(request, _HANDSHAKE_VERSION)
    answer = yield Step(sasl_handshake.API_KEY, _HANDSHAKE_VERSION, body)
    _check_handshake(sasl_handshake.decode_response(answer, _HANDSHAKE_VERSION), login)

    lifetime_ms = 0
    messages = login.start()
    wanted = next(messages)
    while True:
        if isinstance(wanted, Work):
            reply = yield wanted
        else:
            asked = sasl_authenticate.encode_request(sasl_authenticate.SaslAuthenticateRequest(wanted), version)
            answer = yield Step(sasl_authenticate.API_KEY, version, asked)
            decoded = sasl_authenticate.decode_response(answer, version)
            if decoded.error_code != 0:
                raise _refused(login, decoded.error_code, decoded.error_message)
            reply, lifetime_ms = decoded.auth_bytes, decoded.session_lifetime_ms
        try:
            wanted = messages.send(bytes(reply))
        except StopIteration:
            return Session(login.mechanism, login.who, lifetime_ms / 1000 if lifetime_ms > 0 else inf)


def _authenticate_version(versions: Versions) -> int:
    handshake, steps = versions.get(sasl_handshake.API_KEY), versions.get(sasl_authenticate.API_KEY)
    if handshake is None or steps is None or handshake[1] < _HANDSHAKE_VERSION:
        raise SecurityError("the broker is too old for our SASL, which Kafka speaks since 1.0 (KIP-152)")
    version = min(sasl_authenticate.MAX_VERSION, steps[1])
    if handshake[0] > _HANDSHAKE_VERSION or version < steps[0]:
        raise SecurityError(
            f"the broker speaks SaslHandshake {handshake[0]}–{handshake[1]}, SaslAuthenticate {steps[0]}–{steps[1]}; "
            f"we speak {_HANDSHAKE_VERSION} and 0–{sasl_authenticate.MAX_VERSION}"
        )
    return version


def _check_handshake(answer: sasl_handshake.SaslHandshakeResponse, login: Login) -> None:
    code = answer.error_code
    if code == _UNSUPPORTED_MECHANISM:
        offered = ", ".join(answer.mechanisms)[:_SHOWN_CHARS] or "none"
        raise SecurityError(
            f"the broker does not take SASL mechanism {login.mechanism}, it offers {offered}: "
            "set sasl_mechanism, or the broker's sasl.enabled.mechanisms",
            code=code,
        )
    if code == _ILLEGAL_STATE:
        raise SecurityError(
            "the broker does not expect SASL here: is security.protocol that of this listener?", code=code
        )
    if code != 0:
        raise SecurityError(f"SaslHandshake was answered with {error_name(code)} ({code})", code=code)


def _refused(login: Login, code: int, message: str | None) -> SecurityError:
    words = "".join(filter(str.isprintable, message or ""))[:_SHOWN_CHARS] or f"{error_name(code)} ({code})"
    return SecurityError(f"the broker refused {login.who} with {login.mechanism}: {words}; {login.advice}", code=code)
