import ssl

import pytest
import trio
import trustme

from collector.client import Unreachable
from collector.client.address import WebsocketAddress


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("ws://h:81/v1/ws", ("h", 81, False, "h:81", "/v1/ws")),
        ("ws://h", ("h", 80, False, "h", "/")),
        ("wss://u:p@h/a?b=c", ("h", 443, True, "h", "/a?b=c")),
        ("ws://[::1]:9/x", ("::1", 9, False, "[::1]:9", "/x")),
    ],
)
def test_a_url_is_taken_apart(url: str, expected: tuple[str, int, bool, str, str]) -> None:
    address = WebsocketAddress.parse(url)
    assert (address.name, address.port, address.tls, address.host, address.path) == expected


@pytest.mark.parametrize("url", ["", "http://h", "ws://", "ws:///path", "h:80", "ws://h:nan"])
def test_what_is_no_websocket_url_is_refused(url: str) -> None:
    with pytest.raises(Unreachable, match="is not an address like"):
        WebsocketAddress.parse(url)


async def test_a_certificate_that_nobody_vouches_for_is_final() -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    trustme.CA().issue_cert("localhost").configure_cert(context)

    async def shake_hands(stream: trio.SSLStream[trio.SocketStream]) -> None:
        with pytest.raises(trio.BrokenResourceError):
            await stream.do_handshake()
        await trio.aclose_forcefully(stream)

    listeners = await trio.open_ssl_over_tcp_listeners(0, context, host="127.0.0.1")
    port = listeners[0].transport_listener.socket.getsockname()[1]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, shake_hands, listeners)
        with pytest.raises(Unreachable, match="CERTIFICATE_VERIFY_FAILED"):
            await WebsocketAddress.parse(f"wss://localhost:{port}/").connect()
        await trio.testing.wait_all_tasks_blocked(0.01)
        nursery.cancel_scope.cancel(reason="the test is over")


async def test_nobody_there_may_be_tried_again() -> None:
    with pytest.raises(OSError, match="all attempts to connect"):
        await WebsocketAddress.parse("ws://127.0.0.1:1/").connect()
