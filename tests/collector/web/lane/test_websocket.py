# flake8: noqa: ASYNC910, ASYNC113, ASYNC124
# The link is a transport, which need not be a checkpoint; ends are waited for by the tests themselves.
"""A websocket on the lane: over a transport in memory, on virtual time, with small applications and with ours."""

import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import msgspec
import pytest
import trio
import trio.testing
from websockets.frames import CloseCode, Frame, Opcode
from websockets.protocol import CLIENT, OPEN, Protocol

from collector.config import SpoolConfig
from collector.lifecycle import Phase
from collector.web.lane.clock import LaneClock
from collector.web.lane.request import Request
from collector.web.lane.websocket import CLOSE_WAIT_S, QUIET_S, WebsocketSettings
from collector.web.lane.websockets import Websockets
from collector.web.websocket.wire import EXTENSION

HEADERS = [
    (b"host", b"x"),
    (b"upgrade", b"websocket"),
    (b"connection", b"Upgrade"),
    (b"sec-websocket-version", b"13"),
    (b"sec-websocket-key", b"dGhlIHNhbXBsZSBub25jZQ=="),
]
BODY = {"app_id": "a", "identity": "u", "event": "e"}


def frame(payload: bytes = b"", opcode: Opcode = Opcode.TEXT, *, fin: bool = True) -> bytes:
    return Frame(opcode, payload, fin).serialize(mask=True)


def closing(code: int) -> bytes:
    return frame(struct.pack("!H", code), Opcode.CLOSE)


class Link:
    """Both ends of a connection: our `Transport`, and what a test does as the client."""

    def __init__(self) -> None:
        self.arrived: list[bytes] = []
        self.sent = bytearray()
        self.sends = 0
        self.room = 1 << 30
        """How many bytes the client takes before it reads on."""
        self.ended = False
        self.aborted = False
        self.left = False
        self.unsent = b""
        self.send_timeout_s = 5.0
        self._news = trio.Event()
        self._interrupted = False
        self._reading = False
        self._room = trio.Event()

    # The transport.

    @property
    def pending(self) -> bool:
        return bool(self.unsent)

    async def receive(self) -> bytes:
        assert not self._reading
        self._reading = True
        try:
            while not self.arrived and not self.left and not self.aborted and not self._interrupted:
                self._news = trio.Event()
                await self._news.wait()
        finally:
            self._reading = False
        if self.aborted:
            raise trio.BrokenResourceError("aborted")
        if self._interrupted:
            self._interrupted = False
            return b""
        return self.arrived.pop(0) if self.arrived else b""

    def interrupt(self) -> bool:
        if self._reading:
            self._interrupted = True
            self._news.set()
        return self._reading

    def send_now(self, data: bytes) -> bool:
        if self.aborted:
            raise trio.BrokenResourceError("aborted")
        self.sends += 1
        self.unsent += data
        self._push()
        return not self.unsent

    def _push(self) -> None:
        taken, self.unsent = self.unsent[: self.room], self.unsent[self.room :]
        self.room -= len(taken)
        self.sent += taken

    async def send(self, data: bytes) -> None:
        if data:
            self.send_now(data)
        while self.unsent:
            with trio.move_on_after(self.send_timeout_s) as waiting:
                await self._room.wait()
            self._room = trio.Event()
            if waiting.cancelled_caught or self.aborted:
                self.abort()
                raise trio.BrokenResourceError("the client does not read")
            self._push()

    def end(self) -> None:
        self.ended = True

    def abort(self) -> None:
        self.aborted = True
        self._news.set()
        self._room.set()

    # The client.

    def write(self, *data: bytes) -> None:
        self.arrived += data
        self._news.set()

    def leave(self) -> None:
        self.left = True
        self._news.set()

    def read_on(self, size: int = 1 << 30) -> None:
        self.room = size
        self._room.set()

    @property
    def head(self) -> bytes:
        return bytes(self.sent).partition(b"\r\n\r\n")[0]

    def frames(self) -> list[Frame]:
        """All whole frames that the client was sent."""
        client = Protocol(CLIENT, state=OPEN, max_size=None)
        client.receive_data(bytes(self.sent).partition(b"\r\n\r\n")[2])
        return list(client.events_received())

    def close_code(self) -> int | None:
        closes = [frame.data for frame in self.frames() if frame.opcode is Opcode.CLOSE]
        return struct.unpack("!H", closes[0][:2])[0] if closes else None

    def texts(self) -> list[bytes]:
        return [bytes(frame.data) for frame in self.frames() if frame.opcode is Opcode.TEXT]

    # The subprotocol.

    def said(self, op: str) -> list[dict]:
        return [message for message in map(msgspec.json.decode, self.texts()) if message["op"] == op]

    def upto(self) -> int:
        return max((ack["upto"] for ack in self.said("ack") if "upto" in ack), default=0)

    def named(self) -> dict[int, str]:
        return {ack["id"]: ack["status"] for ack in self.said("ack") if "id" in ack}


