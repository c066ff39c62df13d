"""SASL on a Kafka connection: SaslHandshake, then SaslAuthenticate until both sides are content.

Owns: which mechanism is begun with what, the reading of error codes, and the sentences for people who have to mend
something. Refuses to know: who drives the exchange (a fresh connection or one that re-authenticates), and time.

Non-obvious: the last answer tells for how long the broker is convinced (KIP-368); 0 is for ever. PLAIN sends the
password as it is (RFC 4616 leaves the preparation to the server). SCRAM should prepare it with SASLprep (RFC 5802), but
Apache Kafka stores what was typed (ScramFormatter.normalize is UTF-8 and nothing else) and its other clients send that,
so it comes first; the prepared form is the other one.

Source: KIP-43, KIP-152, KIP-255, KIP-368; RFC 4616 (PLAIN); Kafka's SaslServerAuthenticator.
"""

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from functools import partial
from math import inf
from pathlib import PurePath
from typing import Literal, TypeAlias

from kafka_client.errors import ConfigError, ConnectionLost, SecurityError
from kafka_client.security import OAuthToken, SecurityConfig, check_spelling, read_secret
from kafka_client.wire import sasl_authenticate, sasl_handshake
from kafka_client.wire.error_names import error_name

from .oauthbearer import oauthbearer
from .saslprep import saslprep
from .scram import AUTHENTICATION_FAILED, SaltedPasswords, ScramCredentials, scram
from .steps import Exchange, Step, Work

__all__ = ["AUTHENTICATION_FAILED", "Form", "Login", "Session", "authenticate", "describe", "read_login"]

Versions: TypeAlias = Mapping[int, tuple[int, int]]
#: Of a user name and password.
Form: TypeAlias = Literal["typed", "prepared"]

_HANDSHAKE_VERSION = 1  # after version 0 the mechanism's bytes would travel without frames; since Kafka 1.0
_UNSUPPORTED_MECHANISM = 33
_ILLEGAL_STATE = 34
_ADVICE = "check sasl_username and sasl_password"
_BOTH_FORMS = f"{_ADVICE}; it was tried as typed and as SASLprep (RFC 4013) spells it"
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
    form: Form = "typed"
    refused: Callable[[], None] = lambda: None
    """To be called where the broker refuses it."""
    other: "Login | None" = None
    """The other form, where there is one: to be tried once on a new connection where the broker refuses this one."""

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


async def read_login(security: SecurityConfig, salted: SaltedPasswords, form: Form = "typed") -> Login:
    """Read the secrets of now; ``form`` is tried first.

    Raises:
        SecurityError: there is none, or it cannot be used.
        ConnectionLost: the provider of tokens could not reach its source.

    On cancellation: so is the provider of tokens.
    """
    mechanism = security.sasl_mechanism
    assert mechanism is not None
    if security.sasl_oauth_token is not None:
        token = await _ask_token(security)
        return _token_login(mechanism, token, getattr(security.sasl_oauth_token, "refused", None))
    try:
        return _password_login(mechanism, security, salted, form)  # noqa: ASYNC910  # nothing to wait for
    except ConfigError as error:
        raise SecurityError(str(error)) from error


def _password_login(mechanism: str, security: SecurityConfig, salted: SaltedPasswords, form: Form) -> Login:
    username = security.sasl_username
    assert username is not None
    if security.sasl_password_file is not None:
        password = read_secret("sasl_password_file", security.sasl_password_file)
        check_spelling("sasl_password_file", password, mechanism)
    else:
        assert security.sasl_password is not None
        password = security.sasl_password
    who = f"user {username!r}"
    if mechanism == "PLAIN":
        return Login(mechanism, who, _ADVICE, partial(_plain, username, password))
    typed, prepared = ScramCredentials(username, password), _prepared(username, password)
    start = partial(scram, mechanism, cache=salted)
    if prepared in (typed, None):
        return Login(mechanism, who, _ADVICE, partial(start, typed))
    forms: list[tuple[Form, ScramCredentials]] = [("typed", typed), ("prepared", prepared)]
    if form == "prepared":
        forms.reverse()
    (first, one), (second, other) = forms
    again = Login(mechanism, who, _BOTH_FORMS, partial(start, other), form=second)
    return Login(mechanism, who, _ADVICE, partial(start, one), form=first, other=again)


def _prepared(username: str, password: str) -> ScramCredentials | None:
    """None where SASLprep prohibits them: then no broker stores them prepared."""
    try:
        return ScramCredentials(saslprep(username, "sasl_username"), saslprep(password, "sasl_password"))
    except ConfigError:
        return None


def _plain(username: str, password: str) -> Generator[bytes | Work, bytes, None]:
    yield f"\0{username}\0{password}".encode()


def _token_login(mechanism: str, token: OAuthToken, refused: Callable[[OAuthToken], None] | None) -> Login:
    who = "our OAuth token" if token.principal is None else f"the OAuth token of {token.principal!r}"
    advice = "check the token's issuer, audience, scope and lifetime against the broker's sasl.oauthbearer settings"
    start = partial(oauthbearer, token)
    if refused is None:
        return Login(mechanism, who, advice, start)
    return Login(mechanism, who, advice, start, refused=partial(refused, token))


async def _ask_token(security: SecurityConfig) -> OAuthToken:
    provide = security.sasl_oauth_token
    assert provide is not None
    try:
        token: object = await provide()
    except ConnectionLost:
        raise
    except ConfigError as error:
        failure = str(error)
    except Exception as error:
        # A rim: the provider is not ours and its trouble shall not end the producer. Its words, and those of errors
        # chained to it, may hold a secret: so where it was, and no chain.
        failure = f"the provider failed with {type(error).__name__}{_place(error)}"
    else:
        if isinstance(token, OAuthToken) and isinstance(token.value, str):
            return token
        failure = "the provider returned no OAuthToken with a text as its value"
    raise SecurityError(f"sasl_oauth_token: {failure}")


def _place(error: Exception) -> str:
    found = error.__traceback__
    while found is not None and found.tb_next is not None:
        found = found.tb_next
    if found is None:
        return ""
    return f" ({PurePath(found.tb_frame.f_code.co_filename).name}:{found.tb_lineno})"


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
                login.refused()
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
        offered = _printable(", ".join(answer.mechanisms)) or "none"
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
    words = _printable(message or "") or f"{error_name(code)} ({code})"
    return SecurityError(f"the broker refused {login.who} with {login.mechanism}: {words}; {login.advice}", code=code)


def _printable(words: str) -> str:
    """What of a broker's words may stand in a log."""
    return "".join(filter(str.isprintable, words[: 4 * _SHOWN_CHARS]))[:_SHOWN_CHARS]
