"""Random programs against the spool on a real file, beside a model of a few lines; ledger B always balances."""

import random
import tempfile
from dataclasses import dataclass, field

import pytest
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from trio.testing import wait_all_tasks_blocked

from collector.spool import select
from collector.spool.base import BUCKETS, Decided, Refused, Selection, Stored
from collector.spool.files import SpoolFiles
from collector.spool.receipt import SpoolReceipt
from collector.spool.spool import DiskSpool
from kafka_client.outcome import Delivered, NotSent, Outcome, TopicPartition, Unknown
from tests.collector.spool.rows import row

OUTCOMES: list[Outcome] = [Delivered(TopicPartition("events", 0), 1, 1, 1), NotSent("closed"), Unknown("closed")]
KEYS = [None, b"a", b"b", b"c", b"d"]
PARTITIONS = 3


@dataclass(slots=True)
class ModelRow:
    """What the file should say of one row."""

    key_hash: int | None
    held: bool
    attempted: bool = False
    in_work: bool = False
    came_attempted: bool = False


@dataclass
class Model:
    """Everything that one program did, and what should be there."""

    seed: int
    directory: str
    small_windows: bool
    rows: dict[int, ModelRow] = field(default_factory=dict)
    values: dict[bytes, int] = field(default_factory=dict)
    held: list[tuple[SpoolReceipt, int, int]] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(("in", "replayed", "resolved", "dead"), 0))
    last_id: int = 0

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)

    async def run(self, steps: int) -> None:
        await trio.lowlevel.checkpoint()
        while steps > 0:
            spool = DiskSpool(SpoolFiles(self.directory, node="n", admin=None), max_bytes=1 << 30, inline=True)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(spool.writer.run)
                await spool.writer.first_try.wait()
                await self.check(spool)
                for _ in range(self.random.randrange(1, 15)):
                    act = self.random.choice([self.submit, self.submit, self.resolve, self.take, self.take, self.end])
                    await act(spool)
                    await self.check(spool)
                    steps -= 1
                spool.writer.close()
            self.restart()

    def restart(self) -> None:
        self.held.clear()
        for each in self.rows.values():
            each.attempted = each.attempted or each.held
            each.held = each.in_work = False

    async def submit(self, spool: DiskSpool) -> None:
        new = [
            row(b"%d" % self.random.getrandbits(60), self.random.choice(KEYS), held=self.random.random() < 0.4)
            for _ in range(self.random.randrange(1, 6))
        ]
        receipt = spool.submit(new)
        decided = {i: self.random.choice(OUTCOMES) for i in range(len(new)) if self.random.random() < 0.2}
        for index, outcome in decided.items():
            receipt.resolve(index, outcome)
        withdrawn = self.random.random() < 0.2
        if withdrawn:
            receipt.withdraw()
        await receipt.wait()
        for index, (each, told) in enumerate(zip(new, receipt.outcomes, strict=True)):
            if each.held and index in decided:
                assert told == Decided(decided[index])
            elif withdrawn:
                assert told == Refused("withdrawn")
            else:
                assert told == Stored()
                self.last_id += 1
                self.rows[self.last_id] = ModelRow(each.key_hash, each.held)
                assert each.record.value is not None
                self.values[each.record.value] = self.last_id
                self.counts["in"] += 1
                if each.held:
                    self.held.append((receipt, index, self.last_id))

    async def resolve(self, spool: DiskSpool) -> None:
        await trio.lowlevel.checkpoint()
        if not self.held:
            return
        receipt, index, row_id = self.held.pop(self.random.randrange(len(self.held)))
        outcome = self.random.choice(OUTCOMES)
        receipt.resolve(index, outcome)
        await wait_all_tasks_blocked()
        if isinstance(outcome, Delivered):
            del self.rows[row_id]
            self.counts["resolved"] += 1
        else:
            self.rows[row_id].held = False
            self.rows[row_id].attempted = isinstance(outcome, Unknown)

    async def take(self, spool: DiskSpool) -> None:
        without = tuple(part for part in range(PARTITIONS) if self.random.random() < 0.3)
        selection = Selection(
            rows=self.random.randrange(1, 8),
            bytes=1 << 20,
            after_id=self.random.choice([0, 0, 0, self.random.randrange(self.last_id + 1)]),
            partitions=PARTITIONS,
            without=without,
            by_key=self.random.random() < 0.5,
        )
        expected = self.expected(selection)
        taken = await spool.take(selection)
        assert [self.values[stored.record.value or b""] for stored in taken] == [stored.id for stored in taken]
        found = [(stored.id, stored.attempted) for stored in taken]
        if self.small_windows:
            # A search may end with its window, but not with nothing, unless what is behind waits for a row in work.
            assert found == expected[: len(found)]
            assert found or not expected or any(each.in_work for each in self.rows.values())
        else:
            assert found == expected
        for stored in taken:
            each = self.rows[stored.id]
            each.in_work, each.came_attempted = True, each.attempted
        if taken and self.random.random() < 0.5:
            await spool.mark_attempted([stored.id for stored in taken])
            for stored in taken:
                self.rows[stored.id].attempted = True

    def expected(self, selection: Selection) -> list[tuple[int, bool]]:
        blocked: set[int] = set()
        chosen = []
        for row_id, each in sorted(self.rows.items()):
            bucket = None if each.key_hash is None else each.key_hash % BUCKETS
            left_out = each.key_hash is not None and each.key_hash % PARTITIONS in selection.without
            ready = not (each.held or each.in_work or left_out) and row_id > selection.after_id
            if ready and not (selection.by_key and bucket in blocked):
                if len(chosen) < selection.rows:
                    chosen.append((row_id, each.attempted))
            elif bucket is not None:
                blocked.add(bucket)
        return chosen

    async def end(self, spool: DiskSpool) -> None:
        await trio.lowlevel.checkpoint()
        ids = [row_id for row_id, each in self.rows.items() if each.in_work and self.random.random() < 0.6]
        if not ids:
            return
        match self.random.choice(["gone", "dead", "back", "proved"]):
            case "gone":
                await spool.gone(ids, "replayed")
                self.leave(ids, "replayed")
            case "dead":
                await spool.dead(dict.fromkeys(ids, "poison"))
                self.leave(ids, "dead")
            case word:
                await spool.back(ids, attempted=word == "back")
                for row_id in ids:
                    each = self.rows[row_id]
                    each.in_work, each.attempted = False, word == "back" or each.came_attempted

    def leave(self, ids: list[int], why: str) -> None:
        for row_id in ids:
            del self.rows[row_id]
        self.counts[why] += len(ids)

    async def check(self, spool: DiskSpool) -> None:
        await wait_all_tasks_blocked()
        found = spool.statistics()
        assert found.difference == 0
        assert (found.state, found.pending_rows, found.pending_bytes) == ("ok", 0, 0)
        assert found.rows == len(self.rows)
        assert found.held_rows == sum(each.held for each in self.rows.values())
        assert found.attempted_rows == sum(each.attempted for each in self.rows.values())
        counts = {
            "in": found.rows_in_total,
            "replayed": found.replayed_total,
            "resolved": found.resolved_total,
            "dead": found.dead_total,
        }
        assert counts == self.counts
        busy = {each.key_hash % BUCKETS for each in self.rows.values() if each.key_hash is not None}
        assert {bucket for bucket in range(BUCKETS) if spool.busy_bucket(bucket)} == busy


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(seed=st.integers(0, 1 << 32), steps=st.integers(10, 60))
def test_random_programs_leave_what_the_model_says(seed: int, steps: int) -> None:
    small_windows = bool(seed % 2)
    with tempfile.TemporaryDirectory() as directory, pytest.MonkeyPatch.context() as patch:
        if small_windows:
            patch.setattr(select, "WINDOW_IDS", 3)
            patch.setattr(select, "WINDOW_IDS_BY_KEY", 2)
            patch.setattr(select, "KEPT_EVERY", 2)
        trio.run(Model(seed, directory, small_windows).run, steps)
