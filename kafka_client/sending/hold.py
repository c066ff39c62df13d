"""Operator-level errors: a state of a topic or of the whole producer that people have to mend, never an exception.

Owns: what is wrong, what to do about it, and the pace of one try every ``operator_retry_s``. Refuses to know: which
answers lead here (`kafka_client.sending.decisions`).
"""

from dataclasses import dataclass

__all__ = ["Hold", "OperatorError"]


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorError:
    """One standing error, as `Producer.statistics` shows it."""

    code: int
    """Kafka's error code; 0 where the error is not the broker's (TLS refused, no common version)."""
    name: str
    advice: str
    """What to do, for people."""
    scope: str
    """``producer``, or ``topic <name>``."""
    since: float
    """On Trio's clock."""

    @property
    def reason(self) -> str:
        """As the reason of an outcome."""
        return f"{self.name}: {self.advice}" if self.advice else self.name


class Hold:
    """Stops sealing while an operator-level error stands, but for one try now and then."""

    __slots__ = ("_retry_s", "error", "next_try")

    def __init__(self, retry_s: float) -> None:
        self._retry_s = retry_s
        self.error: OperatorError | None = None
        self.next_try = 0.0

    def set(self, error: OperatorError, now: float) -> bool:
        """Enter the state, or stay in it after a try that failed; True if it is another error than before."""
        before = self.error
        self.next_try = now + self._retry_s
        if before is not None and before.code == error.code and before.advice == error.advice:
            return False
        self.error = error
        return True

    def clear(self) -> bool:
        """Leave the state; True if there was one."""
        cleared, self.error = self.error is not None, None
        return cleared

    def blocks(self, now: float) -> bool:
        """Whether nothing may be sent at this moment."""
        return self.error is not None and now < self.next_try

    def claim(self, now: float) -> None:
        """The one try of this interval is taken."""
        if self.error is not None:
            self.next_try = now + self._retry_s

    def __repr__(self) -> str:
        return "<Hold off>" if self.error is None else f"<Hold {self.error.name}, {self.error.scope}>"
