"""Tokens from an authorization server: one request for all, renewed in time, and no secret in any word."""

import base64
import json
from collections.abc import Awaitable, Callable
from pathlib import Path

import httpx  # noqa: ASYNC127  # the project's HTTP client
import pytest
import trio
import trio.testing

from kafka_client.config import ProducerConfig
from kafka_client.errors import ConfigError, ConnectionLost, SecurityError
from kafka_client.network.client_credentials import ANSWER_MAX_BYTES, ClientCredentials, TokenFile
from kafka_client.network.connection import open_connection
from kafka_client.security import SecurityConfig
from kafka_client.testing import open_fake_cluster
from kafka_client.testing.sasl import FakeSasl

Clock = trio.testing.MockClock
SECRET = "s3cret+/ %"
JWT = ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in (b"{}", b'{"sub": "ada"}', b"x"))


class Endpoint:
    """The server's side: answers in turn, the last one for ever."""

    def __init__(self, *answers: httpx.Response | Exception, takes_s: float = 0.0) -> None:
        self.requests: list[httpx.Request] = []
        self.times: list[float] = []
        self._answers = list(answers)
        self._takes_s = takes_s

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        await request.aread()
        self.requests.append(request)
        self.times.append(trio.current_time())
        await trio.sleep(self._takes_s)
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if isinstance(answer, Exception):
            raise answer
        return httpx.Response(answer.status_code, stream=httpx.ByteStream(answer.content), headers=answer.headers)


def token(value: str = "token", **members: object) -> httpx.Response:
    return httpx.Response(200, json={"access_token": value, "token_type": "Bearer", "expires_in": 100, **members})


def provider(endpoint: Callable[[httpx.Request], Awaitable[httpx.Response]], **members: str) -> ClientCredentials:
    found = {"client_secret": SECRET, **members} if "client_secret_file" not in members else members
    return ClientCredentials(
        token_endpoint_url="https://login.example.com/token",
        client_id="id:1",
        transport=httpx.MockTransport(endpoint),  # type: ignore[arg-type]  # a coroutine function
        **found,  # type: ignore[arg-type]  # strings all
    )


async def test_request_is_that_of_rfc_6749(autojump_clock: Clock) -> None:
    endpoint = Endpoint(token(JWT))
    found = await provider(endpoint, scope="kafka write")()
    [request] = endpoint.requests
    assert (request.method, str(request.url)) == ("POST", "https://login.example.com/token")
    assert request.content == b"grant_type=client_credentials&scope=kafka+write"
    # Section 2.3.1: both are form-encoded before they are joined.
    assert base64.b64decode(request.headers["Authorization"].removeprefix("Basic ")) == b"id%3A1:s3cret%2B%2F+%25"
    assert (found.value, found.lifetime_s, found.principal) == (JWT, 100.0, "ada")
    assert JWT not in repr(found)


async def test_many_connections_share_one_request(autojump_clock: Clock) -> None:
    endpoint = Endpoint(token(), takes_s=1.0)
    give = provider(endpoint)
    values: list[str] = []

    async def ask() -> None:
        values.append((await give()).value)

    async with trio.open_nursery() as nursery:
        for _ in range(50):
            nursery.start_soon(ask)
    assert values == ["token"] * 50
    assert len(endpoint.requests) == give.requests_total == 1


async def test_token_is_renewed_at_four_fifths_of_its_life(autojump_clock: Clock) -> None:
    endpoint = Endpoint(token("first"), token("second"))
    give = provider(endpoint)
    assert (await give()).value == "first"
    await trio.sleep(79.9)
    found = await give()
    assert (found.value, round(found.lifetime_s, 1)) == ("first", 20.1)
    await trio.sleep(0.2)
    assert (await give()).value == "second"
    assert len(endpoint.requests) == 2


async def test_endpoint_that_is_away_costs_nothing_while_the_token_lasts_and_is_asked_in_peace(
    autojump_clock: Clock,
) -> None:
    endpoint = Endpoint(token("first"), httpx.ConnectError("nobody is there"))
    give = provider(endpoint)
    await give()
    await trio.sleep(80)
    while trio.current_time() < 99.9:
        assert (await give()).value == "first"
        await trio.sleep(0.1)
    assert len(endpoint.requests) <= 1 + 20
    await trio.sleep(0.5)
    with pytest.raises(ConnectionLost, match=r"no OAuth token from login.example.com: ConnectError: nobody") as caught:
        await give()
    assert not isinstance(caught.value, SecurityError)


