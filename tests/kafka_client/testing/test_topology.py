"""What a cluster goes through without any fault: replicas that lag, brokers that come and go, stale views."""

from collections.abc import Callable
from datetime import timedelta

import pytest
import trio

from kafka_client.testing import Api, FakeCluster, open_fake_cluster

Batch = Callable[..., bytes]


async def metadata(client, version: int = 12):
    unasked = {"include_topic_authorized_operations": False}
    return await client.call(Api.METADATA, version, topics=None, **unasked)


async def waiting_for_replicas(client, batch: Batch, cluster: FakeCluster) -> None:
    """One batch acknowledged, a second one appended and not replicated."""
    assert (await client.produce(batch([b"a"]))).base_offset == 0
    cluster.hold_replication("events", 0)
    await client.stream.send_all(client.produce_request(batch([b"b"]), version=10))
    await cluster.wait_records("events", 2)
    await trio.testing.wait_all_tasks_blocked()


async def test_acks_all_waits_for_the_replicas(
    client, batch: Batch, cluster: FakeCluster, autojump_clock: trio.testing.MockClock
) -> None:
    await waiting_for_replicas(client, batch, cluster)
    assert cluster.partition("events", 0).high_watermark == 1
    await trio.sleep(9)
    cluster.release_replication("events", 0)
    answer = await client.produce_answer(10)
    assert (answer.code, answer.base_offset, trio.current_time()) == (0, 1, 9)
    assert not any(request.injected for request in cluster.seen.requests)


async def test_replicas_that_never_come_are_a_timeout_after_the_append(
    client, batch: Batch, cluster: FakeCluster, autojump_clock: trio.testing.MockClock
) -> None:
    await waiting_for_replicas(client, batch, cluster)
    answer = await client.produce_answer(10)
    assert (answer.code, answer.base_offset, trio.current_time()) == (7, 1, 10)
    assert cluster.seen.batches[-1].error_code == 7
    assert cluster.values("events") == [b"a", b"b"]


async def test_leader_that_moves_meanwhile_is_not_leader_after_the_append(
    client, batch: Batch, cluster: FakeCluster
) -> None:
    await waiting_for_replicas(client, batch, cluster)
    cluster.move_leader("events", 0, 2, lose_unreplicated=True)
    answer = await client.produce_answer(10)
    assert (answer.code, answer.base_offset) == (6, 1)
    assert (answer.part.current_leader.leader_id, answer.part.current_leader.leader_epoch) == (2, 1)
    assert cluster.values("events") == [b"a"]


async def test_topic_that_goes_meanwhile_is_unknown_after_the_append(
    client, batch: Batch, cluster: FakeCluster
) -> None:
    await waiting_for_replicas(client, batch, cluster)
    cluster.delete_topic("events")
    answer = await client.produce_answer(10)
    assert (answer.code, answer.base_offset) == (3, 1)


async def test_too_few_replicas_in_sync_before_and_after_the_append(client, batch: Batch, cluster: FakeCluster) -> None:
    cluster.topics["events"].configs["min.insync.replicas"] = "2"
    await waiting_for_replicas(client, batch, cluster)
    cluster.set_isr("events", 0, 1)
    answer = await client.produce_answer(10)
    assert (answer.code, answer.base_offset) == (20, 1)
    answer = await client.produce(batch([b"c"]))
    assert (answer.code, answer.base_offset) == (19, -1)
    cluster.set_isr("events", 0, 1, 2)
    cluster.release_replication("events", 0)
    assert (await client.produce(batch([b"c"]))).base_offset == 2


async def test_lost_tail_takes_what_was_known_of_its_producers_along(
    client, connect, batch: Batch, cluster: FakeCluster
) -> None:
    producer_id = cluster.new_producer_id()

    def numbered(sequence: int) -> bytes:
        return batch([b"s%d" % sequence], producer_id=producer_id, epoch=0, sequence=sequence)

    assert (await client.produce(numbered(0))).code == 0
    cluster.hold_replication("events", 0)
    await client.stream.send_all(client.produce_request(numbered(1)))
    await cluster.wait_records("events", 2)
    cluster.move_leader("events", 0, 2, lose_unreplicated=True)
    cluster.release_replication("events", 0)
    other = await connect(2)
    assert (await other.produce(numbered(1))).base_offset == 1
    assert cluster.values("events") == [b"s0", b"s1"]
    assert not cluster.seen.batches[-1].duplicate


async def test_broker_that_stops_leaves_the_isr_and_comes_back_to_it(client, cluster: FakeCluster) -> None:
    cluster.stop_broker(2)
    part = (await metadata(client)).topics[0].partitions[0]
    assert (part.replica_nodes, part.isr_nodes, part.offline_replicas) == ((1, 2), (1,), (2,))
    cluster.start_broker(2)
    part = (await metadata(client)).topics[0].partitions[0]
    assert (part.isr_nodes, part.offline_replicas) == ((1, 2), ())


