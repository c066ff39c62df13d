"""The producer bugs that other clients had, one test each (kafka_client/README.md lists them).

Each test is named after the symptom; its docstring names where it happened.
"""

import gc
import struct
import sys
import time

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from kafka_client import ConfigError, Delivered, NotSent, ProducerConfig, Record, Unknown
from kafka_client.sending.identity import MAX_EPOCH, MAX_SEQUENCE, ProducerState
from kafka_client.testing.messages import Api, encode_answer


async def test_bug_01_sequence_reused_after_cancel_loses_the_next_record(scenario, autojump_clock) -> None:
    """franz-go #1217: A appended, answered REQUEST_TIMED_OUT, cancelled; B took A's sequence and was deduplicated."""
    async with scenario() as s:
        await s.outcome(b"warm-up")
        s.cluster.faults.append_and_fail(7)
        with s.deliver(b"A") as a:
            await s.cluster.wait_until(lambda: s.cluster.attempts_of(b"A"))
        assert isinstance(a.outcomes[0], Unknown)
        b = await s.outcome(b"B")
        assert isinstance(b, Delivered)
        await s.settle()
        assert isinstance(s.resolved[b"A"], Delivered)
        assert b.offset != s.resolved[b"A"].offset
        assert s.cluster.values("events").count(b"B") == 1


async def test_bug_02_bytes_of_an_expired_batch_go_to_another_topic(scenario, autojump_clock) -> None:
    """KAFKA-19012: the buffer of a batch that expired while it was being written was used for another topic."""
    async with scenario(
        cluster={"socket_buffer_bytes": 1024}, batch_timeout_s=1.0, compression="none", request_timeout_s=30
    ) as s:
        s.cluster.create_topic("other", 1)
        await s.outcome(b"warm-up")
        await s.outcome(b"warm-up too", topic="other")
        s.cluster.pause_broker(1, after_bytes=500)
        expired = s.deliver(b"X" * 5000)
        await wait_all_tasks_blocked()
        queued = [s.deliver(b"Y%d" % index + b"Y" * 3000, topic="other") for index in range(3)]
        with expired:
            await expired.wait()
        assert expired.outcomes == [Unknown("abandoned: no answer within batch_timeout_s")]
        s.cluster.resume_broker(1)
        for delivery in queued:
            with delivery:
                await delivery.wait()
        assert all(isinstance(delivery.outcomes[0], Delivered) for delivery in queued)
        assert s.cluster.values("other") == [b"warm-up too"] + [b"Y%d" % index + b"Y" * 3000 for index in range(3)]
        assert set(s.cluster.values("events")) <= {b"warm-up", b"X" * 5000}


async def test_bug_03_deadline_of_a_sent_batch_breaks_the_window_behind_it(scenario, autojump_clock) -> None:
    """dotnet #704, librdkafka 0094, KAFKA-14397: 1-5 sent, 1 acknowledged, the link stalls past the deadline of 2."""
    async with scenario(linger_s=0.0, batch_timeout_s=5.0) as s:
        await s.outcome(b"0")
        stall = s.cluster.faults.stall(skip=1)
        deliveries = []
        for number in range(1, 6):
            deliveries.append(s.deliver(b"%d" % number))
            await trio.sleep(0.1)
        with deliveries[0]:
            await deliveries[0].wait()
        with deliveries[1]:
            await deliveries[1].wait()
        assert trio.current_time() == pytest.approx(0.1 + 5.0, abs=0.01)
        assert isinstance(deliveries[1].outcomes[0], Unknown)
        stall.release()
        for delivery in deliveries[2:]:
            with delivery:
                await delivery.wait()
            assert isinstance(delivery.outcomes[0], Delivered)
        await s.outcome(b"6")
        assert s.cluster.values("events") == [b"0", b"1", b"2", b"3", b"4", b"5", b"6"]
        assert s.producer.statistics().epoch == 0


