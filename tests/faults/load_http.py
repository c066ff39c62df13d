"""Clients over HTTP: a pool of connections, one request each at a time.

Owns: connections, and what an answer says of its request. Refuses to know: when requests leave.

Invariant: a request is written once; whatever becomes of it, its entry is put into the log once.

Non-obvious: a connection that the other side has closed while it lay idle is not used again, as browsers and SDKs
behave too; what is left is the race in which the close crosses the request.
"""

import json
import select
import time
from collections import deque
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

import trio

from collector.devtools.raw_http import HttpConnection, NoAnswer, Reply, open_http
from tests.faults.entries import Entry
from tests.faults.load import PATIENCE_S, Log, track_body

__all__ = ["Clients", "note_reply"]

KEY = "faults"


@dataclass(slots=True, eq=False)
class _Client:
    stack: AsyncExitStack
    http: HttpConnection
    look: "select.poll" = field(default_factory=select.poll)

    def __post_init__(self) -> None:
        self.look.register(self.http.stream.socket.fileno(), select.POLLIN)

    @property
    def closed(self) -> bool:
        """Whether the other side has said its last word (or one that nobody asked for)."""
        return bool(self.look.poll(0))


class Clients:
    """The pool. The one that waited longest is next, so that all of them are in use."""

    def __init__(self, log: Log, nursery: trio.Nursery) -> None:
        # The load's own nursery: a request is a task that outlives the call that fires it.
        self._log = log
        self._nursery = nursery
        self._idle: deque[_Client] = deque()

    async def open(self, count: int) -> None:
        """Have so many connections before the first request."""
        await trio.lowlevel.checkpoint()
        for _ in range(count):
            self._idle.append(await self._connect())

    def fire_single(self) -> None:
        """One event, one request."""
        entry = self._log.new(1)
        self._fire(entry, "/v1/track", {"writeKey": KEY, **track_body(self._log.spec, entry)})

    def fire_batch(self) -> None:
        """Several events in one request."""
        spec = self._log.spec
        entry = self._log.new(spec.batch_events)
        events = [track_body(spec, entry, position) for position in range(spec.batch_events)]
        self._fire(entry, "/v1/batch", {"writeKey": KEY, "batch": events})

    def _fire(self, entry: Entry, path: str, body: object) -> None:
        self._nursery.start_soon(self._request, entry, path, json.dumps(body).encode())

    async def one_after_the_other(self) -> None:
        """One client that waits for each answer before it sends again."""
        await trio.lowlevel.checkpoint()
        while not self._log.stopping.is_set():
            entry = self._log.new(1)
            body = {"writeKey": KEY, **track_body(self._log.spec, entry)}
            await self._request(entry, "/v1/track", json.dumps(body).encode())

    async def _connect(self) -> _Client:
        async with AsyncExitStack() as stack:
            http = await stack.enter_async_context(open_http(self._log.spec.address))
            return _Client(stack.pop_all(), http)

    async def _request(self, entry: Entry, path: str, body: bytes) -> None:
        """Send one request on a connection that is free, or on a new one."""
        entry.sent_at = time.monotonic()
        entry.whole = False
        client: _Client | None = None
        reusable = False
        try:
            with trio.move_on_after(PATIENCE_S):
                entry.connected = False
                client = await self._free()
                entry.connected = True
                reply = await _exchange(client.http, f"{self._log.spec.run}-{entry.number}", path, body, entry)
                note_reply(entry, reply)
                reusable = reply.headers.get("connection", "").lower() != "close"
        except (OSError, NoAnswer):
            await trio.sleep(0.01)  # who is refused at once does not come back at once
        finally:
            self._log.put(entry)
            if client is not None and reusable:
                self._idle.append(client)
            elif client is not None:
                with trio.CancelScope(shield=True):  # closing a plain socket does not wait
                    await client.stack.aclose()

    async def _free(self) -> _Client:
        await trio.lowlevel.checkpoint()
        while self._idle:
            client = self._idle.popleft()
            if not client.closed:
                return client
            await client.stack.aclose()
        return await self._connect()


async def _exchange(http: HttpConnection, request_id: str, path: str, body: bytes, entry: Entry) -> Reply:
    head = f"POST {path} HTTP/1.1\r\nHost: {http.host}\r\nX-Request-Id: {request_id}\r\n"
    try:
        await http.stream.send_all(head.encode() + b"Content-Length: %d\r\n\r\n" % len(body) + body)
        entry.whole = True
    except trio.BrokenResourceError:
        pass  # who closes early may have answered before
    entry.sent_at = time.monotonic()
    return await http.read_reply()


def note_reply(entry: Entry, reply: Reply) -> None:
    """Write into the entry what an answer says."""
    entry.answered_at = time.monotonic()
    entry.status = reply.status
    said = reply.headers.get("x-collector-outcome")
    if said is None:
        return
    counts = dict(part.strip().split("=") for part in said.split(","))
    entry.counted = True
    entry.delivered = int(counts["delivered"]) + int(counts["spooled"])
    entry.unknown = positions(reply.headers.get("x-collector-unknown", ""))


def positions(text: str) -> tuple[int, ...]:
    """``3,17-20`` → 3, 17, 18, 19, 20.

    Raises:
        ValueError: it was cut off: our batches are too short for that.
    """
    found: list[int] = []
    for part in filter(None, text.split(",")):
        first, _, last = part.partition("-")
        found += range(int(first), int(last or first) + 1)
    return tuple(found)
