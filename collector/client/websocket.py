"""The track client over a websocket, on Trio: many messages in work at once, one connection at a time.

Owns: the connection's tasks, reconnecting, back-pressure. Refuses to know: the protocol (`session`).

    [open_websocket_track_client]
     └ connection loop ── connects, waits its pace, connects again
        └[connection] reader · writer · ping

What is submitted is bounded: `WINDOW_BYTES` before the first hello, then what the server gives in credit. Above it
``submit`` waits, in the order of the calls, so that a fast producer is held at the server's speed.
"""

import random
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import cast

import trio
from trio_websocket import (
    ConnectionClosed,
    ConnectionRejected,
    HandshakeError,
    WebSocketConnection,
    wrap_client_stream,
)

from .address import Connect, WebsocketAddress
from .events import ApiName, Event, EventError, api_of, encode_event
from .failures import first, rejection, why
from .outcome import Ack, Refused, RetryDetails, Unreachable
from .pace import pause_s
from .session import OVERHEAD_BYTES, SUBPROTOCOL, ProtocolFault, Session, Ticket, TicketState

__all__ = ["SubmittedMessage", "WebsocketTrackClient", "open_websocket_track_client"]

WINDOW_BYTES = 1024 * 1024
CONNECT_S = 10.0
CLOSE_S = 2.0
QUEUED_MESSAGES = 64
"""Of the server's, between the socket and the session; beyond it TCP holds them back."""

OnRetry = Callable[[RetryDetails], object]


@asynccontextmanager
async def open_websocket_track_client(
    url: str,
    *,
    key: str,
    api: ApiName = "segment",
    deadline_ms: int | None = None,
    on_retry: OnRetry | None = None,
    connect: Connect | None = None,
    rng: random.Random | None = None,
) -> AsyncIterator["WebsocketTrackClient"]:
    """A client whose connection is kept up until the block ends; a normal end flushes first, under the caller's scope.

    Args:
        url: the whole websocket URL, ``ws://host:port/v1/ws``.
        key: the write key (Segment) or app id (Heap).
        api: the dialect of the events.
        deadline_ms: how long the server may take for each message; None leaves it to the server.
        on_retry: called with `RetryDetails` before each wait; synchronous.
        connect: another way to the server, such as one end of `trio.testing.memory_stream_pair` in a test; called
            for each connection, raises OSError where there is none.
        rng: where the jitter comes from.

    Raises:
        Unreachable: ``url`` is no websocket address, or something else answers there.

    On cancellation: the connection is closed; messages without an answer may be in the log.
    """
    session = Session(api=api_of(api), key=key, deadline_ms=deadline_ms)
    client = WebsocketTrackClient(url, session, api=api, on_retry=on_retry, connect=connect, rng=rng)
    sole: BaseException | None = None
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client._run, name="track client: connection")
            yield client
            await client.flush()
            await client._say_goodbye()
            nursery.cancel_scope.cancel(reason="the track client closes")
    except BaseExceptionGroup as group:
        if len(group.exceptions) != 1:
            raise
        (sole,) = group.exceptions
    if sole is not None:
        raise sole


class SubmittedMessage:
    """A message on its way; `wait` gives the collector's final word on it."""

    def __init__(self, client: "WebsocketTrackClient", ticket: Ticket) -> None:
        self._client = client
        self._ticket = ticket
        self._settled = trio.Event()
        ticket.on_settled = self._settled.set

    async def wait(self) -> Ack:
        """Wait for the final word; may be called again.

        Raises:
            Unreachable: the address turned out to be wrong.

        On cancellation: ends the waiting and nothing else; `withdraw` takes the message back if it was not sent.
        """
        await self._settled.wait()
        if self._ticket.ack is None:
            raise Unreachable(str(self._client.failure)) from self._client.failure
        return self._ticket.ack

    @property
    def ack(self) -> Ack | None:
        """The final word, or None while there is none."""
        return self._ticket.ack

    @property
    def may_be_sent(self) -> bool:
        """Whether the events may be in the log although there is no final word yet."""
        return self._ticket.ack is None and (self._ticket.again or self._ticket.state is TicketState.IN_FLIGHT)

    def withdraw(self) -> bool:
        """Take the message back where it has not been sent; False where it is too late."""
        return self._client.session.withdraw(self._ticket)

    def __repr__(self) -> str:
        return f"<SubmittedMessage {self._ticket.state.value}, {self._ticket.events} events>"


