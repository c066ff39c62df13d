"""A TCP proxy between a client and brokers that fails as networks do, on command.

Owns: a listening port for each broker, the connections through it, and the faults: refused, reset, held (a black hole),
answers late or byte by byte, connections cut after so many bytes. Refuses to know: Kafka's protocol; it forwards bytes.

Use: ``open_producer(config, connector=proxy.connector)``. The client goes on calling the brokers by their own
addresses, so nothing has to be advertised.

Invariant: bytes of one direction of a connection leave in the order in which they came, each once; what a fault holds
back is forwarded when the fault is over, if the connection still exists then.

Non-obvious: a *held* link neither reads nor writes nor accepts. The kernel still completes handshakes into the backlog
and acknowledges what fits its buffers: what a stopped process looks like, and as near to a black hole as one gets
without a firewall.
"""

import socket
import struct
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Literal, TypeAlias

import trio

__all__ = ["Direction", "Link", "Proxy", "open_proxy"]

Direction: TypeAlias = Literal["requests", "answers"]

READ_BYTES = 64 * 1024
#: Chunks of one direction that may wait for their time; then the proxy reads no more, and the sender feels it.
WAITING_CHUNKS = 256


class Link:
    """The way to one broker. Faults are set and taken back at any time; they concern open connections too."""

    def __init__(self, address: str, listener: trio.SocketListener, refusing: socket.socket) -> None:
        self.address = address
        """The broker's own, ``host:port``."""
        self.answer_delay_s = 0.0
        """Every answer comes so much later; the order and the number in flight stay as they are."""
        self.dribble_s: float | None = None
        """Answers leave byte by byte with this pause between; None: whole."""
        self.connections_total = 0
        self.cut_total = 0
        """Connections that this link has reset or cut."""
        self.forwarded_bytes: dict[Direction, int] = {"requests": 0, "answers": 0}
        self._cuts: dict[Direction, Iterator[int] | None] = {"requests": None, "answers": None}
        self._left: dict[Direction, int] = {"requests": 0, "answers": 0}
        self._listener = listener
        self._refusing = refusing
        self._refused = False
        self._go = trio.Event()
        self._go.set()
        self._open: dict[trio.CancelScope, tuple[trio.SocketStream, trio.SocketStream]] = {}

    def __repr__(self) -> str:
        state = "refused" if self._refused else "held" if not self._go.is_set() else "open"
        return f"<Link to {self.address} {state}, {len(self._open)} connections>"

    @property
    def port(self) -> int:
        """Where a client gets through now; while the link is refused, a port where nobody listens."""
        bound = self._refusing if self._refused else self._listener.socket
        return int(bound.getsockname()[1])

    def refuse(self) -> None:
        """A partition that answers: open connections are reset, new ones refused."""
        self._refused = True
        self.reset()

    def hold(self) -> None:
        """A black hole: nothing is read, written or accepted."""
        if self._go.is_set():
            self._go = trio.Event()

    def restore(self) -> None:
        """Take every fault back; bytes that were held go on."""
        self._refused = False
        self.answer_delay_s = 0.0
        self.dribble_s = None
        self._cuts = {"requests": None, "answers": None}
        self._go.set()

    def reset(self) -> None:
        """Reset every open connection, in both directions."""
        for scope, streams in list(self._open.items()):
            for stream in streams:
                _linger_not(stream)
            scope.cancel(reason="the proxy resets the connection")
            self.cut_total += 1

    def cut_after(self, direction: Direction, lengths: Iterator[int]) -> None:
        """Cut whichever connection carries the last of the next ``lengths`` bytes, then count the following length."""
        self._cuts[direction] = lengths
        self._left[direction] = next(lengths)

    async def accept_loop(self) -> None:
        """Forward connections; `open_proxy` runs this."""
        async with trio.open_nursery() as nursery:
            while True:
                await self._go.wait()
                stream = await self._listener.accept()
                nursery.start_soon(self._forward, stream, name=f"proxy to {self.address}")

    async def _forward(self, near: trio.SocketStream) -> None:
        async with near:
            await self._go.wait()
            host, _, port = self.address.rpartition(":")
            try:
                far = await trio.open_tcp_stream(host, int(port))
            except OSError:
                _linger_not(near)
                return
            self.connections_total += 1
            async with far, trio.open_nursery() as nursery:
                scope = nursery.cancel_scope
                self._open[scope] = (near, far)
                try:
                    nursery.start_soon(self._pass_on, "requests", near, far, scope)
                    await self._pass_on("answers", far, near, scope)
                finally:
                    del self._open[scope]

    async def _pass_on(
        self, direction: Direction, source: trio.SocketStream, sink: trio.SocketStream, scope: trio.CancelScope
    ) -> None:
        """One direction of one connection; its end is the end of the connection."""
        send, receive = trio.open_memory_channel[tuple[float, bytes]](WAITING_CHUNKS)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(self._read, direction, source, send))
            async with receive:
                async for due, data in receive:
                    await trio.sleep_until(due)
                    await self._go.wait()
                    if not await self._write(direction, sink, data):
                        break
            scope.cancel(reason="one side has ended, or the proxy cuts the connection")

    async def _read(
        self, direction: Direction, source: trio.SocketStream, send: trio.MemorySendChannel[tuple[float, bytes]]
    ) -> None:
        async with send:
            while True:
                await self._go.wait()
                try:
                    data = await source.receive_some(READ_BYTES)
                except trio.BrokenResourceError:
                    return
                if not data:
                    return
                delay_s = self.answer_delay_s if direction == "answers" else 0.0
                try:
                    await send.send((trio.current_time() + delay_s, bytes(data)))
                except trio.BrokenResourceError:
                    return

    async def _write(self, direction: Direction, sink: trio.SocketStream, data: bytes) -> bool:
        """Write, or cut; False: this connection is over."""
        lengths = self._cuts[direction]
        cut = False
        if lengths is not None:
            cut = len(data) >= self._left[direction]
            if cut:
                data = data[: self._left[direction]]
                self._left[direction] = next(lengths)
                self.cut_total += 1
            else:
                self._left[direction] -= len(data)
        self.forwarded_bytes[direction] += len(data)
        try:
            while (pause_s := self.dribble_s) is not None and direction == "answers" and len(data) > 1:
                await sink.send_all(data[:1])
                data = data[1:]
                await trio.sleep(pause_s)
            await sink.send_all(data)
        except trio.BrokenResourceError:
            return False  # noqa: ASYNC910  # the connection is over
        return not cut  # noqa: ASYNC910  # send_all is a checkpoint


