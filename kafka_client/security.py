"""How a connection proves who it is and whom it talks to: one frozen value, and the tokens of those who have them.

Owns: which settings belong together, and the reading of secrets from files. Refuses to know: how TLS and SASL work
(`kafka_client.network`).

Invariant: a secret is in no ``repr`` and in no error. A file that holds one is read again for each authentication, so a
secret that is rotated on disk works without a restart.
"""

import unicodedata
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from math import inf
from pathlib import Path
from typing import Literal, TypeAlias

from kafka_client.errors import ConfigError

__all__ = [
    "PLAINTEXT",
    "SASL_MECHANISMS",
    "OAuthToken",
    "SaslMechanism",
    "SecurityConfig",
    "SecurityProtocol",
    "TokenProvider",
    "check_spelling",
    "read_secret",
]

SecurityProtocol: TypeAlias = Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"]
SaslMechanism: TypeAlias = Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"]

PROTOCOLS = ("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL")
SASL_MECHANISMS = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER")

#: A password or token is a line; whoever names a larger file has named the wrong one.
SECRET_MAX_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class OAuthToken:
    """What a `TokenProvider` returns. Source: KIP-255, RFC 7628."""

    value: str = field(repr=False)
    """The bearer token as it goes to the broker (RFC 6750's ``b64token``: a JWT is one)."""
    lifetime_s: float = inf
    """How much longer it is valid, for whoever keeps it; how long a session lasts is the broker's to say."""
    principal: str | None = None
    """Whom it stands for, for messages to people; the broker finds out by itself."""
    extensions: Mapping[str, str] = field(default_factory=dict)
    """SASL extensions (KIP-342): names of letters, printable values."""


#: Asked before each authentication and re-authentication, so it keeps a token for as long as that is valid. It raises
#: `SecurityError` where it is refused (retried every ``operator_retry_s``), `ConnectionLost` where nobody answers
#: (retried with the usual pauses). It is bounded by ``connect_timeout_s``. Where it has a method ``refused``, that is
#: called with a token that a broker does not take.
TokenProvider: TypeAlias = Callable[[], Awaitable[OAuthToken]]


