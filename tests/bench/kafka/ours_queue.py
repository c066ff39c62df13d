"""What waits, and what is left of it when everybody leaves: rows K4 and K5 for this library.

Owns: queueing many records at a broker that is stopped (SIGSTOP: the kernel still takes its bytes, nobody answers).
Refuses to know: what the figures are held against.
"""

import gc
from collections.abc import Awaitable, Callable
from dataclasses import replace
from time import perf_counter

import trio

from kafka_client import Delivery, Producer, ProducerStatistics, Record
from tests.bench.kafka.meter import Figures, Meter, Stopwatch, ask
from tests.bench.kafka.ours import config_of, open_warm
from tests.bench.kafka.spec import RECORD_BYTES, Spec, numbered_payload
from tests.bench.machine import resident_bytes

__all__ = ["WORKLOADS"]

#: For the senders to seal and write what the broker's socket still takes.
_SETTLE_S = 0.2
#: The longest that what is in flight may take to end once the broker goes on.
_DRAIN_S = 20.0


async def cancel_handles(spec: Spec, meter: Meter) -> Figures:
    """Queue ``count`` records, one delivery each, and withdraw them one by one. On cancellation: the producer ends."""
    count = spec.number("count", 100_000)
    async with open_warm(spec) as producer:
        ask("pause")
        started = perf_counter()
        deliveries = [producer.delivery((_record(spec, number),)) for number in range(count)]
        queueing_s = perf_counter() - started
        await trio.sleep(_SETTLE_S)
        cancelling = Stopwatch()
        for delivery in deliveries:
            delivery.withdraw()
        took = cancelling.figures(count)
        if not all(delivery.unsettled == 0 for delivery in deliveries):
            raise RuntimeError("a withdrawn delivery is unsettled")
        return took | {"queueing_s": queueing_s, "left": await _left(producer)}


async def cancel_tasks(spec: Spec, meter: Meter) -> Figures:
    """Park ``count`` tasks, each in the block of its own delivery, and cancel their nursery.

    On cancellation: the producer ends.
    """
    count = spec.number("count", 100_000)

    async def wait_for_one(number: int) -> None:
        with producer.delivery((_record(spec, number),)) as delivery:
            await delivery.wait()

    async with open_warm(spec) as producer:
        ask("pause")
        started = perf_counter()
        async with trio.open_nursery() as nursery:
            for number in range(count):
                nursery.start_soon(wait_for_one, number)
            while producer.statistics().waiters < count:  # noqa: ASYNC110  # nothing announces the last of them
                await trio.sleep(0.01)
            queueing_s = perf_counter() - started
            await trio.sleep(_SETTLE_S)
            cancelling = Stopwatch()
            nursery.cancel_scope.cancel(reason="everybody leaves")
        took = cancelling.figures(count)
        return took | {"queueing_s": queueing_s, "left": await _left(producer)}


async def cancel_nothing(spec: Spec, meter: Meter) -> Figures:
    """Park ``count`` tasks that have nothing to do with a producer, and cancel them: what Trio alone takes.

    On cancellation: they end.
    """
    count = spec.number("count", 100_000)
    started = perf_counter()
    async with trio.open_nursery() as nursery:
        for _ in range(count):
            nursery.start_soon(trio.sleep_forever)
        await trio.lowlevel.checkpoint()
        queueing_s = perf_counter() - started
        await trio.sleep(_SETTLE_S)
        cancelling = Stopwatch()
        nursery.cancel_scope.cancel(reason="everybody leaves")
    return cancelling.figures(count) | {"queueing_s": queueing_s}


async def _left(producer: Producer) -> int:
    """Whatever is not 0 at once or, for what is in flight, once the broker has answered."""
    now = producer.statistics()
    left = now.queued_records + now.waiting_deliveries + now.waiters + now.queue_bytes + now.waiting_bytes
    ask("resume")
    with trio.move_on_after(_DRAIN_S):
        await trio.lowlevel.checkpoint()
        while _in_flight(producer.statistics()):  # noqa: ASYNC110  # nothing announces it
            await trio.sleep(0.01)
    return left + _in_flight(producer.statistics())


def _in_flight(state: ProducerStatistics) -> int:
    return state.in_flight_bytes + state.in_flight_batches + state.detached_records + state.detached_bytes


async def memory_single(spec: Spec, meter: Meter) -> Figures:
    """Resident memory of ``count`` queued records, one delivery each. On cancellation: the producer ends."""
    return await _memory(spec, lambda producer, first: [producer.delivery((_record(spec, first),))], 1)


async def memory_bulk(spec: Spec, meter: Meter) -> Figures:
    """As `memory_single`, with 500 records a delivery. On cancellation: the producer ends."""

    def queue(producer: Producer, first: int) -> list[Delivery]:
        return [producer.delivery([_record(spec, number) for number in range(first, first + 500)])]

    return await _memory(spec, queue, 500)


async def _memory(spec: Spec, queue: Callable[[Producer, int], list[Delivery]], step: int) -> Figures:
    count = spec.number("count", 100_000)
    # Small batches, one in flight: nearly all stays queued, instead of being sealed and written to the socket.
    config = replace(config_of(spec), max_in_flight_per_partition=1, batch_max_bytes=16 * 1024)
    async with open_warm(spec, config) as producer:
        ask("pause")
        gc.collect()
        before = resident_bytes()
        kept = [queue(producer, first) for first in range(0, count, step)]
        await trio.sleep(_SETTLE_S)
        gc.collect()
        each = (resident_bytes() - before) / count
        state = producer.statistics()
        del kept
        ask("resume")
        return {
            "count": count,
            "bytes_each": each,
            "beyond_bytes": each - RECORD_BYTES,
            "queued": state.queued_records,
        }


def _record(spec: Spec, number: int) -> Record:
    return Record(spec.topic, numbered_payload(number))


WORKLOADS: dict[str, Callable[[Spec, Meter], Awaitable[Figures | None]]] = {
    "cancel_handles": cancel_handles,
    "cancel_tasks": cancel_tasks,
    "cancel_nothing": cancel_nothing,
    "memory_single": memory_single,
    "memory_bulk": memory_bulk,
}
