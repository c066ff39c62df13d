"""Listeners: how they close."""

import socket

import pytest

from collector.config import HttpConfig
from collector.web.listeners import address_of, open_listener, stop_listening


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
