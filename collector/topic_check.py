"""What the topics must be for the collector's promise to hold, and whether they are.

Owns: the questions asked of the cluster and the judgement of the answers. Refuses to know: who prints them, and whether
the process starts all the same (liveness never depends on Kafka).

Invariant: a check never changes anything; and what could not be asked is said to be not verifiable, not assumed good.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import trio

from collector.brokers import producer_config
from collector.config import Config
from kafka_client.admin import Admin, open_admin
from kafka_client.config import Connector
from kafka_client.errors import BrokerError, ConnectionLost
from kafka_client.wire.metadata import TopicMetadata

__all__ = ["ENVELOPE_BYTES", "Finding", "check_topics"]

Level: TypeAlias = Literal["ok", "note", "warning", "error"]

#: The record's members beside the event with key and headers: measured 500 to 900 bytes, user agents and
#: ids of the allowed lengths included; and a batch's own overhead of 61 bytes.
ENVELOPE_BYTES = 4096

#: Everything asked here takes milliseconds; a cluster that needs longer is away.
PATIENCE_S = 10.0

_KEYS = ("min.insync.replicas", "max.message.bytes", "cleanup.policy", "unclean.leader.election.enable")


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One line of a check; ``text`` says what is, and what to do where it is not good."""

    level: Level
    text: str

    def __str__(self) -> str:
        return f"{self.level}: {self.text}"


async def check_topics(config: Config, *, connector: Connector | None = None) -> Sequence[Finding]:
    """Ask the cluster about ``[kafka] topic`` and ``bad_topic``, and judge the answers.

    On cancellation: the connections are closed.
    """
    servers = ",".join(config.kafka.bootstrap_servers)
    with trio.move_on_after(PATIENCE_S):
        async with open_admin(producer_config(config), connector=connector) as admin:
            try:
                return [
                    Finding(level="ok", text=await admin.whoami()),
                    *await _check_topic(admin, config, config.kafka.topic),
                    *(await _check_bad_topic(admin, config.kafka.bad_topic) if config.kafka.bad_topic else ()),
                ]
            except ConnectionLost as error:
                return [Finding(level="error", text=f"no broker of {servers} answers: {error}")]
            except BrokerError as error:
                return [Finding(level="error", text=f"{servers}: {error}")]
    return [Finding(level="error", text=f"{servers}: no answer within {PATIENCE_S:.0f} s")]


async def _check_topic(admin: Admin, config: Config, name: str) -> list[Finding]:
    found = await _find(admin, name)
    if isinstance(found, Finding):
        return [found]
    partitions = found.partitions
    copies = min((len(partition.replicas) for partition in partitions), default=0)
    away = [partition.index for partition in partitions if partition.leader < 0]
    findings = [
        Finding(
            level="ok" if len(partitions) > 1 else "warning",
            text=f"topic {name}: {len(partitions)} partitions"
            + ("" if len(partitions) > 1 else "; one partition is one broker's pace"),
        ),
        Finding(
            level="ok" if copies > 1 else "warning",
            text=f"topic {name}: {copies} replica{'' if copies == 1 else 's'}"
            + ("" if copies > 1 else "; the loss of one disk loses acknowledged events"),
        ),
    ]
    if away:
        findings.append(Finding(level="warning", text=f"topic {name}: partitions without a leader: {away}"))
    try:
        settings = await admin.describe_topic_configs(name, _KEYS)
    except ConnectionLost:
        findings.append(Finding(level="note", text=f"topic {name}: its settings are not verifiable with this broker"))
    except BrokerError as error:
        findings.append(Finding(level="note", text=f"topic {name}: its settings are not verifiable: {error}"))
    else:
        findings += _judge(config, name, copies, {key: entry.value for key, entry in settings.items()})
    return findings


def _judge(config: Config, name: str, copies: int, settings: Mapping[str, str | None]) -> list[Finding]:
    findings: list[Finding] = []
    in_sync = settings.get("min.insync.replicas")
    if in_sync is not None:
        if int(in_sync) > copies:
            text = f"is above the {copies} replicas: nothing can be written"
            findings.append(Finding(level="error", text=f"topic {name}: min.insync.replicas {in_sync} {text}"))
        elif int(in_sync) == 1:
            text = "min.insync.replicas 1: acks=all may mean one copy; 2 of 3 replicas is the usual choice"
            level: Level = "error" if config.check.strict else "warning"
            findings.append(Finding(level=level, text=f"topic {name}: {text}"))
        else:
            findings.append(Finding(level="ok", text=f"topic {name}: min.insync.replicas {in_sync}"))
    largest = settings.get("max.message.bytes")
    if largest is not None:
        needed = config.limits.event_bytes + ENVELOPE_BYTES
        good = int(largest) >= needed
        text = f"topic {name}: max.message.bytes {largest} {'≥' if good else '<'} limits.event_bytes"
        text += f" {config.limits.event_bytes} + {ENVELOPE_BYTES} of envelope"
        advice = "" if good else "; larger events are refused by the broker: lower limits.event_bytes or raise it"
        findings.append(Finding(level="ok" if good else "error", text=text + advice))
    if "compact" in (settings.get("cleanup.policy") or ""):
        text = f"topic {name}: cleanup.policy {settings['cleanup.policy']}"
        findings.append(Finding(level="error", text=f"{text}: a compacted topic refuses events without a key"))
    if settings.get("unclean.leader.election.enable") == "true":
        text = f"topic {name}: unclean.leader.election.enable true: a failover may lose acknowledged events"
        findings.append(Finding(level="warning", text=text))
    return findings


async def _check_bad_topic(admin: Admin, name: str) -> list[Finding]:
    found = await _find(admin, name)
    if isinstance(found, Finding):
        text = f"bad topic: {found.text}; bad events are then counted and logged only"
        return [Finding(level="warning", text=text)]
    return [Finding(level="ok", text=f"bad topic {name}: {len(found.partitions)} partitions")]


async def _find(admin: Admin, name: str) -> TopicMetadata | Finding:
    await trio.lowlevel.checkpoint()
    try:
        return await admin.topic(name)
    except BrokerError as error:
        return Finding(level="error", text=f"topic {name}: {error.name}: make it, with 12 partitions or more")
