"""Sequences out of order, abandoned batches, new epochs and identities of one partition."""

import pytest

from kafka_client import Delivered, NotSent, Unknown
from kafka_client.sending.identity import MAX_SEQUENCE, ProducerIdentity, ProducerState, advance


def test_out_of_order_behind_a_retry_is_tried_again_after_it(lab) -> None:
    lab = lab()
    lab.warm()
    _, first = lab.send(b"a")
    _, second = lab.send(b"b")
    lab.answer(first, 6)
    lab.answer(second, 45)
    assert lab.office.identity.bumps_total == 0
    lab.answer(lab.retry())
    lab.answer(lab.retry())
    assert lab.sent[-2:] == [(0, 1, 1), (0, 2, 1)]


def test_out_of_order_at_the_head_takes_a_new_epoch_and_sends_what_is_proved_absent(lab) -> None:
    lab = lab()
    lab.warm()
    a, first = lab.send(b"a")
    b, second = lab.send(b"b")
    lab.answer(first, 45)
    assert lab.nothing_to_send(), "not before the window is drained"
    lab.answer(second, 45)
    lab.answer(lab.retry())
    lab.answer(lab.retry())
    assert lab.sent[-2:] == [(1, 0, 1), (1, 1, 1)]
    assert isinstance(a.outcomes[0], Delivered)
    assert isinstance(b.outcomes[0], Delivered)


def test_later_acknowledgement_proves_the_earlier_batch(lab) -> None:
    """After an OK in the same leader epoch an accepted later batch shows that the earlier one is in the log."""
    lab = lab(batch_timeout_s=50.0)
    lab.warm()
    doubtful, first = lab.send(b"a")
    _, second = lab.send(b"b")
    lab.answer(first, 7)
    lab.answer(second)
    assert lab.window.batches[0].proved
    lab.now = 51.0
    lab.partition.end_due(lab.now)
    assert isinstance(doubtful.outcomes[0], Delivered)
    assert doubtful.outcomes[0].offset == -1
    lab.answer(lab.send(b"next")[1])
    assert lab.sent[-1] == (0, 3, 1)
    lab.check_nothing_left()


def test_out_of_order_of_a_proved_batch_is_delivered(lab) -> None:
    lab = lab()
    lab.warm()
    doubtful, first = lab.send(b"a")
    _, second = lab.send(b"b")
    lab.answer(first, 7)
    lab.answer(second)
    lab.answer(lab.retry(), 45)
    assert doubtful.outcomes[0].offset == -1
    assert lab.office.identity.bumps_total == 0


def test_acknowledgement_under_another_leader_epoch_proves_nothing(lab) -> None:
    lab = lab()
    lab.warm()
    _, first = lab.send(b"a")
    lab.partition.leader_epoch = 6
    _, second = lab.send(b"b")
    lab.answer(first, 7)
    lab.answer(second)
    assert not lab.window.batches[0].proved


def test_abandoned_in_flight_tells_unknown_and_goes_on_when_the_answer_comes(lab) -> None:
    lab = lab(batch_timeout_s=10.0)
    lab.warm()
    reports = []
    delivery, request = lab.send(b"a")
    delivery.on_resolved(lambda index, o: reports.append(o))
    lab.now = 10.0
    lab.partition.end_due(lab.now)
    assert isinstance(delivery.outcomes[0], Unknown)
    assert reports == [delivery.outcomes[0]]
    assert lab.office.account.used_bytes > 0, "its bytes are still on the wire"
    lab.queue(b"b")
    assert lab.nothing_to_send()
    lab.answer(request)
    assert reports == [delivery.outcomes[0]]
    lab.answer(lab.retry())
    assert lab.sent[-1] == (0, 2, 1)
    lab.check_nothing_left()


def test_abandoned_and_then_lost_takes_a_new_epoch(lab) -> None:
    lab = lab(batch_timeout_s=10.0)
    lab.warm()
    lab.send(b"a")
    lab.now = 10.0
    lab.partition.end_due(lab.now)
    lab.outbox.lost(lab.now)
    lab.answer(lab.send(b"b")[1])
    assert lab.sent[-1] == (1, 0, 1)
    lab.check_nothing_left()


