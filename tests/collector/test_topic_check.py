"""The judgement of a topic, against the strict fake broker."""

from collections.abc import Mapping
from dataclasses import replace

import pytest
import trio

from collector.config import CheckConfig, Config, KafkaConfig, LimitsConfig
from collector.topic_check import PATIENCE_S, Finding, _judge, check_topics
from kafka_client.testing import open_fake_cluster

GOOD = {"min.insync.replicas": "2", "max.message.bytes": "1048588", "cleanup.policy": "delete"}


def levels(settings: Mapping[str, str], config: Config | None = None, copies: int = 3) -> dict[str, str]:
    """What is said about which setting, for those that are not good."""
    found = _judge(config or Config(), "events", copies, {**GOOD, **settings})
    return {one.text.split(": ", 1)[1].split(" ")[0]: one.level for one in found if one.level != "ok"}


def test_good_topic_has_nothing_to_mend() -> None:
    assert levels({}) == {}


def test_one_in_sync_replica_is_a_warning_and_with_strict_an_error() -> None:
    assert levels({"min.insync.replicas": "1"}) == {"min.insync.replicas": "warning"}
    strict = Config(check=CheckConfig(strict=True))
    assert levels({"min.insync.replicas": "1"}, strict) == {"min.insync.replicas": "error"}


def test_more_in_sync_replicas_than_copies_is_an_error() -> None:
    assert levels({"min.insync.replicas": "3"}, copies=2) == {"min.insync.replicas": "error"}


def test_messages_smaller_than_our_limit_are_an_error_that_names_the_key() -> None:
    config = Config(limits=LimitsConfig(event_bytes=1_048_000))
    [finding] = [one for one in _judge(config, "events", 3, GOOD) if one.level == "error"]
    assert "limits.event_bytes 1048000" in finding.text
    assert "max.message.bytes 1048588 <" in finding.text


def test_compacted_topic_is_an_error() -> None:
    assert levels({"cleanup.policy": "compact,delete"}) == {"cleanup.policy": "error"}


def test_unclean_elections_are_a_warning() -> None:
    assert levels({"unclean.leader.election.enable": "true"}) == {"unclean.leader.election.enable": "warning"}


async def test_cluster_is_asked_and_judged(autojump_clock: trio.testing.MockClock) -> None:
    async with open_fake_cluster(topics={"events": 12, "events-bad": 3}) as cluster:
        config = replace(Config(), kafka=KafkaConfig(bootstrap_servers=tuple(cluster.bootstrap_servers)))
        found = await check_topics(config, connector=cluster.connector)
    texts = [str(one) for one in found]
    assert "ok: topic events: 12 partitions" in texts
    assert "ok: bad topic events-bad: 3 partitions" in texts
    assert any(text.startswith("warning: topic events: 1 replica;") for text in texts)


async def test_missing_topics_are_an_error_and_a_warning(autojump_clock: trio.testing.MockClock) -> None:
    async with open_fake_cluster(topics={"other": 1}) as cluster:
        config = replace(Config(), kafka=KafkaConfig(bootstrap_servers=tuple(cluster.bootstrap_servers)))
        found = await check_topics(config, connector=cluster.connector)
    assert [one.level for one in found] == ["ok", "error", "warning"]
    assert "PLAINTEXT, as nobody (ANONYMOUS), not encrypted" in found[0].text
    assert "topic events: UNKNOWN_TOPIC_OR_PARTITION" in found[1].text


async def test_no_broker_is_one_error(autojump_clock: trio.testing.MockClock) -> None:
    async def refuse(host: str, port: int) -> trio.abc.HalfCloseableStream:
        await trio.lowlevel.checkpoint()
        raise ConnectionRefusedError("nobody is there")

    [found] = await check_topics(Config(), connector=refuse)
    assert found.level == "error"
    assert "no broker of 127.0.0.1:9092 answers" in found.text


async def test_silent_broker_is_an_error_in_time(autojump_clock: trio.testing.MockClock) -> None:
    async def hang(host: str, port: int) -> trio.abc.HalfCloseableStream:
        await trio.sleep_forever()
        raise AssertionError

    started = trio.current_time()
    [found] = await check_topics(Config(), connector=hang)
    assert isinstance(found, Finding)
    assert found.level == "error"
    assert trio.current_time() - started <= PATIENCE_S


@pytest.mark.parametrize("level", ["ok", "note", "warning", "error"])
def test_finding_shows_its_level(level: str) -> None:
    assert str(Finding(level=level, text="x")) == f"{level}: x"  # type: ignore[arg-type]  # parametrized
