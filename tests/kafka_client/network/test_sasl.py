"""The SASL exchange without a socket: what is asked, and what is made of the answers."""

import struct
from typing import Any

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from kafka_client.errors import ProtocolError, SecurityError
from kafka_client.network.oauthbearer import oauthbearer
from kafka_client.network.sasl import Login, Session, authenticate, describe, read_login
from kafka_client.network.steps import Exchange, Step, Work
from kafka_client.security import OAuthToken, SecurityConfig

VERSIONS = {17: (0, 1), 36: (0, 2)}


def string(text: str) -> bytes:
    return struct.pack(">h", len(text)) + text.encode()


def handshake_answer(code: int = 0, *mechanisms: str) -> memoryview:
    return memoryview(struct.pack(">hi", code, len(mechanisms)) + b"".join(map(string, mechanisms)))


def step_answer(code: int = 0, message: str | None = None, content: bytes = b"", lifetime_ms: int = 0) -> memoryview:
    """SaslAuthenticate version 1."""
    words = struct.pack(">h", -1) if message is None else string(message)
    return memoryview(
        struct.pack(">h", code) + words + struct.pack(">i", len(content)) + content + struct.pack(">q", lifetime_ms)
    )


async def login_of(mechanism: str, **members: Any) -> Login:
    found: dict[str, Any] = {"protocol": "SASL_SSL", "sasl_mechanism": mechanism}
    if mechanism != "OAUTHBEARER":
        found |= {"sasl_username": "ada", "sasl_password": "secret"}
    return await read_login(SecurityConfig(**(found | members)), {})


def started(login: Login) -> tuple[Exchange[Session], Step]:
    exchange = authenticate(login, {**VERSIONS, 36: (0, 1)})
    step = next(exchange)
    assert isinstance(step, Step)
    assert (step.api_key, step.version) == (17, 1)
    assert step.body == string(login.mechanism)
    first = exchange.send(handshake_answer(0, login.mechanism))
    assert isinstance(first, Step)
    assert (first.api_key, first.version) == (36, 1)
    return exchange, first


async def test_plain_sends_one_message_and_learns_the_lifetime() -> None:
    exchange, step = started(await login_of("PLAIN"))
    assert step.body == b"\0\0\0\x0b\0ada\0secret"
    with pytest.raises(StopIteration) as end:
        exchange.send(step_answer(lifetime_ms=3_600_000))
    assert end.value.value == Session("PLAIN", "user 'ada'", 3600.0)


async def test_plain_does_not_prepare_what_it_sends() -> None:
    _, step = started(await login_of("PLAIN", sasl_password="hy\u00adphen"))
    assert step.body.endswith("\0hy\u00adphen".encode())


@pytest.mark.parametrize("lifetime_ms", [0, -5])
async def test_no_lifetime_is_for_ever(lifetime_ms: int) -> None:
    exchange, _ = started(await login_of("PLAIN"))
    with pytest.raises(StopIteration) as end:
        exchange.send(step_answer(lifetime_ms=lifetime_ms))
    assert end.value.value.lifetime_s == float("inf")


async def test_oauthbearer_sends_the_token_and_extensions_in_one_message() -> None:
    async def provide() -> OAuthToken:
        await trio.lowlevel.checkpoint()
        return OAuthToken(value="to.ke-n_~+/==", extensions={"logicalCluster": "lkc 1"}, principal="ada")

    _, step = started(await login_of("OAUTHBEARER", sasl_oauth_token=provide))
    assert step.body[4:] == b"n,,\x01auth=Bearer to.ke-n_~+/==\x01logicalCluster=lkc 1\x01\x01"


async def test_oauthbearer_refusal_is_acknowledged_and_told_in_the_brokers_words() -> None:
    async def provide() -> OAuthToken:
        await trio.lowlevel.checkpoint()
        return OAuthToken(value="token", principal="ada")

    exchange, _ = started(await login_of("OAUTHBEARER", sasl_oauth_token=provide))
    refusal = b'{"status":"invalid_token","scope":"kafka"}'
    acknowledged = exchange.send(step_answer(content=refusal))
    assert isinstance(acknowledged, Step)
    assert acknowledged.body == b"\0\0\0\x01\x01"
    with pytest.raises(
        SecurityError, match=r"refused the OAuth token of 'ada' .*invalid_token.*; check the token's"
    ) as e:
        exchange.send(step_answer(58, refusal.decode()))
    assert e.value.code == 58


def test_oauthbearer_refusal_without_a_code_is_a_refusal_all_the_same() -> None:
    exchange = oauthbearer(OAuthToken(value="token"))
    next(exchange)
    assert exchange.send(b"{}") == b"\x01"
    with pytest.raises(SecurityError, match=r"the broker refused our OAuth token: '\{\}'"):
        exchange.send(b"")


