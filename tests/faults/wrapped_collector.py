"""``collector serve`` as a row needs it: held to a capacity, with a clock that jumps, with files that do not grow.

Owns: what a row changes about the process from outside; nothing of it is in the product. Refuses to know: the row.

Run as ``python -m tests.faults.wrapped_collector`` with the arguments of ``collector``. The environment says what:

- ``FAULTS_HOLD_S``: each request that is taken into work holds the event loop for so long, asleep: as a slower parser
  would, but without using the core, so that the capacity is the same whoever else uses this machine. A request that is
  shed before that costs what it costs.
- ``FAULTS_FILE_BYTES``: no file grows beyond it (RLIMIT_FSIZE); where no small file system can be mounted.
- ``FAULTS_CLOCK``: a file with seconds; SIGUSR1 has them added to the wall clock (``time.time``, ``time.time_ns``) from
  then on. Trio's clock, which deadlines are measured by, is another one and stays, as it does when NTP or an operator
  sets the time. The system's own clock would jump for the whole machine, a time namespace has only the monotonic ones.
"""

import os
import resource
import signal
import sys
import time
from functools import wraps
from pathlib import Path
from types import FrameType

__all__ = ["main"]


def limit_files(size_bytes: str | None) -> None:
    """Let writes beyond this size fail; Python ignores the signal that goes with it."""
    if size_bytes:
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(size_bytes), int(size_bytes)))


def let_clock_jump(file: str | None) -> None:
    """Have SIGUSR1 move the wall clock; before anything else took ``time.time`` for itself."""
    if not file:
        return
    ahead_ns = 0
    real_time, real_time_ns = time.time, time.time_ns

    def jump(number: int, frame: FrameType | None) -> None:
        nonlocal ahead_ns
        ahead_ns = int(float(Path(file).read_text()) * 1e9)

    time.time = lambda: real_time() + ahead_ns / 1e9
    time.time_ns = lambda: real_time_ns() + ahead_ns
    signal.signal(signal.SIGUSR1, jump)


def hold(seconds: float) -> None:
    """Let each request that is taken into work hold the loop."""
    if not seconds:
        return
    from collector.ingest.enqueue import Ingest

    begin = Ingest.begin

    @wraps(begin)
    def held(*args: object, **named: object) -> object:
        time.sleep(seconds)  # holding the loop is the purpose
        return begin(*args, **named)  # type: ignore[arg-type]  # passed on as they are

    Ingest.begin = held  # type: ignore[method-assign,assignment]


def main() -> int:
    """Change what the environment says, then be ``collector``."""
    let_clock_jump(os.environ.get("FAULTS_CLOCK"))
    limit_files(os.environ.get("FAULTS_FILE_BYTES"))
    hold(float(os.environ.get("FAULTS_HOLD_S") or 0))
    from collector.cli import main as collector

    return collector(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
