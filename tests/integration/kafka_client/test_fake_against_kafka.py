"""The strict fake cannot lie: every scenario is played against it and against Apache Kafka, and told the same.

Where the two differ Kafka is right, and the fake is mended; a difference on purpose stands in the table, with its
reason.
"""

import pytest
import trio
from chaos.nodes import Nodes
from side_by_side import asking, producing, sequences, three
from side_by_side.table import ON_PURPOSE, SCENARIOS
from side_by_side.target import open_fake, open_real

from collector.devtools.kafka import KafkaCluster
from kafka_client.testing import open_fake_cluster

pytestmark = [pytest.mark.integration, pytest.mark.timeout(60)]

#: A scenario takes 0.1 s; one that never ends is a difference too.
SCENARIO_TIMEOUT_S = 20


@pytest.mark.parametrize("name", SCENARIOS)
async def test_fake_answers_as_kafka_does(name: str, kafka: KafkaCluster) -> None:
    scenario = SCENARIOS[name]
    with trio.fail_after(SCENARIO_TIMEOUT_S):
        async with open_real(kafka.bootstrap_servers.split(",")) as target:
            real = await scenario(target)
        async with open_fake_cluster(topics={}, strict_acks=False) as cluster, open_fake(cluster) as target:
            fake = await scenario(target)
            assert not any(request.injected for request in cluster.seen.requests)
    if name in ON_PURPOSE:
        assert fake != real, f"they agree by now; the reason was: {ON_PURPOSE[name]}"
    else:
        assert fake == real


@pytest.mark.parametrize("name", three.SCENARIOS)
async def test_fake_cluster_of_three_answers_as_kafkas_does(name: str, nodes: Nodes) -> None:
    scenario = three.SCENARIOS[name]

    def pause(stopped: bool) -> None:
        child = nodes.node(3).child
        child.pause() if stopped else child.resume()

    await trio.to_thread.run_sync(nodes.wait_whole)
    with trio.fail_after(SCENARIO_TIMEOUT_S):
        async with open_real(nodes.addresses, pause) as target:
            real = await scenario(target)
        async with open_fake_cluster(brokers=3, topics={}, strict_acks=False) as cluster, open_fake(cluster) as target:
            fake = await scenario(target)
            assert not any(request.injected for request in cluster.seen.requests)
    assert fake == real


def test_the_table_is_whole() -> None:
    modules = {scenario.__module__ for scenario in SCENARIOS.values()}
    assert modules == {module.__name__ for module in (asking, producing, sequences)}
    assert len(SCENARIOS) > 70
