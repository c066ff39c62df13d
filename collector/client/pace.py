"""How long to wait before trying again.

Full jitter on a doubling bound, and never less than the server asked for (Retry-After): after an outage all clients
come back, and what brings it down again is that they come back in step.
Source: https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/
"""

import email.utils
import random
import time

__all__ = ["pause_s", "retry_after_s"]

FIRST_S = 0.1
HIGHEST_S = 10.0
RETRY_AFTER_HIGHEST_S = 300.0
"""A server that asks for more is not believed. Source: segment-analytics-python caps at the same."""


def pause_s(attempt: int, asked_s: float | None, rng: random.Random) -> float:
    """Seconds to wait after the ``attempt``-th failure in a row (from 1), at least what the server asked for."""
    bound = min(HIGHEST_S, FIRST_S * 2.0 ** min(attempt - 1, 20))
    jitter = rng.uniform(0, bound)
    return jitter if asked_s is None else asked_s + min(jitter, 1.0)


def retry_after_s(value: str | None) -> float | None:
    """The header's seconds, 0…300; a date is taken relative to this clock; None where it says nothing."""
    if value is None:
        return None
    text = value.strip()
    try:
        seconds = float(text)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(text).timestamp() - time.time()
        except ValueError:
            return None
    return min(max(seconds, 0.0), RETRY_AFTER_HIGHEST_S)
