"""The task of one broker: connects when there is work, writes requests, takes answers.

Owns: the connection for Produce, the pace of reconnecting. Refuses to know: what is in a request and what an answer
means (the outbox).

Invariant: between `Outbox.next_request`, which seals, and the connection's ``send_all`` nothing else runs: the
connection is known to be open and is written by this task alone. From the seal on a record may be in the
log; so un-sealing never happens.

A lost connection ends the connection's nursery by an exception that is caught here and nowhere else; everything written
on it is tainted, and the pause before the next attempt has full jitter.
"""

import random
from collections.abc import Callable
from functools import partial
from typing import NoReturn

import trio

from kafka_client.cluster.alarm import TaskAlarm
from kafka_client.cluster.snapshot import NULL_TOPIC_ID, BrokerAddress
from kafka_client.config import Connector, ProducerConfig
from kafka_client.errors import ConnectionLost, ProtocolError, SecurityError
from kafka_client.network.connection import Connection, open_connection
from kafka_client.observe import BatchWritten, BrokerConnected, BrokerDisconnected, BrokerThrottled, ProducerObserver
from kafka_client.wire import produce
from kafka_client.wire.produce import PartitionBatch, ProduceRequest

from .dispatch import Dispatch
from .outbox import Outbox, Request

__all__ = ["Sender"]

#: The last version that names topics; used while a topic has no id.
NAMED_TOPICS_VERSION = 12


class _NoVersion(Exception):
    """The broker speaks no version of Produce that we do."""


