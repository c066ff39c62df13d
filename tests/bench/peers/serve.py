"""A peer in a process of its own: ``python -m tests.bench.peers.serve SPEC`` (JSON), under uvicorn.

Owns: uvicorn's settings, the ones that served it best: uvloop, httptools, no access log. Refuses to know: the load.
"""

import sys

import msgspec
import uvicorn

from tests.bench.peers.apps import App, floor, make_app
from tests.bench.peers.sending import SendingSpec, make_sending

__all__ = ["PeerSpec", "main"]


class PeerSpec(msgspec.Struct, frozen=True, kw_only=True):
    """What a peer is told."""

    port: int
    framework: str
    """``fastapi`` | ``starlette`` | ``bare`` | ``floor``: an application that answers at once, without Kafka."""
    sending: SendingSpec | None = None
    bootstrap_servers: str = ""
    topic: str = ""
    websockets: str = "none"
    """uvicorn's name of the implementation."""


def main() -> None:
    """Serve until SIGTERM."""
    spec = msgspec.json.decode(sys.argv[1], type=PeerSpec)
    app: App = floor
    if spec.sending is not None:
        app = make_app(spec.framework, make_sending(spec.sending, spec.bootstrap_servers, spec.topic))
    uvicorn.run(
        app,
        port=spec.port,
        loop="uvloop",
        http="httptools",
        ws=spec.websockets,  # type: ignore[arg-type]  # a word of its own list
        access_log=False,
        log_level="warning",
        timeout_graceful_shutdown=2,
    )


if __name__ == "__main__":
    main()
