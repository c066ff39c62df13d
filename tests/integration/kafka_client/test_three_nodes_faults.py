"""Nodes that die, stop and come back under load."""

import pytest
import trio
from chaos.scenario import Scenario

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]


async def test_leader_killed_and_back(scenario: Scenario) -> None:
    async def fault(s: Scenario) -> None:
        await s.nodes.kill(1)
        await trio.sleep(4)
        await s.nodes.start(1)

    await scenario.run(fault)
    assert scenario.seen.codes[None] > 0, "no request was lost with the leader"
