"""Steps that wait for a commit.

Owns: their order, how many one commit takes. Refuses to know: what they do to the file, when there is a commit.

Invariant: steps that were pushed together are taken together, and in the order of pushing.
"""

from collections import deque
from collections.abc import Sequence

import trio

from collector.spool.changes import Kill, Leave, Return, Step
from kafka_client.outcome import Delivered, NotSent, Outcome, Unknown

__all__ = ["STEP_ROWS", "Pushed", "StepQueue", "step_of"]

STEP_ROWS = 10_000
"""In the steps of one commit, unless one of them has more: some 100 ms on a slow disk."""


class Pushed:
    """Steps that belong together, and who waits for their commit."""

    __slots__ = ("done", "rows", "steps")

    def __init__(self, steps: Sequence[Step]) -> None:
        self.steps = steps
        self.rows = sum(map(_rows_of, steps))
        """How many they change."""
        self.done = trio.Event()


class StepQueue:
    """See the module."""

    def __init__(self) -> None:
        self._waiting: deque[Pushed] = deque()

    def __len__(self) -> int:
        return len(self._waiting)

    def push(self, steps: Sequence[Step]) -> Pushed:
        """The last in the queue."""
        pushed = Pushed(steps)
        self._waiting.append(pushed)
        return pushed

    def take(self) -> list[Pushed]:
        """Those of the next commit."""
        taken: list[Pushed] = []
        count = 0
        while self._waiting and (not taken or count + self._waiting[0].rows <= STEP_ROWS):
            taken.append(self._waiting.popleft())
            count += taken[-1].rows
        return taken

    def put_back(self, taken: Sequence[Pushed]) -> None:
        """Their commit did not work: they are the first again."""
        self._waiting.extendleft(reversed(taken))


def _rows_of(step: Step) -> int:
    return len(step.reasons if isinstance(step, Kill) else step.ids)


def step_of(row_id: int, outcome: Outcome) -> Step:
    """What the end of its batch does to a held row."""
    match outcome:
        case Delivered():
            return Leave([row_id], "resolved")
        case NotSent():
            return Return([row_id], attempted=False)
        case Unknown():
            return Return([row_id], attempted=True)
