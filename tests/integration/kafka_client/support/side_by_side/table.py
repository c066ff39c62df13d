"""The table: scenarios register themselves, the test runs each against both sides."""

from collections.abc import Awaitable, Callable
from typing import Any

from .target import Target

Scenario = Callable[[Target], Awaitable[Any]]
SCENARIOS: dict[str, Scenario] = {}
#: Scenario → why the fake answers otherwise than Kafka, on purpose; the test asserts that it still does.
ON_PURPOSE: dict[str, str] = {}


def scenario(function: Scenario) -> Scenario:
    """Put it into the table; what it returns must be the same on both sides."""
    SCENARIOS[function.__name__] = function
    return function


def differs_on_purpose(reason: str) -> Callable[[Scenario], Scenario]:
    """Put it into the table; what it returns is different on the two sides, for this reason."""

    def register(function: Scenario) -> Scenario:
        ON_PURPOSE[function.__name__] = reason
        return scenario(function)

    return register
