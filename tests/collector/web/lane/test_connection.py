# flake8: noqa: ASYNC910, ASYNC912
# Loops and branches that wait, as every test here does.
"""One connection of the lane, request after request: what clients of every kind get. Real sockets, real time."""

import socket
import struct

import pytest
import trio

from collector.web.asgi_types import Message, Receive, Scope, Send
from collector.web.handle import handle_of
from tests.collector.web.lane.conftest import echo, ok, start

GET = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"


def post(body: bytes, *fields: bytes, length: int | None = None) -> bytes:
    head = [b"POST / HTTP/1.1", b"host: x", b"content-length: %d" % (len(body) if length is None else length), *fields]
    return b"\r\n".join(head) + b"\r\n\r\n" + body


async def test_connection_is_kept_for_request_after_request(lane) -> None:
    async with lane(echo) as server:
        client = await server.connect()
        for number in range(5):
            await client.say(post(b"body %d" % number))
            head = await client.hear_answer(b"body %d" % number)
            assert head.startswith(b"HTTP/1.1 200 OK\r\n")
            assert b"connection" not in head
            assert b"\r\ndate: " in head
        assert server.limits.opened_total == 1
        await client.aclose()
        await server.wait_idle()


async def test_pipelined_requests_are_answered_in_order(lane) -> None:
    async with lane(echo) as server:
        client = await server.connect()
        await client.say(b"".join(post(b"%03d" % number) for number in range(200)))
        for number in range(200):
            await client.hear_answer(b"%03d" % number)


async def test_pipelining_beyond_the_bound_waits_in_the_kernel(lane) -> None:
    release = trio.Event()

    async def slow(scope: Scope, receive: Receive, send: Send) -> None:
        await release.wait()
        await echo(scope, receive, send)

    async with lane(slow, limits={"read_ahead_bytes": 1000}) as server:
        client = await server.connect(receive_buffer=4096)
        sent = 0
        with trio.move_on_after(0.5):
            while True:
                await client.say(post(bytes(100_000)))
                sent += 1
        assert sent < 200, "the client is slowed down"
        release.set()


async def test_last_request_of_http_1_0_closes_unless_it_asks_to_go_on(lane) -> None:
    async with lane(echo) as server:
        client = await server.connect()
        await client.say(b"GET / HTTP/1.0\r\nconnection: keep-alive\r\n\r\n")
        assert b"\r\nconnection: keep-alive\r\n" in await client.hear_answer()
        await client.say(b"GET / HTTP/1.0\r\n\r\n")
        assert b"\r\nconnection: close\r\n" in await client.hear_end()
        await server.wait_idle()


