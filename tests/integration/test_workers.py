"""A supervisor with its workers as an operator meets them: real processes, sockets and signals, under load.

The broker is the mock cluster: what is tested here is who accepts, who answers, who counts, not what Kafka keeps.
"""

import contextlib
import io
import json
import os
import signal
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
from prometheus_client.parser import text_string_to_metric_families as parse_text

from collector.cli.main import main
from collector.config import Config, HttpConfig, WorkersConfig
from collector.devtools.background import hold_open
from collector.devtools.collector_child import CollectorChild, open_collector
from collector.devtools.mock import MockKafka, open_mock
from collector.devtools.nginx import open_nginx
from collector.devtools.raw_http import HttpConnection, NoAnswer, open_http
from collector.workers.settings import Settings, read_anew
from collector.workers.sockets import open_sockets
from collector.workers.supervisor import Supervisor
from collector.workers.totals import EXIT_CONFIGURATION

pytestmark = pytest.mark.integration

#: Clients of each kind.
CLIENTS = 2
PAUSE_S = 0.05
DELAY_S = 0.6
HUNG_S = 1.5
#: A worker's start on a busy machine, and more.
SOON_S = 40.0
LOOK_S = 0.02


@pytest.fixture(scope="module")
def broker() -> Iterator[MockKafka]:
    with hold_open(open_mock) as mock:
        yield mock


@pytest.fixture
def tables(broker: MockKafka) -> dict[str, dict[str, object]]:
    return {
        "kafka": {"bootstrap_servers": broker.bootstrap_servers.split(",")},
        "shutdown": {"delay_s": DELAY_S},
        "workers": {"count": 2, "hung_s": HUNG_S},
        # Interpreters that start beside it hold up a small machine's loops: that is not what is looked at here.
        "deadlines": {"kafka_s": 2.0},
        "limits": {"max_lag_s": 1.2},
    }


@dataclass
class Seen:
    """What the clients were told."""

    statuses: Counter[int] = field(default_factory=Counter)
    failed_at: list[str | None] = field(default_factory=list)
    """For each connection that ended under a request: the worker that it had its last answer from."""
    refused: int = 0
    """Connects."""
    worst_s: float = 0.0
    refusals: set[str] = field(default_factory=set)
    """What was said beside another status than 200."""


class Load:
    """Clients that post one event after the other until they are told to stop."""

    def __init__(self, address: str, *, also: str | None = None) -> None:
        self.seen = Seen()
        self._addresses = [address] if also is None else [address, also]
        self._stop = trio.Event()
        self._ended = trio.Event()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        async with trio.open_nursery() as clients:
            for address in self._addresses:
                for number in range(CLIENTS):
                    clients.start_soon(self._client, address, f"{id(self)}-{address}-k{number}", True)
                    clients.start_soon(self._client, address, f"{id(self)}-{address}-n{number}", False)
            await self.wait_answers(20)
            task_status.started()
        self._ended.set()

    async def stop(self) -> Seen:
        self._stop.set()
        await self._ended.wait()
        return self.seen

    async def wait_answers(self, more: int) -> None:
        """Wait for so many further answers."""
        wanted = self.seen.statuses.total() + more
        await until(lambda: self.seen.statuses.total() >= wanted)

    async def _client(self, address: str, name: str, keep_alive: bool) -> None:
        await trio.lowlevel.checkpoint()
        number = 0
        while not self._stop.is_set():
            try:
                async with open_http(address) as http:
                    number = await self._post_on(http, name, number, keep_alive)
            except OSError:
                self.seen.refused += 1
                await trio.sleep(PAUSE_S)

    async def _post_on(self, http: HttpConnection, name: str, number: int, keep_alive: bool) -> int:
        await trio.lowlevel.checkpoint()
        worker: str | None = None
        while not self._stop.is_set():
            event = {"writeKey": "k", "type": "track", "event": "x", "userId": name, "messageId": f"{name}-{number}"}
            number += 1
            try:
                reply = await http.request("POST", "/v1/track", json.dumps(event).encode())
            except NoAnswer:
                self.seen.failed_at.append(worker)
                return number
            worker = reply.headers.get("x-request-id", "").partition("-")[0]
            self.seen.statuses[reply.status] += 1
            if reply.status != 200:
                self.seen.refusals.add(reply.body.decode())
            self.seen.worst_s = max(self.seen.worst_s, reply.seconds)
            await trio.sleep(PAUSE_S)
            if not keep_alive or reply.headers.get("connection") == "close":
                return number
        return number


