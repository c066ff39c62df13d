"""Sequences, retries, gaps, lost batches and epochs of one partition, by rule of the design notes on cancellation."""

import pytest

from kafka_client import Delivered, NotSent, Unknown
from kafka_client.sending.batch import Event, IllegalTransition, Phase
from kafka_client.sending.identity import MAX_SEQUENCE, ProducerIdentity, ProducerState, advance
from kafka_client.wire.produce import LeaderHint, PartitionResult, ProduceResponse


def outcome(delivery):
    return delivery.outcomes[0]


# How many in flight


def test_one_batch_until_the_first_acknowledgement_five_after_it(lab) -> None:
    lab = lab()
    _, first = lab.send(b"0")
    lab.queue(b"1")
    assert lab.nothing_to_send()
    lab.answer(first)
    requests = [lab.retry(), *[lab.send(b"%d" % number)[1] for number in range(2, 6)]]
    lab.queue(b"6")
    assert lab.nothing_to_send()
    assert lab.sent == [(0, sequence, 1) for sequence in range(6)]
    for request in requests:
        lab.answer(request)
    lab.answer(lab.retry())
    lab.check_nothing_left()


def test_one_batch_again_after_any_error_and_after_a_new_leader(lab) -> None:
    lab = lab()
    lab.warm()
    _, first = lab.send(b"a")
    lab.answer(first, 19)
    lab.queue(b"b")
    retry = lab.retry()
    assert lab.sent[-1] == (0, 1, 1)
    assert lab.nothing_to_send()
    lab.answer(retry)
    assert lab.window.limit == 5
    lab.partition.lead_by(1, 6, lab.outbox, lab.now)
    assert lab.window.limit == 5
    lab.partition.lead_by(None, 7, None, lab.now)
    assert lab.window.limit == 1


def test_nothing_new_is_sealed_more_than_five_batches_behind_an_unresolved_one(lab) -> None:
    """The broker recognises its last five batches: the retry of an older one would not be recognised."""
    lab = lab()
    lab.warm()
    _, doubtful = lab.send(b"A")
    others = [lab.send(b"%d" % number)[1] for number in range(4)]
    lab.answer(doubtful, 7)
    for request in others:
        lab.answer(request)
    lab.queue(b"new")
    again = lab.retry()
    assert lab.sent[-1] == (0, 1, 1)
    lab.outbox.urge()
    assert lab.request() is None, "five batches were sealed from A on: the next has to wait for A"
    lab.answer(again)
    lab.answer(lab.retry())
    lab.check_nothing_left()


def test_never_in_flight_to_two_leaders(lab) -> None:
    lab = lab()
    lab.warm()
    _, request = lab.send(b"a")
    other = type(lab.outbox)(2, lab.office.config, lab.bell)
    lab.queue(b"b")
    lab.partition.lead_by(2, 6, other, lab.now)
    assert other.next_request(lab.now) is None
    lab.answer(request)
    moved = other.next_request(lab.now)
    assert moved is not None
    assert moved.batches[0][1].base_sequence == 2


# Taint


@pytest.mark.parametrize("code", [5, 6, 8, 9, 19, 55, 72, 74, 75, 83, 89, 100, 103, 3])
def test_retriable_code_without_an_offset_does_not_taint(lab, code: int) -> None:
    lab = lab()
    lab.warm()
    delivery, request = lab.send(b"a")
    lab.answer(request, code)
    assert not lab.window.batches[0].tainted
    lab.answer(lab.retry())
    assert isinstance(outcome(delivery), Delivered)
    assert outcome(delivery).attempts == 2
    assert lab.sent[-2:] == [(0, 1, 1), (0, 1, 1)]


@pytest.mark.parametrize(("code", "offset"), [(7, -1), (20, -1), (56, -1), (3, 0), (6, 12), (13, -1)])
def test_answer_after_an_append_taints(lab, code: int, offset: int) -> None:
    lab = lab()
    lab.warm()
    delivery, request = lab.send(b"a", b"b")
    lab.answer(request, code, offset)
    assert lab.window.batches[0].tainted
    lab.answer(lab.retry(), 10)
    assert isinstance(outcome(delivery), Unknown)
    lab.answer(lab.send(b"next")[1])
    assert lab.sent[-1] == (1, 0, 1), "a sequence that may be in the log is never used again in its epoch"
    lab.check_nothing_left()


