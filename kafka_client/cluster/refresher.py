"""Asks the cluster: for metadata, and for a producer id.

Owns: the connection for such questions (its own, so that produce traffic cannot block it), the choice of whom to ask,
the pace. Refuses to know: what the answers mean for partitions; it hands them to its listener.

Pace. A refresh is due when somebody wants one, when the last was incomplete, and every ``metadata_max_age_s``; never
more often than every ``metadata_min_interval_s``. Reconnecting and asking again pause with full jitter, and where TLS
or SASL is refused for ``operator_retry_s``, once every candidate (at most `REFUSALS_MAX`) has refused. An answer that
does not come within `ANSWER_S` costs this connection, not a produce connection, so giving up is cheap. A broker that
asks for a pause (``throttle_time_ms``, KIP-219) is asked nothing on that connection meanwhile.

Whom to ask: the known brokers in random order. When none of them has answered for ``rebootstrap_after_s``, counted from
the first failure since the last success, each round begins with the bootstrap servers and goes on with the known ones:
learned brokers may come back while the bootstrap servers are gone for good (librdkafka #5088). When a broker says
REBOOTSTRAP_REQUIRED (129, KIP-1102) the known ones are forgotten at once: they are of another cluster.
"""

import math
import random
from collections.abc import Generator
from time import perf_counter
from typing import NamedTuple, NoReturn, Protocol, TypeVar

import trio

from kafka_client.config import Connector, ProducerConfig, split_address
from kafka_client.errors import ConnectionLost, ProtocolError, SecurityError
from kafka_client.network.connection import Connection, open_connection
from kafka_client.wire import init_producer_id, metadata
from kafka_client.wire.init_producer_id import InitProducerIdRequest, InitProducerIdResponse
from kafka_client.wire.metadata import MetadataRequest, MetadataResponse, TopicEntry
from kafka_client.wire.primitives import Buffer

from .alarm import TaskAlarm
from .snapshot import BrokerAddress

__all__ = ["SLICE_S", "ClusterListener", "Refresher"]

T = TypeVar("T")
#: An answer is worked on for so long before everybody else has a turn.
SLICE_S = 0.002
#: An answer about metadata takes milliseconds; a broker that needs longer is stopped or gone.
ANSWER_S = 10.0
REBOOTSTRAP_REQUIRED = 129
#: So many refusals by TLS or SASL, one after the other, are taken for everybody's answer.
REFUSALS_MAX = 3


