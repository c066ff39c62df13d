"""The door for orders: what gets through it, and what whoever gave one is told."""

import httpx  # noqa: ASYNC127  # the client that the collector itself uses
import msgspec
import pytest
import trio

from collector.config import AdminConfig, Config
from collector.monitor import Monitor, OrderRefused, open_monitor
from collector.monitor import control as control_module

CONFIG = Config(admin=AdminConfig(bind="127.0.0.1:0"))


class Order(msgspec.Struct):
    """What these tests order."""

    words: list[str]


async def give(monitor: Monitor, name: str, body: bytes = b'{"words":["now"]}', **headers: str) -> httpx.Response:
    given = {"content-type": "application/json", **{key.replace("_", "-"): value for key, value in headers.items()}}
    async with httpx.AsyncClient(trust_env=False) as client:
        return await client.post(f"{monitor.admin_address}/control/{name}", content=body, headers=given)


async def obey(body: bytes) -> object:
    await trio.lowlevel.checkpoint()
    order = msgspec.json.decode(body, type=Order)
    if order.words == ["no"]:
        raise OrderRefused("not today")
    return {"done": len(order.words)}


async def test_order_reaches_the_room_that_offers_it_whatever_its_size() -> None:
    async with open_monitor(CONFIG) as monitor:
        monitor.offer("room/do", obey)
        answer = await give(monitor, "room/do")
        assert (answer.status_code, answer.json()) == (200, {"done": 1})
        answer = await give(monitor, "room/do", msgspec.json.encode({"words": ["x" * 100] * 30_000}))
        assert (answer.status_code, answer.json()) == (200, {"done": 30_000})


@pytest.mark.parametrize(
    ("name", "body", "headers", "status", "words"),
    [
        ("room/else", b"{}", {}, 404, "nobody here takes 'room/else'; there is: room/do"),
        ("room/do", b"{}", {}, 400, "missing required field `words`"),
        ("room/do", b"", {}, 400, "truncated"),
        ("room/do", b'{"words":["no"]}', {}, 409, "not today"),
        ("room/do", b'{"words":[]}' + b" " * 5_000_000, {}, 400, "an order may have 4194304 bytes"),
        # What a page of another origin can send without asking, and what one under a name pointed here can.
        ("room/do", b'{"words":[]}', {"content_type": "text/plain"}, 403, "orders are JSON"),
        ("room/do", b'{"words":[]}', {"host": "evil.example:8081"}, 403, "orders are JSON"),
    ],
)
async def test_what_is_no_order_is_refused(name: str, body: bytes, headers: dict[str, str], status: int, words) -> None:
    async with open_monitor(CONFIG) as monitor:
        monitor.offer("room/do", obey)
        answer = await give(monitor, name, body, **headers)
        assert answer.status_code == status
        assert words in answer.text


async def test_preflight_of_a_browser_is_not_answered() -> None:
    async with open_monitor(CONFIG) as monitor, httpx.AsyncClient(trust_env=False) as client:
        monitor.offer("room/do", obey)
        asked = {"origin": "https://evil.example", "access-control-request-method": "POST"}
        answer = await client.options(f"{monitor.admin_address}/control/room/do", headers=asked)
        assert answer.status_code == 405
        assert "access-control-allow-origin" not in answer.headers


async def test_order_that_takes_too_long_is_answered_503(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control_module, "ANSWER_S", 0.05)

    async def for_ever(_body: bytes) -> object:
        await trio.sleep_forever()

    async with open_monitor(CONFIG) as monitor:
        monitor.offer("room/wait", for_ever)
        answer = await give(monitor, "room/wait")
        assert answer.status_code == 503
        assert "goes on" in answer.text
