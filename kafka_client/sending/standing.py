"""Errors that stand until people mend them: of topics, of the producer, of connections that were refused.

Owns: which of them stand, and telling the observer of their beginning and end. Refuses to know: which answers lead here
(`kafka_client.sending.decisions`), and when the next try is due (`Hold`).

Invariant: an error is told once when it begins and once when it is over, however often it is found again meanwhile.
"""

from collections.abc import Callable

import trio

from kafka_client.config import ProducerConfig
from kafka_client.errors import SecurityError
from kafka_client.observe import ProducerObserver
from kafka_client.wire.error_codes import ErrorRow
from kafka_client.wire.error_names import error_name

from .hold import Hold, OperatorError
from .office import TopicView

__all__ = ["CLUSTER", "StandingErrors"]

#: The key of the refresher among the connections that were refused.
CLUSTER = -1


class StandingErrors:
    """What is wrong for longer."""

    def __init__(self, config: ProducerConfig, observer: ProducerObserver, on_cleared: Callable[[], None]) -> None:
        """Args:
        on_cleared: called when one is over: what it held up may go on.
        """
        self.hold = Hold(config.operator_retry_s)
        """The producer's."""
        self.refused: dict[int, OperatorError] = {}
        """By broker: connections refused by TLS or SASL, or for want of a common version."""
        self._worn: dict[int, OperatorError] = {}
        """By broker: certificate files that cannot be used, while what was read before still works."""
        self._observer = observer
        self._on_cleared = on_cleared

    def topic_error(self, topic: TopicView, row: ErrorRow, detail: str, now: float) -> None:
        """An operator-level error of a topic."""
        scope = f"topic {topic.name}"
        error = OperatorError(code=row.code, name=row.name, advice=detail or row.advice, scope=scope, since=now)
        if topic.hold.set(error, now):
            self._observer.operator_error(error)

    def producer_error(self, row: ErrorRow, detail: str, now: float) -> None:
        """An operator-level error of everything."""
        advice = detail or row.advice
        error = OperatorError(code=row.code, name=row.name, advice=advice, scope="producer", since=now)
        if self.hold.set(error, now):
            self._observer.operator_error(error)

    def topic_works(self, topic: TopicView) -> None:
        """A batch of the topic was acknowledged: whatever stood against it or the producer is over."""
        self.clear(topic.hold)
        self.clear(self.hold)

    def clear(self, hold: Hold) -> None:
        """What stood there is over."""
        error = hold.error
        if error is not None:
            hold.clear()
            self._observer.operator_error_cleared(error)
            self._on_cleared()

    def connection_works(self, broker: int, warning: str = "") -> None:
        """A connection was opened; ``warning`` says what an operator should mend all the same."""
        self._over(self.refused, broker)
        if warning:
            self._stands(self._worn, broker, 0, "CERTIFICATE_FILES", warning)
        else:
            self._over(self._worn, broker)

    def connection_refused(self, broker: int, name: str, reason: str, *, code: int = 0) -> None:
        """TLS or SASL was refused, or there is no common version: an operator's to mend."""
        self._stands(self.refused, broker, code, name, reason)

    def security_refused(self, broker: int, error: SecurityError) -> None:
        """TLS or SASL was refused; by Kafka's name of the code where the broker gave one."""
        name = error_name(error.code) if error.code else "SECURITY"
        self.connection_refused(broker, name, str(error), code=error.code)

    def _stands(self, errors: dict[int, OperatorError], broker: int, code: int, name: str, advice: str) -> None:
        before = errors.get(broker)
        if before is not None and before.advice == advice:
            return
        scope = "producer" if broker == CLUSTER else f"broker {broker}"
        error = OperatorError(code=code, name=name, advice=advice, scope=scope, since=trio.current_time())
        errors[broker] = error
        self._observer.operator_error(error)

    def _over(self, errors: dict[int, OperatorError], broker: int) -> None:
        error = errors.pop(broker, None)
        if error is not None:
            self._observer.operator_error_cleared(error)

    def errors(self) -> list[OperatorError]:
        """Those of the producer and of its connections."""
        return [*self._stopping(), *self._worn.values()]

    def _stopping(self) -> list[OperatorError]:
        return [error for error in (self.hold.error, *self.refused.values()) if error is not None]

    def reason(self) -> str | None:
        """The reason of outcomes while one of them stands."""
        for error in self._stopping():
            return error.reason
        return None

    def reason_for(self, topic: TopicView) -> str | None:
        """As `reason`; the topic's own comes first."""
        return topic.hold.error.reason if topic.hold.error is not None else self.reason()

    def __repr__(self) -> str:
        return f"<StandingErrors {', '.join(error.reason for error in self.errors()) or 'none'}>"
