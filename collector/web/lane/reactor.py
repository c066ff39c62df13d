"""Which sockets have become readable: one task with an edge-triggered epoll of its own, for all connections.

Owns: the epoll, and whom it wakes. Refuses to know: what is read, and who reads it.

`trio.lowlevel.wait_readable` registers a descriptor anew for every wait, which is a system call and much Python; here
it is registered once, and waiting is a task that parks. Measured: a small POST costs 45 µs of CPU with it, 64 without
(wrk, 64 connections, one core, median of five interleaved runs; uvicorn 58 in the same ones).

Non-obvious: an edge is told once. Whoever was told must read until a read comes back short (or says that it would
block), or remember that it did not; and a descriptor must be unregistered before it is closed, because its number may
be somebody else's by the next look. Both are the transport's to do. All events of one look are told in one synchronous
step, so nobody can close a descriptor between the look and its event.
"""

import select
import sys
from typing import NoReturn, Protocol

import trio

__all__ = ["HANGUP", "Reactor", "Watcher"]

#: Events of one look; more are told by the next one.
MAX_EVENTS = 512

#: The client has said that it sends nothing more, or the connection is gone.
HANGUP = (select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR) if sys.platform == "linux" else 0


class Watcher(Protocol):
    """Who is told about one descriptor."""

    def readable(self, flags: int) -> None:
        """Something can be read, or (``flags & HANGUP``) the end. Synchronous; must not raise."""
        ...


class Reactor:
    """The sockets of one server, and who is told about them. Linux only: elsewhere transports wait for themselves."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._watchers: dict[int, Watcher] = {}

    def __repr__(self) -> str:
        return f"<Reactor {len(self._watchers)} watched>"

    def watch(self, descriptor: int, watcher: Watcher) -> None:
        """Tell ``watcher`` of every edge from now on, and of what can be read already."""
        self._epoll.register(descriptor, select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLET)
        self._watchers[descriptor] = watcher

    def forget(self, descriptor: int) -> None:
        """Tell nobody any more; before the descriptor is closed. Idempotent."""
        if self._watchers.pop(descriptor, None) is not None:
            self._epoll.unregister(descriptor)

    def close(self) -> None:
        """Close the epoll; nobody is told of anything any more."""
        self._watchers.clear()
        self._epoll.close()

    async def run(self) -> NoReturn:
        """Tell of edges for ever. On cancellation: nobody is told any more; what is watched stays so."""
        descriptor, poll, watchers = self._epoll.fileno(), self._epoll.poll, self._watchers
        while True:
            await trio.lowlevel.wait_readable(descriptor)
            for number, flags in poll(0, MAX_EVENTS):
                watchers[number].readable(flags)
