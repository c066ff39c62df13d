"""The shapes of ASGI 3 that pass through this room. Source: https://asgi.readthedocs.io/en/latest/specs/main.html."""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, TypeAlias

__all__ = ["AsgiApp", "Message", "Receive", "Scope", "Send"]

# ASGI defines its scopes and messages as open dictionaries; what we read from them is narrowed where it is read.
Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
AsgiApp: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]
