"""``collector.v1`` without I/O: what the client may send when, and what each answer makes of a message."""

import json

import pytest

from collector.client.events import SEGMENT
from collector.client.session import ProtocolFault, Session, Ticket, TicketState

HELLO = '{"op":"hello","v":1,"max_bytes":1000,"credit":1000,"ping_s":20}'


def _session(credit: int = 1000, **changes: int) -> Session:
    session = Session(api=SEGMENT, key="k", **changes)
    session.receive(json.dumps({"op": "hello", "v": 1, "max_bytes": 1000, "credit": credit, "ping_s": 20}))
    return session


def _send(session: Session, number: int = 1) -> list[Ticket]:
    tickets = [session.submit(b'{"n":%d}' % index, 1) for index in range(number)]
    for _ in tickets:
        assert session.next_frame() is not None
    return tickets


def _status(ticket: Ticket) -> str | None:
    return ticket.ack.status if ticket.ack is not None else None


def test_a_frame_carries_the_body_unchanged_and_ids_that_grow_by_one() -> None:
    session = _session(deadline_ms=250)
    session.submit(b'{ "a" : 1.0 }', 1)
    session.submit(b"{}", 1)
    assert (
        session.next_frame() == '{"op":"track","id":1,"api":"segment","key":"k","deadline_ms":250,"body":{ "a" : 1.0 }}'
    )
    assert json.loads(session.next_frame() or "")["id"] == 2
    assert session.next_frame() is None


def test_nothing_is_sent_before_hello() -> None:
    session = Session(api=SEGMENT, key="k")
    session.submit(b"{}", 1)
    assert session.next_frame() is None
    session.receive(HELLO)
    assert session.next_frame() is not None


def test_credit_counts_the_bytes_of_frames_and_what_does_not_fit_waits() -> None:
    session = _session(credit=200)
    first, second = session.submit(b'"' + b"x" * 100 + b'"', 1), session.submit(b'"' + b"y" * 100 + b'"', 1)
    frame = session.next_frame()
    assert frame is not None
    assert session.credit == 200 - len(frame)
    assert session.next_frame() is None
    assert (first.state, second.state) == (TicketState.IN_FLIGHT, TicketState.PENDING)
    session.receive(json.dumps({"op": "credit", "bytes": len(frame)}))
    assert session.next_frame() is not None


def test_credit_counts_utf8_bytes_not_characters() -> None:
    session = _session()
    session.submit('"é"'.encode(), 1)
    frame = session.next_frame()
    assert frame is not None
    assert session.credit == 1000 - len(frame.encode())


@pytest.mark.parametrize("status", ["delivered", "spooled", "rejected"])
def test_an_ack_settles_its_message(status: str) -> None:
    session = _session()
    (ticket,) = _send(session)
    session.receive(
        json.dumps({"op": "ack", "id": 1, "status": status, "code": "c", "message": "m", "counts": {"x": 1}})
    )
    assert ticket.ack is not None
    assert (ticket.ack.status, ticket.ack.code, ticket.ack.message) == (status, "c", "m")
    assert ticket.ack.counts == {"x": 1}
    assert session.unsettled == session.unsettled_bytes == 0


def test_upto_settles_every_id_that_was_not_named_otherwise() -> None:
    session = _session()
    tickets = _send(session, 5)
    session.receive('{"op":"ack","id":2,"status":"rejected","code":"bad"}')
    session.receive('{"op":"ack","upto":4}')
    assert [_status(ticket) for ticket in tickets] == ["delivered", "rejected", "delivered", "delivered", None]


@pytest.mark.parametrize(("status", "again"), [("busy", False), ("not_sent", False), ("unknown", True)])
def test_what_was_not_taken_is_sent_again_with_a_new_id(status: str, again: bool) -> None:
    session = _session()
    (ticket,) = _send(session)
    session.receive(json.dumps({"op": "ack", "id": 1, "status": status}))
    assert session.refusals == 1
    frame = json.loads(session.next_frame() or "")
    assert (frame["id"], frame.get("again", False)) == (2, again)
    session.receive('{"op":"ack","upto":2}')
    assert ticket.ack is not None
    assert ticket.ack.attempts == 2
    assert session.refusals == 0


def test_a_batch_of_which_a_part_is_in_the_log_is_sent_again_as_such() -> None:
    session = _session()
    _send(session)
    session.receive('{"op":"ack","id":1,"status":"not_sent","counts":{"delivered":1,"not_sent":2}}')
    assert json.loads(session.next_frame() or "")["again"] is True


