"""What the producer goes through, in the log: one line when something changes, none while it stays as it is.

Owns: which broker was heard of last in which state. Refuses to know: everything about Kafka beyond the observer's
words.

Invariant: a broker that is away for an hour costs two lines, not one a try.
"""

from collector.log import get_logger
from kafka_client.observe import (
    BrokerConnected,
    BrokerDisconnected,
    IdentityChanged,
    MetadataFailed,
    MetadataRefreshed,
    OperatorError,
    ProducerObserver,
)

__all__ = ["ProducerLog"]

log = get_logger("kafka")


class ProducerLog(ProducerObserver):
    """Writes connections, metadata trouble and operator errors to the log."""

    def __init__(self) -> None:
        self._away: set[int] = set()
        self._unasked = False

    def connected(self, event: BrokerConnected) -> None:
        self._away.discard(event.broker)
        log.info("connected to a broker", broker=event.broker, address=event.address)

    def disconnected(self, event: BrokerDisconnected) -> None:
        if event.idle:
            log.info("an idle connection was closed", broker=event.broker, address=event.address, reason=event.reason)
        elif event.broker not in self._away:
            self._away.add(event.broker)
            log.warning("a broker is away", broker=event.broker, address=event.address, reason=event.reason)

    def metadata_refreshed(self, event: MetadataRefreshed) -> None:
        if self._unasked:
            self._unasked = False
            log.info("the cluster answers again", brokers=event.brokers, topics=event.topics)

    def metadata_failed(self, event: MetadataFailed) -> None:
        if not self._unasked:
            self._unasked = True
            log.warning("the cluster does not answer", address=event.address, reason=event.reason)

    def identity_changed(self, event: IdentityChanged) -> None:
        log.info("producer identity", producer_id=event.producer_id, epoch=event.epoch)

    def operator_error(self, error: OperatorError) -> None:
        log.error("Kafka refuses, and somebody has to mend it", error=error.reason, code=error.code, scope=error.scope)

    def operator_error_cleared(self, error: OperatorError) -> None:
        log.info("Kafka takes it again", error=error.name, code=error.code, scope=error.scope)