@dataclass(frozen=True, slots=True, kw_only=True, weakref_slot=True)
class SecurityConfig:
    """How a connection proves who it is and whom it talks to. ``ssl_`` paths name PEM files.

    Certificates, keys and secrets in files may be replaced while connections are open: the next connection or
    re-authentication uses what is there then.
    """

    protocol: SecurityProtocol = "PLAINTEXT"
    ssl_cafile: str | None = None
    """Certificates to trust; None takes the system's."""
    ssl_certfile: str | None = None
    """Our certificate chain, for mTLS."""
    ssl_keyfile: str | None = None
    """Our private key; None looks for it in ``ssl_certfile``."""
    ssl_keyfile_password: str | None = field(default=None, repr=False)
    ssl_check_hostname: bool = True
    sasl_mechanism: SaslMechanism | None = None
    sasl_username: str | None = None
    """For PLAIN and SCRAM. It and the password are sent as typed, since Apache Kafka stores them so; where SCRAM is
    refused and SASLprep (RFC 4013) spells them in another way, that is tried once."""
    sasl_password: str | None = field(default=None, repr=False)
    sasl_password_file: str | None = None
    """Instead of ``sasl_password``: a file with the password; one line end after it is not part of it."""
    sasl_oauth_token: TokenProvider | None = None
    """For OAUTHBEARER; `kafka_client.network.client_credentials.ClientCredentials` is one."""

    def __post_init__(self) -> None:
        if self.protocol not in PROTOCOLS:
            raise ConfigError(f"security.protocol: {self.protocol!r} is not one of {', '.join(PROTOCOLS)}")
        if self.ssl_keyfile is not None and self.ssl_certfile is None:
            raise ConfigError("ssl_keyfile: needs ssl_certfile beside it")
        if not self.protocol.startswith("SASL"):
            self._check_without_sasl()
        elif self.sasl_mechanism not in SASL_MECHANISMS:
            allowed = ", ".join(SASL_MECHANISMS)
            raise ConfigError(f"sasl_mechanism: {self.protocol} needs one of {allowed}, not {self.sasl_mechanism!r}")
        elif self.sasl_mechanism == "OAUTHBEARER":
            self._check_oauthbearer()
        else:
            self._check_password()

    def _check_without_sasl(self) -> None:
        for name in ("sasl_mechanism", "sasl_username", "sasl_password", "sasl_password_file", "sasl_oauth_token"):
            if getattr(self, name) is not None:
                raise ConfigError(f"{name}: needs security.protocol SASL_PLAINTEXT or SASL_SSL, not {self.protocol}")

    def _check_oauthbearer(self) -> None:
        if self.sasl_oauth_token is None:
            raise ConfigError("sasl_oauth_token: OAUTHBEARER needs a provider of tokens")
        for name in ("sasl_username", "sasl_password", "sasl_password_file"):
            if getattr(self, name) is not None:
                raise ConfigError(f"{name}: is not used with OAUTHBEARER")

    def _check_password(self) -> None:
        if not self.sasl_username:
            raise ConfigError(f"sasl_username: {self.sasl_mechanism} needs one")
        if (self.sasl_password is None) == (self.sasl_password_file is None):
            raise ConfigError(
                f"sasl_password: {self.sasl_mechanism} needs either sasl_password or sasl_password_file, and not both"
            )
        if self.sasl_password == "":
            raise ConfigError("sasl_password: is empty")
        assert self.sasl_mechanism is not None
        check_spelling("sasl_username", self.sasl_username, self.sasl_mechanism)
        if self.sasl_password is not None:
            check_spelling("sasl_password", self.sasl_password, self.sasl_mechanism)
        if self.sasl_oauth_token is not None:
            raise ConfigError(f"sasl_oauth_token: is used with OAUTHBEARER only, not {self.sasl_mechanism}")


#: Nothing is proved, nothing is hidden.
PLAINTEXT = SecurityConfig()


def check_spelling(field_name: str, text: str, mechanism: str) -> None:
    """Refuse what cannot be sent; raises `ConfigError` that names the kind of character, never the text.

    Other things that SASLprep prohibits are taken: Kafka stores such passwords, and its other clients send them.
    """
    if "\0" in text:
        raise ConfigError(f"{field_name}: contains NUL, which {mechanism} cannot send")
    if any(
        unicodedata.category(char) == "Cs" for char in text
    ):  # a variable of the environment with bytes that are not UTF-8
        raise ConfigError(f"{field_name}: is not text that UTF-8 can spell")
    if mechanism != "PLAIN" and any(unicodedata.category(char) == "Cc" for char in text):
        raise ConfigError(f"{field_name}: contains a control character, perhaps the end of a line")


def read_secret(field_name: str, path: str) -> str:
    """The secret in the file at ``path``; raises `ConfigError` that starts with ``field_name``."""
    try:
        with Path(path).open("rb") as file:
            content = file.read(SECRET_MAX_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: a path with NUL
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"{field_name}: {path!r} cannot be read: {reason}") from error
    text = _decoded(content)
    if text is None:
        raise ConfigError(f"{field_name}: {path!r} is not UTF-8 text")
    secret = text.removesuffix("\n").removesuffix("\r")
    if not secret:
        raise ConfigError(f"{field_name}: {path!r} is empty")
    if len(content) > SECRET_MAX_BYTES:
        raise ConfigError(f"{field_name}: {path!r} is larger than {SECRET_MAX_BYTES} bytes")
    return secret


def _decoded(content: bytes) -> str | None:
    """None where it is not UTF-8: an error raised beside the decoder's would hold the secret."""
    try:
        return content.decode()
    except UnicodeDecodeError:
        return None
