# flake8: noqa: ASYNC910, ASYNC912
# Loops and branches that wait, as every test here does.
"""TLS on the listener, under both servers."""

import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import trio
import trio.testing
import trustme

from collector.config import Config, HttpConfig
from collector.config_rules import problems_of
from collector.web.asgi_types import Receive, Scope, Send
from collector.web.lane.reactor import Reactor
from collector.web.lane.socket_transport import SocketTransport
from collector.web.lane.tls_transport import TlsTransport
from collector.web.tls import make_server_context
from tests.collector.web.lane.conftest import Client, Serving, echo, ok, start

GET = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"


@dataclass(frozen=True)
class Papers:
    certfile: str
    keyfile: str
    client: ssl.SSLContext

    @property
    def settings(self) -> dict[str, str]:
        return {"ssl_certfile": self.certfile, "ssl_keyfile": self.keyfile}


@pytest.fixture(scope="module")
def papers(tmp_path_factory: pytest.TempPathFactory) -> Papers:
    directory: Path = tmp_path_factory.mktemp("papers")
    authority = trustme.CA()
    certificate = authority.issue_cert("localhost")
    certificate.cert_chain_pems[0].write_to_path(directory / "chain.pem")
    certificate.private_key_pem.write_to_path(directory / "key.pem")
    client = ssl.create_default_context()
    authority.configure_trust(client)
    return Papers(str(directory / "chain.pem"), str(directory / "key.pem"), client)


async def connect(server: Serving, papers: Papers, *alpn: str) -> Client:
    if alpn:
        papers.client.set_alpn_protocols(list(alpn))
    plain = await trio.open_tcp_stream("127.0.0.1", server.port)
    stream = trio.SSLStream(plain, papers.client, server_hostname="localhost", https_compatible=True)
    with trio.fail_after(3):
        await stream.do_handshake()
    server.clients.append(Client(stream))
    return server.clients[-1]


@pytest.mark.parametrize("name", ["lane", "stock"])
async def test_requests_over_tls(lane, papers: Papers, name: str) -> None:
    schemes: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        schemes.append(scope["scheme"])
        await echo(scope, receive, send)

    async with lane(app, http={"server": name, **papers.settings}) as server:
        client = await connect(server, papers)
        for body in (b"small", bytes(300_000), b"again"):
            await client.say(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % len(body) + body)
            await client.hear_answer(body)
        await client.aclose()
        await server.wait_idle()
    assert schemes == ["https"] * 3


async def test_large_answers_over_tls_wait_for_the_client(lane, papers: Papers) -> None:
    size = 8 * 1024 * 1024

    async def large(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start(size))
        await send(ok(bytes(size)))

    async with lane(large, http=papers.settings) as server:
        client = await connect(server, papers)
        await client.say(GET)
        await client.hear(b"\r\n\r\n")
        left = size - len(client.read)
        with trio.fail_after(10):
            while left:
                left -= len(await client.stream.receive_some())


async def test_last_answer_over_tls_ends_with_the_alert(lane, papers: Papers) -> None:
    async with lane(echo, http=papers.settings) as server:
        client = await connect(server, papers)
        assert isinstance(client.stream, trio.SSLStream)
        # A stream that is cut without the alert would raise BrokenResourceError here.
        client.stream._https_compatible = False
        await client.say(b"GARBAGE\r\n\r\n")
        assert (await client.hear_end()).startswith(b"HTTP/1.1 400 ")


async def test_client_that_does_not_shake_hands_is_closed(lane, papers: Papers) -> None:
    async with lane(echo, http={**papers.settings, "head_timeout_s": 0.3}) as server:
        silent = await server.connect()
        cleartext = await server.connect()
        await cleartext.say(GET)
        assert b"HTTP" not in await cleartext.hear_end()
        assert await silent.hear_end() == b""
        leaving = await server.connect()
        await leaving.say(b"\x16\x03\x01")
        await leaving.aclose()
        await server.wait_idle()


