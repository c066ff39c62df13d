"""TLS and sockets for real, on loopback: what is refused, by whom, in which words."""

import datetime
import gc
import socket
import ssl
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
import trustme
from cryptography.hazmat.primitives import serialization

from kafka_client.config import ProducerConfig, SecurityConfig
from kafka_client.errors import ConfigError, ConnectionLost, ProtocolError, SecurityError
from kafka_client.network.connection import open_connection
from kafka_client.network.credentials import credentials_of
from kafka_client.network.tcp import connect_tcp
from kafka_client.network.tls import TlsContext, make_ssl_context, tls_refusal
from kafka_client.outcome import Record
from kafka_client.producer import open_producer
from kafka_client.testing import open_fake_cluster


@dataclass(frozen=True)
class Papers:
    """Certificates of one authority, as PEM files."""

    authority: trustme.CA
    cafile: str
    certfile: str
    keyfile: str


@pytest.fixture(scope="session")
def papers(tmp_path_factory: pytest.TempPathFactory) -> Papers:
    directory: Path = tmp_path_factory.mktemp("papers")
    authority = trustme.CA()
    client = authority.issue_cert("collector")
    authority.cert_pem.write_to_path(str(directory / "ca.pem"))
    client.private_key_pem.write_to_path(str(directory / "key.pem"))
    client.cert_chain_pems[0].write_to_path(str(directory / "cert.pem"))
    return Papers(authority, str(directory / "ca.pem"), str(directory / "cert.pem"), str(directory / "key.pem"))


def server_context(papers: Papers, name: str = "localhost", *, wants_client: bool = False) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    papers.authority.issue_cert(name).configure_cert(context)
    if wants_client:
        context.verify_mode = ssl.CERT_REQUIRED
        papers.authority.configure_trust(context)
    return context


def configured(port: int, **security: Any) -> ProducerConfig:
    return ProducerConfig(
        bootstrap_servers=f"localhost:{port}", security=SecurityConfig(protocol="SSL", **security), client_id="test"
    )


Serve = Callable[[trio.abc.Stream], Awaitable[None]]


@asynccontextmanager
async def listening(serve: Serve) -> AsyncIterator[int]:
    """A port on loopback; what goes wrong in ``serve`` because the client went away is nobody's business."""

    async def one(stream: trio.SocketStream) -> None:
        try:
            await serve(stream)
        except (trio.BrokenResourceError, trio.ClosedResourceError, ssl.SSLError):
            await trio.aclose_forcefully(stream)

    async with trio.open_nursery() as nursery:
        [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
        await nursery.start(trio.serve_listeners, one, [listener])
        yield listener.socket.getsockname()[1]
        nursery.cancel_scope.cancel(reason="the test is over")


def kafka_over_tls(context: ssl.SSLContext, versions_body: Callable[..., bytes]) -> Serve:
    async def serve(stream: trio.abc.Stream) -> None:
        tls = trio.SSLStream(stream, context, server_side=True, https_compatible=True)
        asked = await tls.receive_some()
        body = asked[8:12] + versions_body(4)
        await tls.send_all(len(body).to_bytes(4, "big") + body)
        await tls.receive_some()

    return serve


async def test_tls_connection_carries_requests(papers: Papers, make_versions_body: Callable[..., bytes]) -> None:
    async with listening(kafka_over_tls(server_context(papers), make_versions_body)) as port:
        async with open_connection("localhost", port, config=configured(port, ssl_cafile=papers.cafile)) as connection:
            assert connection.versions[0] == (3, 13)


async def test_mtls_shows_our_certificate(papers: Papers, make_versions_body: Callable[..., bytes]) -> None:
    context = server_context(papers, wants_client=True)
    config_of = {"ssl_cafile": papers.cafile, "ssl_certfile": papers.certfile, "ssl_keyfile": papers.keyfile}
    async with listening(kafka_over_tls(context, make_versions_body)) as port:
        async with open_connection("localhost", port, config=configured(port, **config_of)) as connection:
            assert connection.is_open


async def test_mtls_without_a_certificate_is_a_security_error_that_names_the_alert(papers: Papers) -> None:
    # TLS 1.3: our handshake has ended before the broker looks; its refusal comes with the first read. A socket of the
    # standard library plays the broker, since it sends the alert.
    context = server_context(papers, wants_client=True)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]

        def refuse() -> None:
            accepted, _ = listener.accept()
            with context.wrap_socket(accepted, server_side=True, do_handshake_on_connect=False) as tls:
                with pytest.raises(ssl.SSLError, match="PEER_DID_NOT_RETURN_A_CERTIFICATE"):
                    tls.do_handshake()
                # Closing on an unread request would reset the connection, and the alert might be lost.
                while socket.socket.recv(tls, 1000):
                    pass

        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.to_thread.run_sync, refuse)
            with pytest.raises(SecurityError, match=r"the broker refused our TLS connection: .*CERTIFICATE_REQUIRED"):
                async with open_connection("localhost", port, config=configured(port, ssl_cafile=papers.cafile)):
                    pytest.fail("entered")


