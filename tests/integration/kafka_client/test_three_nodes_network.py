"""A network that refuses, swallows, delays, dribbles and cuts, between the producer and brokers that are well."""

import itertools
import random

import pytest
import trio
from chaos.load import LoadPlan
from chaos.scenario import Scenario

pytestmark = [pytest.mark.integration, pytest.mark.timeout(150)]

SLOW = 2
"""The node behind the bad link."""


async def test_partition_that_refuses_one_broker(scenario: Scenario) -> None:
    async def fault(s: Scenario) -> None:
        s.proxy[s.nodes.node(SLOW).address].refuse()
        await trio.sleep(6)
        s.proxy.restore()

    await scenario.run(fault, through_proxy=True)
    assert scenario.seen.reconnects > 0


async def test_black_hole_before_one_broker(scenario: Scenario) -> None:
    """Longer than a request may take and than a batch may live: some are abandoned."""

    async def fault(s: Scenario) -> None:
        s.proxy[s.nodes.node(SLOW).address].hold()
        await trio.sleep(8)
        s.proxy.restore()

    row = await scenario.run(
        fault,
        through_proxy=True,
        patient_are_delivered=False,
        produce_timeout_s=1.5,
        request_timeout_s=3.0,
        connect_timeout_s=2.0,
        batch_timeout_s=5.0,
        delivery_timeout_s=20.0,
    )
    assert scenario.seen.lost_total > 0, "no connection was given up"
    assert row.epoch_bumps > 0, "no batch was abandoned"


async def test_slow_broker_among_fast_ones(scenario: Scenario) -> None:
    """Keyless records go to the others, keyed ones cannot."""
    marks = []

    async def fault(s: Scenario) -> None:
        s.proxy[s.nodes.node(SLOW).address].answer_delay_s = 0.5
        await trio.sleep(1)
        marks.append(s.load.handed)
        await trio.sleep(5)
        marks.append(s.load.handed)
        s.proxy.restore()

    await scenario.run(fault, through_proxy=True)
    leaders = await trio.to_thread.run_sync(scenario.nodes.leaders, scenario.topic)
    slow = {partition for partition, leader in leaders.items() if leader == SLOW}
    while_slow = [one for one in scenario.found if marks[0] <= int(one.value[:9]) < marks[1]]
    records = scenario.books.records
    keyless = [one for one in while_slow if one.key is None and records[int(one.value[:9])].partition is None]
    keyed = [one for one in while_slow if one.key is not None]
    fair = len(slow) / len(leaders)
    share = sum(one.partition in slow for one in keyless) / len(keyless)
    assert share < fair / 2, f"{share:.0%} of the keyless records went to the slow broker, which leads {fair:.0%}"
    share_keyed = sum(one.partition in slow for one in keyed) / len(keyed)
    assert share_keyed > fair / 2, f"only {share_keyed:.0%} of the keyed records went where their keys belong"


async def test_connections_cut_in_the_middle_of_frames(scenario: Scenario) -> None:
    dice = random.Random(scenario.name)

    async def fault(s: Scenario) -> None:
        for link in s.proxy.links.values():
            link.cut_after("requests", (dice.randint(1, 300_000) for _ in itertools.count()))
            link.cut_after("answers", (dice.randint(1, 3_000) for _ in itertools.count()))
        await trio.sleep(6)
        s.proxy.restore()

    row = await scenario.run(fault, through_proxy=True)
    assert sum(link.cut_total for link in scenario.proxy.links.values()) > 10
    assert row.reconnects > 10


async def test_answers_come_byte_by_byte(scenario: Scenario) -> None:
    async def fault(s: Scenario) -> None:
        for link in s.proxy.links.values():
            link.dribble_s = 0.0005
        await trio.sleep(6)
        s.proxy.restore()

    row = await scenario.run(fault, through_proxy=True)
    assert row.reconnects == 0


@pytest.mark.parametrize(("answer_s", "records"), [(3.0, 200_000), (12.0, 100_000)])
async def test_every_answer_is_late(scenario: Scenario, answer_s: float, records: int) -> None:
    """Slow is not dead: below request_timeout_s no connection is given up."""
    scenario.plan = LoadPlan(records=records, seconds=4.0)
    scenario.fault_after_s = 0.2

    async def fault(s: Scenario) -> None:
        for link in s.proxy.links.values():
            link.answer_delay_s = answer_s
        await trio.sleep(answer_s / 3)

    row = await scenario.run(fault, through_proxy=True)
    assert (row.reconnects, scenario.seen.lost_total, row.epoch_bumps) == (0, 0, 0)
    assert scenario.seen.codes[None] == scenario.seen.codes[7] == 0, "an attempt was given up"
