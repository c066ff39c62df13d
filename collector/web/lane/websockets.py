"""All websockets of one server: what they have in common, and when each is pinged.

Owns: the check of the handshake, the list of pings that are due. Refuses to know: frames, sessions, what a look costs
otherwise.

Theory. All are pinged at the same interval, so who was pinged first is due first: an ordered dictionary is the list,
and no connection needs a timer. A ping keeps a proxy from taking a quiet connection for a dead one, and has the kernel
find out who is gone (TCP_USER_TIMEOUT).

Invariant: one look pings a bounded share of them, so ten thousand that are due at once cost no look more than some
milliseconds; each is pinged at the latest half an interval after its time.
"""

import trio

from collector.ingest.nursery import DeadlineGrid
from collector.web.asgi_types import AsgiApp, Scope
from collector.web.lane.answer import AnswerHead
from collector.web.lane.request import Request
from collector.web.lane.transport import Transport
from collector.web.lane.websocket import LaneWebsocket, WebsocketSettings
from collector.web.lane.websocket_protocol import Handshake, HandshakeFault

__all__ = ["Websockets"]

#: What a request for a websocket hears that is no handshake.
NO_HANDSHAKE = b"no websocket handshake: Sec-WebSocket-Key and Sec-WebSocket-Version: 13 are needed (%b)\n"


class Websockets:
    """Those of one server.

    Args:
        app: what serves them.
        grid: where the deadlines of their messages are armed.
        look_s: how often `look` is called.
    """

    def __init__(self, app: AsgiApp, settings: WebsocketSettings, grid: DeadlineGrid | None, *, look_s: float) -> None:
        self._app = app
        self._settings = settings
        self._grid = grid
        self._looks = max(1.0, settings.ping_s / look_s / 2)
        """In half an interval."""
        self._due: dict[LaneWebsocket, float] = {}

    def __repr__(self) -> str:
        return f"<Websockets {len(self._due)} open>"

    async def serve(self, transport: Transport, request: Request, early: bytes, scope: Scope) -> None:
        """Serve one, from its request to its end; then the connection is to be closed.

        Args:
            early: the bytes behind the request.
            scope: that of the request, as for HTTP.

        On cancellation: the connection is to be aborted.
        """
        try:
            handshake = Handshake(
                request.method, request.target.decode("latin-1"), request.headers, self._settings.deflate
            )
        except HandshakeFault as fault:
            await _refuse(transport, str(fault))
            return
        websocket = LaneWebsocket(transport, handshake, early, self._settings, self._grid)
        self._due[websocket] = trio.current_time() + self._settings.ping_s
        try:
            await websocket.run(self._app, scope)
        finally:
            self._due.pop(websocket)

    def look(self, now: float) -> None:
        """Ping who is due at ``now`` (`trio.current_time`). Synchronous, bounded."""
        due: list[LaneWebsocket] = []
        most = len(self._due) / self._looks + 1
        for websocket, at in self._due.items():
            if at > now or len(due) >= most:
                break
            due.append(websocket)
        for websocket in due:
            del self._due[websocket]
            self._due[websocket] = now + self._settings.ping_s
            websocket.ping()


async def _refuse(transport: Transport, reason: str) -> None:  # noqa: ASYNC910  # the connection ends
    body = NO_HANDSHAKE % reason.encode("latin-1", "replace")
    headers = [
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"content-length", b"%d" % len(body)),
        # Source: RFC 6455 section 4.4: the version that is supported stands in the refusal.
        (b"sec-websocket-version", b"13"),
    ]
    head = AnswerHead(400, headers).encode(b"", b"", b"", keep_alive=False, http_1_0=False)
    try:
        await transport.send(head + body)
    except trio.BrokenResourceError:
        pass  # nobody is there to be told
