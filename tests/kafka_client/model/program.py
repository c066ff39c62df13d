"""Programs: what the model-based test does to a producer and its cluster, as values that print and replay.

Owns: the vocabulary of steps. Refuses to know: how programs are made (`generators`), how a step is carried out (`play`)
and what must hold (`books`).

A program is generated whole, before anything runs, and played in one `trio.run` on virtual time. A state machine whose
rules each step a Trio loop would need a guest run or a greenlet under Hypothesis' synchronous rules, and would not
shrink better: steps name deliveries, topics and brokers by number modulo what there is, so that any subsequence of a
program is a program, and shrinking is dropping steps and making numbers smaller.
"""

import dataclasses
import math
import re
from dataclasses import dataclass

__all__ = [
    "Answer",
    "Broker",
    "Deliver",
    "Disturb",
    "Limit",
    "Move",
    "Program",
    "Refuse",
    "Replicas",
    "Rest",
    "Setup",
    "Step",
    "Topic",
    "Withdraw",
    "math",
]


class _Shown:
    """Shows what differs from the defaults, as the call that makes it."""

    def __repr__(self) -> str:
        shown = []
        for field in dataclasses.fields(self):  # type: ignore[arg-type]
            value = getattr(self, field.name)
            if value != field.default:
                shown.append(f"{field.name}={value!r}")
        return re.sub(r"\binf\b", "math.inf", f"{type(self).__name__}({', '.join(shown)})")


@dataclass(frozen=True, repr=False)
class Step(_Shown):
    """One step; ``then_s`` passes before the next."""

    then_s: float = 0.0


@dataclass(frozen=True, repr=False)
class Rest(Step):
    """Nothing but time."""


@dataclass(frozen=True, repr=False)
class Deliver(Step):
    """One call of ``delivery()`` and a task that waits. Record i takes the i-th of each tuple, from the start again."""

    count: int = 1
    topics: tuple[int, ...] = (0,)
    routes: tuple[str | int, ...] = (0,)
    """A partition, "k0"… a key, or "sticky"."""
    sizes: tuple[int, ...] = (1,)
    stamps: tuple[int | None, ...] = (None,)
    """Milliseconds before the wall clock, or the producer's own."""
    wait_s: float = math.inf
    """The deadline of the caller's scope; at its end the block is left, which withdraws."""
    again_s: float = 0.0
    """After the deadline the block is not left at once: wait once more for so long."""
    leave_on: str = ""
    """Cancel the waiting when the first batch is "sealed", or just before ("answer") or after ("answered") the
    producer reads an answer that has one of the records, in the same tick."""
    withdraw: tuple[int, ...] = ()
    """These records are taken back after ``withdraw_s``."""
    withdraw_s: float = 0.0
    resolve_s: float = -1.0
    """When ``on_resolved`` is registered, counted from the block's end; negative: at the call."""
    resend: str = ""
    """"after": what was not delivered is sent again after the block; "inside": within ``on_resolved``; "others": within
    ``on_resolved`` the latest deliveries are taken back."""
    by: str = "delivery"
    """Or "send", "send_many"."""


@dataclass(frozen=True, repr=False)
class Withdraw(Step):
    """Take a delivery back from outside its block."""

    delivery: int = 0


@dataclass(frozen=True, repr=False)
class Answer(Step):
    """Answer Produce with an error code, before or after the append."""

    code: int = 5
    append: bool = False
    topic: int = 0
    partition: int | None = None
    times: int = 1
    skip: int = 0
    """So many requests pass before."""
    base_offset: int | None = None
    hint: str = ""
    """Name a leader (KIP-951): "true", "old"."""
    named: tuple[int, ...] = ()
    """Positions of records that the broker blames (KIP-467)."""
    log_start: bool = False
    """Tell the log's start beside the error, as a broker that forgot a producer does."""


@dataclass(frozen=True, repr=False)
class Disturb(Step):
    """Something happens to the connection that carries an answer, or to the answer."""

    how: str = "drop_answer"
    amount: float = 0.0
    times: int = 1
    skip: int = 0
    partition: int | None = None
    for_s: float = 0.1
    where: str = "network"


@dataclass(frozen=True, repr=False)
class Broker(Step):
    """Something happens to a broker, for so long; "join" and "leave" are for good."""

    how: str = "stop"
    broker: int = 0
    for_s: float = 0.1
    amount: int = 0


@dataclass(frozen=True, repr=False)
class Move(Step):
    """Another leader, or none for a while; metadata may tell of it later."""

    topic: int = 0
    partition: int = 0
    leader: int = 0
    nobody_s: float = 0.0
    stale_s: float = 0.0


@dataclass(frozen=True, repr=False)
class Replicas(Step):
    """Something happens to the replicas of a partition, for so long: "hold", they stand still; "shrink", only the
    leader is in sync; "lose", they stand still and then one of them takes over without what it never got; "expire", the
    producers are forgotten."""

    how: str = "hold"
    topic: int = 0
    partition: int = 0
    leader: int = 0
    for_s: float = 0.1


@dataclass(frozen=True, repr=False)
class Topic(Step):
    """Something happens to a topic."""

    how: str = "grow"
    topic: int = 0
    partitions: int = 1
    for_s: float = 0.0


@dataclass(frozen=True, repr=False)
class Refuse(Step):
    """Metadata or InitProducerId is answered with an error, dropped, or without what it should hold."""

    api: str = "METADATA"
    how: str = "fail"
    code: int = 5
    times: int = 1


@dataclass(frozen=True, repr=False)
class Limit(Step):
    """max.message.bytes is lowered for a while."""

    size_bytes: int = 400
    for_s: float = 1.0


@dataclass(frozen=True, repr=False)
class Setup(_Shown):
    """The cluster and the configuration. Sizes in bytes."""

    seed: int = 0
    brokers: int = 1
    partitions: tuple[int, ...] = (1,)
    """Of each topic."""
    timeouts: tuple[float, float, float, float] = (10.0, 30.0, 120.0, math.inf)
    """Of Produce at the broker, of a request, of a delivery, of a batch."""
    linger_s: float = 0.002
    batch: int = 20_000
    record: int = 10_000
    request: int = 100_000
    queue: int = 10**6
    waiting: int = 10**6
    in_flight: int = 10**6
    in_flight_per_partition: int = 10**6
    pipelined: int = 5
    compression: str = "none"
    first_epoch: int = 0
    first_sequence: int = 0
    max_age_s: float = 60.0
    versions: str = "4.1"
    """Or "names": Produce up to 12, where topics have no ids."""


@dataclass(frozen=True, repr=False)
class Program(_Shown):
    """All of it."""

    setup: Setup = Setup()
    steps: tuple[Step, ...] = ()
    ending: str = "settle"
    """"settle": everything is healed and has to come to rest; "close": as it is, with ``grace_s``; "cancel", "raise":
    the block is left so."""
    grace_s: float = 1.0

    def __repr__(self) -> str:
        steps = "".join(f"        {step!r},\n" for step in self.steps)
        return (
            f"Program(\n    setup={self.setup!r},\n    steps=(\n{steps}    ),\n"
            f"    ending={self.ending!r},\n    grace_s={self.grace_s!r},\n)"
        )
