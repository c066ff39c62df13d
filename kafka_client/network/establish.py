"""From an address to a stream that has shaken hands.

Owns: the order secrets, TCP, TLS, handshake, all under one deadline, and the sentences that say which of them failed.
Refuses to know: what the connection is for.

Invariant: whatever happens, a stream that is not returned is closed.
"""

import os
import socket
from copy import copy
from dataclasses import dataclass, field
from typing import TypeVar

import trio

from kafka_client.config import Connector, ProducerConfig
from kafka_client.errors import ConfigError, ConnectionLost, ProtocolError, SecurityError
from kafka_client.wire import api_versions
from kafka_client.wire.frames import API_NAMES, FrameSplitter, decode_response_header, encode_request_frame
from kafka_client.wire.primitives import Buffer

from .credentials import credentials_of
from .handshake import START_VERSIONS, Greeted, Versions, shake_hands
from .sasl import AUTHENTICATION_FAILED, Login, Session
from .steps import Exchange, Step, Work
from .tcp import connect_tcp
from .tls import start_tls, tls_refusal

__all__ = ["READ_BYTES", "Established", "chained", "establish", "explain_broken", "located", "run_work"]

#: So many brokers, one after the other, may make us hash the password without proving that they know it.
HASHED_IN_VAIN_MAX = 3

ErrorT = TypeVar("ErrorT", bound=ConnectionLost)

#: One read of a socket. Answers to Produce are small; those of Fetch come in several reads.
READ_BYTES = 64 * 1024


class _HungUp(ConnectionLost):
    """The peer closed the connection instead of answering the handshake."""


@dataclass(frozen=True, slots=True)
class Established:
    """A connection ready for requests."""

    stream: trio.abc.Stream
    versions: Versions
    session: Session | None
    warning: str
    """What an operator should mend although it works: newer certificate files that cannot be used."""


@dataclass(slots=True)
class _Attempt:
    """What is being done right now, for the message when time is over; and what was noticed meanwhile."""

    address: str
    stage: str = field(default="TCP")
    api_key: int = api_versions.API_KEY
    """Of the request that is being asked."""
    warning: str = ""
    hashed: bool = False
    """Whether the password was hashed at a cost."""


async def establish(host: str, port: int, config: ProducerConfig, connector: Connector | None) -> Established:
    """Connect and shake hands within ``config.connect_timeout_s``.

    Raises:
        ConnectionLost: refused, unreachable, too slow, or hung up on.
        SecurityError: TLS or SASL was refused, or our certificates or secrets cannot be read.
        ProtocolError: the peer does not speak Kafka.

    On cancellation: nothing is left open.
    """
    attempt = _Attempt(f"{host}:{port}")
    shared = credentials_of(config.security)
    try:
        established = await _establish(host, port, config, connector, attempt)
    except SecurityError:
        raise
    except ConnectionLost as error:
        shared.hashed_in_vain += attempt.hashed
        if attempt.hashed and shared.hashed_in_vain >= HASHED_IN_VAIN_MAX:
            # The usual pauses are for accidents; these would cost half a second of CPU each.
            raise SecurityError(
                f"{error}; it was so after we had hashed our password for it {shared.hashed_in_vain} times"
            ) from error
        raise
    shared.hashed_in_vain = 0
    return established


async def _establish(
    host: str, port: int, config: ProducerConfig, connector: Connector | None, attempt: _Attempt
) -> Established:
    refused: SecurityError | None = None
    with trio.move_on_after(config.connect_timeout_s):
        login = await _read_login(config, attempt)
        try:
            return await _greet(host, port, config, connector, attempt, login)
        except SecurityError as error:
            if login is None or login.other is None or error.code != AUTHENTICATION_FAILED:
                raise
            refused = error
        # A broker closes the connection behind a refusal.
        try:
            established = await _greet(host, port, config, connector, attempt, login.other)
        except SecurityError:
            raise
        except ConnectionLost:
            raise refused from None  # whatever came of the other form: such a refusal is not asked for again at once
        credentials_of(config.security).took(login.other)
        return established
    if refused is not None:
        raise refused
    raise ConnectionLost(f"no connection to {attempt.address} within {config.connect_timeout_s:g} s ({attempt.stage})")


async def _greet(
    host: str, port: int, config: ProducerConfig, connector: Connector | None, attempt: _Attempt, login: Login | None
) -> Established:
    for start_version in START_VERSIONS:
        stream = await _open_stream(host, port, config, connector, attempt)
        attempt.api_key = api_versions.API_KEY
        try:
            greeted = await _drive(stream, shake_hands(start_version, login), config, attempt)
        except _HungUp:
            await trio.aclose_forcefully(stream)
            # Another version may suit it better; but what it says to SASL does not depend on that.
            if start_version == START_VERSIONS[-1] or attempt.api_key != api_versions.API_KEY:
                raise
        except BaseException:
            await trio.aclose_forcefully(stream)
            raise
        else:
            return Established(stream, greeted.versions, greeted.session, attempt.warning)
    raise AssertionError("START_VERSIONS is empty")


async def _read_login(config: ProducerConfig, attempt: _Attempt) -> Login | None:
    security = config.security
    if security.sasl_mechanism is None:
        return None  # noqa: ASYNC910  # nothing to read
    attempt.stage = "secrets"
    try:
        return await credentials_of(security).login(security)
    except ConnectionLost as error:
        raise located(error, attempt.address) from error.__cause__


