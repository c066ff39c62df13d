"""How long a slot waits before it starts the next worker.

Owns: the pause. Refuses to know: processes, clocks.

Who has served for a while and dies is replaced at once: its clients are connecting again already. Who dies young again
and again is given more and more time, so that a broken start costs no core and no log.
"""

import random

__all__ = ["FIRST_S", "MOST_S", "STEADY_S", "Backoff"]

STEADY_S = 10.0
"""Who has been ready for this long has not died young."""

FIRST_S = 0.5
MOST_S = 30.0


class Backoff:
    """The pauses of one slot.

    Args:
        jitter: a number of 0 to 1, anew each time; slots that fail together do not start together.
    """

    def __init__(self, jitter: "random.Random | None" = None) -> None:
        self._random = jitter if jitter is not None else random.Random()
        self._young = 0

    def __repr__(self) -> str:
        return f"<Backoff {self._young} died young>"

    def after(self, ready_s: float) -> float:
        """Seconds to wait after a worker that was ready for ``ready_s`` (0: never); half of them are by chance."""
        if ready_s >= STEADY_S:
            self._young = 0
        self._young += 1
        if self._young == 1:
            return 0.0
        most = min(MOST_S, FIRST_S * 2.0 ** (self._young - 2))
        return most * (0.5 + self._random.random() / 2)
