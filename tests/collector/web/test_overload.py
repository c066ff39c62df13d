"""The stock server while the loop is behind: who waits in the kernel is refused, who is in goes on."""

import socket
import time

import trio

from collector.devtools.raw_http import open_http
from collector.web.connections import ConnectionLimits
from collector.web.listeners import address_of, open_listener
from collector.web.server import LOOK_S, serve_http
from tests.collector.web.conftest import Web

CLIENTS = 20
BODY = b'{"writeKey":"k","type":"track","event":"x","userId":"u"}'


async def test_new_connections_are_refused_and_counted_while_the_loop_is_behind(web: Web) -> None:
    services = web.services
    listener = await open_listener(services.config.http)
    address = address_of(listener)
    limits = ConnectionLimits(1000)
    limits.refused = services.refused
    stop = trio.Event()
    async with trio.open_nursery() as nursery:

        async def serve(task_status: trio.TaskStatus[list[str]]) -> None:  # noqa: ASYNC128  # what it serves reports
            await serve_http(web.app, services.config, listener, limits, shutdown=stop.wait, task_status=task_status)

        await nursery.start(serve)
        async with open_http(address) as kept:
            assert (await kept.request("POST", "/v1/track", BODY)).status == 200
            before = services.ledger.statistics().unparsed_requests_total
            limits.behind = lambda: True
            statuses = await asked_while_the_loop_is_held(address)
            assert set(statuses) <= {b"503", b"200"}
            refused = statuses.count(b"503")
            assert refused >= CLIENTS - 5, "more than one in a turn was accepted"
            assert (await kept.request("POST", "/v1/track", BODY)).status == 200
            limits.behind = lambda: False
        async with open_http(address) as again:
            assert (await again.request("POST", "/v1/track", BODY)).status == 200
        assert limits.statistics().turned_away_total == refused
        assert services.ledger.statistics().unparsed_requests_total == before + refused
        stop.set()


async def asked_while_the_loop_is_held(address: str) -> list[bytes]:
    """The statuses that clients hear who all came in one long turn."""
    await trio.lowlevel.checkpoint()
    host, _, port = address.rpartition(":")
    clients = [socket.create_connection((host, int(port))) for _ in range(CLIENTS)]
    try:
        for client in clients:
            client.sendall(b"POST /v1/track HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%b" % (len(BODY), BODY))
        time.sleep(2 * LOOK_S)  # noqa: ASYNC251  # the loop is behind
        statuses = []
        for client in clients:
            await trio.lowlevel.wait_readable(client)
            statuses.append(client.recv(65536).split()[1])
        return statuses
    finally:
        for client in clients:
            client.close()