def test_lost_connection_taints_all_that_was_written_on_it(lab) -> None:
    lab = lab()
    lab.warm()
    deliveries = [lab.send(b"%d" % number)[0] for number in range(3)]
    lab.outbox.lost()
    assert all(batch.tainted and batch.phase is Phase.RETRY_WAIT for batch in lab.window.batches)
    for _ in range(3):
        lab.answer(lab.retry(), 0)
    assert all(isinstance(outcome(delivery), Delivered) for delivery in deliveries)
    assert lab.sent[4:] == lab.sent[1:4]


def test_missing_partition_in_an_answer_taints(lab) -> None:
    lab = lab()
    lab.warm()
    _, request = lab.send(b"a")
    lab.outbox.answered(request, ProduceResponse(partitions=()), lab.now, {})
    assert lab.window.batches[0].tainted


def test_repeated_partition_in_an_answer_counts_once(lab) -> None:
    lab = lab()
    delivery, request = lab.send(b"a")
    result = PartitionResult(topic="events", topic_id=None, partition=0, error_code=0, base_offset=9)
    lab.outbox.answered(request, ProduceResponse(partitions=(result, result)), lab.now, {})
    assert outcome(delivery).offset == 9
    lab.check_nothing_left()


# Ends


def test_unknown_code_is_final_and_unknown(lab) -> None:
    lab = lab()
    lab.warm()
    for code in (-1, 4711):
        delivery, request = lab.send(b"a")
        lab.answer(request, code)
        assert isinstance(outcome(delivery), Unknown)
        lab.answer(lab.send(b"next")[1])
    assert [sent[:2] for sent in lab.sent] == [(0, 0), (0, 1), (1, 0), (1, 1), (2, 0)]


def test_duplicate_sequence_is_delivered_without_an_offset(lab) -> None:
    lab = lab()
    delivery, request = lab.send(b"a")
    lab.answer(request, 46, 5)
    assert outcome(delivery).offset == -1


def test_corrupt_message_is_encoded_once_more_then_final(lab) -> None:
    lab = lab()
    lab.warm()
    delivery, request = lab.send(b"a")
    lab.answer(request, 2)
    lab.answer(lab.retry(), 2)
    assert outcome(delivery).reason.startswith("CORRUPT_MESSAGE")
    assert isinstance(outcome(delivery), NotSent)
    lab.answer(lab.send(b"next")[1])
    assert lab.sent[-1] == (0, 1, 1), "proved absent and untainted: the range is used again, without a new epoch"


def test_invalid_timestamp_is_restamped_once_then_the_named_record_is_final(lab) -> None:
    lab = lab()
    delivery, request = lab.send(b"a", b"b", b"c")
    lab.answer(request, 32, named=(1,))
    assert lab.window.batches[0].timestamps == [1000, 555, 1000]
    lab.answer(lab.retry(), 32, named=(1,))
    assert isinstance(delivery.outcomes[1], NotSent)
    assert delivery.unsettled == 2
    lab.answer(lab.retry())
    assert [delivery.outcomes[index].offset for index in (0, 2)] == [100, 101]
    assert lab.sent == [(0, 0, 3), (0, 0, 3), (0, 0, 2)]
    lab.check_nothing_left()


def test_invalid_records_that_are_named_end_the_rest_goes_on(lab) -> None:
    lab = lab()
    lab.warm()
    first, second = lab.queue(b"a", b"b"), lab.queue(b"c", b"d")
    second.withdraw([0])
    gone = lab.queue(b"e")
    lab.outbox.urge()
    request = lab.request()
    gone.withdraw()
    reports = []
    gone.on_resolved(lambda index, o: reports.append(o))
    lab.answer(request, 87, named=(1, 3))
    assert isinstance(first.outcomes[1], NotSent)
    assert isinstance(reports[0], NotSent)
    assert gone.outcomes == [Unknown("withdrawn")]
    assert lab.office.account.late_not_sent_total == 1
    lab.answer(lab.retry())
    assert first.outcomes[0].offset == 100
    assert second.outcomes[1].offset == 101
    assert lab.sent[-1] == (0, 1, 2)
    lab.check_nothing_left()


