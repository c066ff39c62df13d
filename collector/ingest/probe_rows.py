"""Which row is the probe of a diverted partition.

Owns: the search for it. Refuses to know: when a probe is needed, how it is sent, what it proves.

Theory. Rows of another topic are in the spool when ``[kafka] topic`` was changed. They say nothing about a partition of
ours, and if their topic is gone they stay for ever: a probe that is just the oldest row would be one of them each time.
So the search passes them over, remembers how far it came, and begins again when there was nothing behind them: what
somebody else had meanwhile may be before.
"""

from collections.abc import Sequence

from collector.spool.base import Selection, Spool, StoredRow

__all__ = ["ProbeRows"]

#: Looked at in one search once there are rows of another topic, and their bytes; and searches before others get a turn.
PASS_ROWS = 500
PASS_BYTES = 256 * 1024
PASSES = 4


class ProbeRows:
    """Of one replay.

    Args:
        topic: Whose partitions they are.
    """

    def __init__(self, spool: Spool, *, topic: str, by_key: bool) -> None:
        self._spool = spool
        self._topic = topic
        self._by_key = by_key
        self._passed: dict[int, int] = {}
        """For each partition, up to which id there is none."""

    def __repr__(self) -> str:
        return f"<ProbeRows of {self._topic}, passed {self._passed}>"

    async def of_any_topic(self, after_id: int) -> Sequence[StoredRow]:
        """The first row behind ``after_id``: to ask the cluster for partitions that are unknown. One or none.

        On cancellation: no row is in work.
        """
        return await self._spool.take(Selection(rows=1, bytes=1, after_id=after_id, by_key=self._by_key))

    async def of_partition(self, partition: int, partitions: int) -> Sequence[StoredRow] | None:
        """The oldest row that may go to this partition of ours, one or none; None: not found yet, ask again.

        On cancellation: rows of others that it has looked at may stay in work.
        """
        others = frozenset(range(partitions)) - {partition}
        for _ in range(PASSES):
            passed = self._passed.get(partition)
            rows = await self._spool.take(
                Selection(
                    rows=1 if passed is None else PASS_ROWS,
                    bytes=1 if passed is None else PASS_BYTES,
                    after_id=passed or 0,
                    partitions=partitions,
                    without=others,
                    by_key=self._by_key,
                )
            )
            if not rows:
                self._passed.pop(partition, None)
                return []
            found = next((row for row in rows if row.record.topic == self._topic), None)
            rest = [row.id for row in rows if row is not found]
            if rest:
                await self._spool.back(rest, attempted=False)
            if found is not None:
                return [found]
            self._passed[partition] = rows[-1].id
        return None  # noqa: ASYNC910  # `PASSES` is no less than 1

    def forget(self, partition: int) -> None:
        """It needs no probe any more."""
        self._passed.pop(partition, None)
