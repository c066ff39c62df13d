"""Three nodes: who is told where the leader is, and what replicas that stand still do to acks=all."""

from typing import Any

import trio

from kafka_client.testing import Api

from .table import Scenario
from .target import CLOSED, Target, Topic, asking_for, fetching, offsets_of, producing

SCENARIOS: dict[str, Scenario] = {}


def scenario(function: Scenario) -> Scenario:
    """As in table.py, for what needs three nodes."""
    SCENARIOS[function.__name__] = function
    return function


async def state(t: Target, topic: Topic, node: int) -> dict[str, Any]:
    """The partition as a node tells it."""
    client = await t.connect(node)
    answer: Any = await client.call(Api.METADATA, 12, **asking_for(topic.name))
    [part] = answer["topics"][0]["partitions"]
    return {**part, "isr_nodes": sorted(part["isr_nodes"]), "replica_nodes": sorted(part["replica_nodes"])}


async def refusals(t: Target, topic: Topic, node: int, epoch: int, *older: int) -> list[Any]:
    """What a node answers that does not lead; epochs as distances from the given one."""
    client = await t.connect(node)
    found = [await t.produce(topic, t.batch(b"a"), version=version, client=client) for version in (9, 10, 13)]
    for version in (12, 16, 17):
        for known in (-1, epoch, *older, epoch + 5):
            asked = fetching(topic.name, 0, topic_id=topic.id, epoch=known)
            answer: Any = await client.call(Api.FETCH, version, **asked)
            part = answer["responses"][0]["partitions"][0]
            nodes = [each["node_id"] for each in answer.get("node_endpoints", [])]
            found.append({"code": part["error_code"], "current_leader": part["current_leader"], "endpoints": nodes})
    answer = await client.call(Api.LIST_OFFSETS, 7, **offsets_of(topic.name, -1))
    found.append({"code": answer["topics"][0]["partitions"][0]["error_code"]})
    for each in found:
        hint = each.get("current_leader")
        if hint and hint["leader_epoch"] >= 0:
            each["current_leader"] = (hint["leader_id"], hint["leader_epoch"] - epoch)
    return found


@scenario
async def follower_names_the_leader(t: Target) -> Any:
    topic = await t.topic(replicas=3)
    told = await state(t, topic, 2)
    return [{**told, "leader_epoch": None}, await refusals(t, topic, 2, told["leader_epoch"])]


@scenario
async def old_leader_names_the_new_one(t: Target) -> Any:
    topic, producer_id = await t.topic(replicas=3), await t.new_producer_id()
    before = await state(t, topic, 1)
    batches = [t.batch(b"x", producer_id=producer_id, epoch=0, sequence=sequence) for sequence in (0, 1)]
    first = [await t.produce(topic, batch) for batch in batches]
    await t.move_leader(topic, 2)
    after = await state(t, topic, 1)
    refused = await refusals(t, topic, 1, after["leader_epoch"], after["leader_epoch"] - 1)
    leader = await t.connect(2)
    stale: Any = await leader.call(Api.LIST_OFFSETS, 7, **offsets_of(topic.name, -1, epoch=before["leader_epoch"]))
    again = [await t.produce(topic, batch, client=leader) for batch in batches]
    grew = after["leader_epoch"] > before["leader_epoch"]
    return [first, grew, after["leader_id"], refused, stale["topics"][0]["partitions"][0]["error_code"], again]


@scenario
async def replicas_that_stand_still_time_the_request_out(t: Target) -> Any:
    topic, producer_id = await t.topic(replicas=3), await t.new_producer_id()
    client = await t.connect()
    batches = [t.batch(b"x", producer_id=producer_id, epoch=0, sequence=sequence) for sequence in (0, 1, 2)]
    first = await t.produce(topic, batches[0], client=client)
    t.hold(topic)
    try:
        await trio.sleep(0.05)
        members = {**producing(topic, batches[1], 12, -1, 0), "timeout": 300}
        answer: Any = await client.call(Api.PRODUCE, 12, **members)
        late = CLOSED if answer is None else t.shape(answer)
        unseen: Any = await client.call(Api.LIST_OFFSETS, 7, **offsets_of(topic.name, -1))
        at_once = await t.produce(topic, t.batch(b"one"), acks=1, client=client)
    finally:
        t.release(topic)
    again = await t.produce(topic, batches[1], client=client)
    last = await t.produce(topic, batches[2], client=client)  # when it is answered, readers see all before it
    unseen_offset = unseen["topics"][0]["partitions"][0]["offset"]
    return [first, late, unseen_offset, at_once, again, last, len(await t.stored(topic))]
