"""The stock server: Hypercorn's own classes, with their hazards cured. The one module that touches Hypercorn's insides.

Owns: our subclasses of them, and the seam by which Hypercorn starts a connection class of ours. Refuses to know: what
the application does, who listens and who ends it (`web.server`), the lane, which comes in by the same seam.

What Hypercorn 0.18 does by itself, and what is done about it (each is reproduced on the untouched server by
tests/contract):

- It waits for the application to take what it read, for ever: the application parks in ``receive()`` (`web.body`).
- It shields its sends: TCP_USER_TIMEOUT (`web.listeners`), and `Connection.abort`.
- ``read_timeout`` ends its reader but not the connection: it stays unset.
- Its websocket pings sleep on after the connection is gone, and a shutdown waits for them: here a gone connection wakes
  them (`_Context`).
- A connection that its client closed stays until ``keep_alive_timeout``, with its tasks and its socket: its idle task
  is ended here, and not started again (`Connection`).
- It answers a refused websocket handshake, and keeps the connection for ever: `Websocket`.
- A websocket message above the limit is refused, but what follows is kept all the same, without bound; deflated frames
  inflate without bound; and one that sends before we accepted is dropped without a word to the application:
  `Websocket`.
- A client that sends its next request before it has read the last answer, and then goes or does not read: the reader
  waits for the end of an answer that failed or was cut off, for ever: closing ends it (`Connection`).
- An exception in one connection ends the server: the rim in `Connection.run`.
- It accepts any number of connections: `web.connections.ConnectionLimits`.

The seam: `hypercorn.trio.run` starts ``TCPServer`` by its global name, and so its protocols ``WSStream``. `install`
puts functions there that look at the ``Config`` they are given, and start our class only where that says so: other
Hypercorns in this process are not touched.
"""

import inspect
from collections.abc import Awaitable
from dataclasses import replace
from typing import Any, cast

import hypercorn.protocol.h2 as hypercorn_http2
import hypercorn.protocol.h11 as hypercorn_http1
import hypercorn.trio.run as hypercorn_run
import trio
from hypercorn.events import Closed, RawData, Updated
from hypercorn.events import Event as ConnectionEvent
from hypercorn.protocol.events import Body, Data, EndBody, Event, Request, Response, StreamClosed
from hypercorn.protocol.ws_stream import FrameTooLargeError, WSStream
from hypercorn.trio.tcp_server import TCPServer
from wsproto.connection import ConnectionState
from wsproto.events import CloseConnection, Message, Ping
from wsproto.frame_protocol import CloseReason

from collector.log import get_logger
from collector.web.connections import ConnectionLimits
from collector.web.handle import STATE_KEY

__all__ = ["CONNECTION_ATTRIBUTE", "LIMITS_ATTRIBUTE", "Connection", "install", "lane_fits"]

log = get_logger("stock")

#: How long a client may take to answer our close frame before its connection is cut.
CLOSE_WAIT_S = 2.0

#: What a request for a websocket hears that is no handshake.
NO_HANDSHAKE = b"no websocket handshake: Sec-WebSocket-Key and Sec-WebSocket-Version: 13 are needed\n"

#: The attribute of Hypercorn's ``Config`` that has the connection class to start, and the one that has its limits.
CONNECTION_ATTRIBUTE = "collector_connection"
LIMITS_ATTRIBUTE = "collector_limits"


class _Context:
    """Hypercorn's worker context, except that a sleep ends when the connection is gone."""

    def __init__(self, context: Any, connection: "Connection") -> None:
        self._context = context
        self.connection = connection

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)

    async def sleep(self, wait: float) -> None:
        with trio.move_on_after(wait):
            await self.connection.gone.wait()