def track(number: int, body: object = BODY, **members: object) -> bytes:
    return frame(msgspec.json.encode({"op": "track", "id": number, "api": "heap", "body": body, **members}))


class Served:
    """A link, and the server's side of it."""

    def __init__(self, link: Link, websockets: Websockets) -> None:
        self.link = link
        self.websockets = websockets
        self.over = trio.Event()


@asynccontextmanager
async def opened(
    app: Callable,
    *,
    early: bytes = b"",
    headers: list = HEADERS,
    target: bytes = b"/v1/ws",
    message_bytes: int = 1 << 20,
    deflate: bool = False,
) -> AsyncIterator[Served]:
    settings = WebsocketSettings(message_bytes=message_bytes, ping_s=20.0, deflate=deflate)
    clock = LaneClock()
    served = Served(Link(), Websockets(app, settings, clock.grid, look_s=0.5))
    request = Request()
    request.method, request.target, request.headers, request.upgrade = "GET", target, headers, "websocket"
    path, _, query = target.partition(b"?")
    scope = {
        "type": "http",
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": path.decode(),
        "query_string": query,
        "headers": headers,
        "client": ("198.51.100.7", 1),
        "state": {},
    }

    async def serve() -> None:
        await served.websockets.serve(served.link, request, early, scope)
        served.over.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(clock.run, lambda now: None)
        nursery.start_soon(serve)
        await trio.testing.wait_all_tasks_blocked()
        yield served
        if not served.over.is_set():
            served.link.leave()
            with trio.fail_after(10):
                await served.over.wait()
        assert not clock.grid.armed
        nursery.cancel_scope.cancel(reason="the test is over")


class Echo:
    """Plain ASGI: accepts, and sends back what it is sent."""

    def __init__(self, *, takes: int | None = None) -> None:
        self.takes = takes
        self.received: list[dict] = []
        self.scope: dict = {}
        self.go_on = trio.Event()
        self.go_on.set()

    async def __call__(self, scope, receive, send) -> None:
        self.scope = scope
        assert (await receive())["type"] == "websocket.connect"
        await send({"type": "websocket.accept", "subprotocol": None, "headers": [(b"x-a", b"b")]})
        while self.takes is None or len(self.received) < self.takes:
            message = await receive()
            self.received.append(message)
            if message["type"] == "websocket.disconnect":
                return
            await self.go_on.wait()
            await send({"type": "websocket.send", "text": message["text"], "bytes": message["bytes"]})


async def test_plain_application_is_served_as_asgi_says(autojump_clock) -> None:
    echo = Echo()
    async with opened(echo) as served:
        link = served.link
        assert link.head.startswith(b"HTTP/1.1 101 ")
        assert b"x-a: b" in link.head
        assert (echo.scope["type"], echo.scope["scheme"], echo.scope["subprotocols"]) == ("websocket", "ws", [])
        link.write(frame("ü".encode()) + frame(b"\x00", Opcode.BINARY), frame(b"two"))
        await trio.testing.wait_all_tasks_blocked()
        assert [(message.get("text"), message.get("bytes")) for message in echo.received] == [
            ("ü", None),
            (None, b"\x00"),
            ("two", None),
        ]
        assert [bytes(frame.data) for frame in link.frames()] == ["ü".encode(), b"\x00", b"two"]
        link.write(closing(1001))
        await served.over.wait()
    assert echo.received[-1] == {"type": "websocket.disconnect", "code": 1001}
    assert link.close_code() == 1001
    assert link.ended


