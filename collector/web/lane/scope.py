"""The scope of a request, as ASGI and Hypercorn have it.

Owns: its keys, and the targets that were split before. Refuses to know: whose connection it is; that is added to it.

Source: https://asgi.readthedocs.io/en/latest/specs/www.html#http-connection-scope.
"""

from typing import Any
from urllib.parse import unquote

from collector.ingest.nursery import EXTENSION, RearmedNursery
from collector.web.asgi_types import Scope
from collector.web.handle import BOUNDED_SEND, WHOLE_BODY
from collector.web.lane.request import Request

__all__ = ["Scopes"]

_MAX_PATHS = 1024

#: The value of an extension that says no more than that it is there.
_YES: dict[str, object] = {}

#: Targets that were split; those with a query are not remembered: they differ.
_paths: dict[bytes, tuple[str, bytes, bytes]] = {}


def _split(target: bytes) -> tuple[str, bytes, bytes]:
    """``path``, ``raw_path`` and ``query_string`` of ASGI."""
    raw, mark, query = target.partition(b"?")
    text = raw.decode("latin-1")
    found = (unquote(text) if "%" in text else text), raw, query
    if not mark and len(_paths) < _MAX_PATHS:
        _paths[target] = found
    return found


class Scopes:
    """Makes the scopes of one server's requests: a copy of what they have in common, and what is their own.

    Args:
        scheme: ``http`` or ``https``.
    """

    def __init__(self, scheme: str) -> None:
        # In the order in which Hypercorn has its keys.
        self._common: dict[str, Any] = {
            "type": "http",
            "http_version": "1.1",
            "asgi": {"spec_version": "2.1", "version": "3.0"},
            "method": "",
            "scheme": scheme,
            "path": "",
            "raw_path": b"",
            "query_string": b"",
            "root_path": "",
            "headers": [],
            "client": None,
            "server": None,
            "state": {},
            "extensions": {},
        }

    def make(self, request: Request, carrier: RearmedNursery | None) -> Scope:
        """The scope of ``request``, without ``client``, ``server`` and ``state``."""
        scope = self._common.copy()
        target = request.target
        scope["method"] = request.method
        scope["path"], scope["raw_path"], scope["query_string"] = _paths.get(target) or _split(target)
        scope["headers"] = request.headers
        if request.complete:
            scope["extensions"] = {EXTENSION: carrier, BOUNDED_SEND: _YES, WHOLE_BODY: request.whole()}
        else:
            scope["extensions"] = {EXTENSION: carrier, BOUNDED_SEND: _YES}
        if request.http_version != "1.1":
            scope["http_version"] = request.http_version
        return scope