async def test_failure_is_told_to_all_who_ask_within_a_second(autojump_clock: Clock) -> None:
    endpoint = Endpoint(httpx.Response(401, json={"error": "invalid_client"}), token())
    give = provider(endpoint)
    for _ in range(10):
        with pytest.raises(SecurityError, match=r"login.example.com answered 401: invalid_client"):
            await give()
    assert len(endpoint.requests) == 1
    await trio.sleep(1.0)
    assert (await give()).value == "token"


@pytest.mark.parametrize(
    ("answer", "kind", "words"),
    [
        (httpx.Response(400, json={"error": "invalid_scope"}), SecurityError, "answered 400: invalid_scope; check"),
        (httpx.Response(401, json={"error": "no", "error_description": f"bad {SECRET}"}), SecurityError, "no bad …"),
        (httpx.Response(302, headers={"Location": "https://evil.example"}), SecurityError, "answered 302;"),
        (httpx.Response(503, text="later"), ConnectionLost, "answered 503"),
        (httpx.Response(429), ConnectionLost, "answered 429"),
        (httpx.Response(200, text="<html>"), SecurityError, "without an access_token"),
        (httpx.Response(200, json=[1]), SecurityError, "without an access_token"),
        (httpx.Response(200, content=b"[" * 50_000), SecurityError, "without an access_token"),
        (token(""), SecurityError, "without an access_token"),
        (token(expires_in="soon"), SecurityError, "expires_in that is no duration"),
        (token(expires_in=-1), SecurityError, "expires_in that is no duration"),
        (token(expires_in=True), SecurityError, "expires_in that is no duration"),
        (httpx.Response(200, content=b" " * (ANSWER_MAX_BYTES + 1)), SecurityError, "more than 65536 bytes"),
        (httpx.ReadError(f"broken {SECRET}"), ConnectionLost, "ReadError: broken …"),
    ],
)
async def test_answers_that_give_no_token(
    answer: httpx.Response | Exception, kind: type[Exception], words: str, autojump_clock: Clock
) -> None:
    endpoint = Endpoint(answer)
    with pytest.raises(kind) as caught:
        await provider(endpoint)()
    assert type(caught.value) is kind
    assert words in str(caught.value)
    assert SECRET not in str(caught.value)
    assert len(endpoint.requests) == 1, "a redirection is not followed"


async def test_secret_is_in_no_error_behind_the_error(autojump_clock: Clock) -> None:
    with pytest.raises(ConnectionLost) as caught:
        await provider(Endpoint(httpx.ConnectError(f"{SECRET} was refused")))()
    seen: BaseException | None = caught.value
    while seen is not None:
        assert SECRET not in str(seen)
        assert not hasattr(seen, "request"), "its headers hold the secret"
        seen = seen.__cause__ or seen.__context__


@pytest.mark.parametrize("life", [10**400, "-1", "NaN", "[]"])
async def test_lifetime_that_no_number_can_hold_is_a_refusal(life: object, autojump_clock: Clock) -> None:
    with pytest.raises(SecurityError, match="an expires_in that is no duration"):
        await provider(
            Endpoint(httpx.Response(200, content=b'{"access_token": "t", "expires_in": %s}' % str(life).encode()))
        )()


async def test_token_that_a_broker_refuses_is_fetched_anew_before_its_time(autojump_clock: Clock) -> None:
    # Revoked, signed with a key that the broker gave up, or older than our clock says since the machine was asleep.
    sasl = FakeSasl(tokens={"new": "service"})
    endpoint = Endpoint(token("old"), token("new"))
    security = SecurityConfig(
        protocol="SASL_PLAINTEXT", sasl_mechanism="OAUTHBEARER", sasl_oauth_token=provider(endpoint)
    )
    async with open_fake_cluster(sasl=sasl) as fake:
        config = ProducerConfig(bootstrap_servers=fake.bootstrap_servers, security=security)
        with pytest.raises(SecurityError, match="invalid_token"):
            async with open_connection("fake-1", 9092, config=config, connector=fake.connector):
                pytest.fail("entered")
        for _ in range(2):
            async with open_connection("fake-1", 9092, config=config, connector=fake.connector):
                pass
    assert len(endpoint.requests) == 2


