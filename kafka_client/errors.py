"""The library's exceptions: whose fault it is, and what to do next.

    KafkaError
     ├── ConfigError            the caller's: a value that cannot work; raised before anything starts
     ├── NotSentError           one record, proved absent from the log (`send()`); may be sent again
     ├── UnknownOutcomeError    one record, may be in the log (`send()`); sending again may duplicate
     ├── ConnectionLost         the network's or the broker's: this connection is gone; retriable elsewhere or later
     ├── ProtocolError          the peer's bytes are not what the protocol says; the connection is given up
     ├── SecurityError          TLS or SASL refused, by whom and why; an operator's to mend, retried slowly
     └── BrokerError            an error code in an answer (admin calls only; the producer turns codes into outcomes)

Nothing here is raised by `Delivery.wait()`: a record's end is an outcome, not an exception.
"""

__all__ = [
    "BrokerError",
    "ConfigError",
    "ConnectionLost",
    "KafkaError",
    "NotSentError",
    "ProtocolError",
    "SecurityError",
    "UnknownOutcomeError",
]


class KafkaError(Exception):
    """Base of everything that kafka_client raises on purpose."""


class ConfigError(KafkaError, ValueError):
    """A configuration value that cannot work. The message starts with the field's name; correct it."""


class NotSentError(KafkaError):
    """The record is proved not to be in the log: it may be sent again. ``reason`` as in `NotSent`."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class UnknownOutcomeError(KafkaError):
    """The record may be in the log: sending it again may duplicate it. ``reason`` as in `Unknown`."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class ConnectionLost(KafkaError):
    """The connection to one broker ended: refused, reset, closed by the peer, or silent for too long.

    The first cause is chained (`__cause__`). Retriable: on another broker, or on this one after a pause.
    """


class ProtocolError(ConnectionLost):
    """The peer sent bytes that do not parse as the protocol says. The connection is given up, the process is not."""


class SecurityError(ConnectionLost):
    """TLS or SASL was refused. The message says by whom and why; retrying at once would not help.

    ``code`` is Kafka's error code (58, 33, 34), 0 where the refusal is not the broker's answer.
    """

    def __init__(self, message: str, *, code: int = 0) -> None:
        super().__init__(message)
        self.code = code


class BrokerError(KafkaError):
    """An error code in the answer to an admin call.

    ``code`` is the number, ``name`` the protocol's name of it (``TOPIC_ALREADY_EXISTS``), ``retriable`` the protocol's
    own bit.
    """

    def __init__(self, code: int, name: str, message: str, *, retriable: bool) -> None:
        super().__init__(f"{name} ({code}): {message}" if message else f"{name} ({code})")
        self.code = code
        self.name = name
        self.retriable = retriable