def test_invalid_records_that_nobody_names_are_found_by_halving(lab) -> None:
    lab = lab()
    delivery, request = lab.send(b"a", b"b", b"c", b"d")
    lab.answer(request, 87)
    lab.answer(lab.retry())
    lab.answer(lab.retry(), 87)
    lab.answer(lab.retry(), 87)
    lab.answer(lab.retry())
    assert [type(o) for o in delivery.outcomes] == [Delivered, Delivered, NotSent, Delivered]
    lab.check_nothing_left()


def test_too_large_batch_is_halved_in_its_range_behind_others(lab) -> None:
    lab = lab()
    lab.warm()
    large, request = lab.send(b"a", b"b", b"c")
    later, behind = lab.send(b"d")
    large.withdraw([1])
    lab.answer(request, 10)
    lab.answer(behind, 45)
    lab.answer(lab.retry())
    lab.answer(lab.retry())
    lab.answer(lab.retry())
    assert lab.sent[1:] == [(0, 1, 3), (0, 4, 1), (0, 1, 1), (0, 2, 2), (0, 4, 1)]
    assert isinstance(outcome(later), Delivered)
    assert lab.office.identity.bumps_total == 0
    lab.check_nothing_left()


def test_rejected_batch_gives_its_range_to_those_behind_it_without_a_bump(lab) -> None:
    """Nothing is sent until the later ones are answered, then they move down."""
    lab = lab()
    lab.warm()
    rejected, first = lab.send(b"x")
    later = [lab.send(b"a"), lab.send(b"b", b"c")]
    lab.answer(first, 10)
    assert isinstance(outcome(rejected), NotSent)
    assert lab.nothing_to_send(), "not before the later ones are answered"
    for _, request in later:
        lab.answer(request, 45)
    lab.answer(lab.retry())
    lab.answer(lab.retry())
    assert lab.sent[-2:] == [(0, 1, 1), (0, 2, 2)]
    assert all(isinstance(outcome(delivery), Delivered) for delivery, _ in later)
    assert lab.office.identity.bumps_total == 0
    lab.check_nothing_left()


def test_rejected_batch_with_a_tainted_one_behind_it_takes_a_new_epoch(lab) -> None:
    lab = lab()
    lab.warm()
    _, first = lab.send(b"x")
    tainted, _ = lab.send(b"a")
    absent, _ = lab.send(b"b")
    lab.answer(first, 10)
    lab.answer(lab.outbox.requests[0], 7)
    lab.answer(lab.outbox.requests[0], 45)
    lab.answer(lab.retry())
    assert isinstance(outcome(tainted), Unknown)
    assert isinstance(outcome(absent), Delivered)
    assert lab.sent[-1] == (1, 0, 1)
    lab.check_nothing_left()


# Out of order


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
    assert isinstance(outcome(a), Delivered)
    assert isinstance(outcome(b), Delivered)


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
    assert isinstance(outcome(doubtful), Delivered)
    assert outcome(doubtful).offset == -1
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
    assert outcome(doubtful).offset == -1
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


# Abandoned


def test_abandoned_in_flight_tells_unknown_and_goes_on_when_the_answer_comes(lab) -> None:
    lab = lab(batch_timeout_s=10.0)
    lab.warm()
    reports = []
    delivery, request = lab.send(b"a")
    delivery.on_resolved(lambda index, o: reports.append(o))
    lab.now = 10.0
    lab.partition.end_due(lab.now)
    assert isinstance(outcome(delivery), Unknown)
    assert reports == [outcome(delivery)]
    assert lab.office.account.used_bytes > 0, "its bytes are still on the wire"
    lab.queue(b"b")
    assert lab.nothing_to_send()
    lab.answer(request)
    assert reports == [outcome(delivery)]
    lab.answer(lab.retry())
    assert lab.sent[-1] == (0, 2, 1)
    lab.check_nothing_left()