async def test_tls_hang_up_without_an_alert_asks_after_our_certificate(papers: Papers) -> None:
    context = server_context(papers)

    async def hang_up(stream: trio.abc.Stream) -> None:
        tls = trio.SSLStream(stream, context, server_side=True, https_compatible=True)
        await tls.receive_some()
        await tls.aclose()

    async with listening(hang_up) as port:
        with pytest.raises(ConnectionLost, match="does the listener want a client certificate"):
            async with open_connection("localhost", port, config=configured(port, ssl_cafile=papers.cafile)):
                pytest.fail("entered")


async def test_certificate_of_an_unknown_authority_is_a_security_error(
    papers: Papers, make_versions_body: Callable[..., bytes]
) -> None:
    async with listening(kafka_over_tls(server_context(papers), make_versions_body)) as port:
        with pytest.raises(SecurityError, match="we do not trust the broker's certificate: unable to get local issuer"):
            async with open_connection("localhost", port, config=configured(port)):
                pytest.fail("entered")


async def test_certificate_of_another_host_is_a_security_error_unless_unchecked(
    papers: Papers, make_versions_body: Callable[..., bytes]
) -> None:
    context = server_context(papers, "elsewhere.example")
    async with listening(kafka_over_tls(context, make_versions_body)) as port:
        with pytest.raises(SecurityError, match="Hostname mismatch"):
            async with open_connection("localhost", port, config=configured(port, ssl_cafile=papers.cafile)):
                pytest.fail("entered")
        unchecked = configured(port, ssl_cafile=papers.cafile, ssl_check_hostname=False)
        async with open_connection("localhost", port, config=unchecked) as connection:
            assert connection.is_open


async def test_plain_listener_is_a_security_error_with_a_hint(papers: Papers) -> None:
    async def plain(stream: trio.abc.Stream) -> None:
        await stream.receive_some()
        await stream.send_all(b"what is this?")

    async with listening(plain) as port:
        with pytest.raises(SecurityError, match="no TLS is spoken there"):
            async with open_connection("localhost", port, config=configured(port, ssl_cafile=papers.cafile)):
                pytest.fail("entered")


async def test_hang_up_during_the_tls_handshake_is_a_loss(papers: Papers) -> None:
    async def hang_up(stream: trio.abc.Stream) -> None:
        await stream.receive_some()
        await stream.aclose()

    async with listening(hang_up) as port:
        with pytest.raises(ConnectionLost, match="hung up during the TLS handshake") as caught:
            async with open_connection("localhost", port, config=configured(port, ssl_cafile=papers.cafile)):
                pytest.fail("entered")
    assert not isinstance(caught.value, SecurityError)


