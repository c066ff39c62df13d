"""Operator-level errors, leaders, backoff, linger, bounds, and the end."""

import pytest

from kafka_client import NotSent, Unknown
from kafka_client.sending.batch import Event, IllegalTransition
from kafka_client.wire.produce import LeaderHint


@pytest.mark.parametrize("code", [17, 29, 37, 42, 43, 44, 76])
def test_operator_error_of_a_topic(lab, code: int) -> None:
    lab = lab()
    lab.warm()
    _, request = lab.send(b"a")
    lab.answer(request, code)
    assert lab.office.errors == [("topic", code)]
    assert not lab.window.batches[0].tainted


@pytest.mark.parametrize("code", [21, 31, 33, 34, 58])
def test_operator_error_of_the_producer(lab, code: int) -> None:
    lab = lab()
    _, request = lab.send(b"a")
    lab.answer(request, code)
    assert lab.office.errors == [("producer", code)]


def test_unknown_topic_becomes_an_operator_error_after_four_in_a_row(lab) -> None:
    lab = lab()
    _, request = lab.send(b"a")
    for _ in range(3):
        lab.answer(request, 3)
        request = lab.retry()
    assert lab.office.errors == []
    lab.answer(request, 3)
    assert lab.office.errors == [("topic", 3)]


def test_unsupported_version_reconnects_once_then_is_an_operator_error(lab) -> None:
    lab = lab()
    _, request = lab.send(b"a")
    lab.answer(request, 35)
    assert lab.outbox.renegotiate
    assert lab.office.errors == []
    lab.answer(lab.retry(), 35)
    assert lab.office.errors == [("producer", 35)]


def test_named_leader_is_taken_without_a_backoff(lab) -> None:
    lab = lab()
    lab.warm()
    _, request = lab.send(b"a")
    lab.answer(request, 6, leader=LeaderHint(2, 9))
    assert lab.office.hints == [LeaderHint(2, 9)]
    assert lab.office.metadata_wanted == 0
    assert lab.request() is not None


def test_backoff_is_the_partitions_only_due_time(lab) -> None:
    lab = lab()
    lab.warm()
    _, request = lab.send(b"a")
    lab.answer(request, 19)
    assert lab.request() is None
    assert lab.outbox.due() == pytest.approx(0.1)
    lab.now = 0.1
    assert lab.request() is not None


def test_throttled_connection_waits(lab) -> None:
    lab = lab()
    _, request = lab.send(b"a")
    lab.answer(request, throttle_ms=250)
    lab.queue(b"b")
    assert lab.request() is None
    assert lab.outbox.due() == pytest.approx(0.25)
    lab.now = 0.25
    assert lab.request() is not None


def test_record_is_sent_at_once_when_nothing_is_in_flight_and_lingers_otherwise(lab) -> None:
    lab = lab()
    lab.warm()
    lab.queue(b"a")
    assert lab.bell.rings
    first = lab.request()
    assert first is not None
    lab.queue(b"b")
    assert lab.request() is None
    assert lab.bell.at[-1] == lab.outbox.due() == pytest.approx(0.002)
    lab.queue(b"c")
    lab.answer(first)
    assert lab.request() is not None
    assert lab.sent[-1] == (0, 2, 2)


def test_whole_batch_does_not_linger(lab) -> None:
    lab = lab(batch_max_bytes=1000, compression="none")
    lab.warm()
    lab.queue(b"a")
    assert lab.request() is not None
    lab.queue(b"b")
    assert lab.request() is None
    lab.queue(b"c" * 1000)
    assert lab.request() is not None


def test_request_has_room_for_so_many_batches_and_the_rest_goes_first_next_time(lab) -> None:
    lab = lab(batch_max_bytes=1000, record_max_bytes=1500, request_max_bytes=2000, compression="none")
    partitions = [lab.partition, *[lab.add_partition(index) for index in range(1, 4)]]
    for partition in partitions:
        lab.queue(b"x" * 900, partition=partition)
    sizes = []
    while (request := lab.request()) is not None:
        sizes.append(len(request.batches))
    assert sizes == [2, 2]


def test_in_flight_bytes_are_bounded_for_the_partition_and_in_total(lab) -> None:
    lab = lab(batch_max_bytes=1000, in_flight_max_bytes=1500, in_flight_max_bytes_per_partition=2000, linger_s=0.0)
    lab.warm()
    first = lab.send(b"a" * 800)[1]
    lab.send(b"b" * 800)
    lab.queue(b"c")
    assert lab.nothing_to_send()
    assert lab.office.was_starved
    lab.answer(first)
    assert lab.retry() is not None


def test_transition_that_is_not_in_the_table_is_a_bug(lab) -> None:
    lab = lab()
    _, request = lab.send(b"a")
    batch = request.batches[0][1]
    with pytest.raises(IllegalTransition):
        batch.step(Event.WRITE)
    lab.answer(request)
    with pytest.raises(IllegalTransition):
        batch.step(Event.END)


def test_close_ends_queued_and_sealed(lab) -> None:
    lab = lab()
    lab.warm()
    flying, _ = lab.send(b"a")
    queued = lab.queue(b"b")
    lab.partition.close()
    assert flying.outcomes[0] == Unknown("closed")
    assert queued.outcomes[0] == NotSent("closed")
    lab.check_nothing_left()
