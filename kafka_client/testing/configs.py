"""A topic's configuration, as far as the fake obeys or describes it.

Owns: names, defaults, what values are allowed. Refuses to know who reads them.

Invariant: an unknown name or a bad value is refused when it is set (INVALID_CONFIG), never later.

Source: https://kafka.apache.org/documentation/#topicconfigs, defaults of Kafka 4.1.
"""

import re
from collections.abc import Callable, Mapping

from kafka_client.testing.batches import Rules

__all__ = ["DEFAULTS", "LEGAL_NAME", "BadConfig", "TopicConfigs"]

#: What a topic may be called (Topic.validate).
LEGAL_NAME = re.compile(r"(?!\.{1,2}$)[a-zA-Z0-9._-]{1,249}")
INT64_MAX = 2**63 - 1
INT32_MAX = 2**31 - 1

#: max.message.bytes stands apart: its default is the broker's message.max.bytes.
DEFAULTS: Mapping[str, str] = {
    "cleanup.policy": "delete",
    "compression.type": "producer",
    "message.timestamp.after.max.ms": "3600000",
    "message.timestamp.before.max.ms": str(INT64_MAX),
    "message.timestamp.type": "CreateTime",
    "min.insync.replicas": "1",
    "retention.bytes": "-1",
    "retention.ms": "604800000",
    "segment.bytes": "1073741824",
    "unclean.leader.election.enable": "false",
}


class BadConfig(ValueError):
    """No such configuration, or not such a value."""


def _number(least: int, most: int = INT64_MAX) -> Callable[[str], bool]:
    def allowed(value: str) -> bool:
        return value.lstrip("-").isdecimal() and least <= int(value) <= most

    return allowed


def _one_of(*words: str) -> Callable[[str], bool]:
    return lambda value: value in words


_ALLOWED: Mapping[str, Callable[[str], bool]] = {
    "cleanup.policy": lambda value: set(value.split(",")) <= {"compact", "delete"},
    "compression.type": _one_of("producer", "uncompressed", "gzip", "snappy", "lz4", "zstd"),
    "max.message.bytes": _number(0, INT32_MAX),
    "message.timestamp.after.max.ms": _number(0),
    "message.timestamp.before.max.ms": _number(0),
    "message.timestamp.type": _one_of("CreateTime", "LogAppendTime"),
    "min.insync.replicas": _number(1, INT32_MAX),
    "retention.bytes": _number(-1),
    "retention.ms": _number(-1),
    "segment.bytes": _number(1024 * 1024, INT32_MAX),
    "unclean.leader.election.enable": _one_of("true", "false"),
}


class TopicConfigs(dict[str, str]):
    """What was set for one topic; the rest are `DEFAULTS`. Setting raises `BadConfig`."""

    def __setitem__(self, name: str, value: str) -> None:
        allowed = _ALLOWED.get(name)
        if allowed is None:
            raise BadConfig(f"Unknown topic config name: {name}")
        if not allowed(value):
            raise BadConfig(f"Invalid value {value} for configuration {name}")
        super().__setitem__(name, value)

    def number(self, name: str) -> int:
        """A numeric one."""
        return int(self.get(name, DEFAULTS[name]))

    @property
    def min_insync_replicas(self) -> int:
        """How many replicas must be in sync for acks=all."""
        return self.number("min.insync.replicas")

    def rules(self, *, now_ms: int, message_max_bytes: int) -> Rules:
        """What a batch must be like now."""
        by_broker = self.get("message.timestamp.type") == "LogAppendTime"
        return Rules(
            max_bytes=int(self.get("max.message.bytes", message_max_bytes)),
            earliest_ms=now_ms - self.number("message.timestamp.before.max.ms"),
            latest_ms=now_ms + self.number("message.timestamp.after.max.ms"),
            append_time_ms=now_ms if by_broker else None,
            compacted="compact" in self.get("cleanup.policy", "").split(","),
        )
