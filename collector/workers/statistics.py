"""What the supervisor shows of itself and its workers.

Owns: the forms. Refuses to know: who reads them.
"""

from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["Statistics", "WorkerStatistics"]


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerStatistics:
    """One slot, and who serves in it."""

    number: int
    state: str
    """``serving`` | ``starting`` | ``pausing`` | ``stopped``."""
    ready: bool
    """It takes requests, and wants them."""
    word: str
    """What its ``/readyz`` says; the slot's state where nobody serves."""
    pid: int | None = None
    served_s: float = 0.0
    admin: str | None = None
    """Its own admin listener, ``http://host:port``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Statistics:
    """The supervisor. Counters are since its start."""

    workers: tuple[WorkerStatistics, ...]
    leaving: bool
    """It was told to leave."""
    reloading: bool
    restarts: Mapping[str, int]
    """Workers that went without being asked, by how: ``killed`` | ``failed`` | ``left`` | ``hung``."""
    reloads: Mapping[str, int]
    """By how they ended: ``done`` | ``refused`` | ``failed``."""
    errors: Mapping[str, int]
    """Failures of the supervisor's own admin listeners."""

    @property
    def ready(self) -> bool:
        """Somebody takes requests."""
        return not self.leaving and any(worker.ready for worker in self.workers)

    @property
    def word(self) -> str:
        """``ready`` | ``draining`` | the word of a worker, where none is ready."""
        if self.leaving:
            return "draining"
        return "ready" if self.ready else next((worker.word for worker in self.workers), "starting")
