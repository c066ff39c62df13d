"""The stage of one program: what its actors share."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import trio

from kafka_client import Delivery
from kafka_client.testing import FakeCluster

from .books import Books, Entry
from .program import Setup
from .taps import Taps

__all__ = ["EPOCH_S", "Stage", "delivery_of"]

#: What the wall clock shows when a program begins.
EPOCH_S = 1_700_000_000


@dataclass
class Stage:
    """One program's."""

    setup: Setup
    cluster: FakeCluster
    books: Books
    taps: Taps
    coverage: Counter[str]
    timers: trio.Nursery  # of `play`: callers, and what ends a disturbance, live until the program is over

    def later(self, seconds: float, call: Callable[[], object]) -> None:
        """Call after so many virtual seconds, if the program lives as long."""

        async def wait() -> None:
            await trio.sleep(seconds)
            call()

        self.timers.start_soon(wait)

    def place(self, topic: int, partition: int | None) -> tuple[str, int | None]:
        """The names of what a program numbers, modulo what there was at first."""
        number = topic % len(self.setup.partitions)
        return f"t{number}", None if partition is None else partition % self.setup.partitions[number]


def delivery_of(entry: Entry) -> Delivery:
    """Its delivery, which was made."""
    assert entry.delivery is not None
    return entry.delivery
