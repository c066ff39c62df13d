"""Where a body ends: Content-Length, Transfer-Encoding, both of them, chunks, trailers, what follows."""

from tests.smuggling.case import LIMITS, Case, Read, chunked, field

__all__ = ["BODIES"]

ROOT = Read("GET", b"/")
EMPTY = Read("POST", b"/")
HELLO = Read("POST", b"/", b"hello")
SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"

#: Values of Transfer-Encoding that somebody took for chunked, and somebody else did not.
NEARLY_CHUNKED = (
    b"xchunked", b"chunkedx", b"chunke", b"chunked x", b"chunked, identity", b"identity", b"x", b"chunked,",
    b",chunked",
    b"chunked, chunked", b"chunked;a=b", b"chunked;", b'"chunked"', b"'chunked'", b"[chunked]", b"chun ked",
    b"chunked, ",
    b"\x0bchunked", b"\x0cchunked", b"chunked\x0b", b"\x00chunked", b"chunked\x00", b"\x01chunked", b"chunked\x7f",
    b"\xa0chunked", b"\xc2\xa0chunked", b"chunk\xc3\xa9d", b"chun\xe2\x84\xaaed", b"c\rhunked", b"chunked\r",
    b"\rchunked",
    b"\nchunked", b"chunked\n", b"\n chunked", b"", b"%63hunked", b"chunked/1", b"x-chunked", b"gzip", b"chunked gzip",
    b"gzip chunked", b"gzip, chunked, chunked", b"gzip,,chunked", b"=?utf-8?q?chunked?=", b"\\chunked", b"false",
)  # fmt: skip

