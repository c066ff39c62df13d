"""Topics that change, quotas, and a disk that is full, under load."""

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trio
from chaos.nodes import Nodes, hold_nodes
from chaos.scenario import Scenario

pytestmark = [pytest.mark.integration, pytest.mark.timeout(150)]


async def test_topic_deleted_and_created_again(scenario: Scenario) -> None:
    """What was in the deleted topic is gone; everything else that was told has to be true of the new one."""
    new: list[tuple[int, float]] = []

    async def fault(s: Scenario) -> None:
        await trio.to_thread.run_sync(s.nodes.delete_topic, s.topic)
        await trio.sleep(0.5)
        await trio.to_thread.run_sync(s.nodes.make_topic, s.topic, s.partitions, s.settings)
        new.append((s.load.handed, trio.current_time()))

    def check(s: Scenario) -> None:
        handed, time = new[0]
        told_later = {number for number, at in s.load.alone_told_at.items() if at > time + 1.0}
        s.books.check(s.found, lost_before=[n for n in range(handed) if n not in told_later])
        after = [n for n, _ in s.books.acknowledged() if n >= handed]
        assert len(after) > s.plan.records // 4, "hardly anything was acknowledged by the new topic"

    await scenario.run(fault, check=check, patient_are_delivered=False)
    handed = new[0][0]
    told = scenario.books.told
    patient = [told[n] for n in scenario.load.patient if n >= handed + 1000 and n not in scenario.books.untold]
    assert patient
    assert {type(outcome).__name__ for outcome in patient} == {"Delivered"}


async def test_partitions_are_added(scenario: Scenario) -> None:
    scenario.partitions = 6

    async def fault(s: Scenario) -> None:
        await trio.to_thread.run_sync(s.nodes.add_partitions, s.topic, 12)

    await scenario.run(fault, metadata_max_age_s=1.0)
    assert {one.partition for one in scenario.found} == set(range(12))


async def test_quota_throttles_the_producer(scenario: Scenario) -> None:
    rate = 200_000

    async def fault(s: Scenario) -> None:
        await trio.to_thread.run_sync(s.nodes.set_quota, "throttled", rate)
        await trio.sleep(6)
        await trio.to_thread.run_sync(s.nodes.set_quota, "throttled", None)

    row = await scenario.run(fault, client_id="throttled", compression="none")
    assert scenario.seen.throttled_s > 1, "nobody was throttled"
    assert row.reconnects == 0


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 64 MB; taken away again whatever happens."""
    disk = tmp_path / "small-disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(disk)], check=True)
    try:
        yield disk
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)


@pytest.fixture
def nodes_with_small_disk(small_disk: Path, tmp_path: Path) -> Iterator[Nodes]:
    """Node 1 keeps half of its partitions on the small disk; what the controllers share is on the other half."""
    directory = tmp_path / "nodes"

    def properties(node: int) -> dict[str, str]:
        # A copy that cannot be written any more is out of sync only after this; 30 s by default.
        lag = {"replica.lag.time.max.ms": "5000"}
        return lag | ({"log.dirs": f"{directory / 'node-1'},{small_disk / 'logs'}"} if node == 1 else {})

    with hold_nodes(directory, properties) as held:
        yield held


def fill(path: Path) -> None:
    """Write until the disk is full."""
    with path.open("wb", buffering=0) as file, pytest.raises(OSError, match="No space left"):
        for _ in range(10_000):
            file.write(bytes(64 * 1024))


async def test_disk_of_one_node_is_full(
    nodes_with_small_disk: Nodes, small_disk: Path, make_scenario: Callable[[Nodes], Scenario]
) -> None:
    scenario = make_scenario(nodes_with_small_disk)

    async def fault(s: Scenario) -> None:
        fill(small_disk / "filler")
        await trio.sleep(6)
        (small_disk / "filler").unlink()

    await scenario.run(fault, whole=False)
    assert scenario.seen.codes[56] > 0, "KAFKA_STORAGE_ERROR was never answered"
