"""Row M2: what an event that waits costs after so many tries, seen from outside its process.

Owns: the broker that refuses it, the moments at which memory is read. Refuses to know: how the row is shown.

The broker is librdkafka's mock cluster, told to answer the next so many Produce requests with NOT_ENOUGH_REPLICAS,
which is retried: it answers in no time, so a hundred thousand tries take seconds. A try is a request that was sent and
answered. (One node of Apache Kafka 4.1 takes records for a topic that wants two replicas in sync and has one, so it
cannot be made to do this by itself.)
"""

import sys
from collections.abc import Sequence

import trio

from collector.devtools.children import open_child
from collector.devtools.mock import open_mock
from tests.bench.machine import Cores, pinned, resident_bytes
from tests.bench.memory.pending import PENDING, READY, TOPIC
from tests.bench.running import RunFailed

__all__ = ["measure_tries"]

_PRODUCE, _NOT_ENOUGH_REPLICAS = 0, 19
#: For its start, and for a try on a machine that others use too.
_START_S, _LONGEST_TRY_S = 60.0, 0.01


async def measure_tries(cores: Cores, tries: Sequence[int], *, traced: bool) -> dict[str, float]:
    """Bytes at each number of tries, by ``tries_<n>``: resident, or where ``traced``, what Python has allocated.

    Raises:
        RunFailed: the record was not tried as often in any time that makes sense.

    On cancellation: its process is ended.
    """
    found: dict[str, float] = {}
    ready, complete = trio.Event(), trio.Event()

    def on_line(line: str) -> None:
        match line.split():
            case [word] if word == READY:
                ready.set()
            case [word, number, allocated] if word == PENDING:
                found[f"tries_{number}"] = float(allocated) if traced else resident_bytes(child.pid)
                if len(found) == len(tries):
                    complete.set()

    async with open_mock({TOPIC: 1}) as mock:
        argv = [sys.executable, "-m", "tests.bench.memory.pending", mock.bootstrap_servers, ",".join(map(str, tries))]
        argv = pinned(cores.subject, [*argv, "traced"] if traced else argv)
        async with open_child(argv, name="pending", on_line=on_line, grace_s=1.0, keep_stdin=True) as child:
            with trio.move_on_after(_START_S + tries[-1] * _LONGEST_TRY_S):
                await ready.wait()
                await mock.command("refuse", _PRODUCE, _NOT_ENOUGH_REPLICAS, tries[-1] + 1)
                assert child.process.stdin is not None
                child.process.stdin.write(b"go on\n")
                child.process.stdin.flush()
                await complete.wait()
            if not complete.is_set():
                raise RunFailed(f"{len(found)} of {len(tries)} readings: " + " | ".join(list(child.tail)[-3:]))
    return found