@pytest.mark.parametrize(
    ("token", "words"),
    [
        (OAuthToken(value="a\x01auth=Bearer b"), "characters that a bearer token cannot have"),
        (OAuthToken(value=""), "characters that a bearer token cannot have"),
        (OAuthToken(value="token\n"), "characters that a bearer token cannot have"),
        (OAuthToken(value="token", lifetime_s=0.0), "has expired"),
        (OAuthToken(value="token", extensions={"auth": "x"}), "has to be named with letters, and not 'auth'"),
        (OAuthToken(value="token", extensions={"a1": "x"}), "has to be named with letters"),
        (OAuthToken(value="token", extensions={"a": "x\x01y"}), "is empty or not printable ASCII"),
        (OAuthToken(value="token", extensions={"a": ""}), "is empty or not printable ASCII"),
    ],
)
def test_token_that_would_not_arrive_whole_is_not_sent(token: OAuthToken, words: str) -> None:
    with pytest.raises(SecurityError, match=words):
        next(oauthbearer(token))


@pytest.mark.parametrize(
    ("answer", "code", "words"),
    [
        (handshake_answer(33, "PLAIN", "GSSAPI"), 33, "SCRAM-SHA-256, it offers PLAIN, GSSAPI: set sasl_mechanism"),
        (handshake_answer(33), 33, "it offers none"),
        (handshake_answer(34), 34, "does not expect SASL here"),
        (handshake_answer(-1), -1, r"UNKNOWN_SERVER_ERROR \(-1\)"),
    ],
)
async def test_handshake_that_is_refused(answer: memoryview, code: int, words: str) -> None:
    exchange = authenticate(await login_of("SCRAM-SHA-256"), VERSIONS)
    next(exchange)
    with pytest.raises(SecurityError, match=words) as caught:
        exchange.send(answer)
    assert caught.value.code == code


@pytest.mark.parametrize(
    ("versions", "words"),
    [
        ({}, "too old"),
        ({17: (0, 1)}, "too old"),
        ({17: (0, 0), 36: (0, 2)}, "too old"),
        ({17: (2, 3), 36: (0, 2)}, "speaks SaslHandshake 2–3"),
        ({17: (0, 1), 36: (3, 4)}, "SaslAuthenticate 3–4"),
    ],
)
async def test_versions_that_do_not_meet(versions: dict[int, tuple[int, int]], words: str) -> None:
    with pytest.raises(SecurityError, match=words):
        next(authenticate(await login_of("PLAIN"), versions))


async def test_brokers_words_are_bounded_and_printable() -> None:
    exchange, _ = started(await login_of("PLAIN"))
    with pytest.raises(SecurityError) as caught:
        exchange.send(step_answer(58, "\x1b[31mno\n" + "x" * 5000))
    assert len(str(caught.value)) < 500
    assert str(caught.value).isprintable()


async def test_mechanisms_that_a_broker_offers_cannot_write_into_our_log() -> None:
    exchange = authenticate(await login_of("SCRAM-SHA-256"), VERSIONS)
    next(exchange)
    with pytest.raises(SecurityError, match="it offers PLAIN2026-01-01 all is well, x") as caught:
        exchange.send(handshake_answer(33, "PLAIN\x1b\n2026-01-01 all is well", "x" * 5000))
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 500


@settings(deadline=None)  # the machine may be busy
@given(data=st.data(), mechanism=st.sampled_from(["PLAIN", "SCRAM-SHA-512"]))
def test_any_answers_end_in_a_session_or_a_library_error(data: st.DataObject, mechanism: str) -> None:
    security = SecurityConfig(
        protocol="SASL_SSL",
        sasl_mechanism=mechanism,  # type: ignore[arg-type]  # one of them
        sasl_username="ada",
        sasl_password="secret",
    )
    exchange = authenticate(trio.run(read_login, security, {}), VERSIONS)
    wanted = next(exchange)
    try:
        for _ in range(10):
            assert isinstance(wanted, Step)
            wanted = exchange.send(memoryview(data.draw(st.binary(max_size=60))))
    except (ProtocolError, SecurityError, StopIteration):
        return
    pytest.fail("it goes on for ever")


async def test_secrets_are_in_no_repr_and_no_error() -> None:
    login = await login_of("PLAIN", sasl_password="hunter2")
    exchange, step = started(login)
    assert repr(login) == "<Login user 'ada' PLAIN>"
    assert repr(step) == "<Step api 36 v1, 16 bytes>"
    assert "hunter2" not in repr(exchange) + repr(Work(bytes))
    with pytest.raises(SecurityError) as caught:
        exchange.send(step_answer(58, None))
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("security", "session", "words"),
    [
        (SecurityConfig(), None, "PLAINTEXT, as nobody (ANONYMOUS), not encrypted"),
        (
            SecurityConfig(protocol="SSL", ssl_certfile="us.pem"),
            None,
            "SSL, with the certificate of us.pem, encrypted",
        ),
        (
            SecurityConfig(protocol="SASL_SSL", sasl_mechanism="PLAIN", sasl_username="u", sasl_password="p"),
            Session("PLAIN", "user 'u'", 1.0),
            "SASL_SSL, PLAIN as user 'u', encrypted",
        ),
    ],
)
def test_who_we_are_in_words(security: SecurityConfig, session: Session | None, words: str) -> None:
    assert describe(security, session) == words