async def test_application_that_returns_closes_with_1000_and_the_client_may_answer(autojump_clock) -> None:
    async with opened(Echo(takes=1)) as served:
        served.link.write(frame(b"one"))
        await trio.testing.wait_all_tasks_blocked()
        assert served.link.close_code() == 1000
        assert not served.over.is_set()
        served.link.write(frame(b"on its way") + closing(1000))
        served.link.leave()
        await trio.testing.wait_all_tasks_blocked()
        assert served.over.is_set()


async def test_client_that_does_not_answer_the_close_frame_is_left_after_a_while(autojump_clock) -> None:
    async with opened(Echo(takes=1)) as served:
        started = trio.current_time()
        served.link.write(frame(b"one"))
        await served.over.wait()
        assert trio.current_time() - started == CLOSE_WAIT_S


async def test_application_that_fails_closes_with_1011(autojump_clock, capsys) -> None:
    async def fails(scope, receive, send) -> None:
        await send({"type": "websocket.accept"})
        raise ValueError("a bug")

    async with opened(fails) as served:
        assert served.link.close_code() == CloseCode.INTERNAL_ERROR
    assert "a websocket failed" in capsys.readouterr().err


async def test_application_that_fails_before_it_accepts_is_a_500(autojump_clock, capsys) -> None:
    async def fails(scope, receive, send) -> None:
        raise ValueError("a bug")

    async with opened(fails) as served:
        assert served.link.head.startswith(b"HTTP/1.1 500 ")
    assert "a websocket failed" in capsys.readouterr().err


async def test_application_that_closes_instead_of_accepting_is_a_403(autojump_clock) -> None:
    async def refuses(scope, receive, send) -> None:
        await receive()
        await send({"type": "websocket.close"})

    async with opened(refuses) as served:
        assert served.link.head.startswith(b"HTTP/1.1 403 ")
        assert b"connection: close" in served.link.head


@pytest.mark.parametrize(
    "message",
    [
        {"type": "websocket.send", "text": "too early"},
        {"type": "http.response.start", "status": 200},
        {"type": "websocket.http.response.body", "body": b""},
    ],
)
async def test_application_that_says_what_it_may_not_is_told(autojump_clock, message) -> None:
    errors = []

    async def confused(scope, receive, send) -> None:
        try:
            await send(message)
        except RuntimeError as error:
            errors.append(str(error))

    async with opened(confused):
        assert message["type"] in errors[0]


async def test_handshake_that_is_none_is_a_400_that_names_the_version(autojump_clock) -> None:
    headers = [*HEADERS[:3], (b"sec-websocket-version", b"8"), HEADERS[4]]
    echo = Echo()
    async with opened(echo, headers=headers) as served:
        assert served.over.is_set()
        assert served.link.head.startswith(b"HTTP/1.1 400 ")
        assert b"sec-websocket-version: 13" in served.link.head
        assert b"no websocket handshake" in served.link.sent
    assert echo.scope == {}


async def test_bytes_behind_the_request_are_the_first_frames(autojump_clock) -> None:
    echo = Echo()
    async with opened(echo, early=frame(b"early") + frame(b"half")[:3]) as served:
        served.link.write(frame(b"second")[:0] or b"")
        assert [message["text"] for message in echo.received] == ["early"]


async def test_frames_that_come_before_the_handshake_is_answered_wait_for_it(autojump_clock) -> None:
    received = []

    async def slow(scope, receive, send) -> None:
        await receive()
        async with trio.open_nursery() as nursery:

            async def read() -> None:
                received.append(await receive())

            nursery.start_soon(read)
            await trio.sleep(1)
            await send({"type": "websocket.accept"})

    async with opened(slow) as served:
        served.link.write(frame(b"early"))
        await trio.sleep(0.5)
        assert received == []
        served.link.write(frame(b"more"))
        await trio.sleep(1)
        assert received[0]["text"] == "early"


