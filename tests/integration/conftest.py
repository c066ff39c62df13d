"""Real parts for the integration tests: one Apache Kafka for all of them, collectors and nginx as each test wants.

Nothing here skips: where a part cannot be started, the run fails and says which.
"""

import itertools
from collections.abc import Callable, Iterator
from functools import partial

import pytest

from collector.devtools.background import hold_open
from collector.devtools.kafka import KafkaCluster, open_kafka
from collector.devtools.topic_log import make_topic


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaCluster]:
    """One node for the whole session; the first time on a machine it is fetched."""
    with hold_open(partial(open_kafka, tmp_path_factory.mktemp("kafka"))) as cluster:
        yield cluster


@pytest.fixture
def new_topic(kafka: KafkaCluster, request: pytest.FixtureRequest) -> Callable[[int], str]:
    """Make a topic of this test's own, with so many partitions, and its bad topic beside it."""
    numbers = itertools.count()
    stem = "".join(c if c.isalnum() else "-" for c in request.node.name)[:100]

    def make(partitions: int) -> str:
        name = f"{stem}-{next(numbers)}"
        make_topic(kafka.bootstrap_servers, f"{name}-bad", 1)
        return make_topic(kafka.bootstrap_servers, name, partitions)

    return make


@pytest.fixture
def settings(kafka: KafkaCluster) -> Callable[[str], dict[str, dict[str, object]]]:
    """The configuration of a collector that writes to a topic of this Kafka."""

    def make(topic: str) -> dict[str, dict[str, object]]:
        servers = kafka.bootstrap_servers.split(",")
        return {"kafka": {"bootstrap_servers": servers, "topic": topic, "bad_topic": f"{topic}-bad"}}

    return make
