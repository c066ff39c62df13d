# flake8: noqa: ASYNC910
# A request costs one checkpoint, where its connection waits for it; more would cost 2 µs each.
"""A transport that speaks TLS over another one.

Owns: the TLS session of one connection. Refuses to know: sockets, what the bytes say.

`trio.SSLStream` would do it too; but there a small answer costs several checkpoints, a lock and a retry loop, here a
write and a read of memory. Renegotiation is off (`web.tls`), so that writing never waits for reading.
"""

import socket
import ssl

import trio

from collector.web.lane.socket_transport import SocketTransport

__all__ = ["TlsTransport"]


class TlsTransport:
    """TLS over a socket's transport, which belongs to it from now on."""

    __slots__ = ("_incoming", "_inner", "_interrupted", "_outgoing", "_reading", "_session", "begun", "read_bytes")

    def __init__(self, inner: SocketTransport, context: ssl.SSLContext) -> None:
        self._inner = inner
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._session = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._reading = False
        self._interrupted = False
        self.begun = False
        """The client has begun to shake hands, and has not finished."""
        self.read_bytes = inner.read_bytes

    def __repr__(self) -> str:
        return f"<TlsTransport over {self._inner!r}>"

    @property
    def socket(self) -> socket.socket:
        return self._inner.socket

    @property
    def pending(self) -> bool:
        return self._inner.pending

    @property
    def alpn(self) -> str | None:
        """What the client chose to speak."""
        return self._session.selected_alpn_protocol()

    async def handshake(self) -> None:
        """Shake hands.

        Raises:
            trio.BrokenResourceError: the client does not, or not as it must.

        On cancellation: the connection is of no use any more.
        """
        while not self._has_shaken_hands():
            await self._flush()
            # Who is interrupted may have begun all the same.
            data = await self._inner.receive() or self._inner.receive_now()
            if not data:
                raise trio.BrokenResourceError("the client left during the handshake")
            self.begun = True
            self._incoming.write(data)
        await self._flush()
        self.begun = False

    def _has_shaken_hands(self) -> bool:
        try:
            self._session.do_handshake()
        except ssl.SSLWantReadError:
            return False
        except ssl.SSLError as error:
            self._flush_now()  # the alert that says why
            raise trio.BrokenResourceError(f"no TLS handshake: {error.reason or error}") from error
        return True

    async def receive(self) -> bytes:
        """As `Transport.receive`; one record at most."""
        while True:
            data = self._read()
            if data is not None:
                self._interrupted = False
                return data
            if self._outgoing.pending:
                # Beside who writes: what does not go at once goes with the next write, before which it is due
                # (RFC 8446, 4.6.3).
                self._inner.send_now(self._outgoing.read())
            if self._interrupted:
                self._interrupted = False
                return b""
            self._reading = True
            try:
                data = await self._inner.receive()
            finally:
                self._reading = False
            if not data:
                self._interrupted = False
                return b""
            self._incoming.write(data)

    def receive_now(self) -> bytes | None:
        """As `Transport.receive_now`."""
        while True:
            data = self._read()
            if data is not None:
                return data
            data = self._inner.receive_now()
            if not data:
                return data
            self._incoming.write(data)

    def _read(self) -> bytes | None:
        """One record of what has come; None: there is none that is whole."""
        try:
            return self._session.read(self.read_bytes)
        except ssl.SSLWantReadError:
            return None
        except ssl.SSLZeroReturnError:
            return b""
        except ssl.SSLError as error:
            self._flush_now()
            raise trio.BrokenResourceError(f"TLS: {error.reason or error}") from error

    def interrupt(self) -> bool:
        """As `Transport.interrupt`; who was told of bytes already may find that they are no whole record."""
        if self._inner.interrupt():
            return True
        self._interrupted = self._reading
        return self._interrupted

    def send_now(self, data: bytes) -> bool:
        """As `Transport.send_now`."""
        self._write(data)
        return self._inner.send_now(self._outgoing.read())

    async def send(self, data: bytes) -> None:
        """As `Transport.send`."""
        if data:
            self._write(data)
        await self._inner.send(self._outgoing.read())

    def end(self) -> None:
        """As `Transport.end`, with the alert that says so (RFC 8446, 6.1)."""
        try:
            self._session.unwrap()
        except (ssl.SSLError, ValueError):
            pass  # it waits for the client's alert, or there is no session
        self._flush_now()
        self._inner.end()

    def abort(self) -> None:
        """As `Transport.abort`."""
        self._inner.abort()

    def _write(self, data: bytes) -> None:
        try:
            if data:
                self._session.write(data)
        except ssl.SSLError as error:
            raise trio.BrokenResourceError(f"TLS: {error.reason or error}") from error

    async def _flush(self) -> None:
        if self._outgoing.pending and not self._inner.send_now(self._outgoing.read()):
            await self._inner.send(b"")

    def _flush_now(self) -> None:
        try:
            if self._outgoing.pending:
                self._inner.send_now(self._outgoing.read())
        except trio.BrokenResourceError:
            pass  # nobody reads it
