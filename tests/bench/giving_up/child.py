"""One client in a process of its own: ``python -m tests.bench.giving_up.child PLAN BOOTSTRAP_SERVERS BROKER_PID``."""

import asyncio
import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Coroutine

import msgspec

from tests.bench.giving_up.told import Closed, Left, Plan

CALLERS = 100
BETWEEN_CALLERS_S = 0.01
PATIENCE_S = 1.0
OPEN_AFTERWARDS_S = 5.0
GRACE_S = 2.0
CLOSE_LIMIT_S = 20.0
RECORDS = 10


class Broker:
    """The broker's process."""

    def __init__(self, servers: str, pid: int) -> None:
        self.servers = servers
        self._pid = pid

    def stop(self) -> None:
        """Where it stands."""
        os.kill(self._pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        os.kill(self._pid, signal.SIGCONT)


def values(count: int) -> list[str]:
    """The records."""
    return [f"record-{number}" for number in range(count)]


async def ours_left(broker: Broker, topic: str) -> Left:
    """Each caller in a task with a deadline of its own."""
    import trio

    from kafka_client import NotSent, ProducerConfig, Record, Unknown, open_producer

    told = Left([], [], [])
    async with open_producer(ProducerConfig(bootstrap_servers=broker.servers)) as producer:

        async def call(value: str) -> None:
            with producer.delivery((Record(topic, value.encode()),)) as delivery:
                with trio.move_on_after(PATIENCE_S):
                    await delivery.wait()
            match delivery.outcomes[0]:
                case NotSent():
                    told.not_sent.append(value)
                case Unknown():
                    told.unknown.append(value)

        await producer.send(Record(topic, b"warm-up"))
        broker.stop()
        async with trio.open_nursery() as nursery:
            for value in values(CALLERS):
                nursery.start_soon(call, value)
                await trio.sleep(BETWEEN_CALLERS_S)
        broker.resume()
        await trio.sleep(OPEN_AFTERWARDS_S)
    return told


async def ours_closed(broker: Broker, topic: str) -> Closed:
    """``close(grace)``."""
    import trio

    from kafka_client import ProducerConfig, Record, open_producer

    async with open_producer(ProducerConfig(bootstrap_servers=broker.servers)) as producer:
        await producer.send(Record(topic, b"warm-up"))
        broker.stop()
        delivery = producer.delivery([Record(topic, value.encode()) for value in values(RECORDS)])
        started = time.perf_counter()
        with trio.move_on_after(CLOSE_LIMIT_S) as scope:
            await producer.close(GRACE_S)
        took_s = None if scope.cancelled_caught else time.perf_counter() - started
        return Closed(took_s, RECORDS, RECORDS - delivery.unsettled)


async def aiokafka_left(broker: Broker, topic: str) -> Left:
    """Each caller in a task, ``asyncio.timeout`` around ``send_and_wait``."""
    from aiokafka import AIOKafkaProducer

    told = Left([], [], [])
    producer = AIOKafkaProducer(bootstrap_servers=broker.servers, acks="all", enable_idempotence=True)
    await producer.start()

    async def call(value: str) -> None:  # noqa: ASYNC910  # asyncio
        try:
            async with asyncio.timeout(PATIENCE_S):
                await producer.send_and_wait(topic, value.encode())
        except TimeoutError:
            told.nothing.append(value)

    await producer.send_and_wait(topic, b"warm-up")
    broker.stop()
    async with asyncio.TaskGroup() as group:
        for value in values(CALLERS):
            group.create_task(call(value))
            await asyncio.sleep(BETWEEN_CALLERS_S)
    broker.resume()
    await asyncio.sleep(OPEN_AFTERWARDS_S)
    await producer.stop()
    return told


async def aiokafka_closed(broker: Broker, topic: str) -> Closed:
    """``stop()``: it takes no grace."""
    from aiokafka import AIOKafkaProducer

    producer = AIOKafkaProducer(bootstrap_servers=broker.servers, acks="all", enable_idempotence=True)
    await producer.start()
    await producer.send_and_wait(topic, b"warm-up")
    broker.stop()
    futures = [await producer.send(topic, value.encode()) for value in values(RECORDS)]
    started = time.perf_counter()
    closing = asyncio.ensure_future(producer.stop())
    done, _ = await asyncio.wait([closing], timeout=CLOSE_LIMIT_S)
    took_s = time.perf_counter() - started if done else None
    results = sum(future.done() for future in futures)
    broker.resume()
    await closing
    return Closed(took_s, RECORDS, results)


def confluent_left(broker: Broker, topic: str) -> Left:
    """A callback for each record; whoever has heard nothing after 1 s has given up. One record cannot be taken back."""
    from confluent_kafka import Producer

    producer = Producer({"bootstrap.servers": broker.servers, "enable.idempotence": True, "log_level": 0})
    producer.produce(topic, b"warm-up")
    producer.flush(30)
    acknowledged: set[str] = set()
    producer_calls = []
    broker.stop()
    for value in values(CALLERS):
        producer.produce(topic, value.encode(), on_delivery=lambda error, _, value=value: acknowledged.add(value))
        producer_calls.append(value)
        producer.poll(BETWEEN_CALLERS_S)
    producer.poll(PATIENCE_S)
    told = Left([], [], [value for value in producer_calls if value not in acknowledged])
    broker.resume()
    until = time.perf_counter() + OPEN_AFTERWARDS_S
    while time.perf_counter() < until:
        producer.poll(0.1)
    return told


def confluent_closed(broker: Broker, topic: str) -> Closed:
    """``flush(grace)``, which is what its documentation says to end with."""
    from confluent_kafka import Producer

    producer = Producer({"bootstrap.servers": broker.servers, "enable.idempotence": True, "log_level": 0})
    producer.produce(topic, b"warm-up")
    producer.flush(30)
    broker.stop()
    results: list[str] = []
    for value in values(RECORDS):
        producer.produce(topic, value.encode(), on_delivery=lambda error, _, value=value: results.append(value))
    started = time.perf_counter()
    producer.flush(GRACE_S)
    took_s = time.perf_counter() - started
    told = len(results)
    broker.resume()
    return Closed(took_s, RECORDS, told)


def kafka_python_left(broker: Broker, topic: str) -> Left:
    """Each caller in a thread, ``future.get(timeout)``."""
    from kafka import KafkaProducer
    from kafka.errors import KafkaTimeoutError

    told = Left([], [], [])
    producer = KafkaProducer(bootstrap_servers=broker.servers, acks="all", enable_idempotence=True)
    producer.send(topic, b"warm-up").get(30)

    def call(value: str) -> None:
        try:
            producer.send(topic, value.encode()).get(PATIENCE_S)
        except KafkaTimeoutError:
            told.nothing.append(value)

    broker.stop()
    threads = [threading.Thread(target=call, args=(value,)) for value in values(CALLERS)]
    for thread in threads:
        thread.start()
        time.sleep(BETWEEN_CALLERS_S)
    for thread in threads:
        thread.join()
    broker.resume()
    time.sleep(OPEN_AFTERWARDS_S)
    producer.close(GRACE_S)
    return told


def kafka_python_closed(broker: Broker, topic: str) -> Closed:
    """``close(timeout)``."""
    from kafka import KafkaProducer
    from kafka.errors import KafkaTimeoutError

    producer = KafkaProducer(bootstrap_servers=broker.servers, acks="all", enable_idempotence=True)
    producer.send(topic, b"warm-up").get(30)
    broker.stop()
    futures = [producer.send(topic, value.encode()) for value in values(RECORDS)]
    started = time.perf_counter()

    def close() -> None:
        with contextlib.suppress(KafkaTimeoutError):  # it raises when its time is over
            producer.close(GRACE_S)

    closing = threading.Thread(target=close, daemon=True)
    closing.start()
    closing.join(CLOSE_LIMIT_S)
    took_s = None if closing.is_alive() else time.perf_counter() - started
    results = sum(future.is_done for future in futures)
    broker.resume()
    return Closed(took_s, RECORDS, results)


RUNS: dict[tuple[str, str], Callable[[Broker, str], Left | Closed | Coroutine[object, object, Left | Closed]]] = {
    ("ours", "left"): ours_left,
    ("ours", "closed"): ours_closed,
    ("aiokafka", "left"): aiokafka_left,
    ("aiokafka", "closed"): aiokafka_closed,
    ("confluent", "left"): confluent_left,
    ("confluent", "closed"): confluent_closed,
    ("kafka-python", "left"): kafka_python_left,
    ("kafka-python", "closed"): kafka_python_closed,
}


def main() -> None:
    """Do what the arguments say, print what was told as JSON."""
    plan = msgspec.json.decode(sys.argv[1], type=Plan)
    broker = Broker(sys.argv[2], int(sys.argv[3]))
    run = RUNS[plan.client, plan.scenario]
    match plan.client:
        case "ours":
            import trio

            told = trio.run(run, broker, plan.topic)  # type: ignore[arg-type]  # ours are coroutines
        case "aiokafka":
            told = asyncio.run(run(broker, plan.topic))  # type: ignore[arg-type]  # aiokafka's too
        case _:
            told = run(broker, plan.topic)
    print(msgspec.json.encode(told).decode(), flush=True)
    os._exit(0)  # threads of the clients would be waited for


if __name__ == "__main__":
    main()
