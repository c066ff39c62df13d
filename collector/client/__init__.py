"""The Python track client: HTTP (httpx under anyio: Trio or asyncio) and websocket (Trio).

Owns: sending events until they are accepted. Refuses to know: the server's insides; it speaks the public protocol only.
"""

from .events import ApiName, Event, EventError
from .http import TrackClient, open_track_client
from .outcome import Accepted, Ack, AckStatus, ClientError, Refused, RetryDetails, Unreachable
from .websocket import SubmittedMessage, WebsocketTrackClient, open_websocket_track_client

__all__ = [
    "Accepted",
    "Ack",
    "AckStatus",
    "ApiName",
    "ClientError",
    "Event",
    "EventError",
    "Refused",
    "RetryDetails",
    "SubmittedMessage",
    "TrackClient",
    "Unreachable",
    "WebsocketTrackClient",
    "open_track_client",
    "open_websocket_track_client",
]
