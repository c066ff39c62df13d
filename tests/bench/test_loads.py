"""The loads of the HTTP and websocket benchmarks: what they send, and what they make of the answers."""

import json
from pathlib import Path

import pytest

from tests.bench.running import RunFailed
from tests.bench.wrk import EVENT_BYTES, IDENTITIES, Told, bulk_bodies, event, single_bodies
from tests.bench.ws.load import Answers, frame_of


def lines_of(file: str) -> list[bytes]:
    return Path(file).read_bytes().splitlines()


def test_single_bodies_are_of_one_size_with_every_identity(tmp_path: Path) -> None:
    bodies = lines_of(single_bodies(tmp_path).file)
    assert {len(body) for body in bodies} == {EVENT_BYTES}
    assert len({json.loads(body)["identity"] for body in bodies}) == len(bodies) == IDENTITIES


def test_large_bodies_are_one_event_of_that_size(tmp_path: Path) -> None:
    bodies = lines_of(single_bodies(tmp_path, 65_536).file)
    assert {len(body) for body in bodies} == {65_536}
    assert all(json.loads(body)["app_id"] == "11" for body in bodies)


@pytest.mark.parametrize("events", [100, 1000])
def test_bulk_bodies_have_so_many_events_and_every_identity(events: int, tmp_path: Path) -> None:
    bodies = bulk_bodies(tmp_path, events)
    calls = [json.loads(line)["events"] for line in lines_of(bodies.file)]
    assert bodies.events == events
    assert {len(call) for call in calls} == {events}
    assert len({each["identity"] for call in calls for each in call}) == IDENTITIES
    assert len(event(5, app=False)) == EVENT_BYTES


def told(**counts: int) -> Told:
    names = ("requests", "refused", "connect", "read", "write", "timeout")
    return Told(**{name: counts.get(name, 0) for name in names}, duration_us=1, p50_us=0, p99_us=0, worst_us=0)


def test_one_failed_request_in_a_hundred_is_let_through() -> None:
    told(requests=100, refused=1).check()
    assert told(requests=100, refused=1).answered == 99


@pytest.mark.parametrize("counts", [{"requests": 100, "read": 2}, {"requests": 5, "refused": 5}, {"connect": 9}])
def test_more_failed_requests_fail_the_run(counts: dict[str, int]) -> None:
    with pytest.raises(RunFailed, match="requests failed"):
        told(**counts).check()


@pytest.mark.parametrize("size", [5, 125, 126, 300, 65_535, 65_536])
def test_frame_is_as_a_websocket_library_reads_it(size: int) -> None:
    from wsproto.frame_protocol import FrameDecoder

    decoder = FrameDecoder(client=False)
    decoder.receive_bytes(frame_of(b"x" * size))
    pieces = []
    while (frame := decoder.process_buffer()) is not None:
        pieces.append(frame.payload)
    assert b"".join(map(bytes, pieces)) == b"x" * size


def server_frame(payload: bytes) -> bytes:
    head = bytes((0x81, len(payload))) if len(payload) < 126 else b"\x81\x7e" + len(payload).to_bytes(2, "big")
    return head + payload


def test_answers_count_what_is_settled_however_it_is_cut() -> None:
    hello = server_frame(b'{"op":"hello","v":1,"note":"%b"}' % (b"x" * 150))
    data = hello + server_frame(b'{"op":"credit","bytes":300}') + server_frame(b'{"op":"ack","upto":3}')
    for cut in range(len(data)):
        answers = Answers()
        assert answers.feed(data[:cut]) + answers.feed(data[cut:]) == 3


def test_an_id_that_is_named_counts_when_the_ones_before_it_are_settled() -> None:
    answers = Answers()
    assert answers.feed(server_frame(b'{"op":"ack","id":2,"status":"spooled"}')) == 0
    assert answers.feed(server_frame(b'{"op":"ack","upto":1}')) == 2


def test_an_event_that_was_not_taken_is_settled_and_failed() -> None:
    answers = Answers()
    assert answers.feed(server_frame(b'{"op":"ack","id":1,"status":"busy"}')) == 1
    assert answers.failed == 1


@pytest.mark.parametrize("payload", [b'{"op":"ack","id":1,"status":"rejected"}', b'{"op":"drain","retry_after_s":1}'])
def test_an_answer_that_is_no_acknowledgement_ends_the_load(payload: bytes) -> None:
    with pytest.raises(ValueError, match="the server says"):
        Answers().feed(server_frame(payload))


def test_a_close_frame_ends_the_load() -> None:
    with pytest.raises(ValueError, match="a frame of kind 0x88"):
        Answers().feed(b"\x88\x02\x03\xf4")
