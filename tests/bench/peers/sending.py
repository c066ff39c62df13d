"""How a peer's events reach Kafka: aiokafka, or librdkafka with futures. Both with acks=all and idempotence.

Owns: the producers' settings, and the wait for the acknowledgement. Refuses to know: where the events come from.
"""

import asyncio
from collections.abc import Sequence
from functools import partial
from itertools import cycle
from threading import Thread
from typing import Protocol

from tests.bench.peers.spec import SendingSpec

__all__ = ["Sending", "make_sending"]

#: Between two looks at librdkafka's answers, while some are owed. A shorter pause costs a pass of the loop each.
_LOOK_EVERY_S = 0.0005
#: Of the thread, before it looks whether all is over.
_WAIT_S = 0.1


class Sending(Protocol):
    """What an application needs; returning means acknowledged."""

    async def start(self) -> None:
        """Connect."""
        ...

    async def stop(self) -> None:
        """Close."""
        ...

    async def one(self, value: bytes) -> None:
        """Send one event. Raises the client's own error where it gave up."""
        ...

    async def many(self, values: Sequence[bytes]) -> None:
        """Send some, and wait for all of them. Raises the same."""
        ...


def make_sending(spec: SendingSpec, bootstrap_servers: str, topic: str) -> Sending:
    """The one that ``spec`` names; its library is imported here, and no other."""
    match spec.client, spec.bulk:
        case "aiokafka", "send":
            return _AioKafka(spec, bootstrap_servers, topic)
        case "aiokafka", "send_batch":
            return _AioKafkaBatches(spec, bootstrap_servers, topic)
        case "librdkafka", _:
            return _Librdkafka(spec, bootstrap_servers, topic)
    raise SystemExit(f"no producer is called {spec.client} {spec.bulk}")


class _AioKafka:
    def __init__(self, spec: SendingSpec, bootstrap_servers: str, topic: str) -> None:
        self._spec = spec
        self._servers = bootstrap_servers
        self._topic = topic

    async def start(self) -> None:
        """Connect, and get a producer id."""
        from aiokafka import AIOKafkaProducer  # type: ignore[import-untyped]  # it has no types

        self._producer = AIOKafkaProducer(
            bootstrap_servers=self._servers,
            acks="all",
            enable_idempotence=True,
            linger_ms=self._spec.linger_ms,
            max_batch_size=131_072 if self._spec.bulk == "send" else 524_288,
        )
        await self._producer.start()
        await self._producer.send_and_wait(self._topic, b"warm")
        self._partitions = cycle(sorted(await self._producer.partitions_for(self._topic)))

    async def stop(self) -> None:
        """Close."""
        await self._producer.stop()

    async def one(self, value: bytes) -> None:
        """``send_and_wait``, the partition named: picking costs aiokafka more."""
        await self._producer.send_and_wait(self._topic, value, partition=next(self._partitions))

    async def many(self, values: Sequence[bytes]) -> None:  # noqa: ASYNC910  # asyncio's
        """``send`` each, then wait for each."""
        send, topic, partitions = self._producer.send, self._topic, self._partitions
        for future in [await send(topic, value, partition=next(partitions)) for value in values]:
            await future


class _AioKafkaBatches(_AioKafka):
    async def many(self, values: Sequence[bytes]) -> None:
        """A batch a request, and another one where they do not fit."""
        batches = []
        batch = self._producer.create_batch()
        append = batch.append
        for value in values:
            if append(key=None, value=value, timestamp=None) is None:
                batches.append(batch)
                batch = self._producer.create_batch()
                append = batch.append
                append(key=None, value=value, timestamp=None)
        for future in [
            await self._producer.send_batch(each, self._topic, partition=next(self._partitions))
            for each in (*batches, batch)
        ]:
            await future


class _Group:
    """The records of one request that are not acknowledged."""

    __slots__ = ("error", "future", "left")

    def __init__(self, left: int, future: "asyncio.Future[None]") -> None:
        self.left = left
        self.future = future
        self.error: object = None

    def acknowledged(self, error: object, message: object) -> None:
        """The delivery callback."""
        self.left -= 1
        if error is not None:
            self.error = error
        if self.left == 0 and not self.future.done():
            if self.error is None:
                self.future.set_result(None)
            else:
                self.future.set_exception(RuntimeError(str(self.error)))


class _Librdkafka:
    """Its callbacks are served by the event loop, which polls while something is owed, or by a thread that waits."""

    def __init__(self, spec: SendingSpec, bootstrap_servers: str, topic: str) -> None:
        self._spec = spec
        self._servers = bootstrap_servers
        self._topic = topic
        self._looking = False
        self._running = True

    async def start(self) -> None:  # noqa: ASYNC910  # asyncio's
        """Connect, and get a producer id."""
        from confluent_kafka import Producer

        self._loop = asyncio.get_running_loop()
        self._producer = Producer(
            {
                "bootstrap.servers": self._servers,
                "acks": "all",
                "enable.idempotence": True,
                "linger.ms": self._spec.linger_ms,
                "batch.size": 1_000_000,
                "batch.num.messages": 10_000,
                "queue.buffering.max.messages": 1_000_000,
                "queue.buffering.max.kbytes": 1_048_576,
                "log_level": 0,
            }
        )
        self._producer.produce(self._topic, b"warm")
        if self._producer.flush(30):
            raise RuntimeError("the warming record was not delivered")
        if self._spec.threaded:
            Thread(target=self._wait_for_answers, daemon=True).start()

    async def stop(self) -> None:  # noqa: ASYNC910  # asyncio's
        """Close."""
        self._running = False
        self._producer.flush(10)

    async def one(self, value: bytes) -> None:
        """``produce`` with a callback that resolves a future."""
        future: asyncio.Future[None] = self._loop.create_future()
        if self._spec.threaded:
            resolve = partial(self._loop.call_soon_threadsafe, _resolve, future)
            self._producer.produce(self._topic, value, on_delivery=resolve)
        else:
            self._producer.produce(self._topic, value, on_delivery=partial(_resolve, future))
            self._look()
        await future

    async def many(self, values: Sequence[bytes]) -> None:
        """``produce_batch``, one future for all."""
        future: asyncio.Future[None] = self._loop.create_future()
        group = _Group(len(values), future)
        taken = self._producer.produce_batch(
            self._topic, [{"value": value} for value in values], on_delivery=group.acknowledged
        )
        if taken != len(values):
            raise RuntimeError(f"{len(values) - taken} records were not taken")
        self._look()
        await future

    def _wait_for_answers(self) -> None:
        while self._running:
            self._producer.poll(_WAIT_S)

    def _look(self) -> None:
        if not self._looking:
            self._looking = True
            self._loop.call_later(_LOOK_EVERY_S, self._serve)

    def _serve(self) -> None:
        self._producer.poll(0)
        self._looking = False
        if len(self._producer):
            self._look()


def _resolve(future: "asyncio.Future[None]", error: object, message: object) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(None)
    else:
        future.set_exception(RuntimeError(str(error)))