class ClusterListener(Protocol):
    """Whom the answers are for."""

    def wanted_topics(self) -> list[str]:
        """The topics to ask about."""
        ...

    def known_entry(self, topic: str) -> TopicEntry | None:
        """The entry of a topic that brings nothing new."""
        ...

    def metadata_arrived(self, response: MetadataResponse) -> Generator[None, None, float | None]:
        """Take an answer in, pausing where something else may be done first.

        Returns after how many seconds to ask again, None when nothing is missing.
        """
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
        self._failing_since: float | None = None
        """The first failure since the last success."""
        self._quiet_until = -math.inf
        """The connection is throttled."""
        self._in_vain = False
        """The connection ended while it was asked for metadata."""
        self._failures = 0
        self._refusals = 0

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
        while True:
            await self._alarm.wait(self._due())
            address = self._choose()
            self._quiet_until = -math.inf
            self._in_vain = False
            try:
                async with open_connection(
                    address.host, address.port, config=self._config, connector=self._connector
                ) as connection:
                    self.connections_opened_total += 1
                    await self._ask(connection)
            except ConnectionLost as error:
                refused = isinstance(error, SecurityError)
                if self._due() > trio.current_time() and not (refused or self._in_vain):
                    continue  # it ended while idle, as brokers do after ten minutes
                self._failed()
                self._refusals = self._refusals + 1 if refused else 0
                self._listener.cluster_failed(f"{address.host}:{address.port}", error)
            await trio.sleep(self._pause_s())

    async def _ask(self, connection: Connection) -> None:
        while True:
            now = trio.current_time()
            if self._listener.wants_producer_id and now >= max(self._next_id, self._quiet_until):
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
        taken_in = False
        try:
            again = await self._take_in(connection)
            taken_in = True
        finally:
            if not taken_in:  # also when the connection is lost while the answer is worked on
                self._stale = self._in_vain = True
        return again

    async def _take_in(self, connection: Connection) -> bool:
        request = MetadataRequest(topics=self._listener.wanted_topics())
        answer = await connection.exchange(_Undecoded, request, timeout_s=self._answer_s)
        now = trio.current_time()
        try:
            response = await _in_slices(metadata.decode_steps(*answer, self._listener.known_entry))
        except ProtocolError as error:
            raise ProtocolError(f"{connection.address}: Metadata v{answer.version}: {error}") from error
        self._throttled(response.throttle_time_ms, now)
        if response.error_code == REBOOTSTRAP_REQUIRED:
            self._known = []
            self._candidates = []
            self._stale = True
            self._failed()
            return True
        self._next_refresh = now + self._config.metadata_max_age_s
        again_s: float | None = self._config.retry_backoff_max_s
        if response.brokers and response.error_code == 0:
            self._failures = 0
            self._refusals = 0
            self._failing_since = None
            self._known = [BrokerAddress(broker.host, broker.port) for broker in response.brokers]
            again_s = await _in_slices(self._listener.metadata_arrived(response))
        if again_s is not None:
            self._next_refresh = min(self._next_refresh, now + again_s)
        return False

    async def _ask_producer_id(self, connection: Connection) -> None:
        response = await connection.exchange(init_producer_id, InitProducerIdRequest(), timeout_s=self._answer_s)
        self._throttled(response.throttle_time_ms, trio.current_time())
        again_s = self._listener.producer_id_arrived(response)
        self._next_id = -math.inf if again_s is None else trio.current_time() + again_s

    @property
    def _answer_s(self) -> float:
        return min(ANSWER_S, self._config.request_timeout_s)

    def _refresh_due(self) -> float:
        wanted = -math.inf if self._stale else self._next_refresh
        return max(wanted, self._asked_at + self._config.metadata_min_interval_s, self._quiet_until)

    def _due(self) -> float:
        due = self._refresh_due()
        return min(due, max(self._next_id, self._quiet_until)) if self._listener.wants_producer_id else due

    def _throttled(self, throttle_time_ms: int, now: float) -> None:
        if throttle_time_ms > 0:
            self._quiet_until = now + throttle_time_ms / 1000

    def _failed(self) -> None:
        self._failures += 1
        if self._failing_since is None:
            self._failing_since = trio.current_time()

    def _choose(self) -> BrokerAddress:
        if not self._candidates:
            since = self._failing_since
            self._candidates = list(self._known)
            self._random.shuffle(self._candidates)
            if not self._known or (
                since is not None and trio.current_time() - since >= self._config.rebootstrap_after_s
            ):
                servers = [BrokerAddress(*split_address(server)) for server in self._config.bootstrap_servers]
                self._random.shuffle(servers)
                self._candidates += servers  # taken from the end: they come first
        return self._candidates.pop()

    def _pause_s(self) -> float:
        config = self._config
        if self._refusals >= REFUSALS_MAX or (self._refusals and not self._candidates):
            self._refusals = 0
            return config.operator_retry_s
        longest = min(config.reconnect_backoff_max_s, config.reconnect_backoff_min_s * 2.0 ** min(self._failures, 16))
        return self._random.uniform(0, longest)

    def __repr__(self) -> str:
        return (
            f"<Refresher {len(self._known)} brokers known, {self._failures} failures{', stale' if self._stale else ''}>"
        )


class _Answer(NamedTuple):
    body: Buffer
    version: int


class _Undecoded:
    """Metadata, as a message whose answers are decoded later."""

    API_KEY = metadata.API_KEY
    MIN_VERSION = metadata.MIN_VERSION
    MAX_VERSION = metadata.MAX_VERSION
    encode_request = staticmethod(metadata.encode_request)
    decode_response = _Answer


async def _in_slices(steps: Generator[None, None, T]) -> T:
    """Go through ``steps`` to the end, with a checkpoint each `SLICE_S`; returns what they return.

    On cancellation: the rest of them is not done.
    """
    while True:
        end = _slice(steps)
        await trio.lowlevel.checkpoint()
        if end is not None:
            result: T = end.value
            return result


def _slice(steps: Generator[None, None, T]) -> StopIteration | None:
    until = perf_counter() + SLICE_S
    try:
        while True:
            next(steps)
            if perf_counter() >= until:
                return None
    except StopIteration as end:
        return end
