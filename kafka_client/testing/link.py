"""A TCP connection without a kernel: two byte streams in memory, with bounded buffers.

Owns: the bytes on their way between a client and a fake broker. Refuses to know what they say.

Invariant: as with TCP, bytes arrive in order or the connection is broken; a sender blocks when the peer does not read;
a closed peer breaks a later send, not the send itself.

Works on virtual time: nothing here looks at a clock or a thread.
"""

import operator

import trio

__all__ = ["MemoryStream", "open_link"]


class _Pipe:
    """One direction."""

    def __init__(self, capacity_bytes: int) -> None:
        self.capacity_bytes = capacity_bytes
        self.buffer = bytearray()
        self.ended = False
        """The sender has closed: EOF after the buffer."""
        self.reset = False
        """Both ends find the connection broken, what is buffered is lost."""
        self.unread = False
        """The receiver has closed: the sender finds the connection broken."""
        self._changed = trio.Event()

    def changed(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    async def wait_changed(self) -> None:
        await self._changed.wait()


class MemoryStream(trio.abc.HalfCloseableStream):
    """One end of a link. Concurrent sends, or receives, raise `trio.BusyResourceError`."""

    def __init__(self, incoming: _Pipe, outgoing: _Pipe) -> None:
        self._incoming = incoming
        self._outgoing = outgoing
        self._closed = False
        self._sending = False
        self._receiving = False

    def __repr__(self) -> str:
        state = "closed" if self._closed else "reset" if self._incoming.reset else "open"
        return f"<MemoryStream {state} in={len(self._incoming.buffer)} out={len(self._outgoing.buffer)}>"

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send it all; a cancellation may leave a part sent, as with a socket."""
        if self._sending:
            raise trio.BusyResourceError("another task is sending on this stream")
        self._sending = True
        try:
            await trio.lowlevel.checkpoint()
            pipe = self._outgoing
            rest = memoryview(data)
            while True:
                self._check_sendable()
                room = pipe.capacity_bytes - len(pipe.buffer)
                if room > 0 and rest:
                    pipe.buffer += rest[:room]
                    rest = rest[room:]
                    pipe.changed()
                if not rest:
                    return
                await pipe.wait_changed()
        finally:
            self._sending = False

    async def wait_send_all_might_not_block(self) -> None:
        """Wait for room."""
        if self._sending:
            raise trio.BusyResourceError("another task is sending on this stream")
        self._sending = True
        try:
            await trio.lowlevel.checkpoint()
            while True:
                self._check_sendable()
                if len(self._outgoing.buffer) < self._outgoing.capacity_bytes:
                    return
                await self._outgoing.wait_changed()
        finally:
            self._sending = False

    def _check_sendable(self) -> None:
        if self._closed or self._outgoing.ended:
            raise trio.ClosedResourceError("this end of the stream was closed")
        if self._outgoing.reset or self._outgoing.unread:
            raise trio.BrokenResourceError("connection reset by peer")

    async def send_eof(self) -> None:
        """Close the sending half."""
        if self._sending:
            raise trio.BusyResourceError("another task is sending on this stream")
        await trio.lowlevel.checkpoint()
        if self._closed:
            raise trio.ClosedResourceError("this end of the stream was closed")
        self._outgoing.ended = True
        self._outgoing.changed()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """What has arrived, at least one byte; b"" at the end."""
        if max_bytes is not None and operator.index(max_bytes) < 1:
            raise ValueError("max_bytes must be at least 1")
        if self._receiving:
            raise trio.BusyResourceError("another task is receiving from this stream")
        self._receiving = True
        try:
            await trio.lowlevel.checkpoint()
            pipe = self._incoming
            while True:
                if self._closed:
                    raise trio.ClosedResourceError("this end of the stream was closed")
                if pipe.reset:
                    raise trio.BrokenResourceError("connection reset by peer")
                if pipe.buffer:
                    taken = bytes(pipe.buffer[:max_bytes])
                    del pipe.buffer[: len(taken)]
                    pipe.changed()
                    return taken
                if pipe.ended:
                    return b""
                await pipe.wait_changed()
        finally:
            self._receiving = False

    def close(self) -> None:
        """Close both directions; what was sent still arrives at the peer."""
        if not self._closed:
            self._closed = True
            self._outgoing.ended = True
            self._incoming.unread = True
            self._incoming.buffer.clear()
            self._outgoing.changed()
            self._incoming.changed()

    async def aclose(self) -> None:
        """Close both directions; always a checkpoint, closed even if cancelled."""
        self.close()
        await trio.lowlevel.checkpoint()

    def reset(self) -> None:
        """Break the connection for both ends; what is on its way is lost (RST)."""
        for pipe in (self._incoming, self._outgoing):
            pipe.reset = True
            pipe.buffer.clear()
            pipe.changed()


def open_link(buffer_bytes: int) -> tuple[MemoryStream, MemoryStream]:
    """(client's end, broker's end); each direction holds ``buffer_bytes`` before a sender blocks."""
    there, back = _Pipe(buffer_bytes), _Pipe(buffer_bytes)
    return MemoryStream(back, there), MemoryStream(there, back)
