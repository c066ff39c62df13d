"""A record that waits while its broker refuses it: ``python -m tests.bench.memory.pending SERVERS TRIES [traced]``.

A few thousand records bring the process to its working size; it says ``ready`` and waits for a line. Then one record
waits until the process is ended. After each of the numbers of tries in ``TRIES`` (with commas) a line says so:
``pending N ALLOCATED``, in bytes as tracemalloc counts them (``traced``), else 0. The pauses between two tries are as
short as they can be told to be: with those of the product a hundred thousand tries take a day.
"""

import gc
import sys
import tracemalloc

import trio

from kafka_client import ProducerConfig, Record, open_producer
from kafka_client.observe import BatchRetried, BatchWritten, ProducerObserver

__all__ = ["PENDING", "READY", "TOPIC", "main"]

TOPIC = "bench"
READY, PENDING = "ready", "pending"

_WARM = 2_000
_SHORTEST_S = 1e-6
_FOR_EVER_S = 86_400.0


class _Counter(ProducerObserver):
    """Says that so many tries have failed. 0 is the first one under way."""

    def __init__(self, tries: list[int]) -> None:
        self._left = tries
        self.on = False

    def batch_written(self, event: BatchWritten) -> None:
        """The first try starts."""
        if self.on and event.attempt == 1 and self._left[:1] == [0]:
            self._say()

    def batch_retried(self, event: BatchRetried) -> None:
        """Another one has failed."""
        if self.on and self._left and event.attempt >= self._left[0]:
            self._say()

    def _say(self) -> None:
        allocated = tracemalloc.get_traced_memory()[0] if tracemalloc.is_tracing() else 0
        print(f"{PENDING} {self._left.pop(0)} {allocated}", flush=True)


async def wait(servers: str, tries: list[int]) -> None:
    """Warm, then wait. On cancellation: the record is withdrawn."""
    config = ProducerConfig(
        bootstrap_servers=servers,
        retry_backoff_min_s=_SHORTEST_S,
        retry_backoff_max_s=_SHORTEST_S,
        delivery_timeout_s=_FOR_EVER_S,
        batch_timeout_s=_FOR_EVER_S,
    )
    counter = _Counter(tries)
    async with open_producer(config, observer=counter) as producer:
        for number in range(_WARM):
            await producer.send(Record(TOPIC, b"%d" % number, partition=0))
        gc.collect()
        print(READY, flush=True)
        await trio.to_thread.run_sync(sys.stdin.readline)
        counter.on = True
        await producer.send(Record(TOPIC, b"pending", partition=0))


def main() -> None:
    """Wait until ended."""
    servers, tries, *words = sys.argv[1:]
    if "traced" in words:
        tracemalloc.start()
    trio.run(wait, servers, [int(number) for number in tries.split(",")])


if __name__ == "__main__":
    main()
