"""The rows: which fault, on which stage, under which load, and what it has to hold.

Owns: the faults themselves. Refuses to know: how figures are made of what happened.

A fault is a coroutine that does its damage and returns when the damage is over; the load runs before, during and after.
"""

import itertools
import random
import signal
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import trio
from confluent_kafka.admin import AdminClient

from tests.faults.load import Spec
from tests.faults.server import Collector
from tests.faults.stage import PARTITIONS, TOPIC, Setup, Stage

if TYPE_CHECKING:
    from kafka import KafkaAdminClient

__all__ = ["ROWS", "Row", "row_of"]

MIB = 1024 * 1024

#: 500 events/s: 100 alone, 300 in batches of ten, 100 over websockets.
USUAL = Spec(
    run="usual",
    log="",
    address="",
    seconds=600.0,
    singles_per_s=100.0,
    batches_per_s=30.0,
    batch_events=10,
    messages_per_s=100.0,
    websockets=20,
    connections=60,
)

PLAIN = Setup()

Fault = Callable[[Stage, "Row", bool], Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One row of the table."""

    name: str
    title: str
    fault: Fault
    setup: Setup = PLAIN
    load: Spec = USUAL
    overload: float = 0.0
    """How many times its capacity the server gets; the capacity is measured just before."""
    outage: bool = False
    """The brokers are away or slow, so every request has to be answered 200 all the same."""
    kills: bool = False
    """A process that clients hang on ends, so some have no answer."""
    timed: bool = False
    """The times of answers are held against the bound of an outage."""
    baseline: bool = False
    seconds: float = 20.0
    """The fault lasts so long."""
    quick_s: float = 10.0
    """And so long with ``--quick``."""
    before_s: float = 4.0
    after_s: float = 8.0

    def lasts_s(self, quick: bool) -> float:
        """The fault's time in this run."""
        return min(self.seconds, self.quick_s) if quick else self.seconds


async def broker_stops(stage: Stage, row: Row, quick: bool) -> None:
    """SIGSTOP: the kernel goes on accepting connections, nobody answers."""
    stage.kafka.pause()
    try:
        await trio.sleep(row.lasts_s(quick))
    finally:
        stage.kafka.resume()


async def broker_dies(stage: Stage, row: Row, quick: bool) -> None:
    """SIGKILL, and a new start."""
    await stage.kafka.kill_node(1)
    await trio.sleep(row.lasts_s(quick))
    await stage.kafka.start_node(1)


async def broker_away(stage: Stage, row: Row, quick: bool) -> None:
    """Ended in good order, and started again."""
    await stage.kafka.stop_node(1)
    await trio.sleep(row.lasts_s(quick))
    await stage.kafka.start_node(1)


async def only_load(stage: Stage, row: Row, quick: bool) -> None:
    """The load is the fault."""
    await trio.sleep(row.lasts_s(quick))


async def answers_late(stage: Stage, row: Row, quick: bool) -> None:
    """Every answer of the broker comes 2 s later than it left."""
    for link in stage.links:
        link.answer_delay_s = 2.0
    await trio.sleep(row.lasts_s(quick))
    for link in stage.links:
        link.restore()


async def collector_killed(stage: Stage, row: Row, quick: bool) -> None:
    """SIGKILL while the broker stands still, so that much is open; then a new start, which adopts the spool."""
    stage.kafka.pause()
    try:
        await trio.sleep(row.lasts_s(quick) / 2)
        await stage.server.kill()
        await trio.sleep(0.5)
        await stage.server.start()
        await trio.sleep(row.lasts_s(quick) / 2)
    finally:
        stage.kafka.resume()


async def collector_terminated(stage: Stage, row: Row, quick: bool) -> None:
    """SIGTERM under load, and a new start when it has drained."""
    for _ in range(2):
        await trio.sleep(row.lasts_s(quick) / 2)
        await stage.server.terminate()
        await stage.server.start()


def _lengths() -> Iterator[int]:
    random_ = random.Random(9)
    while True:
        yield random_.randint(500, 40_000)


async def network_cut(stage: Stage, row: Row, quick: bool) -> None:
    """Every connection to the broker is cut somewhere in its next 40 kB, in both directions, again and again."""
    for link in stage.links:
        link.cut_after("requests", _lengths())
    await trio.sleep(row.lasts_s(quick) / 2)
    for link in stage.links:
        link.restore()
        link.cut_after("answers", (length // 10 for length in _lengths()))
    await trio.sleep(row.lasts_s(quick) / 2)
    for link in stage.links:
        link.restore()


async def nginx_restarted(stage: Stage, row: Row, quick: bool) -> None:
    """As a service is: SIGQUIT, after 2 s SIGTERM, a new start. Three times."""
    for _ in range(3):
        await trio.sleep(row.lasts_s(quick) / 3)
        child = stage.nginx.now.child
        child.signal(signal.SIGQUIT)
        with trio.move_on_after(2):
            await child.wait_ended()
        await stage.nginx.stop()
        await stage.nginx.start()


async def leaders_move(stage: Stage, row: Row, quick: bool) -> None:
    """Every 2 s each partition is led by the next node."""
    from kafka import KafkaAdminClient  # warns while it is imported, and takes long

    servers = stage.kafka.bootstrap_servers
    admin = await trio.to_thread.run_sync(lambda: KafkaAdminClient(bootstrap_servers=servers))
    until = trio.current_time() + row.lasts_s(quick)
    order = itertools.cycle((2, 3, 1))
    try:
        while trio.current_time() < until:
            await trio.to_thread.run_sync(_move_leaders, admin, next(order))
            await trio.sleep(2.0)
    finally:
        admin.close()


def _move_leaders(admin: "KafkaAdminClient", first: int) -> None:
    from kafka import TopicPartition

    order = [first, *({1, 2, 3} - {first})]
    partitions = {TopicPartition(TOPIC, number): order for number in range(PARTITIONS)}
    refused = {place: error for place, error in admin.alter_partition_reassignments(partitions).items() if error}
    if refused:
        raise RuntimeError(f"the leaders do not move: {refused}")
    # Who leads already needs no election; all others are told apart below.
    admin.elect_leaders(0, {TOPIC: list(range(PARTITIONS))}, raise_errors=False)


def leaders_of(bootstrap_servers: str) -> list[int]:
    """Who leads each partition now."""
    admin = AdminClient({"bootstrap.servers": bootstrap_servers, "log_level": 0})
    found = admin.list_topics(TOPIC, timeout=10).topics[TOPIC].partitions
    return [found[number].leader for number in sorted(found)]


async def clock_jumps(stage: Stage, row: Row, quick: bool) -> None:
    """The collector's wall clock goes an hour ahead, and later back again."""
    assert isinstance(stage.server, Collector)
    for seconds in (3600, 0, -3600, 0):
        await trio.Path(stage.clock).write_text(str(seconds))
        stage.server.process.now.child.signal(signal.SIGUSR1)
        await trio.sleep(row.lasts_s(quick) / 4)


ROWS: tuple[Row, ...] = (
    Row(name="1", title="broker stops for 20 s (SIGSTOP)", fault=broker_stops, outage=True, timed=True, baseline=True),
    Row(
        name="2", title="broker dies, back after 15 s (kill -9)", fault=broker_dies, outage=True, timed=True,
        baseline=True, seconds=15.0,
    ),
    Row(
        name="3", title="broker away for 3 minutes", fault=broker_away, outage=True, timed=True, baseline=True,
        seconds=180.0, quick_s=30.0,
    ),
    Row(
        name="4a", title="2 × overload", fault=only_load, overload=2.0, baseline=True, setup=Setup(hold_s=0.0027),
        after_s=0.0,
    ),
    Row(
        name="4b", title="5 × overload", fault=only_load, overload=5.0, baseline=True, setup=Setup(hold_s=0.0027),
        after_s=0.0,
    ),
    Row(
        name="5", title="every answer of the broker 2 s late", fault=answers_late, outage=True, baseline=True,
        setup=Setup(proxied=True), seconds=30.0,
    ),
    Row(name="6", title="collector killed (kill -9), broker stopped", fault=collector_killed, kills=True, seconds=10.0),
    Row(name="7", title="collector ended (SIGTERM), twice", fault=collector_terminated, kills=True, seconds=6.0),
    Row(
        name="8", title="disk full while the broker stands still", fault=broker_stops, seconds=30.0, quick_s=30.0,
        setup=Setup(spool_mount=10 * MIB),
    ),
    Row(name="9", title="network cut mid-frame", fault=network_cut, outage=True, setup=Setup(proxied=True)),
    Row(name="10", title="nginx restarted, three times", fault=nginx_restarted, kills=True, seconds=9.0),
    Row(name="11", title="leaders move every 2 s (three nodes)", fault=leaders_move, outage=True, setup=Setup(nodes=3)),
    Row(name="12", title="clock jumps by an hour, there and back, both ways", fault=clock_jumps),
    Row(
        name="13", title="10 % of the clients do not read, or send a byte a second", fault=only_load, seconds=40.0,
        quick_s=15.0,
        load=Spec(
            run="usual", log="", address="", seconds=600.0, singles_per_s=100.0, batches_per_s=30.0,
            messages_per_s=100.0, websockets=20, connections=180, rude=22,
        ),
    ),
)  # fmt: skip


def row_of(name: str) -> Row:
    """The row of this name. Raises LookupError."""
    for row in ROWS:
        if row.name == name:
            return row
    raise LookupError(name)
