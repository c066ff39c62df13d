"""Which partitions are diverted, from health alone and against the strict fake cluster; virtual time."""

import itertools
import json
import random

import pytest
import trio

from collector.config import LogConfig
from collector.ingest.diversion import LOOK_S, Diversion
from collector.log import configure_logging
from kafka_client import PartitionHealth, ProducerConfig, Record, open_producer
from kafka_client.testing import open_fake_cluster

STALL_S = 1.0


class Patients:
    """Tells whatever health a test wants."""

    def __init__(self, count: int) -> None:
        self.leader: list[int | None] = [1] * count
        self.operator_error = [False] * count
        self.oldest_at: list[float | None] = [None] * count
        self.answered_at: list[float | None] = [None] * count
        self.known = True
        self.asked = 0

    def partition_health(self, topic: str) -> list[PartitionHealth] | None:
        self.asked += 1
        if not self.known:
            return None
        members = zip(self.leader, self.operator_error, self.oldest_at, self.answered_at, strict=True)
        return [PartitionHealth(*member) for member in members]


@pytest.fixture
async def patients(autojump_clock) -> Patients:
    await trio.sleep(100)
    return Patients(4)


@pytest.fixture
async def diversion(patients) -> Diversion:
    await trio.lowlevel.checkpoint()
    return Diversion(patients, topic="events", stall_s=STALL_S, rng=random.Random(1))


def ill(diversion: Diversion) -> dict[int, str]:
    """What is diverted now, and why, by the statistics."""
    return {one.partition: one.why for one in diversion.statistics().partitions}


async def test_healthy_and_idle_partitions_are_not_diverted(patients, diversion, autojump_clock) -> None:
    await trio.sleep(1)
    patients.answered_at[0] = 1.0
    assert diversion.look() is False
    assert (diversion.diverted("events"), diversion.probes("events")) == (frozenset(), frozenset())
    assert diversion.is_diverted(0) is False
    assert diversion.is_diverted(None) is False
    assert repr(diversion) == "<Diversion of []>"


@pytest.mark.parametrize("why", ["no_leader", "operator_error", "stalled"])
async def test_each_illness_diverts_its_partition_alone(patients, diversion, why, autojump_clock) -> None:
    await trio.sleep(1)
    if why == "no_leader":
        patients.leader[1] = None
    elif why == "operator_error":
        patients.operator_error[1] = True
    else:
        patients.answered_at[0] = trio.current_time()
        patients.oldest_at[1] = trio.current_time() - STALL_S
        assert diversion.look() is False, "not older than stall_s"
        await trio.sleep(LOOK_S)
    assert diversion.look() is True
    assert ill(diversion) == {1: why}
    assert diversion.is_diverted(1 + 4 * 7) is True
    assert diversion.is_diverted(2) is False
    assert diversion.is_diverted(None) is False, "events without a key go around it"


async def test_it_is_looked_at_every_20_ms_however_often_it_is_asked(patients, diversion, autojump_clock) -> None:
    for _ in range(1000):
        diversion.look()
        diversion.diverted("events")
        diversion.probes("events")
    assert patients.asked == 1
    await trio.sleep(LOOK_S)
    diversion.look()
    assert patients.asked == 2


async def test_lag_of_our_own_loop_is_not_kafkas_silence(patients, autojump_clock) -> None:
    """Or an overload would send to the disk what Kafka takes, and be served twice."""
    lag_s = [0.4]
    diversion = Diversion(patients, topic="events", stall_s=STALL_S, lag_s=lambda: lag_s[0])
    patients.oldest_at[1] = trio.current_time() - 1.7
    assert diversion.look() is False
    lag_s[0] = 0.3
    await trio.sleep(LOOK_S)
    assert diversion.look() is True


async def test_only_an_answer_brings_it_back(patients, diversion, autojump_clock) -> None:
    patients.leader[2] = None
    diversion.look()
    patients.leader[2] = 1  # a new leader, and nobody has heard of it
    patients.answered_at[2] = trio.current_time() - 0.5  # the old one's
    await trio.sleep(30)
    assert ill(diversion) == {2: "unanswered"}
    assert diversion.probes("events") == {2}
    patients.oldest_at[2] = trio.current_time()  # the probe is under way
    await trio.sleep(LOOK_S)
    assert (diversion.diverted("events"), diversion.probes("events")) == ({2}, frozenset())
    patients.oldest_at[2], patients.answered_at[2] = None, trio.current_time()
    await trio.sleep(LOOK_S)
    assert diversion.diverted("events") == frozenset()
    assert diversion.look() is False