class WebsocketTrackClient:
    """Sends events over one websocket; open it with `open_websocket_track_client`. Several tasks may use one."""

    def __init__(
        self,
        url: str,
        session: Session,
        *,
        api: ApiName,
        on_retry: OnRetry | None,
        connect: Connect | None,
        rng: random.Random | None,
    ) -> None:
        self._url = url
        self._api = api_of(api)
        self.session = session
        self._address = WebsocketAddress.parse(url)
        self._connect: Connect = connect if connect is not None else self._address.connect
        self.failure: Unreachable | None = None
        self.connections_opened_total = 0
        self._on_retry = on_retry
        self._rng = rng if rng is not None else random.Random()
        self._order = trio.Lock()
        self._changed = trio.Event()
        self._closing = trio.Event()
        self._closed = trio.Event()
        self._window_bytes = WINDOW_BYTES

    async def track(self, event: Event) -> Ack:
        """Send one event; returns once it is in Kafka or on the collector's disk.

        Raises:
            EventError: it is not a JSON object of this dialect; nothing was sent.
            Refused: the collector will never take it.
            Unreachable: something else answers at this address.

        On cancellation: the event is taken back if it was not sent; else its outcome is lost.
        """
        return await self._tracked(await self.submit(event))

    async def batch(self, events: Sequence[Event]) -> Ack:
        """Send many events as one message of the dialect's batch form; raises and on cancellation: as `track`.

        A bad event among good ones goes to the collector's bad topic: the ack is ``rejected`` with ``counts``, and is
        raised as `Refused` only if none was accepted.
        """
        return await self._tracked(await self.submit_batch(events))

    async def submit(self, event: Event) -> SubmittedMessage:
        """Queue one event and return at once, as soon as there is room in the window; order is kept.

        On cancellation: nothing was queued.
        """
        return await self._submit(encode_event(event, self._api), 1)

    async def submit_batch(self, events: Sequence[Event]) -> SubmittedMessage:
        """Queue one batch; as `submit`."""
        encoded = []
        for position, event in enumerate(events):
            try:
                encoded.append(encode_event(event, self._api))
            except EventError as error:
                raise EventError(f"event {position}: {error}") from error
        return await self._submit(self._api.message_body(encoded), len(encoded))

    async def flush(self) -> None:
        """Wait until every submitted message has its final word. On cancellation: ends the waiting and nothing else.

        Raises:
            Unreachable: the address turned out to be wrong.
        """
        await trio.lowlevel.checkpoint()
        while self.session.unsettled:
            self._raise_failure()
            await self._wait_changed()
        self._raise_failure()

    def __repr__(self) -> str:
        return f"<WebsocketTrackClient {self._url} {self._api.name}: {self.session!r}>"

    # Submitting

    async def _submit(self, body: bytes, events: int) -> SubmittedMessage:
        async with self._order:
            await trio.lowlevel.checkpoint()
            while (
                self.session.unsettled
                and self.session.unsettled_bytes + len(body) + OVERHEAD_BYTES > self._window_bytes
            ):
                self._raise_failure()
                await self._wait_changed()
            self._raise_failure()
            message = SubmittedMessage(self, self.session.submit(body, events))
            self._change()
            return message

    async def _tracked(self, message: SubmittedMessage) -> Ack:
        try:
            ack = await message.wait()
        finally:
            message.withdraw()
        if ack.status == "rejected" and not any(ack.counts.get(word) for word in ("delivered", "spooled")):
            raise Refused(ack.code or "rejected", ack.message or "")
        return ack

    def _raise_failure(self) -> None:
        if self.failure is not None:
            raise Unreachable(str(self.failure)) from self.failure

    # The connection

    async def _run(self) -> None:
        attempt = 0
        while True:
            opened = self.connections_opened_total
            asked: float | None = None
            try:
                await self._connection()
                reason = "the server drains"
            except Unreachable as error:
                self.session.lost()
                self._fail(error)
                await trio.lowlevel.checkpoint()
                return
            except ProtocolFault as error:
                reason = f"the server broke the protocol: {error}"
            except ConnectionClosed as error:
                reason = f"the connection was closed: {why(error)}"
            except (HandshakeError, OSError) as error:
                reason = f"no connection: {error.__cause__ or error or type(error).__name__}"
            if self._closing.is_set():
                self._closed.set()
                await trio.lowlevel.checkpoint()
                return
            if self.session.draining_s is not None:
                asked = self.session.draining_s
            attempt = 1 if self.connections_opened_total > opened else attempt + 1
            events = sum(ticket.events for ticket in (*self.session.pending, *self.session.in_flight.values()))
            unknown = sum(ticket.events for ticket in self.session.in_flight.values())
            self.session.lost()
            wait = pause_s(attempt, asked, self._rng)
            if self._on_retry is not None:
                self._on_retry(
                    RetryDetails(attempt=attempt, reason=reason, wait_s=wait, events=events, unknown=unknown)
                )
            await trio.sleep(wait)

    async def _connection(self) -> None:
        """One connection, until it ends; returns when the server drains and everything sent has been answered."""
        ended: BaseException | None = None
        try:
            async with self._open_socket() as socket:
                await self._greet(socket)
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._write, socket, name="track client: writer")
                    nursery.start_soon(self._ping, socket, name="track client: ping")
                    nursery.start_soon(self._close, nursery.cancel_scope, name="track client: close")
                    await self._read(socket)
                    nursery.cancel_scope.cancel(reason="the server drains")
        except* ConnectionRejected as group:
            ended = rejection(self._url, first(group))
        except* (ConnectionClosed, HandshakeError, OSError, ProtocolFault) as group:
            ended = ended or first(group)
        # Outside of except*, which would put it into a group again.
        if ended is not None:
            raise ended
        await trio.lowlevel.checkpoint()

    @asynccontextmanager
    async def _open_socket(self) -> AsyncIterator[WebSocketConnection]:
        """Connect and shake hands, each within `CONNECT_S`; the stream is ours and closed in any case.

        trio-websocket's own way to connect leaves the socket of a refused handshake to the garbage collector.
        """
        stream: trio.abc.Stream | None = None
        socket: WebSocketConnection | None = None
        with trio.move_on_after(CONNECT_S):
            stream = await self._connect()
        if stream is None:
            raise OSError(f"no connection within {CONNECT_S:g} s")
        async with stream, trio.open_nursery() as nursery:
            with trio.move_on_after(CONNECT_S):
                socket = await wrap_client_stream(
                    nursery,
                    cast("trio.SocketStream", stream),
                    self._address.host,
                    self._address.path,
                    subprotocols=[SUBPROTOCOL],
                    message_queue_size=QUEUED_MESSAGES,
                )
            if socket is None:
                raise OSError(f"no websocket within {CONNECT_S:g} s")
            yield socket
            # After an exception the stream is closed without a goodbye.
            with trio.move_on_after(CLOSE_S):
                await socket.aclose()

    async def _greet(self, socket: WebSocketConnection) -> None:
        with trio.move_on_after(CONNECT_S):
            self.session.receive(await socket.get_message())
        if self.session.hello is None:
            raise ProtocolFault(f"no hello within {CONNECT_S:g} s")
        self.connections_opened_total += 1
        self._window_bytes = max(self.session.hello.credit, 1)
        self._change()

    async def _read(self, socket: WebSocketConnection) -> None:
        while self.session.draining_s is None or self.session.in_flight:
            self.session.receive(await socket.get_message())
            # Acks make room in the window, credit lets the writer go on.
            self._change()
        await trio.lowlevel.checkpoint()

    async def _write(self, socket: WebSocketConnection) -> None:
        braked_at = 0
        while True:
            if self.session.refusals > braked_at:
                # The server is overloaded or out of time: everything waits, not only what was refused.
                await trio.sleep(pause_s(self.session.refusals, None, self._rng))
            braked_at = self.session.refusals
            settled = self.session.settled_total
            frame = self.session.next_frame()
            if self.session.settled_total != settled:
                self._change()
            if frame is None:
                await self._wait_changed()
            else:
                await socket.send_message(frame)

    async def _ping(self, socket: WebSocketConnection) -> None:
        """A server that does not answer a ping within the interval it announced is gone, whatever TCP thinks."""
        while True:
            interval = self.session.hello.ping_s if self.session.hello is not None else CONNECT_S
            await trio.sleep(interval)
            answered = False
            with trio.move_on_after(interval):
                await socket.ping()
                answered = True
            if not answered:
                raise ProtocolFault(f"no pong within {interval:g} s")

    async def _close(self, connection: trio.CancelScope) -> None:
        await self._closing.wait()
        connection.cancel(reason="the track client closes")

    async def _say_goodbye(self) -> None:
        """Have the connection close as the protocol wants it, where there is one."""
        self._closing.set()
        if self.session.hello is not None:
            with trio.move_on_after(CLOSE_S):
                await self._closed.wait()
        await trio.lowlevel.checkpoint()

    def _fail(self, error: Unreachable) -> None:
        self.failure = error
        for ticket in self.session.pending:
            if ticket.on_settled is not None:
                ticket.on_settled()
        self._change()

    # Changes

    def _change(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    async def _wait_changed(self) -> None:
        await self._changed.wait()
