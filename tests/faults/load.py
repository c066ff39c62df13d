"""The load: a process of its own that sends known events, never twice, at a pace that nobody's answers slow down.

Owns: its pace, its end, the log of what was sent and answered. Refuses to know: what happens to the servers meanwhile.

It is an open load: requests leave at their times (Poisson arrivals), however late the answers are; a client that is
still waiting has no next request, so more clients come. It ends with SIGTERM, or when ``seconds`` are over: nothing new
is sent, what is open gets `PATIENCE_S`.

Run as ``python -m tests.faults.load SPEC``, the file of a `Spec`. Every answer is one line in ``Spec.log``.
"""

import os
import random
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import msgspec
import trio

from tests.faults.entries import Entry, event_id

__all__ = ["PATIENCE_S", "Log", "Spec", "track_body"]

#: A client that has no answer after so long has none: three times the largest deadline.
PATIENCE_S = 15.0

#: Identities in rotation: one would be one key and one partition.
IDENTITIES = 997


class Spec(msgspec.Struct, kw_only=True):
    """What one load does."""

    run: str
    """Begins the id of every event."""
    log: str
    """The file to write."""
    address: str
    """``host:port`` of nginx."""
    direct: str = ""
    """Of the collector itself, for the rude clients that go past nginx; empty: none do."""
    seconds: float
    """It ends by then, whatever happens."""
    core: int | None = None
    seed: int = 1
    singles_per_s: float = 0.0
    batches_per_s: float = 0.0
    batch_events: int = 10
    messages_per_s: float = 0.0
    websockets: int = 0
    connections: int = 0
    """Clients over HTTP that there are from the start; more come when all of them wait."""
    closed: int = 0
    """Instead: so many clients over HTTP, each of which sends its next request when it has its answer."""
    rude: int = 0
    """Clients beside these that do not read, or send byte by byte."""


class Log:
    """Numbers the requests and writes down what became of each."""

    def __init__(self, spec: Spec, file: BinaryIO) -> None:
        self.spec = spec
        self.stopping = trio.Event()
        self._file = file
        self._encoder = msgspec.json.Encoder()
        self._last = 0

    def new(self, events: int, how: str = "http", *, rude: bool = False) -> Entry:
        """Take the next number. The entry is in the log only when it is `put` there."""
        self._last += 1
        return Entry(number=self._last, events=events, sent_at=0.0, how=how, rude=rude)

    def put(self, entry: Entry) -> None:
        """Write it down: it is final."""
        self._file.write(self._encoder.encode(entry) + b"\n")


def track_body(spec: Spec, entry: Entry, position: int = 0) -> dict[str, object]:
    """One event, about 250 bytes of JSON."""
    return {
        "type": "track",
        "event": "Order Completed",
        "userId": f"user-{(entry.number * 31 + position) % IDENTITIES}",
        "messageId": event_id(spec.run, entry.number, position),
        "properties": {"order": entry.number, "total": 27.5, "currency": "EUR", "coupon": "hasbros", "shop": "x" * 60},
    }


async def pace(log: Log, per_s: float, fire: Callable[[], object], seed: int) -> None:
    """Call ``fire`` at its times until the load stops. One that is late catches up."""
    random_ = random.Random(seed)
    due = trio.current_time()
    await trio.lowlevel.checkpoint()
    while not log.stopping.is_set():
        due += random_.expovariate(per_s)
        await trio.sleep_until(due)
        if not log.stopping.is_set():
            fire()


async def run(spec: Spec) -> None:
    """Send what the spec says. On cancellation: what is open is not in the log."""
    from tests.faults.load_http import Clients
    from tests.faults.load_rude import open_rude
    from tests.faults.load_websocket import keep_open

    with open(spec.log, "wb") as file, trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:  # noqa: ASYNC230
        log = Log(spec, file)
        async with trio.open_nursery() as everything:
            everything.start_soon(_stop_in_time, log, signals)
            async with trio.open_nursery() as nursery, trio.open_nursery() as rude:
                clients = Clients(log, nursery)
                await clients.open(spec.connections)
                print("loading", flush=True)
                for number in range(spec.websockets):
                    nursery.start_soon(keep_open, log, spec.messages_per_s / spec.websockets, number)
                for number in range(spec.rude):
                    rude.start_soon(open_rude, log, number)
                for _ in range(spec.closed):
                    nursery.start_soon(clients.one_after_the_other)
                if spec.singles_per_s:
                    nursery.start_soon(pace, log, spec.singles_per_s, clients.fire_single, spec.seed)
                if spec.batches_per_s:
                    nursery.start_soon(pace, log, spec.batches_per_s, clients.fire_batch, spec.seed + 1)
                await log.stopping.wait()
                rude.cancel_scope.cancel(reason="the load stops")
            everything.cancel_scope.cancel(reason="the load has ended")


async def _stop_in_time(log: Log, signals: "trio.abc.ReceiveChannel[int]") -> None:
    with trio.move_on_after(log.spec.seconds):
        async for _ in signals:  # type: ignore[attr-defined]  # an async iterator
            break
    log.stopping.set()
    # Whoever still waits is cancelled by its own patience before this.
    await trio.sleep(PATIENCE_S + 10)
    raise RuntimeError("the load does not end")


def main() -> None:
    """Read the spec, send, end."""
    spec = msgspec.json.decode(Path(sys.argv[1]).read_bytes(), type=Spec)
    if spec.core is not None:
        os.sched_setaffinity(0, {spec.core})
    # The log's times are compared with those of other processes, so they are the kernel's, not Trio's.
    assert time.get_clock_info("monotonic").implementation == "clock_gettime(CLOCK_MONOTONIC)"
    trio.run(run, spec)
    print("ended", flush=True)


if __name__ == "__main__":
    main()
