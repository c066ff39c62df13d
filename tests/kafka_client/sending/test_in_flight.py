"""What one answer makes of a sealed batch: how many are in flight, what taints, what ends it."""

import pytest

from kafka_client import Delivered, NotSent, Unknown
from kafka_client.sending.batch import Phase
from kafka_client.wire.produce import PartitionResult, ProduceResponse


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


@pytest.mark.parametrize("code", [5, 6, 8, 9, 19, 55, 72, 74, 75, 83, 89, 100, 103, 3])
def test_retriable_code_without_an_offset_does_not_taint(lab, code: int) -> None:
    lab = lab()
    lab.warm()
    delivery, request = lab.send(b"a")
    lab.answer(request, code)
    assert not lab.window.batches[0].tainted
    lab.answer(lab.retry())
    assert isinstance(delivery.outcomes[0], Delivered)
    assert delivery.outcomes[0].attempts == 2
    assert lab.sent[-2:] == [(0, 1, 1), (0, 1, 1)]


@pytest.mark.parametrize(("code", "offset"), [(7, -1), (20, -1), (56, -1), (3, 0), (6, 12), (13, -1)])
def test_answer_after_an_append_taints(lab, code: int, offset: int) -> None:
    lab = lab()
    lab.warm()
    delivery, request = lab.send(b"a", b"b")
    lab.answer(request, code, offset)
    assert lab.window.batches[0].tainted
    lab.answer(lab.retry(), 10)
    assert isinstance(delivery.outcomes[0], Unknown)
    lab.answer(lab.send(b"next")[1])
    assert lab.sent[-1] == (1, 0, 1), "a sequence that may be in the log is never used again in its epoch"
    lab.check_nothing_left()


def test_lost_connection_taints_all_that_was_written_on_it(lab) -> None:
    lab = lab()
    lab.warm()
    deliveries = [lab.send(b"%d" % number)[0] for number in range(3)]
    lab.outbox.lost(lab.now)
    assert all(batch.tainted and batch.phase is Phase.RETRY_WAIT for batch in lab.window.batches)
    for _ in range(3):
        lab.answer(lab.retry(), 0)
    assert all(isinstance(delivery.outcomes[0], Delivered) for delivery in deliveries)
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
    assert delivery.outcomes[0].offset == 9
    lab.check_nothing_left()


def test_unknown_code_is_final_and_unknown(lab) -> None:
    lab = lab()
    lab.warm()
    for code in (-1, 4711):
        delivery, request = lab.send(b"a")
        lab.answer(request, code)
        assert isinstance(delivery.outcomes[0], Unknown)
        lab.answer(lab.send(b"next")[1])
    assert [sent[:2] for sent in lab.sent] == [(0, 0), (0, 1), (1, 0), (1, 1), (2, 0)]


def test_duplicate_sequence_is_delivered_without_an_offset(lab) -> None:
    lab = lab()
    delivery, request = lab.send(b"a")
    lab.answer(request, 46, 5)
    assert delivery.outcomes[0].offset == -1


def test_corrupt_message_is_encoded_once_more_then_final(lab) -> None:
    lab = lab()
    lab.warm()
    delivery, request = lab.send(b"a")
    lab.answer(request, 2)
    lab.answer(lab.retry(), 2)
    assert delivery.outcomes[0].reason.startswith("CORRUPT_MESSAGE")
    assert isinstance(delivery.outcomes[0], NotSent)
    lab.answer(lab.send(b"next")[1])
    assert lab.sent[-1] == (0, 1, 1), "proved absent and untainted: the range is used again, without a new epoch"


def test_invalid_timestamp_is_restamped_once_then_the_named_record_is_final(lab) -> None:
    lab = lab()
    delivery, request = lab.send(b"a", b"b", b"c")
    lab.answer(request, 32, named=(1,))
    assert lab.window.batches[0].segment.timestamps == [1000, 555, 1000]
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
    assert isinstance(later.outcomes[0], Delivered)
    assert lab.office.identity.bumps_total == 0
    lab.check_nothing_left()


def test_rejected_batch_gives_its_range_to_those_behind_it_without_a_bump(lab) -> None:
    """Nothing is sent until the later ones are answered, then they move down."""
    lab = lab()
    lab.warm()
    rejected, first = lab.send(b"x")
    later = [lab.send(b"a"), lab.send(b"b", b"c")]
    lab.answer(first, 10)
    assert isinstance(rejected.outcomes[0], NotSent)
    assert lab.nothing_to_send(), "not before the later ones are answered"
    for _, request in later:
        lab.answer(request, 45)
    lab.answer(lab.retry())
    lab.answer(lab.retry())
    assert lab.sent[-2:] == [(0, 1, 1), (0, 2, 2)]
    assert all(isinstance(delivery.outcomes[0], Delivered) for delivery, _ in later)
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
    assert isinstance(tainted.outcomes[0], Unknown)
    assert isinstance(absent.outcomes[0], Delivered)
    assert lab.sent[-1] == (1, 0, 1)
    lab.check_nothing_left()
