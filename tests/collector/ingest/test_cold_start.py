"""A collector that starts while Kafka is away."""

import trio

from collector.devtools.fixtures import open_collector_app
from kafka_client.testing import open_fake_cluster
from tests.collector.ingest.stages import PARTITIONS, Clients, ids, ledgers, until_empty, with_spool


async def test_first_request_waits_for_kafka_long_after_a_cold_start(autojump_clock) -> None:
    async with open_fake_cluster(topics={"events": PARTITIONS, "events-bad": 1}) as broker:
        broker.stop_broker(1)
        async with open_collector_app(broker, with_spool()) as app:
            clients = Clients(app)
            await trio.sleep(app.config.deadlines.stall_s + 0.1)
            assert (await clients.post("first")).status_code == 200
            assert clients.answers[-1][1] < 0.01
            broker.start_broker(1)
            await until_empty(app, 120)
            assert ids(broker) == ["first"]
            ledgers(app)


async def test_topic_is_known_before_the_first_event(autojump_clock) -> None:
    async with (
        open_fake_cluster(topics={"events": PARTITIONS, "events-bad": 1}) as broker,
        open_collector_app(broker, with_spool()) as app,
    ):
        await trio.sleep(0.5)
        assert app.producer.partitions_of("events") == PARTITIONS
        await trio.sleep(60)
        clients = Clients(app)
        assert (await clients.post("first")).status_code == 200
        assert (clients.answers[-1][1] < 0.1, ids(broker)) == (True, ["first"])
        ledgers(app)