async def test_endless_frames_before_the_handshake_is_answered_cut_the_connection(autojump_clock) -> None:
    told = []

    async def deaf(scope, receive, send) -> None:
        await receive()
        told.append(await receive())

    async with opened(deaf) as served:
        for _ in range(10):
            served.link.write(frame(b"x" * 10_000))
        await served.over.wait()
        assert served.link.aborted
    assert told == [{"type": "websocket.disconnect", "code": 1006}]


async def test_client_that_leaves_without_a_word_is_1006(autojump_clock) -> None:
    echo = Echo()
    async with opened(echo) as served:
        served.link.write(frame(b"last"))
        served.link.leave()
        await served.over.wait()
    assert [message["type"] for message in echo.received] == ["websocket.receive", "websocket.disconnect"]
    assert echo.received[-1]["code"] == 1006


async def test_client_that_pings_and_does_not_read_is_not_read(autojump_clock) -> None:
    async with opened(Echo()) as served:
        link = served.link
        link.room = 10
        link.send_timeout_s = 3600.0
        for _ in range(50):
            link.write(frame(b"ping", Opcode.PING) * 10)
        await trio.sleep(1)
        assert len(link.arrived) > 45
        assert len(link.unsent) < 200
        link.read_on()
        await trio.sleep(1)
        assert link.arrived == []
        assert [bytes(frame.data) for frame in link.frames()] == [b"ping"] * 500


async def test_client_that_reads_nothing_is_dropped_after_the_send_timeout(autojump_clock) -> None:
    echo = Echo()
    async with opened(echo) as served:
        served.link.room = 3
        served.link.write(frame(b"one"), frame(b"two"))
        started = trio.current_time()
        await served.over.wait()
        assert trio.current_time() - started == served.link.send_timeout_s
    assert echo.received[-1] == {"type": "websocket.disconnect", "code": 1006}


async def test_fault_is_told_and_what_follows_is_dropped_until_the_client_closes(autojump_clock) -> None:
    echo = Echo()
    async with opened(echo, message_bytes=100) as served:
        link = served.link
        link.write(frame(b"good") + frame(b"x" * 101))
        await trio.testing.wait_all_tasks_blocked()
        assert link.close_code() == 1009
        assert echo.received[-1] == {"type": "websocket.disconnect", "code": 1009}
        for _ in range(10):
            link.write(frame(b"y" * 100))
            await trio.sleep(QUIET_S / 2)
            assert not link.ended, "a proxy would reset a client that is still sending"
        await trio.sleep(QUIET_S)
        assert link.ended
        assert link.arrived == []
        assert not served.over.is_set()
        link.leave()
        await served.over.wait()
    assert len(echo.received) == 2


async def test_pings_go_to_who_is_due_and_to_nobody_who_does_not_read(autojump_clock) -> None:
    async with opened(Echo()) as served:
        link, now = served.link, trio.current_time()
        served.websockets.look(now + 19.9)
        assert link.frames() == []
        served.websockets.look(now + 20.0)
        assert [frame.opcode for frame in link.frames()] == [Opcode.PING]
        served.websockets.look(now + 39.9)
        assert len(link.frames()) == 1
        link.room = 1
        served.websockets.look(now + 40.0)
        await trio.testing.wait_all_tasks_blocked()
        assert link.pending
        served.websockets.look(now + 60.0)
        link.read_on()
        await trio.testing.wait_all_tasks_blocked()
        assert len(link.frames()) == 2
        link.write(frame(b"", Opcode.PONG) + frame(b"still there"))
        await trio.testing.wait_all_tasks_blocked()
        assert link.texts() == [b"still there"]