async def test_plain_client_on_a_tls_listener_gets_a_hint(
    papers: Papers, config: ProducerConfig, make_versions_body: Callable[..., bytes]
) -> None:
    async with listening(kafka_over_tls(server_context(papers), make_versions_body)) as port:
        with pytest.raises(ConnectionLost, match=r"security.protocol") as caught:
            async with open_connection("localhost", port, config=config):
                pytest.fail("entered")
    assert isinstance(caught.value, ProtocolError) or "handshake" in str(caught.value)


@pytest.mark.parametrize(
    ("members", "field"),
    [
        ({"ssl_cafile": "/nowhere/ca.pem"}, "ssl_cafile"),
        ({"ssl_cafile": __file__}, "ssl_cafile"),
        ({"ssl_certfile": "/nowhere/cert.pem"}, "ssl_certfile"),
        ({"ssl_cafile": "/run/\0"}, "ssl_cafile"),
        ({"ssl_certfile": "/run/\0"}, "ssl_certfile"),
    ],
)
def test_unreadable_files_are_a_config_error_that_starts_with_the_field(members: dict[str, str], field: str) -> None:
    with pytest.raises(ConfigError, match=f"^{field}: "):
        make_ssl_context(SecurityConfig(protocol="SSL", **members))  # type: ignore[arg-type]  # strings all


async def test_certificates_that_vanish_are_a_security_error_of_the_connection(
    papers: Papers, make_versions_body: Callable[..., bytes]
) -> None:
    async with listening(kafka_over_tls(server_context(papers), make_versions_body)) as port:
        with pytest.raises(SecurityError, match=r"ssl_cafile: '/nowhere/ca\.pem' cannot be read"):
            async with open_connection("localhost", port, config=configured(port, ssl_cafile="/nowhere/ca.pem")):
                pytest.fail("entered")


async def test_certificate_that_has_expired_is_named(papers: Papers, make_versions_body: Callable[..., bytes]) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    past = datetime.datetime(2020, 1, 2, tzinfo=datetime.UTC)
    cert = papers.authority.issue_cert("localhost", not_before=past - datetime.timedelta(days=1), not_after=past)
    cert.configure_cert(context)
    async with listening(kafka_over_tls(context, make_versions_body)) as port:
        with pytest.raises(
            SecurityError, match="certificate has expired; the broker, or the authority that ssl_cafile names, needs"
        ):
            async with open_connection("localhost", port, config=configured(port, ssl_cafile=papers.cafile)):
                pytest.fail("entered")


def copied(papers: Papers, directory: Path) -> SecurityConfig:
    """A configuration with files of its own."""
    for name in ("cafile", "certfile", "keyfile"):
        (directory / name).write_bytes(Path(getattr(papers, name)).read_bytes())
    return SecurityConfig(protocol="SSL", **{f"ssl_{name}": str(directory / name) for name in FILES})  # type: ignore[arg-type]  # strings all


FILES = ("cafile", "certfile", "keyfile")


@pytest.mark.parametrize("changed", FILES)
def test_context_is_kept_until_a_file_changes(papers: Papers, tmp_path: Path, changed: str) -> None:
    security = copied(papers, tmp_path)
    tls = TlsContext()
    first, warning = tls.current(security)
    assert tls.current(security) == (first, warning) == (first, "")
    file = tmp_path / changed
    # The same bytes in another file, as a tool that writes and renames leaves them.
    file.with_name("new").write_bytes(file.read_bytes())
    file.with_name("new").rename(file)
    second, warning = tls.current(security)
    assert second is not first
    assert warning == ""


def test_files_behind_a_link_that_is_switched_are_noticed(papers: Papers, tmp_path: Path) -> None:
    # As Kubernetes mounts secrets: each name leads through ..data to a directory of one version.
    for version in ("..1", "..2"):
        (tmp_path / version).mkdir()
        copied(papers, tmp_path / version)
    (tmp_path / "..data").symlink_to("..1")
    for name in FILES:
        (tmp_path / name).symlink_to(f"..data/{name}")
    security = SecurityConfig(protocol="SSL", **{f"ssl_{name}": str(tmp_path / name) for name in FILES})  # type: ignore[arg-type]  # strings all
    tls = TlsContext()
    first, _ = tls.current(security)
    assert tls.current(security)[0] is first
    (tmp_path / "..data_tmp").symlink_to("..2")
    (tmp_path / "..data_tmp").rename(tmp_path / "..data")
    assert tls.current(security)[0] is not first