async def until(true: Callable[[], bool]) -> None:
    await trio.lowlevel.checkpoint()
    for _ in range(round(SOON_S / LOOK_S)):
        if true():
            return
        await trio.sleep(LOOK_S)
    raise AssertionError("not soon enough")


@asynccontextmanager
async def loaded(address: str, *, also: str | None = None) -> AsyncIterator[Load]:
    load = Load(address, also=also)
    async with trio.open_nursery() as nursery:
        await nursery.start(load.run)
        yield load
        await load.stop()


async def workers_of(collector: CollectorChild) -> dict[int, dict[str, Any]]:
    return {worker["number"]: worker for worker in (await collector.ask("/debug/workers"))["workers"]}


async def wait_workers(
    collector: CollectorChild, good: Callable[[Mapping[int, Mapping[str, Any]]], bool]
) -> dict[int, dict[str, Any]]:
    with trio.fail_after(SOON_S):
        while True:
            workers = await workers_of(collector)
            if good(workers):
                return workers
            await trio.sleep(0.05)
    raise AssertionError


def all_ready(workers: Mapping[int, Mapping[str, Any]]) -> bool:
    return all(worker["ready"] for worker in workers.values())


def pids(workers: Mapping[int, Mapping[str, Any]]) -> set[int]:
    return {worker["pid"] for worker in workers.values()}


def events_of(collector: CollectorChild, event: str) -> list[dict[str, Any]]:
    return [line for line in collector.log if line["event"] == event]


async def wait_stopped(collector: CollectorChild) -> dict[str, Any]:
    """The last line of all, and the exit code that it names."""
    with trio.fail_after(SOON_S):
        code = await collector.child.wait_ended()
    await until(lambda: collector.log[-1]["event"] == "stopped" and "workers" in collector.log[-1])
    last = collector.log[-1]
    assert last["code"] == code
    return last


@pytest.mark.timeout(150)
async def test_worker_that_is_killed_and_one_that_hangs_are_replaced(
    tables: dict[str, dict[str, object]], tmp_path: Path
) -> None:
    async with open_collector(tmp_path, tables) as collector:
        await killed_worker_takes_only_what_it_had_in_its_hands(collector)
        await stopped_supervisor_takes_nobody_for_hung(collector)
        await hung_worker_is_replaced_and_its_stacks_are_in_the_log(collector)
        collector.child.signal(signal.SIGTERM)
        last = await wait_stopped(collector)
    # The hung one, woken, drained and reported as any other.
    assert (last["code"], last["workers"], last["unreported"]) == (3, 4, 1)


async def killed_worker_takes_only_what_it_had_in_its_hands(collector: CollectorChild) -> None:
    before = await wait_workers(collector, all_ready)
    async with loaded(collector.http) as load:
        victims = {line["node"] for line in events_of(collector, "ready") if line["worker"] == 0}
        os.kill(before[0]["pid"], signal.SIGKILL)
        after = await wait_workers(collector, lambda now: all_ready(now) and now[0]["pid"] != before[0]["pid"])
        await load.wait_answers(50)
    seen = load.seen
    assert after[1]["pid"] == before[1]["pid"]
    # One that it had accepted and not answered yet has had no answer of anybody.
    assert set(seen.failed_at) <= victims | {None}, (seen, victims)
    assert len(seen.failed_at) <= 2 * CLIENTS
    assert (seen.refused, set(seen.statuses)) == (0, {200}), seen
    page = (await collector.asking.request("GET", "/metrics")).body.decode()
    assert 'collector_workers_restarts_total{reason="killed"} 1.0' in page


async def stopped_supervisor_takes_nobody_for_hung(collector: CollectorChild) -> None:
    before = await workers_of(collector)
    collector.child.pause()
    await trio.sleep(1.5 * HUNG_S)
    collector.child.resume()
    await trio.sleep(0.5)
    assert pids(await workers_of(collector)) == pids(before)


