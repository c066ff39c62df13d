"""A websocket session on virtual time: the application alone, its frames in memory channels."""

from contextlib import asynccontextmanager

import msgspec
import pytest
import trio
import trio.testing

from collector.config import AppKeys, KeysConfig, SpoolConfig
from collector.lifecycle import Phase
from collector.web.websocket.frames import FrameFault, decode_track

BODY = {"app_id": "a", "identity": "u", "event": "e"}


class Client:
    """The other end of a session."""

    def __init__(self) -> None:
        self.to_app, self.from_us = trio.open_memory_channel(10)  # as many as Hypercorn holds
        self.sent: list[dict] = []
        self.news = trio.Event()
        self.ended = trio.Event()
        self.next_id = 1
        self.reads = trio.Event()
        self.reads.set()

    async def send(self, frame: dict | bytes | str) -> None:
        if isinstance(frame, dict):
            frame = msgspec.json.encode(frame).decode()
        kind = "text" if isinstance(frame, str) else "bytes"
        await self.to_app.send({"type": "websocket.receive", kind: frame})

    async def track(self, body: object = BODY, **members: object) -> int:
        number, self.next_id = self.next_id, self.next_id + 1
        await self.send({"op": "track", "id": number, "api": "heap", "body": body, **members})
        return number

    async def leave(self) -> None:
        await self.to_app.send({"type": "websocket.disconnect", "code": 1006})

    def frames(self, op: str | None = None) -> list[dict]:
        frames = []
        for message in self.sent:
            if message["type"] == "websocket.send":
                raw = message.get("text")
                frame = msgspec.json.decode(raw) if raw is not None else msgspec.msgpack.decode(message["bytes"])
                frames.append(frame)
        return [frame for frame in frames if op is None or frame["op"] == op]

    def named(self) -> dict[int, dict]:
        return {frame["id"]: frame for frame in self.frames("ack") if "id" in frame}

    def upto(self) -> int:
        return max((frame["upto"] for frame in self.frames("ack") if "upto" in frame), default=0)

    def credit(self) -> int:
        return sum(frame["bytes"] for frame in self.frames("credit"))

    def closed(self) -> int | None:
        return next((message["code"] for message in self.sent if message["type"] == "websocket.close"), None)


@asynccontextmanager
async def connected(web, *, path="/v1/ws", query="", headers=(), subprotocols=(), answers_close=True):
    client = Client()

    async def send(message) -> None:
        await trio.lowlevel.checkpoint()
        await client.reads.wait()
        client.sent.append(message)
        if message["type"] == "websocket.close" and answers_close:
            client.to_app.send_nowait({"type": "websocket.disconnect", "code": 1000})

    scope = {
        "type": "websocket",
        "path": path,
        "query_string": query.encode(),
        "headers": [(name.encode(), value.encode()) for name, value in headers],
        "subprotocols": list(subprotocols),
        "client": ("198.51.100.7", 1),
        "state": {},
    }

    async def serve() -> None:
        await web.app(scope, client.from_us.receive, send)
        client.ended.set()

    async with trio.open_nursery() as nursery:
        client.to_app.send_nowait({"type": "websocket.connect"})
        nursery.start_soon(serve)  # noqa: ASYNC113  # waited for in the next line
        await trio.testing.wait_all_tasks_blocked()
        yield client
        if not client.ended.is_set():
            await client.leave()
            await client.ended.wait()


async def settle() -> None:
    await trio.sleep(0.5)


async def test_hello_is_the_first_frame_and_the_subprotocol_is_accepted(web, autojump_clock) -> None:
    async with connected(web, subprotocols=["other", "collector.v1"]) as client:
        assert client.sent[0] == {"type": "websocket.accept", "subprotocol": "collector.v1", "headers": []}
        assert client.frames()[0] == {"op": "hello", "v": 1, "max_bytes": 1048576, "credit": 4194304, "ping_s": 20.0}


async def test_no_subprotocol_is_served_as_v1(web, autojump_clock) -> None:
    async with connected(web) as client:
        assert client.sent[0]["subprotocol"] is None


@pytest.mark.parametrize(
    ("options", "status"),
    [({"subprotocols": ["mqtt"]}, 400), ({"path": "/v1/wss"}, 404)],
)
async def test_handshake_that_cannot_be_served_is_refused(web, autojump_clock, options, status) -> None:
    async with connected(web, **options) as client:
        assert client.sent[0]["type"] == "websocket.http.response.start"
        assert client.sent[0]["status"] == status
        assert client.ended.is_set()


