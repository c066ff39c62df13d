"""OAuth tokens by client credentials: a `TokenProvider` that asks an authorization server over HTTP.

Owns: the request, the bounds on its answer, and one token for as long as it lasts. Refuses to know: Kafka; what is in a
token, but for the name to show people.

Invariant: however many connections ask at once, one request is under way; the secret is in no error and no ``repr``.

Pace. A token is fetched anew when `RENEW_AT` of its life is over, so a session that ends with it is renewed with a
fresh one. While the endpoint does not answer, an old token is used to its end, and nobody asks more often than every
`AGAIN_S`.

Source: RFC 6749 sections 2.3.1 and 4.4, KIP-768.
"""

import binascii
import json
import ssl
from base64 import b64encode, urlsafe_b64decode
from collections.abc import Mapping
from math import inf
from typing import TYPE_CHECKING
from urllib.parse import quote_plus, urlsplit

import trio

from kafka_client.errors import ConfigError, ConnectionLost, SecurityError
from kafka_client.security import OAuthToken, check_spelling, read_secret

if TYPE_CHECKING:
    import httpx  # noqa: ASYNC127  # the project's HTTP client

__all__ = ["ClientCredentials", "TokenFile", "token_endpoint_host"]

#: Java's client renews at 0.8 too (sasl.login.refresh.window.factor).
RENEW_AT = 0.8
#: Between two requests of which the first failed.
AGAIN_S = 1.0
#: One request, from the connect to the last byte; below the 5 s of ``connect_timeout_s``.
REQUEST_S = 4.0
#: Tokens of several KiB exist; whatever is larger is none.
ANSWER_MAX_BYTES = 64 * 1024
_SHOWN_CHARS = 200


class ClientCredentials:
    """Give it to ``SecurityConfig(sasl_oauth_token=…)``. Usable by any number of tasks at once."""

    def __init__(
        self,
        *,
        token_endpoint_url: str,
        client_id: str,
        client_secret: str | None = None,
        client_secret_file: str | None = None,
        scope: str | None = None,
        ssl_cafile: str | None = None,
        extensions: Mapping[str, str] | None = None,
        transport: "httpx.AsyncBaseTransport | None" = None,
    ) -> None:
        """Args:
            token_endpoint_url: ``https://…``; plain ``http`` sends the secret readable by all.
            client_secret_file: instead of ``client_secret``; read again for each request.
            scope: of the token, words separated by spaces.
            ssl_cafile: PEM certificates to trust there; None takes the system's.
            extensions: SASL extensions to send with each token (KIP-342).
            transport: how HTTP travels; None is httpx's own.

        Raises:
            ConfigError: a value that cannot work.
        """
        self._host = token_endpoint_host(token_endpoint_url)
        for field, text in (("id", client_id), ("secret", client_secret or ""), ("scope", scope or "")):
            check_spelling(f"sasl_oauth_client_{field}".replace("client_scope", "scope"), text, "OAUTHBEARER")
        if not client_id:
            raise ConfigError("sasl_oauth_client_id: is empty")
        if (client_secret is None) == (client_secret_file is None):
            raise ConfigError("sasl_oauth_client_secret: either it or sasl_oauth_client_secret_file is needed")
        self._url = token_endpoint_url
        self._client_id = client_id
        self._secret = client_secret
        self._secret_file = client_secret_file
        self._scope = scope
        self._cafile = ssl_cafile
        self._extensions = dict(extensions or {})
        self._transport = transport
        self._fetching = trio.Lock()
        self._token: OAuthToken | None = None
        self._fetched_at = -inf
        self._failed_at = -inf
        self._failure: ConnectionLost | None = None
        self.requests_total = 0

    def __repr__(self) -> str:
        return f"<ClientCredentials {self._client_id!r} at {self._host}, {self.requests_total} requests>"

    async def __call__(self) -> OAuthToken:
        """A token that is valid now.

        Raises:
            SecurityError: the endpoint refused, or its answer or our secret cannot be used.
            ConnectionLost: it did not answer.

        On cancellation: the request is given up.
        """
        await trio.lowlevel.checkpoint()
        async with self._fetching:
            now = trio.current_time()
            if self._left_s(now, RENEW_AT) > 0:
                return self._current(now)
            if now < self._failed_at + AGAIN_S and self._failure is not None:
                return self._current_or(self._failure, now)
            self.requests_total += 1
            try:
                self._token = await self._fetch()
            except ConnectionLost as error:
                self._failed_at, self._failure = trio.current_time(), error
                return self._current_or(error, trio.current_time())
            self._fetched_at = now
            return self._current(trio.current_time())

    def refused(self, token: OAuthToken) -> None:
        """A broker does not take ``token``: it was revoked, say, or our clock stood still. The next one is fetched."""
        if self._token is not None and self._token.value == token.value:
            self._token = None

    def _left_s(self, now: float, part: float = 1.0) -> float:
        """How much is left of ``part`` of the token's life."""
        return -inf if self._token is None else self._fetched_at + self._token.lifetime_s * part - now

    def _current(self, now: float) -> OAuthToken:
        token = self._token
        assert token is not None
        return OAuthToken(
            value=token.value, lifetime_s=self._left_s(now), principal=token.principal, extensions=self._extensions
        )

    def _current_or(self, error: ConnectionLost, now: float) -> OAuthToken:
        if self._left_s(now) > 0:
            return self._current(now)
        raise type(error)(str(error)) from error.__cause__

    async def _fetch(self) -> OAuthToken:
        # Here: importing it takes longer than all of kafka_client, and most have no tokens.
        import httpx  # noqa: ASYNC127

        try:
            secret = self._read_secret()
            verify = ssl.create_default_context(cafile=self._cafile)
        except (ConfigError, OSError) as error:
            raise SecurityError(f"no OAuth token: {error}") from None
        pair = f"{quote_plus(self._client_id)}:{quote_plus(secret)}"
        headers = {
            "Authorization": f"Basic {b64encode(pair.encode()).decode()}",
            "Accept": "application/json",
            "Accept-Encoding": "identity",
        }
        form = {"grant_type": "client_credentials", **({"scope": self._scope} if self._scope else {})}
        words = f" within {REQUEST_S:g} s"
        try:
            with trio.move_on_after(REQUEST_S):
                # No redirects: the secret goes to the configured host alone.
                async with httpx.AsyncClient(
                    verify=verify, transport=self._transport, timeout=None, trust_env=False
                ) as client:
                    async with client.stream("POST", self._url, data=form, headers=headers) as answer:
                        body = await _read_bounded(answer)
                        return self._parse(answer.status_code, body, secret)
        except httpx.HTTPError as error:
            words = f": {type(error).__name__}: {error}".replace(secret, "…")
        # Here, where httpx's error is not behind it: that knows the request, whose headers hold the secret.
        raise ConnectionLost(f"no OAuth token from {self._host}{words}")

    def _read_secret(self) -> str:
        if self._secret_file is not None:
            return read_secret("sasl_oauth_client_secret_file", self._secret_file)
        assert self._secret is not None
        return self._secret

    def _parse(self, status: int, body: bytes, secret: str) -> OAuthToken:
        answer = _json_object(body)
        if status != 200:
            words = " ".join(str(answer[name]) for name in ("error", "error_description") if name in answer)
            shown = "".join(filter(str.isprintable, words.replace(secret, "…")))[:_SHOWN_CHARS]
            text = f"the token endpoint {self._host} answered {status}{': ' if shown else ''}{shown}"
            if status >= 500 or status in (408, 429):
                raise ConnectionLost(text)
            raise SecurityError(f"{text}; check sasl_oauth_client_id, its secret and sasl_oauth_scope")
        value, life_s = answer.get("access_token"), _seconds(answer.get("expires_in", inf))
        if not isinstance(value, str) or not value:
            raise SecurityError(f"the token endpoint {self._host} answered without an access_token")
        if life_s is None:
            raise SecurityError(f"the token endpoint {self._host} answered with an expires_in that is no duration")
        return OAuthToken(value=value, lifetime_s=life_s, principal=_subject(value) or self._client_id)


