# flake8: noqa: ASYNC912
# Loops that wait, as every test here does.
"""How the lane ends: whoever is served is answered, whoever is idle may ask once more, nobody is reset."""

import gc
import ssl

import pytest
import trio
import trio.testing
import trustme

from collector.web.asgi_types import Receive, Scope, Send
from collector.web.lane.connection import Connection
from collector.web.lane.lane import IDLE_DRAIN_S
from tests.collector.web.lane.conftest import Client, echo

GET = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"


async def test_idle_connection_answers_its_next_request_and_closes(lane) -> None:
    async with lane(echo) as server:
        client = await server.connect()
        await client.say(GET)
        await client.hear_answer()
        server.stop.set()
        await trio.sleep(0.6)  # the listener is closed, Hypercorn's own connections would be
        await client.say(GET)
        assert b"\r\nconnection: close\r\n" in await client.hear_answer()
        assert await client.hear_end() == b""
        with trio.fail_after(1.5):
            await server.ended.wait()


async def test_idle_connections_are_closed_in_the_end(lane) -> None:
    async with lane(echo, drain_s=10.0) as server:
        idle, untouched = await server.connect(), await server.connect()
        await idle.say(GET)
        await idle.hear_answer()
        server.stop.set()
        began = trio.current_time()
        assert await idle.hear_end() == b""
        assert await untouched.hear_end() == b""
        assert IDLE_DRAIN_S <= trio.current_time() - began < IDLE_DRAIN_S + 1.5
        with trio.fail_after(1):
            await server.ended.wait()


async def test_idle_connections_are_kept_while_somebody_is_served(lane) -> None:
    release = trio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/slow":
            await release.wait()
        await echo(scope, receive, send)

    async with lane(app, drain_s=10.0) as server:
        idle, slow = await server.connect(), await server.connect()
        await idle.say(GET)
        await idle.hear_answer()
        await slow.say(GET.replace(b"/", b"/slow", 1))
        await trio.sleep(0.1)
        server.stop.set()
        await trio.sleep(IDLE_DRAIN_S + 0.5)
        await idle.say(GET)
        assert b"\r\nconnection: close\r\n" in await idle.hear_answer()
        release.set()
        assert b"\r\nconnection: close\r\n" in await slow.hear_answer()
        with trio.fail_after(2):
            await server.ended.wait()


async def test_what_is_left_when_the_time_is_over_is_cut(lane) -> None:
    async def stuck(scope: Scope, receive: Receive, send: Send) -> None:
        await trio.sleep_forever()

    async with lane(stuck, drain_s=0.5) as server:
        client = await server.connect()
        await client.say(GET)
        await trio.sleep(0.1)
        server.stop.set()
        assert await client.hear_end() == b""
        with trio.fail_after(2):
            await server.ended.wait()


async def test_half_a_head_is_not_closed_on_while_draining(lane) -> None:
    async with lane(echo, drain_s=10.0) as server:
        client = await server.connect()
        await client.say(GET[:10])
        await trio.sleep(0.1)
        server.stop.set()
        await trio.sleep(IDLE_DRAIN_S + 0.5)
        await client.say(GET[10:])
        assert b"\r\nconnection: close\r\n" in await client.hear_answer()
        with trio.fail_after(2):
            await server.ended.wait()


async def test_client_that_has_not_shaken_hands_does_not_hold_the_drain_up(lane, tmp_path) -> None:
    certificate = trustme.CA().issue_cert("localhost")
    certificate.private_key_and_cert_chain_pem.write_to_path(tmp_path / "both.pem")
    async with lane(echo, http={"ssl_certfile": str(tmp_path / "both.pem")}, drain_s=10.0) as server:
        silent = await server.connect()
        await trio.sleep(0.1)
        server.stop.set()
        assert await silent.hear_end() == b""
        with trio.fail_after(2):
            await server.ended.wait()


def connection_of(client: Client) -> Connection:
    """The server's side of a client's connection."""
    port = client.stream.socket.getsockname()[1]
    (found,) = [
        known
        for known in gc.get_objects()
        if isinstance(known, Connection) and not known.at_end and known._client is not None and known._client[1] == port
    ]
    return found


async def test_request_that_lies_in_the_kernel_is_answered_when_its_connection_is_let_go(lane) -> None:
    async with lane(echo) as server:
        for again in (GET, GET[:10]):
            client = await server.connect()
            await client.say(GET)
            await client.hear_answer()
            connection = connection_of(client)
            await trio.testing.wait_all_tasks_blocked(0.02)
            client.stream.socket._sock.send(again)  # on the loopback it is there when this returns
            connection.let_go()
            if again != GET:
                await trio.sleep(0.1)
                await client.say(GET[10:])
            assert (b"\r\nconnection: close\r\n" in await client.hear_answer()) == (again == GET)
            await client.aclose()


async def test_request_that_comes_as_its_connection_is_let_go_is_told_that_it_is_the_last(lane) -> None:
    async with lane(echo) as server:
        client = await server.connect()
        await client.say(GET)
        await client.hear_answer()
        connection = connection_of(client)
        await trio.testing.wait_all_tasks_blocked(0.02)
        client.stream.socket._sock.send(GET)
        connection.transport.readable(0)  # the reactor has told, the task did not run yet
        connection.let_go()
        assert b"\r\nconnection: close\r\n" in await client.hear_answer()
        assert await client.hear_end() == b""


async def test_refused_client_that_is_still_sending_is_not_reset_by_the_drain(lane) -> None:
    async with lane(echo) as server:
        client = await server.connect()
        await trio.sleep(0.1)
        server.stop.set()
        await trio.sleep(IDLE_DRAIN_S - 0.2)
        await client.say(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\n")
        for _ in range(25):
            await client.say(bytes(1000))
            await trio.sleep(0.02)
        assert (await client.hear_end()).startswith(b"HTTP/1.1 400 ")


async def test_client_that_is_shaking_hands_when_the_drain_lets_go_is_answered(lane, tmp_path) -> None:
    authority = trustme.CA()
    authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(tmp_path / "both.pem")
    context = ssl.create_default_context()
    authority.configure_trust(context)
    async with lane(echo, http={"ssl_certfile": str(tmp_path / "both.pem")}, drain_s=10.0) as server:
        plain = await server.connect()
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        session = context.wrap_bio(incoming, outgoing, server_hostname="localhost")
        with pytest.raises(ssl.SSLWantReadError):
            session.do_handshake()
        await plain.say(outgoing.read())
        server.stop.set()
        await trio.sleep(IDLE_DRAIN_S + 0.5)
        with trio.fail_after(3):
            while session.version() is None or outgoing.pending == 0:
                incoming.write(await plain.stream.receive_some())
                try:
                    session.do_handshake()
                except ssl.SSLWantReadError:
                    continue
        await plain.say(outgoing.read())
        await trio.sleep(0.3)
        session.write(GET)
        await plain.say(outgoing.read())
        heard = b""
        with trio.fail_after(3):
            while b"\r\n\r\nok" not in heard:
                incoming.write(await plain.stream.receive_some())
                try:
                    heard += session.read()
                except ssl.SSLWantReadError:
                    continue
        assert b"\r\nconnection: close\r\n" in heard
        await plain.aclose()
        with trio.fail_after(2):
            await server.ended.wait()
