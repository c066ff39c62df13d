"""What ended a websocket: which exception counts, and its words for people.

Owns: the reading of trio-websocket's exceptions. Refuses to know: what is done about them.
"""

from trio_websocket import ConnectionClosed, ConnectionRejected, HandshakeError

from .outcome import Unreachable

__all__ = ["first", "rejection", "why"]


def rejection(url: str, error: BaseException) -> Exception:
    assert isinstance(error, ConnectionRejected)
    if error.status_code >= 500 or error.status_code in (408, 429):
        return HandshakeError(f"{url} answered {error.status_code}")
    body = " ".join((error.body or b"").decode("utf-8", "replace")[:300].split())
    return Unreachable(f"{url} refused the websocket: {error.status_code} {body}".rstrip())


def why(error: ConnectionClosed) -> str:
    if error.reason is None:
        return "no close frame"
    return f"{error.reason.code} {error.reason.name} {error.reason.reason or ''}".rstrip()


def first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    inner: BaseException = group
    while isinstance(inner, BaseExceptionGroup):
        inner = inner.exceptions[0]
    return inner
