"""Fixtures for pytest-trio suites of people who use the collector or its Kafka client (extra ``testing``).

Owns: the fixtures' names and how they depend on each other. Refuses to know anything until one of them is asked for:
pytest imports this module at every start, so nothing but pytest is imported at its top.

    async def test_signup_is_recorded(collector_app, received_events, autojump_clock):
        signup = {"writeKey": "k", "userId": "u1", "event": "Signed Up"}
        assert (await collector_app.http.post("/v1/track", json=signup)).status_code == 200
        [event] = await received_events(1)
        assert event.body == signup and event.key == b"u1"

    from kafka_client import Record

    async def test_a_lost_acknowledgement_is_no_duplicate(kafka_broker, kafka_producer, assert_nothing_left):
        kafka_broker.faults.drop_answer()
        await kafka_producer.send(Record("events", b"hello"))
        assert kafka_broker.values("events") == [b"hello"]

The suite needs ``trio_mode = true`` in pytest's configuration (pytest-trio), or ``@pytest.mark.trio`` on each test.

What there is, and what it gives:

    kafka_broker          `kafka_client.testing.FakeCluster`: strict, in this process, with faults
    kafka_producer        `kafka_client.Producer` on it
    collector_app         `collector.devtools.fixtures.CollectorApp`: the ASGI application on it, and httpx to call it
    collector_server      `collector.devtools.fixtures.CollectorServer`: listens on free ports, librdkafka's mock broker
    track_client          `collector.client.TrackClient` for collector_server where the test asks for that, else for
                          collector_app
    received_events       `collector.devtools.received.ReceivedEvents`: what arrived in the topic of either
    assert_nothing_left   `collector.devtools.leftovers.AssertNothingLeft`: looks at the end of the test by itself, and
                          whenever it is called

All but collector_server work on virtual time. A test that wants it asks for ``autojump_clock`` itself, among its own
arguments: pytest-trio looks for a clock there only.

To be overridden in a conftest.py: `kafka_topics`, `kafka_producer_config`, `collector_config`.
"""

from collections.abc import AsyncIterator, Mapping
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collector.client import TrackClient
    from collector.config import Config
    from collector.devtools.fixtures import CollectorApp, CollectorServer
    from collector.devtools.leftovers import AssertNothingLeft
    from collector.devtools.received import ReceivedEvents
    from kafka_client.config import ProducerConfig
    from kafka_client.producer import Producer
    from kafka_client.testing import FakeCluster

__all__ = [
    "assert_nothing_left",
    "collector_app",
    "collector_config",
    "collector_server",
    "kafka_broker",
    "kafka_producer",
    "kafka_producer_config",
    "kafka_topics",
    "received_events",
    "track_client",
]

#: The key that `track_client` presents; events then belong to the app of this name.
TRACK_KEY = "test-app"
#: What `assert_nothing_left` waits at the end of a test for what was sealed to be answered.
AT_THE_END_S = 5.0


@pytest.fixture
def kafka_topics() -> Mapping[str, int]:
    """The topics of `kafka_broker`, name to partitions."""
    return {"events": 12, "events-bad": 12}


@pytest.fixture
async def kafka_broker(kafka_topics: Mapping[str, int]) -> "AsyncIterator[FakeCluster]":
    """A strict Kafka cluster of one broker in this process.

    ``faults`` is what shall go wrong, ``seen`` what the broker saw; ``log``, ``records`` and ``values`` are what is in
    it.
    """
    from kafka_client.testing import open_fake_cluster

    async with open_fake_cluster(topics=kafka_topics) as cluster:
        yield cluster


@pytest.fixture
def kafka_producer_config() -> "ProducerConfig":
    """The configuration of `kafka_producer`; its ``bootstrap_servers`` are replaced by `kafka_broker`'s."""
    from kafka_client.config import ProducerConfig

    return ProducerConfig(bootstrap_servers="fake-1:9092")


@pytest.fixture
async def kafka_producer(
    kafka_broker: "FakeCluster", kafka_producer_config: "ProducerConfig"
) -> "AsyncIterator[Producer]":
    """A producer on `kafka_broker`, closed at the end of the test."""
    from dataclasses import replace

    from kafka_client.producer import open_producer

    config = replace(kafka_producer_config, bootstrap_servers=kafka_broker.bootstrap_servers)
    async with open_producer(config, connector=kafka_broker.connector) as producer:
        yield producer


@pytest.fixture
def collector_config() -> "Config":
    """The configuration of `collector_app` and `collector_server`; addresses in it do not matter."""
    from collector.devtools.fixtures import default_config

    return default_config()


