"""The sockets that clients connect to.

Owns: making, binding and closing them, and what the kernel is told to do about clients that do not read. Refuses to
know: which server accepts on them.

Non-obvious: the stock server shields its sends from every deadline, so a client that does not read would hold a
connection, its tasks and its buffers for ever, and a graceful timeout would not free them. TCP_USER_TIMEOUT on the
listening socket is inherited by every accepted one, and ends it: unread data is data without acknowledgement.
Source: tcp(7); Linux counts zero-window probes as unacknowledged.
"""

import ctypes
import os
import random
import select
import socket
import struct
import sys
from collections.abc import Iterator
from contextlib import suppress

import trio

from collector.config import HttpConfig
from collector.config_rules import split_bind
from collector.web.answers import RETRY_AFTER_S

__all__ = ["address_of", "adopt_listener", "open_listener", "refuse", "refuse_waiting", "stop_listening"]

_REQUEST_BYTES = 1024 * 1024
_BUSY = b"the server is behind with its work; send it again later\n"

#: For the handshakes that the kernel is at: microseconds, or what a busy machine makes of them.
HANDSHAKES_S = 0.05

#: Then the listener closes although somebody is in its queue, and resets him: the server does not get at it.
EMPTIED_WITHIN_S = 1.0

#: After so many turns of the server that left somebody in the queue there is a pause between two looks at it.
BUSY_TURNS = 100
QUEUE_LOOK_S = 0.005

#: Of <asm-generic/socket.h>; Python has no name for it.
_SO_ATTACH_FILTER = 26
_BPF = struct.Struct("@HBBI")


async def open_listener(config: HttpConfig, *, key: str = "http.bind", shared: bool = False) -> socket.socket:
    """Bind and listen at ``[http] bind``; port 0 is any free one.

    Args:
        shared: others may listen there too (SO_REUSEPORT); the kernel spreads connections over them.

    Raises:
        OSError: the name does not resolve or the address is taken; the message names the key and the address.

    On cancellation: nothing is bound.
    """
    host, port = split_bind(config.bind)
    try:
        found = await trio.socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, address = found[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise OSError(f"{key}: {config.bind}: {error.strerror or error}") from error
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.bind(address)
        return adopt_listener(listener, config)
    except OSError as error:
        listener.close()
        raise OSError(f"{key}: {config.bind}: {error.strerror or error}") from error


def adopt_listener(listener: socket.socket, config: HttpConfig) -> socket.socket:
    """Make a socket that is bound already ours: what ``[http]`` says of it holds from now on.

    Raises:
        OSError: it cannot listen.
    """
    listener.setblocking(False)
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, round(config.send_timeout_s * 1000))
    listener.listen(config.backlog)
    return listener


def is_shared(listener: socket.socket) -> bool:
    """Whether it is one of several of the same address, whose owner keeps it listening longer than any process."""
    return listener.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT) != 0


def refuse_waiting(listener: socket.socket, *, most: int, cleartext: bool = True) -> Iterator[int]:
    """Answer 503 to who is in the kernel's queue, ``most`` at most; yields how many bytes each had sent.

    It takes no task and no parser, 30 µs each. What a client has sent is read first: closing on unread bytes resets the
    connection, and a proxy says 502 then. One whose request is longer than the kernel's buffer, or still on its way,
    may meet that.
    """
    for _ in range(most):
        try:
            client, _address = listener.accept()
        except OSError:  # none is left; or the listener is closed, of which the server hears by itself
            return
        yield refuse(client, cleartext=cleartext)


def refuse(client: socket.socket, *, cleartext: bool = True) -> int:
    """Answer 503 to a client that nobody serves, and close; returns how many bytes it had sent.

    Who speaks TLS (not ``cleartext``) could not read an answer, and gets none.
    """
    size = 0
    with client, suppress(OSError):  # nothing to read yet; or it is gone
        client.setblocking(False)
        with suppress(BlockingIOError):
            size = len(client.recv(_REQUEST_BYTES))
        if cleartext:
            client.send(_busy())
    return size


