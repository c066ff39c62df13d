"""One task that waits for one answer.

Owns: the handing over. Refuses to know: what was asked.
"""

import trio

__all__ = ["Waiter"]


class Waiter:
    """One `exchange` that waits. Its answer may come after it has gone."""

    __slots__ = ("body", "done")

    def __init__(self) -> None:
        self.body: memoryview | None = None
        self.done = trio.Event()

    def take(self, body: memoryview) -> None:
        self.body = body
        self.done.set()