async def _open_stream(
    host: str, port: int, config: ProducerConfig, connector: Connector | None, attempt: _Attempt
) -> trio.abc.Stream:
    attempt.stage = "TCP"
    try:
        stream: trio.abc.HalfCloseableStream
        if connector is None:
            stream = await connect_tcp(host, port, user_timeout_s=config.request_timeout_s)
        else:
            stream = await connector(host, port)
    except OSError as error:
        raise ConnectionLost(f"cannot connect to {attempt.address}: {_os_reason(error)}") from error
    if config.security.protocol not in ("SSL", "SASL_SSL"):
        return stream
    attempt.stage = "TLS"
    try:
        context, attempt.warning = credentials_of(config.security).tls.current(config.security)
        return await start_tls(stream, context, host, attempt.address)
    except ConfigError as error:
        await trio.aclose_forcefully(stream)
        raise SecurityError(f"{attempt.address}: {error}") from error
    except trio.BrokenResourceError as error:
        await trio.aclose_forcefully(stream)
        raise ConnectionLost(f"{attempt.address} hung up during the TLS handshake") from error
    except BaseException:
        await trio.aclose_forcefully(stream)
        raise


async def _drive(
    stream: trio.abc.Stream, handshake: Exchange[Greeted], config: ProducerConfig, attempt: _Attempt
) -> Greeted:
    splitter = FrameSplitter(config.response_max_bytes)
    correlation_id = 0
    wanted = next(handshake)
    while True:
        reply: Buffer
        if isinstance(wanted, Work):
            attempt.hashed = True
            reply = await run_work(wanted)
        else:
            attempt.stage, attempt.api_key = API_NAMES[wanted.api_key], wanted.api_key
            reply = await _ask(stream, wanted, correlation_id, splitter, config, attempt)
            correlation_id += 1
        try:
            wanted = handshake.send(reply)
        except StopIteration as end:
            greeted: Greeted = end.value
            return greeted
        except ConnectionLost as error:
            raise located(error, attempt.address) from error


async def run_work(work: Work) -> bytes:
    """Do ``work`` beside the event loop.

    On cancellation: its result is thrown away; it ends by itself.
    """
    return await trio.to_thread.run_sync(work.run, abandon_on_cancel=True)


async def _ask(
    stream: trio.abc.Stream,
    step: Step,
    correlation_id: int,
    splitter: FrameSplitter,
    config: ProducerConfig,
    attempt: _Attempt,
) -> memoryview:
    frame = encode_request_frame(step.api_key, step.version, correlation_id, config.client_id, step.body)
    answer = await _round_trip(stream, frame, splitter, attempt)
    answered_id, body = decode_response_header(answer, step.api_key, step.version)
    if answered_id != correlation_id:
        raise ProtocolError(f"{attempt.address} answered request {answered_id}, which was not asked")
    return body


async def _round_trip(stream: trio.abc.Stream, frame: bytes, splitter: FrameSplitter, attempt: _Attempt) -> memoryview:
    address = attempt.address
    try:
        await stream.send_all(frame)
        while True:
            data = await stream.receive_some(READ_BYTES)
            if not data:
                raise _HungUp(f"{address} closed the connection during the handshake; {_hint(stream, attempt)}")
            frames = splitter.feed(data)
            if len(frames) > 1 or (frames and splitter.held_bytes):
                raise ProtocolError(f"{address} sent more than one answer to one request")
            if frames:
                return frames[0]
    except trio.BrokenResourceError as error:
        refusal = tls_refusal(error, address)
        if refusal is not None:
            raise refusal from error
        raise _HungUp(
            f"lost {address} during the handshake: {explain_broken(error)}; {_hint(stream, attempt)}"
        ) from error


def _hint(stream: trio.abc.Stream, attempt: _Attempt) -> str:
    if attempt.api_key != api_versions.API_KEY:
        return f"{attempt.stage} was not answered: look into the broker's log"
    if isinstance(stream, trio.SSLStream):
        return "does the listener want a client certificate (ssl_certfile)?"
    return "does the listener speak another security.protocol?"


def explain_broken(error: BaseException) -> str:
    """The operating system's words for a broken stream, where there are any."""
    cause = error.__cause__
    return _os_reason(cause) if isinstance(cause, OSError) else str(error) or type(error).__name__


def _os_reason(error: OSError) -> str:
    # Trying several addresses, Trio raises one OSError whose cause holds the real ones.
    cause = error.__cause__
    if isinstance(cause, BaseExceptionGroup):
        cause = cause.exceptions[0]
    found = cause if isinstance(cause, OSError) else error
    # Trio puts the address into strerror, and so do we; a name that does not resolve has a code of another table.
    if found.errno is not None and not isinstance(found, socket.gaierror):
        return os.strerror(found.errno)
    return found.strerror or str(found)


def chained(error: ConnectionLost, cause: BaseException | None) -> ConnectionLost:
    """``error`` with its cause, for a place that keeps the error and raises it later."""
    error.__cause__ = cause
    return error


def located(error: ErrorT, address: str) -> ErrorT:
    """``error`` with the broker's address before its words."""
    found = copy(error)
    found.args = (f"{address}: {error}",)
    return found
