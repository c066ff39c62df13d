"""One row from its stage to its figures.

Owns: the order: load, fault, rest, replay, account. Refuses to know: what the figures are held against, how they look.
"""

import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import msgspec
import trio

from tests.bench.figures import percentile
from tests.faults.account import Account, answer_times, goodput, settle
from tests.faults.full_disk import small_disk
from tests.faults.rows import Row
from tests.faults.server import Books, Collector
from tests.faults.stage import BOUNDS_BYTES, Stage, open_stage
from tests.faults.upstream import Upstream, read_upstream

__all__ = ["Bench", "Result", "run_row"]

#: From so long after its beginning an outage has to be unnoticeable.
NOTICED_AFTER_S = 2.0

#: The capacity: so many clients, each sending when it has its answer, after so much warming.
CAPACITY_CLIENTS = 32
CAPACITY_S = 6.0
WARM_S = 2.0

#: For the brokers' compiler, before anything is counted; for each.
WARM_BROKER_S = 4.0

FSYNC_EVERY_S = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """What all rows of one run have in common."""

    load_core: int
    """The load's own; everything else goes where the kernel puts it."""
    quick: bool
    say: Callable[[str], None]
    keep: Path | None = None
    """Where to leave the logs of each row; nowhere by default."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One row, played on one server."""

    account: Account
    upstream: Upstream
    highest_bytes: int
    allowed_bytes: int
    """What it held before the load, and every bound of ``[limits]``."""
    spool_rows: int | None
    """Left when the replay had its time; None: there is no spool."""
    differences: dict[str, float] = field(default_factory=dict)
    worst_difference: float = 0.0
    """Of the same, whenever somebody looked during the row."""
    capacity: float | None = None
    goodput: float | None = None
    outage_p99_s: float | None = None
    """Of the answers to what was sent from `NOTICED_AFTER_S` into the outage to its end."""
    outage_answers: int = 0
    outage_s: float = 0.0
    fsync_p99_s: float | None = None
    """Of the same disk, at the same time, by one writer who writes 4 KiB ten times a second."""
    notes: Sequence[str] = ()

    @property
    def goodput_share(self) -> float | None:
        """Of the capacity; None where that was not measured."""
        return None if self.capacity is None or self.goodput is None else self.goodput / self.capacity


class _Fsync:
    """Measures the disk beside the row, in a thread of its own."""

    def __init__(self, directory: Path) -> None:
        self._file = directory / "fsync"
        self.seconds: list[float] = []

    async def run(self) -> None:
        """Measure until cancelled."""
        descriptor = os.open(self._file, os.O_CREAT | os.O_WRONLY)
        try:
            while True:
                self.seconds.append(await trio.to_thread.run_sync(self._once, descriptor))
                await trio.sleep(FSYNC_EVERY_S)
        finally:
            os.close(descriptor)

    @staticmethod
    def _once(descriptor: int) -> float:
        started = time.perf_counter()
        os.write(descriptor, bytes(4096))
        os.fdatasync(descriptor)
        return time.perf_counter() - started


@contextmanager
def _directory(bench: Bench, row: Row, server: str) -> Iterator[Path]:
    if bench.keep is None:
        with tempfile.TemporaryDirectory(prefix="faults-") as name:
            yield Path(name)
    else:
        directory = bench.keep / f"row-{row.name}-{server}"
        directory.mkdir(parents=True)
        yield directory


async def run_row(bench: Bench, row: Row, *, baseline: bool = False) -> Result:
    """Play one row on the collector, or on the baseline.

    Raises:
        ChildFailed, KafkaUnavailable, NginxUnavailable: A part does not start, or the load fails.

    On cancellation: every process is ended.
    """
    with _directory(bench, row, "baseline" if baseline else "collector") as directory:
        notes: list[str] = []
        with small_disk(directory / "spool", row.setup.spool_mount, notes) as environ:
            async with open_stage(row.setup, directory, bench.load_core, environ=environ, baseline=baseline) as stage:
                result = await _play(bench, row, stage)
    return replace(result, notes=(*notes, *result.notes))


