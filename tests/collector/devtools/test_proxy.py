"""The proxy's faults, each against an echo on real sockets."""

import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import pytest
import trio

from collector.devtools.proxy import Link, Proxy, open_proxy


async def echo(stream: trio.SocketStream) -> None:  # noqa: ASYNC910  # iterating is a checkpoint
    try:
        async for data in stream:
            await stream.send_all(data)
    except trio.BrokenResourceError:
        pass


@asynccontextmanager
async def open_echo() -> AsyncIterator[tuple[Proxy, Link]]:
    """A proxy before a server that sends back what it gets."""
    async with trio.open_nursery() as nursery:
        [listener] = await nursery.start(partial(trio.serve_tcp, echo, 0, host="127.0.0.1"))
        address = f"127.0.0.1:{listener.socket.getsockname()[1]}"
        async with open_proxy([address]) as proxy:
            yield proxy, proxy[address]
        nursery.cancel_scope.cancel(reason="the test is over")


async def connect(proxy: Proxy, link: Link) -> trio.SocketStream:
    host, _, port = link.address.rpartition(":")
    return await proxy.connector(host, int(port))


async def ask(stream: trio.SocketStream, data: bytes) -> bytes:
    """Send, and read as much."""
    await stream.send_all(data)
    answer = b""
    while len(answer) < len(data):
        more = await stream.receive_some(65536)
        assert more, "the connection ended"
        answer += more
    return answer


async def test_bytes_are_forwarded_and_counted() -> None:
    async with open_echo() as (proxy, link):
        async with await connect(proxy, link) as stream:
            assert await ask(stream, b"x" * 300_000) == b"x" * 300_000
        assert link.connections_total == 1
        assert link.forwarded_bytes == {"requests": 300_000, "answers": 300_000}


async def test_refused_link_resets_what_is_open_and_refuses_what_comes() -> None:
    async with open_echo() as (proxy, link):
        async with await connect(proxy, link) as stream:
            await ask(stream, b"hello")
            link.refuse()
            with pytest.raises(trio.BrokenResourceError):
                await stream.receive_some()
        with pytest.raises(OSError):
            await connect(proxy, link)
        link.restore()
        async with await connect(proxy, link) as stream:
            assert await ask(stream, b"again") == b"again"


async def test_held_link_gives_back_everything_when_it_is_restored() -> None:
    async with open_echo() as (proxy, link):
        async with await connect(proxy, link) as stream:
            await ask(stream, b"hello")
            link.hold()
            await stream.send_all(b"into the dark")
            with trio.move_on_after(0.2) as scope:
                await stream.receive_some()
            assert scope.cancelled_caught
            link.restore()
            assert await stream.receive_some() == b"into the dark"


async def test_late_answers_keep_their_order_and_overlap() -> None:
    async with open_echo() as (proxy, link):
        async with await connect(proxy, link) as stream:
            await ask(stream, b"hello")
            link.answer_delay_s = 0.3
            started = trio.current_time()
            await stream.send_all(b"1")
            await trio.sleep(0.1)
            await stream.send_all(b"2")
            assert await stream.receive_some() == b"1"
            assert trio.current_time() - started >= 0.3
            assert await stream.receive_some() == b"2"
            assert trio.current_time() - started < 0.6


async def test_dribbled_answer_comes_byte_by_byte() -> None:
    async with open_echo() as (proxy, link):
        async with await connect(proxy, link) as stream:
            link.dribble_s = 0.02
            await stream.send_all(b"abc")
            assert [await stream.receive_some() for _ in range(3)] == [b"a", b"b", b"c"]


@pytest.mark.parametrize("direction", ["requests", "answers"])
async def test_cut_connection_ends_in_the_middle(direction: str) -> None:
    async with open_echo() as (proxy, link):
        async with await connect(proxy, link) as stream:
            link.cut_after(direction, itertools.repeat(4))
            await stream.send_all(b"1234567")
            received = b""
            try:
                while more := await stream.receive_some():
                    received += more
            except trio.BrokenResourceError:
                pass
            assert received == (b"1234" if direction == "answers" else b"")
            assert link.forwarded_bytes[direction] == 4
            assert link.cut_total == 1


async def test_broker_that_is_away_resets_the_connection() -> None:
    async with open_echo() as (proxy, link):
        link.address = f"127.0.0.1:{link._refusing.getsockname()[1]}"
        proxy.links[link.address] = link
        async with await connect(proxy, link) as stream:
            with pytest.raises(trio.BrokenResourceError):
                await stream.receive_some()