async def hung_worker_is_replaced_and_its_stacks_are_in_the_log(collector: CollectorChild) -> None:
    before = await wait_workers(collector, all_ready)
    stopped_at = trio.current_time()
    os.kill(before[1]["pid"], signal.SIGSTOP)
    await wait_workers(collector, lambda now: all_ready(now) and now[1]["pid"] != before[1]["pid"])
    assert trio.current_time() - stopped_at > HUNG_S * 0.8
    (line,) = events_of(collector, "a worker hangs: its stacks follow, and it is replaced")
    assert (line["worker"], line["pid"]) == (1, before[1]["pid"])
    async with loaded(collector.http) as load:
        await load.wait_answers(50)
    assert (load.seen.failed_at, load.seen.refused, set(load.seen.statuses)) == ([], 0, {200})
    page = (await collector.asking.request("GET", "/metrics")).body.decode()
    assert "collector_workers_hung_total 1.0" in page
    await until(lambda: not alive(before[1]["pid"]))
    assert any("most recent call first" in line for line in collector.child.tail), "no stacks"


def alive(pid: int) -> bool:
    """Whether it runs: nobody may be there to wait for who has ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def rewrite(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


async def reload(collector: CollectorChild, result: str) -> None:
    before = len(events_of(collector, result))
    collector.child.signal(signal.SIGHUP)
    await until(lambda: len(events_of(collector, result)) > before)


@pytest.mark.timeout(150)
async def test_reload_under_load_fails_no_request_and_the_counts_of_all_workers_add_up(
    tables: dict[str, dict[str, object]], tmp_path: Path
) -> None:
    file = tmp_path / "collector.toml"
    async with open_collector(tmp_path, tables) as collector:
        upstream = collector.http.removeprefix("http://")
        before = await wait_workers(collector, all_ready)
        async with (
            open_nginx(Config(), tmp_path / "nginx", upstreams=[upstream], listen="127.0.0.1:0") as nginx,
            loaded(collector.http, also=nginx.address) as load,
        ):
            # Fewer workers.
            rewrite(file, "count = 2", "count = 1")
            await reload(collector, "reload: done")
            fewer = await wait_workers(collector, all_ready)
            assert len(fewer) == 1
            # A configuration that cannot work changes nothing.
            rewrite(file, "count = 1", "count = 0")
            await reload(collector, "reload: refused, everything stays as it is")
            assert "workers.count" in collector.log[-1]["why"]
            assert pids(await workers_of(collector)) == pids(fewer)
            # More.
            rewrite(file, "count = 0", "count = 2")
            await reload(collector, "reload: done")
            more = await wait_workers(collector, all_ready)
            assert (len(more), len(pids(before) | pids(fewer) | pids(more))) == (2, 5), "each is another process"
            await load.wait_answers(50)
            seen = await load.stop()
            assert (seen.failed_at, seen.refused, set(seen.statuses)) == ([], 0, {200}), seen
        page = (await collector.asking.request("GET", "/metrics")).body.decode()
        assert 'collector_workers_reloads_total{result="done"} 2.0' in page
        assert 'collector_workers_reloads_total{result="refused"} 1.0' in page
        collector.child.signal(signal.SIGTERM)
        last = await wait_stopped(collector)
    assert (last["code"], last["workers"], last["unreported"]) == (0, 5, 0)
    assert last["received"] == last["delivered"] + last["spooled"] == seen.statuses[200]
    assert (last["difference"], last["spool_difference"]) == (0, 0)


@pytest.mark.timeout(150)
async def test_one_admin_address_has_everybody_and_a_signal_drains_them_under_load(
    tables: dict[str, dict[str, object]], tmp_path: Path
) -> None:
    async with open_collector(tmp_path, tables) as collector:
        workers = await wait_workers(collector, all_ready)
        async with loaded(collector.http) as load:
            await load.wait_answers(50)
        answered = load.seen.statuses.total()
        admin = collector.asking
        ready = await admin.request("GET", "/readyz")
        assert (ready.status, ready.body) == (200, b"ready\nworker 0: ready\nworker 1: ready\n")
        assert (await admin.request("GET", "/healthz")).body == b"ok\n"
        page = (await admin.request("GET", "/metrics")).body.decode()
        delivered = [
            sample
            for family in parse_text(page)
            for sample in family.samples
            if sample.name == "collector_events_total" and sample.labels["outcome"] == "delivered"
        ]
        assert {sample.labels["worker"] for sample in delivered} == {"0", "1"}
        assert all(sample.value > 0 for sample in delivered), "the kernel spreads connections"
        assert sum(sample.value for sample in delivered) == answered
        for number, worker in workers.items():
            tasks = (await admin.request("GET", f"/worker/{number}/debug/tasks")).body.decode()
            assert f"pid {worker['pid']}" in tasks
            stats = await collector.ask(f"/worker/{number}/debug/stats?since=0")
            assert stats["pid"] == worker["pid"]
        dashboard = await admin.request("GET", "/worker/1/")
        assert b"debug/stats?since=" in dashboard.body
        assert "default-src 'none'" in dashboard.headers["content-security-policy"]
        await orders_reach_their_worker(collector)
        await the_ledgers_of_all_are_one(collector, answered)
        async with loaded(collector.http) as load:
            collector.child.signal(signal.SIGTERM)
            await until(lambda: bool(events_of(collector, "signal")))
            ready = await admin.request("GET", "/readyz")
            assert (ready.status, ready.body[:9]) == (503, b"draining\n")
            last = await wait_stopped(collector)
    # What the clients saw is what the last line says, and nobody listens any more.
    assert set(load.seen.statuses) == {200}
    assert load.seen.refused > 0
    assert (last["code"], last["workers"], last["unreported"]) == (0, 2, 0)
    assert last["received"] == last["delivered"] + last["spooled"] == answered + load.seen.statuses[200]


async def orders_reach_their_worker(collector: CollectorChild) -> None:
    files = [
        Path((await collector.ask(f"/worker/{number}/debug/stats"))["sources"]["spool"]["path"]).name
        for number in range(2)
    ]
    assert files[0] != files[1]

    async def order(path: str, file: str, kind: str = "application/json") -> tuple[int, str]:
        reply = await collector.asking.request(
            "POST", path, json.dumps({"file": file}).encode(), {"Content-Type": kind}
        )
        return reply.status, reply.body.decode()

    for number, file in enumerate(files):
        assert (await order("/control/spool/replay", file))[0] == 200
        assert (await order(f"/worker/{number}/control/spool/replay", file))[0] == 200
        status, said = await order(f"/worker/{1 - number}/control/spool/replay", file)
        assert (status, f"{file} is not this process's file" in said) == (409, True)
    assert (await order("/control/spool/replay", "nobody's"))[0] == 409
    assert (await order("/control/spool/replay", files[0], "text/plain"))[0] == 403
    assert (await order("/worker/0/control/spool/replay", files[0], "text/plain"))[0] == 403


async def the_ledgers_of_all_are_one(collector: CollectorChild, answered: int) -> None:
    await trio.sleep(1.1)  # both have been read once more by then
    printed = io.StringIO()

    def report() -> int:
        with contextlib.redirect_stdout(printed):
            return main(["report", "ledger", "--json", "--admin", collector.admin])

    assert await trio.to_thread.run_sync(report) == 0
    totals = json.loads(printed.getvalue())["totals"]
    assert (totals["received"], totals["delivered"], totals["difference"]) == (answered, answered, 0)


@pytest.mark.timeout(150)
async def test_workers_drain_when_their_supervisor_is_killed(
    tables: dict[str, dict[str, object]], tmp_path: Path
) -> None:
    async with open_collector(tmp_path, tables) as collector:
        workers = await wait_workers(collector, all_ready)
        async with loaded(collector.http) as load:
            os.kill(collector.child.pid, signal.SIGKILL)
            await until(lambda: not any(alive(worker["pid"]) for worker in workers.values()))
            await until(lambda: len(events_of(collector, "stopped")) == 2)
        assert len(events_of(collector, "the supervisor is gone")) == 2
        ends = events_of(collector, "stopped")
    assert {end["code"] for end in ends} == {0}
    assert sum(end["delivered"] + end["spooled"] for end in ends) == load.seen.statuses[200]


@pytest.mark.timeout(150)
async def test_configuration_that_no_worker_can_start_with_ends_the_supervisor_with_2(
    capfd: pytest.CaptureFixture[str],
) -> None:
    config = Config(http=HttpConfig(bind="127.0.0.1:0"), workers=WorkersConfig(count=2))
    refused = Settings(config=config, encoded=b'{"http": "of another version"}')
    with closing(await open_sockets(config.http, 2)) as sockets, trio.fail_after(SOON_S):
        supervisor = Supervisor(refused, sockets, partial(read_anew, "nowhere"))
        assert await supervisor.run() == EXIT_CONFIGURATION
    assert not supervisor.served
    assert "is not understood" in capfd.readouterr().err