async def test_quiet_partitions_of_a_silent_leader_are_diverted_with_the_stalled_one(
    patients, diversion, autojump_clock
) -> None:
    """Or the first event for each would be the probe."""
    patients.leader[3] = 2
    patients.answered_at[0] = trio.current_time() - STALL_S - 0.1
    patients.oldest_at[1] = trio.current_time() - STALL_S - 0.1
    diversion.look()
    assert ill(diversion) == {0: "leader_silent", 1: "stalled", 2: "leader_silent"}
    assert diversion.probes("events") == frozenset(), "the stalled batch is the probe for all"
    await trio.sleep(10)
    patients.oldest_at[1] = None  # its record was taken back, and nothing was proved
    await trio.sleep(LOOK_S)
    assert ill(diversion) == {0: "leader_silent", 1: "unanswered", 2: "leader_silent"}
    assert diversion.probes("events") == {1}
    patients.oldest_at[1] = trio.current_time() - 2
    await trio.sleep(LOOK_S)
    patients.answered_at[0] = trio.current_time()  # somebody else's batch
    await trio.sleep(LOOK_S)
    assert ill(diversion) == {1: "stalled"}
    patients.oldest_at[1] = None
    await trio.sleep(LOOK_S)
    assert ill(diversion) == {1: "unanswered"}


async def test_quiet_partition_whose_silent_leader_has_nothing_to_be_probed_with_is_probed_itself(
    patients, diversion, autojump_clock
) -> None:
    patients.oldest_at[1] = trio.current_time() - 2
    diversion.look()
    assert set(ill(diversion).values()) == {"stalled", "leader_silent"}
    patients.leader[1] = 2  # the stalled one moves away; the old leader is as silent as before
    patients.leader[3] = 2
    await trio.sleep(LOOK_S)
    assert ill(diversion) == {0: "leader_silent", 1: "stalled", 2: "leader_silent", 3: "leader_silent"}
    assert diversion.probes("events") == {0, 2}


async def test_answers_of_a_partition_that_stays_stalled_do_not_bring_it_back(
    patients, diversion, autojump_clock
) -> None:
    """NOT_ENOUGH_REPLICAS: it answers, and takes nothing."""
    patients.oldest_at[0] = trio.current_time() - 2
    for _ in range(100):
        patients.answered_at[0] = trio.current_time()
        await trio.sleep(0.1)
        assert diversion.look() is True
    assert diversion.probes("events") == frozenset(), "the batch in retry is the probe"
    patients.oldest_at[0], patients.answered_at[0] = None, trio.current_time()
    await trio.sleep(LOOK_S)
    assert diversion.look() is False


async def test_answer_counts_when_nobody_looked_for_long(patients, diversion, autojump_clock) -> None:
    patients.oldest_at[0] = trio.current_time() - 2
    diversion.look()
    await trio.sleep(1)
    patients.oldest_at[0], patients.answered_at[0] = None, trio.current_time()
    await trio.sleep(3600)
    assert diversion.look() is False


async def test_topic_that_stays_unknown_for_stall_s_from_the_start_is_diverted(
    patients, diversion, autojump_clock
) -> None:
    patients.known = False
    await trio.sleep(STALL_S)
    assert diversion.look() is False
    await trio.sleep(LOOK_S)
    assert diversion.look() is True
    assert ill(diversion) == {-1: "no_metadata"}
    assert diversion.is_diverted(7) is True
    assert diversion.is_diverted(None) is True
    assert diversion.healthy_partition() is None
    assert (diversion.diverted("events"), diversion.probes("events")) == (frozenset(), frozenset())

    patients.known = True
    patients.answered_at[3] = trio.current_time() + 0.01  # the probe, when its partition was known
    await trio.sleep(LOOK_S)
    assert ill(diversion) == dict.fromkeys([0, 1, 2], "unanswered")
    assert diversion.probes("events") == {0, 1, 2}
    patients.answered_at[:3] = [trio.current_time()] * 3
    await trio.sleep(LOOK_S)
    assert diversion.look() is False


async def test_log_names_partition_minus_1_of_0(patients, diversion, capsys, autojump_clock) -> None:
    patients.known = False
    await trio.sleep(STALL_S + LOOK_S)
    configure_logging(LogConfig(format="json"))
    diversion.look()
    configure_logging(LogConfig(format="console"))
    [line] = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert (line["partitions"], line["why"]) == ("all: the topic's partitions are unknown", ["no_metadata"])
    assert "of" not in line