async def test_bug_04_never_sent_record_consumes_a_sequence(scenario, autojump_clock) -> None:
    """aiokafka #1017: a batch that expired without a leader still took sequence numbers: 45 for ever."""
    async with scenario(delivery_timeout_s=31.0) as s:
        await s.outcome(b"first")
        s.cluster.move_leader("events", 0, None)
        s.cluster.faults.fail(6)
        with s.deliver(b"probe") as probe:
            with trio.move_on_after(1):
                await probe.wait()
        with s.deliver(b"expired") as expired:
            await expired.wait()
        assert isinstance(expired.outcomes[0], NotSent)
        assert s.cluster.attempts_of(b"expired") == 0
        s.cluster.move_leader("events", 0, 1)
        assert isinstance(await s.outcome(b"next"), Delivered)
        accepted = [(b.base_sequence, b.count) for b in s.cluster.seen.batches if b.error_code == 0]
        assert accepted == [(0, 1), (1, 1), (2, 1)]
        assert s.producer.statistics().epoch == 0


async def test_bug_05_two_first_batches_pipelined_to_a_fresh_partition(scenario, autojump_clock) -> None:
    """franz-go #223, KAFKA-14359: with no state the broker accepts any first sequence, so the first batch is lost."""
    async with scenario(linger_s=0.0) as s:
        s.cluster.faults.fail(6)
        a = s.deliver(b"A")
        await wait_all_tasks_blocked()
        b = s.deliver(b"B")
        for delivery in (a, b):
            with delivery:
                await delivery.wait()
            assert isinstance(delivery.outcomes[0], Delivered)
        assert s.cluster.values("events") == [b"A", b"B"]


async def test_bug_05_only_one_batch_is_in_flight_before_the_first_acknowledgement(scenario, autojump_clock) -> None:
    async with scenario(linger_s=0.0) as s:
        s.cluster.faults.delay(0.5)
        deliveries = []
        for number in range(5):
            deliveries.append(s.deliver(b"%d" % number))
            await trio.sleep(0.05)
        assert len(s.cluster.seen.produce_requests) == 1
        for delivery in deliveries:
            with delivery:
                await delivery.wait()
        assert s.cluster.values("events") == [b"0", b"1", b"2", b"3", b"4"]


async def test_bug_06_epoch_bump_forgets_idle_and_busy_partitions(scenario, autojump_clock) -> None:
    """KAFKA-12152: a bump because of p0 while p1 is idle and p2 in flight."""
    async with scenario(partitions=3, linger_s=0.0) as s:
        for partition in range(3):
            await s.outcome(b"first %d" % partition, partition=partition)
        s.cluster.faults.fail(45, partition=0)
        s.cluster.faults.delay(1.0, partition=2)
        p2 = s.deliver(b"old epoch", partition=2)
        await wait_all_tasks_blocked()
        p0 = s.deliver(b"bumps", partition=0)
        with p0:
            await p0.wait()
        assert isinstance(p0.outcomes[0], Delivered)
        assert s.producer.statistics().epoch == 1
        late = s.deliver(b"behind the old epoch", partition=2)
        assert isinstance(await s.outcome(b"new epoch", partition=1), Delivered)
        assert s.base_sequences(1) == [(0, 0, 1), (1, 0, 1)]
        for delivery in (p2, late):
            with delivery:
                await delivery.wait()
        assert s.base_sequences(2) == [(0, 0, 1), (0, 1, 1), (1, 0, 1)]
        for request in s.cluster.seen.produce_requests:
            assert len({(batch.producer_id, batch.epoch) for batch in request.batches}) == 1


async def test_bug_07_topic_gone_in_metadata_loses_sequences_or_records(scenario, autojump_clock) -> None:
    """librdkafka before 1.9: metadata called the topic unknown, sequences started again, records were deduplicated."""
    async with scenario(metadata_max_age_s=1.0) as s:
        for number in range(3):
            await s.outcome(b"before %d" % number)
        s.cluster.topics["events"].hidden = True
        s.cluster.faults.fail(3, times=3)
        during = s.deliver(b"during")
        await trio.sleep(5)
        s.cluster.topics["events"].hidden = False
        with during:
            await during.wait()
        assert isinstance(during.outcomes[0], Delivered)
        assert isinstance(await s.outcome(b"after"), Delivered)
        accepted = [(b.epoch, b.base_sequence) for b in s.cluster.seen.batches if b.error_code == 0]
        assert accepted == [(0, 0), (0, 1), (0, 2), (0, 3), (0, 4)]


