"""What the producer goes through, in the log: one line when something changes, none while it stays as it is.

Owns: which broker was heard of last in which state. Refuses to know: everything about Kafka beyond the observer's
words.

Invariant: a broker that is away for an hour costs two lines, not one a try.
"""

from collector.log import get_logger
from kafka_client.observe import OperatorError, ProducerObserver

__all__ = ["ProducerLog"]

log = get_logger("kafka")


class ProducerLog(ProducerObserver):
    """Writes connections, metadata trouble and operator errors to the log."""

    def __init__(self) -> None:
        self._away: set[int] = set()
        self._unasked = False

    def connected(self, broker: int, address: str) -> None:
        self._away.discard(broker)
        log.info("connected to a broker", broker=broker, address=address)

    def disconnected(self, broker: int, address: str, reason: str) -> None:
        if broker not in self._away:
            self._away.add(broker)
            log.warning("a broker is away", broker=broker, address=address, reason=reason)

    def metadata_refreshed(self, brokers: int, topics: int) -> None:
        if self._unasked:
            self._unasked = False
            log.info("the cluster answers again", brokers=brokers, topics=topics)

    def metadata_failed(self, address: str, reason: str) -> None:
        if not self._unasked:
            self._unasked = True
            log.warning("the cluster does not answer", address=address, reason=reason)

    def identity_changed(self, producer_id: int, epoch: int) -> None:
        log.info("producer identity", producer_id=producer_id, epoch=epoch)

    def operator_error(self, error: OperatorError) -> None:
        log.error("Kafka refuses, and somebody has to mend it", error=error.reason, code=error.code, scope=error.scope)

    def operator_error_cleared(self, error: OperatorError) -> None:
        log.info("Kafka takes it again", error=error.name, code=error.code, scope=error.scope)
