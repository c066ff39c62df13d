"""``collector`` with its watching put out, for row O1: no counters, no histograms, no ledger, no GC clock, no samples.

Owns: which methods do nothing here. Refuses to know: everything else; the product has no such switch. Run as
``python -m tests.bench.http.unwatched`` with the arguments of ``collector``.

What stays: the loop-lag probe (admission sheds by it), the admin listener (idle), and the log, of which no line is
written for a request. The code that calls the instruments is there still, as a call that does nothing.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import trio

__all__ = ["main", "put_out"]

#: Class -> methods that count for a request.
_SILENCED = {
    "collector.monitor.monitor.Monitor": ("stage", "passed", "answered", "shed", "websocket_ack", "late_resolution"),
    "collector.ingest.ledger.Ledger": ("unparsed", "late", "bad"),
}


class _NoEntry:
    """An entry of no ledger."""

    __slots__ = ()

    def close(self, counts: object) -> None:
        """Write down nothing."""

    def close_delivered(self) -> None:
        """The same."""


def _nothing(*args: object, **named: object) -> None:
    """In place of a method."""


@contextmanager
def _not_measuring(gc_share: object) -> Iterator[None]:
    yield


async def _not_sampling(sampler: object) -> None:
    await trio.sleep_forever()


def put_out() -> None:
    """Replace the methods. Raises AttributeError where one of them has another name by now."""
    from importlib import import_module

    from collector.ingest.ledger import Entry, Ledger
    from collector.monitor.gc_share import GcShare
    from collector.monitor.sampler import Sampler

    for name, methods in _SILENCED.items():
        module, _, class_name = name.rpartition(".")
        silenced = getattr(import_module(module), class_name)
        for method in methods:
            getattr(silenced, method)
            setattr(silenced, method, _nothing)
    for method in ("close", "close_delivered"):
        getattr(Entry, method)
    entry = _NoEntry()
    Ledger.open = lambda ledger, events: entry  # type: ignore[method-assign,assignment,return-value]
    GcShare.measuring = _not_measuring  # type: ignore[method-assign,assignment]
    Sampler.run = _not_sampling  # type: ignore[method-assign,assignment]


def main() -> int:
    """Put it out, then be ``collector``."""
    put_out()
    from collector.cli import main as collector

    return collector(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
