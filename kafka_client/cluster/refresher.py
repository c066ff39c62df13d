"""Asks the cluster: for metadata, and for a producer id.

Owns: the connection for such questions (its own, so that produce traffic cannot block it), the choice of whom to ask,
the pace. Refuses to know: what the answers mean for partitions; it hands them to its listener.

Pace. A refresh is due when somebody wants one, when the last was incomplete, and every ``metadata_max_age_s``; never
more often than every ``metadata_min_interval_s``. Reconnecting and asking again pause with full jitter. An answer that
does not come within `ANSWER_S` costs this connection, not a produce connection, so giving up is cheap.

Whom to ask: the known brokers in random order; the bootstrap servers while none is known, after ``rebootstrap_after_s``
without success, and at once when a broker says so (KIP-1102, error 129).
"""

import math
import random
from typing import NoReturn, Protocol

import trio

from kafka_client.config import Connector, ProducerConfig, split_address
from kafka_client.errors import ConnectionLost
from kafka_client.network.connection import Connection, open_connection
from kafka_client.wire import init_producer_id, metadata
from kafka_client.wire.init_producer_id import InitProducerIdRequest, InitProducerIdResponse
from kafka_client.wire.metadata import MetadataRequest, MetadataResponse

from .alarm import TaskAlarm
from .snapshot import BrokerAddress

__all__ = ["ClusterListener", "Refresher"]

#: An answer about metadata takes milliseconds; a broker that needs longer is stopped or gone.
ANSWER_S = 10.0
REBOOTSTRAP_REQUIRED = 129


class ClusterListener(Protocol):
    """Whom the answers are for."""

    def wanted_topics(self) -> list[str]:
        """The topics to ask about."""
        ...

    def metadata_arrived(self, response: MetadataResponse) -> float | None:
        """Take an answer in; returns after how many seconds to ask again, None when nothing is missing."""
        ...

    @property
    def wants_producer_id(self) -> bool:
        """Whether InitProducerId is to be asked."""
        ...

    def producer_id_arrived(self, response: InitProducerIdResponse) -> float | None:
        """Take an answer in, whatever its code; returns after how many seconds to ask again, or None."""
        ...

    def cluster_failed(self, address: str, error: ConnectionLost) -> None:
        """The broker at this address could not be asked."""
        ...


class Refresher:
    """One task, `run`, in the producer's nursery."""

    def __init__(
        self, config: ProducerConfig, connector: Connector | None, listener: ClusterListener, rng: random.Random
    ) -> None:
        self.connections_opened_total = 0
        self._config = config
        self._connector = connector
        self._listener = listener
        self._random = rng
        self._alarm = TaskAlarm()
        self._known: list[BrokerAddress] = []
        self._candidates: list[BrokerAddress] = []
        self._stale = True
        self._asked_at = -math.inf
        self._next_refresh = -math.inf
        self._next_id = -math.inf
        self._succeeded_at = -math.inf
        self._failures = 0

    def want(self) -> None:
        """Metadata is stale, or a producer id is wanted."""
        if not self._stale:
            self._stale = True
            self._alarm.ring()

    def want_producer_id(self) -> None:
        """Look at `ClusterListener.wants_producer_id`."""
        self._alarm.ring()

    async def run(self) -> NoReturn:
        """Ask whenever something is due.

        On cancellation: the connection is closed; nothing else to undo.
        """
        self._succeeded_at = trio.current_time()
        while True:
            await self._alarm.wait(self._due())
            address = self._choose()
            try:
                async with open_connection(
                    address.host, address.port, config=self._config, connector=self._connector
                ) as connection:
                    self.connections_opened_total += 1
                    await self._ask(connection)
            except ConnectionLost as error:
                if self._due() > trio.current_time():
                    continue  # it ended while idle, as brokers do after ten minutes
                self._failures += 1
                self._listener.cluster_failed(f"{address.host}:{address.port}", error)
            await trio.sleep(self._pause_s())

    async def _ask(self, connection: Connection) -> None:
        while True:
            now = trio.current_time()
            if self._listener.wants_producer_id and now >= self._next_id:
                await self._ask_producer_id(connection)
            elif now >= self._refresh_due():
                if await self._ask_metadata(connection):
                    return
            else:
                await self._alarm.wait(self._due())

    async def _ask_metadata(self, connection: Connection) -> bool:
        """Refresh once; True: start again from the bootstrap servers."""
        self._stale = False
        self._asked_at = trio.current_time()
        request = MetadataRequest(topics=self._listener.wanted_topics())
        try:
            response = await connection.exchange(metadata, request, timeout_s=self._answer_s)
        except ConnectionLost:
            self._stale = True
            raise
        if response.error_code == REBOOTSTRAP_REQUIRED:
            self._known = []
            self._candidates = []
            self._stale = True
            return True
        now = trio.current_time()
        self._next_refresh = now + self._config.metadata_max_age_s
        again_s: float | None = self._config.retry_backoff_max_s
        if response.brokers:
            self._failures = 0
            self._succeeded_at = now
            self._known = [BrokerAddress(broker.host, broker.port) for broker in response.brokers]
            again_s = self._listener.metadata_arrived(response)
        if again_s is not None:
            self._next_refresh = min(self._next_refresh, now + again_s)
        return False

    async def _ask_producer_id(self, connection: Connection) -> None:
        response = await connection.exchange(init_producer_id, InitProducerIdRequest(), timeout_s=self._answer_s)
        again_s = self._listener.producer_id_arrived(response)
        self._next_id = -math.inf if again_s is None else trio.current_time() + again_s

    @property
    def _answer_s(self) -> float:
        return min(ANSWER_S, self._config.request_timeout_s)

    def _refresh_due(self) -> float:
        wanted = -math.inf if self._stale else self._next_refresh
        return max(wanted, self._asked_at + self._config.metadata_min_interval_s)

    def _due(self) -> float:
        due = self._refresh_due()
        return min(due, self._next_id) if self._listener.wants_producer_id else due

    def _choose(self) -> BrokerAddress:
        if not self._candidates:
            silent_s = trio.current_time() - self._succeeded_at
            if self._known and silent_s < self._config.rebootstrap_after_s:
                self._candidates = list(self._known)
            else:
                self._candidates = [BrokerAddress(*split_address(server)) for server in self._config.bootstrap_servers]
                self._succeeded_at = trio.current_time()
                self._known = []
            self._random.shuffle(self._candidates)
        return self._candidates.pop()

    def _pause_s(self) -> float:
        config = self._config
        longest = min(config.reconnect_backoff_max_s, config.reconnect_backoff_min_s * 2.0 ** min(self._failures, 16))
        return self._random.uniform(0, longest)

    def __repr__(self) -> str:
        return (
            f"<Refresher {len(self._known)} brokers known, {self._failures} failures{', stale' if self._stale else ''}>"
        )
