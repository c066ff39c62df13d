"""Every fault, as a client without manners sees it; times are virtual and exact."""

from collections.abc import Callable

import pytest
import trio

from kafka_client.testing import Api, FakeCluster

Batch = Callable[..., bytes]


async def test_delay_of_the_network_lets_later_requests_be_served(
    client, batch: Batch, cluster: FakeCluster, autojump_clock: trio.testing.MockClock
) -> None:
    cluster.faults.delay(0.5, times=2)
    await client.stream.send_all(client.produce_request(batch([b"a"])) + client.produce_request(batch([b"b"])))
    await cluster.wait_records("events", 2)
    assert trio.current_time() == 0.0
    assert (await client.produce_answer()).base_offset == 0
    assert (await client.produce_answer()).base_offset == 1
    assert trio.current_time() == 0.5


async def test_delay_of_the_broker_comes_before_the_append(
    client, batch: Batch, cluster: FakeCluster, autojump_clock: trio.testing.MockClock
) -> None:
    cluster.faults.delay(0.5, where="broker")
    await client.stream.send_all(client.produce_request(batch([b"a"])))
    await cluster.wait_records("events", 1)
    assert trio.current_time() == 0.5


async def test_delay_of_the_replicas_holds_up_what_is_behind(
    client, batch: Batch, cluster: FakeCluster, autojump_clock: trio.testing.MockClock
) -> None:
    cluster.faults.delay(0.5, where="replicas")
    await client.stream.send_all(client.produce_request(batch([b"a"])) + client.produce_request(batch([b"b"])))
    await cluster.wait_records("events", 1)
    assert trio.current_time() == 0.0
    await cluster.wait_records("events", 2)
    assert trio.current_time() == 0.5


async def test_answers_keep_their_order_when_a_delay_ends(
    client, batch: Batch, cluster: FakeCluster, autojump_clock: trio.testing.MockClock
) -> None:
    cluster.faults.delay(0.5)
    await client.stream.send_all(client.produce_request(batch([b"a"])) + client.produce_request(batch([b"b"])))
    assert (await client.produce_answer()).base_offset == 0
    assert (await client.produce_answer()).base_offset == 1
    assert [request.answered_at for request in cluster.seen.produce_requests] == [0.5, 0.5]


async def test_stall_holds_until_released(
    client, batch: Batch, cluster: FakeCluster, autojump_clock: trio.testing.MockClock
) -> None:
    stall = cluster.faults.stall()
    with trio.move_on_after(1000) as scope:
        await client.produce(batch([b"a"]))
    assert scope.cancelled_caught
    assert cluster.values("events") == [b"a"]
    stall.release()
    assert (await client.produce_answer()).base_offset == 0


async def test_stall_before_the_append(
    client, batch: Batch, cluster: FakeCluster, autojump_clock: trio.testing.MockClock
) -> None:
    stall = cluster.faults.stall(append=False)
    with trio.move_on_after(10):
        await client.produce(batch([b"a"]))
    assert cluster.records("events") == []
    stall.release()
    await cluster.wait_records("events", 1)


async def test_close_before_appends_nothing(client, batch: Batch, cluster: FakeCluster) -> None:
    cluster.faults.close_before()
    assert await client.produce(batch([b"a"])) is None
    assert cluster.records("events") == []
    assert cluster.attempts_of(b"a") == 1


async def test_drop_answer_appends(client, batch: Batch, cluster: FakeCluster) -> None:
    cluster.faults.drop_answer()
    assert await client.produce(batch([b"a"])) is None
    assert cluster.values("events") == [b"a"]
    assert cluster.seen.produce_requests[0].answered_at is None


async def test_reset_breaks_the_connection(client, batch: Batch, cluster: FakeCluster) -> None:
    cluster.faults.drop_answer(reset=True)
    with pytest.raises(trio.BrokenResourceError):
        await client.produce(batch([b"a"]))


async def test_fail_answers_without_appending(client, batch: Batch, cluster: FakeCluster) -> None:
    cluster.faults.fail(19, message="too few")
    answer = await client.produce(batch([b"a"]))
    assert (answer.code, answer.base_offset, answer.part.error_message) == (19, -1, "too few")
    assert (await client.produce(batch([b"b"]))).code == 0
    assert cluster.values("events") == [b"b"]


async def test_append_and_fail_answers_the_true_offset(client, batch: Batch, cluster: FakeCluster) -> None:
    await client.produce(batch([b"a"]))
    cluster.faults.append_and_fail(6, leader=(2, 9))
    answer = await client.produce(batch([b"b"]), version=10)
    assert (answer.code, answer.base_offset) == (6, 1)
    assert (answer.part.current_leader.leader_id, answer.part.current_leader.leader_epoch) == (2, 9)
    assert cluster.values("events") == [b"a", b"b"]


