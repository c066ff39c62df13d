"""A whole collector on a real port, with the strict fake cluster behind it, for SDKs that bring their own threads."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, replace

import pytest
import trio

from collector.config import (
    AdminConfig,
    AppKeys,
    Config,
    DeadlinesConfig,
    HttpConfig,
    KafkaConfig,
    KeysConfig,
    ShutdownConfig,
    SpoolConfig,
)
from collector.run import Started, run
from kafka_client.testing import FakeCluster, open_fake_cluster

WRITE_KEY = "key-of-the-shop"


@dataclass(frozen=True)
class Site:
    """A collector that listens, and what is behind it."""

    started: Started
    cluster: FakeCluster

    @property
    def url(self) -> str:
        return self.started.http


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    """One app, "shop", with `WRITE_KEY`. Waits at most half a second for Kafka: what is refused is refused soon."""
    config = replace(
        Config(),
        http=HttpConfig(bind="127.0.0.1:0"),
        admin=AdminConfig(bind="127.0.0.1:0"),
        keys=KeysConfig(apps={"shop": AppKeys(write_keys=(WRITE_KEY,))}),
        deadlines=DeadlinesConfig(kafka_s=0.4, spool_s=0.05, answer_s=0.05, stall_s=0.2),
        shutdown=ShutdownConfig(delay_s=0.0, drain_s=6.0),
        spool=SpoolConfig(path=None),
    )
    async with open_fake_cluster(topics={"events": 12, "events-bad": 1}) as cluster, trio.open_nursery() as nursery:
        servers = tuple(cluster.bootstrap_servers)
        config = replace(config, kafka=KafkaConfig(bootstrap_servers=servers))
        stop = trio.Event()
        started: Started = await nursery.start(
            lambda task_status: run(
                config, connector=cluster.connector, stop=stop, signals=False, task_status=task_status
            )
        )
        yield Site(started, cluster)
        stop.set()