async def test_delivered_messages_are_acknowledged_by_upto_and_their_credit_comes_back(web, autojump_clock) -> None:
    async with connected(web) as client:
        for _ in range(20):
            await client.track()
        await settle()
        assert (client.upto(), client.named()) == (20, {})
        sizes = sum(
            len(msgspec.json.encode({"op": "track", "id": n, "api": "heap", "body": BODY})) for n in range(1, 21)
        )
        assert client.credit() == sizes
        assert len(client.frames("ack")) < 20
    assert len(web.values()) == 20
    assert web.books.delivered_total == 20
    web.assert_idle()


async def test_body_in_the_topic_is_the_clients_own_bytes(web, autojump_clock) -> None:
    body = '{"app_id":"a",   "identity":"u","event":"e\\u00e9", "properties":{"big":123456789012345678901234567890}}'
    async with connected(web) as client:
        await client.send(f'{{"op":"track","id":1,"api":"heap","body":{body}}}')
        await settle()
        assert client.upto() == 1
    assert body.encode() in web.cluster.values("events")[0]


async def test_lone_surrogates_in_a_body_are_none_of_our_business(web, autojump_clock) -> None:
    async with connected(web) as client:
        await client.send(
            '{"op":"track","id":1,"api":"heap","body":{"app_id":"a","identity":"u","event":"cut \\ud83d"}}'
        )
        await settle()
        assert client.upto() == 1


async def test_messages_are_queued_in_the_order_of_their_arrival(web, autojump_clock) -> None:
    async with connected(web) as client:
        for number in range(200):
            await client.track({**BODY, "event": f"e{number}"})
        await settle()
    events = [value["body"]["event"] for value in web.values()]
    assert events == [f"e{number}" for number in range(200)]


async def test_msgpack_in_binary_frames_is_answered_in_binary(web, autojump_clock) -> None:
    async with connected(web) as client:
        await client.send(msgspec.msgpack.encode({"op": "track", "id": 1, "api": "heap", "body": BODY}))
        await settle()
        assert client.upto() == 1
        assert "bytes" in client.sent[-1]
    assert web.values()[0]["encoding"] == "base64"


async def test_key_of_the_connection_and_of_the_message(open_web, autojump_clock) -> None:
    keys = KeysConfig(apps={"shop": AppKeys(write_keys=("good",))})
    event = {"type": "track", "userId": "u", "event": "e"}
    async with open_web(keys=keys) as web:
        async with connected(web, query="key=good") as client:
            await client.track(event, api="segment")
            await client.track(event, api="segment", key="bad")
            await settle()
            assert client.upto() == 2
            assert client.named()[2]["status"] == "rejected"
            assert client.named()[2]["code"] == "invalid_key"
        async with connected(web, headers=[("authorization", "Bearer good")]) as client:
            await client.track(event, api="segment")
            await settle()
            assert client.named() == {}
        async with connected(web, headers=[("x-write-key", "bad")]) as client:
            await client.track(event, api="segment", key="good")
            await settle()
            assert client.named() == {}
        web.assert_idle()


async def test_rejected_message_is_named_and_the_others_go_on(web, autojump_clock) -> None:
    async with connected(web) as client:
        await client.track()
        await client.track({**BODY, "event": 7})
        await client.track()
        await client.track(api="nobody")
        await settle()
        assert {number: ack["status"] for number, ack in client.named().items()} == {2: "rejected", 4: "rejected"}
        assert client.upto() >= 3
        assert client.named()[4]["code"] == "unknown_api"
    web.assert_idle()


async def test_batch_is_acknowledged_with_its_worst_status_and_counts(web, autojump_clock) -> None:
    events = [{"identity": "u", "event": "e"}, {"event": 7}]
    async with connected(web) as client:
        await client.track({"app_id": "a", "events": events})
        await settle()
        ack = client.named()[1]
        assert ack["status"] == "rejected"
        assert ack["counts"] == {"delivered": 1, "spooled": 0, "rejected": 1, "not_sent": 0, "unknown": 0}
    web.assert_idle()


async def test_deadline_of_a_message_not_sent_and_unknown(web, autojump_clock) -> None:
    async with connected(web) as client:
        await client.track()
        await settle()
        web.cluster.faults.delay(10.0)
        started = trio.current_time()
        await client.track(deadline_ms=100)
        await trio.sleep(0.2)
        assert client.named()[2]["status"] == "unknown"
        assert client.named()[2]["code"] == "withdrawn"
        web.cluster.pause_broker(1)
        await client.track({**BODY, "identity": "somebody else"}, deadline_ms=100)
        await client.track()
        await trio.sleep(4)
        assert client.named()[4]["status"] in ("not_sent", "unknown")
        assert trio.current_time() - started < 5
        web.cluster.resume_broker(1)
        await trio.sleep(10)
    web.assert_idle()