def test_abandoned_and_then_lost_takes_a_new_epoch(lab) -> None:
    lab = lab(batch_timeout_s=10.0)
    lab.warm()
    lab.send(b"a")
    lab.now = 10.0
    lab.partition.end_due(lab.now)
    lab.outbox.lost()
    lab.answer(lab.send(b"b")[1])
    assert lab.sent[-1] == (1, 0, 1)
    lab.check_nothing_left()


def test_batches_behind_an_abandoned_one_are_tried_on_and_show_that_it_was_appended(lab) -> None:
    lab = lab(batch_timeout_s=10.0)
    lab.warm()
    lab.send(b"a")
    lab.now = 5.0
    later, _ = lab.send(b"b")
    lab.outbox.lost()
    lab.now = 10.0
    lab.partition.end_due(lab.now)
    assert lab.window.unresolved
    lab.now = 11.0
    lab.outbox.urge()
    again = lab.request()
    lab.answer(again)
    assert isinstance(outcome(later), Delivered)
    assert not lab.window.unresolved
    lab.answer(lab.send(b"c")[1])
    assert lab.sent[-2:] == [(0, 2, 1), (0, 3, 1)]


def test_batches_behind_an_abandoned_one_that_was_not_appended_take_a_new_epoch(lab) -> None:
    lab = lab(batch_timeout_s=10.0)
    lab.warm()
    lab.send(b"a")
    lab.now = 5.0
    tainted, _ = lab.send(b"b")
    lab.outbox.lost()
    lab.now = 10.0
    lab.partition.end_due(lab.now)
    lab.now = 11.0
    lab.outbox.urge()
    lab.answer(lab.request(), 45)
    lab.answer(lab.send(b"c")[1])
    assert isinstance(outcome(tainted), Unknown)
    assert lab.sent[-1] == (1, 0, 1)
    lab.check_nothing_left()


def test_untainted_batch_at_its_deadline_is_not_sent_and_gives_its_range_back(lab) -> None:
    lab = lab(batch_timeout_s=10.0)
    lab.warm()
    delivery, request = lab.send(b"a")
    lab.answer(request, 19)
    lab.now = 10.0
    lab.partition.end_due(lab.now)
    assert isinstance(outcome(delivery), NotSent)
    lab.answer(lab.send(b"b")[1])
    assert lab.sent[-1] == (0, 1, 1)


def test_delivery_timeout_of_a_sealed_record_detaches_it(lab) -> None:
    lab = lab(delivery_timeout_s=31.0, batch_timeout_s=100.0)
    lab.warm()
    old, request = lab.send(b"a")
    lab.now = 31.0
    assert lab.partition.next_end() == 31.0
    lab.partition.end_due(lab.now)
    assert outcome(old) == Unknown("timeout")
    assert lab.office.account.detached_batches == 1
    assert lab.partition.next_end() == 100.0
    reports = []
    old.on_resolved(lambda index, o: reports.append(o))
    lab.answer(request)
    assert isinstance(reports[0], Delivered)
    assert lab.office.account.late_delivered_total == 1
    lab.check_nothing_left()


# Identity


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
        assert isinstance(outcome(delivery), Delivered)
        return
    assert lab.office.identity.wanted
    lab.office.identity.assign(ProducerState(8, 0))
    lab.answer(lab.retry())
    assert isinstance(outcome(delivery), Delivered)


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
    assert isinstance(outcome(tainted), Unknown)
    assert isinstance(outcome(absent), Delivered)
    assert lab.sent[-1] == (1, 0, 1)
    lab.partition.topic_recreated()
    lab.answer(lab.send(b"c")[1])
    assert lab.sent[-1] == (2, 0, 1)


# Operators, leaders, pace


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
    assert outcome(flying) == Unknown("closed")
    assert outcome(queued) == NotSent("closed")
    lab.check_nothing_left()
