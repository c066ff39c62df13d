"""Keeping a session alive: a connection convinces its broker again before the broker stops believing it.

Owns: when that is, and the steps on a connection that carries requests meanwhile. Refuses to know: mechanisms.

Theory (KIP-368). A broker with ``connections.max.reauth.ms``, or with a token that expires, tells how long a session
lasts, and closes a connection that sends a request afterwards. To go on, the client sends SaslHandshake and
SaslAuthenticate once more, on the same connection. From the handshake on until the last step is answered the broker
closes on any other request, so those are held back; what was asked before is answered before. Secrets are read, and a
token is fetched, before anything is held back.

Invariant: a re-authentication that fails ends the connection, with the reason.

Non-obvious: a broker takes a handshake that comes less than a second after the last one began for an ordinary request,
and refuses it (KafkaChannel's MIN_REAUTH_INTERVAL_ONE_SECOND_NANOS). It must be the same user with the same mechanism.
"""

import random
from contextlib import AbstractAsyncContextManager
from math import inf
from typing import Protocol

import trio

from kafka_client.config import ProducerConfig
from kafka_client.errors import ConnectionLost
from kafka_client.wire.primitives import Buffer

from .credentials import credentials_of
from .establish import located, run_work
from .handshake import Versions
from .sasl import Session, authenticate
from .steps import Exchange, Step, Work

__all__ = ["Authenticated", "keep_authenticated"]

#: Between these parts of a session's life: so early that a slow answer before it does not matter, and not all
#: connections at once. The same as Java's client.
RENEW_FROM, RENEW_TO = 0.85, 0.95
#: See above; with something for clocks that differ.
BETWEEN_MIN_S = 1.1


class Authenticated(Protocol):
    """What is needed of a connection."""

    session: Session | None
    reauthentications_total: int

    @property
    def address(self) -> str: ...

    @property
    def versions(self) -> Versions: ...

    def hold_back(self) -> AbstractAsyncContextManager[None]: ...

    async def ask_held(self, step: Step) -> memoryview: ...

    def lose(self, reason: ConnectionLost) -> ConnectionLost: ...


async def keep_authenticated(connection: Authenticated, config: ProducerConfig) -> None:
    """Re-authenticate whenever it is time; ends with the connection, or when a session has no end.

    On cancellation: as at the end of the connection.
    """
    await trio.lowlevel.checkpoint()
    began = trio.current_time()
    earliest = began
    while connection.session is not None and connection.session.lifetime_s < inf:
        life_s = connection.session.lifetime_s * random.uniform(RENEW_FROM, RENEW_TO)
        await trio.sleep_until(max(began + life_s, earliest))
        try:
            with trio.move_on_after(config.request_timeout_s) as scope:
                login = await credentials_of(config.security).login(config.security)
            if scope.cancelled_caught:
                raise ConnectionLost(f"no secret to authenticate with within {config.request_timeout_s:g} s")
            earliest = trio.current_time() + BETWEEN_MIN_S
            async with connection.hold_back():
                began = trio.current_time()
                connection.session = await _drive(connection, authenticate(login, connection.versions))
        except ConnectionLost as error:
            connection.lose(located(error, f"{connection.address}: re-authentication"))
            return
        connection.reauthentications_total += 1


async def _drive(connection: Authenticated, exchange: Exchange[Session]) -> Session:
    wanted = next(exchange)
    while True:
        reply: Buffer = await (run_work(wanted) if isinstance(wanted, Work) else connection.ask_held(wanted))
        try:
            wanted = exchange.send(reply)
        except StopIteration as end:
            session: Session = end.value
            return session
