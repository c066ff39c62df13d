"""Which phase of its life the process is in, and whether it wants new work.

Owns: the phase, the readiness word, the hysteresis of the loop lag and of the filling spool. Refuses to know: signals
(`collector.run` turns them into calls here), Kafka (liveness never depends on it), sockets.

    starting ─▶ serving ─▶ leaving ─▶ draining ─▶ closed
                            │          └ the listener closes, websockets are told to go, what is in work ends
                            └ still accepting, not ready, every answer says ``Connection: close``

Invariant: phases only move to the right.
"""

import enum
from collections.abc import Callable

import trio

__all__ = ["SPOOL_FULL", "SPOOL_ROOM", "Lifecycle", "Phase"]

#: Not ready while the spool is filled above the first share of its bound, until it is below the second: what still
#: comes in should find room, and a proxy should not be told another thing every second.
SPOOL_FULL, SPOOL_ROOM = 0.9, 0.7


class Phase(enum.IntEnum):
    """In order of time; comparable."""

    STARTING = 0
    SERVING = 1
    LEAVING = 2
    DRAINING = 3
    CLOSED = 4


class Lifecycle:
    """The phase of one process.

    Args:
        max_lag_s: loop lag above which the process is not ready; it is again below half of it.
        lag: the loop lag now, seconds.
        spool_filled: the share of the spool's bound that is taken; None: there is no spool.
    """

    def __init__(
        self, *, max_lag_s: float, lag: Callable[[], float], spool_filled: Callable[[], float] | None = None
    ) -> None:
        self._max_lag_s = max_lag_s
        self._lag = lag
        self._lagging = False
        self._spool_filled = spool_filled
        self._spool_full = False
        self._phase = Phase.STARTING
        self._reached: dict[Phase, trio.Event] = {phase: trio.Event() for phase in Phase}
        self._reached[Phase.STARTING].set()
        self.keep_alive = True
        """False once leaving: every answer says ``Connection: close``, so that proxies empty their pools."""
        self._to_call: dict[object, tuple[Phase, Callable[[], object]]] = {}

    def __repr__(self) -> str:
        return f"<Lifecycle {self._phase.name.lower()}, {self.status()}>"

    @property
    def phase(self) -> Phase:
        return self._phase

    @property
    def lag_s(self) -> float:
        return self._lag()

    def advance(self, phase: Phase) -> None:
        """Move on to ``phase``, passing the ones between; a phase that is over already is ignored."""
        for passed in Phase:
            if self._phase < passed <= phase:
                self._reached[passed].set()
        self._phase = max(self._phase, phase)
        self.keep_alive = self._phase < Phase.LEAVING
        due = [key for key, (awaited, _) in self._to_call.items() if awaited <= self._phase]
        for fn in [self._to_call.pop(key)[1] for key in due]:
            fn()

    async def wait_reached(self, phase: Phase) -> None:
        """Wait until ``phase`` or a later one has come. On cancellation: nothing has changed."""
        await self._reached[phase].wait()

    def when_reached(self, phase: Phase, fn: Callable[[], object]) -> Callable[[], None]:
        """Call ``fn()`` once, synchronously, when ``phase`` or a later one comes; at once where it is there.

        For those that are too many to have a task wait each: ten thousand websockets. Returns: what takes it back.
        """
        if self._phase >= phase:
            fn()
            return _nothing
        key = object()
        self._to_call[key] = (phase, fn)

        def forget() -> None:
            self._to_call.pop(key, None)

        return forget

    def lagging(self) -> bool:
        """True while the loop is later than its bound, until it is below half of it."""
        lag_s = self._lag()
        if self._lagging:
            self._lagging = lag_s > self._max_lag_s / 2
        else:
            self._lagging = lag_s > self._max_lag_s
        return self._lagging

    def spool_full(self) -> bool:
        """True from when the spool is nearly full until there is room again."""
        if self._spool_filled is not None:
            self._spool_full = self._spool_filled() > (SPOOL_ROOM if self._spool_full else SPOOL_FULL)
        return self._spool_full

    def behind(self) -> bool:
        """True while the loop is later than half of its bound: a queue that it has to go through only grows."""
        return self._lag() > self._max_lag_s / 2

    def status(self) -> str:
        """One word: ``ready`` | ``starting`` | ``draining`` | ``lagging`` | ``spool_full``."""
        if self._phase is Phase.STARTING:
            return "starting"
        if self._phase is not Phase.SERVING:
            return "draining"
        if self.lagging():
            return "lagging"
        return "spool_full" if self.spool_full() else "ready"


def _nothing() -> None:
    """Taking back what was called already."""
