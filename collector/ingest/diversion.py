"""Which partitions get no events at the moment: those that Kafka does not take now (design rule 5).

Owns: the rule, how often it is looked at, where events without a key go meanwhile, the counts. Refuses to know: the
spool, requests, how a partition came to stand still.

Theory. A partition is *diverted* while its leader is unknown or an operator-level error stands against it, or while its
oldest unresolved record or batch, detached ones included, is older than ``stall_s``. It returns after a Produce answer
that came when none of this held any more: a connection proves nothing, since a stopped process still accepts, and a
partition with nothing unresolved is not proved to be well by that. So once diverted it stays so until the detached
batch in retry is answered, or, where there is none, a *probe*: a row of the spool, never an event of a client who
waits. A topic whose partitions are unknown for ``stall_s``, from the start on, is diverted as a whole.

A leader that leaves a partition stalled and has answered nobody for ``stall_s`` is *silent*: whatever else it leads is
diverted with it, until it answers anybody. Else the first event for each of its quiet partitions would be a probe.

Everything follows from `Producer.partition_health` but one moment for each diverted partition: when it was last seen
ill. An answer counts if it is younger.

Non-obvious: there is no task. Whoever asks has it evaluated, at most every `LOOK_S`; if nobody asks, nobody is sent
anywhere, and nothing is missed.
"""

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias

import trio

from collector.log import get_logger
from kafka_client.observe import PartitionHealth

__all__ = ["Diversion", "DiversionStatistics", "DivertedPartition", "HealthLike", "Why"]

log = get_logger("diversion")

#: How old an evaluation may be: twelve partitions cost 10 µs, and 20 ms are little beside ``stall_s``.
LOOK_S = 0.02

#: Events without a key stay on one partition for so long while others are diverted: larger batches are cheaper.
STICKY_S = 0.1

#: Beginning and end of a diversion are logged at most this often: a slow broker makes one every two seconds.
LOG_S = 10.0

Why: TypeAlias = Literal["operator_error", "no_leader", "stalled", "leader_silent", "unanswered", "no_metadata"]