def _busy() -> bytes:
    return (
        b"HTTP/1.1 503 Service Unavailable\r\n"
        b"Content-Type: text/plain; charset=utf-8\r\n"
        b"Content-Length: %d\r\n"
        b"Retry-After: %d\r\n"
        b"Connection: close\r\n\r\n%b" % (len(_BUSY), random.randint(*RETRY_AFTER_S), _BUSY)
    )


def address_of(listener: socket.socket) -> str:
    """``host:port`` of a listening socket, for a URL; a wildcard is shown as the loopback address of its family."""
    host, port = listener.getsockname()[:2]
    if listener.family == socket.AF_INET6:
        return f"[{'::1' if host == '::' else host}]:{port}"
    return f"{'127.0.0.1' if host == '0.0.0.0' else host}:{port}"


async def stop_listening(descriptor: int) -> None:
    """Close the listening socket without resetting anybody who has connected to it.

    Closing resets the connections that the kernel has queued and the handshakes that it is at; a proxy that has sent
    its POST by then has to say 502. So the kernel first ignores who begins to connect, and finishes the handshakes
    that it has begun; then the socket closes in a moment in which the queue is empty, without a step between the two.
    Who was ignored tries again by himself, and is refused, or goes to another collector (nginx: after
    ``proxy_connect_timeout``). Another socket takes the number's place, for the server to close; it listens too, where
    nobody knows of it: the server may be about to look for the next connection, and must find none, not an error.

    Where the server does not empty the queue (it has no descriptors left), it closes after `EMPTIED_WITHIN_S` with
    whoever is in it.

    A socket that was handed to us (`is_shared`) goes on listening: whoever waits on it is its next process's, which
    accepts from the same queue. Ours only looks away.

    On cancellation: it still listens, or listens no more.
    """
    with socket.socket(fileno=os.dup(descriptor)) as listener:
        shared = is_shared(listener)
    if not shared:
        await _wait_empty(descriptor)  # from here on there is no step until the queue is another one
    with socket.socket() as placeholder:
        placeholder.bind(("127.0.0.1", 0))
        placeholder.listen(1)
        placeholder.setblocking(False)
        os.dup2(placeholder.fileno(), descriptor, inheritable=False)
    await trio.lowlevel.checkpoint()


async def _wait_empty(descriptor: int) -> None:
    """Have the kernel begin no more handshakes, and wait until the server has accepted who is in its queue.

    On cancellation: nobody new is accepted.
    """
    if sys.platform == "linux":
        _ignore_new_connections(descriptor)
    await trio.sleep(HANDSHAKES_S)
    queue = select.poll()
    queue.register(descriptor, select.POLLIN)
    give_up_at = trio.current_time() + EMPTIED_WITHIN_S
    turns = 0
    while queue.poll(0) and trio.current_time() < give_up_at:
        turns += 1
        # The server accepts one in each of its turns, unless it cannot: without descriptors it sleeps between tries.
        if turns < BUSY_TURNS:
            await trio.lowlevel.checkpoint()
        else:
            await trio.sleep(QUEUE_LOOK_S)


def _ignore_new_connections(descriptor: int) -> None:
    """Drop segments with SYN and without ACK that come for this socket.

    Source: Documentation/networking/filter.rst of Linux (SO_ATTACH_FILTER; a filter of a TCP socket sees the segment
    from its TCP header on); RFC 9293 section 3.1: the flags are its byte 13, SYN is 2, ACK is 16.
    """
    program = b"".join(
        _BPF.pack(code, if_true, if_false, operand)
        for code, if_true, if_false, operand in (
            (0x30, 0, 0, 13),  # ldb [13]
            (0x54, 0, 0, 2 | 16),  # and
            (0x15, 0, 1, 2),  # jeq: the next, else the one after it
            (0x06, 0, 0, 0),  # ret: drop
            (0x06, 0, 0, 0xFFFF_FFFF),  # ret: keep
        )
    )
    held = ctypes.create_string_buffer(program)
    with socket.socket(fileno=os.dup(descriptor)) as listener:
        listener.setsockopt(
            socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("@HP", len(program) // _BPF.size, ctypes.addressof(held))
        )
