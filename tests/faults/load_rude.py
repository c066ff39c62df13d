"""Clients without manners: those that do not read what they are told, and those that send one byte a second.

Owns: four ways of being rude. Refuses to know: what a server does about it. Every second one goes past nginx, which
otherwise keeps most of this away from the server behind it.
"""

import itertools
import json
import socket
import time
from collections.abc import Awaitable, Callable

import trio
from trio_websocket import ConnectionClosed, HandshakeError, WebSocketConnection, wrap_client_stream

from collector.web.websocket.frames import PATH
from tests.faults.load import Log, track_body

__all__ = ["open_rude"]

#: What the kernel keeps for a client that does not read: as little as it allows.
RECEIVE_BUFFER_BYTES = 2304

#: Requests a second of one that does not read: enough to fill every buffer, too few to be an overload.
PER_S = 40.0

AGAIN_S = 1.0


async def open_rude(log: Log, number: int) -> None:
    """One such client, for as long as the load lasts. On cancellation: its connection is closed."""
    ways = (_read_nothing, _dribble_body, _read_no_frames, _dribble_head)
    way: Callable[[Log, str], Awaitable[None]] = ways[number // 2 % len(ways)]
    address = log.spec.direct if number % 2 and log.spec.direct else log.spec.address
    await trio.lowlevel.checkpoint()
    while True:
        try:
            await way(log, address)
        except* (OSError, trio.BrokenResourceError, HandshakeError, ConnectionClosed):
            pass  # thrown out, as it deserves
        await trio.sleep(AGAIN_S)


async def _connect(address: str) -> trio.SocketStream:
    host, _, port = address.rpartition(":")
    plain = trio.socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
    await plain.connect((host, int(port)))
    return trio.SocketStream(plain)


async def _read_nothing(log: Log, address: str) -> None:
    async with await _connect(address) as stream:
        while True:
            entry = log.new(1, rude=True)
            body = json.dumps({"writeKey": "rude", **track_body(log.spec, entry)}).encode()
            head = f"POST /v1/track HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode()
            entry.whole = False
            try:
                await stream.send_all(head + body)
                entry.whole = True
            finally:
                entry.sent_at = time.monotonic()
                log.put(entry)
            await trio.sleep(1 / PER_S)


async def _dribble_body(log: Log, address: str) -> None:
    async with await _connect(address) as stream:
        entry = log.new(1, rude=True)
        body = json.dumps({"writeKey": "rude", **track_body(log.spec, entry)}).encode()
        entry.whole = False
        try:
            await stream.send_all(f"POST /v1/track HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode())
            await _byte_by_byte(stream, body)
            entry.whole = True
        finally:
            entry.sent_at = time.monotonic()
            log.put(entry)


async def _dribble_head(log: Log, address: str) -> None:
    async with await _connect(address) as stream:
        await _byte_by_byte(stream, b"POST /v1/track HTTP/1.1\r\nHost: x\r\n" + b"X-Slow: yes\r\n" * 1000)


async def _byte_by_byte(stream: trio.SocketStream, data: bytes) -> None:
    await trio.lowlevel.checkpoint()
    for place in range(len(data)):
        await stream.send_all(data[place : place + 1])
        await trio.sleep(1.0)


async def _read_no_frames(log: Log, address: str) -> None:
    async with await _connect(address) as stream, trio.open_nursery() as nursery:
        socket = await wrap_client_stream(nursery, stream, address, PATH, receive_buffer_size=256)
        try:
            for number in itertools.count(1):  # the library reads one message ahead of those that nobody takes
                await _send_frame(log, socket, number)
                await trio.sleep(1 / PER_S)
        finally:
            nursery.cancel_scope.cancel(reason="thrown out")


async def _send_frame(log: Log, socket: WebSocketConnection, number: int) -> None:
    entry = log.new(1, "websocket", rude=True)
    # What is refused is answered with more words, which fill the buffers earlier: three of four messages are.
    api = "nobody's" if number % 4 else "segment"
    frame = {"op": "track", "id": number, "api": api, "key": "rude", "body": track_body(log.spec, entry)}
    entry.whole = False
    try:
        await socket.send_message(json.dumps(frame))
        entry.whole = True
    finally:
        entry.sent_at = time.monotonic()
        log.put(entry)