@pytest.mark.parametrize("password", ["hunter2", "h\u00fcnter2" * 200, "hunter2\udcff", None])
def test_password_of_a_key_that_does_not_open_it_is_a_config_error_without_it(
    papers: Papers, tmp_path: Path, password: str | None
) -> None:
    key = serialization.load_pem_private_key(Path(papers.keyfile).read_bytes(), None)
    locked = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b"opens")
    )
    (tmp_path / "key").write_bytes(locked)
    security = SecurityConfig(
        protocol="SSL",
        ssl_cafile=papers.cafile,
        ssl_certfile=papers.certfile,
        ssl_keyfile=str(tmp_path / "key"),
        ssl_keyfile_password="opens",
    )
    make_ssl_context(security)
    with pytest.raises(ConfigError, match=r"^ssl_certfile: ") as caught:
        make_ssl_context(replace(security, ssl_keyfile_password=password))
    seen: BaseException | None = caught.value
    while seen is not None:
        assert "unter2" not in f"{seen} {getattr(seen, 'object', '')}"
        seen = seen.__cause__ or seen.__context__


@pytest.mark.parametrize("content", [None, b"", b"not a certificate"])
@pytest.mark.parametrize("broken", FILES)
def test_context_of_before_is_used_while_a_new_file_is_broken(
    papers: Papers, tmp_path: Path, broken: str, content: bytes | None
) -> None:
    security = copied(papers, tmp_path)
    tls = TlsContext()
    first, _ = tls.current(security)
    file = tmp_path / broken
    good = file.read_bytes()
    if content is None:
        file.unlink()
    else:
        file.write_bytes(content)
    kept, warning = tls.current(security)
    assert kept is first
    assert warning.startswith("ssl_c")
    assert str(file) in warning
    assert warning.endswith("; what was there before is still used")
    file.write_bytes(good)
    mended, warning = tls.current(security)
    assert mended is not first
    assert warning == ""


def test_context_that_never_worked_is_a_config_error(papers: Papers, tmp_path: Path) -> None:
    security = copied(papers, tmp_path)
    (tmp_path / "keyfile").write_bytes(trustme.CA().issue_cert("x").private_key_pem.bytes())
    with pytest.raises(ConfigError, match=r"^ssl_certfile: .* cannot be read as certificate chain and matching key"):
        TlsContext().current(security)


def test_what_connections_share_does_not_end_with_the_configuration_of_somebody_else(
    papers: Papers, tmp_path: Path
) -> None:
    one, equal = copied(papers, tmp_path), copied(papers, tmp_path)
    assert one == equal
    credentials_of(one)
    kept = credentials_of(equal)
    ended = weakref.ref(one)
    del one
    gc.collect()
    assert ended() is None
    assert credentials_of(equal) is kept


