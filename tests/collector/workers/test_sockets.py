"""The sockets of several slots at one address: real ones, on the kernel that spreads connections over them."""

import errno
import socket
from collections import Counter
from contextlib import ExitStack, closing

import pytest
import trio

from collector.config import HttpConfig
from collector.web.listeners import open_listener
from collector.workers.sockets import SlotSockets, open_sockets

CONFIG = HttpConfig(bind="127.0.0.1:0", backlog=128)
#: So many that the chance of none going to one of three sockets is below one in a billion.
MANY = 60


def connect(stack: ExitStack, sockets: SlotSockets) -> socket.socket:
    host, _, port = sockets.address.rpartition(":")
    return stack.enter_context(socket.create_connection((host, int(port)), timeout=5))


def accepted(sockets: SlotSockets) -> Counter[int]:
    """Accept everybody; how many waited on which slot."""
    found: Counter[int] = Counter()
    for number in range(len(sockets)):
        while True:
            try:
                client, _ = sockets[number].accept()
            except BlockingIOError:
                break
            client.close()
            found[number] += 1
    return found


def where_many_go(sockets: SlotSockets) -> Counter[int]:
    with ExitStack() as stack:
        for _ in range(MANY):
            connect(stack, sockets)
        return accepted(sockets)


async def test_connections_are_spread_over_those_that_are_named() -> None:
    with closing(await open_sockets(CONFIG, 3)) as sockets:
        assert set(where_many_go(sockets)) == {0, 1, 2}
        sockets.spread_over([0, 2])
        found = where_many_go(sockets)
        assert set(found) == {0, 2}
        assert found.total() == MANY
        sockets.spread_over([1])
        assert where_many_go(sockets) == {1: MANY}
        sockets.spread_over([])
        assert set(where_many_go(sockets)) == {0, 1, 2}, "nobody accepts: they wait wherever they are"
        assert repr(sockets) == f"<SlotSockets {sockets.address} × 3>"


async def test_who_waits_stays_where_he_is() -> None:
    with closing(await open_sockets(CONFIG, 2)) as sockets, ExitStack() as stack:
        sockets.spread_over([1])
        connect(stack, sockets)
        sockets.spread_over([0])
        assert accepted(sockets) == {1: 1}


async def test_last_slot_is_emptied_and_closed_and_nobody_is_reset() -> None:
    with closing(await open_sockets(CONFIG, 3)) as sockets, ExitStack() as stack:
        waiting = [connect(stack, sockets) for _ in range(MANY)]
        served: Counter[int] = Counter()

        async def accept_on_the_last() -> None:
            last = trio.SocketListener(trio.socket.from_stdlib_socket(sockets[2].dup()))
            async with last:
                while True:
                    async with await last.accept() as stream:
                        await stream.send_all(b"served")
                        served[2] += 1

        async with trio.open_nursery() as nursery:
            nursery.start_soon(accept_on_the_last)
            await sockets.empty_last()
            nursery.cancel_scope.cancel()
        sockets.close_last()
        assert len(sockets) == 2
        assert served[2] > 0
        assert accepted(sockets).total() + served[2] == MANY
        for client in waiting:
            client.recv(64)  # an end or an answer, and never a reset
        assert set(where_many_go(sockets)) == {0, 1}
        await sockets.grow(3)
        assert set(where_many_go(sockets)) == {0, 1}, "nobody accepts on the new one yet"
        sockets.spread_over([0, 1, 2])
        assert set(where_many_go(sockets)) == {0, 1, 2}


async def test_growth_that_fails_half_way_leaves_nobody_waiting_on_a_slot_that_is_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with closing(await open_sockets(CONFIG, 2)) as sockets:
        opened: list[socket.socket] = []

        async def open_one_more(config: HttpConfig, *, shared: bool = False) -> socket.socket:
            if opened:
                raise OSError(errno.EMFILE, "Too many open files")
            opened.append(await open_listener(config, shared=shared))
            return opened[0]

        with monkeypatch.context() as patched:
            patched.setattr("collector.workers.sockets.open_listener", open_one_more)
            with pytest.raises(OSError, match="Too many open files"):
                await sockets.grow(4)
        assert (len(sockets), opened[0].fileno()) == (2, -1)
        found = where_many_go(sockets)
        assert (set(found), found.total()) == ({0, 1}, MANY)
        sockets.spread_over([0, 1])
        found = where_many_go(sockets)
        assert (set(found), found.total()) == ({0, 1}, MANY)
        await sockets.grow(3)
        assert set(where_many_go(sockets)) == {0, 1}, "nobody accepts on the new one yet"
        sockets.spread_over([0, 1, 2])
        assert set(where_many_go(sockets)) == {0, 1, 2}


async def test_who_waits_on_a_slot_that_nobody_serves_is_told_503() -> None:
    with closing(await open_sockets(CONFIG, 1)) as sockets, ExitStack() as stack:
        client = connect(stack, sockets)
        client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert sockets.refuse(0) == 1
        assert client.recv(4096).startswith(b"HTTP/1.1 503 ")
        assert sockets.refuse(0) == 0


async def test_address_that_another_supervisor_has_is_refused() -> None:
    with closing(await open_sockets(CONFIG, 2)) as sockets:
        with pytest.raises(OSError, match=f"http.bind: {sockets.address}: Address already in use"):
            await open_sockets(HttpConfig(bind=sockets.address), 2)
        with pytest.raises(OSError, match="Address already in use"):
            await open_listener(HttpConfig(bind=sockets.address))
