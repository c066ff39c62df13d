"""One connection to one broker: requests out, answers back in the same order.

Owns: the stream, the one task that reads it, and what ends them. Refuses to know: batches, retries, and which requests
exist.

Invariants:

- A request has its place in the FIFO before its first byte is written.
- A waiter that is cancelled leaves its expectation where it is; the answer is taken and thrown away. Nothing that a
  caller does shifts the answers of others.
- Once lost, always lost: the first reason is kept, every later call raises it, and `open_connection`'s block
  is left with it.

Non-obvious:

- While the connection re-authenticates (`kafka_client.network.reauthenticate`) requests are held back: between
  SaslHandshake and the last SaslAuthenticate a broker closes on anything else. Answers to earlier requests still come.
- A write that is cut short by a cancellation or an error has destroyed the framing: the connection is lost. So writes
  belong to tasks of the connection's owner, never to a caller with a deadline; `exchange` writes from the connection's
  own nursery.
- Silence, not slowness, ends a connection: the clock runs from the last byte received or, if that is later, from when
  the oldest unanswered request was written. A broker works on one request of a connection at a time, so the fifth of
  five may rightly be answered after five times as long; and an answer that trickles in is not silence.
- There is no timer for each request. The reading scope's deadline may be *early* (it stays where it is while answers
  come), never late; when it fires, the reader looks at the oldest request and goes on if that has time left.
"""

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from copy import copy

import trio

from kafka_client.config import Connector, ProducerConfig
from kafka_client.errors import ConnectionLost, ProtocolError
from kafka_client.wire.frames import API_NAMES, FrameSplitter
from kafka_client.wire.primitives import Buffer

from .establish import READ_BYTES, Established, chained, establish, explain_broken
from .expected import ExpectedAnswers, OnResponse, Request
from .message import Message, RequestT, ResponseT, VersionWindow
from .plainly import raise_plainly
from .reauthenticate import keep_authenticated
from .statistics import ConnectionStatistics
from .steps import Step
from .tls import tls_refusal
from .waiter import Waiter

__all__ = ["Connection", "ConnectionStatistics", "Message", "OnResponse", "VersionWindow", "open_connection"]


