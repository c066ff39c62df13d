"""Random connections: requests by the grammar, one behind the other, and here and there one that is not in order.

What is broken is broken where recipients are known to differ: the ends of lines, white space, lengths, codings, chunk
lines, names. Behind a broken request come others, so that one that ends elsewhere shows.
"""

import random
from collections.abc import Callable, Iterator
from typing import TypeAlias

from tests.smuggling.corpus_bodies import NEARLY_CHUNKED, NO_LENGTHS

__all__ = ["LAST", "connections", "requests"]

#: The end of every connection: who reads it closes.
LAST = b"GET /last HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"

#: One request in so many is broken.
ONE_BROKEN_IN = 6
MAX_ON_A_CONNECTION = 16

Lines: TypeAlias = list[bytes]
Break: TypeAlias = Callable[[random.Random, Lines, bytes], bytes]

METHODS = (b"GET", b"POST", b"POST", b"POST", b"PUT", b"PATCH", b"DELETE", b"OPTIONS", b"HEAD")
TARGETS = (
    b"/", b"/a", b"/a?b=c", b"/api/track", b"/v1/t?x=%20", b"//a", b"/a/../b", b"/%61", b"http://a/b", b"/?",
    b"/a?{|}", b"http://a:80/b?c", b"/_error/x", b"/a;b=c", b"/healthz", b"/~a!$&'()*+,;=:@",
)  # fmt: skip
NAMES = (
    b"Accept", b"User-Agent", b"X-A", b"Cookie", b"Content-Type", b"x_under_score", b"TE", b"Trailer", b"Via", b"A",
    b"X-Forwarded-Proto", b"Authorization", b"Accept-Encoding", b"Content-Lengt", b"Content-Encoding", b"Origin",
)  # fmt: skip
VALUES = (
    b"b", b"", b"*/*", b"a, b", b"chunked", b"5", b'text/plain; a="b"', b"caf\xe9", b"a\tb", b"x" * 40, b":", b"a: b",
)  # fmt: skip
CONNECTIONS = (b"keep-alive", b"close", b"Keep-Alive, X-A", b"upgrade", b"x")

#: Bytes that mean something to one parser or another.
BYTES = (
    b"\r", b"\n", b"\r\n", b"\n\n", b"\r\r", b"\x00", b" ", b"\t", b"\x0b", b"\x0c", b":", b";", b",", b"0", b"5",
    b"f", b"-", b"+", b"_", b"x", b"\x7f", b"\x80", b"\xff", b'"', b"\x1f", b"\\", b"/", b"#", b"?", b"%", b"=",
)  # fmt: skip
FIELDS = (
    b"Transfer-Encoding: chunked", b"transfer-encoding:chunked", b"Transfer-Encoding : chunked",
    b" Transfer-Encoding: chunked", b"Content-Length: 0", b"Content-Length: 5", b"content-length : 5",
    b"Content-Length:", b"Host: b", b"Host :a", b"Host: a b", b"Expect: 100-continue", b"Upgrade: h2c",
    b"Connection: close", b"GET /smuggled HTTP/1.1", b"X", b": x", b"X Y: z", b"Content_Length: 5",
    b"Transfer_Encoding: chunked", b"Content-Length: 5, 5", b"\tfold",
)  # fmt: skip
VERSIONS = (
    b"HTTP/1.0", b"HTTP/0.9", b"HTTP/2.0", b"HTTP/1.2", b"http/1.1", b"HTTP/1.1 ", b"HTTP/1.01", b"HTTP/11", b"",
    b"HTTP/1.1x",
)  # fmt: skip
SIZES = (
    b"+5", b"0x5", b"5 ", b" 5", b"5;a", b"5;a=b", b"5;\n", b"05", b"0" * 17 + b"5", b"F" * 16, b"-5", b"", b"5\t",
    b"5_0", b"g", b"5\r", b"5\n", b"10000000000000005", b"ffffffff", b"5;a=\"\r\n\"", b"0", b"00",
)  # fmt: skip
ENDS = (b"\n", b"\r", b"\r\r\n", b"\n\r", b"", b" \r\n", b"\r\n\r\n", b"\r\n\n", b"\x0b\r\n")


