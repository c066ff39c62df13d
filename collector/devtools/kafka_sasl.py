"""SASL listeners of a Kafka of one's own: for tests of clients that have to authenticate.

Owns: the properties behind them, and who may log in. Refuses to know: ports, processes.

Invariant: every mechanism is offered on every such listener. OAUTHBEARER takes any token without a signature whose
``sub``, ``iat`` and ``exp`` are in order (Kafka's own validator for development), so nothing here is for production.

Source: Kafka's documentation, 7.3 and 7.4; KIP-900 (SCRAM users at the formatting, since 3.5); KIP-368.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

__all__ = ["BrokerSasl", "sasl_properties", "scram_arguments"]

_LOGIN = "org.apache.kafka.common.security"
_SCRAM = ("SCRAM-SHA-256", "SCRAM-SHA-512")


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerSasl:
    """A SASL_PLAINTEXT listener beside the plain one, and a SASL_SSL one where there is `BrokerTls`."""

    users: Mapping[str, str] = field(repr=False)
    """Name → password, for PLAIN and both SCRAMs. They go through a JAAS file: no double quotes, no backslashes."""
    max_reauth_ms: int = 0
    """How long a session lasts; 0 sets no end."""


def sasl_properties(sasl: BrokerSasl, listeners: Sequence[str]) -> dict[str, str]:
    """Make what ``listeners`` (their names) need of ``server.properties``."""
    accounts = " ".join(f'user_{name}="{password}"' for name, password in sasl.users.items())
    modules = {
        "plain": f"{_LOGIN}.plain.PlainLoginModule required {accounts};",
        "oauthbearer": f'{_LOGIN}.oauthbearer.OAuthBearerLoginModule required unsecuredLoginStringClaim_sub="broker";',
        **{name.lower(): f"{_LOGIN}.scram.ScramLoginModule required;" for name in _SCRAM},
    }
    rows = {
        "sasl.enabled.mechanisms": ",".join(name.upper() for name in modules),
        "connections.max.reauth.ms": str(sasl.max_reauth_ms),
    }
    for listener in listeners:
        for name, module in modules.items():
            rows[f"listener.name.{listener.lower()}.{name}.sasl.jaas.config"] = module
    return rows


def scram_arguments(sasl: BrokerSasl | None) -> list[str]:
    """Make what StorageTool's ``format`` needs to know of the users."""
    arguments: list[str] = []
    for name, password in ({} if sasl is None else sasl.users).items():
        for mechanism in _SCRAM:
            arguments += ["--add-scram", f"{mechanism}=[name={name},password={password}]"]
    return arguments