async def test_bug_08_retry_differs_from_the_original(scenario, autojump_clock) -> None:
    """librdkafka #4736: a batch re-sent with one record less is not recognised as a duplicate."""
    async with scenario() as s:
        await s.outcome(b"warm-up")
        s.cluster.faults.delay(0.5, where="broker")
        s.cluster.faults.drop_answer()
        deliveries = [s.deliver(b"%03d" % number) for number in range(100)]
        await s.cluster.wait_until(lambda: s.cluster.attempts_of(b"099"))
        deliveries[40].withdraw()
        assert isinstance(deliveries[40].outcomes[0], Unknown)
        for delivery in deliveries:
            with delivery:
                await delivery.wait()
        assert s.base_sequences()[1:] == [(0, 1, 100), (0, 1, 100)]
        assert isinstance(s.resolved[b"040"], Delivered)
        assert s.cluster.values("events") == [b"warm-up"] + [b"%03d" % number for number in range(100)]


async def test_bug_09_sequence_after_the_last_one_is_negative_or_refused(scenario, autojump_clock) -> None:
    """librdkafka #3720, franz-go v1.9.0: after 2**31 - 1 comes 0, also in the middle of a batch that is sent twice."""
    async with scenario() as s:
        await s.outcome(b"warm-up")
        # As after 2**31 - 3 records: the broker has forgotten the first ones and takes any sequence to begin with.
        s.cluster.partition("events", 0).log.forget_producers()
        s.producer._topics["events"].partitions[0].window.next_sequence = MAX_SEQUENCE - 1
        assert isinstance(await s.outcome(b"last but one"), Delivered)
        s.cluster.faults.drop_answer()
        with s.deliver(b"the last", b"the first", b"the second") as d:
            await d.wait()
        assert [outcome.offset for outcome in d.outcomes] == [2, 3, 4]
        assert s.cluster.seen.batches[-1].duplicate
        assert isinstance(await s.outcome(b"next"), Delivered)
        assert s.base_sequences()[1:] == [
            (0, MAX_SEQUENCE - 1, 1),
            (0, MAX_SEQUENCE, 3),
            (0, MAX_SEQUENCE, 3),
            (0, 2, 1),
        ]
        assert [record.sequence for record in s.cluster.log("events", 0)[2:]] == [MAX_SEQUENCE, 0, 1, 2]


async def test_bug_09_epoch_after_the_last_one_is_negative_or_refused(scenario, autojump_clock) -> None:
    """franz-go #227: an epoch of 32767 cannot be bumped, a new producer id has to be asked for."""
    async with scenario(partitions=2) as s:
        await s.outcome(b"warm-up 0", partition=0)
        await s.outcome(b"warm-up 1", partition=1)
        identity = s.producer._dispatch.identity
        first = identity.current.producer_id
        identity.current = ProducerState(first, MAX_EPOCH - 1)
        for number in range(2):
            s.cluster.faults.fail(45, partition=0)
            assert isinstance(await s.outcome(b"%d" % number, partition=0), Delivered)
        assert isinstance(await s.outcome(b"other", partition=1), Delivered)
        seen = [(batch.producer_id - first, batch.epoch, batch.base_sequence) for batch in s.cluster.seen.batches[2:]]
        assert seen == [
            (0, MAX_EPOCH - 1, 0),
            (0, MAX_EPOCH, 0),
            (0, MAX_EPOCH, 1),
            (1, 0, 0),
            (1, 0, 0),
        ]


async def test_bug_10_too_large_batch_is_halved_and_a_too_large_record_is_refused(scenario, autojump_clock) -> None:
    """KAFKA-8350, 8202, 8325, 19479: splitting looped, leaked, or let flush() return early."""
    async with scenario(cluster={"message_max_bytes": 3000}, compression="none") as s:
        values = [b"%02d" % number + b"." * 500 for number in range(40)]
        values[17] = b"17" + b"!" * 4000
        with s.deliver(*values) as d:
            await d.wait()
        assert isinstance(d.outcomes[17], NotSent)
        assert d.outcomes[17].reason.startswith("MESSAGE_TOO_LARGE")
        assert all(isinstance(outcome, Delivered) for index, outcome in enumerate(d.outcomes) if index != 17)
        assert s.cluster.values("events") == [value for index, value in enumerate(values) if index != 17]


@pytest.mark.parametrize("acks", [0, 1, "0", "none", None])
def test_bug_11_acks_0_waits_for_an_answer_that_never_comes(acks: object) -> None:
    """franz-go v0.6.7. Without an answer no outcome could be told: refused, with the only mode that there is."""
    with pytest.raises(ConfigError, match="acks=all is the only mode"):
        ProducerConfig(bootstrap_servers="b:9092", acks=acks)  # type: ignore[arg-type]
    assert ProducerConfig(bootstrap_servers="b:9092", acks="all").acks == "all"
    assert ProducerConfig(bootstrap_servers="b:9092", acks=-1).acks == "all"  # type: ignore[arg-type]  # as in Kafka


