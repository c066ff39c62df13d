"""The load over websockets: so many sockets in one process, each with one message open at a time.

Owns: the handshake, frames made beforehand, the reading of answers. Refuses to know: which server answers, what an
event means beyond its bytes.

Run as ``python -m tests.bench.ws.load SPEC`` (JSON); prints one line of JSON. One thread and an edge-triggered epoll;
the mask of every frame is four zero bytes, so that masking costs nothing here and what it costs there: a server has to
unmask whatever the mask is (RFC 6455 section 5.3 leaves it to the client).

Invariant: counted are messages whose answer says that they are in Kafka or on our disk; what a server did not take
because it was busy or late is counted apart. Any other answer, a frame that is none of ours, or a connection that ends,
ends the process with an error.
"""

import os
import select
import socket
import sys
import time
from array import array
from base64 import b64encode
from collections.abc import Sequence
from pathlib import Path

import msgspec

from tests.bench.figures import percentile

__all__ = ["Answers", "Spec", "Told", "frame_of", "handshake_of", "main"]

_PATH = "/v1/ws"
_SUBPROTOCOL = "collector.v1"
_HANDSHAKE_S = 20.0
#: A server that is busy with its start is asked again.
_AGAIN_S = 0.5
#: A socket that waits for an answer for this long has lost it.
_PATIENCE_S = 10.0
_READ_BYTES = 65_536
_TEXT, _CLOSE, _PING, _PONG = 1, 8, 9, 10
_ID_FIRST = b'{"op":"track","id":'


class Spec(msgspec.Struct, frozen=True, kw_only=True):
    """What the load is told."""

    port: int
    sockets: int
    bodies: str
    """A file with events, one a line."""
    warmup_s: float
    measure_s: float
    window: int = 1
    """Messages open on each socket."""


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """What it says."""

    messages: int
    failed: int
    """Not taken, in the window; not among ``messages``."""
    duration_s: float
    p50_ms: float
    p99_ms: float
    worst_ms: float
    cpu_s: float
    """Of the load itself, in the window."""


def frame_of(payload: bytes) -> bytes:
    """A client's text frame; its mask is zero."""
    size = len(payload)
    if size < 126:
        head = bytes((0x80 | _TEXT, 0x80 | size))
    elif size < 65_536:
        head = bytes((0x80 | _TEXT, 0x80 | 126)) + size.to_bytes(2, "big")
    else:
        head = bytes((0x80 | _TEXT, 0x80 | 127)) + size.to_bytes(8, "big")
    return head + b"\0\0\0\0" + payload


def handshake_of(port: int) -> bytes:
    """The request that opens a session of ``collector.v1``."""
    key = b64encode(os.urandom(16)).decode()
    return (
        f"GET {_PATH} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n"
        f"Sec-WebSocket-Protocol: {_SUBPROTOCOL}\r\n\r\n"
    ).encode()


class Answers:
    """The frames that a server sends on one socket, and up to which id they settle what was sent."""

    __slots__ = ("_early", "_rest", "failed", "settled")

    def __init__(self) -> None:
        self._rest = b""
        self._early: set[int] = set()
        self.settled = 0
        """Every id up to here has its answer."""
        self.failed = 0
        """Of them, those that were not taken."""

    def feed(self, data: bytes) -> int:
        """Take what was read; returns how many more ids are settled.

        Raises:
            ValueError: a frame says that an event is wrong, or is none of the protocol's.
        """
        before = self.settled
        data = self._rest + data if self._rest else data
        place, end = 0, len(data)
        while end - place >= 2:
            size, begin = data[place + 1], place + 2
            if size >= 126:
                length = 2 if size == 126 else 8
                if end - begin < length:
                    break
                size = int.from_bytes(data[begin : begin + length], "big")
                begin += length
            if end - begin < size:
                break
            self._take(data[place], data[begin : begin + size])
            place = begin + size
        self._rest = data[place:]
        return self.settled - before

    def _take(self, first: int, payload: bytes) -> None:
        if first & 0x0F in (_PING, _PONG):
            return  # a load runs for seconds; nobody waits for its pong that long
        if first != 0x80 | _TEXT:
            raise ValueError(f"a frame of kind {first:#x}: {payload[:100]!r}")
        if payload.startswith(b'{"op":"ack","upto":'):
            self._upto(int(payload[19:-1]))
        elif payload.startswith((b'{"op":"credit"', b'{"op":"hello"')):
            return
        else:
            said = msgspec.json.decode(payload)
            if said.get("status") in ("busy", "not_sent", "unknown"):
                self.failed += 1
            elif said.get("status") not in ("delivered", "spooled"):
                raise ValueError(f"the server says {payload[:200]!r}")
            self._early.add(said["id"])
            self._upto(self.settled)

    def _upto(self, number: int) -> None:
        self.settled = max(self.settled, number)
        while self.settled + 1 in self._early:
            self.settled += 1
            self._early.discard(self.settled)


