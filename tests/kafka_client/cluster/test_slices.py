"""An answer about very many partitions is taken in while producing goes on."""

from collections.abc import Callable
from itertools import pairwise

import pytest
import trio

from kafka_client import Delivered, NotSent, Record
from kafka_client.cluster import refresher
from kafka_client.observe import LeaderChanged, MetadataFailed, MetadataRefreshed, ProducerObserver
from kafka_client.sending import leaders
from kafka_client.testing.messages import Api

TOPICS = 40
PARTITIONS = 24


class Diary(ProducerObserver):
    """What happened, in order: ``leader``, ``refreshed``, and what a test adds."""

    def __init__(self) -> None:
        self.entries: list[str] = []
        self.failed = trio.Event()
        self.on_leader_changed: Callable[[], object] = lambda: None

    def leader_changed(self, event: LeaderChanged) -> None:
        self.entries.append("leader")
        self.on_leader_changed()

    def metadata_failed(self, event: MetadataFailed) -> None:
        self.failed.set()

    def metadata_refreshed(self, event: MetadataRefreshed) -> None:
        self.entries.append("refreshed")


@pytest.fixture(autouse=True)
def every_step_is_a_slice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refresher, "SLICE_S", 0.0)
    monkeypatch.setattr(leaders, "STEP_PARTITIONS", PARTITIONS)


async def many_topics(s, diary: Diary) -> None:
    """All of them in use, led by broker 1; ``events`` too."""
    for number in range(TOPICS):
        s.cluster.create_topic(f"t{number}", PARTITIONS)
        for index in range(PARTITIONS):
            s.cluster.move_leader(f"t{number}", index, 1)
    outcomes = await s.producer.send_many([Record(f"t{number}", b"%d" % number) for number in range(TOPICS)])
    assert {type(outcome) for outcome in outcomes} == {Delivered}
    await s.outcome(b"warm-up")
    diary.entries.clear()


def move_all(s, leader: int) -> None:
    for number in range(TOPICS):
        for index in range(PARTITIONS):
            s.cluster.move_leader(f"t{number}", index, leader)


def leading(s) -> set[int | None]:
    return {state.leader for state in s.producer.statistics().partitions if state.topic != "events"}


async def test_records_are_delivered_while_an_answer_is_taken_in(scenario, autojump_clock) -> None:
    diary = Diary()
    async with scenario(brokers=2, observer=diary, metadata_max_age_s=5.0) as s:
        await many_topics(s, diary)
        begun = trio.Event()
        diary.on_leader_changed = begun.set
        move_all(s, 2)
        await begun.wait()
        number = 0
        while "refreshed" not in diary.entries:
            number += 1
            assert isinstance(await s.outcome(b"during %d" % number), Delivered)
            diary.entries.append("delivered")
        assert leading(s) == {2}
        meanwhile = diary.entries[: diary.entries.index("refreshed")]
        assert meanwhile.count("leader") == TOPICS * PARTITIONS
        assert meanwhile.count("delivered") >= 2
        assert ("delivered", "leader") in pairwise(meanwhile)


async def test_topic_that_is_first_used_while_an_answer_is_taken_in_is_asked_for(scenario, autojump_clock) -> None:
    diary = Diary()
    async with scenario(brokers=2, observer=diary, metadata_max_age_s=5.0) as s:
        await many_topics(s, diary)
        s.cluster.create_topic("late", 1)
        late = []

        def use() -> None:
            if not late:
                late.append(s.deliver(b"late", topic="late"))

        diary.on_leader_changed = use
        move_all(s, 2)
        await trio.sleep(5.5)
        assert trio.current_time() < 8
        with late[0]:
            await late[0].wait()
        assert isinstance(late[0].outcomes[0], Delivered)
        assert trio.current_time() < 8


@pytest.mark.parametrize("after", [1, PARTITIONS * TOPICS // 2])
async def test_connection_lost_while_an_answer_is_taken_in_has_it_asked_again(
    scenario, autojump_clock, after: int
) -> None:
    diary = Diary()
    async with scenario(brokers=2, observer=diary, metadata_max_age_s=5.0) as s:
        await many_topics(s, diary)
        asked = sum(request.api is Api.METADATA for request in s.cluster.seen.requests)

        def cut() -> None:
            if diary.entries.count("leader") == after:
                s.cluster.close_connections()

        diary.on_leader_changed = cut
        move_all(s, 2)
        await trio.sleep(9)
        assert leading(s) == {2}, "before it was due again"
        assert sum(request.api is Api.METADATA for request in s.cluster.seen.requests) >= asked + 2


async def test_close_while_an_answer_is_taken_in_ends_at_once(scenario, autojump_clock) -> None:
    diary = Diary()
    async with scenario(brokers=2, observer=diary, settle=False, metadata_max_age_s=5.0) as s:
        await many_topics(s, diary)
        s.cluster.faults.stall(append=False, times=None, api=Api.PRODUCE)
        begun = trio.Event()
        diary.on_leader_changed = begun.set
        move_all(s, 2)
        await begun.wait()
        queued = s.deliver(b"queued", topic="t0")
        await s.producer.close(0)
        assert diary.entries.count("leader") < TOPICS * PARTITIONS
        assert isinstance(queued.outcomes[0], NotSent)
        changes = len(diary.entries)
        await trio.sleep(10)
        assert len(diary.entries) == changes


async def test_answer_that_does_not_decode_after_many_topics_changes_nothing(
    scenario, autojump_clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    diary = Diary()
    async with scenario(brokers=2, observer=diary, metadata_max_age_s=5.0) as s:
        await many_topics(s, diary)
        decode_steps = refresher.metadata.decode_steps
        spoilt = []

        def spoil(body, version, known):
            if not spoilt:
                spoilt.append(bytes(body))
                body = bytes(body)[:-20]
            return decode_steps(body, version, known)

        monkeypatch.setattr(refresher.metadata, "decode_steps", spoil)
        move_all(s, 2)
        await diary.failed.wait()
        assert diary.entries == [], "some topics did decode"
        assert "Metadata v" in s.producer.statistics().last_cluster_error
        await trio.sleep(3)
        assert leading(s) == {2}
        assert s.producer.statistics().last_cluster_error == ""