async def test_request_that_closes_is_the_last_one(lane) -> None:
    async with lane(echo) as server:
        client = await server.connect()
        await client.say(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n" + GET)
        heard = await client.hear_end()
        assert heard.count(b"HTTP/1.1 200") == 1
        assert b"\r\nconnection: close\r\n" in heard
        await server.wait_idle()


async def test_chunked_body_is_put_together(lane) -> None:
    async with lane(echo) as server:
        client = await server.connect()
        await client.say(b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n")
        for piece in (b"5\r\nhel", b"lo\r", b"\n1\r\n \r\n", b"5\r\nworld\r\n0\r\n", b"\r\n"):
            await client.say(piece)
            await trio.sleep(0.01)
        await client.hear_answer(b"hello world")


async def test_answer_without_a_length_in_several_pieces_is_chunked(lane) -> None:
    async def streaming(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start(None))
        for piece in (b"one", b"", b"twenty bytes of text"):
            await send(ok(piece, more=True))
        await send(ok(b""))

    async with lane(streaming) as server:
        client = await server.connect()
        for _ in range(2):
            await client.say(GET)
            head = await client.hear(b"\r\n\r\n")
            assert b"\r\ntransfer-encoding: chunked\r\n" in head
            assert await client.hear(b"0\r\n\r\n") == b"3\r\none\r\n14\r\ntwenty bytes of text\r\n0\r\n\r\n"
        await client.say(b"GET / HTTP/1.0\r\nconnection: keep-alive\r\n\r\n")
        heard = await client.hear_end()
        assert b"transfer-encoding" not in heard
        assert heard.endswith(b"connection: close\r\n\r\nonetwenty bytes of text")


async def test_answer_in_one_piece_gets_its_length(lane) -> None:
    async def short(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start(None))
        await send(ok(b"whole"))

    async with lane(short) as server:
        client = await server.connect()
        await client.say(GET)
        await client.hear_answer(b"whole")


async def test_head_is_answered_without_a_body(lane) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/pieces":
            await send(start(None))
            await send(ok(b"never sent", more=True))
            await send(ok(b"nor this"))
        else:
            await send(start(10))
            await send(ok(b"never sent"))

    async with lane(app) as server:
        client = await server.connect()
        for path in (b"/", b"/pieces", b"/"):
            await client.say(b"HEAD %b HTTP/1.1\r\nhost: x\r\n\r\n" % path)
            await client.hear(b"\r\n\r\n")
        await client.say(GET)
        await client.hear_answer(b"never sent")


@pytest.mark.parametrize("status", [204, 304])
async def test_statuses_without_a_body_have_no_framing(lane, status: int) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start(None, status))
        await send(ok(b""))

    async with lane(app) as server:
        client = await server.connect()
        for _ in range(2):
            await client.say(GET)
            head = await client.hear(b"\r\n\r\n")
            assert b"content-length" not in head
            assert b"transfer-encoding" not in head


async def test_client_that_expects_is_told_to_go_on_when_the_body_is_asked_for(lane) -> None:
    asked = trio.Event()

    async def reluctant(scope: Scope, receive: Receive, send: Send) -> None:
        await asked.wait()
        await echo(scope, receive, send)

    async with lane(reluctant) as server:
        client = await server.connect()
        await client.say(post(b"", b"expect: 100-continue", length=5))
        with trio.move_on_after(0.1) as nothing_comes:
            await client.hear(b"\r\n\r\n")
        assert nothing_comes.cancelled_caught
        asked.set()
        assert await client.hear(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        await client.say(b"hello")
        await client.hear_answer(b"hello")
        await client.say(post(b"at once", b"expect: 100-continue"))
        await client.hear_answer(b"at once")


async def answer_without_reading(scope: Scope, receive: Receive, send: Send) -> None:
    await send(start(2, 403))
    await send(ok())


async def test_client_that_expects_and_is_refused_is_closed(lane) -> None:
    async with lane(answer_without_reading) as server:
        client = await server.connect()
        await client.say(post(b"", b"expect: 100-continue", length=5))
        heard = await client.hear_end()
        assert heard.startswith(b"HTTP/1.1 403 ")
        assert b"\r\nconnection: close\r\n" in heard
        await client.aclose()
        await server.wait_idle()


async def test_early_answer_reads_the_rest_and_keeps_the_connection(lane) -> None:
    async with lane(answer_without_reading) as server:
        client = await server.connect()
        await client.say(post(b"", length=300_000))
        await client.hear_answer()
        for _ in range(3):
            await client.say(bytes(100_000))
        await client.say(GET)
        await client.hear_answer()


async def test_early_answer_to_a_body_beyond_the_bound_closes_and_can_be_read(lane) -> None:
    async with lane(answer_without_reading, limits={"discard_bytes": 1_000_000}) as server:
        client = await server.connect()
        try:
            await client.say(post(bytes(4_000_000)))
        except trio.BrokenResourceError:
            pass  # the server has read its million, and then some
        head = await client.hear(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 403 ")
        await server.wait_idle()


async def test_early_answer_to_a_body_that_does_not_come_closes_after_a_while(lane) -> None:
    async with lane(answer_without_reading, limits={"discard_s": 0.2}) as server:
        client = await server.connect()
        await client.say(post(b"", length=10))
        began = trio.current_time()
        assert (await client.hear_end()).startswith(b"HTTP/1.1 403 ")
        assert 0.2 <= trio.current_time() - began < 1.0


async def test_body_in_many_pieces_is_told_as_it_comes(lane) -> None:
    told: list[Message] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        while not told or told[-1]["more_body"]:
            told.append(await receive())
        await send(start())
        await send(ok())

    async with lane(app) as server:
        client = await server.connect()
        await client.say(post(b"", length=6))
        for piece in (b"ab", b"cd", b"ef"):
            await trio.sleep(0.05)
            await client.say(piece)
        await client.hear_answer()
    assert b"".join(message["body"] for message in told) == b"abcdef"
    assert [message["body"] for message in told if message["body"]] == [b"ab", b"cd", b"ef"]
    assert [message["more_body"] for message in told] == [True] * (len(told) - 1) + [False]


async def test_client_that_leaves_in_the_middle_of_a_body_is_told_as_a_disconnect(lane) -> None:
    told: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        handle = handle_of(scope)
        assert handle is not None
        while not told or told[-1] == "http.request":
            told.append((await receive())["type"])
        assert handle.gone.is_set()

    async with lane(app) as server:
        client = await server.connect()
        await client.say(post(b"half", length=8))
        await trio.sleep(0.05)
        await client.aclose()
        await server.wait_idle()
    assert told == ["http.request", "http.disconnect"]


async def test_client_that_closes_its_side_in_a_body_is_answered_400(lane) -> None:
    async with lane(echo) as server:
        client = await server.connect()
        await client.say(post(b"half", length=8))
        await client.stream.send_eof()
        assert (await client.hear_end()).startswith(b"HTTP/1.1 400 ")


async def test_client_that_closes_its_side_after_its_request_is_answered(lane) -> None:
    async def slow(scope: Scope, receive: Receive, send: Send) -> None:
        await trio.sleep(0.1)
        await echo(scope, receive, send)

    async with lane(slow) as server:
        client = await server.connect()
        await client.say(post(b"beacon"))
        await client.stream.send_eof()
        assert (await client.hear_end()).endswith(b"beacon")
        await server.wait_idle()


async def test_disconnect_is_told_while_the_application_works(lane) -> None:
    told: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        told.append((await receive())["type"])
        told.append((await receive())["type"])

    async with lane(app) as server:
        client = await server.connect()
        await client.say(post(b"whole"))
        await trio.sleep(0.05)
        assert told == ["http.request"]
        await client.aclose()
        await server.wait_idle()
    assert told == ["http.request", "http.disconnect"]


@pytest.mark.parametrize("pipelined", [1, 3])
async def test_disconnect_is_told_after_a_body_larger_than_what_is_read_ahead(lane, pipelined: int) -> None:
    told: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        while (await receive())["more_body"]:
            pass
        if scope["path"] == "/last":
            told.append((await receive())["type"])
        await send(start())
        await send(ok())

    async with lane(app, limits={"read_ahead_bytes": 1000}) as server:
        client = await server.connect()
        await client.say(post(bytes(3000)) * (pipelined - 1) + post(bytes(200_000)).replace(b"/", b"/last", 1))
        for _ in range(pipelined - 1):
            await client.hear_answer()
        await trio.sleep(0.1)
        await client.aclose()
        await server.wait_idle()
    assert told == ["http.disconnect"]


async def test_disconnect_is_told_after_the_answer_and_the_next_request_is_served(lane) -> None:
    told: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        async def listen() -> None:
            told.append((await receive())["type"])
            told.append((await receive())["type"])

        await receive()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(listen)
            await trio.sleep(0.05)
            await send(start())
            await send(ok())

    async with lane(app) as server:
        client = await server.connect()
        for _ in range(2):
            await client.say(post(b"x"))
            await client.hear_answer()
    assert told == ["http.disconnect"] * 4


async def test_requests_that_come_while_somebody_listens_are_kept(lane) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        async with trio.open_nursery() as nursery:

            async def listen() -> None:
                while (await receive())["type"] != "http.disconnect":
                    pass

            nursery.start_soon(listen)
            await trio.sleep(0.05)
            await send(start())
            await send(ok())

    async with lane(app) as server:
        client = await server.connect()
        await client.say(GET)
        await trio.sleep(0.02)
        await client.say(GET * 100)
        for _ in range(101):
            await client.hear_answer()


async def failing(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["path"] == "/good":
        await echo(scope, receive, send)
    elif scope["path"] == "/late":
        await send(start(10))
        await send(ok(b"half ", more=True))
        raise RuntimeError("a bug in the middle")
    elif scope["path"] == "/group":
        async with trio.open_nursery():
            raise RuntimeError("a bug in a nursery")
    elif scope["path"] == "/raises":
        raise RuntimeError("a bug")


@pytest.mark.parametrize("path", [b"/raises", b"/silent", b"/group"])
async def test_application_that_fails_or_says_nothing_is_a_500_and_the_end(lane, capsys, path: bytes) -> None:
    async with lane(failing) as server:
        client = await server.connect()
        await client.say(GET.replace(b"/", path, 1))
        heard = await client.hear_end()
        assert heard.startswith(b"HTTP/1.1 500 ")
        assert b"\r\nconnection: close\r\n" in heard
        other = await server.connect()
        await other.say(GET.replace(b"/", b"/good", 1))
        await other.hear_answer()
    assert ("a request failed" in capsys.readouterr().err) == (path != b"/silent")


async def test_application_that_fails_in_its_answer_cuts_the_connection(lane) -> None:
    async with lane(failing) as server:
        client = await server.connect()
        await client.say(GET.replace(b"/", b"/late", 1))
        assert (await client.hear_end()).endswith(b"half ")
        await server.wait_idle()


WRONG_ANSWERS = {
    "a body without a head": [ok()],
    "two heads": [start(), start()],
    "a longer body than it said": [start(1), ok(b"ok")],
    "a shorter body than it said": [start(3), ok(b"ok")],
    "a longer first piece than it said": [start(1), ok(b"ok", more=True)],
    "a line's end in a field": [start(2, 200, (b"x", b"a\r\nset-cookie: b")), ok()],
    "a line's end in a name": [start(2, 200, (b"x\nset-cookie", b"b")), ok()],
    "a length that is no number": [start(None, 200, (b"content-length", b"two")), ok()],
    "a status that is none": [start(2, 99), ok()],
    "a message that is none": [{"type": "http.response.push"}],
}


@pytest.mark.parametrize("name", WRONG_ANSWERS)
async def test_answer_that_cannot_be_sent_is_a_500(lane, name: str) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        for message in WRONG_ANSWERS[name]:
            await send(dict(message))

    async with lane(app) as server:
        client = await server.connect()
        await client.say(GET)
        heard = await client.hear_end()
        assert heard.startswith(b"HTTP/1.1 500 ")
        assert b"set-cookie" not in heard


@pytest.mark.parametrize("last", [b"a byte too much", b""])
async def test_streamed_answer_that_is_not_as_long_as_it_said_is_cut(lane, last: bytes) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start(10))
        await send(ok(b"half ", more=True))
        await send(ok(last))

    async with lane(app) as server:
        client = await server.connect()
        await client.say(GET)
        assert (await client.hear_end()).endswith(b"half ")


async def test_broken_request_is_refused_after_those_before_it_are_answered(lane) -> None:
    async with lane(echo) as server:
        client = await server.connect()
        await client.say(post(b"one") + post(b"two") + b"GARBAGE\r\n\r\n" + post(b"three"))
        await client.hear_answer(b"one")
        await client.hear_answer(b"two")
        heard = await client.hear_end()
        assert heard.startswith(b"HTTP/1.1 400 ")
        assert b"\r\nconnection: close\r\n" in heard
        assert b"three" not in heard
        await client.aclose()
        await server.wait_idle()


async def test_broken_chunk_in_a_body_is_refused(lane) -> None:
    async with lane(echo) as server:
        client = await server.connect()
        await client.say(b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\nzz\r\n")
        assert (await client.hear_end()).startswith(b"HTTP/1.1 400 ")


async def test_refusal_can_be_read_by_who_is_still_sending(lane) -> None:
    async with lane(echo) as server:
        client = await server.connect()
        await client.say(b"GARBAGE\r\n\r\n" + bytes(3_000_000))
        assert (await client.hear_end()).startswith(b"HTTP/1.1 400 ")


async def test_slow_head_is_answered_408_though_bytes_keep_coming(lane) -> None:
    async with lane(echo, http={"head_timeout_s": 0.5, "idle_timeout_s": 60.0}) as server:
        client = await server.connect()
        began = trio.current_time()
        await client.say(b"GET / HTTP/1.1\r\nhost: x\r\n")
        with trio.fail_after(5):
            async with trio.open_nursery() as nursery:

                async def drip() -> None:
                    while True:
                        await client.say(b"x-y: z\r\n")
                        await trio.sleep(0.1)

                nursery.start_soon(drip)
                assert (await client.hear(b"\r\n\r\n")).startswith(b"HTTP/1.1 408 ")
                nursery.cancel_scope.cancel(reason="answered")
        assert 0.5 <= trio.current_time() - began < 2.0


async def test_idle_connection_is_closed_and_not_too_early(lane) -> None:
    async with lane(echo, http={"head_timeout_s": 0.2, "idle_timeout_s": 0.8}) as server:
        client = await server.connect()
        await client.say(GET)
        await client.hear_answer()
        began = trio.current_time()
        assert await client.hear_end() == b""
        assert 0.8 <= trio.current_time() - began < 2.5
        await client.aclose()
        await server.wait_idle()


async def test_long_work_is_not_idle(lane) -> None:
    async def slow(scope: Scope, receive: Receive, send: Send) -> None:
        await trio.sleep(1.5)
        await echo(scope, receive, send)

    async with lane(slow, http={"head_timeout_s": 0.2, "idle_timeout_s": 0.3}) as server:
        client = await server.connect()
        await client.say(GET)
        await client.hear_answer()


async def flooding(scope: Scope, receive: Receive, send: Send) -> None:
    await send(start(64 * 1024 * 1024))
    await send(ok(bytes(64 * 1024 * 1024)))


async def test_client_that_does_not_read_is_cut_after_the_send_timeout(lane) -> None:
    async with lane(flooding, http={"send_timeout_s": 0.5}) as server:
        client = await server.connect(receive_buffer=4096)
        await client.say(GET)
        await trio.sleep(0.2)
        assert server.limits.open
        await server.wait_idle()


async def test_send_that_is_cut_off_by_the_application_cuts_the_connection(lane) -> None:
    async def impatient(scope: Scope, receive: Receive, send: Send) -> None:
        with trio.move_on_after(0.1):
            await flooding(scope, receive, send)

    async with lane(impatient) as server:
        client = await server.connect(receive_buffer=4096)
        await client.say(GET + GET)
        await server.wait_idle(1.0)


async def test_client_that_reads_slowly_gets_everything(lane) -> None:
    async with lane(flooding, http={"send_timeout_s": 0.5}) as server:
        client = await server.connect()
        await client.say(GET)
        await client.hear(b"\r\n\r\n")
        left = 64 * 1024 * 1024 - len(client.read)
        with trio.fail_after(20):
            while left:
                left -= len(await client.stream.receive_some())


async def test_client_that_resets_leaves_nothing(lane) -> None:
    async with lane(flooding) as server:
        client = await server.connect(receive_buffer=4096)
        await client.say(GET + GET)
        await trio.sleep(0.1)
        client.stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        await client.aclose()
        await server.wait_idle()


async def test_application_can_abort_its_connection(lane) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        handle = handle_of(scope)
        assert handle is not None
        handle.abort()
        handle.abort()
        assert (await receive())["type"] == "http.request"
        assert (await receive())["type"] == "http.disconnect"
        await send(start())
        await send(ok())

    async with lane(app) as server:
        client = await server.connect()
        await client.say(GET)
        assert await client.hear_end() == b""
        await server.wait_idle()


async def test_connections_beyond_the_bound_are_answered_503(lane) -> None:
    async with lane(echo, limits={"connections": 1}) as server:
        first = await server.connect()
        await first.say(GET)
        await first.hear_answer()
        second = await server.connect()
        assert (await second.hear_end()).startswith(b"HTTP/1.1 503 ")
        await first.say(GET)
        await first.hear_answer()
        await first.aclose()
        await server.wait_idle()
        third = await server.connect()
        await third.say(GET)
        await third.hear_answer()
        assert server.limits.statistics().turned_away_total == 1


async def test_scope_is_as_hypercorn_gives_it(lane) -> None:
    scopes: list[Scope] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        scopes.append(scope)
        await echo(scope, receive, send)

    request = b"GET /a%20b%C3%BC?x=%20y HTTP/1.1\r\nHost: x\r\nX-Two:  two  words \r\nx-two: again\r\n\r\n"
    for server_name in ("lane", "stock"):
        async with lane(app, http={"server": server_name}) as server:
            client = await server.connect()
            await client.say(request)
            await client.hear_answer()
            own = client.stream.socket.getsockname()
            assert scopes[-1]["client"] == own
            assert scopes[-1]["server"] == ("127.0.0.1", server.port)
    ours, theirs = scopes
    for key in theirs:
        if key not in ("client", "server", "state", "extensions"):
            assert ours[key] == theirs[key], key
    assert set(ours) == set(theirs)
    assert set(theirs["extensions"]) <= set(ours["extensions"])
    assert set(ours["state"]) == set(theirs["state"])
    assert ours["raw_path"] == b"/a%20b%C3%BC"
    assert ours["path"] == "/a bü"


async def test_http2_with_prior_knowledge_is_served_where_it_is_configured(lane) -> None:
    from h2.config import H2Configuration
    from h2.connection import H2Connection
    from h2.events import DataReceived, ResponseReceived, StreamEnded

    async with lane(echo, http={"http2": True}) as server:
        client = await server.connect()
        protocol = H2Connection(H2Configuration(client_side=True))
        protocol.initiate_connection()
        protocol.send_headers(1, [(":method", "GET"), (":path", "/"), (":scheme", "http"), (":authority", "x")], True)
        await client.say(protocol.data_to_send())
        events: list[object] = []
        with trio.fail_after(3):
            while not any(isinstance(event, StreamEnded) for event in events):
                events += protocol.receive_data(await client.stream.receive_some())
                await client.say(protocol.data_to_send())
        assert any(isinstance(event, ResponseReceived) for event in events)
        assert b"".join(event.data for event in events if isinstance(event, DataReceived)) == b"ok"
        await client.aclose()
        await server.wait_idle()


async def test_http2_preface_is_refused_where_it_is_not_configured(lane) -> None:
    async with lane(echo) as server:
        client = await server.connect()
        await client.say(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        heard = await client.hear_end()
        assert heard.split()[1] in (b"400", b"501", b"505")
