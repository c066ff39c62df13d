"""Stage 9: the nursery is closed and the answer is written. A client that does not read is cut off.

Real time: a kernel's send buffer and TCP_USER_TIMEOUT are what this is about.
"""

import socket
from dataclasses import replace

import pytest
import trio

from collector.config import Config
from collector.devtools.fixtures import CollectorApp, default_config
from collector.lifecycle import Phase
from collector.web.connections import ConnectionLimits
from collector.web.listeners import open_listener
from collector.web.server import serve_http

SEND_TIMEOUT_S = 1.0
SMALL_BUFFER_BYTES = 4096


@pytest.fixture
def collector_config() -> Config:
    """A client that does not read is given one second."""
    config = default_config()
    return replace(config, http=replace(config.http, bind="127.0.0.1:0", send_timeout_s=SEND_TIMEOUT_S))


@pytest.fixture
async def address(collector_app: CollectorApp):
    """The application behind the server as we run it, whose kernel buffers hold a few answers only."""
    listener = await open_listener(collector_app.config.http)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SMALL_BUFFER_BYTES)
    found = listener.getsockname()[:2]
    limits = ConnectionLimits(collector_app.config.limits.connections)
    lifecycle = collector_app.services.lifecycle

    async def draining() -> None:
        await lifecycle.wait_reached(Phase.DRAINING)

    async def serve(task_status: trio.TaskStatus[list[str]]) -> None:  # noqa: ASYNC128  # the server reports
        await serve_http(
            collector_app.app, collector_app.config, listener, limits, shutdown=draining, task_status=task_status
        )

    async with trio.open_nursery() as nursery:
        await nursery.start(serve)
        yield found
        lifecycle.advance(Phase.DRAINING)


async def test_client_that_does_not_read_is_cut_off(address, make_event, collector_app, assert_nothing_left) -> None:
    assert_nothing_left.start_over()
    body = make_event("deaf", 400)
    request = b"POST /v1/track HTTP/1.1\r\nHost: c\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    sock = trio.socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL_BUFFER_BYTES)
    await sock.connect(address)
    stream = trio.SocketStream(sock)
    async with stream:
        began = trio.current_time()
        with trio.fail_after(SEND_TIMEOUT_S * 8):
            with pytest.raises(trio.BrokenResourceError):
                while True:
                    await stream.send_all(request)
        assert trio.current_time() - began >= SEND_TIMEOUT_S
    await assert_nothing_left(within_s=3)
    books = collector_app.ledger
    assert books.delivered_total == books.received_total > 1
    assert len(collector_app.broker.records("events")) == books.delivered_total


async def test_client_that_leaves_before_its_answer_is_worked_all_the_same(
    address, make_event, collector_app, assert_nothing_left
) -> None:
    """A beacon: its complete body is worked to the end, nobody reads the answer."""
    assert_nothing_left.start_over()
    collector_app.broker.faults.delay(0.2, times=None)
    body = make_event("beacon")
    request = b"POST /v1/track HTTP/1.1\r\nHost: c\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    for _ in range(20):
        stream = await trio.open_tcp_stream(*address)
        await stream.send_all(request)
        await stream.aclose()
    with trio.fail_after(10):
        await collector_app.broker.wait_records("events", 20)
    await assert_nothing_left(within_s=3)
    assert collector_app.ledger.delivered_total == 20