@pytest.mark.parametrize("in_flight", [0, 1, 2])
async def test_bug_11_answer_that_nobody_asked_for_hurts_others(scenario, autojump_clock, in_flight: int) -> None:
    """Some brokers answer what must not be answered: that connection ends, every record is delivered once."""
    async with scenario(partitions=2, brokers=2, linger_s=0.0) as s:
        for partition in range(2):
            await s.outcome(b"warm-up %d" % partition, partition=partition)
        other, stray = (s.cluster.partition("events", partition).leader for partition in (0, 1))
        produce = {request.broker: request.connection for request in s.cluster.seen.produce_requests}
        (connection,) = (each for each in s.cluster.brokers[stray].connections if each.number == produce[stray])
        s.cluster.faults.delay(0.5, times=None)
        deliveries = [s.deliver(b"other", partition=0)]
        for number in range(in_flight):
            deliveries.append(s.deliver(b"%d" % number, partition=1))
            await wait_all_tasks_blocked()
        # A success, and a lie: taken for the answer to one of ours it would tell an offset that the log does not have.
        result = {"index": 1, "error_code": 0, "base_offset": 77, "log_append_time": -1, "log_start_offset": 0}
        result |= {"record_errors": [], "error_message": None}
        topic = {"name": "events", "topic_id": s.cluster.topics["events"].topic_id, "partition_responses": [result]}
        answer = encode_answer(Api.PRODUCE, 13, 999, {"responses": [topic], "throttle_time": 0})
        await connection._stream.send_all(struct.pack(">i", len(answer)) + answer)
        await wait_all_tasks_blocked()
        deliveries.append(s.deliver(b"after", partition=1))
        for delivery in deliveries:
            with delivery:
                await delivery.wait()
            assert isinstance(delivery.outcomes[0], Delivered)
        connections = {broker.broker: broker.connections_opened_total for broker in s.producer.statistics().brokers}
        assert connections == {other: 1, stray: 2}


async def test_bug_12_cancel_while_waiting_for_the_budget_loses_a_wake_up(scenario, autojump_clock) -> None:
    """franz-go #832, #777, #787: three waiters of different sizes, the middle one leaves."""
    async with scenario(queue_max_bytes=10_000, max_waiting_bytes=100_000) as s:
        s.cluster.faults.refuse_connects()
        first = s.deliver(b"first" + b"." * 9000)
        large = s.deliver(b"large" + b"." * 5000)
        middle = s.deliver(b"middle" + b"." * 8000)
        small = s.deliver(b"small" + b"." * 1000)
        assert s.producer.statistics().waiting_deliveries == 3
        middle.withdraw()
        assert middle.outcomes == [NotSent("withdrawn")]
        assert s.producer.statistics().waiting_deliveries == 2
        first.withdraw()
        statistics = s.producer.statistics()
        assert statistics.waiting_deliveries == 0
        assert 6000 < statistics.queue_bytes < 6500
        s.cluster.faults.accept_connects()
        for delivery in (large, small):
            with delivery:
                await delivery.wait()
        assert [value[:5] for value in s.cluster.values("events")] == [b"large", b"small"]


async def test_bug_13_cancelled_waiter_shifts_the_answers_of_others(scenario, autojump_clock) -> None:
    """dpkp #1748, afkak #83: a waiter cancelled between write and answer shifted every later answer by one."""
    async with scenario() as s:
        await s.outcome(b"warm-up")
        s.cluster.faults.delay(0.2, times=2)
        with s.deliver(b"cancelled") as cancelled:
            with trio.move_on_after(0.1):
                await cancelled.wait()
        assert isinstance(await s.outcome(b"next"), Delivered)
        await s.settle()
        assert isinstance(s.resolved[b"cancelled"], Delivered)
        assert s.producer.statistics().brokers[0].connections_opened_total == 1


