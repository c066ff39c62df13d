"""One websocket's frames, without a socket: bytes in, whole messages and bytes to be sent out.

Owns: which messages are whole, what is answered to pings and close frames, how a broken stream ends. Refuses to know:
sockets, ASGI, tasks.

The parser is `websockets`' protocol core. Measured on frames of 300 bytes, one a read: 3.5 µs a message and 1.6 kB a
connection, where wsproto takes 11 µs and 1.8 kB; an answer costs 0.3 µs here, 1.1 µs in `websockets`, 3.0 µs in
wsproto. Most messages are one whole short frame, which needs no state machine: between messages those are taken the
short way, 0.6 µs each; everything else, and every doubt, is the library's. A test holds the two ways against each
other.

Invariants: a message is bounded before it is buffered, fragmented or not, and as it is inflated; text that is handed
over is valid UTF-8; after the first fault nothing more is handed over, and the client is told which it was.

permessage-deflate, where it is on, is negotiated without context takeover in both directions, which a server may ask
for (RFC 7692 sections 7.1.1.1 and 7.1.1.2): an idle connection then holds no window of 44 kB. Our answers are short
and are sent as they are, which RFC 7692 section 6 allows.
"""

from collections.abc import Sequence
from enum import IntEnum

from websockets.datastructures import Headers, MultipleValuesError
from websockets.exceptions import InvalidHandshake
from websockets.extensions.permessage_deflate import ServerPerMessageDeflateFactory
from websockets.frames import Frame, Opcode
from websockets.headers import parse_subprotocol
from websockets.http11 import Request as HandshakeRequest
from websockets.protocol import OPEN, SERVER, Protocol
from websockets.server import ServerProtocol
from websockets.streams import StreamReader

from collector.web.websocket.wire import Received

try:
    from websockets.speedups import apply_mask
except ImportError:  # built without a compiler
    from websockets.utils import apply_mask

__all__ = ["CloseCode", "Frames", "Handshake", "HandshakeFault", "server_frame"]

#: Where the parser waits for the first byte of a frame.
_BETWEEN_FRAMES = StreamReader.at_eof.__code__

_TEXT, _BINARY, _CONTINUATION, _CLOSE = Opcode.TEXT, Opcode.BINARY, Opcode.CONT, Opcode.CLOSE


class CloseCode(IntEnum):
    """Source: RFC 6455 section 7.4.1."""

    NORMAL = 1000
    PROTOCOL_ERROR = 1002
    NONE_RECEIVED = 1005
    ABNORMAL = 1006
    INVALID_DATA = 1007
    TOO_BIG = 1009
    INTERNAL_ERROR = 1011


class HandshakeFault(Exception):
    """This is no handshake of RFC 6455; the text says why."""


class Handshake:
    """A client's opening handshake, checked. Raises `HandshakeFault`.

    Args:
        headers: of the request, names in lower case.
        deflate: whether permessage-deflate is accepted where it is offered.
    """

    def __init__(self, method: str, target: str, headers: Sequence[tuple[bytes, bytes]], deflate: bool) -> None:
        asked = Headers((name.decode("latin-1"), value.decode("latin-1")) for name, value in headers)
        factories = [ServerPerMessageDeflateFactory(server_no_context_takeover=True, client_no_context_takeover=True)]
        protocol = ServerProtocol(extensions=factories if deflate else None)
        try:
            accept, extensions, _ = protocol.process_request(HandshakeRequest(target, asked, method=method))
            self.subprotocols = [
                name for value in asked.get_all("sec-websocket-protocol") for name in parse_subprotocol(value)
            ]
            """Those that the client offers, in its order."""
        except (InvalidHandshake, MultipleValuesError) as fault:
            raise HandshakeFault(str(fault)) from fault
        self.extensions = protocol.extensions
        self._accept = accept
        self._extensions = extensions

    def response(self, subprotocol: str | None, headers: Sequence[tuple[bytes, bytes]] = ()) -> bytes:
        """The head that opens the websocket. Raises ValueError for a header that cannot stand in it."""
        lines = [
            b"HTTP/1.1 101 Switching Protocols",
            b"upgrade: websocket",
            b"connection: upgrade",
            b"sec-websocket-accept: " + self._accept.encode(),
        ]
        if subprotocol is not None:
            lines.append(b"sec-websocket-protocol: " + subprotocol.encode("latin-1"))
        if self._extensions is not None:
            lines.append(b"sec-websocket-extensions: " + self._extensions.encode("latin-1"))
        lines += [name + b": " + value for name, value in headers]
        if any(b"\r" in line or b"\n" in line for line in lines):
            raise ValueError("a header with a line break")
        return b"\r\n".join([*lines, b"", b""])


#: What stands before a short payload, by its size.
_TEXT_HEADS, _BINARY_HEADS = ([bytes((opcode, size)) for size in range(126)] for opcode in (0x81, 0x82))


def server_frame(payload: bytes, *, text: bool) -> bytes:
    """A whole message in one frame: final, unmasked, uncompressed. Source: RFC 6455 section 5.2."""
    size = len(payload)
    if size < 126:
        return (_TEXT_HEADS if text else _BINARY_HEADS)[size] + payload
    opcode = b"\x81" if text else b"\x82"
    if size < 0x10000:
        return b"%b\x7e%b%b" % (opcode, size.to_bytes(2, "big"), payload)
    return b"%b\x7f%b%b" % (opcode, size.to_bytes(8, "big"), payload)