def _linger_not(stream: trio.SocketStream) -> None:
    """Let the close send RST instead of FIN."""
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


class Proxy:
    """Made by `open_proxy`."""

    def __init__(self, links: Sequence[Link]) -> None:
        self.links = {link.address: link for link in links}
        """By the broker's own address."""

    def __repr__(self) -> str:
        return f"<Proxy {list(self.links.values())}>"

    def __getitem__(self, address: str) -> Link:
        return self.links[address]

    async def connector(self, host: str, port: int) -> trio.SocketStream:
        """Connect to the broker of this address, through its link: a `kafka_client.config.Connector`."""
        return await trio.open_tcp_stream("127.0.0.1", self.links[f"{host}:{port}"].port)

    def restore(self) -> None:
        """Take back every fault of every link."""
        for link in self.links.values():
            link.restore()


@asynccontextmanager
async def open_proxy(addresses: Sequence[str]) -> AsyncIterator[Proxy]:
    """Stand between a client and the brokers at ``addresses`` (``host:port``) for as long as the block lasts.

    On cancellation: as at the end of the block, every connection is closed.
    """
    links = []
    async with AsyncExitStack() as stack:
        for address in addresses:
            # Bound and never listening: a connection to it is refused.
            refusing = stack.enter_context(socket.socket())
            refusing.bind(("127.0.0.1", 0))
            [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
            links.append(Link(address, await stack.enter_async_context(listener), refusing))
        async with trio.open_nursery() as nursery:
            for link in links:
                nursery.start_soon(link.accept_loop, name=f"proxy for {link.address}")
            try:
                yield Proxy(links)
            finally:
                nursery.cancel_scope.cancel(reason="the proxy was closed")
