"""The head of an answer as bytes, and how its body is framed.

Owns: status lines, what of the application's fields is ours to decide (Connection, Transfer-Encoding), and that nothing
that the application says can break the framing. Refuses to know: sockets, when an answer is written.

Non-obvious: most fields of most answers are the same ones. Fields are remembered as they were encoded (a lookup is a
fifth of encoding and checking one), except those whose values prove to differ from answer to answer.

Source: RFC 9112, sections 4, 6 and 9.3; RFC 9110, sections 6.4.1, 8.6 and 15.
"""

from collections import Counter
from collections.abc import Iterable
from http import HTTPStatus
from typing import Final

__all__ = ["AnswerHead", "plain_answer"]

_STATUS_LINES = {status.value: b"HTTP/1.1 %d %b\r\n" % (status, status.phrase.encode()) for status in HTTPStatus}

#: What ends a head: that the connection is closed; for a client of HTTP/1.0, that it is not; or nothing.
_CLOSE, _KEEP, _END = b"connection: close\r\n\r\n", b"connection: keep-alive\r\n\r\n", b"\r\n"

#: Values of one name that are remembered, and fields in all.
MAX_VALUES = 64
MAX_FIELDS = 1024

_ORDINARY: Final = -1
_CONNECTION_CLOSE: Final = -2
_DROPPED: Final = -3


class _Fields(dict[tuple[bytes, bytes], tuple[bytes, int]]):
    """Fields as they are sent, and what they mean to us: a length, or one of the constants above.

    Looking up one that cannot be sent raises ValueError.
    """

    def __init__(self) -> None:
        self._values: Counter[bytes] = Counter()

    def __missing__(self, field: tuple[bytes, bytes]) -> tuple[bytes, int]:
        name, value = field
        known = _encode(name, value)
        if self._values[name] < MAX_VALUES and len(self) < MAX_FIELDS:
            self._values[name] += 1
            self[field] = known
        return known


def _encode(name: bytes, value: bytes) -> tuple[bytes, int]:
    line = b"%b: %b\r\n" % (name, value)
    if line.count(b"\n") != 1 or line.count(b"\r") != 1 or b"\0" in line or not name or b":" in name:
        raise ValueError(f"a field that cannot be sent: {name!r}: {value!r}")
    match name.lower():
        case b"content-length":
            if not value.isdigit():
                raise ValueError(f"content-length is no number: {value!r}")
            return line, int(value)
        case b"connection":
            return b"", _CONNECTION_CLOSE if b"close" in value.lower() else _DROPPED
        case b"transfer-encoding":
            return b"", _DROPPED
        case _:
            return line, _ORDINARY


_fields = _Fields()


class AnswerHead:
    """What the application said in ``http.response.start``.

    Raises:
        ValueError: a status, name or value that cannot be sent.
    """

    __slots__ = ("_lines", "bodiless", "close", "length")

    def __init__(self, status: int, headers: Iterable[tuple[bytes, bytes]]) -> None:
        if not 200 <= status <= 999:
            raise ValueError(f"{status} is no status of an answer")
        self.length: int | None = None
        self.close = False
        """The application wants the connection closed."""
        self.bodiless = status == 204 or status == 304
        self._lines = lines = [_STATUS_LINES.get(status) or b"HTTP/1.1 %d \r\n" % status]
        known = _fields
        for field in headers:
            # ASGI allows any pair.
            line, meaning = known[field if type(field) is tuple else (field[0], field[1])]
            if meaning != _ORDINARY:
                if meaning >= 0:
                    self.length = meaning
                elif meaning == _CONNECTION_CLOSE:
                    self.close = True
            lines.append(line)

    def encode(self, date: bytes, framing: bytes, body: bytes, *, keep_alive: bool, http_1_0: bool) -> bytes:
        """The head and ``body``; ``framing`` is the field that says where the body ends, or empty."""
        lines = self._lines
        lines += (framing, date, _CLOSE if not keep_alive else _KEEP if http_1_0 else _END, body)
        return b"".join(lines)


def plain_answer(status: int, text: str, date: bytes) -> bytes:
    """A whole answer of the server's own, the last one of its connection."""
    body = text.encode() + b"\n"
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", b"%d" % len(body))]
    return AnswerHead(status, headers).encode(date, b"", body, keep_alive=False, http_1_0=False)
