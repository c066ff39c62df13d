# flake8: noqa: ASYNC910, ASYNC912, ASYNC913
# A request costs one checkpoint, where its connection waits for it; more would cost 2 µs each.
"""One connection of the lane: a task that reads requests and runs the application on each, in order.

Owns: the order of requests and answers, when the connection goes on and how it ends. Refuses to know: where a request
begins and ends (the parser), what an answer's bytes are (`cycle`, `answer`), what the application does.

Invariants: one request is in work at a time, and its answer is written before the next one begins; the connection
never waits without somebody who looks at it (the lane clock while it reads a head, the application's own deadlines
while it works, the send timeout while it writes); an answer that the client may still have to read is never destroyed
by closing on unread bytes (`_linger`; a client that closes by itself has sent all that it will).

Non-obvious: the request nursery is opened here, before the application runs, because scopes nest; a request that is out
of time leaves the application as `trio.Cancelled`, and is answered outside of that nursery, before the next is opened.
"""

from collections.abc import Awaitable, Callable
from math import inf
from typing import TYPE_CHECKING, Any, TypeAlias

import trio

from collector.ingest.nursery import RearmedNursery
from collector.log import get_logger
from collector.web.asgi_types import Scope
from collector.web.handle import STATE_KEY
from collector.web.lane.answer import plain_answer
from collector.web.lane.cycle import Cycle, Stage
from collector.web.lane.handover import encode_request
from collector.web.lane.linger import IDLE_LINGER_S, LINGER_S, linger
from collector.web.lane.parser import RequestParser
from collector.web.lane.request import Request
from collector.web.lane.tls_transport import TlsTransport
from collector.web.lane.transport import Transport

if TYPE_CHECKING:
    from collector.web.lane.lane import Lane

__all__ = ["Connection"]

log = get_logger("lane")

Address: TypeAlias = tuple[str, int] | None
Next: TypeAlias = Callable[[], Awaitable[None]]