async def test_certificate_files_that_break_are_an_operator_error_and_no_reason_of_outcomes(
    papers: Papers, tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    security = copied(papers, tmp_path)
    credentials_of(security).tls.current(security)
    (tmp_path / "certfile").write_bytes(b"half")
    context = server_context(papers, "fake-1", wants_client=True)

    async with open_fake_cluster(topics={"events": 1}) as fake:

        async def over_tls(host: str, port: int) -> trio.abc.HalfCloseableStream:
            ours, theirs = trio.testing.memory_stream_pair()
            plain = await fake.connector(host, port)
            nursery.start_soon(bridge, trio.SSLStream(theirs, context, server_side=True, https_compatible=True), plain)
            return ours

        config = ProducerConfig(bootstrap_servers=fake.bootstrap_servers, security=security)
        async with trio.open_nursery() as nursery:
            async with open_producer(config, connector=over_tls) as producer:
                await producer.send(Record("events", b"still goes"))
                [error] = producer.statistics().operator_errors
                assert producer._dispatch.standing.reason() is None
            nursery.cancel_scope.cancel(reason="the test is over")
    assert (error.code, error.name, error.scope) == (0, "CERTIFICATE_FILES", "broker 1")
    assert "what was there before is still used" in error.advice


async def bridge(one: trio.abc.Stream, other: trio.abc.Stream) -> None:
    async def copy(source: trio.abc.Stream, sink: trio.abc.Stream) -> None:
        try:
            async for data in source:
                await sink.send_all(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            await trio.lowlevel.checkpoint()
        nursery.cancel_scope.cancel(reason="one side closed")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(copy, one, other)
        nursery.start_soon(copy, other, one)
    await trio.aclose_forcefully(one)
    await trio.aclose_forcefully(other)
    await trio.lowlevel.checkpoint()


async def test_tcp_options_are_set() -> None:
    async def wait(stream: trio.abc.Stream) -> None:
        await stream.receive_some()

    async with listening(wait) as port:
        stream = await connect_tcp("127.0.0.1", port, user_timeout_s=30.0)
        async with stream:
            assert stream.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            assert stream.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            assert stream.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 30_000
            assert stream.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 30


async def test_tcp_options_that_a_system_lacks_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(socket, "TCP_USER_TIMEOUT")

    async def wait(stream: trio.abc.Stream) -> None:
        await stream.receive_some()

    async with listening(wait) as port:
        async with await connect_tcp("127.0.0.1", port, user_timeout_s=30.0) as stream:
            assert stream.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_tls_failure_of_another_kind_is_told_by_its_reason() -> None:
    broken = trio.BrokenResourceError()
    broken.__cause__ = ssl.SSLError(1, "[SSL: DECRYPTION_FAILED_OR_BAD_RECORD_MAC] decryption failed")
    found = tls_refusal(broken, "broker:9093")
    assert isinstance(found, SecurityError)
    assert "broker:9093: TLS failed: " in str(found)
    assert tls_refusal(OSError(104, "reset"), "broker:9093") is None


async def test_name_that_does_not_resolve_is_a_loss(config: ProducerConfig) -> None:
    async def unresolved(host: str, port: int) -> trio.abc.HalfCloseableStream:
        await trio.lowlevel.checkpoint()
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    with pytest.raises(ConnectionLost, match=r"cannot connect to nowhere:9092: Name or service not known"):
        async with open_connection("nowhere", 9092, config=config, connector=unresolved):
            pytest.fail("entered")


async def test_reset_during_the_handshake_is_a_loss_that_says_so(config: ProducerConfig) -> None:
    async def reset(stream: trio.abc.Stream) -> None:
        assert isinstance(stream, trio.SocketStream)
        await stream.socket.recv(1)
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        await stream.aclose()

    async with listening(reset) as port:
        with pytest.raises(
            ConnectionLost, match=f"lost localhost:{port} during the handshake: Connection reset by peer"
        ):
            async with open_connection("localhost", port, config=config):
                pytest.fail("entered")


async def test_reset_by_peer_names_the_systems_reason(
    config: ProducerConfig, make_versions_body: Callable[..., bytes]
) -> None:
    async def reset(stream: trio.abc.Stream) -> None:
        asked = await stream.receive_some()
        body = asked[8:12] + make_versions_body(4)
        await stream.send_all(len(body).to_bytes(4, "big") + body)
        assert isinstance(stream, trio.SocketStream)
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        await stream.aclose()

    async with listening(reset) as port:
        with pytest.raises(ConnectionLost, match=f"lost the connection to localhost:{port}: Connection reset by peer"):
            async with open_connection("localhost", port, config=config):
                await trio.sleep_forever()
