"""What a track call came to, and the ways in which it can fail.

    ClientError
     ├── Refused        the events or the key are wrong (400); sending again will not help
     ├── Unreachable    the address is wrong or speaks something else; an operator's to correct
     └── EventError     see `events`: refused here, before anything was sent

Owns: the values. Invariant: ``Accepted`` is only made from an answer that says delivered or spooled.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

__all__ = ["Accepted", "Ack", "AckStatus", "ClientError", "Refused", "RetryDetails", "Unreachable"]

AckStatus: TypeAlias = Literal["delivered", "spooled", "rejected", "not_sent", "unknown", "busy"]


class ClientError(Exception):
    """Base of what the client raises on purpose."""


class Refused(ClientError):
    """The collector refused for good: 400, or ``rejected``. Correct the events or the key; do not send again.

    ``code`` is the server's short word (or the HTTP status), ``message`` its sentence.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}" if message else code)
        self.code = code
        self.message = message


class Unreachable(ClientError):
    """Nothing that speaks our protocol answers there, and trying again would not change it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted:
    """Every event is in Kafka or on the collector's disk, but for those that were bad beside good ones."""

    events: int
    """All of them, the ``rejected`` ones included."""
    rejected: int = 0
    """Bad for good, among good ones of the same request: they went to the collector's bad topic."""
    attempts: int
    request_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Ack:
    """The collector's final word on one websocket message, after every retry."""

    status: AckStatus
    code: str | None = None
    message: str | None = None
    counts: Mapping[str, int] = field(default_factory=dict)
    attempts: int = 1

    @property
    def accepted(self) -> bool:
        """In Kafka or on the collector's disk."""
        return self.status in ("delivered", "spooled")


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryDetails:
    """Handed to ``on_retry`` before the client waits."""

    attempt: int
    """The attempt that failed, from 1."""
    reason: str
    wait_s: float = math.nan
    events: int = 0
    unknown: int = 0
    """Events of the failed attempt that may be in the log: sending them again may duplicate them (same id)."""