def test_what_is_sent_again_keeps_its_place_before_later_messages() -> None:
    session = _session()
    first, second = _send(session, 2)
    later = session.submit(b"{}", 1)
    session.receive('{"op":"ack","id":2,"status":"busy"}')
    session.receive('{"op":"ack","id":1,"status":"busy"}')
    assert session.pending == [first, second, later]


def test_a_lost_connection_repeats_the_unanswered_in_order_from_id_one() -> None:
    session = _session()
    tickets = _send(session, 3)
    session.receive('{"op":"ack","id":2,"status":"delivered"}')
    waiting = session.submit(b'{"n":9}', 1)
    assert session.lost() == 2
    assert session.next_frame() is None
    session.receive(HELLO)
    frames = [json.loads(session.next_frame() or "") for _ in range(3)]
    assert [(frame["id"], frame["body"]["n"], frame.get("again")) for frame in frames] == [
        (1, 0, True),
        (2, 2, True),
        (3, 9, None),
    ]
    session.receive('{"op":"ack","upto":3}')
    assert [_status(ticket) for ticket in (*tickets, waiting)] == ["delivered"] * 4


def test_credit_of_a_lost_connection_does_not_carry_over() -> None:
    session = _session(credit=1000)
    session.receive('{"op":"credit","bytes":5000}')
    session.lost()
    assert session.credit == 0
    session.receive('{"op":"hello","v":1,"max_bytes":1000,"credit":300,"ping_s":5}')
    assert session.credit == 300


def test_drain_stops_sending_and_answers_still_count() -> None:
    session = _session()
    (ticket,) = _send(session)
    session.submit(b"{}", 1)
    session.receive('{"op":"drain","retry_after_s":5}')
    assert session.draining_s == 5.0
    assert session.next_frame() is None
    session.receive('{"op":"ack","upto":1}')
    assert _status(ticket) == "delivered"
    assert repr(session) == f"<Session draining, 1 pending, 0 in flight, credit {session.credit}, 1 settled>"


def test_a_message_that_the_server_can_never_take_is_rejected_here_and_the_next_goes_on() -> None:
    session = _session(credit=100)
    large, small = session.submit(b"[" + b"1," * 200 + b"1]", 1), session.submit(b"{}", 1)
    assert session.next_frame() is not None
    assert large.ack is not None
    assert (large.ack.status, large.ack.code) == ("rejected", "too_large")
    assert small.state is TicketState.IN_FLIGHT


def test_withdraw_takes_back_what_was_not_sent_and_only_that() -> None:
    session = _session()
    (sent,) = _send(session)
    waiting = session.submit(b"{}", 1)
    assert session.withdraw(waiting)
    assert not session.withdraw(waiting)
    assert not session.withdraw(sent)
    assert session.next_frame() is None
    assert _status(waiting) == "not_sent"


@pytest.mark.parametrize(
    ("message", "fault"),
    [
        ("nonsense", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        ("[]", "not a JSON object"),
        ('{"op":"ack","id":1,"status":"lost"}', "status 'lost'"),
        ('{"op":"ack","id":true,"status":"delivered"}', "id = True"),
        ('{"op":"ack","upto":-1}', "upto = -1"),
        ('{"op":"credit"}', "bytes = None"),
        ('{"op":"error","code":"bad","message":"why"}', "the server says bad: why"),
    ],
)
def test_what_is_not_the_protocol_ends_the_connection(message: str | bytes, fault: str) -> None:
    session = _session()
    _send(session)
    with pytest.raises(ProtocolFault, match=fault):
        session.receive(message)
    assert session.lost() == 1  # What was in flight is still to be sent again.


@pytest.mark.parametrize(
    ("message", "fault"),
    [
        ('{"op":"ack","upto":1}', "the first message is not hello"),
        ('{"op":"hello","v":2,"max_bytes":1,"credit":1,"ping_s":1}', "speaks version 2"),
        ('{"op":"hello","v":1,"credit":1,"ping_s":1}', "max_bytes = None"),
    ],
)
def test_a_wrong_hello_ends_the_connection(message: str, fault: str) -> None:
    with pytest.raises(ProtocolFault, match=fault):
        Session(api=SEGMENT, key="k").receive(message)


def test_messages_of_later_versions_and_acks_of_settled_ids_are_passed_over() -> None:
    session = _session()
    _send(session)
    session.receive('{"op":"news","text":"…"}')
    session.receive('{"op":"ack","id":77,"status":"delivered"}')
    assert session.unsettled == 1