async def test_fail_with_record_errors(client, batch: Batch, cluster: FakeCluster) -> None:
    cluster.faults.fail(87, record_errors=[(1, "bad"), (2, None)])
    answer = await client.produce(batch([b"a", b"b", b"c"]))
    errors = [(error.batch_index, error.batch_index_error_message) for error in answer.part.record_errors]
    assert errors == [(1, "bad"), (2, None)]


async def test_code_that_no_schema_knows_is_written(client, batch: Batch, cluster: FakeCluster) -> None:
    cluster.faults.fail(9999)
    await client.stream.send_all(client.produce_request(batch([b"a"])))
    frame = await client.receive_frame()
    assert (9999).to_bytes(2) in frame


async def test_selection_by_partition_and_skip_and_times(connect, batch: Batch, cluster: FakeCluster) -> None:
    fault = cluster.faults.fail(19, partition=1, skip=1, times=2)
    first, second = await connect(1), await connect(2)
    assert (await first.produce(batch([b"a"]))).code == 0
    codes = [(await second.produce(batch([b"b"]), partition=1)).code for _ in range(4)]
    assert codes == [0, 19, 19, 0]
    assert fault.hits == 2
    assert cluster.faults.active == []


async def test_fault_ends_with_its_block(client, batch: Batch, cluster: FakeCluster) -> None:
    with cluster.faults.fail(19, times=None) as fault:
        assert [(await client.produce(batch([b"a"]))).code for _ in range(3)] == [19, 19, 19]
    assert (await client.produce(batch([b"a"]))).code == 0
    assert repr(fault) == "<Fault fail(19): 3 hits, 0 left>"


async def test_selection_by_function(client, batch: Batch, cluster: FakeCluster) -> None:
    cluster.faults.fail(19, times=None, when=lambda request: b"bad" in request.batches[0].values)
    assert (await client.produce(batch([b"good"]))).code == 0
    assert (await client.produce(batch([b"bad"]))).code == 19


async def test_truncate_cuts_the_frame(client, batch: Batch, cluster: FakeCluster) -> None:
    cluster.faults.truncate(10)
    await client.stream.send_all(client.produce_request(batch([b"a"])))
    assert await client.receive_frame() is None
    assert len(client.received) == 10


async def test_dribble_writes_byte_for_byte(
    client, batch: Batch, cluster: FakeCluster, autojump_clock: trio.testing.MockClock
) -> None:
    cluster.faults.dribble(interval_s=0.1)
    await client.stream.send_all(client.produce_request(batch([b"a"])))
    sizes = []
    while sum(sizes) < 5:
        sizes.append(len(await client.stream.receive_some()))
    assert sizes == [1, 1, 1, 1, 1]
    assert trio.current_time() == pytest.approx(0.4)


async def test_unknown_tags_stand_wherever_tags_may(client, batch: Batch, cluster: FakeCluster) -> None:
    cluster.faults.unknown_tags(times=None)
    await client.stream.send_all(client.produce_request(batch([b"a"])))
    frame = await client.receive_frame()
    assert frame.count(b"\xe7\x07\x05later") == 4  # header, partition, topic, body
    await client.stream.send_all(client.produce_request(batch([b"a"]), version=8))
    assert b"later" not in await client.receive_frame()


async def test_omitted_and_repeated_partitions(client, batch: Batch, cluster: FakeCluster) -> None:
    cluster.faults.omit_partition()
    cluster.faults.repeat_partition(skip=1)
    answers = []
    for _ in range(2):
        await client.stream.send_all(client.produce_request(batch([b"a"])))
        answers.append(client.read(Api.PRODUCE, 9, await client.receive_frame()))
    assert answers[0].responses == ()
    assert [part.index for part in answers[1].responses[0].partition_responses] == [0, 0]
    assert len(cluster.records("events")) == 2


async def test_wrong_correlation_id_and_body(client, batch: Batch, cluster: FakeCluster) -> None:
    cluster.faults.shift_correlation(5)
    await client.stream.send_all(client.produce_request(batch([b"a"])))
    assert int.from_bytes((await client.receive_frame())[:4]) == client.correlation_id + 5
    cluster.faults.replace_body(b"junk")
    await client.stream.send_all(client.produce_request(batch([b"a"])))
    assert (await client.receive_frame())[4:] == b"junk"


async def test_sending_while_throttled_is_a_violation(
    client, batch: Batch, cluster: FakeCluster, autojump_clock: trio.testing.MockClock
) -> None:
    cluster.faults.throttle(2000)
    await client.stream.send_all(client.produce_request(batch([b"a"])))
    answer = client.read(Api.PRODUCE, 9, await client.receive_frame())
    assert answer.throttle_time.total_seconds() == 2.0
    await trio.sleep(1.9)
    await client.produce(batch([b"a"]))
    assert cluster.seen.violations == ["connection 1: PRODUCE sent while throttled"]
    await trio.sleep(0.2)
    await client.produce(batch([b"a"]))
    assert len(cluster.seen.violations) == 1


