"""When the replay may act, and how fast it empties the spool.

Owns: the pace, the pauses after failures, the measured rate and what follows from it. Refuses to know: rows, Kafka, the
spool. Nothing here sleeps: the replay does, in one place.
"""

import math
import random
from collections import deque

__all__ = ["Backoff", "Drain", "Pace", "Place"]

#: Rows that came back wait this many times as long as they took: they get a fifth of the time at most.
WAIT_FACTOR = 4.0


class Pace:
    """So many events a second, smoothly: after ``count`` events comes a pause of as long as they take at this pace.

    What was not used is not saved up, but for ``slack_s``: it makes good what a late wake-up lost. And after work that
    took long comes a pause of as long: where disk, loop or brokers are slow, half of the time is for others.
    """

    def __init__(self, events_per_s: float, slack_s: float) -> None:
        self.events_per_s = events_per_s
        self._slack_s = slack_s
        self.next_at = 0.0

    def __repr__(self) -> str:
        return f"<Pace {self.events_per_s:g}/s>"

    def took(self, count: int, now: float, *, share: float = 1.0) -> None:
        """``count`` events go now, at ``share`` (0…1) of the pace."""
        self.next_at = max(self.next_at, now - self._slack_s) + count / (self.events_per_s * share)

    def worked(self, took_s: float, now: float) -> None:
        """What went took so long, and is over now."""
        self.next_at = max(self.next_at, now + took_s)


class Backoff:
    """The pause after tries without progress: full jitter, twice as long at most after each."""

    def __init__(self, least_s: float, most_s: float, rng: random.Random) -> None:
        self._least_s = least_s
        self._most_s = most_s
        self._random = rng
        self._failures = 0
        self.next_at = 0.0

    def __repr__(self) -> str:
        return f"<Backoff after {self._failures} failures>"

    def failed(self, now: float) -> None:
        """A try brought nothing."""
        longest = min(self._most_s, self._least_s * 2.0 ** min(self._failures, 30))
        self._failures += 1
        self.next_at = now + self._random.uniform(0, longest)

    def worked(self) -> None:
        """There is progress, or a reason to expect some."""
        self._failures = 0
        self.next_at = 0.0


class Place:
    """How far the search for rows has come: rows that came back are passed over for a while.

    Those that fail at once, again and again, must not stand before the others. After a stretch of tries without
    progress the search returns to the oldest row when others had `WAIT_FACTOR` times as long, within ``least_s`` and
    ``most_s``.
    """

    def __init__(self, least_s: float, most_s: float) -> None:
        self._least_s = least_s
        self._most_s = most_s
        self._fruitless_s = 0.0
        self._return_at = math.inf
        self.after_id = 0

    def __repr__(self) -> str:
        return f"<Place after {self.after_id}>"

    def look(self, now: float) -> int:
        """After which id to search now."""
        if now >= self._return_at:
            self.return_to_oldest()
        return self.after_id

    def return_to_oldest(self) -> None:
        """Whatever came back may be tried again."""
        self.after_id = 0
        self._fruitless_s = 0.0
        self._return_at = math.inf

    def tried(self, last_id: int, took_s: float, now: float, *, left: int, of: int) -> None:
        """``left`` of so many rows have left the spool; the rest came back, or will."""
        if left < of:
            self.after_id = last_id
        if not left:
            self._fruitless_s += took_s
            self._return_at = math.inf
        elif self.after_id:
            self._end_stretch(now)

    def found_nothing(self, now: float) -> float:
        """There are no more rows; returns when those that were passed over are to be tried."""
        if self.after_id:
            self._end_stretch(now)
        return self._return_at

    def _end_stretch(self, now: float) -> None:
        if self._return_at == math.inf:
            self._return_at = now + min(max(WAIT_FACTOR * self._fruitless_s, self._least_s), self._most_s)
            self._fruitless_s = 0.0


class Drain:
    """How fast the spool becomes empty, from readings over the last ``window_s`` seconds."""

    def __init__(self, window_s: float) -> None:
        self._window_s = window_s
        self._readings: deque[tuple[float, int, int]] = deque()

    def __repr__(self) -> str:
        return f"<Drain of {len(self._readings)} readings>"

    def note(self, now: float, rows: int, delivered: int) -> None:
        """At ``now`` the spool held so many rows, and so many were delivered since the start.

        At most ten readings a window are kept.
        """
        readings = self._readings
        while readings and readings[0][0] < now - self._window_s:
            readings.popleft()
        if len(readings) > 1 and now - readings[-2][0] < self._window_s / 10:
            readings.pop()
        readings.append((now, rows, delivered))

    def events_per_s(self, now: float) -> float:
        """Rows delivered a second."""
        return self._slope(now, 2)

    def time_to_empty_s(self, now: float, rows: int) -> float | None:
        """When the spool will be empty if it goes on like this, new rows included; None while it does not shrink."""
        if rows == 0:
            return 0.0
        shrinks = -self._slope(now, 1)
        return rows / shrinks if shrinks > 0 else None

    def _slope(self, now: float, what: int) -> float:
        recent = [reading for reading in self._readings if reading[0] >= now - self._window_s]
        if len(recent) < 2:
            return 0.0
        return (recent[-1][what] - recent[0][what]) / max(now - recent[0][0], 1e-9)
