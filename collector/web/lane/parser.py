"""HTTP/1.0 and 1.1 requests out of the bytes of one connection: llhttp for the words, our own framing around it.

Owns: where a request begins and ends. Refuses to know: sockets, ASGI, time, answers.

Invariants: the same bytes give the same requests and the same refusal however they are cut into reads. A head is
accepted only when llhttp read it without complaint (or these very bytes before: `known_heads`) and its request line and
its number of lines are what our own reading says; whatever is out of order is read once more, strictly, by `HeadScan`,
which finds the status. llhttp sees one head at a time and never decides where a body ends: `framing` does. Nothing is
parsed behind a refusal, an upgrade, or a request after which the connection closes. Memory: one head, one chunk line,
``MAX_AHEAD`` heads waiting, and the bytes of the last `feed`; 2.4 kB for a connection between two requests.

llhttp is given C functions as callbacks (``dict.setdefault``): a header then costs no Python call, and a head whose
fields are not all different shows in the count. Measured (CPU, one core, least of 40 runs): 4.2 µs for a POST with six
fields and 250 bytes, 3.9 µs where sixteen come in one read; httptools alone, calling Python for each field and framing
nothing, took 1.4 µs in the same runs. A head that is known costs 1.3 µs with its body.
"""

from collections import deque
from typing import Final

import httptools

from collector.config import LimitsConfig
from collector.web.lane.chunked import ChunkedBody
from collector.web.lane.framing import check_target, frame, refuse_repeated
from collector.web.lane.head_scan import HeadScan, read_request_line
from collector.web.lane.known_heads import known_heads
from collector.web.lane.request import Refusal, Request

__all__ = ["MAX_AHEAD", "RequestParser"]

MAX_AHEAD = 64
"""Requests parsed and not taken; what is behind them stays bytes until `feed` is called again.

The smallest requests take 8 to 14 times their bytes (tracemalloc): a client shall not have us hold that of all it sent.
"""

HTTP2_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
"""RFC 9113, 3.4."""

_QUICK_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"})
"""llhttp refuses methods that it does not know; the application has an answer for them, if it is 405."""

_MAX_REMEMBERED = 1024
_MAX_LINE_REMEMBERED = 256
_MAX_NAME_REMEMBERED = 64

# What is being read.
_HEAD: Final = 0
_BODY: Final = 1
_CHUNKS: Final = 2
_REST: Final = 3
"""Not HTTP/1 any more."""
_OVER: Final = 4
"""Refused, or behind the last request of the connection."""


class _LowerCased(dict[bytes, bytes]):
    """Header names, lower-cased; the common ones are remembered."""

    def __missing__(self, name: bytes) -> bytes:
        lower = name.lower()
        if len(self) < _MAX_REMEMBERED and len(name) <= _MAX_NAME_REMEMBERED:
            self[name] = lower
        return lower


_lower = _LowerCased()
_request_lines: dict[bytes, tuple[str, bytes, str]] = {}
"""Request lines that were found in order. Those with a query are not remembered: they differ."""


class _Callbacks:
    """What llhttp calls; httptools looks these up once."""

    __slots__ = ("on_header",)

    def __init__(self, fields: dict[bytes, bytes]) -> None:
        self.on_header = fields.setdefault