async def test_message_behind_a_slow_one_is_named_after_a_moment(web, autojump_clock) -> None:
    async with connected(web) as client:
        await client.track()
        await client.track({**BODY, "identity": "v"})
        await settle()
        slow, fast = (record.partition for record in web.cluster.records("events"))
        assert slow != fast, "choose other identities"
        web.cluster.faults.fail(19, topic="events", partition=slow, times=40)  # NOT_ENOUGH_REPLICAS: tried again
        await client.track()
        await client.track({**BODY, "identity": "v"})
        await trio.sleep(1)
        assert client.upto() == 2
        assert client.named()[4]["status"] == "delivered"
        web.cluster.faults.clear()
        await trio.sleep(3)
        assert client.upto() == 4
        assert 3 not in client.named()
    web.assert_idle()


async def test_overrun_of_the_credit_is_busy_and_given_back(open_web, autojump_clock) -> None:
    async with open_web(limits={"websocket_credit_bytes": 300}) as web:
        web.cluster.faults.delay(0.5, times=None)
        async with connected(web) as client:
            for _ in range(6):
                await client.track()
            await trio.sleep(0.05)
            busy = {number for number, ack in client.named().items() if ack["status"] == "busy"}
            assert busy == {4, 5, 6}
            assert {client.named()[number]["code"] for number in busy} == {"credit"}
            await trio.sleep(3)
            assert client.upto() == 6
            size = len(msgspec.json.encode({"op": "track", "id": 1, "api": "heap", "body": BODY}))
            assert client.credit() == 6 * size
        assert len(web.values()) == 3
        web.assert_idle()


async def test_server_without_room_says_busy(open_web, autojump_clock) -> None:
    async with open_web(limits={"in_work_bytes": 5000}) as web:
        web.cluster.faults.delay(0.5, times=None)
        async with connected(web) as client:
            await client.track()
            await client.track()
            await settle()
            assert client.named()[2]["status"] == "busy"
            assert client.named()[2]["code"] == "bytes"
            assert web.monitor.sheds.counts == {"bytes": 1}
            await trio.sleep(2)
        web.assert_idle()


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        ("{", "invalid_frame"),
        ("[]", "invalid_frame"),
        ('"track"', "invalid_frame"),
        ('{"op":"sing","id":1}', "unknown_op"),
        ('{"id":1}', "unknown_op"),
        ('{"op":"track","api":"heap","body":{}}', "invalid_frame"),
        ('{"op":"track","id":"1","api":"heap","body":{}}', "invalid_frame"),
        ('{"op":"track","id":true,"api":"heap","body":{}}', "invalid_frame"),
        ('{"op":"track","id":1.0,"api":7,"body":{}}', "invalid_frame"),
        ('{"op":"track","id":12', "invalid_frame"),
        ('{"op":"sing","id":1,"body":' + "[" * 100_000 + "}", "invalid_frame"),
        (b"\x83\xa2id\x01\xa4body" + b"\x91" * 2000, "invalid_frame"),
        (b"\xc1\xff", "invalid_frame"),
        (b"", "invalid_frame"),
        ("", "invalid_frame"),
    ],
)
async def test_frame_that_is_none_is_answered_with_an_error_and_the_session_goes_on(
    web, autojump_clock, frame, code
) -> None:
    async with connected(web) as client:
        await client.send(frame)
        await settle()
        assert [error["code"] for error in client.frames("error")] == [code]
        await client.track()
        await settle()
        assert client.upto() == 1
        assert client.closed() is None
    web.assert_idle()


DEEP = "[" * 1100 + "]" * 1100
MSGPACK_FRONT = msgspec.msgpack.encode({"op": "track", "id": 1, "key": "k" * 100, "deadline_ms": 500, "api": "heap"})


