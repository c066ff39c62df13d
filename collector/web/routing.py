"""Which dialect a path belongs to.

Owns: the table of routes. Refuses to know: what a dialect does.

Invariant: a path has one owner; what no dialect knows is answered by the one whose paths begin alike, so that a client
with a typing error in its path reads an error in its own words.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from collector.dialects.base import Dialect, Route

__all__ = ["Match", "Routes"]


@dataclass(frozen=True, slots=True)
class Match:
    """A path's dialect; ``route`` is None where the dialect has no such path, or not with this method."""

    dialect: Dialect
    route: Route | None
    methods: tuple[str, ...] = ()
    """The methods that the path does have; empty where the path itself is unknown."""


class Routes:
    """The table, built once from the dialects. Raises ValueError when two of them claim one path."""

    def __init__(self, dialects: Iterable[Dialect]) -> None:
        self._exact: dict[tuple[str, str], Match] = {}
        self._by_path: dict[str, list[tuple[str, Dialect]]] = {}
        self._by_prefix: dict[str, Dialect] = {}
        for dialect in dialects:
            for route in dialect.routes:
                key = (route.method, route.path)
                if key in self._exact:
                    raise ValueError(f"two dialects claim {route.method} {route.path}")
                self._exact[key] = Match(dialect, route, (route.method,))
                self._by_path.setdefault(route.path, []).append((route.method, dialect))
                self._by_prefix.setdefault(_first_segment(route.path), dialect)

    def __repr__(self) -> str:
        return f"<Routes {len(self._exact)} routes>"

    def find(self, method: str, path: str) -> Match | None:
        """The match for a request, None where no dialect's paths begin alike; a last slash is forgiven."""
        match = self._exact.get((method, path))
        if match is None and path.endswith("/"):
            path = path.rstrip("/")
            match = self._exact.get((method, path))
        if match is not None:
            return match
        owners = self._by_path.get(path)
        if owners is not None:
            return Match(owners[0][1], None, tuple(allowed for allowed, _ in owners))
        dialect = self._by_prefix.get(_first_segment(path))
        return None if dialect is None else Match(dialect, None)

    def paths(self) -> list[str]:
        """``METHOD /path`` of every route, for people."""
        return [f"{method} {path}" for method, path in self._exact]


def _first_segment(path: str) -> str:
    return path[1:].partition("/")[0]
