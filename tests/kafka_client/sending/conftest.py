"""One partition with an office that only takes notes: the whole state machine without Trio, sockets or a cluster."""

from collections.abc import Callable

import pytest

from kafka_client import ProducerConfig
from kafka_client.buffer.budget import ByteBudget
from kafka_client.buffer.bulk import Bulk
from kafka_client.buffer.delivery import Delivery, Tally
from kafka_client.buffer.run import RECORD_COST_BYTES, Part
from kafka_client.sending.batch import InFlightAccount, SealedBatch
from kafka_client.sending.hold import Hold
from kafka_client.sending.identity import ProducerIdentity, ProducerState
from kafka_client.sending.outbox import Outbox, Request
from kafka_client.sending.partition import PartitionState
from kafka_client.wire.error_codes import ErrorRow
from kafka_client.wire.produce import LeaderHint, PartitionResult, ProduceResponse, RecordError


class Notes:
    """`Office`, `Standing` and `LeaderNews` in one."""

    name = "events"

    def __init__(self, config: ProducerConfig) -> None:
        self.config = config
        self.identity = ProducerIdentity()
        self.identity.assign(ProducerState(7, 0))
        self.account = InFlightAccount(config.in_flight_max_bytes)
        self.hold = Hold(config.operator_retry_s)
        self.metadata_wanted = 0
        self.errors: list[tuple[str, int]] = []
        self.ended: list[str] = []
        self.hints: list[LeaderHint] = []
        self.was_starved = False
        self.standing = self.leaders = self

    def backoff_s(self, failures: int) -> float:
        return 0.1 * failures

    def wall_clock_ms(self) -> int:
        return 555

    def want_metadata(self) -> None:
        self.metadata_wanted += 1

    def leader_named(self, partition: PartitionState, hint: LeaderHint) -> bool:
        self.hints.append(hint)
        return True

    def topic_error(self, topic: object, row: ErrorRow, detail: str, now: float) -> None:
        self.errors.append(("topic", row.code))

    def producer_error(self, row: ErrorRow, detail: str, now: float) -> None:
        self.errors.append(("producer", row.code))

    def topic_works(self, topic: object) -> None:
        self.errors.append(("works", 0))

    def batch_retried(self, batch: SealedBatch, code: int | None, reason: str) -> None:
        pass

    def batch_ended(self, batch: SealedBatch, outcome: str, now: float) -> None:
        self.ended.append(outcome)

    def room_made(self) -> None:
        pass

    def in_use(self, partition: PartitionState) -> None:
        pass

    def starved(self) -> None:
        self.was_starved = True

    def reason_for(self, topic: object) -> str | None:
        return None


class Topic:
    """A topic beside the notes, so that its hold is another one than the producer's."""

    name = "events"

    def __init__(self, retry_s: float) -> None:
        self.hold = Hold(retry_s)


class Bell:
    """An alarm that counts."""

    def __init__(self) -> None:
        self.rings = 0
        self.at: list[float] = []

    def ring(self) -> None:
        self.rings += 1

    def ring_at(self, time: float) -> None:
        self.at.append(time)


class Lab:
    """One partition led by broker 1, and what a test does to it."""

    def __init__(self, **config: object) -> None:
        settings = ProducerConfig(bootstrap_servers="x:1", **config)  # type: ignore[arg-type]
        self.office = Notes(settings)
        self.topic = Topic(settings.operator_retry_s)
        self.budget = ByteBudget(10**9, 10**9, lambda parcel: None, lambda: None)
        self.bell = Bell()
        self.outbox = Outbox(1, settings, self.bell)
        self.partition = self.add_partition(0)
        self.window = self.partition.window
        self.tally = Tally()
        self.now = 0.0
        self.deliveries: dict[bytes, Delivery] = {}
        self.sent: list[tuple[int, int, int]] = []
        """(epoch, base sequence, count) of every attempt."""

    def add_partition(self, index: int) -> PartitionState:
        partition = PartitionState(self.topic, index, self.office, self.budget)
        partition.lead_by(1, 5, self.outbox, 0.0)
        return partition

    def queue(self, *tails: bytes, partition: PartitionState | None = None) -> Delivery:
        delivery: Delivery
        into = partition or self.partition
        size, count = sum(map(len, tails)), len(tails)
        deadline = self.now + self.office.config.delivery_timeout_s
        assert self.budget.try_take(size + RECORD_COST_BYTES * count)
        if count == 1:
            delivery = into.queue.put(tails[0], size, False, 1000, deadline, self.tally, False)
            into.enqueued_one(self.now)
        else:
            delivery = Bulk(deadline, self.tally, None, None, count, count, [])
            delivery.parts = [Part(delivery, range(count), 1000, count)]
            into.enqueue(delivery.parts[0], tails, size, False, self.now)
        return delivery

    def request(self) -> Request | None:
        request = self.outbox.next_request(self.now)
        if request is not None:
            for _, batch in request.batches:
                self.sent.append((batch.state.epoch, batch.base_sequence, batch.count))
        return request

    def send(self, *tails: bytes) -> tuple[Delivery, Request]:
        """Queue records and write the request that carries them."""
        delivery = self.queue(*tails)
        self.outbox.urge()
        request = self.request()
        assert request is not None
        return delivery, request

    def retry(self) -> Request:
        """The next request, after every backoff is over."""
        self.now += 1000
        self.outbox.urge()
        request = self.request()
        assert request is not None
        return request

    def nothing_to_send(self) -> bool:
        self.now += 1000
        self.outbox.urge()
        return self.request() is None

    def answer(
        self,
        request: Request,
        code: int = 0,
        base_offset: int | None = None,
        *,
        named: tuple[int, ...] = (),
        leader: LeaderHint | None = None,
        log_start: int = 0,
        throttle_ms: int = 0,
    ) -> None:
        """Answer every batch of the oldest request alike."""
        results = [
            PartitionResult(
                topic=partition.tp.topic,
                topic_id=None,
                partition=partition.tp.partition,
                error_code=code,
                base_offset=(100 if code == 0 else -1) if base_offset is None else base_offset,
                record_errors=[RecordError(index, "bad") for index in named],
                current_leader=leader,
                log_start_offset=log_start,
            )
            for partition, _ in request.batches
        ]
        response = ProduceResponse(partitions=results, throttle_time_ms=throttle_ms)
        self.outbox.answered(request, response, self.now, {})

    def warm(self) -> None:
        """One acknowledged record: from now on several batches may be in flight."""
        _, request = self.send(b"warm")
        self.answer(request)

    def check_nothing_left(self) -> None:
        account = self.office.account
        assert (account.used_bytes, account.batches, account.detached_batches) == (0, 0, 0)
        assert (account.detached_records, account.detached_bytes) == (0, 0)
        assert self.budget.used_bytes == 0
        assert self.partition.idle
        assert self.window.cost == self.window.in_flight == 0


@pytest.fixture
def lab() -> Callable[..., Lab]:
    """``lab(**config)``: a fresh one."""
    return Lab