async def test_one_look_pings_a_bounded_share_and_all_in_half_an_interval(autojump_clock) -> None:
    class Counted:
        pings = 0

        def ping(self) -> None:
            self.pings += 1

    websockets = Websockets(Echo(), WebsocketSettings(message_bytes=1, ping_s=20.0, deflate=False), None, look_s=0.5)
    many = [Counted() for _ in range(1000)]
    for one in many:
        websockets._due[one] = 100.0  # type: ignore[index]  # in the place of real ones
    now = 100.0
    websockets.look(now)
    assert 50 <= sum(one.pings for one in many) <= 51
    for _ in range(20):
        now += 0.5
        websockets.look(now)
    assert {one.pings for one in many} == {1}


# Our application on it


async def test_thousand_messages_of_one_write_are_queued_in_order_and_acknowledged_together(
    web, autojump_clock
) -> None:
    async with opened(web.app) as served:
        link = served.link
        sends = link.sends
        link.write(b"".join(track(number, {**BODY, "event": f"e{number}"}) for number in range(1, 1001)))
        await trio.sleep(0.5)
        assert (link.upto(), link.named()) == (1000, {})
        assert link.sends - sends < 10
        link.write(closing(1000))
        link.leave()
        await served.over.wait()
    events = [value["body"]["event"] for value in web.values()]
    assert events == [f"e{number}" for number in range(1, 1001)]
    web.assert_idle()


async def test_session_of_the_lane_has_one_task_and_one_more_that_waits_for_messages(web, autojump_clock) -> None:
    def tasks() -> int:
        def count(nursery: trio.Nursery) -> int:
            return sum(1 + sum(map(count, task.child_nurseries)) for task in nursery.child_tasks)

        return count(nursery)

    async with trio.open_nursery() as nursery:

        async def serve(task_status: trio.TaskStatus[Served]) -> None:
            async with opened(web.app) as served:
                task_status.started(served)
                await served.over.wait()

        served = await nursery.start(serve)
        before = tasks()
        for number in range(1, 20):
            served.link.write(track(number))
            await trio.sleep(0.5)
        assert served.link.upto() == 19
        assert tasks() == before + 1
        served.link.leave()
    web.assert_idle()


async def test_messages_of_one_read_part_when_one_of_them_is_slow(web, autojump_clock) -> None:
    async with opened(web.app) as served:
        link = served.link
        link.write(track(1) + track(2, {**BODY, "identity": "v"}))
        await trio.sleep(0.5)
        slow, fast = (record.partition for record in web.cluster.records("events"))
        assert slow != fast, "choose other identities"
        web.cluster.faults.fail(19, topic="events", partition=slow, times=40)  # NOT_ENOUGH_REPLICAS: tried again
        link.write(track(3) + track(4, {**BODY, "identity": "v"}) + track(5) + track(6, {**BODY, "identity": "v"}))
        await trio.sleep(1)
        assert link.upto() == 2
        assert link.named() == {4: "delivered", 6: "delivered"}
        web.cluster.faults.clear()
        await trio.sleep(3)
        assert link.upto() == 6
    assert len(web.values()) == 6
    web.assert_idle()


async def test_message_out_of_time_takes_its_own_records_and_not_those_that_came_with_it(web, autojump_clock) -> None:
    async with opened(web.app) as served:
        link = served.link
        link.write(track(1))
        await trio.sleep(0.5)
        web.cluster.pause_broker(1)
        link.write(track(2, deadline_ms=200) + track(3) + track(4, deadline_ms=200) + track(5, deadline_ms=3000))
        await trio.sleep(0.4)
        assert {number: word in ("not_sent", "unknown") for number, word in link.named().items()} == {2: True, 4: True}
        web.cluster.resume_broker(1)
        await trio.sleep(2)
        assert link.upto() == 5
        assert link.named().keys() == {2, 4}
    web.assert_idle()


async def test_hasty_messages_of_one_read_still_have_their_time_for_the_spool(open_web, autojump_clock) -> None:
    async with open_web(spool=SpoolConfig(path=":memory:")) as web, opened(web.app) as served:
        link = served.link
        link.write(track(1))
        await trio.sleep(0.5)
        web.cluster.pause_broker(1)
        link.write(track(2, deadline_ms=40) + track(3, deadline_ms=40))
        await trio.sleep(0.2)
        assert (link.upto(), link.named(), web.books.spooled_total) == (3, {}, 2)
        web.cluster.resume_broker(1)
        await trio.sleep(5)
        web.assert_idle()


