# flake8: noqa: ASYNC910, ASYNC912
# Loops and branches that wait, as every test here does.
"""The transport over a socket, with the reactor and without: both ends of a socket pair in one process."""

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest
import trio
import trio.testing

from collector.web.lane.reactor import Reactor
from collector.web.lane.socket_transport import READ_BYTES, READS_IN_A_ROW, SocketTransport

SEND_TIMEOUT_S = 0.3


@dataclass
class Ends:
    transport: SocketTransport
    client: socket.socket
    reactor: Reactor | None


@asynccontextmanager
async def ends(*, reactor: bool) -> AsyncIterator[Ends]:
    """A transport, and the other end of its connection."""
    ours, client = socket.socketpair()
    ours.setblocking(False)
    client.setblocking(False)
    found = Reactor() if reactor else None
    async with trio.open_nursery() as nursery:
        if found is not None:
            nursery.start_soon(found.run)
        transport = SocketTransport(ours, found, SEND_TIMEOUT_S)
        with client:
            yield Ends(transport, client, found)
            transport.abort()
        nursery.cancel_scope.cancel(reason="the test is over")
    if found is not None:
        assert repr(found) == "<Reactor 0 watched>"
        found.close()


@pytest.fixture(params=[True, False], ids=["reactor", "alone"])
async def pair(request: pytest.FixtureRequest) -> AsyncIterator[Ends]:
    async with ends(reactor=request.param) as found:
        yield found


async def receive(transport: SocketTransport) -> bytes:
    with trio.fail_after(2):
        return await transport.receive()


async def test_bytes_come_as_they_are_sent_and_then_the_end(pair: Ends) -> None:
    for data in (b"one", b"two", bytes(1000)):
        pair.client.send(data)
        assert await receive(pair.transport) == data
    pair.client.shutdown(socket.SHUT_WR)
    assert [await receive(pair.transport) for _ in range(3)] == [b""] * 3


async def test_reader_that_waits_is_woken_by_bytes_and_by_the_end(pair: Ends) -> None:
    heard: list[bytes] = []

    async def read_all() -> None:
        while not heard or heard[-1]:
            heard.append(await receive(pair.transport))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read_all)
        for data in (b"one", b"two"):
            await trio.testing.wait_all_tasks_blocked(0.02)
            pair.client.send(data)
        await trio.testing.wait_all_tasks_blocked(0.02)
        pair.client.close()
    assert heard == [b"one", b"two", b""]


async def test_last_bytes_that_come_with_the_end_are_not_lost(pair: Ends) -> None:
    async def leave() -> None:
        await trio.testing.wait_all_tasks_blocked(0.02)
        pair.client.send(b"last words")
        pair.client.close()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(leave)
        assert await receive(pair.transport) == b"last words"
        assert await receive(pair.transport) == b""


async def test_more_than_one_read_is_read_to_its_end_without_another_edge(pair: Ends) -> None:
    sent = bytes(range(256)) * 300
    assert len(sent) > READ_BYTES
    assert pair.client.send(sent) == len(sent)
    first = await receive(pair.transport)
    assert len(first) == READ_BYTES
    second = await receive(pair.transport)
    assert first + second == sent


async def test_exactly_one_read_is_followed_by_waiting(pair: Ends) -> None:
    pair.client.send(bytes(READ_BYTES))
    assert len(await receive(pair.transport)) == READ_BYTES
    with trio.move_on_after(0.05) as nothing:
        await pair.transport.receive()
    assert nothing.cancelled_caught
    pair.client.send(b"more")
    assert await receive(pair.transport) == b"more"


async def test_nothing_is_read_that_nobody_asked_for(pair: Ends) -> None:
    sent = 0
    with pytest.raises(BlockingIOError):
        while True:
            sent += pair.client.send(bytes(4096))
            await trio.lowlevel.checkpoint()
            assert sent < 16 * 1024 * 1024
    got = 0
    while got < sent:
        got += len(await receive(pair.transport))


async def test_client_that_sends_without_a_pause_does_not_keep_the_others_from_running(pair: Ends) -> None:
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await trio.lowlevel.checkpoint()

    pair.transport.read_bytes = 10
    pair.client.send(bytes(10 * READS_IN_A_ROW * 5))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(others)
        for _ in range(READS_IN_A_ROW * 5):
            assert len(await pair.transport.receive()) == 10
        assert turns >= 4
        nursery.cancel_scope.cancel(reason="the test is over")


async def test_cancelled_read_loses_nothing(pair: Ends) -> None:
    for number in range(20):
        with trio.move_on_after(0.001 * (number % 3)):
            await pair.transport.receive()
            pytest.fail("there was nothing to read")
        pair.client.send(b"%d" % number)
        assert await receive(pair.transport) == b"%d" % number


async def test_second_reader_is_refused(pair: Ends) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pair.transport.receive)
        await trio.testing.wait_all_tasks_blocked(0.02)
        with pytest.raises(trio.BusyResourceError):
            await pair.transport.receive()
        nursery.cancel_scope.cancel(reason="the test is over")


