"""The load over HTTP: wrk, one thread, keep-alive, bodies made beforehand.

Owns: the bodies, one run of wrk, what its counts mean. Refuses to know: which server answers.

Invariant: a request counts only if it was answered with less than 400; one in a hundred that was not fails the run.

wrk sends the next request of a connection when it has the answer to the last one, so its rate is what the server takes
and its latencies are those of a server that is always full.
"""

import shutil
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

import trio
from msgspec import Struct, json

from collector.devtools.children import open_child
from tests.bench.machine import pinned
from tests.bench.running import RunFailed

__all__ = ["EVENT_BYTES", "IDENTITIES", "Bodies", "Load", "Told", "bulk_bodies", "run_wrk", "single_bodies"]

#: One event as a client sends it.
EVENT_BYTES = 250
#: So many identities take turns, hence keys and partitions; a prime, so that it is in step with nothing.
IDENTITIES = 997
#: More than one request in so many refused or lost: the run measured something else.
_FAILED_IN = 100
#: Beyond its duration: wrk's own start, and the answers it still waits for.
_SPARE_S = 30.0

_SCRIPT = Path(__file__).with_name("wrk.lua")


class Bodies(Struct, frozen=True, kw_only=True):
    """A file with bodies, one a line."""

    file: str
    events: int
    """In each of them."""


class Load(Struct, frozen=True, kw_only=True):
    """What wrk does."""

    bodies: Bodies
    path: str
    connections: int


class Told(Struct, frozen=True, kw_only=True):
    """What wrk says at its end."""

    requests: int
    duration_us: int
    refused: int
    """Answered with 400 or more."""
    connect: int
    read: int
    write: int
    timeout: int
    """Waited for longer than 10 s."""
    p50_us: int
    p99_us: int
    worst_us: int

    @property
    def answered(self) -> int:
        """Requests with an answer below 400."""
        return self.requests - self.refused

    @property
    def failed(self) -> int:
        """Requests without one."""
        return self.refused + self.connect + self.read + self.write + self.timeout

    def check(self) -> None:
        """Raises `RunFailed` where too many failed."""
        if not self.answered or self.failed * _FAILED_IN > self.requests:
            raise RunFailed(
                f"{self.failed} of {self.requests} requests failed: {self.refused} refused, {self.connect} connects, "
                f"{self.read} reads, {self.write} writes, {self.timeout} timeouts"
            )


def event(number: int, app: bool = True) -> bytes:
    """The event of so many, `EVENT_BYTES` long: as in Heap's example of ``POST /api/track``.

    ``app``: with the app's id, as a request with one event has it; an event of a bulk has its length without.
    """
    head = b'{"app_id":"11",' if app else b"{"
    head += (
        b'"identity":"user-%04d@example.com","event":"Send Transactional Email","timestamp":"2026-03-10T22:%02d:%02dZ",'
        b'"properties":{"subject":"Welcome to My App!","variation":"%c","campaign":"'
    ) % (number % IDENTITIES, number // 60 % 60, number % 60, b"AB"[number % 2])
    # As random as a campaign's name is: a filler of one letter would make compression look cheap.
    filler = sha256(b"%d" % number).hexdigest().encode() * 2
    return head + filler[: EVENT_BYTES - len(head) - 3] + b'"}}'


def single_bodies(directory: Path, size: int = EVENT_BYTES) -> Bodies:
    """One event a body, `IDENTITIES` of them; a larger ``size`` is one long property."""
    events = [event(number) for number in range(IDENTITIES if size == EVENT_BYTES else 61)]
    if size != EVENT_BYTES:
        events = [each[:-3] + b"y" * (size - len(each)) + each[-3:] for each in events]
    return _write(directory / f"single-{size}", events, 1)


def bulk_bodies(directory: Path, events: int) -> Bodies:
    """``events`` a body, in as many bodies as it takes for every identity to be there."""
    count = -(-IDENTITIES // events) + 9
    bodies = [
        b'{"app_id":"11","events":['
        + b",".join(event(body * events + place, app=False) for place in range(events))
        + b"]}"
        for body in range(count)
    ]
    return _write(directory / f"bulk-{events}", bodies, events)


def _write(file: Path, bodies: Sequence[bytes], events: int) -> Bodies:
    file.write_bytes(b"\n".join(bodies) + b"\n")
    return Bodies(file=str(file), events=events)


async def run_wrk(core: int, url: str, load: Load, seconds: float) -> Told:
    """Load ``url`` for whole ``seconds``, from this core.

    Raises:
        RunFailed: wrk is missing, or has nothing to say.

    On cancellation: wrk is ended.
    """
    wrk = shutil.which("wrk")
    if wrk is None:
        raise RunFailed("there is no wrk; Debian: apt-get install wrk")
    duration = f"{max(1, round(seconds))}s"
    argv = [wrk, "-t1", f"-c{load.connections}", f"-d{duration}", "--timeout", "10s", "-s", str(_SCRIPT), url, "--"]
    argv += [load.bodies.file, load.path]
    async with open_child(pinned(core, argv), name="wrk") as child:
        with trio.move_on_after(seconds + _SPARE_S):
            await child.wait_ended()
            await trio.sleep(0.05)  # its last line is still in the pipe
        said = [line for line in child.tail if line.startswith('{"requests"')]
        if not said:
            raise RunFailed("wrk: " + " | ".join(list(child.tail)[-3:] or ["nothing"]))
    return json.decode(said[-1], type=Told)