async def test_broker_added_and_removed(client, connect, batch: Batch, cluster: FakeCluster) -> None:
    assert cluster.add_broker(rack="r3").number == 3
    answer = await metadata(client)
    assert [(broker.node_id, broker.rack) for broker in answer.brokers] == [(1, None), (2, None), (3, "r3")]
    cluster.move_leader("events", 1, 3)
    assert (await (await connect(3)).produce(batch([b"a"]), partition=1)).code == 0
    cluster.remove_broker(3)
    assert cluster.partition("events", 1).leader == 2
    assert [broker.node_id for broker in (await metadata(client)).brokers] == [1, 2]
    with pytest.raises(OSError, match="no fake broker"):
        await connect(3)


async def test_partitions_grow_and_the_controller_moves(client, cluster: FakeCluster) -> None:
    assert (await metadata(client)).controller_id == 1
    cluster.add_partitions("events", 5)
    cluster.controller = 2
    answer = await metadata(client)
    assert [(part.partition_index, part.leader_id) for part in answer.topics[0].partitions] == [
        (0, 1), (1, 2), (2, 1), (3, 2), (4, 1),
    ]  # fmt: skip
    assert answer.controller_id == 2


async def test_frozen_broker_tells_what_was(client, connect, cluster: FakeCluster) -> None:
    cluster.freeze_metadata(1)
    cluster.move_leader("events", 0, 2)
    cluster.add_broker()
    cluster.create_topic("later", 1)
    old, new = await metadata(client), await metadata(await connect(2))
    assert [(each.topics[0].partitions[0].leader_id, len(each.brokers), len(each.topics)) for each in (old, new)] == [
        (1, 2, 1),
        (2, 3, 2),
    ]
    assert [request.injected for request in cluster.seen.requests] == [True, False]
    cluster.thaw_metadata(1)
    assert (await metadata(client)).topics[0].partitions[0].leader_id == 2


async def test_lies_of_metadata_are_marked(client, cluster: FakeCluster) -> None:
    cluster.partition("events", 0).advertise(2, 7)
    await metadata(client)
    cluster.partition("events", 0).advertise_truth()
    cluster.topics["events"].error_code = 29
    await metadata(client)
    cluster.topics["events"].error_code = 0
    await metadata(client)
    assert [request.faults for request in cluster.seen.requests] == [
        ["advertise(events-0)"], ["error_code(events, 29)"], [],
    ]  # fmt: skip


async def test_hint_that_lies_is_marked(client, batch: Batch, cluster: FakeCluster) -> None:
    assert (await client.produce(batch([b"a"]), partition=1, version=10)).part.current_leader.leader_id == 2
    cluster.partition("events", 1).advertise(1, 9)
    assert (await client.produce(batch([b"a"]), partition=1, version=10)).part.current_leader.leader_epoch == 9
    assert [request.injected for request in cluster.seen.requests] == [False, True]


async def test_topics_without_partitions(client, cluster: FakeCluster) -> None:
    cluster.faults.no_partitions()
    answer = await metadata(client)
    assert (answer.topics[0].error_code.value, answer.topics[0].partitions) == (0, ())
    assert len((await metadata(client)).topics[0].partitions) == 2


async def test_identity_at_the_end_of_the_epochs(client, batch: Batch, cluster: FakeCluster) -> None:
    cluster.faults.give_identity(producer_id=77, epoch=32767)
    wanted = {"transactional_id": None, "transaction_timeout": timedelta(0), "producer_id": -1, "producer_epoch": -1}
    answer = await client.call(Api.INIT_PRODUCER_ID, 4, **wanted)
    assert (answer.producer_id, answer.producer_epoch) == (77, 32767)
    assert (await client.produce(batch([b"x"], producer_id=77, epoch=32767, sequence=0))).code == 0
    assert cluster.seen.violations == []


async def test_expired_producer_may_begin_anywhere(client, batch: Batch, cluster: FakeCluster) -> None:
    producer_id = cluster.new_producer_id()
    for sequence in (0, 9):
        answer = await client.produce(batch([b"x"], producer_id=producer_id, epoch=0, sequence=sequence))
        assert answer.code == 0
        cluster.expire_producers("events", 0)


async def test_idle_connection_is_closed(batch: Batch, connect, autojump_clock: trio.testing.MockClock) -> None:
    async with open_fake_cluster(max_idle_s=600) as cluster:
        client = type(await connect())(cluster, await cluster.connector("fake-1", 9092))
        await trio.sleep(599)
        assert (await client.produce(batch([b"a"]))).code in (0, 32)
        assert await client.receive_frame() is None
        assert trio.current_time() == 1199
        assert cluster.seen.violations == []
