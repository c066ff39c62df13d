"""The replay: what waits in the spool goes to Kafka, oldest first, without getting in the way of anybody.

Owns: which rows are tried, when, at what pace and within which share of the producer; the probe of a diverted
partition. Refuses to know: the disk (`collector.spool`), when a partition is diverted (it asks), clients.

Theory. One loop: *settle* (tell the spool what has ended), *turn* (take a chunk, mark it, deliver it), *rest*. A chunk
is a tenth of a second at the pace, so 5 000 events a second are ten chunks, each with a commit for its mark and one for
what became of it; nobody waits for the second, so it is often the same as the next chunk's first. Diverted partitions
are left out, but for one row each: the *probe*, whose Produce answer is what ends a diversion. A probe waits for its
answer in a task of its own, since it may wait for minutes.

A chunk waits for its answers a little longer than `stall_s`: so that a partition that does not answer counts as
diverted when what is not sealed is taken back and returns to the spool, proved absent. What is sealed stays in work
until its batch ends.

Invariants: what is in work is within ``replay_bytes``, but for a row that is larger than what is left. While deliveries
wait in the producer's FIFO, its queue holds more than the replay itself may put there, or requests are shed because the
loop is late, nothing new is taken: live events first, what is on the disk is safe. Whenever the task ends, each row in
work is back in the spool, or the spool gives it back by itself at its next start.

Non-obvious:

- The place in the spool moves on over rows that came back, see `Place`. It returns to the oldest when a partition does.
- A probe may overtake a chunk. With ``order = "key"`` they are of different keys, since the spool hands out no row
  behind one in work.
"""

import math
import random
from collections.abc import Callable, Sequence
from typing import NoReturn, Protocol

import trio

from collector.config import Config
from collector.ingest.enqueue import ProducerLike
from collector.ingest.probe_rows import ProbeRows
from collector.ingest.replay_log import ReplayLog
from collector.ingest.replay_pace import Backoff, Drain, Pace, Place
from collector.ingest.replay_rows import ROW_COST_BYTES, RowsInWork
from collector.ingest.replay_statistics import ReplayState, ReplayStatistics
from collector.ingest.spool_age import AgeAlarm
from collector.spool.base import Selection, Spool, StoredRow
from kafka_client.cluster.alarm import TaskAlarm
from kafka_client.outcome import TopicPartition

__all__ = ["DiversionLike", "Replay", "ReplayProducer"]

#: A chunk is what the pace allows in this time.
CHUNK_S = 0.1

#: A chunk is at most this part of the share: one stuck partition must not hold all of it.
CHUNK_SHARE = 4

#: Of the share, what chunks leave to probes.
PROBE_SHARE = 8

#: Probes at once.
PROBES = 64

#: A chunk's patience, as a multiple of `stall_s`: the partition's age is looked at before rows are taken back.
PATIENCE = 1.25

#: Nothing to do: look again after so long, even if nobody rings.
TICK_S = 1.0

#: After an answer of a diverted partition.
LOOK_AGAIN_S = 0.03

#: Rows that came back are tried again after at least and at most so long, see `Place`.
RETURN_S = (0.5, 300.0)

#: Pauses without progress: full jitter up to the first, doubled up to the second.
BACKOFF_S = (0.1, 5.0)

#: The loop is late for the replay long before requests are shed: at this part of ``limits.max_lag_s`` …
LATE = 0.2

#: … only this part of the pace remains.
LATE_SHARE = 0.125

#: When the task ends: what is sealed gets this long to be answered, and the spool as long to write.
CLOSE_S = 1.0

#: The rate is that of the last so many seconds.
RATE_WINDOW_S = 10.0

#: The probe of a topic whose partitions are unknown.
_UNKNOWN = -1


class DiversionLike(Protocol):
    """Which partitions get no live events at the moment."""

    def diverted(self, topic: str) -> frozenset[int]:
        """The diverted partitions of the topic."""
        ...

    def probes(self, topic: str) -> frozenset[int]:
        """Of these, the ones that nothing unresolved is under way to: a probe is needed."""
        ...

    def healthy_partition(self) -> int | None:
        """Where events without a key go meanwhile."""
        ...


class ReplayProducer(ProducerLike, Protocol):
    """What the replay uses of `kafka_client.Producer`."""

    def partitions_of(self, topic: str) -> int | None: ...
    @property
    def room_bytes(self) -> int: ...