@pytest.fixture
async def collector_app(kafka_broker: "FakeCluster", collector_config: "Config") -> "AsyncIterator[CollectorApp]":
    """The collector's ASGI application, producing to `kafka_broker`: no socket, no thread, no server."""
    from collector.devtools.fixtures import open_collector_app

    async with open_collector_app(kafka_broker, collector_config) as app:
        yield app


@pytest.fixture
async def collector_server(collector_config: "Config") -> "AsyncIterator[CollectorServer]":
    """The whole collector on free ports of the loopback interface, with a mock cluster as its child: real time."""
    from collector.devtools.fixtures import open_collector_server

    async with open_collector_server(collector_config) as server:
        yield server


@pytest.fixture
async def _track_client_of_app(collector_app: "CollectorApp") -> "AsyncIterator[TrackClient]":
    from collector.client import open_track_client

    async with open_track_client(collector_app.url, key=TRACK_KEY, transport=collector_app.transport()) as client:
        yield client


@pytest.fixture
async def _track_client_of_server(collector_server: "CollectorServer") -> "AsyncIterator[TrackClient]":
    from collector.client import open_track_client

    async with open_track_client(collector_server.http, key=TRACK_KEY) as client:
        yield client


@pytest.fixture
def track_client(request: pytest.FixtureRequest) -> "TrackClient":
    """A track client: of `collector_server` where the test asks for that one too, else of `collector_app`."""
    wanted = "server" if "collector_server" in request.fixturenames else "app"
    client: TrackClient = request.getfixturevalue(f"_track_client_of_{wanted}")
    return client


@pytest.fixture
def _received_of_broker(kafka_broker: "FakeCluster", collector_config: "Config") -> "ReceivedEvents":
    from collector.devtools.received import FakeReceived

    return FakeReceived(kafka_broker, collector_config.kafka.topic)


@pytest.fixture
def _received_of_server(collector_server: "CollectorServer") -> "ReceivedEvents":
    return collector_server.received


@pytest.fixture
def received_events(request: pytest.FixtureRequest) -> "ReceivedEvents":
    """``await received_events(3)``: wait for three records, return all that arrived in the topic."""
    wanted = "server" if "collector_server" in request.fixturenames else "broker"
    received: ReceivedEvents = request.getfixturevalue(f"_received_of_{wanted}")
    return received


@pytest.fixture
async def _nothing_left(
    _watched_producer: "Producer | None",
    _watched_app: "CollectorApp | None",
    _watched_server: "CollectorServer | None",
    _watched_broker: "FakeCluster | None",
) -> "AsyncIterator[AssertNothingLeft]":
    from collector.devtools.leftovers import AssertNothingLeft

    rooms = _watched_app or _watched_server
    producers = [producer.statistics for producer in (_watched_producer,) if producer is not None]
    if _watched_app is not None:
        producers.append(_watched_app.producer.statistics)
    if _watched_server is not None:
        producers.append(_watched_server.producer_statistics)
    check = AssertNothingLeft(
        producers=producers,
        services=None if rooms is None else rooms.services,
        broker=_watched_broker,
        at_home=() if _watched_server is None else _watched_server.tasks_at_home,
    )
    yield check
    await check(within_s=AT_THE_END_S)


def _watched(request: pytest.FixtureRequest, name: str, *users: str) -> object:
    """The fixture ``name`` if the test uses it, by itself or through one of ``users``."""
    return request.getfixturevalue(name) if {name, *users} & set(request.fixturenames) else None


@pytest.fixture
def _watched_broker(request: pytest.FixtureRequest) -> object:
    return _watched(request, "kafka_broker")


@pytest.fixture
def _watched_producer(request: pytest.FixtureRequest) -> object:
    return _watched(request, "kafka_producer")


@pytest.fixture
def _watched_server(request: pytest.FixtureRequest) -> object:
    return _watched(request, "collector_server")


@pytest.fixture
def _watched_app(request: pytest.FixtureRequest) -> object:
    if "collector_server" in request.fixturenames:
        return _watched(request, "collector_app")
    return _watched(request, "collector_app", "track_client")


@pytest.fixture
def assert_nothing_left(request: pytest.FixtureRequest) -> "AssertNothingLeft":
    """``await assert_nothing_left()``: no task, byte, waiter or due time is left of what the test did.

    It looks at whichever of the fixtures above the test uses, and once more when the test has ended.
    """
    check: AssertNothingLeft = request.getfixturevalue("_nothing_left")
    return check
