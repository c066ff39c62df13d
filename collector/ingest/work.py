"""One request's events on their way: stages 4 to 8 of design §6.

Owns: the two stages, Kafka in its share of the time and then the disk; which events go to the disk at once; the
verdict. Refuses to know: HTTP, websockets, how a nursery is opened or answered, when a partition is diverted.

Invariants: whatever happens, `Work.settle` closes the ledger's entry with what Kafka and the spool say, once; a good
event never waits for the bad topic being away; after settling nothing of the request is left in the producer or the
spool but what its sealed batches carry and what the spool's writer has taken.

Non-obvious: outcomes are read after the delivery's block, whether or not the wait was cancelled. An acknowledgement
that lands in the same tick as the deadline still counts, and then the cancellation was for nothing.

An event that waits unsealed while its partition becomes diverted waits on to the end of Kafka's share. Taking it to the
disk at once would make the answers of an outage's first second quicker; and it would turn each pause of a broker
between one and three seconds into writes, and cost a list of all that waits. With ``order = "key"`` there is that list
(`collector.ingest.key_order`), and it goes there before the next event of its key.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import trio

from collector.dialects.base import Event, Parsed, Rejection
from collector.ingest.record import RecordContext
from collector.ingest.spooling import LateWord, Rows
from collector.ingest.verdict import Fate, Status, Verdict, all_delivered, judge, status_of
from kafka_client.buffer.encoded import Encoded
from kafka_client.outcome import NotSent, Outcome, Record, Unknown

if TYPE_CHECKING:
    from collector.ingest.enqueue import DeliveryLike, Ingest

__all__ = ["EVENTS_PER_STEP", "Work"]

#: Records encoded between two checkpoints: 512 at 1 to 2 µs each hold the loop for a millisecond (design §6, stage 3).
EVENTS_PER_STEP = 512


class Work:
    """The events of one request on their way. `wait` under a deadline, then `settle`.

    Args:
        kafka_at: When Kafka's share of the time is over, on Trio's clock. Without a spool the whole time is Kafka's.
    """

    __slots__ = (
        "_caught",
        "_claim",
        "_context",
        "_delivery",
        "_entry",
        "_first_seq",
        "_ingest",
        "_kafka_at",
        "_made",
        "_parsed",
        "_places",
        "_rows",
        "_spooling",
        "_verdict",
    )

    def __init__(self, ingest: "Ingest", parsed: Parsed, context: RecordContext, kafka_at: float) -> None:
        self._ingest = ingest
        events = len(parsed.events) + len(parsed.rejections)
        # From here on the request is what of it is to be sent.
        self._parsed, self._claim = ingest.memory.claim(parsed)
        self._context = context
        self._kafka_at = kafka_at
        self._entry = ingest.ledger.open(events)
        self._delivery: DeliveryLike | None = None
        self._places: Sequence[int] | None = None
        """Which event each record of the delivery is; None: all, in order."""
        self._first_seq = 0
        self._made: Sequence[Record] | None = None
        self._spooling = False
        """What Kafka does not take may go to the spool."""
        self._rows: Rows | None = None
        self._caught = False
        """What Kafka did not take has been seen to."""
        self._verdict: Verdict | None = None

    def __repr__(self) -> str:
        waiting = self._delivery is not None or self._rows is not None
        state = "settled" if self._verdict is not None else "waiting" if waiting else "new"
        return f"<Work of {len(self._parsed.events)} events, {state}>"

    # Handing over.

    def enqueue(self) -> None:
        """Encode all records and hand them over: from here on they wait in the producer or for the spool's writer."""
        if not self._parsed.accept_only:
            self._hand_over(self._encode(self._parsed.events, self._numbered()))

    async def enqueue_in_steps(self) -> None:  # noqa: ASYNC910  # without one for few events: `wait` comes next
        """As `enqueue`, with a checkpoint every few hundred events while the records are encoded.

        On cancellation: nothing was queued; `settle` says not sent.
        """
        events = self._parsed.events
        if len(events) <= EVENTS_PER_STEP or self._parsed.accept_only:
            self.enqueue()
            return  # noqa: ASYNC910  # the same
        first_seq = self._numbered()
        tails: list[bytes] = []
        routes: list[int] = []
        for start in range(0, len(events), EVENTS_PER_STEP):
            step = self._encode(events[start : start + EVENTS_PER_STEP], first_seq + start)
            tails += step.tails
            routes += step.routes
            await trio.lowlevel.checkpoint()
        self._hand_over(Encoded(step.topic, step.timestamp_ms, tails, routes))

    def _numbered(self) -> int:
        first_seq = self._first_seq = self._ingest.number(len(self._parsed.events))
        return first_seq

    def _encode(self, events: Sequence[Event], first_seq: int) -> Encoded:
        doubtful = () if self._claim is None else self._claim.doubtful
        return self._ingest.encode(events, self._parsed, self._context, first_seq, doubtful)

    @property
    def _records(self) -> Sequence[Record]:
        """One for each event, for the spool; made when it is asked for the first."""
        if self._made is None:
            self._made = self._encode(self._parsed.events, self._first_seq).records()
        return self._made

    def _hand_over(self, encoded: Encoded) -> None:
        if not encoded.tails:
            return
        ingest = self._ingest
        ways = ingest.ways
        if ways is None:
            self._delivery = ingest.producer.delivery_encoded(encoded)
            return
        choice = ways.look()
        self._spooling = ways.open or ways.order is not None
        if not choice or not self._spooling:
            delivery = self._delivery = ingest.producer.delivery_encoded(encoded)
        else:
            records = self._records
            diverted = ways.diverted(records)
            if diverted:
                records = self._divert(diverted, records)
                if not records:
                    return
            delivery = self._delivery = ingest.producer.delivery(records)
            if ways.order is not None:
                ways.order.enter(self, records)
        if self._spooling and not delivery.unsettled:
            # Refused at once, for want of room or because it closes. Its rows are in the order of the calls, too.
            self._catch(delivery)

    def _divert(self, diverted: Sequence[int], records: Sequence[Record]) -> Sequence[Record]:
        """Hand these events to the spool; returns the records of the others, and of those that it does not take.

        With ``order = "key"`` one that it does not take is refused where others of its key are there.
        """
        ways = self._ingest.ways
        assert ways is not None
        if ways.order is not None:
            ways.order.to_disk(records[event] for event in diverted)
        rows = self._rows = Rows(ways.spool, self._parsed.app, self._late_word())
        refused = rows.submit({event: records[event] for event in diverted})
        refused = [event for event in refused if not ways.bound(records[event])]
        rows.forget(refused)
        elsewhere = set(diverted).difference(refused)
        self._places = [event for event in range(len(records)) if event not in elsewhere]
        return ways.around([records[event] for event in self._places])

    def _catch(self, delivery: "DeliveryLike") -> None:
        """What Kafka has not taken becomes rows, synchronously: its share of the time is over, or it has refused."""
        self._caught = True
        outcomes = delivery.outcomes
        ways = self._ingest.ways
        assert ways is not None
        if ways.order is not None:
            ways.look()
            if not ways.open:
                # Not even a try: were one taken and those behind it left with Kafka, they would overtake it.
                return
            sent = zip(self._sent(delivery), outcomes, strict=True)
            ways.order.to_disk(self._records[event] for event, outcome in sent if status_of(outcome) > Status.REJECTED)
        self._make_rows(delivery, range(len(outcomes)))

    def take_back(self, indices: Sequence[int]) -> None:
        """Make rows of these of the delivery's records, as far as Kafka has not taken them: others of their keys do.

        Synchronous.
        """
        delivery = self._delivery
        assert delivery is not None
        delivery.withdraw(indices)
        self._make_rows(delivery, sorted(indices))

    def _make_rows(self, delivery: "DeliveryLike", indices: Sequence[int]) -> None:
        """Of these of the delivery's records, where Kafka has not taken them and they have none."""
        ways = self._ingest.ways
        assert ways is not None
        places, all_outcomes = self._sent(delivery), delivery.outcomes
        events, outcomes = [places[index] for index in indices], [all_outcomes[index] for index in indices]
        rows = self._rows
        if rows is None:
            rows = self._rows = Rows(ways.spool, self._parsed.app, self._late_word())
        if not rows.holding and any(isinstance(outcome, Unknown) for outcome in outcomes):
            # Before there are rows: a resolution that came first would find nobody to be told.
            delivery.on_resolved(rows.hold(places))
        again = self._claim.repeated(events) if self._claim is not None else ()
        rows.catch(events, outcomes, self._records, again)

    def _sent(self, delivery: "DeliveryLike") -> Sequence[int]:
        """Which event each record of the delivery is."""
        return range(len(delivery.outcomes)) if self._places is None else self._places

    # Waiting.

    async def wait(self) -> None:  # noqa: ASYNC910  # caught at once, it waits for its rows
        """Wait for Kafka, then for the spool, then for the bad topic a little.

        On cancellation: what was not sealed, or not taken by the spool's writer, is withdrawn, synchronously; `settle`
        tells what became of each event.
        """
        delivery = self._delivery
        if delivery is None:
            await trio.lowlevel.checkpoint()
        elif not self._spooling:
            with delivery:
                await delivery.wait()
        elif not self._caught:
            with delivery:
                await self._wait_for_kafka(delivery)
            if not delivery.delivered:
                self._catch(delivery)
        if self._rows is not None:
            await self._rows.wait(self._records)
            ways = self._ingest.ways
            assert ways is not None
            ways.rows_came()
        rejections: Sequence[Rejection] = self._parsed.rejections
        if self._rows is not None or (delivery is not None and not delivery.delivered):
            rejections = [*rejections, *self._rejected_by_kafka()]
        if rejections and not self._parsed.accept_only:
            await self._ingest.write_bad(self._parsed, rejections, self._context)

    @property
    def delivered(self) -> bool:
        """Kafka has acknowledged every event, and there is nothing else to wait for: `settle` may come next."""
        delivery = self._delivery
        return delivery is not None and self._rows is None and delivery.delivered and not self._parsed.rejections

    def park(self, task: trio.lowlevel.Task) -> bool:
        """Wait for Kafka in the name of ``task``, which is parked already, and is rescheduled when Kafka has spoken.

        Its ``abort_fn`` is to call `stop_waiting`. When it runs, however that came, it calls `unpark` first; unless it
        is `delivered` then, `wait` is to follow.

        Returns: False where that is not all that there is to wait for; then `wait` is all that is to be called.
        """
        delivery = self._delivery
        if delivery is None or self._rows is not None or self._caught or self._parsed.rejections:
            return False
        if self._spooling:
            ways = self._ingest.ways
            assert ways is not None
            if ways.order is not None or not ways.shares.begin(delivery, self._kafka_at):
                return False
        if delivery.reschedule(task):
            return True
        self.unpark()
        return False

    def stop_waiting(self, raise_cancel: trio.lowlevel.RaiseCancelT) -> trio.lowlevel.Abort:
        """Trio's ``abort_fn`` for a task that was given to `park`."""
        assert self._delivery is not None
        return self._delivery.stop_waiting(raise_cancel)

    def unpark(self) -> None:
        """See `park`."""
        if self._spooling and self._delivery is not None:
            ways = self._ingest.ways
            assert ways is not None
            ways.shares.end(self._delivery)

    async def wait_delivered(self) -> None:  # noqa: ASYNC910  # without one where Kafka has nothing to say
        """Wait for Kafka alone, as long as it takes, if it was asked; `delivered` says what came of it.

        On cancellation: the waiting ends and nothing else; `wait` is to follow, unless it is `delivered`.
        """
        delivery = self._delivery
        if delivery is not None and delivery.unsettled:
            await delivery.wait()

    async def _wait_for_kafka(self, delivery: "DeliveryLike") -> None:
        """Wait until every record has its outcome, or Kafka's share of the time is over."""
        ways = self._ingest.ways
        assert ways is not None
        if ways.order is not None and not ways.open:
            await delivery.wait()
        elif ways.shares.begin(delivery, self._kafka_at):
            try:
                await delivery.wait()
            finally:
                ways.shares.end(delivery)
        else:
            with trio.move_on_at(self._kafka_at):
                await delivery.wait()

    def _rejected_by_kafka(self) -> list[Rejection]:
        return [
            Rejection(position=event.position, code="rejected", message=fate.reason, original=event.body)
            for event, fate in zip(self._parsed.events, self._fates(), strict=True)
            if isinstance(fate, NotSent) and status_of(fate) is Status.REJECTED
        ]

    # The end.

    def _fates(self) -> Sequence[Fate | None]:
        """What became of each event, as far as Kafka and the spool have said."""
        delivery, rows = self._delivery, self._rows
        if rows is None:
            return delivery.outcomes if delivery is not None else [NotSent("withdrawn")] * len(self._parsed.events)
        outcomes: list[Outcome | None] = [None] * len(self._parsed.events)
        if delivery is not None:
            for event, outcome in zip(self._sent(delivery), delivery.outcomes, strict=True):
                outcomes[event] = outcome
        return [rows.word(event, outcome) for event, outcome in enumerate(outcomes)]

    def settle(self) -> Verdict:
        """Take back what is open, read the outcomes, close the ledger's entry. Synchronous, idempotent."""
        if self._verdict is not None:
            return self._verdict
        claim = self._claim
        if self.delivered and (claim is None or not claim.deduplicated):
            self._verdict = all_delivered(len(self._parsed.events))
            self._entry.close_delivered()
            if claim is not None:
                claim.settle_all()
            self._let_go()
            return self._verdict
        delivery, rows = self._delivery, self._rows
        if delivery is not None:
            delivery.withdraw()
        if rows is not None:
            rows.withdraw()
        fates = self._fates()
        verdict = judge(self._parsed, fates, 0 if claim is None else claim.deduplicated)
        self._verdict = verdict
        self._entry.close(verdict.counts)
        if claim is not None:
            if verdict.counts.delivered + verdict.counts.spooled == len(fates):
                claim.settle_all()
            else:
                claim.settle([status_of(fate) for fate in fates])
        if verdict.counts.unknown:
            self._answer_later(fates)
        self._let_go()
        return verdict

    def _let_go(self) -> None:
        ways = self._ingest.ways
        if ways is not None and ways.order is not None:
            ways.order.leave(self)
        self._delivery = self._rows = None
        self._made = None

    def _answer_later(self, fates: Sequence[Fate | None]) -> None:
        """Some were told unknown: have it counted what becomes of them."""
        delivery, rows, ingest = self._delivery, self._rows, self._ingest
        if rows is not None:
            unknown = [event for event, fate in enumerate(fates) if status_of(fate) is Status.UNKNOWN]
            if rows.told(unknown):
                ingest.look_back_at(rows)
        if delivery is not None and (rows is None or not rows.holding):
            late = self._late_word()
            places = self._sent(delivery)
            delivery.on_resolved(lambda index, outcome: late(places[index], outcome))

    def _late_word(self) -> LateWord:
        """Who is told what becomes of an event that was told unknown. It keeps nothing of the request but its ids."""
        ingest, claim = self._ingest, self._claim

        def late(event: int, fate: Fate) -> None:
            ingest.told_late(fate)
            if claim is not None:
                claim.resolved(event, status_of(fate))

        return late