async def test_bug_14_close_never_returns_with_all_brokers_down(scenario, autojump_clock) -> None:
    """aiokafka #1039, kafka-python #3108, dotnet #1027, sarama #1878."""
    async with scenario(settle=False, max_in_flight_per_partition=1) as s:
        await s.outcome(b"warm-up")
        s.cluster.pause_broker(1)
        sealed = s.deliver(b"sealed")
        await wait_all_tasks_blocked()
        queued = s.deliver(b"queued")
        started = trio.current_time()
        await s.producer.close(grace_s=2.0)
        assert trio.current_time() - started <= 2.1
        assert sealed.outcomes == [Unknown("closed")]
        assert queued.outcomes == [NotSent("closed")]
        assert s.resolved[b"sealed"] == Unknown("closed")
        after = s.deliver(b"after")
        assert after.outcomes == [NotSent("closed")]
        await after.wait()


async def test_bug_14_idempotent_send_ignores_its_deadline(scenario, autojump_clock) -> None:
    """aiokafka: broker down for 8 s with a request timeout of 1.5 s, the send was still pending."""
    async with scenario(delivery_timeout_s=3.0, request_timeout_s=1.5, produce_timeout_s=1.0, settle=False) as s:
        s.cluster.stop_broker(1)
        with s.deliver(b"value", partition=None) as d:
            await d.wait()
        assert trio.current_time() == pytest.approx(3.0)
        assert isinstance(d.outcomes[0], NotSent)
        assert d.outcomes[0].reason.startswith("timeout")


async def test_bug_14_record_behind_a_silent_leader_ignores_its_deadline(scenario, autojump_clock) -> None:
    """The same with the leader known and connected: one record sealed, one queued behind it."""
    async with scenario(
        delivery_timeout_s=3.0, request_timeout_s=2.5, produce_timeout_s=1.0, max_in_flight_per_partition=1
    ) as s:
        await s.outcome(b"warm-up")
        s.cluster.pause_broker(1)
        started = trio.current_time()
        sealed = s.deliver(b"sealed")
        await wait_all_tasks_blocked()
        queued = s.deliver(b"queued")
        for delivery, outcome in ((sealed, Unknown("timeout")), (queued, NotSent("timeout"))):
            with delivery:
                await delivery.wait()
            assert delivery.outcomes == [outcome]
        assert trio.current_time() - started == pytest.approx(3.0)
        s.cluster.resume_broker(1)


async def test_bug_14_dead_task_is_silent(scenario, autojump_clock) -> None:
    """aiokafka #1039: the sender task died, later sends hung for ever without an error."""

    def explode(index: int, outcome: object) -> None:
        raise ZeroDivisionError("a bug in a callback")

    deliveries = []

    async def run() -> None:
        async with scenario(settle=False) as s:
            await s.outcome(b"warm-up")
            s.cluster.faults.delay(0.5)
            d = s.producer.delivery([Record("events", b"value", partition=0)])
            d.on_resolved(explode)
            await wait_all_tasks_blocked()
            d.withdraw()
            deliveries.append((d, s.deliver(b"another")))
            await trio.sleep_forever()

    with pytest.RaisesGroup(ZeroDivisionError, flatten_subgroups=True):
        await run()
    ((d, another),) = deliveries
    assert another.unsettled == 0
    assert isinstance(d.outcomes[0], Unknown)


@pytest.mark.parametrize("where", ["queue", "line"])
async def test_bug_15_mass_cancellation_is_quadratic(scenario, autojump_clock, where: str) -> None:
    """aiokafka: cancelling n senders behind a full buffer took O(n²), 100 000 of them for ever.

    Measured in CPU time of this process, and as a ratio: linear from 10 000 to 200 000. Memory is counted in blocks of
    the allocator: what the process holds shows nothing where an earlier test has left room.
    """
    room = {"queue": 64_000_000, "line": 1000}[where]
    async with scenario(settle=False, queue_max_bytes=room, max_waiting_bytes=64_000_000) as s:
        s.cluster.faults.refuse_connects()
        gone = NotSent("withdrawn")

        def cancel_all(count: int) -> tuple[float, int]:
            deliveries = [s.producer.delivery((Record("events", b"%06d" % number),)) for number in range(count)]
            gc.collect()
            blocks = sys.getallocatedblocks()
            started = time.process_time()
            for delivery in deliveries:
                delivery.withdraw()
            took = time.process_time() - started
            assert all(delivery.outcomes == [gone] for delivery in deliveries)
            return took, blocks

        if where == "line":
            s.deliver(b"." * 850)  # the rest waits behind it
        cancel_all(10_000)
        gc.collect()
        before = sys.getallocatedblocks()
        small = min(cancel_all(10_000)[0] for _ in range(3))
        large, held = cancel_all(200_000)
        gc.collect()
        after = sys.getallocatedblocks()
        assert large <= 2.0
        assert large / 200_000 <= 4 * small / 10_000
        assert held - before > 400_000, "200 000 records take memory"
        assert after - before < 1000
        if where == "queue":
            s.check_idle()
            s.cluster.faults.accept_connects()
            assert isinstance(await s.outcome(b"still works"), Delivered)
            assert len(s.cluster.seen.batches) == 1


