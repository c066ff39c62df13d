"""What a websocket client is still to be told: acknowledgements, credit, errors.

Owns: which ids are settled, ``upto``, the credit account of one session. Refuses to know: how frames are sent, what a
message was.

Theory. Ids grow by one, so "all up to N" says most with one small frame. `_low` is the last id below which nothing is
open. Ids settled well above it wait for it to move; where it does not (one partition is slow), they are named one by
one after `NAMED_AFTER_S`. Credit comes back when a message settles, however it settles; both are gathered until the
session's writer takes them, so a burst that one Kafka answer settles costs one ``ack`` and one ``credit``.

Invariants: every id gets exactly one answer, by name or by ``upto``; hello's credit plus all credit sent less the size
of all track frames is what the client may still send, so busy frames are given back too.
"""

from collections.abc import Mapping
from math import inf

import trio

from collector.ingest.verdict import Status
from collector.web.websocket.frames import ServerFrame

__all__ = ["Outbox"]

#: How long an id that is settled well waits for ``upto`` to reach it before it is named.
NAMED_AFTER_S = 0.05

#: Frames that may wait for a client that does not read; then its own messages wait too.
MAX_NAMED = 4096


class Outbox:
    """The answers of one session that are not sent yet."""

    def __init__(self) -> None:
        self._low = 0
        self._said_upto = 0
        self._above: dict[int, tuple[Status, float] | None] = {}
        """Settled ids above ``_low``: (status, since) for a good one still to be answered, None for a named one."""
        self._good_below = 0
        """The highest id at or below ``_low`` that only ``upto`` answers."""
        self._frames: list[ServerFrame] = []
        self._credit_bytes = 0
        self._something = trio.Event()
        self._watched = False
        """Somebody waits for the time at which the first of ``_above`` is to be named."""
        self._room = trio.Event()
        self._narrow = False

    def __repr__(self) -> str:
        return f"<Outbox upto={self._low}, {len(self._above)} above, {len(self._frames)} frames>"

    def settled(self, id_: int, size_bytes: int, status: Status, now: float) -> None:
        """A message ended well (delivered or spooled), at ``now`` on Trio's clock."""
        self._credit_bytes += size_bytes
        if id_ == self._low + 1 and not self._above:
            self._low = self._good_below = id_
        else:
            self._above[id_] = (status, now)
            self._advance()

    def named(self, id_: int, size_bytes: int, status: str, members: Mapping[str, object]) -> None:
        """A message ended otherwise, and is answered by name: ``code``, ``message``, ``counts``."""
        self._credit_bytes += size_bytes
        self._frames.append({"op": "ack", "id": id_, "status": status, **members})
        self._above[id_] = None
        self._advance()

    def say(self, frame: ServerFrame) -> None:
        """Another frame, in order with the acknowledgements."""
        self._frames.append(frame)

    def wake(self) -> None:
        """Let who waits in `wait_something` look again."""
        self._something.set()

    @property
    def due(self) -> bool:
        """Whether an id that is settled well waits for ``upto`` to reach it, and nobody waits to name it in time."""
        return bool(self._above) and not self._watched and self._since() < inf

    def _since(self) -> float:
        """When the first of those was settled."""
        return next((good[1] for good in self._above.values() if good is not None), inf)

    def _advance(self) -> None:
        while self._low + 1 in self._above:
            self._low += 1
            if self._above.pop(self._low) is not None:
                self._good_below = self._low

    def take_usual(self) -> tuple[bytes, bytes] | None:
        """As `take`, where it is ``upto`` and credit alone: what these say in JSON. None: `take` it is."""
        if self._frames or self._above or self._good_below <= self._said_upto:
            return None
        self._said_upto = upto = self._low
        credit, self._credit_bytes = self._credit_bytes, 0
        return b'{"op":"ack","upto":%d}' % upto, b'{"op":"credit","bytes":%d}' % credit

    @property
    def empty(self) -> bool:
        """Whether `take` has nothing to give and will have nothing by itself."""
        return not (self._frames or self._credit_bytes or self._above)

    @property
    def crowded(self) -> bool:
        """Whether there is something to wait for in `wait_room`."""
        return len(self._frames) > MAX_NAMED

    def take(self, *, everything: bool = False) -> list[ServerFrame]:
        """What is to be sent now; ``everything``: no id waits for ``upto`` any more."""
        frames, self._frames = self._frames, []
        if self._above:
            now = trio.current_time()
            for id_, good in self._above.items():
                if good is not None and (everything or now - good[1] >= NAMED_AFTER_S):
                    frames.append({"op": "ack", "id": id_, "status": good[0].word})
                    self._above[id_] = None
        if self._good_below > self._said_upto:
            self._said_upto = self._low
            frames.append({"op": "ack", "upto": self._low})
        if self._credit_bytes:
            frames.append({"op": "credit", "bytes": self._credit_bytes})
            self._credit_bytes = 0
        if self._narrow:
            self._narrow = False
            self._room.set()
        return frames

    async def wait_something(self) -> None:
        """Wait until `wake`, or until `take` has an id to name.

        On cancellation: nothing has changed.
        """
        since = self._since()
        self._watched = since < inf
        with trio.move_on_at(since + NAMED_AFTER_S):
            await self._something.wait()
        self._watched = False
        self._something = trio.Event()

    async def wait_room(self) -> None:  # noqa: ASYNC910  # receive() follows
        """Wait while `MAX_NAMED` frames wait for a client that does not read.

        On cancellation: nothing has changed.
        """
        while self.crowded:
            self._narrow, self._room = True, trio.Event()
            await self._room.wait()
