"""The head of an answer as bytes, and how its body is framed.

Owns: status lines, what of the application's fields is ours to decide (Connection, Transfer-Encoding), and that nothing
that the application says can break the framing. Refuses to know: sockets, when an answer is written.

Source: RFC 9112, sections 4, 6 and 9.3; RFC 9110, sections 6.4.1, 8.6 and 15.
"""

from collections.abc import Iterable
from http import HTTPStatus

__all__ = ["AnswerHead", "plain_answer"]

_STATUS_LINES = {status.value: b"HTTP/1.1 %d %b\r\n" % (status, status.phrase.encode()) for status in HTTPStatus}

_LENGTH, _CONNECTION, _CODING = 1, 2, 3
_OURS = {b"content-length": _LENGTH, b"connection": _CONNECTION, b"transfer-encoding": _CODING}


class AnswerHead:
    """What the application said in ``http.response.start``.

    Raises:
        ValueError: a status, name or value that cannot be sent.
    """

    __slots__ = ("_fields", "bodiless", "close", "length", "status")

    def __init__(self, status: int, headers: Iterable[tuple[bytes, bytes]]) -> None:
        if not 200 <= status <= 999:
            raise ValueError(f"{status} is no status of an answer")
        self.status = status
        self.length: int | None = None
        self.close = False
        """The application wants the connection closed."""
        self.bodiless = status in (204, 304)
        fields = [_STATUS_LINES.get(status) or b"HTTP/1.1 %d \r\n" % status]
        for name, value in headers:
            kind = _OURS.get(name.lower())
            if kind is not None:
                if kind == _LENGTH:
                    self.length = _length_of(value)
                elif kind == _CONNECTION:
                    self.close = self.close or b"close" in value.lower()
                    continue
                else:
                    continue
            fields.append(b"%b: %b\r\n" % (name, value))
        self._fields = b"".join(fields)
        lines = len(fields)
        if (
            self._fields.count(b"\n") != lines
            or self._fields.count(b"\r") != lines
            or b"\0" in self._fields
            or b"\n:" in self._fields
        ):
            raise ValueError("a field of the answer has a line's end or a NUL in it, or no name")

    def encode(self, date: bytes, *, framing: bytes, keep_alive: bool, http_1_0: bool) -> bytes:
        """The head with its empty line; ``framing`` is the field that says where the body ends, or empty."""
        if not keep_alive:
            return b"%b%b%bconnection: close\r\n\r\n" % (self._fields, framing, date)
        if http_1_0:
            return b"%b%b%bconnection: keep-alive\r\n\r\n" % (self._fields, framing, date)
        return b"%b%b%b\r\n" % (self._fields, framing, date)


def _length_of(value: bytes) -> int:
    if not value.isdigit():
        raise ValueError(f"content-length is no number: {value!r}")
    return int(value)


def plain_answer(status: int, text: str, date: bytes) -> bytes:
    """A whole answer of the server's own, the last one of its connection."""
    body = text.encode() + b"\n"
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", b"%d" % len(body))]
    return AnswerHead(status, headers).encode(date, framing=b"", keep_alive=False, http_1_0=False) + body
