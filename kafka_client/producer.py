"""The producer: `open_producer` and the only door to everything below it.

Owns: the nursery of the senders, the refresher and the timekeeper; closing. Refuses
to know: what a delivery's caller does with outcomes.

Theory. A caller's side is synchronous: `Producer.delivery` queues, `Delivery.withdraw` takes back, and the only thing
a caller ever waits for is a counter reaching 0. All waiting for brokers happens in tasks of the producer's own
nursery, so a caller's cancellation never touches a socket. If one of those tasks ends by a bug, the nursery ends, the
block of `open_producer` is cancelled, and every open delivery is settled on the way out: no silent dead sender. The
tasks have a nursery within the block's, so that `Producer.close` ends them and not the caller's code in the block.

There are three kinds of tasks and no others, however many records wait: a sender per broker, one refresher, one
timekeeper that sleeps until the earliest deadline of all.
"""

import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import NoReturn

import trio

from kafka_client.buffer.delivery import FOREVER_S, Delivery
from kafka_client.buffer.encoded import Encoded
from kafka_client.cluster.alarm import TaskAlarm
from kafka_client.cluster.refresher import Refresher
from kafka_client.cluster.snapshot import BrokerAddress
from kafka_client.config import Connector, ProducerConfig
from kafka_client.errors import NotSentError, UnknownOutcomeError
from kafka_client.observe import (
    BrokerStatistics,
    PartitionHealth,
    PartitionStatistics,
    ProducerObserver,
    ProducerStatistics,
)
from kafka_client.outcome import Delivered, NotSent, Outcome, Record, Unknown
from kafka_client.sending.dispatch import Dispatch
from kafka_client.sending.intake import Intake
from kafka_client.sending.outbox import Outbox
from kafka_client.sending.partition import PartitionState
from kafka_client.sending.sender import Sender
from kafka_client.wire.murmur2 import partition_for_key

__all__ = ["Delivery", "Producer", "open_producer"]


