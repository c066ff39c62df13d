"""A peer in a process of its own: ``python -m tests.bench.peers.serve SPEC`` (JSON), under uvicorn.

Owns: uvicorn's settings, the ones that served it best: uvloop, httptools, no access log. Refuses to know: the load.
"""

import sys

import msgspec
import uvicorn

from tests.bench.peers.apps import App, floor, make_app
from tests.bench.peers.sending import make_sending
from tests.bench.peers.spec import PeerSpec

__all__ = ["main"]


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
