"""The callers of a program: tasks that hand records over, wait, leave, take back, and send again.

Owns: every way an application uses a delivery. Refuses to know: what must hold (`books`) and what goes wrong meanwhile.
"""

from collections.abc import Awaitable, Callable, Sequence

import trio

from kafka_client import (
    Delivered,
    Delivery,
    NotSent,
    NotSentError,
    Outcome,
    Producer,
    Record,
    Unknown,
    UnknownOutcomeError,
)

from .books import Entry
from .program import Deliver
from .stage import EPOCH_S, Stage, delivery_of

__all__ = ["Callers"]


class Callers:
    """One program's."""

    def __init__(self, stage: Stage) -> None:
        self.busy = 0
        """Tasks that are not over."""
        self._stage = stage
        self._short: dict[bytes | None, Entry] = {}
        self._tap(stage.books.producer)

    def _tap(self, producer: Producer) -> None:
        # `send` and `send_many` keep their delivery to themselves.
        original = producer.delivery

        def delivery(records: Sequence[Record]) -> Delivery:
            entry = self._short.pop(records[0].value, None)
            if entry is not None:
                self._stage.books.calling(entry)
            made = original(records)
            if entry is not None:
                self._stage.books.delivered_as(entry, made)
            return made

        producer.delivery = delivery  # type: ignore[method-assign]

    def deliver(self, step: Deliver) -> None:
        records = self._records(step)
        if step.by != "delivery":
            if step.by == "send":
                del records[1:]
            entry = self._stage.books.handed_over(records, trio.current_time(), 0)
            self._stage.timers.start_soon(self._task, self._send, step, entry)
            return
        entry = self.call(records)
        if step.resolve_s < 0:
            self._register(entry, step.resend)
        self._stage.timers.start_soon(self._task, self._caller, step, entry)

    async def _task(self, run: Callable[[Deliver, Entry], Awaitable[None]], step: Deliver, entry: Entry) -> None:
        self.busy += 1
        await run(step, entry)
        self.busy -= 1

    def _records(self, step: Deliver) -> list[Record]:
        number = len(self._stage.books.entries)
        records = []
        for index in range(step.count):
            route = step.routes[index % len(step.routes)]
            size = step.sizes[index % len(step.sizes)]
            stamp = step.stamps[index % len(step.stamps)]
            topic = step.topics[index % len(step.topics)] % len(self._stage.setup.partitions)
            records.append(
                Record(
                    f"t{topic}",
                    b"%d-%d" % (number, index) + b"." * size,
                    key=route.encode() if isinstance(route, str) and route != "sticky" else None,
                    headers=(("number", b"%d" % index), ("none", None)) if index % 3 == 0 else (),
                    timestamp_ms=None if stamp is None else round((EPOCH_S + trio.current_time()) * 1000) - stamp,
                    partition=route if isinstance(route, int) else None,
                )
            )
        return records

    def call(self, records: list[Record], generation: int = 0) -> Entry:
        entry = self._stage.books.handed_over(records, trio.current_time(), generation)
        self._stage.books.calling(entry)
        self._stage.books.delivered_as(entry, self._stage.books.producer.delivery(records))
        return entry

    def _register(self, entry: Entry, resend: str) -> None:
        if resend not in ("inside", "others"):
            self._stage.books.register(entry)
            return

        def fn(index: int, outcome: Outcome) -> None:
            books = self._stage.books
            books.resolved(entry, index, outcome)
            if resend == "others":
                for other in books.entries[-3:]:
                    if other.delivery is not None:
                        other.delivery.withdraw()
            elif not isinstance(outcome, Delivered) and entry.generation < 2:
                self._send_again(entry, [index])

        entry.registered = True
        delivery_of(entry).on_resolved(fn)

    def _send_again(self, entry: Entry, indices: list[int]) -> None:
        self._stage.coverage["sent again by the application"] += 1
        number = len(self._stage.books.entries)
        records = []
        for index in indices:
            old = entry.records[index]
            value = b"%d-%d again %d" % (number, index, entry.number)
            records.append(Record(old.topic, value, old.key, old.headers, old.timestamp_ms, old.partition))
        again = self.call(records, entry.generation + 1)
        self._stage.books.register(again)

    async def _caller(self, step: Deliver, entry: Entry) -> None:
        delivery = delivery_of(entry)
        with delivery:
            if step.withdraw:
                self._stage.later(step.withdraw_s, lambda: delivery.withdraw(step.withdraw))
            with trio.move_on_after(step.wait_s) as scope:
                if step.leave_on:
                    self._stage.taps.at(step.leave_on, delivery, lambda: scope.cancel(reason="the program says so"))
                await delivery.wait()
                assert delivery.unsettled == 0, "wait() returned early"
            if scope.cancelled_caught:
                self._stage.coverage["waiting cancelled"] += 1
                with trio.move_on_after(step.again_s):
                    await delivery.wait()
        assert None not in delivery.outcomes, "an outcome is missing after the block"
        if step.resolve_s >= 0:
            if step.resolve_s > 0:
                await trio.sleep(step.resolve_s)
            self._register(entry, step.resend)
        entry.ended = True
        if step.resend == "after" and entry.generation < 2:
            failed = [j for j, outcome in enumerate(delivery.outcomes) if not isinstance(outcome, Delivered)]
            if failed:
                self._send_again(entry, failed)

    async def _send(self, step: Deliver, entry: Entry) -> None:
        """By the short forms, whose outcomes are lost on cancellation."""
        self._short[entry.records[0].value] = entry
        with trio.move_on_after(step.wait_s) as scope:
            if step.by == "send_many":
                told = [type(outcome) for outcome in await self._stage.books.producer.send_many(entry.records)]
            else:
                told = [await self._told(entry.records[0])]
            assert told == [type(outcome) for outcome in delivery_of(entry).outcomes]
        if scope.cancelled_caught:
            self._stage.coverage["sending cancelled"] += 1
        assert delivery_of(entry).unsettled == 0
        entry.ended = True

    async def _told(self, record: Record) -> type[Outcome]:
        told: type[Outcome] = Delivered
        try:
            await self._stage.books.producer.send(record)
        except NotSentError:
            told = NotSent
        except UnknownOutcomeError:
            told = Unknown
        self._stage.coverage[f"send: {told.__name__}"] += 1
        return told  # noqa: ASYNC910  # `send` always waits; a checkpoint before it could be cancelled with nothing sent
