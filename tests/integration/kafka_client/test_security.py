"""TLS and SASL on a real Apache Kafka: who is let in, for how long, and what is said to those who are not."""

import base64
import json
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from urllib.parse import parse_qs

import pytest
import trio
import trustme
from cryptography.hazmat.primitives import serialization

from collector.config import Config, KafkaConfig
from collector.devtools.background import hold_open
from collector.devtools.kafka import BrokerSasl, BrokerTls, KafkaCluster, open_kafka
from collector.devtools.topic_log import make_topic
from collector.topic_check import check_topics
from kafka_client.config import ProducerConfig, split_address
from kafka_client.errors import ConnectionLost, SecurityError
from kafka_client.network import reauthenticate
from kafka_client.network.client_credentials import ClientCredentials
from kafka_client.network.connection import open_connection
from kafka_client.network.tcp import connect_tcp
from kafka_client.outcome import Delivered, NotSent, Record
from kafka_client.producer import open_producer
from kafka_client.security import OAuthToken, SecurityConfig
from kafka_client.wire import metadata

pytestmark = pytest.mark.integration

SESSION_S = 3.0
#: More than two sessions long, and shorter than Kafka keeps an idle connection.
RUN_S = 7.5
PASSWORD = "p\u00e4ss-w0rd"
MECHANISMS = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER")
ASK = metadata.MetadataRequest(topics=[])