async def test_topic_that_becomes_known_quickly_is_never_diverted(patients, diversion, autojump_clock) -> None:
    patients.known = False
    diversion.look()
    await trio.sleep(0.5)
    patients.known = True
    await trio.sleep(1000)
    assert diversion.look() is False
    patients.known = False  # it cannot be, but nothing old is held against it
    await trio.sleep(LOOK_S)
    assert diversion.look() is False


async def test_events_without_a_key_stay_on_a_healthy_partition_for_a_while(
    patients, diversion, autojump_clock
) -> None:
    patients.leader[0] = patients.leader[2] = None
    diversion.look()
    chosen = []
    for _ in range(200):
        chosen.append(diversion.healthy_partition())
        await trio.sleep(0.01)
        diversion.look()
    assert set(chosen) == {1, 3}
    changes = sum(before != after for before, after in itertools.pairwise(chosen))
    assert changes <= 20, "a tenth of a second each"
    patients.leader[chosen[-1]] = None
    await trio.sleep(LOOK_S)
    diversion.look()
    assert diversion.healthy_partition() == ({1, 3} - {chosen[-1]}).pop()
    patients.leader[:] = [None] * 4
    await trio.sleep(LOOK_S)
    diversion.look()
    assert diversion.healthy_partition() is None
    assert diversion.is_diverted(None) is True


async def test_without_somewhere_to_go_nothing_is_diverted_and_the_illness_is_shown(patients, autojump_clock) -> None:
    usable = [False]
    diversion = Diversion(patients, topic="events", stall_s=STALL_S, usable=lambda: usable[0])
    patients.leader[0] = None
    assert (diversion.look(), diversion.open, diversion.active) == (False, False, False)
    assert ill(diversion) == {0: "no_leader"}
    assert diversion.diverted("events") == {0}, "the replay has to know"
    usable[0] = True
    await trio.sleep(LOOK_S)
    assert (diversion.look(), diversion.open, diversion.active) == (True, True, True)


async def test_another_topic_of_old_rows_has_a_view_of_its_own(patients, diversion, autojump_clock) -> None:
    await trio.sleep(1)
    patients.leader[3] = None
    assert diversion.diverted("events-before") == {3}
    assert diversion.probes("events-before") == {3}
    asked = patients.asked
    assert diversion.diverted("events-before") == {3}
    assert patients.asked == asked
    assert diversion.statistics().diverted_partitions == 2


async def test_statistics_count_diversions_and_their_seconds(patients, diversion, autojump_clock) -> None:
    patients.leader[0] = patients.leader[1] = None
    diversion.look()
    await trio.sleep(10)
    statistics = diversion.statistics()
    assert (statistics.diverted_partitions, statistics.unprobed_partitions) == (2, 2)
    assert (statistics.diversions_total, statistics.diverted_seconds_total) == (2, 20)
    assert [one.since_s for one in statistics.partitions] == [10, 10]
    patients.leader[0], patients.answered_at[0] = 1, trio.current_time()
    await trio.sleep(1)
    statistics = diversion.statistics()
    assert (statistics.diverted_partitions, statistics.diversions_total) == (1, 2)


async def test_stopped_broker_and_its_return_as_the_producer_tells_it(autojump_clock) -> None:
    async with open_fake_cluster(topics={"events": 3}) as cluster:
        config = ProducerConfig(bootstrap_servers=cluster.bootstrap_servers, batch_timeout_s=float("inf"))
        async with open_producer(config, connector=cluster.connector) as producer:
            diversion = Diversion(producer, topic="events", stall_s=STALL_S)
            assert diversion.look() is False
            for partition in range(3):
                await producer.send(Record("events", b"warm-up", partition=partition))
            cluster.pause_broker(1)
            with producer.delivery([Record("events", b"caught", partition=1)]) as caught, trio.move_on_after(0.5):
                await caught.wait()
            await trio.sleep(0.45)
            assert diversion.look() is False
            await trio.sleep(0.1)
            assert diversion.look() is True
            assert ill(diversion) == {0: "leader_silent", 1: "stalled", 2: "leader_silent"}
            await trio.sleep(20)
            assert diversion.probes("events") == frozenset(), "the detached batch is the probe"
            cluster.resume_broker(1)
            with trio.fail_after(5):  # noqa: ASYNC912  # the loop waits
                while diversion.look():  # noqa: ASYNC110  # it has no event
                    await trio.sleep(0.01)
            assert cluster.values("events").count(b"caught") == 1