async def test_message_parked_on_a_resting_task_is_taken_back_when_its_time_is_over(web, autojump_clock) -> None:
    async with opened(web.app) as served:
        link = served.link
        for number in (1, 2):
            link.write(track(number))
            await trio.sleep(0.5)
        web.cluster.pause_broker(1)
        started = trio.current_time()
        link.write(track(3))
        await trio.sleep(3.5)
        assert link.named() == {}
        await trio.sleep(1)
        assert trio.current_time() - started == 4.5
        assert link.named().keys() == {3}
        web.cluster.resume_broker(1)
        await trio.sleep(1)
        for number in (4, 5):
            link.write(track(number))
            await trio.sleep(0.5)
        assert link.upto() == 5
        assert link.named().keys() == {3}
    web.assert_idle()


async def test_message_parked_on_a_resting_task_goes_to_the_spool_when_kafkas_share_is_over(
    open_web, autojump_clock
) -> None:
    async with open_web(spool=SpoolConfig(path=":memory:")) as web, opened(web.app) as served:
        link = served.link
        for number in (1, 2):
            link.write(track(number))
            await trio.sleep(0.5)
        web.cluster.pause_broker(1)
        link.write(track(3))
        await trio.sleep(2.9)
        assert link.upto() == 2
        await trio.sleep(0.4)
        assert (link.upto(), link.named(), web.books.spooled_total) == (3, {}, 1)
        web.cluster.resume_broker(1)
        await trio.sleep(5)
        link.write(track(4))
        await trio.sleep(0.5)
        assert (link.upto(), web.books.delivered_total) == (4, 3)
        web.assert_idle()


async def test_session_cancelled_with_a_parked_message_leaves_nothing(web, autojump_clock) -> None:
    with trio.move_on_after(2):
        async with opened(web.app) as served:
            served.link.write(track(1))
            await trio.sleep(0.5)
            web.cluster.pause_broker(1)
            served.link.write(track(2))
            await trio.sleep_forever()
    books = web.books
    assert (books.delivered_total, books.refused_total + books.unknown_total) == (1, 1)
    web.cluster.resume_broker(1)
    await trio.sleep(1)
    web.assert_idle()


async def test_messages_of_many_reads_at_once_are_each_waited_for_and_some_tasks_kept(web, autojump_clock) -> None:
    async with opened(web.app) as served:
        link = served.link
        link.write(track(1))
        await trio.sleep(0.5)
        web.cluster.faults.delay(0.5, times=None)
        for number in range(2, 40):
            link.write(track(number))
        await trio.sleep(0.1)
        assert link.arrived == []
        assert link.upto() == 1
        await trio.sleep(5)
        web.cluster.faults.clear()
        assert (link.upto(), link.named()) == (39, {})
        for number in range(40, 60):
            link.write(track(number))
            await trio.sleep(0.2)
        assert link.upto() == 59
    assert len(web.values()) == 59
    web.assert_idle()


async def test_outage_spools_all_messages_of_a_read_in_their_order(open_web, autojump_clock) -> None:
    async with open_web(spool=SpoolConfig(path=":memory:")) as web, opened(web.app) as served:
        link = served.link
        link.write(track(1))
        await trio.sleep(0.5)
        web.cluster.pause_broker(1)
        link.write(b"".join(track(number, {**BODY, "event": f"e{number}"}) for number in range(2, 30)))
        await trio.sleep(3.5)
        assert link.upto() == 29
        assert web.books.spooled_total == 28
        link.write(b"".join(track(number, {**BODY, "event": f"e{number}"}) for number in range(30, 60)))
        await trio.sleep(0.1)
        assert link.upto() == 59
        web.cluster.resume_broker(1)
        await trio.sleep(5)
        events = [value["body"]["event"] for value in web.values()]
        assert [event for event in events if event > "e2" and int(event[1:]) >= 30] == [f"e{n}" for n in range(30, 60)]
        web.assert_idle()