class Connection:
    """One connection; it is also the application's `ConnectionHandle`."""

    __slots__ = (
        "_ahead",
        "_app",
        "_carrier",
        "_client",
        "_cycle",
        "_gone",
        "_interrupted",
        "_lane",
        "_served",
        "_server",
        "asgi_state",
        "at_end",
        "clock",
        "late",
        "parser",
        "transport",
        "waiting_since",
    )

    def __init__(
        self, lane: "Lane", transport: Transport, client: Address, server: Address, state: dict[str, Any]
    ) -> None:
        self._lane = lane
        self._app = lane.app
        self.clock = lane.clock
        self.transport = transport
        self.parser = RequestParser(lane.config.limits, http2=lane.config.http.http2)
        self._client = client
        self._server = server
        self.asgi_state = {**state, STATE_KEY: self}
        self._carrier: RearmedNursery | None = None
        self._cycle: Cycle | None = None
        self._gone: trio.Event | None = None
        self._served = 0
        self._ahead = 0
        self._interrupted = False
        self.at_end = False
        """Nothing more can be read: the client's end has come, or the connection is broken."""
        self.late = False
        """Whoever looks at connections has found this one late, idle, or unwanted."""
        self.waiting_since = self.clock.now
        """Since when it waits for a request, or for the rest of a head; ``inf``: it works."""

    def __repr__(self) -> str:
        state = "gone" if self.at_end else "idle" if self.waiting_since < inf else "at work"
        return f"<Connection {state}, {self._served} requests>"

    @property
    def gone(self) -> trio.Event:
        """As `ConnectionHandle.gone`."""
        if self._gone is None:
            self._gone = trio.Event()
            if self.at_end:
                self._gone.set()
        return self._gone

    def abort(self) -> None:
        """Cut the connection now."""
        self.transport.abort()

    def broken(self) -> None:
        """Note that nothing more can be read or written."""
        self.transport.abort()
        self._note_end()

    def interrupt(self) -> None:
        """End a `read` that waits, if one does."""
        if self.transport.interrupt():
            self._interrupted = True

    @property
    def begun(self) -> bool:
        """The client has begun, and not finished, what has a time of its own: a head, or to shake hands."""
        transport = self.transport
        return self.parser.started or (isinstance(transport, TlsTransport) and transport.begun)

    def let_go(self) -> None:
        """End the connection if it is waiting for a request, or for the rest of a head (which is answered 408).

        A request that has come and was not read yet is served, as the last one.
        """
        if self.waiting_since < inf:
            self.late = True
            self.interrupt()

    def may_go_on(self) -> bool:
        """Whether the server allows another request on this connection."""
        lane = self._lane
        return not (lane.draining or self.late or self.at_end) and self._served < lane.max_requests

    def read_ahead(self) -> bool:
        """Whether there is room to read while a request is in work."""
        parser = self.parser
        return (
            self._ahead < self._lane.config.limits.read_ahead_bytes
            and not parser.held
            and not parser.rest
            and parser.refusal is None
        )

    async def write(self, data: bytes) -> None:
        """Write; a client that is gone is noted, not raised."""
        try:
            if not self.transport.send_now(data):
                await self.transport.send(b"")
        except trio.BrokenResourceError:
            self.broken()

    async def read(self) -> None:
        """Read and parse once; the end is noted."""
        cycle = self._cycle
        ahead = cycle is not None and cycle.request.complete
        try:
            data = await self.transport.receive()
        except trio.BrokenResourceError:
            self._note_end()
        else:
            if ahead:
                self._ahead += len(data)
            self._take(data)

    def _take(self, data: bytes) -> None:
        if data:
            self.parser.feed(data)
        elif self._interrupted:
            self._interrupted = False
        else:
            self._note_end()

    def _note_end(self) -> None:
        if not self.at_end:
            self.at_end = True
            self.parser.at_end()
            if self._gone is not None:
                self._gone.set()

    async def run(self) -> None:
        """Serve the connection until it ends; never raises for it.

        On cancellation: the connection is closed.
        """
        try:
            if await self._shake_hands():
                await self.serve()
        except Exception:  # the rim of one connection: a bug in it must not end the neighbours'
            log.exception("a connection failed")
        finally:
            self.transport.abort()
            self._note_end()
            self.waiting_since = inf

    async def _shake_hands(self) -> bool:
        """Whether the client speaks what it must, in the time that it has for a head."""
        transport = self.transport
        if not isinstance(transport, TlsTransport):
            return True
        with trio.move_on_after(self._lane.config.http.head_timeout_s):
            try:
                await transport.handshake()
            except trio.BrokenResourceError as error:
                log.debug("a client did not shake hands", reason=str(error))
            else:
                self.late = False
                return True
        return False

    async def serve(self) -> None:
        """All requests of the connection, with one request nursery for them until one is out of time."""
        if isinstance(self.transport, TlsTransport) and self.transport.alpn == "h2":
            await self._speak_http2()
            return
        proceed = True
        while proceed:
            after = None
            async with trio.open_nursery() as nursery:
                carrier = self._carrier = RearmedNursery(nursery, self.clock.grid)
                after = await self._serve_requests()
                proceed = False
                if nursery.child_tasks:
                    # A bug, which was logged and answered: what it left must not keep the connection.
                    nursery.cancel_scope.cancel(reason="the connection is over")
            if carrier.unfinished is not None:
                await carrier.unfinished()
            if proceed:
                # Without ``unfinished`` a bug in the tick of the deadline was answered before the cancellation came.
                proceed = self._cycle is None or await self._finish(self._cycle)
            if after is not None:
                await after()

    async def _serve_requests(self) -> Next | None:
        """Request after request; returns how the connection goes on under another protocol, if it does."""
        parser, requests = self.parser, self.parser.requests
        while True:
            if not requests:
                if not await self._wait_for_request():
                    return None
                if parser.prior_knowledge:
                    return self._speak_http2
            request = requests.popleft()
            if request.upgrade is not None:
                self._cycle = Cycle(self, request)
                return self._upgrade
            cycle = self._cycle = Cycle(self, request)
            try:
                await self._app(self._scope(request), cycle.receive, cycle.send)
            except Exception:  # the rim of one request: a bug in the application is one logged error and one 500
                log.exception("a request failed", method=request.method, target=request.target[:200])
            self._served += 1
            if (cycle.stage != Stage.ENDED or not cycle.keep_alive or not request.complete) and not await self._finish(
                cycle
            ):
                return None
            if requests:
                if len(requests) == 1:
                    self._ahead = 0  # it is the next one's turn, and nothing waits behind that
                # A client that pipelines gives way to the others after each of its requests.
                await trio.lowlevel.checkpoint()

    async def _wait_for_request(self) -> bool:
        """Read until there is a request, or an HTTP/2 preface; False: the connection is over, and all is said."""
        parser = self.parser
        self._cycle = None
        self._ahead = 0
        self.waiting_since = self.clock.now
        if not (self.at_end or self.late or parser.held or parser.refusal is not None):
            # The usual way, with as few steps as it can have: a whole request in one read.
            try:
                data = await self.transport.receive()
            except trio.BrokenResourceError:
                self._note_end()
                return False
            self._take(data)
            if parser.requests:
                self.waiting_since = inf
                return True
        return await self._wait_for_rest()

    async def _wait_for_rest(self) -> bool:
        """As `_wait_for_request`, where that takes more than one read, or has nothing to wait for."""
        parser, requests = self.parser, self.parser.requests
        if parser.held:
            parser.feed(b"")
        in_head = False
        while not requests and not parser.prior_knowledge:
            if parser.refusal is not None:
                await self._refuse(parser.refusal.status, parser.refusal.reason)
                return False
            if self.at_end:
                return False
            if self.late:
                if parser.started:
                    await self._refuse(408, "the request's head did not come to its end in time")
                    return False
                if not self._take_unread():
                    await self._linger(IDLE_LINGER_S)
                    return False
                continue
            if parser.started and not in_head:
                in_head = True
                self.waiting_since = self.clock.now
            await self.read()
        self.waiting_since = inf
        return True

    def _take_unread(self) -> bool:
        """Parse what has come already; whether anything has. Closing on it would reset a client that is in time."""
        try:
            data = self.transport.receive_now()
        except trio.BrokenResourceError:
            data = b""
        if data:
            self.parser.feed(data)
            if self.parser.started:
                self.late = False  # the head has its own time
            return True
        if data is not None:
            self._note_end()
        return False

    def _scope(self, request: Request) -> Scope:
        scope = self._lane.scopes.make(request, self._carrier)
        scope["client"] = self._client
        scope["server"] = self._server
        scope["state"] = self.asgi_state.copy()
        return scope

    async def _finish(self, cycle: Cycle) -> bool:
        """After the application: end the answer where it did not, read the rest of the request; True: go on."""
        if cycle.stage != Stage.ENDED:
            await self._end_unanswered(cycle)
            return False
        if cycle.keep_alive and await self._discard(cycle.request):
            return True
        # Where the client closes by itself there is nothing to wait for.
        if cycle.request.keep_alive or not cycle.request.complete:
            await self._linger()
        return False

    async def _end_unanswered(self, cycle: Cycle) -> None:
        """The application has left without an answer, or in the middle of one."""
        if cycle.stage == Stage.STREAMING:
            # The client must not take what it has for the whole (RFC 9112, 8).
            self.transport.abort()
            return
        cycle.stage = Stage.ENDED  # whatever cuts this short, it is not said twice
        refusal = self.parser.refusal
        if cycle.request.complete:
            await self._refuse(500, "internal error")
        elif refusal is not None:
            await self._refuse(refusal.status, refusal.reason)
        elif self.at_end:
            await self._refuse(400, "the body did not come to its end")
        else:
            await self._refuse(500, "internal error")

    async def _refuse(self, status: int, reason: str) -> None:
        """Say why, and end the connection."""
        self.waiting_since = inf  # nobody is to let it go any more
        await self.write(plain_answer(status, reason, self.clock.date))
        await self._linger()

    async def _discard(self, request: Request) -> bool:
        """Read the rest of a body that nobody wants, within bounds; whether it came to its end."""
        limits = self._lane.config.limits
        until = request.body_bytes + limits.discard_bytes
        with trio.move_on_after(limits.discard_s):
            while not request.complete and not self.at_end and self.parser.refusal is None:
                if request.body_bytes > until:
                    break
                await self.read()
                request.take()
        return request.complete and not self.at_end

    async def _linger(self, within_s: float = LINGER_S) -> None:
        """Close so that the client can read the last answer."""
        self.waiting_since = inf  # nobody is to cut it short
        await linger(self.transport, 0 if self.at_end else self._lane.config.limits.discard_bytes, within_s)

    async def _upgrade(self) -> None:
        """Another protocol begins on this connection: a websocket, or HTTP/2 over cleartext."""
        assert self._cycle is not None
        request, rest = self._cycle.request, self.parser.rest
        if request.upgrade == "websocket":
            await self._lane.websockets.serve(self.transport, request, rest, self._scope(request))
        else:
            await self._lane.serve_stock(self, encode_request(request) + rest)

    async def _speak_http2(self) -> None:
        self.waiting_since = inf
        await self._lane.serve_stock(self, self.parser.rest)