class Connection:
    """Made by `open_connection`. One task at a time may `write`; any number may `exchange`."""

    def __init__(
        self,
        nursery: trio.Nursery,
        *,
        address: str,
        established: Established,
        config: ProducerConfig,
    ) -> None:
        self.versions = established.versions
        self.address = address
        self.session = established.session
        """What the broker is convinced of; None without SASL."""
        self.warning = established.warning
        """What an operator should mend although it works; empty if nothing."""
        self.reauthentications_total = 0
        self._stream = established.stream
        # The nursery that `open_connection` holds open around its block: `exchange` writes in it, `lose` cancels it.
        self._nursery = nursery
        self._config = config
        self._splitter = FrameSplitter(config.response_max_bytes)
        self._expected = ExpectedAnswers(config.client_id)
        self._waiters: set[Waiter] = set()
        self._lost: ConnectionLost | None = None
        self._reading = trio.CancelScope()
        self._writing = trio.StrictFIFOLock()
        self._resumed: trio.Event | None = None
        self._in_write = False
        self._requests_total = 0
        self._responses_total = 0
        self._sent_bytes_total = 0
        self._received_bytes_total = 0

    def __repr__(self) -> str:
        state = "open" if self._lost is None else f"lost: {self._lost}"
        return f"<Connection {self.address} {state}, {len(self._expected)} in flight>"

    @property
    def is_open(self) -> bool:
        """False once the connection is lost. While True, `write` enters ``send_all`` without a checkpoint before it,
        unless an `exchange` is being written at that moment, or requests are held back."""
        return self._lost is None

    @property
    def holds_back(self) -> bool:
        """Whether requests wait for the connection to re-authenticate; who can wait before making one, should."""
        return self._resumed is not None

    async def wait_resumed(self) -> None:
        """Wait until no request is held back. On cancellation: nothing happens."""
        await trio.lowlevel.checkpoint()
        while self._resumed is not None:
            await self._resumed.wait()

    @property
    def closed_reason(self) -> ConnectionLost | None:
        """Why the connection ended; None while it is open."""
        return self._lost

    @property
    def writes_entered_total(self) -> int:
        """How often ``send_all`` was entered: a sealed batch may be un-sealed only if its write is not among them."""
        return self._requests_total

    @property
    def in_flight(self) -> int:
        """Requests without an answer."""
        return len(self._expected)

    def statistics(self) -> ConnectionStatistics:
        return ConnectionStatistics(
            address=self.address,
            in_flight=len(self._expected),
            oldest_request_age_s=self._expected.oldest_age_s(trio.current_time()),
            requests_total=self._requests_total,
            responses_total=self._responses_total,
            sent_bytes_total=self._sent_bytes_total,
            received_bytes_total=self._received_bytes_total,
            reauthentications_total=self.reauthentications_total,
        )

    def version_of(self, message: VersionWindow, *, at_most: int | None = None) -> int:
        """The highest version of ``message`` that both sides speak, no higher than ``at_most``.

        Raises:
            ProtocolError: naming both ranges, if there is none.
        """
        highest = message.MAX_VERSION if at_most is None else min(at_most, message.MAX_VERSION)
        theirs = self.versions.get(message.API_KEY)
        name = API_NAMES[message.API_KEY]
        if theirs is None:
            raise ProtocolError(f"{self.address} does not speak {name}")
        version = min(highest, theirs[1])
        if version < max(message.MIN_VERSION, theirs[0]):
            ours = f"{message.MIN_VERSION}–{highest}"
            raise ProtocolError(f"{self.address} speaks {name} {theirs[0]}–{theirs[1]}, we speak {ours}")
        return version

    async def write(
        self,
        api_key: int,
        version: int,
        body: bytes | Sequence[Buffer],
        on_response: OnResponse,
        *,
        timeout_s: float | None = None,
    ) -> None:
        """Write one request; ``on_response`` is called with the body of its answer, by the reader, in order.

        Args:
            body: may come in parts, which are copied once.
            on_response: synchronous. A `ProtocolError` out of it ends the connection; anything else is a bug and
                leaves `open_connection`'s block. It is not called when the connection ends first.
            timeout_s: how long silence may last while this is the oldest request; None takes ``request_timeout_s``.

        Raises:
            ConnectionLost: the connection is or becomes lost; `writes_entered_total` tells whether bytes may have left.
            trio.BusyResourceError: another task is in `write`.

        On cancellation: the connection is lost, since part of the request may have been written.
        """
        if self._in_write:
            raise trio.BusyResourceError(f"another task writes to {self.address}")
        self._in_write = True
        try:
            await self._send(Request(api_key, version, body, on_response, self._allowed_s(timeout_s)))
        finally:
            self._in_write = False

    async def exchange(
        self,
        message: Message[RequestT, ResponseT],
        request: RequestT,
        *,
        version: int | None = None,
        timeout_s: float | None = None,
    ) -> ResponseT:
        """Ask and wait for the answer; ``version`` None takes the highest common one.

        Raises:
            ConnectionLost: the connection is or becomes lost.
            ProtocolError: no common version, or an answer that does not decode; the latter ends the connection.

        On cancellation: the request goes out all the same, its answer is thrown away, the connection stays usable.
        """
        if version is None:
            version = self.version_of(message)
        body = message.encode_request(request, version)
        self.raise_if_lost()
        with self._waiting() as waiter:
            asked = Request(message.API_KEY, version, body, waiter.take, self._allowed_s(timeout_s))
            self._nursery.start_soon(self._send_for_waiter, asked, name=f"write to {self.address}")
            answer = await self._wait_answer(waiter)
        try:
            return message.decode_response(answer, version)
        except ProtocolError as error:
            broken = ProtocolError(f"{self.address}: {API_NAMES[message.API_KEY]} v{version}: {error}")
            self.lose(broken)
            raise broken from error

    @contextmanager
    def _waiting(self) -> Iterator[Waiter]:
        waiter = Waiter()
        self._waiters.add(waiter)
        try:
            yield waiter
        finally:
            self._waiters.discard(waiter)

    async def _wait_answer(self, waiter: Waiter) -> memoryview:
        await waiter.done.wait()
        if waiter.body is None:
            lost = self.lose(ConnectionLost(f"{self.address} did not answer"))
            raise lost from lost.__cause__
        return waiter.body

    @asynccontextmanager
    async def hold_back(self) -> AsyncIterator[None]:
        """Let nothing but `ask_held` be written while the block lasts. On cancellation: it lets go."""
        self._resumed = trio.Event()
        try:
            async with self._writing:
                yield
        finally:
            self._resumed.set()
            self._resumed = None

    async def ask_held(self, step: Step) -> memoryview:
        """Ask within `hold_back` and return the answer's body.

        Raises:
            ConnectionLost: the connection is or becomes lost.

        On cancellation: the connection is lost.
        """
        with self._waiting() as waiter:
            await self._send_held(Request(step.api_key, step.version, step.body, waiter.take, self._allowed_s(None)))
            return await self._wait_answer(waiter)

    def _allowed_s(self, timeout_s: float | None) -> float:
        return self._config.request_timeout_s if timeout_s is None else timeout_s

    async def _send_for_waiter(self, request: Request) -> None:
        try:
            await self._send(request)
        except ConnectionLost:
            return  # noqa: ASYNC910  # the loss has woken the waiter, and the block is left with it

    async def _send(self, request: Request) -> None:
        try:
            self._writing.acquire_nowait()
        except trio.WouldBlock:
            await self._writing.acquire()
        try:
            await self._send_held(request)
        finally:
            self._writing.release()

    async def _send_held(self, request: Request) -> None:
        """Write, by whoever holds the lock."""
        self.raise_if_lost()
        # The last synchronous act before send_all: from here on the request may be on its way.
        frame = self._expected.register(request, trio.current_time())
        silent_until = self._expected.silent_until()
        if silent_until < self._reading.deadline:
            self._reading.deadline = silent_until
        self._requests_total += 1
        self._sent_bytes_total += len(frame)
        sent = False
        try:
            await self._stream.send_all(frame)
            sent = True
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            lost = self.lose(self._broken(error))
            raise lost from lost.__cause__
        finally:
            if not sent:
                self.lose(ConnectionLost(f"a write to {self.address} was cut short"))
        self.raise_if_lost()

    async def read_loop(self) -> None:
        """Take answers until the connection is lost. `open_connection` runs this, nobody else."""
        expected = self._expected
        while True:
            self._reading = trio.CancelScope(deadline=expected.silent_until())
            with self._reading:
                await self._read_until_lost()
            oldest = expected.oldest
            if oldest is not None and trio.current_time() >= expected.silent_until():
                name = API_NAMES[oldest.api_key]
                self.lose(ConnectionLost(f"no answer to {name} for {oldest.timeout_s:g} s from {self.address}"))
            if self._lost is not None:
                return

    async def _read_until_lost(self) -> None:
        while True:  # noqa: ASYNC913  # receive_some is a checkpoint, also where it raises
            try:
                data = await self._stream.receive_some(READ_BYTES)
            except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
                await self._ended(self._broken(error))
                return
            if not data:
                await self._ended(ConnectionLost(f"{self.address} closed the connection{self._hint()}"))
                return
            self._received_bytes_total += len(data)
            self._expected.heard(trio.current_time())
            try:
                for frame in self._splitter.feed(data):
                    self._expected.take(frame)
                    self._responses_total += 1
            except ProtocolError as error:
                self.lose(chained(ProtocolError(f"{self.address}: {error}"), error))
                return  # noqa: ASYNC910

    async def _ended(self, reason: ConnectionLost) -> None:  # noqa: ASYNC910  # the reader's read was one
        """The peer ended it. What it said before may tell why, and is to be looked at first by who re-authenticates."""
        if self.holds_back:
            await trio.lowlevel.checkpoint()
        self.lose(reason)

    def _hint(self) -> str:
        if self._responses_total or not len(self._expected) or self.session is not None:
            return ""
        return " on our first request; does the listener want SASL (security.protocol, sasl_mechanism)?"

    def _broken(self, error: Exception) -> ConnectionLost:
        refusal = tls_refusal(error, self.address)
        return chained(
            refusal or ConnectionLost(f"lost the connection to {self.address}: {explain_broken(error)}"), error
        )

    def lose(self, reason: ConnectionLost) -> ConnectionLost:
        """End the connection for ``reason``, unless it has ended; return what to raise."""
        if self._lost is None:
            self._lost = reason
            for waiter in self._waiters:
                waiter.done.set()
            self._nursery.cancel_scope.cancel(reason=str(reason))
        # A new one for each caller: a shared exception would gather the tracebacks of all of them.
        return chained(copy(self._lost), self._lost.__cause__)

    def raise_if_lost(self) -> None:
        """Raise why the connection ended, if it did."""
        if self._lost is not None:
            lost = self.lose(self._lost)
            raise lost from lost.__cause__

    def finish(self) -> None:
        """Close from our side; `open_connection` calls this when its block is left."""
        self.lose(ConnectionLost(f"the connection to {self.address} was closed by us"))