class HealthLike(Protocol):
    """What this needs of `kafka_client.Producer`."""

    def partition_health(self, topic: str) -> Sequence[PartitionHealth] | None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class DivertedPartition:
    """One partition that gets no events now."""

    topic: str
    partition: int
    """-1: all of a topic whose partitions are unknown."""
    why: Why
    """``unanswered``: it is well again as far as can be seen; an answer is missing that proves it."""
    since_s: float
    """For how long."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DiversionStatistics:
    """One reading."""

    diverted_partitions: int
    unprobed_partitions: int
    """Of these, the ones that nothing unresolved is under way to."""
    diversions_total: int
    """Partitions that became diverted."""
    diverted_seconds_total: float
    """Of all partitions together."""
    partitions: tuple[DivertedPartition, ...]


@dataclass(slots=True)
class _Ill:
    since: float
    seen_ill_at: float
    why: Why
    leader: int | None = None
    """The silent one."""


#: The place of a topic whose partitions are unknown, in `_Topic.ill`.
_ALL = -1


class _Topic:
    """The diverted partitions of one topic."""

    __slots__ = ("_rng", "count", "diverted", "due", "ill", "name", "probes", "sticky", "sticky_until", "unknown_since")

    def __init__(self, name: str, rng: random.Random) -> None:
        self.name = name
        self.count = 0
        self.ill: dict[int, _Ill] = {}
        self.diverted: frozenset[int] = frozenset()
        self.probes: frozenset[int] = frozenset()
        self.due = -1.0
        self.unknown_since: float | None = None
        self.sticky = 0
        self.sticky_until = -1.0
        self._rng = rng

    def look(self, health: Sequence[PartitionHealth] | None, now: float, stall_s: float) -> None:
        """Bring `diverted` and `probes` up to what is known now."""
        if health is None:
            self.count = 0
            if self.unknown_since is None:
                self.unknown_since = now
            if now - self.unknown_since > stall_s:
                self._seen_ill(_ALL, "no_metadata", now)
            self.diverted = self.probes = frozenset()
            return
        self.unknown_since = None
        self.count = len(health)
        whole = self.ill.pop(_ALL, None)
        if whole is not None:
            self.ill = {index: _Ill(whole.since, whole.seen_ill_at, "unanswered") for index in range(self.count)}
        found = [_illness(one, now, stall_s) for one in health]
        for index, (one, why) in enumerate(zip(health, found, strict=True)):
            before = self.ill.get(index)
            if why is not None:
                self._seen_ill(index, why, now)
            elif before is not None and before.why != "leader_silent":
                before.why = "unanswered"
                if one.answered_at is not None and one.answered_at >= before.seen_ill_at:
                    del self.ill[index]
        for index in [index for index in self.ill if index >= self.count]:
            del self.ill[index]
        if "stalled" in found or self.ill:
            self._look_at_leaders(health, found, now - stall_s, now)
        self.diverted = frozenset(self.ill)
        self.probes = frozenset(self._unprobed(health)) if self.ill else self.diverted

    def _look_at_leaders(
        self, health: Sequence[PartitionHealth], found: Sequence[Why | None], lately: float, now: float
    ) -> None:
        """Divert the quiet partitions of leaders that are silent, and take back those of leaders that are not."""
        answered: dict[int | None, float] = {}
        for one in health:
            if one.answered_at is not None:
                answered[one.leader] = max(one.answered_at, answered.get(one.leader, one.answered_at))
        for index, ill in list(self.ill.items()):
            leader = health[index].leader
            if ill.why == "leader_silent" and (leader != ill.leader or answered.get(leader, -1.0) >= ill.since):
                del self.ill[index]
        stalled = {one.leader for one, why in zip(health, found, strict=True) if why == "stalled"}
        silent = {leader for leader in stalled if answered.get(leader, -1.0) < lately}
        for index, one in enumerate(health):
            if one.leader in silent and index not in self.ill:
                self.ill[index] = _Ill(now, now, "leader_silent", one.leader)

    def _unprobed(self, health: Sequence[PartitionHealth]) -> Iterator[int]:
        """The quiet partitions of a silent leader return with any other of it, which has the probe."""
        probed = {health[index].leader for index, ill in self.ill.items() if ill.why != "leader_silent"}
        for index, ill in self.ill.items():
            waits = ill.why == "leader_silent" and health[index].leader in probed
            if health[index].oldest_at is None and not waits:
                yield index

    def _seen_ill(self, index: int, why: Why, now: float) -> None:
        before = self.ill.get(index)
        if before is None:
            self.ill[index] = _Ill(now, now, why)
        else:
            before.seen_ill_at = now
            before.why = why

    def ill_for_people(self) -> dict[str, object]:
        """Which ones, for the log."""
        if _ALL in self.ill:
            return {"partitions": "all: the topic's partitions are unknown"}
        return {"partitions": sorted(self.ill), "of": self.count}

    def healthy(self, now: float) -> int | None:
        """A partition that is not diverted, the same for a while; None: there is none."""
        if now < self.sticky_until and self.sticky < self.count and self.sticky not in self.ill:
            return self.sticky
        well = [index for index in range(self.count) if index not in self.ill]
        if not well:
            return None
        self.sticky = self._rng.choice(well)
        self.sticky_until = now + STICKY_S
        return self.sticky


def _illness(health: PartitionHealth, now: float, stall_s: float) -> Why | None:
    if health.operator_error:
        return "operator_error"
    if health.leader is None:
        return "no_leader"
    if health.oldest_at is not None and now - health.oldest_at > stall_s:
        return "stalled"
    return None


class Diversion:
    """Of one process.

    Args:
        topic: Where events go; the producer has been asked for it.
        stall_s: How long a partition may leave a record unresolved.
        usable: Whether there is somewhere to go instead; asked at each evaluation.
        lag_s: How late the loop is: an answer waits for two of its turns, and that is not Kafka's doing.
    """

    def __init__(
        self,
        producer: HealthLike,
        *,
        topic: str,
        stall_s: float,
        usable: Callable[[], bool] = lambda: True,
        lag_s: Callable[[], float] = lambda: 0.0,
        rng: random.Random | None = None,
    ) -> None:
        self._producer = producer
        self._stall_s = stall_s
        self._usable = usable
        self._lag_s = lag_s
        self._random = rng or random.Random()
        self._clock = trio.lowlevel.current_clock().current_time
        self._events = _Topic(topic, self._random)
        self._events.unknown_since = self._clock()
        self._topics = {topic: self._events}
        self._due = -1.0
        self._open = False
        self._active = False
        self._diversions_total = 0
        self._diverted_s = 0.0
        self._looked_at: float | None = None
        self._logged: bool = False
        self._logged_at = -LOG_S

    def __repr__(self) -> str:
        return f"<Diversion of {sorted(self._events.ill)}>"

    # For events.

    def look(self) -> bool:
        """Whether some event may have to go elsewhere now; called with an event at hand."""
        now = self._clock()
        if now >= self._due:
            self._evaluate(now)
        return self._active

    @property
    def active(self) -> bool:
        """What `look` found last."""
        return self._active

    @property
    def open(self) -> bool:
        """Whether there was somewhere to go when that was last looked at."""
        return self._open

    def is_diverted(self, key_hash: int | None) -> bool:
        """Whether an event with a key of this hash goes elsewhere; without a key: whether all partitions are ill."""
        events = self._events
        if not events.count:
            return _ALL in events.ill
        if key_hash is None:
            return len(events.ill) == events.count
        return key_hash % events.count in events.ill

    def healthy_partition(self) -> int | None:
        """Where an event without a key goes meanwhile; None: the producer chooses, or nothing is well."""
        return self._events.healthy(self._clock())

    # For the replay.

    def diverted(self, topic: str) -> frozenset[int]:
        """The diverted partitions of a topic; none while its partitions are unknown."""
        return self._topic(topic).diverted

    def probes(self, topic: str) -> frozenset[int]:
        """Of these, the ones that nothing unresolved is under way to: they return only after a probe was answered.

        One without a leader among them: something has to wait for it, or nobody asks the cluster who it is.
        """
        return self._topic(topic).probes

    def _topic(self, name: str) -> _Topic:
        topic = self._topics.get(name)
        if topic is None:
            topic = self._topics[name] = _Topic(name, self._random)
        now = self._clock()
        if topic is self._events:
            if now >= self._due:
                self._evaluate(now)
        elif now >= topic.due:
            topic.due = now + LOOK_S
            topic.look(self._producer.partition_health(name), now, self._patience_s())
        return topic

    # Looking.

    def _patience_s(self) -> float:
        return self._stall_s + 2 * self._lag_s()

    def _evaluate(self, now: float) -> None:
        events = self._events
        if self._looked_at is not None:
            self._diverted_s += len(events.ill) * (now - self._looked_at)
        self._looked_at = now
        self._due = now + LOOK_S
        before = set(events.ill)
        events.look(self._producer.partition_health(events.name), now, self._patience_s())
        self._diversions_total += len(events.ill.keys() - before)
        self._open = self._usable()
        self._active = self._open and bool(events.ill)
        if bool(events.ill) != self._logged and now >= self._logged_at + LOG_S:
            self._logged, self._logged_at = not self._logged, now
            if self._logged:
                log.warning(
                    "Kafka does not take events for some partitions now",
                    topic=events.name,
                    **events.ill_for_people(),
                    why=sorted({ill.why for ill in events.ill.values()}),
                    instead="spool" if self._open else "nothing: there is no spool to go to",
                )
            else:
                log.info("Kafka takes events for all partitions again", topic=events.name)

    def statistics(self) -> DiversionStatistics:
        """What is diverted now, and the counts since the start."""
        now = self._clock()
        self._evaluate(now)
        topics = self._topics.values()
        return DiversionStatistics(
            diverted_partitions=sum(len(topic.ill) for topic in topics),
            unprobed_partitions=sum(len(topic.probes) for topic in topics),
            diversions_total=self._diversions_total,
            diverted_seconds_total=self._diverted_s,
            partitions=tuple(
                DivertedPartition(topic=topic.name, partition=index, why=ill.why, since_s=now - ill.since)
                for topic in topics
                for index, ill in sorted(topic.ill.items())
            ),
        )
