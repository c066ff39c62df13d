"""From an address to versions: what can go wrong, in which words, and after how long."""

from collections.abc import Callable
from typing import Any

import pytest
import trio

from kafka_client.config import ProducerConfig
from kafka_client.errors import ConnectionLost, ProtocolError
from kafka_client.network.connection import open_connection
from kafka_client.network.handshake import shake_hands
from kafka_client.wire import fetch, produce

Body = Callable[..., bytes]


def test_handshake_asks_once_where_the_version_suits(make_versions_body: Body) -> None:
    steps = shake_hands(4)
    assert next(steps).version == 4
    with pytest.raises(StopIteration) as end:
        steps.send(memoryview(make_versions_body(4)))
    assert end.value.value.versions[0] == (3, 13)


def test_handshake_error_35_asks_again_with_version_0(make_versions_body: Body) -> None:
    steps = shake_hands(4)
    next(steps)
    step = steps.send(memoryview(b"\0\x23 whatever follows"))
    assert (step.version, step.body) == (0, b"")
    with pytest.raises(StopIteration):
        steps.send(memoryview(make_versions_body(0)))


def test_handshake_error_35_to_version_0_is_a_protocol_error() -> None:
    steps = shake_hands(0)
    next(steps)
    with pytest.raises(ProtocolError, match=r"answered with UNSUPPORTED_VERSION \(35\)"):
        steps.send(memoryview(b"\0\x23"))


async def test_connect_refused_is_a_loss_that_says_so(config: ProducerConfig) -> None:
    async def refuse(host: str, port: int) -> trio.abc.HalfCloseableStream:
        await trio.lowlevel.checkpoint()
        raise ConnectionRefusedError(111, "Connection refused")

    with pytest.raises(ConnectionLost, match="cannot connect to broker:9092: Connection refused") as caught:
        async with open_connection("broker", 9092, config=config, connector=refuse):
            pytest.fail("entered")
    assert isinstance(caught.value.__cause__, ConnectionRefusedError)


async def test_connect_to_a_closed_port_names_the_reason(config: ProducerConfig) -> None:
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listener.socket.getsockname()[1]
    await listener.aclose()
    with pytest.raises(ConnectionLost, match=f"cannot connect to localhost:{port}: Connection refused"):
        async with open_connection("localhost", port, config=config):
            pytest.fail("entered")


async def test_connect_too_slow_ends_at_connect_timeout(
    config: ProducerConfig, autojump_clock: trio.testing.MockClock
) -> None:
    async def never(host: str, port: int) -> trio.abc.HalfCloseableStream:
        await trio.sleep_forever()
        raise AssertionError

    with pytest.raises(ConnectionLost, match=r"no connection to broker:9092 within 5 s \(TCP\)"):
        async with open_connection("broker", 9092, config=config, connector=never):
            pytest.fail("entered")
    assert trio.current_time() == 5.0


async def test_handshake_without_an_answer_ends_at_connect_timeout_and_closes(
    config: ProducerConfig, peer: Any, autojump_clock: trio.testing.MockClock
) -> None:
    async def say_nothing(link: Any) -> None:
        await link.expect()

    peer.greeting = say_nothing
    with pytest.raises(ConnectionLost, match=r"within 5 s \(ApiVersions\)"):
        async with open_connection("broker", 9092, config=config, connector=peer.connector):
            pytest.fail("entered")
    assert trio.current_time() == 5.0
    assert await peer.link.asked() is None


async def test_peer_that_hangs_up_on_version_4_is_asked_with_3_and_0(
    config: ProducerConfig, peer: Any, make_versions_body: Body
) -> None:
    asked_with = []

    async def old_broker(link: Any) -> None:
        asked = await link.expect()
        asked_with.append(asked.version)
        if asked.version == 0:
            await link.answer(asked.correlation_id, make_versions_body(0, {0: (3, 7)}), flexible=False)
        else:
            await link.close()

    peer.greeting = old_broker
    async with open_connection("broker", 9092, config=config, connector=peer.connector) as connection:
        assert asked_with == [4, 3, 0]
        assert connection.version_of(produce) == 7
    assert [await link.asked() for link in peer.links[-1:]] == [None]


async def test_peer_that_always_hangs_up_is_a_loss_with_a_hint(config: ProducerConfig, peer: Any) -> None:
    async def hang_up(link: Any) -> None:
        await link.expect()
        await link.close()

    peer.greeting = hang_up
    with pytest.raises(ConnectionLost, match=r"closed the connection during the handshake; does the listener speak"):
        async with open_connection("broker", 9092, config=config, connector=peer.connector):
            pytest.fail("entered")
    assert len(peer.links) == 3


@pytest.mark.parametrize(
    ("twice", "shift", "message"),
    [(True, 0, "more than one answer"), (False, 1, "answered request 1, which was not asked")],
)
async def test_peer_that_answers_wrongly_is_a_protocol_error(
    config: ProducerConfig, peer: Any, make_versions_body: Body, twice: bool, shift: int, message: str
) -> None:
    async def confused(link: Any) -> None:
        asked = await link.expect()
        frame = link.frame(asked.correlation_id + shift, make_versions_body(4), flexible=False)
        await link.stream.send_all(frame * (1 + twice))

    peer.greeting = confused
    with pytest.raises(ProtocolError, match=message):
        async with open_connection("broker", 9092, config=config, connector=peer.connector):
            pytest.fail("entered")
    assert await peer.link.asked() is None


async def test_handshake_dribbled_byte_by_byte_succeeds(
    config: ProducerConfig, peer: Any, make_versions_body: Body, autojump_clock: trio.testing.MockClock
) -> None:
    async def dribble(link: Any) -> None:
        asked = await link.expect()
        for byte in link.frame(asked.correlation_id, make_versions_body(4), flexible=False):
            await link.stream.send_all(bytes((byte,)))
            await trio.sleep(0.01)

    peer.greeting = dribble
    async with open_connection("broker", 9092, config=config, connector=peer.connector) as connection:
        assert connection.versions[0] == (3, 13)


async def test_version_of_names_both_ranges_where_they_do_not_meet(
    config: ProducerConfig, peer: Any, make_versions_body: Body
) -> None:
    async def ancient(link: Any) -> None:
        asked = await link.expect()
        await link.answer(asked.correlation_id, make_versions_body(4, {0: (0, 2), 18: (0, 4)}), flexible=False)

    peer.greeting = ancient
    async with open_connection("broker", 9092, config=config, connector=peer.connector) as connection:
        with pytest.raises(ProtocolError, match=r"broker:9092 speaks Produce 0–2, we speak 3–13"):
            connection.version_of(produce)
        with pytest.raises(ProtocolError, match=r"broker:9092 does not speak Fetch"):
            connection.version_of(fetch)


async def test_version_of_at_most_bounds_ours(config: ProducerConfig, peer: Any) -> None:
    async with open_connection("broker", 9092, config=config, connector=peer.connector) as connection:
        assert connection.version_of(produce) == 13
        assert connection.version_of(produce, at_most=12) == 12
