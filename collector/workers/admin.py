"""The admin application of a supervisor: one address for all workers.

Owns: its routes, what it says for all of them, the way through to a single one. Refuses to know: what a worker's pages
show.

    /metrics  /healthz  /readyz      of all: `collector.workers.metrics`; ready as soon as one is
    /debug/ledgers                   of all, added up: what `collector report ledger` reads
    /debug/workers                   the slots, as JSON
    /worker/N/…                      the admin pages of one: its dashboard, /debug/tasks, /debug/stats, /metrics, …
    POST /control/…                  an order goes to each, and is carried out by the one that it concerns; with
                                     /worker/N/ before it to that one alone
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager

import httpx  # noqa: ASYNC127  # as `collector.client.http`
import msgspec
import trio
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route

from collector.monitor.control import ANSWER_S, ORDER_MAX_BYTES, from_a_program
from collector.monitor.statistics import plain
from collector.workers.ledgers import Ledgers, added_up
from collector.workers.metrics import joined, make_own_pages
from collector.workers.statistics import Statistics, WorkerStatistics

__all__ = ["make_admin_app", "make_metrics_app"]

PAGE_S = 4.0
"""For a worker's page: a scraper waits for ten seconds as a rule, and one that hangs must not take them all."""

_FRESH = {"Cache-Control": "no-store"}
_PASSED_ON = ("content-type", "cache-control", "content-security-policy", "x-content-type-options", "referrer-policy")
_INDEX = """<!doctype html><html lang="en"><meta charset="utf-8"><title>collector</title><link rel="icon" href="data:,">
<style>body{font:15px system-ui;margin:2rem}td,th{text-align:left;padding:.2rem 1.2rem .2rem 0}</style>
<h1>collector: %s</h1><table><tr><th>worker<th>state<th>ready<th>pid<th>served<th></tr>%s</table>
<p><a href="metrics">metrics</a> · <a href="debug/workers">workers</a> · <a href="debug/ledgers">ledgers</a></p></html>
"""
_SECURITY = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; img-src data:; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


class _Pages:
    """The workers' own listeners, asked."""

    def __init__(self, statistics: Callable[[], Statistics]) -> None:
        self.statistics = statistics
        self._client: httpx.AsyncClient | None = None

    @asynccontextmanager
    async def open(self, _app: object) -> AsyncIterator[None]:
        # Plain HTTP to this machine: without `verify` there are no authorities to load.
        async with httpx.AsyncClient(trust_env=False, verify=False) as client:
            self._client = client
            yield

    async def ask(
        self, worker: WorkerStatistics, path: str, *, request: Request | None = None, body: bytes = b""
    ) -> httpx.Response | None:
        """A worker's answer; None where it has none in time. On cancellation: an order may be carried out."""
        assert self._client is not None
        await trio.lowlevel.checkpoint()
        if worker.admin is None:
            return None
        method = "GET" if request is None else request.method
        query = "" if request is None else request.url.query
        names = ("accept", "content-type")
        headers = {} if request is None else {n: request.headers[n] for n in names if n in request.headers}
        try:
            return await self._client.request(
                method,
                f"{worker.admin}{path}" + (f"?{query}" if query else ""),
                headers=headers,
                content=body or None,
                timeout=PAGE_S if method == "GET" else ANSWER_S + PAGE_S,
            )
        except httpx.HTTPError:
            return None

    async def ask_all(self, path: str, request: Request) -> dict[int, httpx.Response]:
        """The good answers of all workers, by number. On cancellation: ask no more."""
        found: dict[int, httpx.Response] = {}

        async def one(worker: WorkerStatistics) -> None:
            answer = await self.ask(worker, path, request=request)
            if answer is not None and answer.status_code == 200:
                found[worker.number] = answer

        async with trio.open_nursery() as nursery:
            for worker in self.statistics().workers:
                nursery.start_soon(one, worker)
        return dict(sorted(found.items()))


def make_admin_app(statistics: Callable[[], Statistics]) -> Starlette:
    """The application of ``[admin] bind``."""
    pages = _Pages(statistics)
    return Starlette(
        routes=[*_of_all(pages), *_ways_through(pages), *_shared(pages)],
        exception_handlers={404: _not_found},
        lifespan=pages.open,
    )


def make_metrics_app(statistics: Callable[[], Statistics]) -> Starlette:
    """The application of ``[metrics] bind``: metrics and health, nothing that shows the inside."""
    pages = _Pages(statistics)
    return Starlette(routes=_shared(pages), lifespan=pages.open)


def _of_all(pages: _Pages) -> list[Route]:
    statistics = pages.statistics

    async def index(_request: Request) -> Response:
        await trio.lowlevel.checkpoint()
        now = statistics()
        return HTMLResponse(_INDEX % (now.word, "".join(map(_row, now.workers))), headers=_SECURITY | _FRESH)

    async def workers(_request: Request) -> Response:
        await trio.lowlevel.checkpoint()
        return _json(msgspec.json.encode(plain(statistics())))

    async def ledgers(request: Request) -> Response:
        answers = await pages.ask_all("/debug/ledgers", request)
        return _json(msgspec.json.encode(added_up([_decoded(answer) for answer in answers.values()])))

    return [Route("/", index), Route("/debug/workers", workers), Route("/debug/ledgers", ledgers)]


