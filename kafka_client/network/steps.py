"""What an exchange with a broker waits for: protocols are generators, and waiting is their driver's.

Owns: the two things that such a generator may yield. Refuses to know: who waits, and how: before a connection has a
reader it is `kafka_client.network.establish`, afterwards `kafka_client.network.reauthenticate`.
"""

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import TypeAlias, TypeVar

from kafka_client.wire.primitives import Buffer

__all__ = ["Exchange", "Step", "Work"]

ResultT = TypeVar("ResultT")


@dataclass(frozen=True, slots=True)
class Step:
    """One request to write; the generator is then sent the body of its answer."""

    api_key: int
    version: int
    body: bytes

    def __repr__(self) -> str:
        return f"<Step api {self.api_key} v{self.version}, {len(self.body)} bytes>"  # the body may hold a secret


@dataclass(frozen=True, slots=True)
class Work:
    """A calculation too long for the event loop; the generator is then sent its result."""

    run: Callable[[], bytes]

    def __repr__(self) -> str:
        return "<Work>"


#: Yields what it waits for, is sent the answer, returns what was settled.
Exchange: TypeAlias = Generator[Step | Work, Buffer, ResultT]