def test_batches_behind_an_abandoned_one_are_tried_on_and_show_that_it_was_appended(lab) -> None:
    lab = lab(batch_timeout_s=10.0)
    lab.warm()
    lab.send(b"a")
    lab.now = 5.0
    later, _ = lab.send(b"b")
    lab.outbox.lost(lab.now)
    lab.now = 10.0
    lab.partition.end_due(lab.now)
    assert lab.window.unresolved
    lab.now = 11.0
    lab.outbox.urge()
    again = lab.request()
    lab.answer(again)
    assert isinstance(later.outcomes[0], Delivered)
    assert not lab.window.unresolved
    lab.answer(lab.send(b"c")[1])
    assert lab.sent[-2:] == [(0, 2, 1), (0, 3, 1)]


def test_batches_behind_an_abandoned_one_that_was_not_appended_take_a_new_epoch(lab) -> None:
    lab = lab(batch_timeout_s=10.0)
    lab.warm()
    lab.send(b"a")
    lab.now = 5.0
    tainted, _ = lab.send(b"b")
    lab.outbox.lost(lab.now)
    lab.now = 10.0
    lab.partition.end_due(lab.now)
    lab.now = 11.0
    lab.outbox.urge()
    lab.answer(lab.request(), 45)
    lab.answer(lab.send(b"c")[1])
    assert isinstance(tainted.outcomes[0], Unknown)
    assert lab.sent[-1] == (1, 0, 1)
    lab.check_nothing_left()


def test_untainted_batch_at_its_deadline_is_not_sent_and_gives_its_range_back(lab) -> None:
    lab = lab(batch_timeout_s=10.0)
    lab.warm()
    delivery, request = lab.send(b"a")
    lab.answer(request, 19)
    lab.now = 10.0
    lab.partition.end_due(lab.now)
    assert isinstance(delivery.outcomes[0], NotSent)
    lab.answer(lab.send(b"b")[1])
    assert lab.sent[-1] == (0, 1, 1)


def test_delivery_timeout_of_a_sealed_record_detaches_it(lab) -> None:
    lab = lab(delivery_timeout_s=31.0, batch_timeout_s=100.0)
    lab.warm()
    old, request = lab.send(b"a")
    lab.now = 31.0
    assert lab.partition.next_end() == 31.0
    lab.partition.end_due(lab.now)
    assert old.outcomes[0] == Unknown("timeout")
    assert lab.office.account.detached_batches == 1
    assert lab.partition.next_end() == 100.0
    reports = []
    old.on_resolved(lambda index, o: reports.append(o))
    lab.answer(request)
    assert isinstance(reports[0], Delivered)
    assert lab.office.account.late_delivered_total == 1
    lab.check_nothing_left()


def test_partition_with_the_old_epoch_drains_before_it_switches(lab) -> None:
    lab = lab()
    lab.warm()
    _, request = lab.send(b"a")
    lab.office.identity.leave(ProducerState(7, 0))
    lab.queue(b"b")
    assert lab.nothing_to_send()
    lab.answer(request)
    lab.answer(lab.retry())
    assert lab.sent[-2:] == [(0, 1, 1), (1, 0, 1)]


def test_request_never_mixes_identities(lab) -> None:
    lab = lab()
    other = lab.add_partition(1)
    lab.warm()
    lab.queue(b"x", partition=other)
    lab.outbox.urge()
    lab.answer(lab.request())
    _, request = lab.send(b"a")
    lab.answer(request, 19)
    lab.office.identity.leave(ProducerState(7, 0))
    lab.queue(b"y", partition=other)
    first = lab.retry()
    second = lab.request()
    assert sorted(batch.state.epoch for request in (first, second) for _, batch in request.batches) == [0, 1]
    assert len(first.batches) == len(second.batches) == 1