class _Socket:
    """One connection."""

    __slots__ = ("answers", "last", "place", "sent_at", "socket")

    def __init__(self, port: int, place: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=_HANDSHAKE_S)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.answers = Answers()
        self.place = place
        self.last = 0
        self.sent_at: list[float] = []
        self._shake_hands(port)

    def _shake_hands(self, port: int) -> None:
        self.socket.sendall(handshake_of(port))
        head = b""
        while b"\r\n\r\n" not in head:
            more = self.socket.recv(_READ_BYTES)
            if not more:
                raise ValueError(f"the handshake was answered with {head[:200]!r}")
            head += more
        head, _, rest = head.partition(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 101"):
            raise ValueError(f"the handshake was answered with {head[:200]!r}")
        self.answers.feed(rest)
        self.socket.setblocking(False)

    def send(self, bodies: Sequence[bytes], now: float) -> None:
        """Write the next message. The kernel takes a few hundred bytes whole, or something is wrong."""
        self.last += 1
        body = bodies[(self.place + self.last) % len(bodies)]
        frame = frame_of(b'%b%d,"api":"heap","body":%b}' % (_ID_FIRST, self.last, body))
        if self.socket.send(frame) != len(frame):
            raise ValueError("the kernel took half a message: the server does not read")
        self.sent_at.append(now)


def _connected(port: int, place: int) -> _Socket:
    until = time.monotonic() + _HANDSHAKE_S
    while True:
        try:
            return _Socket(port, place)
        except ValueError:
            if time.monotonic() > until:
                raise
            time.sleep(_AGAIN_S)


class _Load:
    """All sockets, and what they have measured."""

    def __init__(self, spec: Spec) -> None:
        self._spec = spec
        self._bodies = Path(spec.bodies).read_bytes().splitlines()
        self._epoll = select.epoll()
        self._sockets: dict[int, _Socket] = {}
        self.messages = 0
        self.failed = 0
        self.latencies = array("d")

    def open(self) -> None:
        """Connect, and send the first messages."""
        for number in range(self._spec.sockets):
            each = _connected(self._spec.port, number * 61)
            self._sockets[each.socket.fileno()] = each
            self._epoll.register(each.socket, select.EPOLLIN | select.EPOLLET)
        for each in self._sockets.values():
            for _ in range(self._spec.window):
                each.send(self._bodies, time.perf_counter())

    def run(self, seconds: float) -> float:
        """Keep every socket busy for so long; returns how long it was."""
        begin = now = time.perf_counter()
        heard = begin
        while now < begin + seconds:
            events = self._epoll.poll(1.0)
            now = time.perf_counter()
            if events:
                heard = now
            elif now > heard + _PATIENCE_S:
                raise ValueError(f"no answer for {_PATIENCE_S:g} s")
            for descriptor, _ in events:
                self._answer(self._sockets[descriptor])
            now = time.perf_counter()
        return now - begin

    def _answer(self, each: _Socket) -> None:
        while True:
            try:
                data = each.socket.recv(_READ_BYTES)
            except BlockingIOError:
                return
            if not data:
                raise ValueError("the server closed the connection")
            failed = each.answers.failed
            settled = each.answers.feed(data)
            if settled:
                now = time.perf_counter()
                for sent_at in each.sent_at[:settled]:
                    self.latencies.append(now - sent_at)
                del each.sent_at[:settled]
                failed = each.answers.failed - failed
                self.failed += failed
                self.messages += settled - failed
                for _ in range(settled):
                    each.send(self._bodies, now)
            if len(data) < _READ_BYTES:
                return


def main() -> None:
    """Load, and say what came of it."""
    spec = msgspec.json.decode(sys.argv[1], type=Spec)
    load = _Load(spec)
    try:
        load.open()
        load.run(spec.warmup_s)
        print("begin", flush=True)
        load.messages, load.failed, load.latencies = 0, 0, array("d")
        cpu_s = time.process_time()
        duration_s = load.run(spec.measure_s)
        cpu_s = time.process_time() - cpu_s
    except (ValueError, OSError) as error:
        raise SystemExit(f"the load failed: {error}") from None
    ordered = sorted(load.latencies)
    told = Told(
        messages=load.messages,
        failed=load.failed,
        duration_s=duration_s,
        p50_ms=percentile(ordered, 0.5) * 1e3,
        p99_ms=percentile(ordered, 0.99) * 1e3,
        worst_ms=percentile(ordered, 1.0) * 1e3,
        cpu_s=cpu_s,
    )
    print(msgspec.json.encode(told).decode(), flush=True)


if __name__ == "__main__":
    main()