def _ways_through(pages: _Pages) -> list[Route]:
    async def one(request: Request) -> Response:
        number = request.path_params["number"]
        worker = next((worker for worker in pages.statistics().workers if worker.number == number), None)
        body = await _order(request)
        if isinstance(body, Response):
            return body
        if worker is None:
            return _text(404, f"there is no worker {number}")
        answer = await pages.ask(worker, f"/{request.path_params['path']}", request=request, body=body)
        if answer is None:
            return _text(503, f"worker {number} ({worker.state}) does not answer")
        return _passed_on(answer)

    async def bare(request: Request) -> Response:
        await trio.lowlevel.checkpoint()
        return RedirectResponse(f"/worker/{request.path_params['number']}/")

    async def control(request: Request) -> Response:
        body = await _order(request)
        if isinstance(body, Response):
            return body
        answers = []
        for worker in pages.statistics().workers:
            answer = await pages.ask(worker, f"/control/{request.path_params['name']}", request=request, body=body)
            if answer is not None and answer.status_code == 200:
                return _passed_on(answer)
            answers += [answer] if answer is not None else []
        return _passed_on(answers[-1]) if answers else _text(503, "no worker answers")

    return [
        Route("/worker/{number:int}", bare),
        Route("/worker/{number:int}/{path:path}", one, methods=["GET", "POST"]),
        Route("/control/{name:path}", control, methods=["POST"]),
    ]


def _shared(pages: _Pages) -> list[Route]:
    own_pages = make_own_pages(pages.statistics)

    async def metrics(request: Request) -> Response:
        answers = await pages.ask_all("/metrics", request)
        own, content_type = own_pages(request.headers.get("accept", ""), answers.keys())
        page = joined([*own, *((str(number), answer.text) for number, answer in answers.items())])
        return Response(page, headers=_FRESH | {"Content-Type": content_type})

    async def healthz(_request: Request) -> Response:
        await trio.lowlevel.checkpoint()
        return PlainTextResponse("ok\n", headers=_FRESH)

    async def readyz(_request: Request) -> Response:
        await trio.lowlevel.checkpoint()
        now = pages.statistics()
        lines = [now.word, *(f"worker {worker.number}: {worker.word}" for worker in now.workers)]
        return PlainTextResponse("\n".join(lines) + "\n", status_code=200 if now.ready else 503, headers=_FRESH)

    endpoints: dict[str, Callable[[Request], Awaitable[Response]]] = {
        "/metrics": metrics,
        "/healthz": healthz,
        "/readyz": readyz,
    }
    return [Route(path, endpoint) for path, endpoint in endpoints.items()]


def _decoded(answer: httpx.Response) -> Ledgers:
    return msgspec.json.decode(answer.content, type=Ledgers)


async def _order(request: Request) -> bytes | Response:
    """A request's body, or its refusal: the same as at a worker's own door, which sees only us.

    On cancellation: it is not read on.
    """
    await trio.lowlevel.checkpoint()
    if request.method == "POST" and not from_a_program(request):
        return _text(403, "orders are JSON (Content-Type: application/json) sent to an address, not to a name")
    body = bytearray()
    async for chunk in request.stream():
        body += chunk[: max(0, ORDER_MAX_BYTES + 1 - len(body))]
    if len(body) > ORDER_MAX_BYTES:
        return _text(400, f"an order may have {ORDER_MAX_BYTES} bytes")
    return bytes(body)


def _passed_on(answer: httpx.Response) -> Response:
    headers = {name: answer.headers[name] for name in _PASSED_ON if name in answer.headers}
    return Response(answer.content, status_code=answer.status_code, headers=headers)


def _row(worker: WorkerStatistics) -> str:
    number = worker.number
    links: Sequence[str] = (
        f'<a href="worker/{number}/">dashboard</a>',
        f'<a href="worker/{number}/debug/tasks">tasks</a>',
    )
    cells = (
        str(number),
        worker.state,
        worker.word,
        str(worker.pid or "–"),
        f"{worker.served_s:.0f} s",
        " ".join(links),
    )
    return "<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"


def _json(body: bytes) -> Response:
    return Response(body, media_type="application/json", headers=_FRESH)


def _text(status: int, text: str) -> Response:
    return PlainTextResponse(f"{text}\n", status_code=status, headers=_FRESH)


async def _not_found(_request: Request, _error: Exception) -> Response:
    await trio.lowlevel.checkpoint()
    return _text(
        404,
        "not here. / overview · /metrics · /healthz · /readyz · /debug/workers · /debug/ledgers · "
        "/worker/0/ dashboard of one · /worker/0/debug/tasks · /worker/0/debug/stats",
    )