class RequestParser:
    """Parses one connection's requests.

    Args:
        limits: ``request_line_bytes`` (414 beyond), ``head_bytes`` and ``head_fields`` (431).
        http2: an HTTP/2 preface with prior knowledge, and ``Upgrade: h2c``, are told as such.
    """

    __slots__ = (
        "_carry",
        "_chunks",
        "_fields",
        "_http2",
        "_known_heads",
        "_known_lines",
        "_left",
        "_limits",
        "_llhttp",
        "_open",
        "_scan",
        "_searched",
        "_shown",
        "_skipped_blank",
        "_state",
        "_untouched",
        "held",
        "prior_knowledge",
        "refusal",
        "requests",
        "rest",
    )

    def __init__(self, limits: LimitsConfig, *, http2: bool = False) -> None:
        self._limits = limits
        # Lines that were short enough for others may be too long for a limit as low as this.
        self._known_heads = known_heads(limits)
        self._shown = True
        """llhttp was shown the head of the request whose body is being read."""
        self._known_lines = _request_lines if limits.request_line_bytes >= _MAX_LINE_REMEMBERED else {}
        self._http2 = http2
        self.requests: deque[Request] = deque()
        """Those whose heads are complete, in order; only the last may be incomplete. The caller takes them out."""
        self.refusal: Refusal | None = None
        """Why nothing is parsed any more. The requests are answered first; one that is incomplete never ends."""
        self.rest = b""
        """What followed the head of an upgrade request, or everything from an HTTP/2 preface on."""
        self.prior_knowledge = False
        """The client speaks HTTP/2 without having asked; ``rest`` is all that it said."""
        self.held = False
        """`MAX_AHEAD` requests wait, and more bytes behind them: ``feed(b"")`` goes on."""
        self._state = _HEAD
        self._carry = b""
        """What was fed and could not be read without what comes behind it."""
        self._searched = 0
        """Up to where there is no end of a head in it."""
        self._fields: dict[bytes, bytes] = {}
        self._llhttp: httptools.HttpRequestParser | None = None
        self._scan: HeadScan | None = None
        """Has read what there is of an incomplete head."""
        self._skipped_blank = False
        self._untouched = True
        """Nothing was read yet."""
        self._open: Request | None = None
        """The request whose body is being read."""
        self._left = 0
        self._chunks: ChunkedBody | None = None

    @property
    def started(self) -> bool:
        """A head has begun and is not complete."""
        return self._state == _HEAD and not self.held and bool(self._carry)

    def feed(self, data: bytes) -> None:
        """Parse ``data``, the next bytes of the connection. Never raises."""
        if self._carry:
            data = self._carry + data
            self._carry = b""
        self.held = False
        at, size = 0, len(data)
        try:
            while at < size:
                state = self._state
                if state == _HEAD:
                    if len(self.requests) >= MAX_AHEAD:
                        self.held = True
                        break
                    after = self._read_head(data, at)
                elif state == _BODY:
                    after = self._read_body(data, at)
                elif state == _CHUNKS:
                    after = self._read_chunks(data, at)
                else:
                    after = self._read_rest(data, at)
                if after == at:
                    break
                at = after
        except Refusal as refusal:
            self._refuse(refusal)
            return
        if at < size:
            self._carry = data[at:] if at else data
            if self._state == _HEAD and not self.held:
                self._searched = max(size - at - 3, 0)

    def at_end(self) -> None:
        """The client will send nothing more: a head that has begun is refused."""
        if self.started and self.refusal is None:
            self._refuse(Refusal(400, "the connection ended within a head"))

    def _refuse(self, refusal: Refusal) -> None:
        self.refusal = refusal
        self._state = _OVER
        self._carry = b""
        self._llhttp = self._scan = self._open = self._chunks = None

    def _read_head(self, data: bytes, at: int) -> int:
        """Read a head that begins at ``at``; return where what follows it begins, or ``at`` while it is incomplete."""
        end = data.find(b"\r\n\r\n", at + self._searched)
        self._searched = 0
        if end < 0 or data[at] == 13:
            return self._read_unusual(data, at)
        after = end + 4
        head = data[at:after] if at or after < len(data) else data
        request = self._known_heads.find(head)
        # llhttp is not shown what is known, neither head nor body.
        self._shown = request is None
        if request is None:
            request = self._read_quickly(head) if after - at <= self._limits.head_bytes else None
            if request is None:
                return self._read_unusual(data, at)
            self._known_heads.remember(head, request)
        return self._begin(request, data, after)

    def _read_quickly(self, head: bytes) -> Request | None:
        """The request of a head in order; None where it is not, or was not understood. Raises `Refusal`."""
        line = head[: head.find(b"\r")]
        known = self._known_lines.get(line) or self._learn(line)
        if known is None:
            return None
        fields = self._fields
        if fields:
            fields.clear()
        llhttp = self._llhttp
        if llhttp is None:
            llhttp = self._llhttp = httptools.HttpRequestParser(_Callbacks(fields))
        try:
            llhttp.feed_data(head)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            # At an upgrade it has read the head, but waits for something else behind it than we do.
            self._llhttp = None
            return None
        lower = _lower
        # llhttp takes no white space before a value, and leaves it behind one.
        by_name = {lower[name]: value.strip() for name, value in fields.items()}
        fields.clear()
        count = head.count(b"\n") - 2
        if len(by_name) != count or count > self._limits.head_fields:
            self._llhttp = None
            return None
        request = Request()
        request.method, request.target, request.http_version = known  # type: ignore[assignment]  # "1.0" or "1.1"
        request.headers = list(by_name.items())
        frame(request, by_name)
        return request

    def _learn(self, line: bytes) -> tuple[str, bytes, str] | None:
        """What a request line says; None where it must be looked at more closely."""
        if len(line) > self._limits.request_line_bytes:
            return None
        try:
            known = read_request_line(line)
            check_target(known[0], known[1])
        except Refusal:
            return None
        if known[0] not in _QUICK_METHODS:
            return None
        if b"?" not in line and len(line) <= _MAX_LINE_REMEMBERED:
            if len(self._known_lines) >= _MAX_REMEMBERED:
                self._known_lines.clear()
            self._known_lines[line] = known
        return known

    def _read_unusual(self, data: bytes, at: int) -> int:
        """As `_read_head`, line by line."""
        if self._scan is None:
            if data[at] == 13 and not self._skipped_blank:
                # One empty line before a request line is overlooked (RFC 9112, 2.2), a second one is not.
                if data.startswith(b"\r\n", at):
                    self._skipped_blank = True
                    self._untouched = False
                    return at + 2
                if len(data) == at + 1:
                    return at
            if self._http2 and self._untouched and HTTP2_PREFACE.startswith(data[at : at + len(HTTP2_PREFACE)]):
                return self._read_preface(data, at)
            self._scan = HeadScan(self._limits)
        scan = self._scan
        end = scan.advance(data[at:] if at else data)
        if not end:
            return at
        request = Request()
        request.method, request.target, request.http_version = scan.request_line  # type: ignore[assignment]  # as above
        check_target(request.method, request.target)
        request.headers = scan.fields
        refuse_repeated(scan.fields)
        by_name: dict[bytes, bytes] = {}
        for name, value in scan.fields:
            by_name[name] = by_name[name] + b", " + value if name in by_name else value
        frame(request, by_name)
        self._ask_llhttp(b"GET" + data[at + len(request.method) : at + end])
        # The other one has not seen this head, or has not liked it: it cannot be shown the body.
        self._llhttp = None
        return self._begin(request, data, at + end)

    def _ask_llhttp(self, head: bytes) -> None:
        """Raise `Refusal` (400) where llhttp would not read a head that we would. Two readings must agree.

        What the method is makes no difference to them, but llhttp knows some only.
        """
        try:
            httptools.HttpRequestParser(_Callbacks({})).feed_data(head)
        except httptools.HttpParserUpgrade:
            pass
        except httptools.HttpParserError as error:
            raise Refusal(400, f"llhttp: {error}") from error

    def _read_preface(self, data: bytes, at: int) -> int:
        """An HTTP/2 preface, as far as it has come. It is the first thing on a connection or none."""
        if len(data) - at < len(HTTP2_PREFACE):
            return at
        self.prior_knowledge = True
        self.rest = data[at:]
        self._state = _REST
        return len(data)

    def _begin(self, request: Request, data: bytes, at: int) -> int:
        """A head is complete, its body begins at ``at``; return up to where the body was read."""
        self._scan = None
        self._skipped_blank = False
        self._untouched = False
        self.requests.append(request)
        length = request.content_length
        if length:
            piece = data[at : at + length]
            if len(piece) < length:
                self._left = length
                self._open = request
                self._state = _BODY
                return at
            request.pieces.append(piece)
            request.body_bytes = length
            request.complete = True
            if self._llhttp is not None and self._shown:
                self._llhttp.feed_data(piece)
            if not request.keep_alive:
                self._state = _OVER
            return at + length
        if request.chunked:
            # llhttp waits for chunks now, and shall not see them.
            self._llhttp = None
            self._chunks = ChunkedBody(request, self._limits)
            self._open = request
            self._state = _CHUNKS
            return at
        self._end(request)
        if request.upgrade == "websocket" or (request.upgrade is not None and self._http2):
            self._llhttp = None
            self._state = _REST
        else:
            request.upgrade = None
        return at

    def _read_body(self, data: bytes, at: int) -> int:
        """Read on in a body of a known length."""
        request = self._open
        assert request is not None
        piece = data[at : at + self._left]
        got = len(piece)
        request.pieces.append(piece)
        request.body_bytes += got
        self._left -= got
        if self._llhttp is not None and self._shown:
            self._llhttp.feed_data(piece)
        if not self._left:
            self._end(request)
        return at + got

    def _read_chunks(self, data: bytes, at: int) -> int:
        chunks = self._chunks
        assert chunks is not None
        after = chunks.read(data, at)
        if chunks.request.complete:
            self._chunks = None
            self._end(chunks.request)
        return after

    def _read_rest(self, data: bytes, at: int) -> int:
        """What is not HTTP/1 any more is kept; what nobody wants is not."""
        if self._state == _REST:
            self.rest += data[at:]
        return len(data)

    def _end(self, request: Request) -> None:
        request.complete = True
        self._open = None
        self._state = _HEAD if request.keep_alive else _OVER