TRANSFER_ENCODINGS = [
    field(b"Transfer-Encoding: chunked\r\n", "chunked", 0, HELLO),
    field(b"tRANSFER-eNCODING:\tChUnKeD \r\n", "chunked, in any letters, between white space", 0, HELLO),
    field(b"Transfer-Encoding: chunked\t\r\n", "chunked, and a tab, which llhttp takes for a letter"),
    *(field(b"Transfer-Encoding: " + value + b"\r\n", f"Transfer-Encoding is {value!r}") for value in NEARLY_CHUNKED),
    *(
        field(b"Content-Length: 5\r\nTransfer-Encoding: " + value + b"\r\n", f"the same beside a length: {value!r}")
        for value in (b"chunked", *NEARLY_CHUNKED)
    ),
    *(
        field(b"Transfer-Encoding: " + value + b"\r\n", f"a coding that is none of ours: {value!r}", 501)
        for value in (b"gzip, chunked", b"identity, chunked", b"cow , chunked", b"deflate,\tchunked")
    ),
    field(b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", "chunked twice"),
    field(b"Transfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n", "chunked, then another"),
    field(b"Transfer-Encoding: x\r\nTransfer-Encoding: chunked\r\n", "another, then chunked"),
    field(b"Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n", "identity, then chunked"),
    field(b"Transfer-Encoding: chunked\r\ntransfer-encoding:\r\n", "chunked, then an empty one"),
    field(b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", "TE.CL"),
    field(b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", "CL.TE"),
    field(b"Content-Length: 0\r\nTransfer-Encoding: chunked\r\n", "0.TE"),
    field(b"Content-Length: x\r\nTransfer-Encoding: chunked\r\n", "a length that is none, and chunked"),
    field(b" Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", "a space before Transfer-Encoding"),
    field(b"X: y\r\n\tTransfer-Encoding: chunked\r\n", "a tab before Transfer-Encoding"),
    field(b"X: y\nTransfer-Encoding: chunked\r\n", "Transfer-Encoding behind a bare LF"),
    field(b"X: y\rTransfer-Encoding: chunked\r\n", "Transfer-Encoding behind a bare CR"),
    field(b"Transfer-Encoding : chunked\r\nContent-Length: 5\r\n", "a space behind Transfer-Encoding"),
    field(b"Transfer-Encoding\t: chunked\r\nContent-Length: 5\r\n", "a tab behind Transfer-Encoding"),
    field(b"Transfer-Encoding\n: chunked\r\nContent-Length: 5\r\n", "a LF behind Transfer-Encoding"),
    field(b"Transfer-Encoding:: chunked\r\nContent-Length: 5\r\n", "two colons"),
    field(b"Transfer-Encoding chunked\r\nContent-Length: 5\r\n", "no colon"),
    field(b"Transfer Encoding: chunked\r\nContent-Length: 5\r\n", "a space for the hyphen"),
    field(b"Transfer_Encoding: chunked\r\nContent-Length: 5\r\n",
          "an underscore for the hyphen", 0, HELLO, body=b"hello"),
    field(b"Content-Encoding: chunked\r\nContent-Length: 5\r\n",
          "Content-Encoding is another field", 0, HELLO, body=b"hello"),
    field(b"TE: chunked\r\nContent-Length: 5\r\n", "TE is another field", 0, HELLO, body=b"hello"),
    field(b"Connection: Transfer-Encoding\r\nTransfer-Encoding: chunked\r\n",
          "named in Connection, it still says", 0, HELLO),
    field(b"Connection: Content-Length\r\nContent-Length: 5\r\n", "the same for the length", 0, HELLO, body=b"hello"),
    Case(
        name="chunks in HTTP/1.0",
        raw=b"POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        status=400,
    ),
    Case(
        name="chunks in HTTP/1.0 that stays",
        raw=b"POST / HTTP/1.0\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        status=400,
    ),
    Case(
        name="chunks in HTTP/1.0, and a length",
        raw=b"POST / HTTP/1.0\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        status=400,
    ),
    Case(
        name="TE.0: chunks for a method that needs none",
        raw=b"OPTIONS / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
        + f"{len(SMUGGLED):x}\r\n".encode() + SMUGGLED + b"\r\n0\r\n\r\n",
        reads=(Read("OPTIONS", b"/", SMUGGLED),),
    ),
]  # fmt: skip

NO_LENGTHS = (
    b"", b"+5", b"-5", b"-0", b"5 5", b"5,5", b"5, 5", b"5;", b"5;5", b"5.0", b"5e0", b"0x5", b"0o5", b"0b1", b"5_0",
    b"5L",
    b"5 ,", b",5", b"five", b'"5"', b"'5'", b"5\x00", b"\x005", b"5\x0b", b"\x0b5", b"\x0c5", b"5\x0c", b"5\r",
    b"\r5", b"5\n",
    b"5\n6", b"\xef\xbc\x95", b"\xd9\xa5", b"\xb5", b"\xa05", b"5\xa0", b"5 x", b"5(c)", b"1" * 19, b"0" * 18 + b"5",
    b"18446744073709551616", b"18446744073709551621", b"9223372036854775808", b"4294967301000000000000", b"5,", b"%35",
)  # fmt: skip

LENGTHS = [
    field(b"Content-Length: 5\r\n", "five", 0, HELLO, body=b"hello"),
    field(b"Content-Length: 005\r\n", "zeros before five", 0, HELLO, body=b"hello"),
    field(b"Content-Length: 0\r\n", "none", 0, EMPTY, body=b""),
    field(b"", "a POST without a length has no body", 0, EMPTY, body=b""),
    *(
        field(b"Content-Length: " + value + b"\r\n", f"Content-Length is {value!r}", body=b"hello")
        for value in NO_LENGTHS
    ),
    field(b"Content-Length: 5\r\nContent-Length: 5\r\n", "two equal lengths", body=b"hello"),
    field(b"Content-Length: 5\r\ncontent-length: 6\r\n", "two lengths", body=b"hello"),
    field(b"Content-Length: 0\r\nContent-Length: 5\r\n", "none and five", body=b"hello"),
    field(b"Content-Length: 5\r\nContent-Length:\r\n", "five and an empty one", body=b"hello"),
    field(b"Content-Length: 5\r\nContent-Length : 6\r\n", "five, and six with a space", body=b"hello"),
    field(b"Content-Length: 5\r\nContent-Length: +5\r\n", "five, and five with a sign", body=b"hello"),
    field(b"Content-Length: 5\r\n Content-Length: 6\r\n", "five, and six in a fold", body=b"hello"),
    Case(
        name="CL.0: a GET has a body where it says so",
        raw=b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 35\r\n\r\n" + SMUGGLED,
        reads=(Read("GET", b"/", SMUGGLED),),
    ),
    Case(
        name="a HEAD has a body where it says so",
        raw=b"HEAD / HTTP/1.1\r\nHost: a\r\nContent-Length: 35\r\n\r\n" + SMUGGLED,
        reads=(Read("HEAD", b"/", SMUGGLED),),
    ),
    Case(
        name="a TRACE has a body where it says so",
        raw=b"TRACE / HTTP/1.1\r\nHost: a\r\nContent-Length: 35\r\n\r\n" + SMUGGLED,
        reads=(Read("TRACE", b"/", SMUGGLED),),
    ),
    Case(
        name="0.CL: a GET that expects 100 has its body too",
        raw=b"GET / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 35\r\n\r\n" + SMUGGLED,
        reads=(Read("GET", b"/", SMUGGLED),),
    ),
    field(b"Expect: y 100-continue\r\nContent-Length: 5\r\n", "an Expect that is none", 0, HELLO, body=b"hello"),
    field(b"Expect: 100-continue\r\nExpect: 100-continue\r\nContent-Length: 5\r\n",
          "two Expects", 0, HELLO, body=b"hello"),
    Case(
        name="an upgrade to something else has its body",
        raw=b"POST / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: x\r\nContent-Length: 35\r\n\r\n" + SMUGGLED,
        reads=(Read("POST", b"/", SMUGGLED),),
    ),
    Case(
        name="an upgrade to something else is a request like others",
        raw=b"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
        reads=(ROOT,),
    ),
    Case(
        name="a websocket handshake with a body is none",
        raw=b"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\nContent-Length: 35\r\n\r\n"
        + SMUGGLED,
        reads=(Read("GET", b"/", SMUGGLED),),
    ),
    Case(
        name="a websocket handshake with chunks is none",
        raw=b"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n"
        b"5\r\nhello\r\n0\r\n\r\n",
        reads=(Read("GET", b"/", b"hello"),),
    ),
    Case(
        name="h2c that is not configured is a request like others",
        raw=b"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade, http2-settings\r\nUpgrade: h2c\r\n"
        b"HTTP2-Settings: AA\r\n\r\n",
        reads=(ROOT,),
    ),
]  # fmt: skip

BAD_CHUNKS = (
    # sizes
    b"+5\r\nhello\r\n", b"-5\r\nhello\r\n", b"0x5\r\nhello\r\n", b"x5\r\nhello\r\n", b"5x\r\nhello\r\n",
    b"5h\r\nhello\r\n",
    b" 5\r\nhello\r\n", b"5 \r\nhello\r\n", b"\t5\r\nhello\r\n", b"5\t\r\nhello\r\n", b"5\x0b\r\nhello\r\n",
    b"0_5\r\nhello\r\n",
    b"5,\r\nhello\r\n", b"5.0\r\nhello\r\n", b"\x005\r\nhello\r\n", b"5\x00\r\nhello\r\n", b"\xef\xbc\x95\r\nhello\r\n",
    b"\r\nhello\r\n", b"hello\r\n", b"\xb5\r\nhello\r\n", b'"5"\r\nhello\r\n', b"00000000000000005\r\nhello\r\n",
    b"0000000000000000000000000000000000000000000000005\r\nhello\r\n", b"FFFFFFFFFFFFFFFF\r\nhello\r\n",
    b"10000000000000005\r\nhello\r\n", b"8000000000000000\r\nhello\r\n", b"7FFFFFFFFFFFFFFF\r\nhello\r\n",
    b"100000005000000000000\r\nhello\r\n", b"20000000000001\r\nhello\r\n",
    # extensions
    b"5;\r\nhello\r\n", b"5;a\r\nhello\r\n", b"5;a=b\r\nhello\r\n", b"5 ;a=b\r\nhello\r\n", b"5; a = b\r\nhello\r\n",
    b'5;a="b"\r\nhello\r\n', b'5;a="\r\n"\r\nhello\r\n', b"5;a\nb\r\nhello\r\n", b"5;\nhello\r\n",
    b"5;a\rb\r\nhello\r\n",
    b"5;\x00a\r\nhello\r\n", b"5;;\r\nhello\r\n", b"5 a\r\nhello\r\n", b"5\xa0\r\nhello\r\n",
    b"5;" + b"a" * 500 + b"\r\nhello\r\n",
    # ends of the line
    b"5\nhello\r\n", b"5\rhello\r\n", b"5\r\r\nhello\r\n", b"5\n\rhello\r\n", b"5\n\nhello\r\n", b"5\r\n\nhello\r\n",
    # ends of the data
    b"5\r\nhello\n", b"5\r\nhello\r", b"5\r\nhello", b"5\r\nhelloX\r\n", b"5\r\nhelloXX", b"5\r\nhello\n\r",
    b"5\r\nhello \r\n",
    b"5\r\nhello\r\r\n", b"5\r\nhello0\r\n\r\n", b"5\r\nhell\r\n", b"5\r\nhello\r\n\r\n", b"5\r\nhelloXX0\r\n\r\n",
)  # fmt: skip

BAD_LAST_CHUNKS = (
    b"0\n\n", b"0\r\n\n", b"0\n\r\n", b"0\r\r\n\r\n", b"0\r\rX", b"0;a\r\n\r\n", b"0 \r\n\r\n", b"0x0\r\n\r\n",
    b"-0\r\n\r\n", b"+0\r\n\r\n",
    b"0_0\r\n\r\n", b"00000000000000000\r\n\r\n", b"0\r\n\rX", b"0\r\nX\r\n\r\n",
)  # fmt: skip

CHUNKS = [
    chunked(b"0\r\n\r\n", "no chunks", 0, EMPTY),
    chunked(b"1\r\nh\r\n4\r\nello\r\n0\r\n\r\n", "two chunks", 0, HELLO),
    chunked(b"0005\r\nhello\r\n000\r\n\r\n", "a few zeros", 0, HELLO),
    chunked(b"a\r\n0123456789\r\nA\r\n0123456789\r\n0\r\n\r\n",
          "both letters", 0, Read("POST", b"/", b"0123456789" * 2)),
    chunked(b"6\r\n\r\n\r\n0\r\r\n0\r\n\r\n", "data that looks like an end", 0, Read("POST", b"/", b"\r\n\r\n0\r")),
    *(chunked(body + b"0\r\n\r\n", f"a chunk is {body[:40]!r}") for body in BAD_CHUNKS),
    *(chunked(b"5\r\nhello\r\n" + body, f"the end is {body!r}") for body in BAD_LAST_CHUNKS),
]  # fmt: skip

TRAILERS = [
    chunked(b"5\r\nhello\r\n0\r\nA: b\r\nC:\r\n\r\n", "trailers in order", 0, HELLO),
    chunked(b"0\r\nContent-Length: 35\r\n\r\n", "a trailer is no header: a length", 0, EMPTY),
    chunked(b"0\r\nTransfer-Encoding: chunked\r\nHost: b\r\nHost: c\r\n\r\n",
          "a trailer is no header: others", 0, EMPTY),
    chunked(b"0\r\nConnection: close\r\n\r\n", "a trailer is no header: the end of the connection", 0, EMPTY),
    chunked(b"0\r\n" + b"A: x\r\n" * LIMITS.head_fields + b"\r\n", "as many trailers as fields", 0, EMPTY),
    chunked(b"0\r\n" + b"A: x\r\n" * (LIMITS.head_fields + 1) + b"\r\n", "a trailer too many", 431),
    chunked(b"0\r\nA: " + b"x" * LIMITS.head_bytes + b"\r\n\r\n", "a long trailer", 431),
    chunked(b"0\r\nA: " + b"x" * (LIMITS.head_bytes - 7) + b"\r\n\r\n", "the longest trailers", 0, EMPTY),
    chunked(b"0\r\nA: " + b"x" * (LIMITS.head_bytes - 6) + b"\r\n\r\n", "trailers one byte too long", 431),
    *(
        chunked(b"0\r\n" + trailer + b"\r\n\r\n", f"a trailer is {trailer!r}")
        for trailer in (
            b"A", b": b", b"A : b", b" A: b", b"\tA: b", b"A: b\r\n c", b"A: b\nC: d", b"A: b\rC: d", b"A: \x00",
            b"A\x00: b",
            b"A: b\n", b"A: b\r", b"A\xff: b", b"GET /smuggled HTTP/1.1", b"A: \x7f", b"(A): b",
        )
    ),
]  # fmt: skip

CLOSED = [
    Case(
        name="what follows the last request is nothing",
        raw=b"POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhelloGARBAGE\r\n\r\n",
        reads=(HELLO,),
        closes=True,
    ),
    Case(
        name="what follows the last request is nothing: chunks",
        raw=b"POST / HTTP/1.1\r\nHost: a\r\nConnection: x, CLOSE\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n\x00",
        reads=(EMPTY,),
        closes=True,
    ),
    Case(
        name="what follows HTTP/1.0 is nothing",
        raw=b"POST / HTTP/1.0\r\nContent-Length: 5\r\n\r\nhello" + SMUGGLED,
        reads=(HELLO,),
        closes=True,
    ),
    Case(
        name="HTTP/1.0 without a length has no body",
        raw=b"POST / HTTP/1.0\r\n\r\nhello",
        reads=(EMPTY,),
        closes=True,
    ),
    Case(
        name="close beats keep-alive",
        raw=b"GET / HTTP/1.0\r\nConnection: keep-alive, close\r\n\r\n",
        reads=(ROOT,),
        closes=True,
    ),
    Case(
        name="closed in a second field",
        raw=b"GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive\r\nConnection: close\r\n\r\n",
        reads=(ROOT,),
        closes=True,
    ),
    field(b"Content-Length: 5\r\n", "garbage behind a body", 400, HELLO, body=b"hello\x00"),
    field(b"Content-Length: 5\r\n", "a body longer than it says", 0,
          HELLO, Read("!GET", b"/smuggled"), body=b"hello!" + SMUGGLED),
    field(b"Content-Length: 5\r\n", "CRLF behind a body (RFC 9112, 2.2)", 0, HELLO, body=b"hello\r\n"),
    field(b"Content-Length: 5\r\n", "two CRLF behind a body", 400, HELLO, body=b"hello\r\n\r\n"),
    field(b"Transfer-Encoding: chunked\r\n", "a chunk behind the end", 400, EMPTY, body=b"0\r\n\r\n5\r\nhello\r\n"),
    Case(
        name="a body behind a method that llhttp does not know, on a connection that llhttp has seen",
        raw=SMUGGLED + b"POSTX / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
        reads=(Read("GET", b"/smuggled"), Read("POSTX", b"/", b"hello")),
    ),
    Case(
        name="three in a row",
        raw=SMUGGLED
        + b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
        + SMUGGLED,
        reads=(Read("GET", b"/smuggled"), HELLO, Read("GET", b"/smuggled")),
    ),
]  # fmt: skip

BODIES = [*TRANSFER_ENCODINGS, *LENGTHS, *CHUNKS, *TRAILERS, *CLOSED]