async def _play(bench: Bench, row: Row, stage: Stage) -> Result:
    fsync = _Fsync(stage.directory)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(stage.server.watch)
        if row.timed:
            nursery.start_soon(fsync.run)
        await _warm(stage, row)
        capacity = await _capacity(stage) if row.overload else None
        spec = row.load if capacity is None else _overload(row, capacity)
        load = await stage.start_load(spec)
        await trio.sleep(row.before_s)
        begin = time.monotonic()
        await row.fault(stage, row, bench.quick)
        end = time.monotonic()
        await trio.sleep(row.after_s)
        entries = await load.stop()
        measured = list(fsync.seconds)
        bench.say(f"row {row.name}, {stage.server.name}: {len(entries)} requests; waiting for the replay")
        books = await _books(stage, row, end - begin)
        nursery.cancel_scope.cancel(reason="the row is over")
    await stage.server.terminate()
    account = settle(spec.run, entries, await stage.found(spec.run))
    in_outage = [entry for entry in entries if begin + NOTICED_AFTER_S <= entry.sent_at < end and not entry.rude]
    upstream = read_upstream(stage.nginx.now.access_log, stage.nginx.now.directory / "error.log")
    return Result(
        account=account,
        upstream=upstream,
        highest_bytes=stage.server.highest_bytes,
        allowed_bytes=stage.server.idle_bytes + BOUNDS_BYTES,
        spool_rows=None if books is None else books.spool_rows,
        differences={} if books is None else dict(books.differences),
        capacity=capacity,
        goodput=None if capacity is None else goodput(entries, begin, end),
        outage_p99_s=percentile(sorted(answer_times(in_outage)), 0.99) if row.timed else None,
        outage_answers=len(in_outage),
        outage_s=end - begin,
        fsync_p99_s=percentile(sorted(measured), 0.99) if row.timed else None,
        worst_difference=stage.server.worst_difference,
        notes=_notes(stage),
    )


def _notes(stage: Stage) -> tuple[str, ...]:
    if not isinstance(stage.server, Collector):
        return ()
    codes = stage.server.exit_codes
    return (f"exit codes {', '.join(map(str, codes))}",) if any(codes) else ()


async def _books(stage: Stage, row: Row, fault_s: float) -> Books | None:
    """Wait for the replay, and no longer than the fault lasted and a minute; the baseline just gets a moment."""
    if not isinstance(stage.server, Collector):
        await trio.sleep(5.0)
        return None
    with trio.move_on_after(60 + fault_s):
        return await stage.server.settle()
    return await stage.server.books()


async def _warm(stage: Stage, row: Row) -> None:
    """A JVM that has just started is slow; that is no fault of the row's. These events are in no account."""
    load = await stage.start_load(msgspec.structs.replace(row.load, run="warm", rude=0))
    await trio.sleep(WARM_BROKER_S * row.setup.nodes)
    await load.stop()


async def _capacity(stage: Stage) -> float:
    """How many requests a second it answers 200 when each client waits for its answer."""
    from tests.faults.load import Spec

    load = await stage.start_load(Spec(run="capacity", log="", address="", seconds=60.0, closed=CAPACITY_CLIENTS))
    await trio.sleep(WARM_S)
    begin = time.monotonic()
    await trio.sleep(CAPACITY_S)
    end = time.monotonic()
    return goodput(await load.stop(), begin, end)


def _overload(row: Row, capacity: float) -> "msgspec.Struct":
    """Single events only, so that a request is an event: nine of ten over HTTP."""
    per_s = capacity * row.overload
    return msgspec.structs.replace(
        row.load,
        singles_per_s=per_s * 0.9,
        batches_per_s=0.0,
        messages_per_s=per_s * 0.1,
    )