class Sender:
    """One per broker; `run` is its task in the producer's nursery."""

    def __init__(
        self,
        broker: int,
        dispatch: Dispatch,
        connector: Connector | None,
        observer: ProducerObserver,
        address: Callable[[int], BrokerAddress | None],
        rng: random.Random,
    ) -> None:
        self.alarm = TaskAlarm()
        self.outbox = Outbox(broker, dispatch.config, self.alarm)
        self.connected = False
        self.connections_opened_total = 0
        self._broker = broker
        self._config: ProducerConfig = dispatch.config
        self._dispatch = dispatch
        self._connector = connector
        self._observer = observer
        self._address = address
        self._random = rng
        self._timeout_ms = int(dispatch.config.produce_timeout_s * 1000)
        self._failures = 0
        self._heard = False
        """An answer came since the last sleep."""

    async def run(self) -> NoReturn:
        """Send for as long as the producer lives.

        On cancellation: the connection is closed; the producer's end resolves what was in flight.
        """
        while True:
            while not self.outbox.has_work or (address := self._address(self._broker)) is None:
                await self.alarm.wait()
            pause_s = await self._run_connection(address)
            await trio.sleep(pause_s)

    async def _run_connection(self, address: BrokerAddress) -> float:
        """One connection from opening to end; returns the pause before the next."""
        await trio.lowlevel.checkpoint()
        where = f"{address.host}:{address.port}"
        answers_before = self.outbox.answers_total
        opened_before = self.connections_opened_total
        operator = False
        try:
            async with open_connection(
                address.host, address.port, config=self._config, connector=self._connector
            ) as connection:
                self.connected = True
                self.connections_opened_total += 1
                self._dispatch.standing.connection_works(self._broker, connection.warning)
                self._observer.connected(BrokerConnected(broker=self._broker, address=where))
                await self._drive(connection, address)
            reason = "closed by us: to ask for the versions again, or because the broker moved"
        except _NoVersion as error:
            reason, operator = str(error), True
            self._dispatch.standing.connection_refused(self._broker, "UNSUPPORTED_VERSION", reason)
        except SecurityError as error:
            reason, operator = str(error), True
            self._dispatch.standing.security_refused(self._broker, error)
        except ConnectionLost as error:
            reason = str(error)
        finally:
            self.connected = False
        if self._dispatch.closed:
            return 0.0
        opened = self.connections_opened_total > opened_before
        idle = opened and not self.outbox.requests and not self.outbox.has_work
        self.outbox.lost(trio.current_time())
        self._dispatch.want_metadata()
        self._observer.disconnected(
            BrokerDisconnected(broker=self._broker, address=where, reason=reason, idle=idle and not operator)
        )
        if operator:
            return self._config.operator_retry_s
        if idle:
            return 0.0  # brokers close idle connections after ten minutes; the next record opens one
        self._failures = 0 if self.outbox.answers_total > answers_before else self._failures + 1
        config = self._config
        longest = min(config.reconnect_backoff_max_s, config.reconnect_backoff_min_s * 2.0 ** min(self._failures, 16))
        return self._random.uniform(0, longest)

    async def _drive(self, connection: Connection, address: BrokerAddress) -> None:
        newest = _version_of_produce(connection)
        outbox = self.outbox
        outbox.renegotiate = False
        while True:
            if outbox.renegotiate or self._moved(address):
                if not outbox.requests:
                    await trio.lowlevel.checkpoint()
                    return
                await self.alarm.wait()
                continue
            if connection.holds_back:
                await connection.wait_resumed()  # or what is sealed could not be withdrawn while it waits
                continue
            request = outbox.next_request(trio.current_time()) if connection.is_open else None
            if request is None:
                await self.alarm.wait(outbox.due())
                if self._heard:
                    # Tasks that an answer woke are scheduled beside this one: what they queue goes out together.
                    self._heard = False
                    await trio.lowlevel.checkpoint()
                continue
            self._tell_written(request)
            batches = self._batches(request)
            version = newest
            if any(batch.topic_id is None for batch in batches):
                version = _version_of_produce(connection, at_most=NAMED_TOPICS_VERSION)
            body = produce.encode_request_parts(ProduceRequest(batches=batches, timeout_ms=self._timeout_ms), version)
            await connection.write(produce.API_KEY, version, body, partial(self._answered, request, version))

    def _moved(self, address: BrokerAddress) -> bool:
        """Whether metadata gives the broker another address now."""
        now = self._address(self._broker)
        return now is not None and now != address

    def _tell_written(self, request: Request) -> None:
        for partition, batch in request.batches:
            self._observer.batch_written(
                BatchWritten(
                    broker=self._broker,
                    topic=partition.tp.topic,
                    partition=partition.tp.partition,
                    attempt=batch.attempts,
                    records=batch.count,
                    size_bytes=len(batch.wire),
                    producer_id=batch.state.producer_id,
                    epoch=batch.state.epoch,
                    base_sequence=batch.base_sequence,
                )
            )

    def _batches(self, request: Request) -> list[PartitionBatch]:
        topics = self._dispatch.topics
        batches = []
        for partition, batch in request.batches:
            tp = partition.tp
            topic_id = topics[tp.topic].topic_id
            batches.append(
                PartitionBatch(tp.topic, None if topic_id == NULL_TOPIC_ID else topic_id, tp.partition, batch.wire)
            )
        return batches

    def _answered(self, request: Request, version: int, body: memoryview) -> None:
        """Called by the connection's reader, in the order of requests."""
        if self._dispatch.closed:
            return
        self._heard = True
        response = produce.decode_response(body, version)
        if response.node_endpoints:
            self._dispatch.leaders.endpoints_named(response.node_endpoints)
        if response.throttle_time_ms > 0:
            pause = BrokerThrottled(broker=self._broker, pause_s=response.throttle_time_ms / 1000)
            self._observer.throttled(pause)
        self.outbox.answered(request, response, trio.current_time(), self._dispatch.leaders.topic_names)

    def __repr__(self) -> str:
        return f"<Sender to broker {self._broker}, {'connected' if self.connected else 'not connected'}>"


def _version_of_produce(connection: Connection, *, at_most: int | None = None) -> int:
    try:
        return connection.version_of(produce, at_most=at_most)
    except ProtocolError as error:
        raise _NoVersion(str(error)) from error