async def test_bug_15_cancelled_tasks_leave_timers(scenario, autojump_clock) -> None:
    """kafka-python #3077: timers of cancelled sends were kept."""
    async with scenario(settle=False) as s:
        s.cluster.faults.refuse_connects()

        async def send(number: int) -> None:
            with trio.move_on_after(50):
                await s.producer.send(Record("events", b"%06d" % number))

        await trio.sleep(1)
        tasks = trio.lowlevel.current_statistics().tasks_living
        async with trio.open_nursery() as nursery:
            for number in range(10_000):
                nursery.start_soon(send, number)
            await trio.sleep(1)
            assert s.producer.statistics().waiters == 10_000
            nursery.cancel_scope.cancel()
        s.check_idle()
        assert trio.lowlevel.current_statistics().tasks_living <= tasks + 1  # the producer's own come and go
        started = trio.current_time()
        s.cluster.faults.accept_connects()
        assert isinstance(await s.outcome(b"still works"), Delivered)
        assert trio.current_time() - started < 5


async def test_two_thousand_deadlines_of_50_ms_against_a_broker_that_answers_after_500_ms(
    scenario, autojump_clock
) -> None:
    async with scenario(partitions=6) as s:
        for partition in range(6):
            await s.outcome(b"warm-up %d" % partition, partition=partition)
        s.cluster.faults.delay(0.5, times=None)
        started = trio.current_time()
        ended: list[float] = []
        deliveries = []

        async def enqueue(number: int) -> None:
            with s.deliver(b"%d" % number, key=b"%d" % number, partition=None) as d:
                deliveries.append(d)
                with trio.move_on_after(0.05):
                    await d.wait()
            ended.append(trio.current_time() - started)
            assert len(d.outcomes) == 1

        async with trio.open_nursery() as nursery:
            for number in range(2000):
                nursery.start_soon(enqueue, number)
        assert set(ended) == {0.05}
        assert s.producer.statistics().queue_bytes == 0
        assert s.producer.statistics().waiters == 0
        outcomes = [d.outcomes[0] for d in deliveries]
        assert {type(outcome) for outcome in outcomes} <= {Unknown, NotSent}
        attempted = sum(batch.count for batch in s.cluster.seen.batches)
        requests = len(s.cluster.seen.produce_requests)
        await s.settle()
        # One answer later than the last request: nothing new was attempted for what is gone.
        assert trio.current_time() - started <= 0.05 + 0.5 + 0.01
        assert s.producer.statistics().in_flight_bytes == 0
        assert len(s.cluster.seen.produce_requests) == requests
        assert sum(batch.count for batch in s.cluster.seen.batches) == attempted
        unknown = sum(isinstance(outcome, Unknown) for outcome in outcomes)
        assert attempted == 6 + unknown
        assert sum(isinstance(outcome, Delivered) for outcome in s.resolved.values()) == unknown


async def test_forbidden_init_producer_id_names_the_permission(scenario, autojump_clock) -> None:
    async with scenario(delivery_timeout_s=40.0) as s:
        s.cluster.faults.fail(31, api=Api.INIT_PRODUCER_ID, times=1)
        d = s.deliver(b"value")
        await trio.sleep(5)
        (error,) = s.producer.statistics().operator_errors
        assert (error.code, error.name, error.scope) == (31, "CLUSTER_AUTHORIZATION_FAILED", "producer")
        assert "IdempotentWrite" in error.advice
        with s.deliver(b"gives up") as gone:
            with trio.move_on_after(1):
                await gone.wait()
        assert isinstance(gone.outcomes[0], NotSent)
        assert "IdempotentWrite" in gone.outcomes[0].reason
        with d:
            await d.wait()
        assert isinstance(d.outcomes[0], Delivered)
        assert 30 <= trio.current_time() < 31
        assert s.producer.statistics().operator_errors == ()