class TokenFile:
    """A `TokenProvider` for a token that somebody else keeps fresh in a file; read again for each authentication."""

    def __init__(self, path: str) -> None:
        self._path = path

    def __repr__(self) -> str:
        return f"<TokenFile {self._path!r}>"

    async def __call__(self) -> OAuthToken:
        """The token of now; raises `SecurityError`. On cancellation: nothing happens."""
        await trio.lowlevel.checkpoint()
        try:
            value = read_secret("sasl_oauth_token_file", self._path).strip()
        except ConfigError as error:
            raise SecurityError(str(error)) from None
        return OAuthToken(value=value, principal=_subject(value))


def token_endpoint_host(url: str) -> str:
    """The host of a token endpoint; raises `ConfigError` for a URL that cannot work, without repeating it."""
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and parts.username is None and parts.port != 0
        host = parts.hostname if usable else None
    except ValueError:  # brackets that do not match, a port that is no number
        host = None
    if not host:
        raise ConfigError("sasl_oauth_token_endpoint_url: expected https://host/path, without a user name in it")
    return host


def _seconds(life: object) -> float | None:
    """A positive duration; None for anything else. Some servers write it as a string."""
    if isinstance(life, bool) or not isinstance(life, int | float | str):
        return None
    try:
        found = float(life)
    except (ValueError, OverflowError):
        return None
    return found if found > 0 else None


async def _read_bounded(answer: "httpx.Response") -> bytes:
    # To the end, since a generator that is left in the middle is closed at any later time, in no task; what is too much
    # is thrown away, and `REQUEST_S` bounds it.
    body = bytearray()
    async for chunk in answer.aiter_raw():  # not inflated: 64 KiB could become 64 MiB
        if len(body) <= ANSWER_MAX_BYTES:
            body += chunk
    if len(body) > ANSWER_MAX_BYTES:
        raise SecurityError(f"the token endpoint answered with more than {ANSWER_MAX_BYTES} bytes")
    return bytes(body)


def _json_object(body: bytes) -> dict[str, object]:
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _subject(token: str) -> str | None:
    """Whom a JWT names, unverified, for messages; None for other tokens."""
    parts = token.split(".")
    if len(parts) != 3:
        return None
    try:
        claims = _json_object(urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except (binascii.Error, ValueError):
        return None
    subject = claims.get("sub")
    return subject[:_SHOWN_CHARS] if isinstance(subject, str) else None
