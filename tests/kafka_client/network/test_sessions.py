"""SASL against brokers that are strict about it, on virtual time: sessions that end, and refusals that last."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from kafka_client.admin import open_admin
from kafka_client.config import ProducerConfig
from kafka_client.errors import ConfigError, ConnectionLost, NotSentError, SecurityError
from kafka_client.network.connection import open_connection
from kafka_client.outcome import Delivered, NotSent, Record
from kafka_client.producer import open_producer
from kafka_client.security import OAuthToken, SecurityConfig
from kafka_client.testing import Api, FakeCluster, open_fake_cluster
from kafka_client.testing.sasl import FakeSasl, SaslState
from kafka_client.testing.seen import RequestSeen
from kafka_client.wire import metadata

Clock = trio.testing.MockClock
ASK = metadata.MetadataRequest(topics=[])


def users(**members: Any) -> FakeSasl:
    return FakeSasl(users={"alice": "wonderland"}, **members)


def alice(mechanism: str = "SCRAM-SHA-256", password: str = "wonderland", **members: Any) -> SecurityConfig:
    members = {"sasl_password": password, **members} if "sasl_password_file" not in members else members
    return SecurityConfig(
        protocol="SASL_PLAINTEXT",
        sasl_mechanism=mechanism,  # type: ignore[arg-type]  # a literal at every call
        sasl_username="alice",
        **members,
    )


def configured(fake: FakeCluster, security: SecurityConfig, **members: Any) -> ProducerConfig:
    return ProducerConfig(bootstrap_servers=fake.bootstrap_servers, security=security, **members)


def connect(fake: FakeCluster, security: SecurityConfig) -> AbstractAsyncContextManager[Any]:
    return open_connection("fake-1", 9092, config=configured(fake, security), connector=fake.connector)


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"])
async def test_password_opens_producer_and_admin(mechanism: str, autojump_clock: Clock) -> None:
    sasl = users()
    async with open_fake_cluster(sasl=sasl) as fake:
        config = configured(fake, alice(mechanism))
        async with open_producer(config, connector=fake.connector) as producer:
            assert isinstance(await producer.send(Record("events", b"hello")), Delivered)
        async with open_admin(config, connector=fake.connector) as admin:
            assert (await admin.topic("events")).name == "events"
    assert {(one.mechanism, one.principal) for one in sasl.authentications} == {(mechanism, "alice")}
    assert fake.seen.violations == []


async def test_brokers_without_authenticate_2_are_asked_in_the_version_they_speak(autojump_clock: Clock) -> None:
    for newest in (0, 1, 2):
        async with open_fake_cluster(sasl=users()) as fake:
            fake.versions[Api.SASL_AUTHENTICATE] = (0, newest)
            async with connect(fake, alice()) as connection:
                await connection.exchange(metadata, ASK)
        asked = {request.version for request in fake.seen.requests if request.api is Api.SASL_AUTHENTICATE}
        assert asked == {newest}


async def test_broker_before_kafka_1_is_a_security_error_that_says_so(autojump_clock: Clock) -> None:
    async with open_fake_cluster(sasl=users()) as fake:
        del fake.versions[Api.SASL_AUTHENTICATE]
        with pytest.raises(SecurityError, match="fake-1:9092: the broker is too old for our SASL"):
            async with connect(fake, alice()):
                pytest.fail("entered")


@pytest.mark.parametrize("lifetime_ms", [1, 2**63 - 1])
async def test_absurd_lifetimes_of_sessions_cost_nothing(
    lifetime_ms: int, autojump_clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = SaslState.step
    monkeypatch.setattr(SaslState, "step", lambda self, *args: (step(self, *args)[0], lifetime_ms))
    sasl = users()
    async with open_fake_cluster(sasl=sasl) as fake:
        async with connect(fake, alice("PLAIN")) as connection:
            await trio.sleep(110)
            await connection.exchange(metadata, ASK)
    # The first, one at once, and then one each 1.1 s; or the first alone.
    assert len(sasl.authentications) == pytest.approx(102 if lifetime_ms == 1 else 1, abs=2)
    assert fake.seen.violations == []


async def test_session_is_renewed_in_time_on_the_same_connection_while_requests_are_pipelined(
    autojump_clock: Clock,
) -> None:
    sasl = users(session_lifetime_s=20.0)
    async with open_fake_cluster(sasl=sasl, topics={"events": 2}) as fake:
        fake.faults.delay(0.5, api=None, times=None)  # answers travel: several requests are in flight at any time
        async with open_producer(configured(fake, alice()), connector=fake.connector) as producer:
            deliveries = []
            for number in range(1500):
                deliveries.append(producer.delivery([Record("events", b"%d" % number, partition=number % 2)]))
                await trio.sleep(0.1)
            for delivery in deliveries:
                with delivery:
                    await delivery.wait()
            statistics = producer.statistics()
        assert all(isinstance(delivery.outcomes[0], Delivered) for delivery in deliveries)
        in_flight = max(
            sum(one.time <= at.time < (one.answered_at or 0) for one in fake.seen.produce_requests)
            for at in fake.seen.requests
            if at.api is Api.SASL_HANDSHAKE
        )
    assert in_flight >= 1, "nothing was in flight when a session was renewed"
    # One connection for metadata, one for Produce; 150 s are 7 to 9 sessions of 17 to 19 s on each.
    assert fake.connections_opened_total == statistics.connections_opened_total == 2
    for connection in (1, 2):
        mine = [one for one in sasl.authentications if one.connection == connection]
        assert [one.again for one in mine] == [False] + [True] * (len(mine) - 1)
        gaps = [later.time - earlier.time for earlier, later in pairwise(mine)]
        # Begun at 17 to 19 s of 20; the steps take up to 1.5 s more.
        assert len(gaps) >= 6
        assert all(16.5 <= gap <= 20.5 for gap in gaps), gaps
    assert fake.seen.violations == []
    assert fake.values("events") == [b"%d" % n for p in (0, 1) for n in range(p, 1500, 2)]


async def test_requests_wait_while_the_connection_reauthenticates(autojump_clock: Clock) -> None:
    sasl = users(session_lifetime_s=20.0)
    async with open_fake_cluster(sasl=sasl) as fake:
        async with connect(fake, alice("PLAIN")) as connection:
            fake.faults.delay(3.0, where="broker", api=Api.SASL_AUTHENTICATE)
            while not connection.holds_back:  # noqa: ASYNC110  # on virtual time
                await trio.sleep(0.01)
            asked_at = trio.current_time()
            await connection.exchange(metadata, ASK)
            assert 2.9 < trio.current_time() - asked_at < 3.1
            assert not connection.holds_back
            await connection.wait_resumed()
            assert connection.statistics().reauthentications_total == 1
    assert [request.api for request in fake.seen.requests][-3:] == [
        Api.SASL_HANDSHAKE,
        Api.SASL_AUTHENTICATE,
        Api.METADATA,
    ]
    assert fake.seen.violations == []


async def test_record_that_comes_during_a_reauthentication_can_still_be_taken_back(autojump_clock: Clock) -> None:
    async with open_fake_cluster(sasl=users(session_lifetime_s=20.0), topics={"events": 1}) as fake:
        async with open_producer(configured(fake, alice("PLAIN")), connector=fake.connector) as producer:
            await producer.send(Record("events", b"first"))
            fake.faults.delay(3.0, where="broker", api=Api.SASL_AUTHENTICATE, times=None)
            await fake.wait_until(lambda: [one.api for one in fake.seen.requests].count(Api.SASL_AUTHENTICATE) >= 4)
            with producer.delivery([Record("events", b"taken back")]) as delivery:
                with trio.move_on_after(1.0):
                    await delivery.wait()
            assert isinstance(delivery.outcomes[0], NotSent)
            await producer.send(Record("events", b"last"))
    assert fake.values("events") == [b"first", b"last"]
    assert fake.seen.violations == []


async def test_sessions_shorter_than_a_second_do_not_ask_more_often_than_brokers_take(autojump_clock: Clock) -> None:
    sasl = users(session_lifetime_s=1.2)
    async with open_fake_cluster(sasl=sasl) as fake:
        async with connect(fake, alice("PLAIN")) as connection:
            await trio.sleep(60)
            assert connection.is_open
    times = [one.time for one in sasl.authentications]
    assert min(later - earlier for earlier, later in pairwise(times[1:])) >= 1.0
    assert fake.seen.violations == []


@pytest.mark.parametrize("turn", range(8))  # the broker closes right behind its answer: which is seen first is chance
async def test_reauthentication_that_is_refused_ends_the_connection_and_says_why(
    turn: int, autojump_clock: Clock
) -> None:
    sasl = users(session_lifetime_s=20.0)
    async with open_fake_cluster(sasl=sasl) as fake:
        with pytest.raises(
            SecurityError, match=r"fake-1:9092: re-authentication: the broker refused user 'alice'"
        ) as e:
            async with connect(fake, alice("PLAIN")):
                sasl.users["alice"] = "changed"
                await trio.sleep_forever()
        assert e.value.code == 58
        assert 17.0 <= trio.current_time() <= 19.2


async def test_reauthentication_as_somebody_else_is_refused_by_the_broker(autojump_clock: Clock) -> None:
    sasl = FakeSasl(tokens={"one": "service", "two": "intruder"}, session_lifetime_s=20.0)
    tokens = iter(("one", "two"))

    async def provide() -> OAuthToken:
        await trio.lowlevel.checkpoint()
        return OAuthToken(value=next(tokens))

    security = SecurityConfig(protocol="SASL_PLAINTEXT", sasl_mechanism="OAUTHBEARER", sasl_oauth_token=provide)
    async with open_fake_cluster(sasl=sasl) as fake:
        with pytest.raises(SecurityError, match="Cannot change principals"):
            async with connect(fake, security):
                await trio.sleep_forever()


async def test_wrong_password_makes_no_storm_of_connections_and_heals(autojump_clock: Clock) -> None:
    sasl = users()
    async with open_fake_cluster(sasl=sasl, brokers=3) as fake:
        config = configured(fake, alice(password="guess"), delivery_timeout_s=100.0)
        async with open_producer(config, connector=fake.connector) as producer:
            delivery = producer.delivery([Record("events", b"%d" % number) for number in range(20)])
            with delivery:
                await delivery.wait()
            assert trio.current_time() == pytest.approx(100.0, abs=0.1)
            [error] = producer.statistics().operator_errors
            await trio.sleep(200)
            # 300 s: eleven rounds, one try at each of the three brokers.
            assert 20 <= fake.connections_opened_total <= 33
            sasl.users["alice"] = "guess"
            before_s = trio.current_time()
            await producer.send(Record("events", b"now"))
            assert trio.current_time() - before_s <= config.operator_retry_s + 5
            assert producer.statistics().operator_errors == ()
    assert (error.code, error.name, error.scope) == (58, "SASL_AUTHENTICATION_FAILED", "producer")
    assert "the broker refused user 'alice' with SCRAM-SHA-256" in error.advice
    assert "guess" not in error.reason
    assert set(delivery.outcomes) == {NotSent(error.reason)}


async def test_sender_that_is_refused_tries_every_operator_retry_s(autojump_clock: Clock) -> None:
    # Metadata come, and the connection for Produce is refused.
    sasl = users()
    async with open_fake_cluster(sasl=sasl) as fake:
        async with open_producer(
            configured(fake, alice("PLAIN"), delivery_timeout_s=95.0), connector=fake.connector
        ) as producer:
            with producer.delivery([Record("events", b"waits")]) as delivery:
                await fake.wait_until(lambda: sasl.authentications)
                sasl.users["alice"] = "changed"
                await delivery.wait()
            # One for metadata; at about 0, 30, 60 and 90 s one for Produce.
            assert fake.connections_opened_total == 5
            assert len(sasl.authentications) == 1
            [error] = producer.statistics().operator_errors
    assert error.scope == "broker 1"
    assert delivery.outcomes == [NotSent(error.reason)]


@pytest.mark.parametrize(
    ("sasl", "security", "code", "words"),
    [
        (users(mechanisms=("SCRAM-SHA-512",)), alice("PLAIN"), 33, "it offers SCRAM-SHA-512: set sasl_mechanism"),
        (None, alice("PLAIN"), 34, "the broker does not expect SASL here: is security.protocol that of this listener"),
        (users(), alice("PLAIN", "x"), 58, "Invalid username or password; check sasl_username and sasl_password"),
        (users(iterations=1000), alice(), 0, "1000 SCRAM iterations; fewer than 4096 are too weak"),
        (users(), alice(password="tr\u00adick"), 58, "it was tried as typed and as SASLprep (RFC 4013) spells it"),
        (
            users(),
            alice(password="p\u00a0\ue000"),
            58,
            "SASL mechanism SCRAM-SHA-256; check sasl_username and sasl_pass",
        ),
        (
            users(),
            alice(sasl_password_file="/nowhere/password"),
            0,
            "sasl_password_file: '/nowhere/password' cannot be",
        ),
    ],
)
async def test_refusal_says_what_was_refused_and_what_to_do(
    sasl: FakeSasl | None, security: SecurityConfig, code: int, words: str, autojump_clock: Clock
) -> None:
    async with open_fake_cluster(sasl=sasl) as fake:
        with pytest.raises(SecurityError) as caught:
            async with connect(fake, security):
                pytest.fail("entered")
    assert str(caught.value).startswith("fake-1:9092: ")
    assert words in str(caught.value)
    assert caught.value.code == code


@pytest.mark.parametrize(
    ("stored", "opened"),
    [
        ("\u2168-hy\u00adphen", 2),  # as typed: what Apache Kafka stores
        ("IX-hyphen", 3),  # as SASLprep spells it: one connection is refused, once
    ],
)
@pytest.mark.parametrize("mechanism", ["SCRAM-SHA-256", "SCRAM-SHA-512"])
async def test_password_that_saslprep_changes_is_let_in_however_it_was_stored(
    mechanism: str, stored: str, opened: int, autojump_clock: Clock
) -> None:
    sasl = FakeSasl(users={"alice": stored}, session_lifetime_s=20.0)
    async with open_fake_cluster(sasl=sasl) as fake:
        config = configured(fake, alice(mechanism, "\u2168-hy\u00adphen"))
        async with open_producer(config, connector=fake.connector) as producer:
            for _ in range(10):
                assert isinstance(await producer.send(Record("events", b"hello")), Delivered)
                await trio.sleep(10)
            assert producer.statistics().operator_errors == ()
        assert trio.current_time() < 101
    # Over five sessions: the form that worked comes first from then on.
    assert fake.connections_opened_total == opened
    assert len(sasl.refusals) == opened - 2
    assert fake.seen.violations == []


async def test_password_that_was_stored_in_another_form_later_is_found_again(autojump_clock: Clock) -> None:
    sasl = FakeSasl(users={"alice": "IX"})
    async with open_fake_cluster(sasl=sasl) as fake:
        security = alice(password="\u2168")
        for stored, refusals in (("IX", 1), ("IX", 1), ("\u2168", 2), ("\u2168", 2)):
            sasl.users["alice"] = stored
            async with connect(fake, security):
                assert len(sasl.refusals) == refusals


async def test_neither_form_of_a_password_makes_two_attempts_and_then_the_operators_pace(
    autojump_clock: Clock,
) -> None:
    async with open_fake_cluster(sasl=users()) as fake:
        config = configured(fake, alice(password="tr\u00adick"), delivery_timeout_s=100.0)
        async with open_producer(config, connector=fake.connector) as producer:
            with producer.delivery([Record("events", b"waits")]) as delivery:
                await delivery.wait()
        # At about 0, 30, 60 and 90 s.
        assert fake.connections_opened_total == 8


async def test_second_form_that_is_hung_up_on_keeps_the_operators_pace(autojump_clock: Clock) -> None:
    async with open_fake_cluster(sasl=users()) as fake:
        fake.faults.close_before(api=Api.SASL_AUTHENTICATE, skip=2)
        with pytest.raises(SecurityError, match="refused user 'alice'") as caught:
            async with connect(fake, alice(password="tr\u00adick")):
                pytest.fail("entered")
        assert caught.value.code == 58
        assert fake.connections_opened_total == 2


async def test_refusal_of_another_kind_is_not_tried_with_another_form(autojump_clock: Clock) -> None:
    async with open_fake_cluster(sasl=users(mechanisms=("PLAIN",))) as fake:
        with pytest.raises(SecurityError, match="it offers PLAIN"):
            async with connect(fake, alice(password="tr\u00adick")):
                pytest.fail("entered")
        assert fake.connections_opened_total == 1


async def test_client_without_sasl_on_a_sasl_listener_is_told_what_it_may_lack(autojump_clock: Clock) -> None:
    async with open_fake_cluster(sasl=users()) as fake:
        with pytest.raises(ConnectionLost, match="on our first request; does the listener want SASL"):
            async with connect(fake, SecurityConfig()) as connection:
                await connection.exchange(metadata, ASK)


async def test_broker_that_hangs_up_during_sasl_is_asked_once_and_not_with_other_versions(
    autojump_clock: Clock,
) -> None:
    async with open_fake_cluster(sasl=users()) as fake:
        fake.faults.close_before(api=Api.SASL_AUTHENTICATE)
        with pytest.raises(ConnectionLost, match="SaslAuthenticate was not answered: look into the broker's log"):
            async with connect(fake, alice()):
                pytest.fail("entered")
    assert fake.connections_opened_total == 1


async def test_password_file_is_read_at_each_authentication(tmp_path: Path, autojump_clock: Clock) -> None:
    file = tmp_path / "password"
    file.write_text("wonderland\n")
    sasl = users(session_lifetime_s=20.0)
    async with open_fake_cluster(sasl=sasl) as fake:
        async with connect(fake, alice(sasl_password_file=str(file))) as connection:
            sasl.users["alice"] = "looking-glass"
            file.write_text("looking-glass")
            await trio.sleep(50)
            assert connection.is_open
    assert [one.again for one in sasl.authentications] == [False, True, True]


async def test_token_provider_is_asked_before_anything_is_held_back(autojump_clock: Clock) -> None:
    sasl = FakeSasl(tokens={"t0": "service", "t1": "service"}, session_lifetime_s=20.0)
    asked: list[float] = []

    async def provide() -> OAuthToken:
        asked.append(trio.current_time())
        await trio.sleep(2.0)
        return OAuthToken(value=f"t{len(asked) - 1}", principal="service", extensions={"logicalCluster": "lkc-1"})

    security = SecurityConfig(protocol="SASL_PLAINTEXT", sasl_mechanism="OAUTHBEARER", sasl_oauth_token=provide)
    async with open_fake_cluster(sasl=sasl) as fake:
        async with connect(fake, security) as connection:
            while len(asked) == 1:  # noqa: ASYNC110  # on virtual time
                await trio.sleep(0.1)
            assert not connection.holds_back
            await connection.exchange(metadata, ASK)
            assert trio.current_time() < asked[1] + 2.0, "the request waited for the token"
            await trio.sleep(3.0)
            assert connection.session.who == "the OAuth token of 'service'"
    assert [one.principal for one in sasl.authentications] == ["service", "service"]


@pytest.mark.parametrize(
    ("raised", "kind", "words"),
    [
        (
            RuntimeError("secret-token"),
            SecurityError,
            "sasl_oauth_token: the provider failed with RuntimeError (test_sessions.py:",
        ),
        # Library errors that end no connection would end the producer.
        (ConfigError("field: cannot work"), SecurityError, "sasl_oauth_token: field: cannot work"),
        (NotSentError("secret-token"), SecurityError, "sasl_oauth_token: the provider failed with NotSentError"),
        (ConnectionLost("nobody answers"), ConnectionLost, "fake-1:9092: nobody answers"),
    ],
)
async def test_token_provider_that_fails_is_an_error_of_the_connection(
    raised: Exception, kind: type[Exception], words: str, autojump_clock: Clock
) -> None:
    async def provide() -> OAuthToken:
        await trio.lowlevel.checkpoint()
        raise raised

    security = SecurityConfig(protocol="SASL_PLAINTEXT", sasl_mechanism="OAUTHBEARER", sasl_oauth_token=provide)
    async with open_fake_cluster(sasl=FakeSasl()) as fake:
        with pytest.raises(kind) as caught:
            async with connect(fake, security):
                pytest.fail("entered")
    assert type(caught.value) is kind
    assert words in str(caught.value)
    seen: BaseException | None = caught.value
    while seen is not None:
        assert "secret-token" not in str(seen)
        seen = seen.__cause__ or seen.__context__


@pytest.mark.parametrize("given", ["secret-token", None, OAuthToken(value=b"secret-token")])  # type: ignore[arg-type]  # wrong on purpose
async def test_token_provider_that_returns_something_else_is_an_error_of_the_connection(
    given: Any, autojump_clock: Clock
) -> None:
    async def provide() -> OAuthToken:
        await trio.lowlevel.checkpoint()
        return given  # type: ignore[no-any-return]  # the mistake

    security = SecurityConfig(protocol="SASL_PLAINTEXT", sasl_mechanism="OAUTHBEARER", sasl_oauth_token=provide)
    async with open_fake_cluster(sasl=FakeSasl()) as fake:
        with pytest.raises(SecurityError, match="the provider returned no OAuthToken with a text") as caught:
            async with connect(fake, security):
                pytest.fail("entered")
    assert "secret-token" not in str(caught.value)


async def test_token_provider_that_hangs_is_bounded(autojump_clock: Clock) -> None:
    async def provide() -> OAuthToken:
        await trio.sleep_forever()
        raise AssertionError

    security = SecurityConfig(protocol="SASL_PLAINTEXT", sasl_mechanism="OAUTHBEARER", sasl_oauth_token=provide)
    async with open_fake_cluster(sasl=FakeSasl()) as fake:
        with pytest.raises(ConnectionLost, match=r"no connection to fake-1:9092 within 5 s \(secrets\)"):
            async with connect(fake, security):
                pytest.fail("entered")


async def test_broker_that_makes_us_hash_and_hangs_up_is_left_alone_like_one_that_refuses() -> None:
    # On real time: a clock that jumps does not wait for threads.
    async with open_fake_cluster(sasl=users(iterations=20_000)) as fake:
        security = alice()
        proofs = 0

        def is_proof(_: RequestSeen) -> bool:
            nonlocal proofs
            proofs += 1
            return proofs % 2 == 0

        kinds = []
        with fake.faults.close_before(api=Api.SASL_AUTHENTICATE, when=is_proof, times=None):
            for _ in range(5):
                with pytest.raises(ConnectionLost) as caught:
                    async with connect(fake, security):
                        pytest.fail("entered")
                kinds.append(type(caught.value) is SecurityError)
        assert kinds == [False, False, True, True, True]
        assert "after we had hashed our password for it 5 times" in str(caught.value)
        async with connect(fake, security):
            pass
        with fake.faults.close_before(api=Api.SASL_AUTHENTICATE, times=None):
            for _ in range(4):
                with pytest.raises(ConnectionLost) as caught:
                    async with connect(fake, security):
                        pytest.fail("entered")
                assert type(caught.value) is not SecurityError, "nothing was hashed"


async def test_many_iterations_are_counted_beside_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    # On real time: a clock that jumps does not wait for threads.
    runs = 0
    run_sync = trio.to_thread.run_sync

    async def counted(work: Callable[[], bytes], **options: Any) -> bytes:
        nonlocal runs
        runs += 1
        return await run_sync(work, **options)

    monkeypatch.setattr(trio.to_thread, "run_sync", counted)
    async with open_fake_cluster(sasl=users(iterations=20_000)) as fake:
        security = alice("SCRAM-SHA-512")
        for _ in range(3):
            async with connect(fake, security) as connection:
                await connection.exchange(metadata, ASK)
    assert runs == 1, "the salted password of one salt is kept"
    assert fake.seen.violations == []