async def test_endpoint_that_hangs_is_bounded(autojump_clock: Clock) -> None:
    with pytest.raises(ConnectionLost, match=r"no OAuth token from login.example.com within 4 s"):
        await provider(Endpoint(token(), takes_s=100.0))()
    assert trio.current_time() == 4.0


async def test_lifetime_may_be_missing_or_a_string(autojump_clock: Clock) -> None:
    endless = httpx.Response(200, json={"access_token": "token"})
    assert (await provider(Endpoint(endless))()).lifetime_s == float("inf")
    assert (await provider(Endpoint(token(expires_in="60")))()).lifetime_s == 60.0


async def test_one_who_gives_up_does_not_take_the_others_with_him(autojump_clock: Clock) -> None:
    endpoint = Endpoint(token(), takes_s=2.0)
    give = provider(endpoint)
    values: list[str] = []

    async def ask(patience_s: float) -> None:
        with trio.move_on_after(patience_s):
            values.append((await give()).value)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask, 1.0)
        nursery.start_soon(ask, 10.0)
    assert values == ["token"]


async def test_secret_file_is_read_for_each_request(tmp_path: Path, autojump_clock: Clock) -> None:
    file = tmp_path / "secret"
    endpoint = Endpoint(token())
    give = provider(endpoint, client_secret_file=str(file))
    with pytest.raises(SecurityError, match=r"no OAuth token: sasl_oauth_client_secret_file: .* cannot be read"):
        await give()
    for secret in ("one", "two"):
        file.write_text(f"{secret}\n")
        await trio.sleep(100)
        await give()
        assert base64.b64decode(endpoint.requests[-1].headers["Authorization"][6:]).endswith(f":{secret}".encode())


async def test_token_file_is_read_each_time(tmp_path: Path, autojump_clock: Clock) -> None:
    file = tmp_path / "token"
    give = TokenFile(str(file))
    with pytest.raises(SecurityError, match=r"sasl_oauth_token_file: .* cannot be read: No such file"):
        await give()
    file.write_text(f"{JWT}\n")
    assert ((await give()).value, (await give()).principal) == (JWT, "ada")
    file.write_text("opaque")
    assert ((await give()).value, (await give()).principal) == ("opaque", None)


@pytest.mark.parametrize("claims", [b"\xff", json.dumps({"sub": 1}).encode(), b"[]"])
async def test_token_without_a_readable_subject_stands_for_the_client(claims: bytes, autojump_clock: Clock) -> None:
    value = f"x.{base64.urlsafe_b64encode(claims).rstrip(b'=').decode()}.y"
    assert (await provider(Endpoint(token(value)))()).principal == "id:1"


@pytest.mark.parametrize(
    ("members", "field"),
    [
        ({"token_endpoint_url": "login.example.com"}, "sasl_oauth_token_endpoint_url"),
        ({"token_endpoint_url": "https://user:secret@login.example.com"}, "sasl_oauth_token_endpoint_url"),
        ({"token_endpoint_url": "https://[::1/secret@"}, "sasl_oauth_token_endpoint_url"),
        ({"token_endpoint_url": "https://host:99999/"}, "sasl_oauth_token_endpoint_url"),
        ({"client_id": "s3cret\udcff"}, "sasl_oauth_client_id"),
        ({"client_secret": "s3cret\udcff"}, "sasl_oauth_client_secret"),
        ({"client_id": ""}, "sasl_oauth_client_id"),
        ({"client_secret": None}, "sasl_oauth_client_secret"),
        ({"client_secret_file": "/run/secret"}, "sasl_oauth_client_secret"),
    ],
)
def test_values_that_cannot_work_are_refused(members: dict[str, str | None], field: str) -> None:
    whole: dict[str, str | None] = {"token_endpoint_url": "https://h/", "client_id": "i", "client_secret": "s3cret"}
    with pytest.raises(ConfigError, match=f"^{field}: ") as caught:
        ClientCredentials(**(whole | members))  # type: ignore[arg-type]  # that is the point
    assert "secret@" not in str(caught.value)
    assert "s3cret" not in str(caught.value)
