"""The admin address of a supervisor, over sockets: one worker that answers, one that does not, one that is starting."""

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx  # noqa: ASYNC127  # the client that the collector itself uses
import pytest
import trio
from prometheus_client.parser import text_string_to_metric_families as parse_text

from collector.config import AdminConfig, Config
from collector.monitor import Monitor, open_monitor
from collector.monitor.control import ORDER_MAX_BYTES
from collector.monitor.listeners import address_of, bind_listener, serve_app
from collector.monitor.monitor import OrderRefused
from collector.workers.admin import make_admin_app, make_metrics_app
from collector.workers.statistics import Statistics, WorkerStatistics

JSON = {"Content-Type": "application/json"}


@asynccontextmanager
async def served(make, monitor: Monitor) -> AsyncIterator[httpx.AsyncClient]:
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))  # nobody listens there
        workers = (
            WorkerStatistics(number=0, state="serving", ready=True, word="ready", pid=7, admin=monitor.admin_address),
            WorkerStatistics(number=1, state="serving", ready=False, word="lagging", pid=8, admin=address_of(deaf)),
            WorkerStatistics(number=2, state="starting", ready=False, word="starting"),
        )
        statistics = Statistics(
            workers=workers, leaving=False, reloading=False, restarts={"hung": 1}, reloads={}, errors={}
        )
        with bind_listener("admin.bind", "127.0.0.1:0") as listener:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(serve_app, make(lambda: statistics), listener)
                async with httpx.AsyncClient(trust_env=False, base_url=address_of(listener)) as client:
                    yield client
                nursery.cancel_scope.cancel()


@pytest.fixture
async def monitor():
    async with open_monitor(Config(admin=AdminConfig(bind="127.0.0.1:0"))) as monitor:
        yield monitor


async def test_pages_of_one_worker_come_through(monitor: Monitor) -> None:
    async with served(make_admin_app, monitor) as client:
        stats = await client.get("/worker/0/debug/stats?since=0")
        assert (stats.status_code, stats.json()["word"]) == (200, "starting")
        dashboard = await client.get("/worker/0/")
        assert "default-src 'none'" in dashboard.headers["content-security-policy"]
        assert (await client.get("/worker/0")).headers["location"] == "/worker/0/"
        assert (await client.get("/worker/0/nowhere")).status_code == 404
        for number, state in ((1, "serving"), (2, "starting")):
            answer = await client.get(f"/worker/{number}/debug/stats")
            assert (answer.status_code, answer.text) == (503, f"worker {number} ({state}) does not answer\n")
        assert (await client.get("/worker/3/")).text == "there is no worker 3\n"
        missing = await client.get("/debug/tasks")
        assert (missing.status_code, "/worker/0/debug/tasks" in missing.text) == (404, True)


async def test_overview_links_to_each_worker_and_loads_nothing(monitor: Monitor) -> None:
    async with served(make_admin_app, monitor) as client:
        page = await client.get("/")
        for number in range(3):
            assert f'href="worker/{number}/"' in page.text
        assert "<h1>collector: ready</h1>" in page.text
        assert "default-src 'none'" in page.headers["content-security-policy"]
        assert [worker["word"] for worker in (await client.get("/debug/workers")).json()["workers"]] == [
            "ready",
            "lagging",
            "starting",
        ]


@pytest.mark.parametrize("make", [make_admin_app, make_metrics_app])
async def test_health_and_metrics_are_of_all(monitor: Monitor, make) -> None:
    async with served(make, monitor) as client:
        ready = await client.get("/readyz")
        assert ready.text == "ready\nworker 0: ready\nworker 1: lagging\nworker 2: starting\n"
        assert (ready.status_code, (await client.get("/healthz")).text) == (200, "ok\n")
        samples = [s for family in parse_text((await client.get("/metrics")).text) for s in family.samples]
        read = {s.labels["worker"]: s.value for s in samples if s.name == "collector_worker_read"}
        assert read == {"0": 1.0, "1": 0.0, "2": 0.0}
        assert {s.labels["worker"] for s in samples if s.name == "collector_loop_lag_seconds_count"} == {"0"}
        assert (await client.get("/worker/0/")).status_code == (200 if make is make_admin_app else 404)


async def test_order_goes_to_whom_it_concerns_and_a_refusal_comes_back(monitor: Monitor) -> None:
    orders: list[bytes] = []

    async def take(body: bytes) -> object:
        await trio.lowlevel.checkpoint()
        orders.append(body)
        if body == b'"no"':
            raise OrderRefused("not now")
        return {"done": 1}

    monitor.offer("spool/replay", take)
    async with served(make_admin_app, monitor) as client:
        for path in ("/control/spool/replay", "/worker/0/control/spool/replay"):
            done = await client.post(path, content=b'"yes"', headers=JSON)
            assert (done.status_code, done.json()) == (200, {"done": 1})
            refused = await client.post(path, content=b'"no"', headers=JSON)
            assert (refused.status_code, refused.text) == (409, "not now\n")
        assert orders == [b'"yes"', b'"no"'] * 2
        assert (await client.post("/control/unknown", content=b"{}", headers=JSON)).status_code == 404
        assert (await client.post("/worker/1/control/spool/replay", content=b"{}", headers=JSON)).status_code == 503


@pytest.mark.parametrize("path", ["/control/spool/replay", "/worker/0/control/spool/replay"])
async def test_order_of_a_web_page_or_without_an_end_goes_no_further(monitor: Monitor, path: str) -> None:
    async def take(body: bytes) -> object:
        await trio.lowlevel.checkpoint()
        raise AssertionError("it came through")

    monitor.offer("spool/replay", take)
    async with served(make_admin_app, monitor) as client:
        page = await client.post(path, content=b"{}", headers={"Content-Type": "text/plain"})
        assert page.status_code == 403
        name = await client.post(path, content=b"{}", headers=JSON | {"Host": "collector.example"})
        assert name.status_code == 403
        big = await client.post(path, content=bytes(ORDER_MAX_BYTES + 1), headers=JSON)
        assert (big.status_code, big.text) == (400, f"an order may have {ORDER_MAX_BYTES} bytes\n")