class Connection(TCPServer):
    """One connection of the stock server; it is also the application's `ConnectionHandle`."""

    def __init__(self, app: Any, config: Any, context: Any, state: Any, stream: Any) -> None:
        self.gone = trio.Event()
        self._reading = trio.CancelScope()
        super().__init__(app, config, cast("Any", _Context(context, self)), {**state, STATE_KEY: self}, stream)
        self._limits: ConnectionLimits = getattr(config, LIMITS_ATTRIBUTE)

    def __repr__(self) -> str:
        return f"<Connection {'gone' if self.gone.is_set() else 'open'}>"

    async def run(self) -> None:  # noqa: ASYNC910  # Hypercorn's shape
        """Serve the connection, if it is not one too many, until it ends; never raises for it.

        On cancellation: the connection is closed.
        """
        if not self._limits.take(self):
            await trio.aclose_forcefully(self.stream)
            return
        try:
            await self.serve()
        finally:
            self._limits.give_back(self)

    async def serve(self) -> None:  # noqa: ASYNC910  # Hypercorn's shape
        """Serve a connection that is counted already; never raises for it.

        On cancellation: the connection is closed.
        """
        try:
            await super().run()
        except Exception:  # the rim of one connection: a bug in Hypercorn's stack must not end the neighbours'
            log.exception("a connection failed")
            self.abort()

    async def _read_data(self) -> None:
        try:
            with self._reading:
                await super()._read_data()
            if self._reading.cancelled_caught:
                await self.protocol.handle(Closed())
        finally:
            self.gone.set()
        await self.idle_task.stop()

    async def protocol_send(self, event: ConnectionEvent) -> None:
        """Send, close, or note that a request has ended: a connection that is gone is not waited on for the next."""
        match event:
            case RawData():
                await self._send_bytes(event.data)
            case Closed():
                await super().protocol_send(event)
                self._reading.cancel(reason="the connection was closed")
            case Updated() if event.idle and self.gone.is_set():
                await trio.lowlevel.checkpoint()
            case _:
                await super().protocol_send(event)

    async def _send_bytes(self, data: bytes) -> None:
        """As Hypercorn's, except that a send that fails ends the reader too, as closing does.

        It may be waiting for the answer to be over before it takes the next request of a pipelining client. Nobody
        would tell it when the answer failed, and it would wait again when it was told of one that was cut off.
        """
        async with self.send_lock:
            try:
                with trio.CancelScope(shield=True):  # Hypercorn's way; TCP_USER_TIMEOUT bounds it
                    await self.stream.send_all(data)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                # The reader tells the application: here that may be cancelled by the deadline of this very answer.
                self._reading.cancel(reason="the client is gone")
                await trio.lowlevel.checkpoint()

    def abort(self) -> None:
        """Cut the connection now: whoever reads or writes it sees it closed, shielded or not."""
        self.stream.socket.close()