@pytest.mark.parametrize(
    "frame",
    [
        '{"op":"track","id":1,"api":7,"body":{}}',
        '{"op":"track","id":1,"api":null,"body":{}}',
        '{"op":"track","id":1,"api":"heap","key":5,"body":{}}',
        '{"api":"heap","again":1,"body":{},"id":1,"op":"track"}',
        '{"op":"track","id":1,"api":"heap","again":null,"body":{}}',
        '{"op":"track","id":1,"api":"heap","deadline_ms":499.7,"body":{}}',
        '{"op":"track","id":1,"api":"heap","body":{"a":' + DEEP + "}}",
        ' { "id" : 1 , "key":"\\"{" , "op" : "track" , "body" : ' + "[" * 100_000 + "}",
        '{"op":"track","id":1,"api":"heap","body":{"event":}}',
        b"\x86" + MSGPACK_FRONT[1:] + b"\xa4body" + b"\x91" * 2000 + b"\x01",
        b"\xde\x00\x06" + MSGPACK_FRONT[1:] + b"\xa4body\xc1",
    ],
)
async def test_faulty_message_with_a_readable_id_is_rejected_under_it(web, autojump_clock, frame) -> None:
    async with connected(web) as client:
        await client.send(frame)
        client.next_id = 2
        await client.track()
        await settle()
        assert client.frames("error") == []
        assert (client.named()[1]["status"], client.named()[1]["code"]) == ("rejected", "invalid_frame")
        assert client.upto() == 2
        good = msgspec.json.encode({"op": "track", "id": 2, "api": "heap", "body": BODY})
        assert client.credit() == len(frame) + len(good)
        assert client.closed() is None
    web.assert_idle()


async def test_faulty_message_whose_id_does_not_follow_closes_with_1002(web, autojump_clock) -> None:
    async with connected(web) as client:
        await client.send('{"op":"track","id":2,"api":7,"body":{}}')
        await client.ended.wait()
        assert client.frames("error")[0]["code"] == "invalid_id"
        assert client.closed() == 1002


async def test_id_that_does_not_follow_closes_with_1002_after_what_is_in_work(web, autojump_clock) -> None:
    async with connected(web) as client:
        await client.track()
        await client.send({"op": "track", "id": 3, "api": "heap", "body": BODY})
        await client.ended.wait()
        assert client.frames("error")[0]["code"] == "invalid_id"
        assert (client.closed(), client.upto()) == (1002, 1)
    assert len(web.values()) == 1
    web.assert_idle()


async def test_message_above_max_bytes_closes_with_1009(open_web, autojump_clock) -> None:
    async with open_web(limits={"websocket_message_bytes": 200}) as web:
        async with connected(web) as client:
            await client.track({**BODY, "event": "ü" * 150})
            await client.ended.wait()
            assert client.closed() == 1009
        web.assert_idle()


async def test_repeat_is_marked_in_the_record(web, autojump_clock) -> None:
    async with connected(web) as client:
        await client.track(again=True)
        await client.track()
        await settle()
    marks = [dict(record.headers).get("maybe-duplicate") for record in web.cluster.records("events")]
    assert sorted(marks, key=str) == [None, b"1"] or marks == [b"1", None]


async def test_client_that_leaves_is_no_timeout(web, autojump_clock) -> None:
    await web.track()
    web.cluster.faults.delay(1.0)
    async with connected(web) as client:
        await client.track()
        await trio.testing.wait_all_tasks_blocked()
        await client.leave()
        await client.ended.wait()
    assert web.books.delivered_total == 2
    web.assert_idle()


async def test_drain_answers_what_is_in_work_then_closes_with_1012(web, autojump_clock) -> None:
    await web.track()
    web.cluster.faults.delay(1.0)
    async with connected(web) as client:
        await client.track()
        await trio.sleep(0.01)
        web.services.lifecycle.advance(Phase.DRAINING)
        await trio.sleep(0.01)
        drain = client.frames("drain")[0]
        assert 4 <= drain["retry_after_s"] <= 8
        await client.track()
        await trio.sleep(0.1)
        assert client.named()[2]["status"] == "busy"
        assert client.named()[2]["code"] == "draining"
        assert client.closed() is None
        await client.ended.wait()
        assert (client.upto(), client.closed()) == (2, 1012)
    async with connected(web) as late:
        assert late.sent[0]["status"] == 503
    web.assert_idle()


async def test_client_that_does_not_answer_our_close_is_read_on_until_it_is_gone(web, autojump_clock) -> None:
    async with connected(web, answers_close=False) as client:
        web.services.lifecycle.advance(Phase.DRAINING)
        await trio.sleep(5)
        assert client.closed() == 1012
        assert not client.ended.is_set()
        for _ in range(30):  # more than a server holds
            await client.send("x")
        await client.leave()
        await client.ended.wait()


async def test_client_that_does_not_read_its_answers_is_not_read_beyond_a_bound(web, autojump_clock) -> None:
    async with connected(web) as client:
        client.reads = trio.Event()
        sent = 0
        with trio.move_on_after(5):
            while True:
                await client.send("{")
                sent += 1
        assert 4096 <= sent < 4096 + 50
        client.reads.set()
        await client.send("{")
        await settle()
        assert len(client.frames("error")) == sent + 1
    web.assert_idle()