async def test_bad_messages_among_those_of_one_read_are_named_and_hold_up_nobody(web, autojump_clock) -> None:
    async with opened(web.app) as served:
        link = served.link
        link.write(track(1) + track(2, {**BODY, "event": 7}) + track(3) + frame(b"{") + track(4, api="nobody"))
        await trio.sleep(0.5)
        assert link.named() == {2: "rejected", 4: "rejected"}
        assert link.upto() >= 3
        assert [error["code"] for error in link.said("error")] == ["invalid_frame"]
    web.assert_idle()


async def test_client_that_does_not_read_its_acknowledgements_is_read_on_and_told_all_at_once(
    web, autojump_clock
) -> None:
    async with opened(web.app) as served:
        link = served.link
        link.room = 0
        link.send_timeout_s = 60.0
        for number in range(1, 200):
            link.write(track(number))
            await trio.sleep(0.02)
        assert link.arrived == []
        assert len(link.unsent) < 500
        link.read_on()
        await trio.sleep(0.5)
        assert (link.upto(), link.named()) == (199, {})
        assert sum(credit["bytes"] for credit in link.said("credit")) == sum(
            len(msgspec.json.encode({"op": "track", "id": number, "api": "heap", "body": BODY}))
            for number in range(1, 200)
        )
    web.assert_idle()


async def test_client_that_sends_and_closes_its_side_is_worked_to_the_end(web, autojump_clock) -> None:
    await web.track()
    web.cluster.faults.delay(1.0)
    async with opened(web.app) as served:
        served.link.write(track(1) + track(2))
        served.link.leave()
        await served.over.wait()
    assert web.books.delivered_total == 3
    web.assert_idle()


async def test_draining_answers_what_is_in_work_then_closes_with_1012(web, autojump_clock) -> None:
    await web.track()
    web.cluster.faults.delay(1.0)
    async with opened(web.app) as served:
        link = served.link
        link.write(track(1))
        await trio.sleep(0.01)
        web.services.lifecycle.advance(Phase.DRAINING)
        assert len(link.said("drain")) == 1
        link.write(track(2))
        await trio.sleep(0.1)
        assert link.named() == {2: "busy"}
        assert link.close_code() is None
        await trio.sleep(2)
        assert (link.upto(), link.close_code()) == (2, 1012)
        link.write(closing(1012))
        await served.over.wait()
    async with opened(web.app) as late:
        assert late.link.head.startswith(b"HTTP/1.1 503 ")
        assert b"retry-after: " in late.link.head
    web.assert_idle()


async def test_client_that_does_not_answer_our_1012_is_left_after_a_while(web, autojump_clock) -> None:
    async with opened(web.app) as served:
        started = trio.current_time()
        web.services.lifecycle.advance(Phase.DRAINING)
        await served.over.wait()
        assert CLOSE_WAIT_S <= trio.current_time() - started <= 2 * CLOSE_WAIT_S
    web.assert_idle()


async def test_id_that_does_not_follow_closes_after_what_came_before_it_in_the_same_read(web, autojump_clock) -> None:
    async with opened(web.app) as served:
        link = served.link
        link.write(track(1) + track(3) + track(4))
        await trio.sleep(0.5)
        assert (link.upto(), link.close_code()) == (1, 1002)
        assert len(web.values()) == 1
        link.leave()
    web.assert_idle()


async def test_cancelled_connection_leaves_nothing(web, autojump_clock) -> None:
    web.cluster.pause_broker(1)
    with trio.move_on_after(0.5):
        async with opened(web.app) as served:
            served.link.write(track(1) + track(2))
            await trio.sleep_forever()
    assert web.books.refused_total == 2
    web.assert_idle()


async def test_extension_gives_a_session_the_wire_and_plain_asgi_goes_on_beside_it(web, autojump_clock) -> None:
    seen = []

    async def without(scope, receive, send) -> None:
        seen.append(scope["extensions"].pop(EXTENSION))
        await web.app(scope, receive, send)

    async with opened(without) as served:
        served.link.write(track(1) + track(2))
        await trio.sleep(0.5)
        assert served.link.upto() == 2
    assert seen
    web.assert_idle()
