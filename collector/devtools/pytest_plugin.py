"""Fixtures for pytest-trio suites of people who use the collector or its Kafka client (extra ``testing``).

Owns: the fixtures' names. Refuses to know anything until one of them is asked for: pytest imports this module at every
start, so nothing but pytest is imported at its top.

    async def test_signup_is_recorded(kafka_broker, kafka_producer):
        await kafka_producer.send(Record("events", b"signup"))
        assert kafka_broker.values("events") == [b"signup"]
"""

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from kafka_client.testing import FakeCluster

__all__ = ["kafka_broker"]


@pytest.fixture
async def kafka_broker() -> "AsyncIterator[FakeCluster]":
    """A strict Kafka cluster in this process: one broker, topics ``events`` and ``events-bad`` with 12 partitions each.

    See `kafka_client.testing.FakeCluster`: ``faults`` for what shall go wrong, ``seen`` for what the broker saw,
    ``log``, ``records``, ``values`` for what is in it. Works on virtual time (``autojump_clock``).
    """
    from kafka_client.testing import open_fake_cluster

    async with open_fake_cluster(topics={"events": 12, "events-bad": 12}) as cluster:
        yield cluster
