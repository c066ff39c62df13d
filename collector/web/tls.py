"""TLS on the listener that faces clients.

Owns: the context, made of ``[http] ssl_*``. Refuses to know: connections.
"""

import ssl

from collector.config import HttpConfig

__all__ = ["make_server_context"]


def make_server_context(http: HttpConfig) -> ssl.SSLContext | None:
    """The context of the listener; None: it speaks cleartext.

    Raises:
        OSError: a file cannot be read, or is no certificate or key; the message names the keys of the configuration.
    """
    if http.ssl_certfile is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # A renegotiation would make a write wait for a read.
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    context.set_alpn_protocols(["h2", "http/1.1"] if http.http2 else ["http/1.1"])
    try:
        context.load_cert_chain(http.ssl_certfile, http.ssl_keyfile, http.ssl_keyfile_password or "")
    except OSError as error:  # ssl.SSLError is one
        raise OSError(
            f"http.ssl_certfile, http.ssl_keyfile: {http.ssl_certfile}, {http.ssl_keyfile or 'the same'}: "
            f"{error.strerror or error}"
        ) from error
    return context