async def test_interrupted_reader_has_nothing_and_the_connection_goes_on(pair: Ends) -> None:
    assert not pair.transport.interrupt(), "nobody waits"
    heard: list[bytes] = []

    async def read_once() -> None:
        heard.append(await receive(pair.transport))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read_once)
        await trio.testing.wait_all_tasks_blocked(0.02)
        assert pair.transport.interrupt()
    assert heard == [b""]
    pair.client.send(b"more")
    assert await receive(pair.transport) == b"more"


async def test_reader_of_an_aborted_connection_hears_of_it(pair: Ends) -> None:
    async def fails() -> None:
        with pytest.raises(trio.BrokenResourceError):
            await pair.transport.receive()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(fails)
        await trio.testing.wait_all_tasks_blocked(0.02)
        pair.transport.abort()
    await fails()
    with pytest.raises(trio.BrokenResourceError):
        pair.transport.send_now(b"x")
    pair.transport.abort()
    pair.transport.end()
    assert pair.client.recv(1) == b""


async def test_writer_of_an_aborted_connection_hears_of_it(pair: Ends) -> None:
    async def fails() -> None:
        with pytest.raises(trio.BrokenResourceError):
            await pair.transport.send(bytes(8 * 1024 * 1024))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(fails)
        await trio.testing.wait_all_tasks_blocked(0.02)
        pair.transport.abort()


async def test_what_could_not_be_sent_at_once_is_sent_in_order(pair: Ends) -> None:
    parts = [bytes([number]) * 300_000 for number in range(1, 6)]
    assert not pair.transport.send_now(parts[0])
    assert not pair.transport.send_now(parts[1])
    assert pair.transport.pending
    heard = bytearray()

    async def send_the_rest() -> None:
        await pair.transport.send(b"")
        for part in parts[2:]:
            await pair.transport.send(part)
        pair.transport.end()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send_the_rest)
        with trio.fail_after(5):
            while True:
                await trio.lowlevel.wait_readable(pair.client)
                data = pair.client.recv(50_000)
                if not data:
                    break
                heard += data
    assert heard == b"".join(parts)
    assert not pair.transport.pending


async def test_client_that_reads_nothing_is_given_up(pair: Ends) -> None:
    began = trio.current_time()
    with pytest.raises(trio.BrokenResourceError, match=r"read nothing for 0\.3 s"):
        await pair.transport.send(bytes(8 * 1024 * 1024))
    assert SEND_TIMEOUT_S <= trio.current_time() - began < 2
    assert pair.transport.closed


async def test_cancelled_send_cuts_the_connection(pair: Ends) -> None:
    with trio.move_on_after(0.05):
        await pair.transport.send(bytes(8 * 1024 * 1024))
    assert pair.transport.closed


async def test_client_that_is_gone_is_a_broken_connection(pair: Ends) -> None:
    pair.client.close()
    assert await receive(pair.transport) == b""
    with pytest.raises(trio.BrokenResourceError):
        pair.transport.send_now(b"x")


async def test_descriptor_that_is_used_again_is_another_connection() -> None:
    """A descriptor is forgotten before it is closed: its number is somebody else's by the next look."""
    async with ends(reactor=True) as first:
        assert first.reactor is not None
        async with trio.open_nursery() as nursery:

            async def read_until_aborted() -> None:
                with pytest.raises(trio.BrokenResourceError):
                    await first.transport.receive()

            nursery.start_soon(read_until_aborted)
            await trio.testing.wait_all_tasks_blocked(0.02)
            number = first.transport.socket.fileno()
            first.client.send(b"unread")
            first.transport.abort()
            ours, client = socket.socketpair()
            ours.setblocking(False)
            with client:
                assert number in (ours.fileno(), client.fileno())
                second = SocketTransport(ours, first.reactor, SEND_TIMEOUT_S)
                nursery.start_soon(_say_later, client)
                assert await receive(second) == b"for the second"
                second.abort()


async def _say_later(client: socket.socket) -> None:
    await trio.testing.wait_all_tasks_blocked(0.02)
    client.send(b"for the second")


async def test_many_connections_are_told_apart() -> None:
    reactor = Reactor()
    pairs = [socket.socketpair() for _ in range(50)]
    heard: dict[int, bytes] = {}
    async with trio.open_nursery() as nursery:
        nursery.start_soon(reactor.run)

        async def read(number: int, transport: SocketTransport) -> None:
            heard[number] = await receive(transport)
            transport.abort()

        async with trio.open_nursery() as readers:
            for number, (ours, _) in enumerate(pairs):
                ours.setblocking(False)
                readers.start_soon(read, number, SocketTransport(ours, reactor, SEND_TIMEOUT_S))
            await trio.testing.wait_all_tasks_blocked(0.02)
            assert repr(reactor) == "<Reactor 50 watched>"
            for number, (_, client) in enumerate(pairs):
                client.send(b"%d" % number)
        nursery.cancel_scope.cancel(reason="the test is over")
    reactor.close()
    for _, client in pairs:
        client.close()
    assert heard == {number: b"%d" % number for number in range(50)}
