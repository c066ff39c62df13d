"""The fixtures that the wheel ships, used as anyone would use them."""

import subprocess
import sys

import httpx  # noqa: ASYNC127  # the client that the collector itself uses
import pytest
import trio

from collector.client import TrackClient
from collector.devtools.fixtures import CollectorApp, CollectorServer, open_collector_server
from collector.devtools.leftovers import AssertNothingLeft
from collector.devtools.received import ReceivedEvents
from kafka_client import Delivered, Producer, Record, Unknown
from kafka_client.testing import FakeCluster

SEEN = {"type": "track", "userId": "u1", "event": "Seen"}
SIGNUP = {"writeKey": "shop", "userId": "u1", "event": "Signed Up", "properties": {"plan": "pro"}}


async def test_producer_delivers_to_the_fake_broker(
    kafka_broker: FakeCluster,
    kafka_producer: Producer,
    assert_nothing_left: AssertNothingLeft,
    autojump_clock: trio.testing.MockClock,
) -> None:
    kafka_broker.faults.delay(0.5)
    delivered = await kafka_producer.send(Record("events", b"hello", key=b"k"))
    assert delivered.offset == 0
    assert kafka_broker.values("events") == [b"hello"]
    assert trio.current_time() == 0.5
    await assert_nothing_left(connections=2)


async def test_what_is_left_is_named(
    kafka_broker: FakeCluster,
    kafka_producer: Producer,
    assert_nothing_left: AssertNothingLeft,
    autojump_clock: trio.testing.MockClock,
) -> None:
    stall = kafka_broker.faults.stall()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.sleep_forever, name="forgotten")
        with kafka_producer.delivery([Record("events", b"hello", partition=0)]) as delivery:
            await kafka_broker.wait_records("events", 1)
        assert isinstance(delivery.outcomes[0], Unknown)
        with pytest.raises(AssertionError, match=r"left behind: task forgotten; producer: in_flight_bytes is \d+; .*"):
            await assert_nothing_left(within_s=10)
        assert trio.current_time() == 10
        nursery.cancel_scope.cancel(reason="the test has seen it")
    stall.release()
    await assert_nothing_left(within_s=1)
    assert trio.current_time() < 10.1


async def test_app_answers_when_kafka_has_acknowledged(
    collector_app: CollectorApp,
    received_events: ReceivedEvents,
    assert_nothing_left: AssertNothingLeft,
    autojump_clock: trio.testing.MockClock,
) -> None:
    collector_app.broker.faults.delay(0.25)
    answer = await collector_app.http.post("/v1/track", json=SIGNUP)
    assert (answer.status_code, answer.json()) == (200, {"success": True})
    assert trio.current_time() == 0.25
    [event] = await received_events(1)
    assert (event.api, event.app, event.type, event.key) == ("segment", "shop", "track", b"u1")
    assert event.body == SIGNUP
    assert event.body_bytes == answer.request.content
    assert collector_app.ledger.delivered_total == 1


async def test_track_client_sends_to_the_app(
    track_client: TrackClient,
    received_events: ReceivedEvents,
    assert_nothing_left: AssertNothingLeft,
    autojump_clock: trio.testing.MockClock,
) -> None:
    accepted = await track_client.batch([{**SEEN, "userId": f"u{number}"} for number in range(5)])
    assert accepted.events == 5
    events = await received_events(5)
    assert {event.app for event in events} == {"test-app"}
    await assert_nothing_left()


async def test_track_client_tries_again_after_a_503(
    kafka_broker: FakeCluster,
    track_client: TrackClient,
    received_events: ReceivedEvents,
    autojump_clock: trio.testing.MockClock,
) -> None:
    kafka_broker.stop_broker(1)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(track_client.track, SEEN)
        await trio.sleep(10)
        assert kafka_broker.records("events") == []
        kafka_broker.start_broker(1)
    assert len(await received_events(1)) == 1
    assert track_client.retries_total >= 1


async def test_server_listens_and_writes_to_its_mock_broker(
    collector_server: CollectorServer,
    track_client: TrackClient,
    received_events: ReceivedEvents,
    assert_nothing_left: AssertNothingLeft,
) -> None:
    await track_client.track({**SEEN, "messageId": "m-1"})
    [event] = await received_events(1)
    assert (event.id, event.key) == ("m-1", b"u1")
    async with httpx.AsyncClient(trust_env=False) as http:
        assert (await http.get(collector_server.http + "/readyz")).text.strip() == "ready"
        assert (await http.get(collector_server.admin + "/metrics")).status_code == 200
    await assert_nothing_left(within_s=2)


async def test_server_refuses_a_mock_clock(autojump_clock: trio.testing.MockClock) -> None:
    with pytest.raises(RuntimeError, match="lives on real time"):
        async with open_collector_server():
            raise AssertionError("it was opened")


async def test_producer_and_app_share_the_broker(
    kafka_producer: Producer, collector_app: CollectorApp, received_events: ReceivedEvents
) -> None:
    assert isinstance(await kafka_producer.send(Record("events", b"plain")), Delivered)
    await collector_app.http.post("/v1/track", json=SIGNUP)
    assert len(await received_events(2)) == 2


def test_plugin_imports_nothing_heavy() -> None:
    """pytest imports it in every suite of an environment that has the collector installed."""
    code = (
        "import pytest, sys; before = set(sys.modules); import collector.devtools.pytest_plugin; "
        "print(*sorted(set(sys.modules) - before))"
    )
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert loaded == ["collector", "collector.devtools", "collector.devtools.pytest_plugin"]
