"""TLS on top of a byte stream.

Owns: the context made from `SecurityConfig`, the handshake, and the words for what went wrong. Refuses to know: Kafka,
and how the bytes below travel.

Non-obvious: with TLS 1.3 the client's handshake ends before the server has looked at the client's certificate, so a
refusal arrives with the first read. `tls_refusal` finds it in whatever that read raised.
"""

import ssl

import trio

from kafka_client.config import SecurityConfig
from kafka_client.errors import ConfigError, SecurityError

__all__ = ["make_ssl_context", "start_tls", "tls_refusal"]


def make_ssl_context(security: SecurityConfig) -> ssl.SSLContext:
    """Read the PEM files that ``security`` names; raises `ConfigError` that starts with the field's name.

    The files are read anew for every connection, so renewed certificates need no restart.
    """
    try:
        context = ssl.create_default_context(cafile=security.ssl_cafile)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(f"ssl_cafile: {security.ssl_cafile!r} cannot be read as PEM certificates: {error}") from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.check_hostname = security.ssl_check_hostname
    if security.ssl_certfile is not None:
        # A function, since OpenSSL would otherwise ask for a missing password on the terminal.
        password = security.ssl_keyfile_password or ""
        try:
            context.load_cert_chain(security.ssl_certfile, security.ssl_keyfile, lambda: password)
        except (OSError, ssl.SSLError) as error:
            names = " or ".join(repr(name) for name in (security.ssl_certfile, security.ssl_keyfile) if name)
            raise ConfigError(
                f"ssl_certfile: {names} cannot be read as certificate chain and matching key: {error}"
            ) from error
    return context


async def start_tls(
    stream: trio.abc.HalfCloseableStream, context: ssl.SSLContext, host: str, address: str
) -> "trio.SSLStream[trio.abc.HalfCloseableStream]":
    """Shake hands with the broker at ``address``; raises `SecurityError` if it or we refuse.

    On cancellation: the stream is unusable; the caller closes it.
    """
    # https_compatible: we close without waiting for the peer's closing alert, as brokers do; Kafka's frames have
    # lengths, so a cut stream is noticed.
    tls = trio.SSLStream(stream, context, server_hostname=host, https_compatible=True)
    try:
        await tls.do_handshake()
    except trio.BrokenResourceError as error:
        refusal = tls_refusal(error, address)
        if refusal is not None:
            raise refusal from error
        raise
    return tls


def tls_refusal(error: BaseException, address: str) -> SecurityError | None:
    """What ``error``, or what caused it, says about TLS; None where it is about something else."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return SecurityError(f"{address}: we do not trust the broker's certificate: {cause.verify_message}")
        if isinstance(cause, ssl.SSLEOFError | ssl.SSLZeroReturnError):
            return None  # a closed connection, with or without a goodbye
        if isinstance(cause, ssl.SSLError):
            return SecurityError(_explain(cause, address))
        cause = cause.__cause__
    return None


def _explain(error: ssl.SSLError, address: str) -> str:
    reason: str = getattr(error, "reason", None) or str(error)
    if reason in ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE"):
        return f"{address}: no TLS is spoken there ({reason}); is it a PLAINTEXT listener?"
    if "ALERT" in reason:
        return f"{address}: the broker refused our TLS connection: {reason}"
    return f"{address}: TLS failed: {reason}"
