"""Listeners: how they close, and how they refuse who waits."""

import socket
import time

import pytest
import trio

from collector.config import HttpConfig
from collector.web.listeners import EMPTIED_WITHIN_S, address_of, open_listener, refuse_waiting, stop_listening


async def test_accept_in_the_turn_after_the_close_finds_nobody_instead_of_failing() -> None:
    # The server's task has accepted one, and looks for the next when it has its turn again: by then it is closed.
    listener = await open_listener(HttpConfig(bind="127.0.0.1:0"))
    with listener:
        listener.setblocking(False)
        await stop_listening(listener.fileno())
        with pytest.raises(BlockingIOError):
            listener.accept()


async def test_closed_listener_refuses_who_comes_later() -> None:
    listener = await open_listener(HttpConfig(bind="127.0.0.1:0"))
    with listener:
        host, _, port = address_of(listener).rpartition(":")
        await stop_listening(listener.fileno())
        with socket.socket() as late, pytest.raises(ConnectionRefusedError):
            late.connect((host, int(port)))


async def test_close_with_a_queue_that_nobody_empties_ends_and_does_not_spin() -> None:
    # As when the server has no descriptors left.
    listener = await open_listener(HttpConfig(bind="127.0.0.1:0"))
    host, _, port = address_of(listener).rpartition(":")
    with listener, socket.socket() as client:
        client.connect((host, int(port)))
        began, cpu_s = time.monotonic(), time.process_time()
        with trio.fail_after(10):
            await stop_listening(listener.fileno())
        took_s = time.monotonic() - began
        assert took_s >= EMPTIED_WITHIN_S
        assert time.process_time() - cpu_s < took_s / 2
        client.settimeout(5)
        with pytest.raises(ConnectionResetError):
            client.recv(1)


async def test_who_waits_to_be_accepted_is_answered_503_and_closed() -> None:
    listener = await open_listener(HttpConfig(bind="127.0.0.1:0"))
    host, _, port = address_of(listener).rpartition(":")
    request = b"POST /v1/track HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}"
    with listener, socket.create_connection((host, int(port))) as asking, socket.create_connection((host, int(port))):
        asking.sendall(request)
        assert list(refuse_waiting(listener, most=1)) == [len(request)]
        assert list(refuse_waiting(listener, most=10)) == [0], "one that has not asked yet"
        assert list(refuse_waiting(listener, most=10)) == []
        asking.settimeout(5)
        head, _, body = b"".join(iter(lambda: asking.recv(65536), b"")).partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    assert lines[0] == "HTTP/1.1 503 Service Unavailable"
    headers = dict(line.split(": ") for line in lines[1:])
    assert 4 <= int(headers["Retry-After"]) <= 8
    assert headers["Connection"] == "close"
    assert int(headers["Content-Length"]) == len(body)


async def test_shared_listener_is_left_to_its_next_process_with_whoever_waits_on_it() -> None:
    owner = await open_listener(HttpConfig(bind="127.0.0.1:0"), shared=True)
    host, _, port = address_of(owner).rpartition(":")
    with owner, owner.dup() as handed, socket.socket() as waiting, socket.socket() as late:
        handed.setblocking(False)
        waiting.connect((host, int(port)))
        began = time.monotonic()
        await stop_listening(handed.fileno())
        assert time.monotonic() - began < EMPTIED_WITHIN_S / 2
        late.connect((host, int(port)))
        with pytest.raises(BlockingIOError):
            handed.accept()
        for client in (waiting, late):
            accepted, address = owner.accept()
            with accepted:
                assert address == client.getsockname()
