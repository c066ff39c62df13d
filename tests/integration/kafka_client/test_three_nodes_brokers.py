"""Nodes that die, stop, stand still and come back, one of them or all, under load."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trio
from chaos.load import LoadPlan
from chaos.nodes import Nodes, hold_nodes
from chaos.scenario import Scenario

pytestmark = [pytest.mark.integration, pytest.mark.timeout(150)]


async def test_leader_killed_and_back(scenario: Scenario) -> None:
    async def fault(s: Scenario) -> None:
        await s.nodes.kill(1)
        await trio.sleep(4)
        await s.nodes.start(1)

    await scenario.run(fault)
    assert scenario.seen.codes[None] > 0, "no request was lost with the leader"


async def test_rolling_restart_of_all_nodes(scenario: Scenario) -> None:
    async def fault(s: Scenario) -> None:
        for node in (1, 2, 3):
            await s.nodes.stop(node)
            await s.nodes.start(node)
            await trio.to_thread.run_sync(s.nodes.wait_whole, s.topic)

    await scenario.run(fault)
    assert scenario.seen.codes[6] > 0, "no leader moved"


async def test_one_node_stands_still(scenario: Scenario) -> None:
    async def fault(s: Scenario) -> None:
        child = s.nodes.node(2).child
        child.pause()
        try:
            await trio.sleep(7)
        finally:
            child.resume()

    await scenario.run(fault)


async def test_all_nodes_stand_still(scenario: Scenario) -> None:
    async def fault(s: Scenario) -> None:
        s.nodes.cluster.pause()
        try:
            await trio.sleep(6)
        finally:
            s.nodes.cluster.resume()

    await scenario.run(fault)


async def test_two_of_three_nodes_killed_and_back(scenario: Scenario) -> None:
    """Without a quorum nothing can be decided: not even who is in sync."""

    async def fault(s: Scenario) -> None:
        await s.nodes.kill(2)
        await s.nodes.kill(3)
        await trio.sleep(3)
        await s.nodes.start_all(2, 3)

    await scenario.run(fault)


async def test_fewer_replicas_in_sync_than_asked_for(scenario: Scenario) -> None:
    """What was appended and waits for the dead node's copy times out, what comes later is refused.

    Apache Kafka 4.1.0 answers 7 to the former and never 20: its high watermark stands still below min.insync.replicas,
    and 20 is the answer when it reached the batch.
    """
    scenario.settings = {"min.insync.replicas": "3"}

    async def fault(s: Scenario) -> None:
        await s.nodes.kill(3)
        await trio.sleep(6)
        await s.nodes.start(3)

    await scenario.run(fault, produce_timeout_s=2.0)
    assert scenario.seen.codes[19] > 0, "NOT_ENOUGH_REPLICAS was never answered"
    assert scenario.seen.codes[7] > 0, "REQUEST_TIMED_OUT was never answered"


@pytest.fixture
def old_nodes(tmp_path: Path) -> Iterator[Nodes]:
    """Three nodes of Kafka 2.8 that notice after 4 s that one is gone."""
    properties = {"zookeeper.session.timeout.ms": "4000", "replica.lag.time.max.ms": "4000"}
    with hold_nodes(tmp_path / "nodes", properties, version="2.8.2") as held:
        yield held


async def test_fewer_replicas_in_sync_after_the_append(
    old_nodes: Nodes, make_scenario: Callable[[Nodes], Scenario]
) -> None:
    """Kafka 2.8 moves its high watermark below min.insync.replicas, and answers 20 to what it has appended by then."""
    scenario = make_scenario(old_nodes)
    scenario.plan = LoadPlan(records=100_000, seconds=8.0)
    scenario.settings = {"min.insync.replicas": "3"}

    async def fault(s: Scenario) -> None:
        await s.nodes.kill(3)
        await trio.sleep(6)
        await s.nodes.start(3)

    await scenario.run(fault)
    assert scenario.seen.codes[20] > 0, "NOT_ENOUGH_REPLICAS_AFTER_APPEND was never answered"