async def test_http2_over_tls_where_it_is_configured(lane, papers: Papers) -> None:
    from h2.config import H2Configuration
    from h2.connection import H2Connection
    from h2.events import DataReceived, StreamEnded

    async with lane(echo, http={**papers.settings, "http2": True}) as server:
        client = await connect(server, papers, "h2", "http/1.1")
        assert isinstance(client.stream, trio.SSLStream)
        assert client.stream.selected_alpn_protocol() == "h2"
        protocol = H2Connection(H2Configuration(client_side=True))
        protocol.initiate_connection()
        protocol.send_headers(1, [(":method", "GET"), (":path", "/"), (":scheme", "https"), (":authority", "x")], True)
        await client.say(protocol.data_to_send())
        events: list[object] = []
        with trio.fail_after(3):
            while not any(isinstance(event, StreamEnded) for event in events):
                events += protocol.receive_data(await client.stream.receive_some())
                await client.say(protocol.data_to_send())
        assert b"".join(event.data for event in events if isinstance(event, DataReceived)) == b"ok"
        await client.aclose()
        await server.wait_idle()


async def test_http2_is_not_offered_where_it_is_not_configured(lane, papers: Papers) -> None:
    async with lane(echo, http=papers.settings) as server:
        client = await connect(server, papers, "h2", "http/1.1")
        assert isinstance(client.stream, trio.SSLStream)
        assert client.stream.selected_alpn_protocol() == "http/1.1"
        await client.say(GET)
        await client.hear_answer()


def test_certificate_that_cannot_be_read_is_refused_with_its_key(papers: Papers, tmp_path: Path) -> None:
    nothing = tmp_path / "nothing.pem"
    nothing.write_text("nothing")
    for certfile, keyfile in ((str(tmp_path / "none.pem"), None), (str(nothing), None), (papers.certfile, None)):
        with pytest.raises(OSError, match=r"http\.ssl_certfile, http\.ssl_keyfile: "):
            make_server_context(HttpConfig(ssl_certfile=certfile, ssl_keyfile=keyfile))
    assert make_server_context(HttpConfig()) is None


def test_key_without_a_certificate_is_a_problem_of_the_configuration() -> None:
    config = Config(http=replace(HttpConfig(), ssl_keyfile="key.pem"))
    assert ("http.ssl_keyfile", "needs http.ssl_certfile beside it") in list(problems_of(config))


@asynccontextmanager
async def shaken_hands(papers: Papers) -> AsyncIterator[tuple[TlsTransport, trio.SSLStream[trio.SocketStream]]]:
    """A transport of the lane's, and its client."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    context = make_server_context(HttpConfig(ssl_certfile=papers.certfile, ssl_keyfile=papers.keyfile))
    assert context is not None
    reactor = Reactor()
    transport = TlsTransport(SocketTransport(ours, reactor, 2.0), context)
    plain = trio.SocketStream(trio.socket.from_stdlib_socket(theirs))
    client = trio.SSLStream(plain, papers.client, server_hostname="localhost")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(reactor.run)
        with trio.fail_after(5):
            async with trio.open_nursery() as both:
                both.start_soon(transport.handshake)
                both.start_soon(client.do_handshake)
            yield transport, client
        await trio.aclose_forcefully(plain)
        transport.abort()
        nursery.cancel_scope.cancel(reason="the test is over")
    reactor.close()


async def test_reader_that_has_something_to_send_leaves_it_to_who_is_writing(papers: Papers) -> None:
    async with shaken_hands(papers) as (transport, client):
        body = bytes(3_000_000)

        async def write() -> None:
            if not transport.send_now(body):
                await transport.send(b"")

        async def read() -> None:
            assert await transport.receive() == b""  # as it is interrupted

        left = len(body)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(write)
            await trio.testing.wait_all_tasks_blocked(0.05)
            assert transport.pending
            transport._session.write(b"as a KeyUpdate")  # what OpenSSL wants to send while it reads
            nursery.start_soon(read)
            await trio.testing.wait_all_tasks_blocked(0.05)
            assert transport.interrupt()
            while left > -len(b"as a KeyUpdate"):
                left -= len(await client.receive_some())


async def test_interrupt_between_two_parts_of_a_record_is_not_lost(papers: Papers) -> None:
    async with shaken_hands(papers) as (transport, client):
        heard: list[bytes] = []

        async def read() -> None:
            heard.append(await transport.receive())

        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            await trio.testing.wait_all_tasks_blocked(0.02)
            await client.transport_stream.send_all(b"\x17\x03")  # a record begins
            transport._inner.readable(0)  # the reactor has told, the task did not run yet
            assert transport.interrupt()
        assert heard == [b""]
