"""The few pages that belong to no dialect: what this is, and how it is.

Owns: ``GET /``, ``/healthz``, ``/readyz`` and the answers to unknown paths. Refuses to know: events.

Invariant: liveness never depends on Kafka: ``/healthz`` says ok as long as the loop runs.
"""

from collector.dialects.base import Answer
from collector.lifecycle import Lifecycle
from collector.web.answers import plain
from collector.web.routing import Routes
from collector.web.websocket.frames import PATH as WEBSOCKET_PATH

__all__ = ["page_for"]

PATHS = ("/", "/healthz", "/readyz")


def page_for(method: str, path: str, lifecycle: Lifecycle, routes: Routes) -> Answer:
    """The answer to a request that is no dialect's."""
    if path == WEBSOCKET_PATH:
        return plain(400, "this path speaks websocket: upgrade the connection")
    if path not in PATHS:
        return plain(404, f"not found; POST events to one of: {', '.join(routes.paths())}, websocket {WEBSOCKET_PATH}")
    if method not in ("GET", "HEAD"):
        return plain(405, "this page can be read with GET")
    if path == "/healthz":
        return plain(200, "ok")
    if path == "/readyz":
        status = lifecycle.status()
        return plain(200 if status == "ready" else 503, status)
    lines = [
        "collector: an event collector. Track events go in, an Apache Kafka topic has them when the answer is 200.",
        "503 with Retry-After: not accepted, send again; the header X-Collector-Outcome says what became of each part.",
        "",
        *routes.paths(),
        f"GET {WEBSOCKET_PATH} (websocket, subprotocol collector.v1)",
        "GET /healthz",
        "GET /readyz",
    ]
    return plain(200, "\n".join(lines))