def test_retry_under_the_old_identity_does_not_join_a_request_of_the_new_one(lab) -> None:
    lab = lab()
    lab.warm()
    other = lab.add_partition(1)
    lab.queue(b"warm", partition=other)
    lab.outbox.urge()
    lab.answer(lab.request())
    lab.queue(b"x", partition=other)
    lab.outbox.urge()
    lab.answer(lab.request(), 19)
    lab.office.identity.leave(ProducerState(7, 0))
    lab.outbox.forget(other)
    lab.queue(b"a")
    lab.outbox.poke(other)  # behind the partition that begins the new epoch
    first = lab.retry()
    second = lab.request()
    assert [[batch.state.epoch for _, batch in request.batches] for request in (first, second)] == [[1], [0]]


def test_epoch_32767_asks_for_a_new_id_and_waits_for_it(lab) -> None:
    lab = lab()
    lab.office.identity.current = ProducerState(7, 32767)
    lab.warm()
    _, request = lab.send(b"a")
    lab.answer(request, 45)
    assert lab.nothing_to_send()
    assert lab.office.identity.wanted
    lab.office.identity.assign(ProducerState(8, 0))
    again = lab.retry()
    assert again.batches[0][1].state == ProducerState(8, 0)
    assert again.batches[0][1].base_sequence == 0


@pytest.mark.parametrize(("code", "log_start", "new_id"), [(47, 0, True), (49, 0, True), (59, 5, False)])
def test_broker_that_forgot_us_gets_another_identity(lab, code: int, log_start: int, new_id: bool) -> None:
    lab = lab()
    lab.warm()
    delivery, request = lab.send(b"a")
    lab.answer(request, code, log_start=log_start)
    assert lab.nothing_to_send() is new_id
    if not new_id:
        lab.answer(lab.outbox.requests[0])
        assert isinstance(delivery.outcomes[0], Delivered)
        return
    assert lab.office.identity.wanted
    lab.office.identity.assign(ProducerState(8, 0))
    lab.answer(lab.retry())
    assert isinstance(delivery.outcomes[0], Delivered)


def test_unknown_producer_id_without_a_log_start_is_just_tried_again(lab) -> None:
    lab = lab()
    lab.warm()
    _, request = lab.send(b"a")
    lab.answer(request, 59, log_start=-1)
    lab.answer(lab.retry())
    assert lab.sent[-1] == (0, 1, 1)


def test_sequences_wrap_to_zero(lab) -> None:
    lab = lab()
    lab.warm()
    lab.window.next_sequence = MAX_SEQUENCE - 1
    lab.answer(lab.send(b"a", b"b", b"c")[1])
    lab.answer(lab.send(b"d")[1])
    assert lab.sent[-2:] == [(0, MAX_SEQUENCE - 1, 3), (0, 1, 1)]
    assert advance(MAX_SEQUENCE, 1) == 0
    assert advance(MAX_SEQUENCE - 2, 3) == 0


def test_one_bump_for_several_partitions_that_leave_the_same_epoch() -> None:
    identity = ProducerIdentity()
    identity.leave(ProducerState(-1, -1))
    assert identity.wanted
    identity.assign(ProducerState(7, 3))
    identity.leave(ProducerState(7, 3))
    identity.leave(ProducerState(7, 3))
    assert identity.current == ProducerState(7, 4)
    identity.leave(ProducerState(7, 4), new_id=True)
    assert not identity.ready


def test_recreated_topic_starts_again_and_resends_only_what_cannot_be_in_the_log(lab) -> None:
    lab = lab()
    lab.warm()
    tainted, first = lab.send(b"a")
    absent, second = lab.send(b"b")
    lab.answer(first, 7)
    lab.answer(second, 100)
    lab.partition.topic_recreated()
    lab.answer(lab.retry())
    assert isinstance(tainted.outcomes[0], Unknown)
    assert isinstance(absent.outcomes[0], Delivered)
    assert lab.sent[-1] == (1, 0, 1)
    lab.partition.topic_recreated()
    lab.answer(lab.send(b"c")[1])
    assert lab.sent[-1] == (2, 0, 1)
