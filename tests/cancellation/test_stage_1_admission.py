"""Stage 1: connection, head, admission. Nothing is held yet; what is shed costs no memory and leaves none."""

from dataclasses import replace

import httpx  # noqa: ASYNC127  # the client that the collector itself uses
import pytest
import trio

from collector.config import Config
from collector.devtools.fixtures import CollectorServer, default_config


@pytest.fixture
def collector_config() -> Config:
    """Room for one small body at a time, little patience with idle connections."""
    config = default_config()
    limits = replace(config.limits, in_work_bytes=1000, body_bytes=1000)
    return replace(config, limits=limits, http=replace(config.http, idle_timeout_s=0.5))


async def test_shed_request_leaves_nothing(start, collector_app, assert_nothing_left, autojump_clock) -> None:
    slow = start(None, content_length="800")
    await trio.testing.wait_all_tasks_blocked()
    shed = start(b"{" + b" " * 700)
    await shed.ended.wait()
    assert (shed.status, shed.ended_at) == (503, 0.0)
    assert collector_app.services.admission.statistics().reservations == 1
    assert collector_app.ledger.unparsed_bytes_total == 701
    slow.hang_up()
    await slow.ended.wait()
    await assert_nothing_left()


async def test_cancelled_while_a_shed_body_is_thrown_away_leaves_nothing(
    start, collector_app, assert_nothing_left, autojump_clock
) -> None:
    slow = start(None, content_length="800")
    await trio.testing.wait_all_tasks_blocked()
    shed = start(None, content_length="900")
    shed.feed(b" " * 100, more=True)
    await trio.testing.wait_all_tasks_blocked()
    shed.cancel()
    await shed.ended.wait()
    assert shed.status == 0
    slow.cancel()
    await slow.ended.wait()
    await assert_nothing_left()


async def test_shed_body_that_does_not_end_is_waited_for_one_second(start, assert_nothing_left, autojump_clock) -> None:
    slow = start(None, content_length="800")
    await trio.testing.wait_all_tasks_blocked()
    shed = start(None, content_length="900")
    await shed.ended.wait()
    assert (shed.status, shed.ended_at) == (503, 1.0)
    assert shed.headers["connection"] == "close"
    slow.cancel()
    await slow.ended.wait()
    await assert_nothing_left()


async def test_half_a_head_is_closed_and_leaves_nothing(collector_server: CollectorServer, assert_nothing_left) -> None:
    """Real time: the head is read by the server, from a socket."""
    url = httpx.URL(collector_server.http)
    with trio.fail_after(10):
        stream = await trio.open_tcp_stream(url.host, url.port or 0)
        async with stream:
            await stream.send_all(b"POST /v1/track HTTP/1.1\r\nHost: c")
            said = b"".join([data async for data in stream])
            assert said.startswith(b"HTTP/1.1 408 "), said
    await assert_nothing_left(within_s=2)


async def test_client_that_leaves_in_the_middle_of_a_head_leaves_nothing(
    collector_server: CollectorServer, assert_nothing_left
) -> None:
    url = httpx.URL(collector_server.http)
    for _ in range(20):
        stream = await trio.open_tcp_stream(url.host, url.port or 0)
        await stream.send_all(b"POST /v1/track HTTP/1.1\r\nHost: c")
        await stream.aclose()
    await assert_nothing_left(within_s=2)