def connections(seed: int) -> Iterator[tuple[bytes, int]]:
    """Endlessly: the bytes of one connection, and how many requests were generated for it, `LAST` not counted."""
    for number in range(2**62):
        rng = random.Random(seed * 2**62 + number)
        count = rng.randint(1, MAX_ON_A_CONNECTION)
        yield b"".join(requests(rng, count)) + LAST, count


def requests(rng: random.Random, count: int) -> Iterator[bytes]:
    """``count`` requests, some of them broken."""
    for _ in range(count):
        lines, body = _in_order(rng)
        if rng.randrange(ONE_BROKEN_IN):
            yield _joined(lines, body)
        else:
            yield rng.choice(BREAKS)(rng, lines, body)


def _joined(lines: Lines, body: bytes) -> bytes:
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def _in_order(rng: random.Random) -> tuple[Lines, bytes]:
    """A request as the grammar wants it: its lines and its body."""
    method, target = rng.choice(METHODS), rng.choice(TARGETS)
    fields = [b"Host: a"]
    fields += [
        rng.choice(NAMES) + rng.choice((b":", b": ", b":\t", b":  ")) + rng.choice(VALUES)
        for _ in range(rng.randrange(5))
    ]
    if not rng.randrange(40):
        fields.append(b"Connection: " + rng.choice(CONNECTIONS))
    if not rng.randrange(40):
        fields.append(b"Expect: 100-continue")
    body = b""
    kind = rng.randrange(4) if method in (b"GET", b"HEAD", b"DELETE", b"OPTIONS") else rng.randrange(1, 4)
    if kind in (1, 2):
        data = _data(rng)
        fields.append(_cased(rng, b"Content-Length: ") + b"0" * (not rng.randrange(20)) + b"%d" % len(data))
        body = data
    elif kind == 3:
        fields.append(_cased(rng, b"Transfer-Encoding: ") + _cased(rng, b"chunked"))
        body = _chunks(rng)
    rng.shuffle(fields)
    return [method + b" " + target + b" HTTP/1.1", *fields], body


def _cased(rng: random.Random, name: bytes) -> bytes:
    return name if rng.randrange(4) else rng.choice((name.upper(), name.lower(), name.swapcase()))


def _data(rng: random.Random) -> bytes:
    choice = rng.randrange(5)
    if choice == 0:
        return b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"
    if choice == 1:
        return b"0\r\n\r\n"
    return rng.randbytes(rng.choice((0, 1, 5, 5, 17, 60)))


def _chunks(rng: random.Random, *, size: bytes | None = None, end: bytes | None = None) -> bytes:
    """A chunked body; ``size`` and ``end`` stand in for one of its sizes and for one of its CRLFs."""
    pieces = [data for data in (_data(rng) for _ in range(rng.randrange(4))) if data]
    lines: Lines = []
    for piece in pieces:
        digits = b"0" * rng.choice((0, 0, 0, 1, 3)) + rng.choice((b"%x", b"%X")) % len(piece)
        lines += [digits, b"\r\n", piece, b"\r\n"]
    lines += [rng.choice((b"0", b"0", b"0", b"000")), b"\r\n"]
    for _ in range(rng.choice((0, 0, 0, 1, 2))):
        lines += [rng.choice(NAMES) + b": " + rng.choice(VALUES), b"\r\n"]
    lines.append(b"\r\n")
    if size is not None:
        lines[rng.choice([number for number in range(0, len(lines), 2) if number % 4 == 0])] = size
    if end is not None:
        lines[rng.choice([number for number, line in enumerate(lines) if line == b"\r\n"])] = end
    return b"".join(lines)


def _break_bytes(rng: random.Random, lines: Lines, body: bytes) -> bytes:
    """A few bytes put in, taken out, replaced or doubled anywhere."""
    raw = bytearray(_joined(lines, body))
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        at = rng.randrange(len(raw) + 1)
        until = at + rng.choice((0, 0, 1, 1, 2))
        raw[at:until] = rng.choice((rng.choice(BYTES), rng.choice(BYTES), raw[at : at + 2], b""))
    return bytes(raw)


