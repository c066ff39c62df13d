"""The admin application: metrics, health, the task tree, the dashboard.

Owns: the admin listener's routes and their forms. Refuses to know: sockets (`listeners`), and how anything is measured.

It is for the operator's private network. Every route is a GET and changes nothing, but for the orders (`control`); and
nothing on it names a client or carries a key. The dashboard is one file without anything from elsewhere: it works where
the internet does not.
"""

import os
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from importlib import resources
from importlib.metadata import version

import msgspec
import trio
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from .control import control_route
from .exposition import make_exposition
from .ledger_history import COLUMNS
from .ledger_view import LedgerView
from .monitor import STAGES, Monitor
from .sampler import Sampler
from .statistics import JsonValue, plain
from .tasks import capture_tree
from .tasks_page import Headline, render_json, render_text

__all__ = ["make_admin_app", "make_metrics_app", "stats_of"]

_SECURITY = {
    "Content-Security-Policy": "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
    "connect-src 'self'; img-src data:; frame-ancestors 'none'; base-uri 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}
_FRESH = {"Cache-Control": "no-store"}
_WRONG_SINCE = PlainTextResponse("since: expected seconds since 1970\n", status_code=400)


def make_admin_app(monitor: Monitor, sampler: Sampler) -> Starlette:
    """The application of ``[admin] bind``."""
    page = resources.files(__package__ or "collector.monitor").joinpath("dashboard.html").read_bytes()

    def dashboard(_request: Request) -> Response:
        return Response(page, media_type="text/html; charset=utf-8", headers=_SECURITY | _FRESH)

    async def tasks(request: Request) -> Response:
        query = request.query_params
        top = await capture_tree(sampler.stillness)
        headline = _headline(monitor)
        if query.get("format") == "json" or "application/json" in request.headers.get("accept", ""):
            return _json(render_json(top, headline))
        text = render_text(top, headline, fold=query.get("fold") != "0", frames=query.get("frames") == "1")
        return PlainTextResponse(text, headers=_FRESH | {"X-Content-Type-Options": "nosniff"})

    def stats(request: Request) -> Response:
        since = _since(request)
        return _WRONG_SINCE if since is None else _json(stats_of(monitor, sampler, since=since))

    def ledgers(request: Request) -> Response:
        since = _since(request)
        return _WRONG_SINCE if since is None else _json(_ledgers_of(monitor, since))

    return Starlette(
        routes=[
            Route("/", _endpoint(dashboard)),
            Route("/debug/tasks", tasks),
            Route("/debug/stats", _endpoint(stats)),
            Route("/debug/ledgers", _endpoint(ledgers)),
            control_route(monitor),
            *_shared(monitor),
        ],
        exception_handlers={404: _not_found},
    )


def make_metrics_app(monitor: Monitor) -> Starlette:
    """The application of ``[metrics] bind``: metrics and health, nothing that shows the inside."""
    return Starlette(routes=_shared(monitor))


def stats_of(monitor: Monitor, sampler: Sampler, *, since: float = 0.0) -> JsonValue:
    """Everything the dashboard shows, as JSON: numbers now, and the samples after ``since`` (seconds since 1970)."""
    sources: dict[str, JsonValue] = {}
    ledger: JsonValue = None
    for name, read in list(monitor.sources.items()):
        try:
            statistics = read()
            sources[name] = plain(statistics)
            if name == "ledger":
                view = LedgerView.of(statistics)
                ledger = {
                    "received": view.received,
                    "outcomes": {**view.outcomes},
                    "in_work": view.in_work,
                    "difference": view.difference,
                }
        except Exception as error:  # the monitor's rim: one room's failing statistics() costs its own numbers only
            monitor.error(f"statistics of {name}")
            sources[name] = {"error": f"{type(error).__name__}: see the log"}
    limits = monitor.config.limits
    readiness = monitor.readiness
    return {
        "now": time.time(),
        "pid": os.getpid(),
        "version": version("collector"),
        "up_s": time.time() - monitor.started_at,
        "ready": readiness.ready,
        "word": readiness.word,
        "lag": {
            "now_s": monitor.lag_s,
            "recent_highest_s": monitor.lag.recent_highest_s,
            "highest_s": monitor.highest_lag_s,
            "bound_s": limits.max_lag_s,
        },
        "gc": {"share": monitor.gc_share, "longest_s": monitor.gc.longest_s},
        "stages": sampler.live_stages(),
        "stage_names": list(STAGES),
        "answers": [
            {"api": api, "status": status, "count": count} for (api, status), count in monitor.answers.counts.items()
        ],
        "shed": {**monitor.sheds.counts},
        "websocket_acks": {**monitor.websocket_acks.counts},
        "late": {**monitor.late_resolutions.counts},
        "errors": {**monitor.errors.counts},
        "ledger": ledger,
        "limits": {
            "queue_bytes": limits.queue_bytes,
            "waiting_bytes": limits.waiting_bytes,
            "in_flight_bytes": limits.in_flight_bytes,
            "in_work_bytes": limits.in_work_bytes,
            "connections": limits.connections,
            "stall_s": monitor.config.deadlines.stall_s,
            "spool_age_alarm_s": monitor.config.spool.age_alarm_s,
        },
        "sources": sources,
        "samples": [plain(sample) for sample in monitor.samples if sample.at > since],
    }


def _shared(monitor: Monitor) -> list[Route]:
    expose = make_exposition(monitor)

    def metrics(request: Request) -> Response:
        body, content_type = expose(request.headers.get("accept", ""))
        return Response(body, headers=_FRESH | {"Content-Type": content_type})

    def healthz(_request: Request) -> Response:
        return PlainTextResponse("ok\n", headers=_FRESH)

    def readyz(_request: Request) -> Response:
        ready, word = monitor.readiness
        return PlainTextResponse(f"{word}\n", status_code=200 if ready else 503, headers=_FRESH)

    endpoints = {"/metrics": metrics, "/healthz": healthz, "/readyz": readyz}
    return [Route(path, _endpoint(make)) for path, make in endpoints.items()]


def _endpoint(make: Callable[[Request], Response]) -> Callable[[Request], Awaitable[Response]]:
    """An endpoint that only reads: Starlette would send a plain function to a thread, where nothing of ours may run."""

    async def endpoint(request: Request) -> Response:
        await trio.lowlevel.checkpoint()
        return make(request)

    return endpoint


async def _not_found(_request: Request, _error: Exception) -> Response:
    await trio.lowlevel.checkpoint()
    return PlainTextResponse(
        "not here. / dashboard · /metrics · /healthz · /readyz · /debug/tasks · /debug/stats · /debug/ledgers\n",
        status_code=404,
    )


def _since(request: Request) -> float | None:
    """Seconds since 1970 from the query; None where they are none."""
    try:
        return float(request.query_params.get("since", "0"))
    except ValueError:
        return None


def _ledgers_of(monitor: Monitor, since: float) -> JsonValue:
    """Both ledgers over time, as `collector report ledger` reads them."""
    return {
        "now": time.time(),
        "started_at": monitor.started_at,
        "pid": os.getpid(),
        "columns": list(COLUMNS),
        "readings": [[reading.at, *reading.values] for reading in monitor.ledgers.readings(since)],
    }


def _headline(monitor: Monitor) -> Headline:
    ready, word = monitor.readiness
    return Headline(
        pid=os.getpid(),
        up_s=time.time() - monitor.started_at,
        at=datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S UTC"),
        ready=ready,
        word=word,
        lag_s=monitor.lag_s,
        recent_highest_lag_s=monitor.lag.recent_highest_s,
        max_lag_s=monitor.config.limits.max_lag_s,
        gc_share=monitor.gc_share,
    )


def _json(value: JsonValue) -> Response:
    return Response(msgspec.json.encode(value), media_type="application/json", headers=_FRESH)