class Websocket(WSStream):
    """One websocket of the stock server: bounded, uncompressed, and its application hears of its end."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._too_big = False

    async def handle(self, event: Event) -> None:
        """Take one event of the connection."""
        if isinstance(event, Request):
            # Without the offer there is no compression: Hypercorn would inflate the 64 KiB of one read into 64 MiB
            # before anybody could look at its size.
            headers = [(name, value) for name, value in event.headers if name.lower() != b"sec-websocket-extensions"]
            event = replace(event, headers=headers)
        early = isinstance(event, Body | Data) and not self.closed and not self.handshake.accepted
        await super().handle(event)
        if isinstance(event, Request) and self.closed and self.app_put is None:
            # It answered that this is no handshake, and would keep the connection for ever.
            await self.send(StreamClosed(stream_id=self.stream_id))
        if early and self.app_put is not None:
            await self.app_put({"type": "websocket.disconnect", "code": CloseReason.ABNORMAL_CLOSURE.value})
            await self.send(StreamClosed(stream_id=self.stream_id))

    async def _send_error_response(self, status_code: int) -> None:
        if status_code != 400 or self.app_put is not None:
            await super()._send_error_response(status_code)
            return
        # Source: RFC 6455 section 4.4: the version that is supported stands in the refusal.
        headers = [
            (b"content-type", b"text/plain; charset=utf-8"),
            (b"content-length", str(len(NO_HANDSHAKE)).encode()),
            (b"sec-websocket-version", b"13"),
            (b"connection", b"close"),
        ]
        await self.send(Response(stream_id=self.stream_id, status_code=status_code, headers=headers))
        await self.send(Body(stream_id=self.stream_id, data=NO_HANDSHAKE))
        await self.send(EndBody(stream_id=self.stream_id))

    async def _handle_events(self) -> None:  # noqa: ASYNC910  # Hypercorn's shape
        """As Hypercorn's, except that after a message too big everything is read and dropped, but the answer to
        1009."""
        for event in self.connection.events():
            match event:
                case Message():
                    if not self._too_big:
                        await self._take(event)
                case Ping():
                    await self._send_wsproto_event(event.response())
                case CloseConnection():
                    if self.connection.state == ConnectionState.REMOTE_CLOSING:
                        await self._send_wsproto_event(event.response())
                    await self.send(StreamClosed(stream_id=self.stream_id))

    async def _take(self, event: Message[Any]) -> None:  # noqa: ASYNC910  # Hypercorn's shape
        try:
            self.buffer.extend(event)
        except FrameTooLargeError:
            self._too_big = True
            self.buffer.clear()
            await self._send_wsproto_event(CloseConnection(code=CloseReason.MESSAGE_TOO_BIG))
            self.task_group.spawn(self._cut)
            return
        if event.message_finished:
            assert self.app_put is not None
            await self.app_put(self.buffer.to_message())
            self.buffer.clear()

    async def _cut(self) -> None:
        """Give the client time to read why, then end it."""
        await self.context.sleep(CLOSE_WAIT_S)
        if not self.closed:
            cast("_Context", self.context).connection.abort()


def _make_websocket(app: Any, config: Any, *others: Any) -> WSStream:
    return (Websocket if hasattr(config, CONNECTION_ATTRIBUTE) else WSStream)(app, config, *others)


def _start_connection(app: Any, config: Any, context: Any, state: Any, stream: Any) -> Awaitable[None]:
    kind = getattr(config, CONNECTION_ATTRIBUTE, TCPServer)
    return cast("Awaitable[None]", kind(app, config, context, state, stream).run())


def install() -> None:
    """Put the seam in; idempotent. Raises RuntimeError when this Hypercorn is not the one that it was written for."""
    if vars(hypercorn_run).get("TCPServer") is _start_connection:
        return
    in_place = (
        (hypercorn_run, "TCPServer", TCPServer),
        (hypercorn_http1, "WSStream", WSStream),
        (hypercorn_http2, "WSStream", WSStream),
    )
    methods = (WSStream._handle_events, WSStream._send_wsproto_event, TCPServer._read_data, TCPServer.protocol_send)
    if any(vars(module).get(name) is not kind for module, name, kind in in_place) or not all(map(callable, methods)):
        raise RuntimeError("this version of Hypercorn is not known: its classes are not where they were in 0.18")
    # Module globals of another package, on purpose: there is no other way in, and tests/contract watches over it.
    vars(hypercorn_run)["TCPServer"] = _start_connection
    vars(hypercorn_http1)["WSStream"] = _make_websocket
    vars(hypercorn_http2)["WSStream"] = _make_websocket


def lane_fits() -> bool:
    """Whether Hypercorn starts a connection class as the lane expects: by ``TCPServer``'s name and arguments."""
    arguments = list(inspect.signature(TCPServer.__init__).parameters)
    starts = set(hypercorn_run.worker_serve.__code__.co_names) | set(hypercorn_run.worker_serve.__code__.co_freevars)
    return arguments == ["self", "app", "config", "context", "state", "stream"] and "TCPServer" in starts