class Frames:
    """The frames of one open websocket.

    Args:
        max_message_bytes: of one message, inflated.
        extensions: as the handshake negotiated them.
    """

    __slots__ = (
        "_between",
        "_fragments",
        "_fragments_text",
        "_max_message_bytes",
        "_protocol",
        "close_code",
        "ended",
        "to_send",
    )

    def __init__(self, max_message_bytes: int, handshake: Handshake) -> None:
        self._protocol = Protocol(SERVER, state=OPEN, max_size=max_message_bytes)
        self._protocol.extensions = handshake.extensions
        self._max_message_bytes = max_message_bytes
        self._fragments: bytearray | None = None
        self._fragments_text = False
        self.to_send: list[bytes] = []
        """Answers to what was received, in order: pongs, a close frame. The caller takes them."""
        self.ended = False
        """No message comes any more: the client has closed, or broken the protocol."""
        self._between = self._between_messages()
        self.close_code: int = CloseCode.ABNORMAL
        """What an application is told when it has ended."""

    def __repr__(self) -> str:
        state = f"ended with {self.close_code}" if self.ended else self._protocol.state.name.lower()
        return f"<Frames {state}>"

    @property
    def open(self) -> bool:
        """Neither side has sent a close frame."""
        return self._protocol.state is OPEN

    @property
    def client_closed(self) -> bool:
        """The client has sent its close frame: it sends nothing behind that."""
        return self._protocol.close_rcvd is not None

    def receive(self, data: bytes) -> Sequence[Received]:
        """Take these bytes; returns the messages that are whole with them. Look at ``to_send`` and ``ended`` then."""
        messages: list[Received] = []
        if self._between:
            taken = self._take_plain(data, messages)
            if taken == len(data):
                return messages
            if taken:
                data = data[taken:]
        self._parse(data, messages)
        self._between = self._between_messages()
        return messages

    def _between_messages(self) -> bool:
        """Whether the next byte begins a message. What is not understood here is no more than slower."""
        protocol = self._protocol
        waits_in = getattr(protocol.parser, "gi_yieldfrom", None)
        return (
            not self.ended
            and protocol.current_size is None
            and waits_in is not None
            and waits_in.gi_code is _BETWEEN_FRAMES
        )

    def _take_plain(self, data: bytes, messages: list[Received]) -> int:
        """The messages of one whole short frame at the front of these bytes; returns how many bytes they had."""
        at, end, most = 0, len(data), self._max_message_bytes
        while end - at >= 6:
            head, size = data[at], data[at + 1] - 0x80
            if (head != 0x81 and head != 0x82) or size < 0:
                break
            start = at + 6
            if size == 126:
                size = data[at + 2] << 8 | data[at + 3]
                start = at + 8
            stop = start + size
            if size == 127 or stop > end or size > most:
                break
            payload = apply_mask(data[start:stop], data[start - 4 : start])
            if head == 0x81 and not payload.isascii():
                try:
                    payload.decode()
                except UnicodeDecodeError:
                    break
            messages.append((payload, head == 0x81))
            at = stop
        return at

    def _parse(self, data: bytes, messages: list[Received]) -> None:
        protocol = self._protocol
        protocol.receive_data(data)
        for frame in protocol.events_received():
            assert isinstance(frame, Frame)
            opcode = frame.opcode
            if opcode is _TEXT or opcode is _BINARY:
                if not frame.fin:
                    self._fragments, self._fragments_text = bytearray(frame.data), opcode is _TEXT
                elif not self._take(bytes(frame.data), opcode is _TEXT, messages):
                    break
            elif opcode is _CONTINUATION:
                # Kept in one piece: fragments may be of one byte each, or empty.
                fragments = self._fragments
                assert fragments is not None
                fragments += frame.data
                if frame.fin:
                    self._fragments = None
                    if not self._take(bytes(fragments), self._fragments_text, messages):
                        break
            elif opcode is _CLOSE and protocol.close_rcvd is not None:
                self._end(protocol.close_rcvd.code)
        if protocol.parser_exc is not None and not self.ended:
            assert protocol.close_sent is not None or not self.open
            sent = protocol.close_sent
            self._end(sent.code if sent is not None else CloseCode.ABNORMAL)
        self._collect()

    def _take(self, payload: bytes, text: bool, messages: list[Received]) -> bool:
        if text and not payload.isascii():
            try:
                payload.decode()
            except UnicodeDecodeError as error:
                self.fail(CloseCode.INVALID_DATA, f"{error.reason} at position {error.start}")
                return False
        messages.append((payload, text))
        return True

    def close(self, code: int, reason: str = "") -> None:
        """Say that we close, unless that was said; the client's answer ends it."""
        if self.open:
            self._protocol.send_close(code, reason)
            self._collect()

    def fail(self, code: int, reason: str = "") -> None:
        """End it now: nothing more is handed over."""
        if not self.ended:
            self._protocol.fail(code, reason)
            self._end(code)
            self._collect()

    def lost(self) -> None:
        """The connection is gone."""
        self._end(self.close_code)

    def _end(self, code: int) -> None:
        if not self.ended:
            self.ended = True
            self.close_code = code
            self._fragments = None
            self._between = False

    def _collect(self) -> None:
        # An empty one says that nothing follows, which ``ended`` says here.
        self.to_send += filter(None, self._protocol.data_to_send())