class Replay:
    """Made by the composition root; `run` is its task.

    Args:
        lag_s: How late the loop is now.
        rng: For jitter.
    """

    def __init__(
        self,
        *,
        config: Config,
        spool: Spool,
        producer: ReplayProducer,
        diversion: DiversionLike,
        lag_s: Callable[[], float] = lambda: 0.0,
        rng: random.Random | None = None,
    ) -> None:
        settings = config.spool
        self._topic = config.kafka.topic
        self._share = settings.replay_bytes
        self._busy_bytes = min(2 * self._share, config.limits.queue_bytes // 2)
        self._queue_bytes = config.limits.queue_bytes
        self._patience_s = PATIENCE * config.deadlines.stall_s
        self._by_key = settings.order == "key"
        self._age = AgeAlarm(settings.age_alarm_s)
        self._spool = spool
        self._producer = producer
        self._diversion = diversion
        self._lag_s = lag_s
        self._max_lag_s = config.limits.max_lag_s
        self._random = rng or random.Random()
        self._alarm = TaskAlarm()
        self._rows = RowsInWork(spool, producer, wake=self._alarm.ring, stalled=lambda: diversion.diverted(self._topic))
        self._pace = Pace(settings.replay_events_per_s, CHUNK_S)
        self._backoff = Backoff(*BACKOFF_S, self._random)
        self._drain = Drain(RATE_WINDOW_S)
        self._probe_rows = ProbeRows(spool, topic=self._topic, by_key=self._by_key)
        self._probes: dict[int, Backoff] = {}
        self._probing: set[int] = set()
        self._diverted: frozenset[int] = frozenset()
        self._place = Place(*RETURN_S)
        self._answered_at = -LOOK_AGAIN_S
        self._log = ReplayLog()
        self._state: ReplayState = "idle"
        self._why = ""
        self._chunks_total = 0
        self._probes_total = 0

    def __repr__(self) -> str:
        return f"<Replay {self._state}{': ' + self._why if self._why else ''}, {self._rows!r}>"

    # Told by others.

    def rows_came(self) -> None:
        """Rows were stored. Synchronous, cheap; at any time."""
        if self._state != "replaying":
            self._alarm.ring()

    def hurry(self) -> None:
        """An operator wants no pauses: begin again with the oldest row, now. Synchronous, cheap; at any time."""
        self._place.return_to_oldest()
        self._backoff.worked()
        for backoff in self._probes.values():
            backoff.worked()
        self._look_again()

    def answered(self, partition: int) -> None:
        """A batch of this partition was acknowledged: it may be back. Synchronous, cheap; at any time."""
        if partition in self._diverted:
            self._look_again()

    def statistics(self) -> ReplayStatistics:
        """The replay as it is now."""
        rows, now = self._rows, trio.current_time()
        spool = self._spool.statistics()
        state, why = self._state, self._why
        if state == "replaying" and spool.state == "failed":
            state, why = "paused", f"the spool has failed: {spool.problem}"  # it waits for a commit
        return ReplayStatistics(
            state=state,
            why=why,
            in_work_rows=len(rows),
            in_work_bytes=rows.bytes,
            share_bytes=self._share,
            unresolved_rows=rows.unresolved,
            probing=len(self._probing),
            delivered_total=rows.delivered_total,
            returned_total=rows.returned_total,
            unknown_total=rows.unknown_total,
            dead_total=rows.dead_total,
            marked_total=rows.marked_total,
            chunks_total=self._chunks_total,
            probes_total=self._probes_total,
            events_per_second=self._drain.events_per_s(now),
            time_to_empty_s=self._drain.time_to_empty_s(now, spool.rows),
            age_alarm=self._age.stands,
        )

    # The task.

    async def run(self) -> NoReturn:
        """Replay for ever.

        On cancellation: what is not sealed is taken back; what is sealed gets `CLOSE_S` to be answered; then all that
        is in work goes back to the spool, for which it has `CLOSE_S` again.
        """
        try:
            async with trio.open_nursery() as nursery:
                while True:
                    self._rows.settle(nursery)
                    await self._rest(await self._turn(nursery))
        finally:
            self._set("stopped")
            # The end of the process waits for it: without it these rows would be sent a second time after the start.
            with trio.move_on_after(2 * CLOSE_S, shield=True):
                await self._close()

    async def _close(self) -> None:
        with trio.move_on_after(CLOSE_S):
            await trio.lowlevel.checkpoint()
            while self._rows.unresolved:
                await self._alarm.wait()
        self._rows.give_up()
        async with trio.open_nursery() as nursery:
            self._rows.settle(nursery)

    async def _rest(self, until: float) -> None:
        """The one place that sleeps: until there may be something to do, or somebody rings."""
        await self._alarm.wait(until)

    def _set(self, state: ReplayState, why: str = "") -> None:
        self._state, self._why = state, why

    async def _turn(self, nursery: trio.Nursery) -> float:
        """Do the next thing; returns when to look again."""
        now = trio.current_time()
        statistics = self._spool.statistics()
        self._drain.note(now, statistics.rows, self._rows.delivered_total)
        self._age.look(statistics)
        if statistics.state == "failed":
            self._set("paused", f"the spool has failed: {statistics.problem}")
            return now + TICK_S  # noqa: ASYNC910  # the loop rests next
        if statistics.rows - statistics.held_rows <= len(self._rows) + self._rows.being_told:
            if statistics.rows:
                self._set("waiting", "for the end of batches")
            else:
                self._set("idle")
                self._log.empty(now, statistics)
            return now + TICK_S  # noqa: ASYNC910
        partitions = self._producer.partitions_of(self._topic)
        diverted = self._look_at_diversion()
        await self._probe(nursery, partitions, diverted)
        if partitions is None or len(diverted) >= partitions:
            self._set("waiting", "for Kafka")
            return self._next_probe()
        if self._lag_s() > self._max_lag_s:
            self._set("paused", "requests are shed")
            return trio.current_time() + CHUNK_S
        if self._busy():
            self._set("paused", "live events are queued")
            return trio.current_time() + CHUNK_S
        room = self._share - self._share // PROBE_SHARE - self._rows.bytes
        if room <= 0:
            self._set("waiting", "for the end of batches")
            return trio.current_time() + TICK_S
        not_before = max(self._pace.next_at, self._backoff.next_at)
        if trio.current_time() < not_before:
            return not_before
        return await self._chunk(room, partitions, diverted)

    def _busy(self) -> bool:
        """Whether live events have to wait for each other already."""
        return self._queue_bytes - self._producer.room_bytes > self._busy_bytes

    def _look_at_diversion(self) -> frozenset[int]:
        diverted = self._diversion.diverted(self._topic)
        back = self._diverted - diverted
        if back:
            for partition in back:
                self._probes.pop(partition, None)
                self._probe_rows.forget(partition)
            self._place.return_to_oldest()
            self._backoff.worked()
        self._diverted = diverted
        return diverted

    # Probes.

    async def _probe(  # noqa: ASYNC910  # the loop rests in each turn
        self, nursery: trio.Nursery, partitions: int | None, diverted: frozenset[int]
    ) -> None:
        """Start the probes that are needed; each waits in a task of its own."""
        needed = {_UNKNOWN} if partitions is None else self._diversion.probes(self._topic) & diverted
        for partition in sorted(needed - self._probing):
            if len(self._probing) >= PROBES or self._rows.bytes >= self._share:
                break
            backoff = self._probes.setdefault(partition, Backoff(*BACKOFF_S, self._random))
            if trio.current_time() < backoff.next_at:
                continue
            if partitions is None:
                rows: Sequence[StoredRow] | None = await self._probe_rows.of_any_topic(self._place.after_id)
            else:
                rows = await self._probe_rows.of_partition(partition, partitions)
            if rows:
                self._rows.took(rows)
                self._probing.add(partition)
                self._probes_total += 1
                nursery.start_soon(self._wait_for_probe, rows, partition, backoff, name=f"replay: probe of {partition}")
            elif rows is None:
                self._alarm.ring()
            else:
                self._place.return_to_oldest()
                backoff.failed(trio.current_time())

    async def _wait_for_probe(self, rows: Sequence[StoredRow], partition: int, backoff: Backoff) -> None:
        try:
            # No end of its own: `delivery_timeout_s` is one. But a row of another topic does not find ours.
            found = rows[0].record.topic == self._topic
            if not await self._rows.send(rows, self._partition(partition), math.inf if found else self._patience_s):
                backoff.failed(trio.current_time())
                if partition == _UNKNOWN:
                    self._place.after_id = rows[0].id
        finally:
            self._probing.discard(partition)
            self._look_again()

    def _partition(self, index: int | None) -> TopicPartition | None:
        return None if index is None or index == _UNKNOWN else TopicPartition(self._topic, index)

    def _look_again(self) -> None:
        # The diversion's own look may be a little older than the answer.
        self._answered_at = trio.current_time()
        self._alarm.ring()

    def _next_probe(self) -> float:
        now = trio.current_time()
        if now < self._answered_at + LOOK_AGAIN_S:
            return self._answered_at + LOOK_AGAIN_S
        waiting = [backoff.next_at for backoff in self._probes.values() if backoff.next_at > now]
        return min([*waiting, now + TICK_S])

    # Chunks.

    async def _chunk(self, room: int, partitions: int, diverted: frozenset[int]) -> float:
        """Take and deliver the next rows; returns when to look again."""
        began = trio.current_time()
        # One half for what a row costs, the other for its bytes: together they stay within the room.
        half = min(room, self._share // CHUNK_SHARE) // 2
        share = LATE_SHARE if self._lag_s() > LATE * self._max_lag_s else 1.0
        rows = await self._spool.take(
            Selection(
                rows=max(1, min(round(self._pace.events_per_s * CHUNK_S * share), half // ROW_COST_BYTES)),
                bytes=max(1, half),
                after_id=self._place.look(began),
                partitions=partitions,
                without=diverted,
                by_key=self._by_key,
            )
        )
        now = trio.current_time()
        if not rows:
            self._set("waiting", "for partitions" if diverted else "for rows that came back")
            # New rows may ring for each of them; the search is not that cheap.
            self._pace.worked(CHUNK_S, now)
            return min(self._place.found_nothing(now), self._next_probe())
        self._set("replaying")
        self._chunks_total += 1
        self._log.replaying(now, self._spool.statistics())
        self._rows.took(rows)
        self._pace.took(len(rows), now, share=share)
        detour = self._partition(self._diversion.healthy_partition() if diverted else None)
        left = await self._rows.send(rows, detour, self._patience_s)
        now = trio.current_time()
        self._place.tried(rows[-1].id, now - began, now, left=left, of=len(rows))
        self._pace.worked(now - began, now)
        if left:
            self._backoff.worked()
        else:
            self._backoff.failed(now)
        return now
