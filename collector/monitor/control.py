"""The door for orders: ``POST /control/…`` on the admin listener.

Owns: who gets through the door, the form of an order and of its answer, how long an answer may take. Refuses to know:
what an order does; a room offers it by name (`Monitor.offer`).

Invariant: an order comes from a program that an operator started, not from a web page that the operator's browser
happens to show: its body is JSON by its Content-Type, which a page of another origin cannot send without asking first
(and nobody here answers that question), and its Host is an address, which a name that somebody else points here is not.

Statuses: 200 done; 400 not understood; 403 from a web page; 404 nobody offers it; 409 refused, with the reason; 503 not
done yet: it goes on, or cannot be done now.
"""

import ipaddress

import msgspec
import trio
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from collector.log import get_logger

from .monitor import Monitor, OrderRefused

__all__ = ["ANSWER_S", "control_route", "from_a_program"]

log = get_logger("monitor")

ANSWER_S = 20.0
"""An order that takes longer goes on in its room; whoever gave it is told so."""

ORDER_MAX_BYTES = 4 * 1024 * 1024
"""Half a million ids."""


def control_route(monitor: Monitor) -> Route:
    """The route, for the admin application."""

    async def control(request: Request) -> Response:
        await trio.lowlevel.checkpoint()
        if not from_a_program(request):
            return _text(403, "orders are JSON (Content-Type: application/json) sent to an address, not to a name")
        name = request.path_params["name"]
        order = monitor.orders.get(name)
        if order is None:
            return _text(404, f"nobody here takes {name!r}; there is: {', '.join(sorted(monitor.orders)) or 'nothing'}")
        body = bytearray()
        async for chunk in request.stream():
            body += chunk[: max(0, ORDER_MAX_BYTES + 1 - len(body))]
        if len(body) > ORDER_MAX_BYTES:
            return _text(400, f"an order may have {ORDER_MAX_BYTES} bytes")
        try:
            with trio.fail_after(ANSWER_S):
                done = await order(bytes(body))
        except msgspec.MsgspecError as error:
            return _text(400, str(error))
        except OrderRefused as refusal:
            return _text(409, str(refusal))
        except trio.TooSlowError:
            return _text(503, f"not done within {ANSWER_S:g} s; what was begun goes on as soon as the disk lets it")
        log.info("an order was carried out", order=name, done=msgspec.to_builtins(done))
        return Response(msgspec.json.encode(done), media_type="application/json", headers={"Cache-Control": "no-store"})

    return Route("/control/{name:path}", control, methods=["POST"])


def from_a_program(request: Request) -> bool:
    """Whether an order does not come from a web page: JSON, sent to an address."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    host = (request.url.hostname or "").strip("[]")
    if host != "localhost":
        try:
            ipaddress.ip_address(host)
        except ValueError:
            return False
    return kind == "application/json"


def _text(status: int, text: str) -> Response:
    return PlainTextResponse(f"{text}\n", status_code=status, headers={"Cache-Control": "no-store"})