@asynccontextmanager
async def open_connection(
    host: str, port: int, *, config: ProducerConfig, connector: Connector | None = None
) -> AsyncIterator[Connection]:
    """Connect to a broker, shake hands and read its answers while the block lasts.

    Args:
        connector: makes the byte stream; None makes a TCP connection. TLS goes on top where configured.

    Raises:
        ConnectionLost: it could not be established, or it ended while the block was running: the block is then
            cancelled and left with this, not grouped, its cause chained.

    On cancellation: the connection is closed; what was in flight on it stays unknown.
    """
    established = await establish(host, port, config, connector)
    completed = False
    try:
        async with trio.open_nursery() as nursery:
            connection = Connection(nursery, address=f"{host}:{port}", established=established, config=config)
            nursery.start_soon(connection.read_loop, name=f"read from {host}:{port}")
            if connection.session is not None:
                nursery.start_soon(keep_authenticated, connection, config, name=f"authenticate to {host}:{port}")
            try:
                yield connection
                completed = True
            finally:
                connection.finish()
    except BaseExceptionGroup as group:
        raise_plainly(group)
    finally:
        await trio.aclose_forcefully(established.stream)
    if not completed:
        # The reader cancelled the block, and its nursery took the cancellation in.
        connection.raise_if_lost()
