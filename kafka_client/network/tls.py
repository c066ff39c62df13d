"""TLS on top of a byte stream.

Owns: the context made from `SecurityConfig`, the handshake, and the words for what went wrong. Refuses to know: Kafka,
and how the bytes below travel.

Invariant: a renewed certificate is used by the next connection, without a restart; and files that do not fit together,
as while they are being replaced, do not take away what worked before.

Non-obvious: with TLS 1.3 the client's handshake ends before the server has looked at the client's certificate, so a
refusal arrives with the first read. `tls_refusal` finds it in whatever that read raised.
"""

import ssl
from pathlib import Path
from typing import TypeAlias

import trio

from kafka_client.config import SecurityConfig
from kafka_client.errors import ConfigError, SecurityError

__all__ = ["TlsContext", "make_ssl_context", "start_tls", "tls_refusal"]

#: OpenSSL's PEM_BUFSIZE.
_KEY_PASSWORD_MAX_BYTES = 1024

#: (inode, size, modification time in ns) of each file; None for one that is not there.
_Stamps: TypeAlias = tuple[tuple[int, int, int] | None, ...]


class TlsContext:
    """The context of one `SecurityConfig`, made again when its files have changed.

    Reading the system's authorities takes 10 ms and more, so not for each connection.
    """

    __slots__ = ("_context", "_stamps")

    def __init__(self) -> None:
        self._context: ssl.SSLContext | None = None
        self._stamps: _Stamps = ()

    def current(self, security: SecurityConfig) -> tuple[ssl.SSLContext, str]:
        """The context of now, and what is wrong with newer files; empty if nothing is.

        Raises:
            ConfigError: the files cannot be used, and never could.
        """
        stamps = _stamps(security)
        if self._context is not None and stamps == self._stamps:
            return self._context, ""
        try:
            made = make_ssl_context(security)
        except ConfigError as error:
            if self._context is None:
                raise
            return self._context, f"{error}; what was there before is still used"
        self._context, self._stamps = made, stamps
        return made, ""

    def __repr__(self) -> str:
        return f"<TlsContext {'made' if self._context is not None else 'not made'}>"


def _stamps(security: SecurityConfig) -> _Stamps:
    stamps: list[tuple[int, int, int] | None] = []
    for name in (security.ssl_cafile, security.ssl_certfile, security.ssl_keyfile):
        try:
            found = None if name is None else Path(name).stat()
        except (OSError, ValueError):  # ValueError: a path with NUL
            found = None
        stamps.append(None if found is None else (found.st_ino, found.st_size, found.st_mtime_ns))
    return tuple(stamps)


def make_ssl_context(security: SecurityConfig) -> ssl.SSLContext:
    """Read the PEM files that ``security`` names; raises `ConfigError` that starts with the field's name."""
    try:
        context = ssl.create_default_context(cafile=security.ssl_cafile)
    except (OSError, ValueError) as error:
        raise ConfigError(f"ssl_cafile: {security.ssl_cafile!r} cannot be read as PEM certificates: {error}") from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.check_hostname = security.ssl_check_hostname
    if security.ssl_certfile is not None:
        # A function, since OpenSSL would otherwise ask for a missing password on the terminal.
        password = security.ssl_keyfile_password or ""
        _check_password(password)
        try:
            context.load_cert_chain(security.ssl_certfile, security.ssl_keyfile, lambda: password)
        except (OSError, ValueError) as error:
            names = " or ".join(repr(name) for name in (security.ssl_certfile, security.ssl_keyfile) if name)
            raise ConfigError(
                f"ssl_certfile: {names} cannot be read as certificate chain and matching key: {error}"
            ) from error
    return context


def _check_password(password: str) -> None:
    """What OpenSSL's binding would refuse with an error that shows it, or with one of another kind."""
    try:
        size = len(password.encode())
    except UnicodeEncodeError:
        size = -1
    if not 0 <= size <= _KEY_PASSWORD_MAX_BYTES:
        raise ConfigError(
            f"ssl_certfile: ssl_keyfile_password is longer than {_KEY_PASSWORD_MAX_BYTES} bytes, or no text that UTF-8 "
            "can spell"
        )


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
            return SecurityError(f"{address}: we do not trust the broker's certificate: {_explain_distrust(cause)}")
        if isinstance(cause, ssl.SSLEOFError | ssl.SSLZeroReturnError):
            return None  # a closed connection, with or without a goodbye
        if isinstance(cause, ssl.SSLError):
            return SecurityError(_explain(cause, address))
        cause = cause.__cause__
    return None


#: OpenSSL's X509_V_ERR_…, and what to look at.
_DISTRUST = {
    9: "look at the broker's clock and ours",
    10: "the broker, or the authority that ssl_cafile names, needs a new certificate",
    18: "name it in ssl_cafile if it is meant",
    19: "does ssl_cafile name the authority that issued it?",
    20: "does ssl_cafile name the authority that issued it?",
    62: "is the name in bootstrap_servers and advertised.listeners one of those in the certificate?",
    64: "is the name in bootstrap_servers and advertised.listeners one of those in the certificate?",
}


def _explain_distrust(error: ssl.SSLCertVerificationError) -> str:
    advice = _DISTRUST.get(error.verify_code, "")
    message: str = error.verify_message
    return f"{message}; {advice}" if advice else message


def _explain(error: ssl.SSLError, address: str) -> str:
    reason: str = getattr(error, "reason", None) or str(error)
    if reason in ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE"):
        return f"{address}: no TLS is spoken there ({reason}); is it a PLAINTEXT listener?"
    if "ALERT" in reason:
        return f"{address}: the broker refused our TLS connection: {reason}"
    return f"{address}: TLS failed: {reason}"
