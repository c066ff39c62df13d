"""What a producer is used for at its limits, and from inside its own callbacks; each test is named by a symptom."""

import pytest
import trio

from kafka_client import Delivered, Delivery, NotSent, ProducerConfig, Record, Unknown, open_producer
from kafka_client.testing import open_fake_cluster

#: Small enough for two records; whatever is queued ends soon.
SMALL: dict[str, float] = {
    "queue_max_bytes": 3_000,
    "record_max_bytes": 2_000,
    "batch_max_bytes": 3_000,
    "delivery_timeout_s": 5.0,
    "request_timeout_s": 4.0,
    "produce_timeout_s": 3.0,
}


@pytest.mark.parametrize("full_of", ["events", "ghost"])
async def test_timeout_that_lets_a_new_topic_in_ends_the_producer(full_of: str, autojump_clock) -> None:
    """What timed out gave room to a delivery in line, whose topic came into the dictionary that was walked through."""
    async with open_fake_cluster(topics={"events": 1, "other": 1}) as cluster:
        config = ProducerConfig(bootstrap_servers=cluster.bootstrap_servers, **SMALL)  # type: ignore[arg-type]
        async with open_producer(config, connector=cluster.connector) as producer:
            await producer.send(Record("events", b"warm"))
            cluster.stop_broker(cluster.partition("events", 0).leader)
            await trio.sleep(2)
            first = [producer.delivery([Record(full_of, b"x" * size)]) for size in (1900, 800)]
            await trio.sleep(1)
            waiting = producer.delivery([Record("other", b"y" * 1500)])
            assert producer.statistics().waiting_deliveries == 1
            for delivery in (*first, waiting):
                await delivery.wait()
                assert isinstance(delivery.outcomes[0], NotSent)
                assert delivery.outcomes[0].reason.startswith("timeout")


async def test_on_resolved_that_produces_to_a_new_topic_ends_the_producer(autojump_clock) -> None:
    """A dead-letter topic: the batch timed out, its ``fn`` hands over a record of a topic not used before."""
    async with open_fake_cluster(topics={"events": 1, "dead": 1}) as cluster:
        config = ProducerConfig(
            bootstrap_servers=cluster.bootstrap_servers,
            delivery_timeout_s=5.0,
            request_timeout_s=4.0,
            produce_timeout_s=3.0,
            batch_timeout_s=3.0,
        )
        async with open_producer(config, connector=cluster.connector) as producer:
            await producer.send(Record("events", b"warm"))
            cluster.faults.delay(60.0, times=1)
            dead: list[Delivery] = []
            lost = producer.delivery([Record("events", b"lost")])
            lost.on_resolved(lambda _, outcome: dead.append(producer.delivery([Record("dead", b"letter")])))
            await trio.sleep(20)
            assert isinstance(lost.outcomes[0], Unknown)
            assert len(dead) == 1
            await dead[0].wait()
            assert isinstance(dead[0].outcomes[0], Delivered)
            assert cluster.values("dead") == [b"letter"]
