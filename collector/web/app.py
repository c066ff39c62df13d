"""The ASGI application: plain ASGI 3, so that any Trio server can run it.

Owns: the fork between HTTP, websocket and lifespan. Refuses to know: which server runs it, and who made the services.
"""

from collector.web.asgi_types import AsgiApp, Receive, Scope, Send
from collector.web.exchange import Exchange
from collector.web.services import Services
from collector.web.websocket.session import serve_websocket

__all__ = ["make_app"]


def make_app(services: Services) -> AsgiApp:
    """The application over these services, which live longer than it: its lifespan starts and ends nothing."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        match scope["type"]:
            case "http":
                await Exchange(services, scope, receive, send).serve()
            case "websocket":
                await serve_websocket(services, scope, receive, send)
            case "lifespan":
                await acknowledge_lifespan(receive, send)
            case other:
                raise ValueError(f"ASGI scope {other!r} is not known here")

    return app


async def acknowledge_lifespan(receive: Receive, send: Send) -> None:
    """Say yes to a server's startup and shutdown.

    On cancellation: ends.
    """
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return
