"""What a producing process is told: one JSON value as its argument."""

from collections.abc import Mapping

from msgspec import Struct

__all__ = ["RECORD_BYTES", "Spec", "numbered_payload", "payloads"]

#: The value of every record of K1 to K6.
RECORD_BYTES = 300
#: How many different values take turns; a prime, so that it is in step with no number of partitions or tasks.
_VALUES = 997


class Spec(Struct, frozen=True, kw_only=True):
    """One run of one client."""

    client: str
    workload: str
    bootstrap_servers: str
    topic: str
    partitions: int
    warmup_s: float
    measure_s: float
    core: int | None
    """Where the process is pinned; None: nowhere."""
    ca_file: str | None = None
    """Talk TLS, and trust this."""
    profile: str | None = None
    """Run the window under a profiler and write what it found there."""
    sampled: bool = False
    """The profiler is the one of `tests.bench.kafka.sampling`, not cProfile."""
    options: Mapping[str, str | int | float | bool] = {}
    """Of the workload: ``window``, ``batch``, ``tasks``, ``partition`` (``given`` | ``picked``), ``codec``, …"""

    def number(self, name: str, default: int) -> int:
        """An option that is a whole number."""
        return int(self.options.get(name, default))

    def word(self, name: str, default: str) -> str:
        """An option that is a word."""
        return str(self.options.get(name, default))


def payloads(size: int = RECORD_BYTES) -> list[bytes]:
    """Values like those that a tracking library sends: JSON whose names repeat and whose numbers do not.

    The same in every process and run. A generator of its own: `random` may change between Python versions.
    """
    state = 20_240_229
    values = []
    for number in range(_VALUES):
        words = []
        for _ in range(10):
            state = (state * 6_364_136_223_846_793_005 + 1_442_695_040_888_963_407) % 2**64
            words.append(state >> 32)
        head = (
            f'{{"app_id":"11","event":"Signup Step {number % 7}","identity":"user-{words[0]:08x}@example.com",'
            f'"idempotency_key":"{words[1]:08x}{words[2]:08x}","timestamp":"2026-02-17T10:{words[3] % 60:02}:'
            f'{words[4] % 60:02}.{words[5] % 1000:03}Z","properties":{{"plan":"pro","step":"{number % 5}",'
            f'"session":"{words[6]:08x}{words[7]:08x}","referrer":"/pricing?c={words[8]:08x}","note":"'
        )
        tail = '"}}'
        filler = f"{words[9]:08x}" * (size // 8 + 1)
        values.append((head + filler[: size - len(head) - len(tail)] + tail).encode())
    if any(len(value) != size for value in values):
        raise ValueError(f"a record of {size} bytes is too short for the values made here")
    return values


def numbered_payload(number: int) -> bytes:
    """A value that no other record shares: shared ones would cost no memory."""
    return b"%0300d" % number
