"""From an address to a stream that has shaken hands.

Owns: the order TCP, TLS, handshake, all under one deadline, and the sentences that say which of them failed. Refuses to
know: what the connection is for.

Invariant: whatever happens, a stream that is not returned is closed.
"""

import os
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TypeAlias

import trio

from kafka_client.config import Connector, ProducerConfig
from kafka_client.errors import ConfigError, ConnectionLost, ProtocolError, SecurityError
from kafka_client.wire.frames import FrameSplitter, decode_response_header, encode_request_frame

from .handshake import START_VERSIONS, Handshake, Versions, shake_hands
from .tcp import connect_tcp
from .tls import make_ssl_context, start_tls, tls_refusal

__all__ = ["READ_BYTES", "Established", "chained", "establish", "explain_broken"]

#: One read of a socket. Answers to Produce are small; those of Fetch come in several reads.
READ_BYTES = 64 * 1024

_Exchange: TypeAlias = Callable[[bytes], Awaitable[memoryview]]


class _HungUp(ConnectionLost):
    """The peer closed the connection instead of answering the handshake; another version may suit it better."""


@dataclass(frozen=True, slots=True)
class Established:
    """A connection ready for requests."""

    stream: trio.abc.Stream
    versions: Versions


@dataclass(slots=True)
class _Attempt:
    """What is being done right now, for the message when time is over."""

    address: str
    stage: str = field(default="TCP")


async def establish(host: str, port: int, config: ProducerConfig, connector: Connector | None) -> Established:
    """Connect and shake hands within ``config.connect_timeout_s``.

    Raises:
        ConnectionLost: refused, unreachable, too slow, or hung up on.
        SecurityError: TLS was refused, or our certificates cannot be read.
        ProtocolError: the peer does not speak Kafka.

    On cancellation: nothing is left open.
    """
    attempt = _Attempt(f"{host}:{port}")
    with trio.move_on_after(config.connect_timeout_s):  # noqa: ASYNC912  # START_VERSIONS is not empty
        for start_version in START_VERSIONS:
            stream = await _open_stream(host, port, config, connector, attempt)
            try:
                attempt.stage = "ApiVersions"
                versions = await _drive(stream, shake_hands(start_version), config, attempt.address)
            except _HungUp:
                await trio.aclose_forcefully(stream)
                if start_version == START_VERSIONS[-1]:
                    raise
            except BaseException:
                await trio.aclose_forcefully(stream)
                raise
            else:
                return Established(stream, versions)
    raise ConnectionLost(f"no connection to {attempt.address} within {config.connect_timeout_s:g} s ({attempt.stage})")


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
        return await start_tls(stream, make_ssl_context(config.security), host, attempt.address)
    except ConfigError as error:
        await trio.aclose_forcefully(stream)
        raise SecurityError(f"{attempt.address}: {error}") from error
    except trio.BrokenResourceError as error:
        await trio.aclose_forcefully(stream)
        raise ConnectionLost(f"{attempt.address} hung up during the TLS handshake") from error
    except BaseException:
        await trio.aclose_forcefully(stream)
        raise


async def _drive(stream: trio.abc.Stream, handshake: Handshake, config: ProducerConfig, address: str) -> Versions:
    splitter = FrameSplitter(config.response_max_bytes)
    correlation_id = 0
    step = next(handshake)
    while True:
        frame = encode_request_frame(step.api_key, step.version, correlation_id, config.client_id, step.body)
        answer = await _round_trip(stream, frame, splitter, address)
        answered_id, body = decode_response_header(answer, step.api_key, step.version)
        if answered_id != correlation_id:
            raise ProtocolError(f"{address} answered request {answered_id}, which was not asked")
        correlation_id += 1
        try:
            step = handshake.send(body)
        except StopIteration as end:
            versions: Versions = end.value
            return versions


async def _round_trip(stream: trio.abc.Stream, frame: bytes, splitter: FrameSplitter, address: str) -> memoryview:
    try:
        await stream.send_all(frame)
        while True:
            data = await stream.receive_some(READ_BYTES)
            if not data:
                raise _HungUp(f"{address} closed the connection during the handshake; {_hint(stream)}")
            frames = splitter.feed(data)
            if len(frames) > 1 or (frames and splitter.held_bytes):
                raise ProtocolError(f"{address} sent more than one answer to one request")
            if frames:
                return frames[0]
    except trio.BrokenResourceError as error:
        refusal = tls_refusal(error, address)
        if refusal is not None:
            raise refusal from error
        raise _HungUp(f"lost {address} during the handshake: {explain_broken(error)}; {_hint(stream)}") from error


def _hint(stream: trio.abc.Stream) -> str:
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