def _break_head_bytes(rng: random.Random, lines: Lines, body: bytes) -> bytes:
    """The same, in one line of the head."""
    at = rng.randrange(len(lines))
    line = bytearray(lines[at])
    where = rng.randrange(len(line) + 1)
    line[where : where + rng.choice((0, 0, 1))] = rng.choice(BYTES)
    lines[at] = bytes(line)
    return _joined(lines, body)


def _break_fields(rng: random.Random, lines: Lines, body: bytes) -> bytes:
    """Field lines put in, doubled, taken out or moved."""
    at = rng.randrange(1, len(lines) + 1)
    match rng.randrange(4):
        case 0:
            lines.insert(at, rng.choice(FIELDS))
        case 1:
            lines.insert(at, rng.choice(lines[1:]))
        case 2:
            del lines[min(at, len(lines) - 1)]
        case _:
            lines.insert(at, lines.pop(rng.randrange(len(lines))))
    return _joined(lines, body)


def _break_end_of_line(rng: random.Random, lines: Lines, body: bytes) -> bytes:
    """One line of the head ends in something else than CRLF."""
    ends = [b"\r\n"] * (len(lines) + 1)
    ends[rng.randrange(len(ends))] = rng.choice(ENDS)
    return b"".join(line + end for line, end in zip([*lines, b""], ends, strict=True)) + body


def _break_coding(rng: random.Random, lines: Lines, body: bytes) -> bytes:
    """A body in chunks under something like Transfer-Encoding, with or without a length."""
    del body
    head = [line for line in lines if not line.lower().startswith((b"content-length", b"transfer-encoding"))]
    value = rng.choice((b"chunked", *NEARLY_CHUNKED))
    name = rng.choice((b"Transfer-Encoding: ", b"Transfer-Encoding:", b"Transfer-Encoding : ", b"Transfer-Encoding:\t"))
    head.append(name + value)
    chunks = _chunks(rng)
    if rng.randrange(2):
        head.insert(rng.randrange(1, len(head) + 1), b"Content-Length: %d" % rng.choice((0, 4, 5, len(chunks))))
    return _joined(head, chunks)


def _break_length(rng: random.Random, lines: Lines, body: bytes) -> bytes:
    """A length that is none, too large or too small."""
    head = [line for line in lines if not line.lower().startswith((b"content-length", b"transfer-encoding"))]
    value = rng.choice((*NO_LENGTHS, b"%d" % (len(body) + 1), b"%d" % max(len(body) - 1, 0), b"%d\t" % len(body)))
    head.append(b"Content-Length: " + value)
    return _joined(head, body)


def _break_chunks(rng: random.Random, lines: Lines, body: bytes) -> bytes:
    """A chunk line, or the end of one, of its data or of a trailer, is something else."""
    del body
    head = [line for line in lines if not line.lower().startswith((b"content-length", b"transfer-encoding"))]
    head.append(b"Transfer-Encoding: chunked")
    if rng.randrange(2):
        return _joined(head, _chunks(rng, size=rng.choice(SIZES)))
    return _joined(head, _chunks(rng, end=rng.choice(ENDS)))


def _break_request_line(rng: random.Random, lines: Lines, body: bytes) -> bytes:
    """Another version, other white space, something before the line."""
    method, target, _ = lines[0].split(b" ")
    match rng.randrange(3):
        case 0:
            lines[0] = b" ".join((method, target, rng.choice(VERSIONS)))
        case 1:
            space = rng.choice((b"  ", b"\t", b" \t", b"\x0b", b"", b"\x00", b"\xa0"))
            lines[0] = method + space + target + b" HTTP/1.1"
        case _:
            lines[0] = (
                rng.choice((b"\r\n", b"\n", b"\r", b" ", b"\r\n\r\n", b"\x00", b"0\r\n\r\n", b"5\r\nhello\r\n"))
                + lines[0]
            )
    return _joined(lines, body)


BREAKS: tuple[Break, ...] = (
    _break_bytes,
    _break_head_bytes,
    _break_fields,
    _break_end_of_line,
    _break_coding,
    _break_length,
    _break_chunks,
    _break_request_line,
)