async def test_request_that_crosses_the_answer_that_throttles_is_no_violation(
    client, batch: Batch, cluster: FakeCluster, autojump_clock: trio.testing.MockClock
) -> None:
    """The answer was on its way, or its request was served so slowly that the next one lay unread."""
    cluster.faults.throttle(2000)
    cluster.faults.delay(1.0)
    await client.stream.send_all(client.produce_request(batch([b"a"])))
    await trio.sleep(0.5)
    await client.stream.send_all(client.produce_request(batch([b"b"])))
    for _ in range(2):
        await client.receive_frame()
    assert trio.current_time() >= 1.0
    assert cluster.seen.violations == []


async def test_refused_connects(cluster: FakeCluster, connect) -> None:
    cluster.faults.refuse_connects(broker=1, times=1)
    with pytest.raises(ConnectionRefusedError):
        await connect(1)
    await connect(2)
    await connect(1)
    assert cluster.seen.connections_refused_total == 1
    assert cluster.seen.injected
    assert cluster.connections_opened_total == 2


async def test_black_hole_connects(cluster: FakeCluster, connect, autojump_clock: trio.testing.MockClock) -> None:
    cluster.faults.black_hole_connects()
    with trio.move_on_after(100):
        await connect(1)
    assert trio.current_time() == 100
    cluster.faults.accept_connects()
    await connect(1)


async def test_unknown_host_is_an_os_error(cluster: FakeCluster) -> None:
    with pytest.raises(OSError, match="no fake broker at elsewhere:9092"):
        await cluster.connector("elsewhere", 9092)


async def test_stopped_broker_breaks_refuses_and_comes_back(
    client, batch: Batch, cluster: FakeCluster, connect
) -> None:
    cluster.stop_broker(1)
    with pytest.raises(trio.BrokenResourceError):
        await client.produce(batch([b"a"]))
    with pytest.raises(ConnectionRefusedError):
        await connect(1)
    assert cluster.partition("events", 0).leader == 2
    assert not cluster.seen.injected
    cluster.stop_broker(2)
    assert cluster.partition("events", 0).leader is None
    cluster.start_broker(1)
    assert (cluster.partition("events", 0).leader, cluster.partition("events", 0).leader_epoch) == (1, 3)
    assert (await (await connect(1)).produce(batch([b"b"]))).code == 0


async def test_paused_broker_reads_and_writes_nothing(
    client, batch: Batch, cluster: FakeCluster, autojump_clock: trio.testing.MockClock
) -> None:
    await client.produce(batch([b"a"]))
    cluster.pause_broker(1)
    with trio.move_on_after(20):
        await client.produce(batch([b"b"]))
    assert cluster.values("events") == [b"a"]
    cluster.resume_broker(1)
    assert (await client.produce_answer()).base_offset == 1


async def test_paused_broker_stalls_a_sender_in_the_middle_of_a_frame(
    client, batch: Batch, cluster: FakeCluster, autojump_clock: trio.testing.MockClock
) -> None:
    await client.produce(batch([b"a"]))
    cluster.pause_broker(1, after_bytes=1000)
    big = batch([b"x" * 400_000])
    with trio.move_on_after(5) as scope:
        await client.stream.send_all(client.produce_request(big))
    assert scope.cancelled_caught
    cluster.resume_broker(1)
    await client.stream.aclose()
    await cluster.wait_until(lambda: cluster.seen.violations)
    assert "of a frame unfinished" in cluster.seen.violations[0]
    assert cluster.values("events") == [b"a"]


async def test_closed_connections_end_for_the_client(client, batch: Batch, cluster: FakeCluster) -> None:
    await client.produce(batch([b"a"]))
    cluster.close_connections()
    assert await client.receive_frame() is None
    await cluster.wait_until(lambda: cluster.connections_open == 0)


async def test_clear_releases_everything(
    client, batch: Batch, cluster: FakeCluster, autojump_clock: trio.testing.MockClock
) -> None:
    cluster.faults.stall()
    cluster.faults.fail(19, skip=100)
    with trio.move_on_after(1):
        await client.produce(batch([b"a"]))
    cluster.faults.clear()
    assert (await client.produce_answer()).code == 0
    assert cluster.faults.active == []


async def test_bytes_that_are_no_request_close_the_connection(client, cluster: FakeCluster) -> None:
    await client.stream.send_all(b"GET / HTTP/1.1\r\n\r\n")
    assert await client.receive_frame() is None
    assert "a frame claims" in cluster.seen.violations[0]