@dataclass(frozen=True)
class Secured:
    """The broker, and the papers of its authority."""

    cluster: KafkaCluster
    authority: trustme.CA
    cafile: str

    @property
    def sasl(self) -> str:
        address = self.cluster.nodes[0].sasl_address
        assert address is not None
        return address

    @property
    def sasl_tls(self) -> str:
        address = self.cluster.nodes[0].sasl_tls_address
        assert address is not None
        return address


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    """PLAINTEXT, SSL with client certificates, SASL_PLAINTEXT and SASL_SSL; sessions of 3 s."""
    papers = tmp_path_factory.mktemp("papers")
    authority = trustme.CA()
    broker = authority.issue_cert("localhost", "127.0.0.1")
    authority.cert_pem.write_to_path(str(papers / "ca.pem"))
    (papers / "broker.pem").write_bytes(b"".join(pem.bytes() for pem in broker.cert_chain_pems))
    key = serialization.load_pem_private_key(broker.private_key_pem.bytes(), None)
    (papers / "broker-key.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    tls = BrokerTls(certificate=papers / "broker.pem", key=papers / "broker-key.pem", authorities=papers / "ca.pem")
    sasl = BrokerSasl(
        users={"ada": "plain-w0rd", "grace": PASSWORD, "soft": "hy\u00adphen", "nine": "IX"},
        max_reauth_ms=round(SESSION_S * 1000),
    )
    narrowed = {"listener.name.sasl_ssl.sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-512,OAUTHBEARER"}
    directory = tmp_path_factory.mktemp("kafka")
    with hold_open(partial(open_kafka, directory, tls=tls, sasl=sasl, properties=narrowed)) as cluster:
        make_topic(cluster.bootstrap_servers, "events", 2)
        make_topic(cluster.bootstrap_servers, "events-bad", 1)
        yield Secured(cluster, authority, str(papers / "ca.pem"))


def unsigned(subject: str, lifetime_s: float = 600.0) -> str:
    """A token that Kafka's validator for development takes."""
    now = time.time()
    parts = ({"alg": "none"}, {"sub": subject, "iat": now - 1, "exp": now + lifetime_s})
    return ".".join(base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode() for part in parts) + "."


async def give_token() -> OAuthToken:
    await trio.lowlevel.checkpoint()
    return OAuthToken(value=unsigned("service"))


def with_sasl(mechanism: str, **members: object) -> SecurityConfig:
    """Right for ``mechanism``, but for ``members``."""
    found: dict[str, object] = {"protocol": "SASL_PLAINTEXT", "sasl_mechanism": mechanism}
    if mechanism == "OAUTHBEARER":
        found["sasl_oauth_token"] = give_token
    elif mechanism == "PLAIN":
        found |= {"sasl_username": "ada", "sasl_password": "plain-w0rd"}
    else:
        found |= {"sasl_username": "grace", "sasl_password": PASSWORD}
    return SecurityConfig(**(found | members))  # type: ignore[arg-type]  # of the right types


@asynccontextmanager
async def connected(address: str, security: SecurityConfig) -> AsyncIterator[None]:
    host, port = split_address(address)
    config = ProducerConfig(bootstrap_servers=address, security=security)
    async with open_connection(host, port, config=config) as connection:
        answer = await connection.exchange(metadata, ASK)
        assert len(answer.brokers) == 1
        yield


@pytest.mark.parametrize("mechanism", MECHANISMS)
@pytest.mark.parametrize("protocol", ["SASL_PLAINTEXT", "SASL_SSL"])
async def test_every_mechanism_is_let_in(secured: Secured, mechanism: str, protocol: str) -> None:
    tls = protocol == "SASL_SSL"
    security = with_sasl(mechanism, protocol=protocol, ssl_cafile=secured.cafile if tls else None)
    address = secured.sasl_tls if tls else secured.sasl
    if tls and mechanism == "SCRAM-SHA-256":
        with pytest.raises(SecurityError, match="does not take SASL mechanism SCRAM-SHA-256, it offers ") as caught:
            async with connected(address, security):
                pytest.fail("entered")
        assert caught.value.code == 33
        return
    async with connected(address, security):
        pass


async def test_sessions_are_renewed_without_a_reconnect_while_records_are_sent(secured: Secured) -> None:
    reports: list[tuple[str, int, int]] = []

    async def produce(mechanism: str) -> None:
        secure = mechanism != "SCRAM-SHA-256"
        security = with_sasl(
            mechanism,
            protocol="SASL_SSL" if secure else "SASL_PLAINTEXT",
            ssl_cafile=secured.cafile if secure else None,
        )
        servers = secured.sasl_tls if secure else secured.sasl
        delivered = 0
        config = ProducerConfig(bootstrap_servers=servers, security=security, metadata_max_age_s=0.5)
        async with open_producer(config) as producer:
            end = trio.current_time() + RUN_S
            while trio.current_time() < end:
                outcomes = await producer.send_many([Record("events", b"x", partition=n % 2) for n in range(20)])
                assert all(isinstance(outcome, Delivered) for outcome in outcomes), outcomes
                delivered += len(outcomes)
            statistics = producer.statistics()
        assert statistics.operator_errors == ()
        reports.append((mechanism, statistics.connections_opened_total, delivered))

    async with trio.open_nursery() as nursery:
        for mechanism in MECHANISMS:
            nursery.start_soon(produce, mechanism)
    # One connection for metadata, one for Produce, over more than two sessions.
    assert {(mechanism, connections) for mechanism, connections, _ in reports} == {(name, 2) for name in MECHANISMS}
    assert min(delivered for _, _, delivered in reports) > 100


async def test_without_a_renewal_the_broker_closes_the_connection(
    secured: Secured, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What the test before rests on: the broker means it.
    monkeypatch.setattr(reauthenticate, "RENEW_FROM", 10.0)
    monkeypatch.setattr(reauthenticate, "RENEW_TO", 10.0)
    host, port = split_address(secured.sasl)
    config = ProducerConfig(bootstrap_servers=secured.sasl, security=with_sasl("PLAIN"))
    with pytest.raises(ConnectionLost, match="closed the connection"):
        async with open_connection(host, port, config=config) as connection:
            await trio.sleep(SESSION_S + 0.2)
            await connection.exchange(metadata, ASK)


@pytest.mark.parametrize(
    ("security", "words"),
    [
        (
            with_sasl("PLAIN", sasl_password="guess"),
            "refused user 'ada' with PLAIN: Authentication failed: Invalid user",
        ),
        (with_sasl("SCRAM-SHA-512", sasl_password="guess"), "refused user 'grace' with SCRAM-SHA-512: Authentication"),
        (
            with_sasl("SCRAM-SHA-256", sasl_username="nobody"),
            "refused user 'nobody' with SCRAM-SHA-256: Authentication",
        ),
    ],
)
async def test_wrong_password_is_named(secured: Secured, security: SecurityConfig, words: str) -> None:
    with pytest.raises(SecurityError) as caught:
        async with connected(secured.sasl, security):
            pytest.fail("entered")
    assert words in str(caught.value)
    assert caught.value.code == 58
    assert "guess" not in str(caught.value)


@pytest.mark.parametrize("mechanism", ["SCRAM-SHA-256", "SCRAM-SHA-512"])
@pytest.mark.parametrize(
    ("username", "password", "attempts"),
    [
        ("soft", "hy\u00adphen", 1),  # Kafka stores what was typed, and SASLprep would change it
        ("nine", "\u2168", 2),  # somebody prepared it before it was stored
        ("soft", "hyp\u00adhen", 2),
    ],
)
async def test_password_that_saslprep_changes_is_tried_as_typed_and_then_prepared(
    secured: Secured, mechanism: str, username: str, password: str, attempts: int
) -> None:
    made = 0

    async def counted(host: str, port: int) -> trio.abc.HalfCloseableStream:
        nonlocal made
        made += 1
        return await connect_tcp(host, port, user_timeout_s=5.0)

    host, port = split_address(secured.sasl)
    security = with_sasl(mechanism, sasl_username=username, sasl_password=password)
    config = ProducerConfig(bootstrap_servers=secured.sasl, security=security)
    if password == "hyp\u00adhen":
        with pytest.raises(SecurityError, match="tried as typed and as SASLprep") as caught:
            async with open_connection(host, port, config=config, connector=counted):
                pytest.fail("entered")
        assert caught.value.code == 58
    else:
        for _ in range(2):
            async with open_connection(host, port, config=config, connector=counted) as connection:
                await connection.exchange(metadata, ASK)
        attempts += 1  # the second time the right form comes first
    assert made == attempts


async def test_token_that_has_expired_is_refused_in_the_brokers_words(secured: Secured) -> None:
    async def give_old() -> OAuthToken:
        await trio.lowlevel.checkpoint()
        return OAuthToken(value=unsigned("service", -100.0), principal="service")

    with pytest.raises(SecurityError, match=r"OAUTHBEARER: .*invalid_token"):
        async with connected(secured.sasl, with_sasl("OAUTHBEARER", sasl_oauth_token=give_old)):
            pytest.fail("entered")


async def test_sasl_on_a_plain_listener_and_plain_on_a_sasl_listener_are_named(secured: Secured) -> None:
    with pytest.raises(SecurityError, match="does not expect SASL here") as caught:
        async with connected(secured.cluster.bootstrap_servers, with_sasl("PLAIN")):
            pytest.fail("entered")
    assert caught.value.code == 34
    with pytest.raises(ConnectionLost, match="does the listener want SASL"):
        async with connected(secured.sasl, SecurityConfig()):
            pytest.fail("entered")


async def test_wrong_password_makes_no_storm_and_its_records_are_not_sent(secured: Secured) -> None:
    attempts = 0

    async def counted(host: str, port: int) -> trio.abc.HalfCloseableStream:
        nonlocal attempts
        attempts += 1
        return await connect_tcp(host, port, user_timeout_s=5.0)

    config = ProducerConfig(
        bootstrap_servers=secured.sasl,
        security=with_sasl("SCRAM-SHA-256", sasl_password="guess"),
        operator_retry_s=1.0,
        produce_timeout_s=1.0,
        request_timeout_s=2.0,
        delivery_timeout_s=4.0,
    )
    async with open_producer(config, connector=counted) as producer:
        [outcome] = await producer.send_many([Record("events", b"never")])
        [error] = producer.statistics().operator_errors
    assert (error.code, error.name) == (58, "SASL_AUTHENTICATION_FAILED")
    assert outcome == NotSent(error.reason)
    # At 0 s, and then every second and what the broker takes to answer (0.1 s at least).
    assert 2 <= attempts <= 4


async def test_tokens_of_an_endpoint_are_fetched_once_for_all_connections(secured: Secured) -> None:
    asked: list[dict[str, list[str]]] = []

    async def serve(stream: trio.SocketStream) -> None:
        data = b""
        while b"grant_type" not in data:
            data += await stream.receive_some()
        head, _, form = data.decode().partition("\r\n\r\n")
        assert f"Authorization: Basic {base64.b64encode(b'ada:s%C3%A9cret%3A').decode()}" in head
        asked.append(parse_qs(form))
        body = json.dumps({"access_token": unsigned("ada"), "token_type": "Bearer", "expires_in": 600})
        await stream.send_all(f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode())
        await stream.aclose()

    async with trio.open_nursery() as nursery:
        [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, serve, [listener])
        provider = ClientCredentials(
            token_endpoint_url=f"http://127.0.0.1:{listener.socket.getsockname()[1]}/token",
            client_id="ada",
            client_secret="s\u00e9cret:",
            scope="kafka",
        )
        config = ProducerConfig(
            bootstrap_servers=secured.sasl, security=with_sasl("OAUTHBEARER", sasl_oauth_token=provider)
        )
        async with open_producer(config) as one, open_producer(config) as other:
            for producer in (one, other):
                assert isinstance(await producer.send(Record("events", b"x")), Delivered)
            assert one.statistics().connections_opened_total == 2
        nursery.cancel_scope.cancel(reason="the test is over")
    assert asked == [{"grant_type": ["client_credentials"], "scope": ["kafka"]}]


async def test_certificate_that_is_replaced_while_running_is_used_by_the_next_try(
    secured: Secured, tmp_path: Path
) -> None:
    file = tmp_path / "client.pem"
    trustme.CA().issue_cert("stranger").private_key_and_cert_chain_pem.write_to_path(str(file))
    ours = secured.authority.issue_cert("collector").private_key_and_cert_chain_pem.bytes()
    security = SecurityConfig(protocol="SSL", ssl_cafile=secured.cafile, ssl_certfile=str(file))
    servers = secured.cluster.tls_bootstrap_servers
    config = ProducerConfig(bootstrap_servers=servers, security=security, operator_retry_s=0.5)
    async with open_producer(config) as producer:
        with producer.delivery([Record("events", b"waits")]) as delivery:
            with trio.move_on_after(1.0):
                await delivery.wait()
            assert delivery.outcomes == [None]
            assert "client certificate" in producer.statistics().last_cluster_error or (
                producer.statistics().operator_errors[0].name == "SECURITY"
            )
            file.write_bytes(ours)
            with trio.fail_after(10):
                await delivery.wait()
        assert isinstance(delivery.outcomes[0], Delivered)
        assert producer.statistics().operator_errors == ()

    # A file that is half written does not take away what worked.
    file.write_bytes(ours[:300])
    host, port = split_address(servers)
    async with open_connection(host, port, config=config) as connection:
        await connection.exchange(metadata, ASK)
        assert f"ssl_certfile: {str(file)!r} cannot be read" in connection.warning
        assert connection.warning.endswith("what was there before is still used")


async def test_broker_of_another_authority_is_refused_by_us(secured: Secured, tmp_path: Path) -> None:
    other = tmp_path / "other-ca.pem"
    trustme.CA().cert_pem.write_to_path(str(other))
    security = with_sasl("PLAIN", protocol="SASL_SSL", ssl_cafile=str(other))
    with pytest.raises(SecurityError, match=r"we do not trust the broker's certificate: .*ssl_cafile"):
        async with connected(secured.sasl_tls, security):
            pytest.fail("entered")


async def test_check_asks_over_sasl_and_says_as_whom(secured: Secured) -> None:
    kafka = KafkaConfig(
        bootstrap_servers=(secured.sasl_tls,),
        security_protocol="SASL_SSL",
        ssl_cafile=secured.cafile,
        sasl_mechanism="SCRAM-SHA-512",
        sasl_username="grace",
        sasl_password=PASSWORD,
    )
    found = [str(one) for one in await check_topics(Config(kafka=kafka))]
    assert found[0] == f"ok: connected to {secured.sasl_tls}: SASL_SSL, SCRAM-SHA-512 as user 'grace', encrypted"
    assert "ok: topic events: 2 partitions" in found
