"""A request that was read and is to be served: what to wait for, then what to answer."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from kafka_client.testing.messages import Value
from kafka_client.testing.plan import Plan

__all__ = ["Call"]


@dataclass(frozen=True, slots=True)
class Call:
    """``serve`` takes the fault plan and returns the answer by kio's member names; None for none (acks=0).

    It is called once ``ready`` is true, or after ``wait_s`` at the latest.

    Where ``waiting`` is true after it, the answer is that of ``conclude``, called when ``waiting`` has become false or
    ``conclude_s`` are over: acks=all waits for the replicas.
    """

    serve: Callable[[Plan], Mapping[str, Value] | None]
    ready: Callable[[], bool] | None = None
    wait_s: float = 0.0
    waiting: Callable[[], bool] | None = None
    conclude_s: float = 0.0
    conclude: Callable[[Plan], Mapping[str, Value]] | None = None