async def test_cancelled_from_outside_nothing_is_left(web, autojump_clock) -> None:
    web.cluster.pause_broker(1)
    with trio.move_on_after(0.5):
        async with connected(web) as client:
            await client.track()
            await trio.sleep_forever()
    assert web.books.refused_total == 1
    web.assert_idle()


async def test_bug_in_one_message_is_answered_and_the_session_goes_on(web, autojump_clock, monkeypatch, capsys) -> None:
    kind = type(web.services.dialects["heap"])
    whole = kind.parse

    def broken(self, route, request, keys):
        if b"poison" in request.body:
            raise RuntimeError("a bug")
        return whole(self, route, request, keys)

    monkeypatch.setattr(kind, "parse", broken)
    async with connected(web) as client:
        await client.track({**BODY, "event": "poison"})
        await client.track()
        await settle()
        assert client.named()[1]["code"] == "internal"
        assert client.upto() == 2
    assert "a message failed" in capsys.readouterr().err
    web.assert_idle()


async def test_bug_after_a_messages_events_were_counted_leaves_nothing_in_work(
    web, autojump_clock, monkeypatch, capsys
) -> None:
    encode = web.services.ingest.encode
    poison = {**BODY, "event": "poison", "idempotency_key": "1"}

    def broken(events, *others):
        if b"poison" in bytes(events[0].body):
            raise RuntimeError("a bug")
        return encode(events, *others)

    async with connected(web) as client:
        with monkeypatch.context() as patched:
            patched.setattr(web.services.ingest, "encode", broken)
            await client.track(poison)
            await client.track()
            await settle()
        assert (client.named()[1]["code"], client.upto()) == ("internal", 2)
        books = web.services.ledger.statistics()
        assert (books.in_work, books.refused_total, books.unparsed_requests_total) == (0, 1, 0)
        await client.track(poison)
        await settle()
        assert (client.upto(), web.services.ledger.statistics().delivered_total) == (3, 2)
        assert web.services.ingest.memory.statistics().doubtful_total == 0, "the first one was taken back"
    assert capsys.readouterr().err.count("a message failed") == 1
    web.assert_idle()


def test_frame_with_unknown_members_is_read() -> None:
    frame = decode_track(b'{"op":"track","id":7,"new":[1],"api":"heap","body":{"a": 1 }}', "json")
    assert (frame.id, bytes(frame.body)) == (7, b'{"a": 1 }')


def test_frame_with_an_absurd_id_is_refused() -> None:
    with pytest.raises(FrameFault):
        decode_track(b'{"op":"track","id":' + b"9" * 5000 + b',"body":"\\ud83d"}', "json")


async def test_query_with_absurdly_many_fields_closes_the_session(web, autojump_clock) -> None:
    async with connected(web, query="&".join(f"a{n}=1" for n in range(100))) as client:
        await client.ended.wait()
        assert client.frames("error")[0]["code"] == "invalid_query"
        assert client.closed() == 1002


async def test_message_without_a_body_is_rejected(web, autojump_clock) -> None:
    async with connected(web) as client:
        await client.send({"op": "track", "id": 1, "api": "heap"})
        await settle()
        assert client.named()[1]["code"] == "missing_field"


async def test_messages_of_an_outage_are_acknowledged_as_spooled_in_their_order(
    open_web, until, autojump_clock
) -> None:
    async with open_web(spool=SpoolConfig(path=":memory:")) as web, connected(web) as client:
        await client.track()
        await until(lambda: client.upto() == 1)
        web.cluster.pause_broker(1)
        await client.track()
        await trio.sleep(3.5)
        assert client.upto() == 2, "Kafka's share of the time, then the disk"
        for number in range(3, 30):
            await client.track({**BODY, "event": f"e{number}"})
        await trio.sleep(0.05)
        assert client.upto() == 29
        assert client.named() == {}
        batch = {"app_id": "a", "events": [{"identity": "u", "event": f"b{n}"} for n in range(3)]}
        await client.track({**batch, "events": [*batch["events"], {"identity": "u"}]})
        await until(lambda: 30 in client.named())
        ack = client.named()[30]
        assert (ack["status"], ack["counts"]["spooled"], ack["counts"]["rejected"]) == ("rejected", 3, 1)
        assert web.books.spooled_total == 31
        web.cluster.resume_broker(1)
        await trio.sleep(5)
        events = [value["body"]["event"] for value in web.values() if value["body"]["event"].startswith("e")]
        assert [event for event in events if event != "e"] == [f"e{number}" for number in range(3, 30)]
        web.assert_idle()