class Producer:
    """Made by `open_producer`."""

    def __init__(
        self,
        config: ProducerConfig,
        nursery: trio.Nursery,  # of `_hold_tasks`: senders are started as brokers become known
        *,
        connector: Connector | None,
        observer: ProducerObserver,
    ) -> None:
        rng = random.Random()
        self.config = config
        self._nursery = nursery
        self._connector = connector
        self._observer = observer
        self._random = rng
        self._senders: dict[int, Sender] = {}
        self._done = trio.Event()
        self._dispatch = Dispatch(
            config,
            observer,
            start_sender=self._start_sender,
            want_metadata=lambda: self._refresher.want(),
            want_producer_id=lambda: self._refresher.want_producer_id(),
            rng=rng,
        )
        self._dispatch.tally.on_bug = self._end_soon
        self._budget = self._dispatch.budget
        self._topics = self._dispatch.topics
        self._intake = Intake(self._dispatch)
        self._refresher = Refresher(config, connector, self._dispatch, rng)

    # Producing.

    def delivery(self, records: Sequence[Record]) -> Delivery:
        """Queue records together and return the handle of their outcomes; a synchronous context manager.

        The order of calls is the order in the queues. Over the budget the delivery waits in the FIFO, without a task.
        Never blocks. After closing began every record is NotSent("closed").

        Raises:
            TypeError, ValueError: a record that cannot be encoded; nothing was queued then.
        """
        count = len(records)
        if count == 1:
            return self._intake.one(records[0])
        return self._intake.many(records) if count else self._intake.none()

    def delivery_encoded(self, encoded: Encoded) -> Delivery:
        """As `delivery`, for a caller who encodes his records himself: see `kafka_client.buffer.encoded`."""
        return self._intake.encoded(encoded)

    async def send(self, record: Record) -> Delivered:
        """Send one record and wait for its acknowledgement.

        Raises:
            NotSentError: it is proved not to be in the log.
            UnknownOutcomeError: it may be in the log.

        On cancellation: the record is taken back; its outcome, even a Delivered one, is lost. Use `delivery` to know.
        """
        delivery = self.delivery((record,))
        try:
            # As `Delivery.wait`, with one coroutine less for Trio to go through.
            if delivery.park():
                await trio.lowlevel.wait_task_rescheduled(delivery.stop_waiting)
            else:
                await trio.lowlevel.checkpoint()
        except BaseException:
            delivery.leave()
            delivery.withdraw()
            raise
        outcome = delivery.outcomes[0]
        if isinstance(outcome, Delivered):
            return outcome
        match outcome:
            case NotSent(reason):
                raise NotSentError(reason)
            case Unknown(reason):
                raise UnknownOutcomeError(reason)
            case None:
                raise AssertionError("a delivery was left with a record unsettled")

    async def send_many(self, records: Sequence[Record]) -> list[Outcome]:
        """Send records with one wait; returns one outcome per record, in order. Never raises for an outcome.

        On cancellation: what is not settled is taken back; all outcomes are lost. Use `delivery` to know them.
        """
        delivery = self.delivery(records)
        try:
            await delivery.wait()
        except BaseException:
            delivery.withdraw()
            raise
        return [outcome for outcome in delivery.outcomes if outcome is not None]

    # Looking.

    def want_topic(self, topic: str) -> None:
        """Ask the cluster for this topic now, as its first record would. Synchronous, idempotent."""
        self._dispatch.topic(topic)

    def partitions_of(self, topic: str) -> int | None:
        """How many partitions the topic has; None while that is unknown.

        It is asked for by `want_topic` or by the first record.
        """
        known = self._dispatch.leaders.snapshot.topics.get(topic)
        return len(known.partitions) if known is not None and known.partitions else None

    def partition_of(self, topic: str, key: bytes | None) -> int | None:
        """Where a record with this key goes now; None without a key, or while the topic's partitions are unknown."""
        partitions = self.partitions_of(topic)
        return None if key is None or partitions is None else partition_for_key(key, partitions)

    def partition_health(self, topic: str) -> Sequence[PartitionHealth] | None:
        """How each partition of the topic does, in order; None while they are unknown.

        Cheap enough to be asked many times a second. A partition with nothing unresolved and an old answer is idle, not
        ill; and a connection that stands proves nothing: a stopped process still accepts.
        """
        found = self._topics.get(topic)
        if found is None or not found.partitions:
            return None
        standing = self._dispatch.standing
        stands, refused = found.hold.error is not None or standing.hold.error is not None, standing.refused
        return [
            PartitionHealth(
                partition.leader,
                stands or partition.leader in refused,
                partition.oldest_call(),
                partition.answered_at,
            )
            for partition in found.partitions
        ]

    @property
    def room_bytes(self) -> int:
        """What of ``queue_max_bytes`` the next delivery can have at once; 0 while others wait in the FIFO.

        Cheap, unlike `statistics`: for a caller who gives way to others.
        """
        return self._budget.room_bytes

    def statistics(self) -> ProducerStatistics:
        """Everything at this moment; counters since the start."""
        dispatch, now = self._dispatch, trio.current_time()
        budget, account = dispatch.budget, dispatch.account
        partitions = [partition for topic in self._topics.values() for partition in topic.all_partitions()]
        states = tuple(self._partition_statistics(partition, now) for partition in partitions)
        errors = [topic.hold.error for topic in self._topics.values()]
        due_brokers = sum(sender.outbox.has_due_time(now) for sender in self._senders.values())
        return ProducerStatistics(
            queue_bytes=budget.used_bytes,
            queued_records=sum(partition.queue.count for partition in partitions)
            + sum(topic.undealt.count for topic in self._topics.values()),
            waiting_bytes=budget.waiting_bytes,
            waiting_deliveries=budget.waiting_deliveries(),
            waiters=dispatch.tally.waiters,
            in_flight_bytes=account.used_bytes,
            in_flight_batches=account.batches,
            detached_batches=account.detached_batches,
            detached_records=account.detached_records,
            detached_bytes=account.detached_bytes,
            due_times=due_brokers + sum(state.due for state in states),
            partitions=states,
            brokers=tuple(self._broker_statistics(number, sender) for number, sender in self._senders.items()),
            operator_errors=(*dispatch.standing.errors(), *(error for error in errors if error is not None)),
            producer_id=dispatch.identity.current.producer_id,
            epoch=dispatch.identity.current.epoch,
            epoch_bumps_total=dispatch.identity.bumps_total,
            connections_opened_total=self._refresher.connections_opened_total
            + sum(sender.connections_opened_total for sender in self._senders.values()),
            attempts_total=sum(sender.outbox.requests_total for sender in self._senders.values()),
            delivered_total=account.delivered_total,
            not_sent_total=budget.not_sent_total + account.not_sent_total,
            unknown_total=account.unknown_total,
            late_delivered_total=account.late_delivered_total,
            late_not_sent_total=account.late_not_sent_total,
            late_unknown_total=account.late_unknown_total,
            last_cluster_error=dispatch.last_cluster_error,
        )

    def _partition_statistics(self, partition: PartitionState, now: float) -> PartitionStatistics:
        oldest = partition.oldest_call()
        window = partition.window
        return PartitionStatistics(
            topic=partition.tp.topic,
            partition=partition.tp.partition,
            leader=partition.leader,
            queued=partition.queue.count,
            in_flight=window.in_flight,
            sealed=len(window.batches),
            oldest_age_s=0.0 if oldest is None else max(0.0, now - oldest),
            answered_age_s=None if partition.answered_at is None else now - partition.answered_at,
            unresolved=window.unresolved,
            epoch=window.state.epoch,
            next_sequence=window.next_sequence,
            due=not partition.idle and partition.due(now) < float("inf"),
        )

    def _broker_statistics(self, number: int, sender: Sender) -> BrokerStatistics:
        address = self._address(number)
        return BrokerStatistics(
            broker=number,
            address="" if address is None else f"{address.host}:{address.port}",
            connected=sender.connected,
            in_flight_requests=len(sender.outbox.requests),
            requests_total=sender.outbox.requests_total,
            answers_total=sender.outbox.answers_total,
            connections_opened_total=sender.connections_opened_total,
        )

    # Ending.

    async def close(self, grace_s: float | None = None) -> None:
        """Stop admitting, send what is queued and waiting for up to ``grace_s`` seconds, then end everything.

        Afterwards every delivery is settled: what was still queued is NotSent("closed"), what was sealed
        Unknown("closed"). Returns within the grace however the brokers are. A second call waits for the first.

        Args:
            grace_s: 0 ends at once; None takes ``close_grace_s``.

        On cancellation: the grace is over at once; everything is settled before this returns.
        """
        if self._intake.closed:
            await self._done.wait()
            return
        self._intake.closed = True
        quiet = TaskAlarm()
        dispatch = self._dispatch
        self._budget.on_less = quiet.ring
        try:
            with trio.move_on_after(self.config.close_grace_s if grace_s is None else grace_s):
                await trio.lowlevel.checkpoint()
                while not dispatch.quiet:
                    await quiet.wait()
        finally:
            self._finish("the producer was closed")

    def _finish(self, reason: str) -> None:
        """Settle everything and end the tasks; synchronous, once. Raises what an ``on_resolved`` raised, at the end."""
        tally = self._dispatch.tally
        self._intake.closed = True
        self._budget.on_less = tally.on_bug = None
        self._nursery.cancel_scope.cancel(reason=reason)
        self._dispatch.close()
        self._done.set()
        tally.raise_bugs()

    def _end_soon(self) -> None:
        """An ``on_resolved`` raised. Here its exception would tear the state in two: it comes out of a task."""
        self._nursery.start_soon(self._raise_bugs, name="kafka producer's end by a bug in on_resolved")

    async def _raise_bugs(self) -> None:
        await trio.lowlevel.checkpoint_if_cancelled()
        self._dispatch.tally.raise_bugs()

    # Tasks.

    def _start_sender(self, broker: int) -> Outbox:
        sender = Sender(broker, self._dispatch, self._connector, self._observer, self._address, self._random)
        self._senders[broker] = sender
        self._nursery.start_soon(sender.run, name=f"kafka sender to broker {broker}")
        return sender.outbox

    def _address(self, broker: int) -> BrokerAddress | None:
        return self._dispatch.leaders.snapshot.brokers.get(broker)

    async def _keep_time(self) -> NoReturn:
        """End what is past its deadline. All deliveries have the same timeout, so what comes later ends later: one
        sleep until the earliest deadline known now, or for one whole timeout, misses nothing."""
        shortest = min(self.config.delivery_timeout_s, FOREVER_S, self.config.batch_timeout_s)
        while True:
            now = trio.current_time()
            await trio.sleep_until(min(self._dispatch.next_end(), now + shortest))
            self._dispatch.end_due(trio.current_time())

    def __repr__(self) -> str:
        state = "closed" if self._done.is_set() else "closing" if self._intake.closed else "open"
        budget, account = self._budget, self._dispatch.account
        return (
            f"<Producer {state}: {budget.used_bytes} bytes queued, {budget.waiting_deliveries()} deliveries waiting, "
            f"{account.batches} batches in flight, {account.detached_records} records detached>"
        )


