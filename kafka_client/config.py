"""The producer's configuration: one frozen value, checked whole before anything starts.

Owns: every bound, duration and size of the library, with its unit in its name. Refuses to know: files, environment
variables, and anything of the collector.

Invariant: ``produce_timeout_s < request_timeout_s < delivery_timeout_s``. None of them is ever
derived from a caller's deadline: giving a Kafka request up means closing its connection, which taints all that is in
flight.
"""

import math
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import trio

from kafka_client.errors import ConfigError
from kafka_client.security import PLAINTEXT, SecurityConfig

__all__ = ["Compression", "Connector", "ProducerConfig", "SecurityConfig", "parse_bootstrap_servers"]

Compression: TypeAlias = Literal["none", "gzip", "snappy", "lz4", "zstd"]

#: How a byte stream to one broker is made: (host, port) -> stream. Raises OSError when it cannot. TLS goes on top.
Connector: TypeAlias = Callable[[str, int], Awaitable[trio.abc.HalfCloseableStream]]

KIB = 1024
MIB = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class ProducerConfig:
    """Everything the producer can be told. Sizes are bytes, durations seconds."""

    bootstrap_servers: Sequence[str] | str
    """``["host:port", …]`` or ``"host:port,host:port"``; the brokers to ask first."""
    client_id: str = "collector"
    security: SecurityConfig = PLAINTEXT
    acks: Literal["all"] = "all"
    """The only mode; here for those who look for it. Without all in-sync replicas no outcome could be told (KIP-98)."""

    compression: Compression = "zstd"
    compression_min_bytes: int = 16 * KIB
    """A batch smaller than this is sent as it is: a compressor would cost more than it saves."""
    batch_max_bytes: int = 512 * KIB
    """A sealed batch's records, uncompressed. A single larger record travels alone, up to ``record_max_bytes``."""
    record_max_bytes: int = 1000 * KIB
    """One record with its key, headers and framing; a larger one is NotSent("too_large"). The broker's
    ``message.max.bytes`` (1 MiB by default) decides in the end."""
    request_max_bytes: int = 4 * MIB
    """One Produce request to one broker: it carries at most one batch a partition."""
    linger_s: float = 0.002
    """How long a record may wait for company while something is in flight to its broker; nothing in flight: no wait."""

    queue_max_bytes: int = 64 * MIB
    """Records admitted and not sealed. Above it a delivery waits in the FIFO."""
    max_waiting_bytes: int = 64 * MIB
    """What may wait in the FIFO; beyond it a delivery is NotSent("overloaded") at once."""
    in_flight_max_bytes: int = 64 * MIB
    """Sealed and unresolved batches, all partitions together."""
    in_flight_max_bytes_per_partition: int = 8 * MIB
    """Sealed and unresolved batches of one partition. One batch is always allowed."""
    max_in_flight_per_partition: int = 5
    """Batches on the wire for one partition; 1 to 5, the broker remembers five (KIP-98)."""

    produce_timeout_s: float = 10.0
    """What the broker is told to wait for its replicas (Produce ``timeout_ms``)."""
    request_timeout_s: float = 30.0
    """A request without an answer for this long ends its connection; also TCP_USER_TIMEOUT on the socket."""
    delivery_timeout_s: float = 120.0
    """Counts from the call of ``delivery()``: bounds every record, even one that nobody waits for."""
    batch_timeout_s: float = 120.0
    """Counts from the seal: then a batch is abandoned. ``math.inf`` leaves it bounded by number and bytes only."""
    close_grace_s: float = 10.0

    retry_backoff_min_s: float = 0.05
    retry_backoff_max_s: float = 1.0
    reconnect_backoff_min_s: float = 0.05
    reconnect_backoff_max_s: float = 2.0
    connect_timeout_s: float = 5.0
    """TCP, TLS and the handshake together."""
    operator_retry_s: float = 30.0
    """The pace of one try while an operator-level error stands."""
    metadata_max_age_s: float = 60.0
    metadata_min_interval_s: float = 0.1
    rebootstrap_after_s: float = 300.0
    """KIP-1102: no known broker reachable for this long: start again from ``bootstrap_servers``."""
    response_max_bytes: int = 64 * MIB
    """A frame that claims more is a protocol error."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "bootstrap_servers", tuple(parse_bootstrap_servers(self.bootstrap_servers)))
        if self.acks not in ("all", -1):
            raise ConfigError(f"acks: {self.acks!r} is not supported: acks=all is the only mode")
        object.__setattr__(self, "acks", "all")
        if self.compression not in ("none", "gzip", "snappy", "lz4", "zstd"):
            raise ConfigError(f"compression: {self.compression!r} is not one of none, gzip, snappy, lz4, zstd")
        if not 1 <= self.max_in_flight_per_partition <= 5:
            raise ConfigError(f"max_in_flight_per_partition: {self.max_in_flight_per_partition} is not in 1…5")
        if not self.produce_timeout_s < self.request_timeout_s < self.delivery_timeout_s:
            raise ConfigError(
                "request_timeout_s: produce_timeout_s < request_timeout_s < delivery_timeout_s does not hold: "
                f"{self.produce_timeout_s} < {self.request_timeout_s} < {self.delivery_timeout_s}"
            )
        for name in _POSITIVE:
            value = getattr(self, name)
            if not value > 0 or (value == math.inf and name not in _MAY_BE_INFINITE):
                raise ConfigError(f"{name}: {value!r} is not a positive {'number' if name.endswith('_s') else 'size'}")
        for name in ("linger_s", "close_grace_s", "compression_min_bytes"):
            if not getattr(self, name) >= 0:
                raise ConfigError(f"{name}: {getattr(self, name)!r} is negative")
        if self.record_max_bytes > self.request_max_bytes or self.batch_max_bytes > self.request_max_bytes:
            raise ConfigError("request_max_bytes: is smaller than record_max_bytes or batch_max_bytes")


# The collector bounds sealed batches by number and waits for each.
_MAY_BE_INFINITE = frozenset({"batch_timeout_s", "delivery_timeout_s"})
_POSITIVE = (
    "batch_max_bytes",
    "record_max_bytes",
    "request_max_bytes",
    "queue_max_bytes",
    "max_waiting_bytes",
    "in_flight_max_bytes",
    "in_flight_max_bytes_per_partition",
    "produce_timeout_s",
    "request_timeout_s",
    "delivery_timeout_s",
    "batch_timeout_s",
    "retry_backoff_min_s",
    "retry_backoff_max_s",
    "reconnect_backoff_min_s",
    "reconnect_backoff_max_s",
    "connect_timeout_s",
    "operator_retry_s",
    "metadata_max_age_s",
    "metadata_min_interval_s",
    "rebootstrap_after_s",
    "response_max_bytes",
)


def parse_bootstrap_servers(value: Sequence[str] | str) -> list[str]:
    """Split ``"h:p,h:p"`` or take a sequence of ``"h:p"``; raises `ConfigError` naming the offending part."""
    parts = [part.strip() for part in value.split(",")] if isinstance(value, str) else [part.strip() for part in value]
    if not parts or parts == [""]:
        raise ConfigError("bootstrap_servers: is empty; expected host:port, comma-separated")
    for part in parts:
        split_address(part)
    return parts


def split_address(address: str) -> tuple[str, int]:
    """``"host:port"`` or ``"[::1]:port"`` as (host, port); raises `ConfigError`."""
    host, colon, port = address.rpartition(":")
    if not colon or not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise ConfigError(f"bootstrap_servers: {address!r} is not host:port")
    return host.removeprefix("[").removesuffix("]"), int(port)