@asynccontextmanager
async def open_producer(
    config: ProducerConfig, *, connector: Connector | None = None, observer: ProducerObserver | None = None
) -> AsyncIterator[Producer]:
    """Open an idempotent producer with acks=all; returns before the first contact with a broker.

    Leaving the block normally is ``await producer.close()``; leaving it by an exception or a cancellation closes with
    no grace. A bug in one of its tasks cancels the block and comes out of it.

    Args:
        connector: makes the byte stream to a broker; None makes TCP connections.
        observer: is told what happens, once per batch or rarer.

    On cancellation: as by an exception; every delivery is settled, every connection closed.
    """
    failure: Exception | None = None
    async with trio.open_nursery() as block:
        nursery: trio.Nursery = await block.start(_hold_tasks)
        producer = Producer(config, nursery, connector=connector, observer=observer or ProducerObserver())
        try:
            nursery.start_soon(producer._refresher.run, name="kafka metadata refresher")
            nursery.start_soon(producer._keep_time, name="kafka timekeeper")
            yield producer
            await producer.close()
        except Exception as error:
            # The caller's, passed on as it is below: the nursery would put it into a group.
            failure = error
        finally:
            producer._finish("the producer's block was left")
    if failure is not None:
        raise failure


async def _hold_tasks(task_status: trio.TaskStatus[trio.Nursery]) -> None:
    async with trio.open_nursery() as nursery:
        task_status.started(nursery)
        await trio.sleep_forever()
