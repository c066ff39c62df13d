"""The admin listener as an operator meets it: through a socket, on real time."""

import errno
import socket
from dataclasses import replace

import httpx  # noqa: ASYNC127  # the client that the collector itself uses
import pytest
import trio
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from collector.config import AdminConfig, Config, MetricsConfig
from collector.ingest.ledger import Counts, Ledger
from collector.monitor import Monitor, open_monitor
from collector.monitor.listeners import address_of, bind_listener, serve_app
from collector.monitor.opening import RESTART_S, kept_alive
from collector.monitor.sampler import Sampler
from collector.monitor.tasks import all_tasks

CONFIG = Config(admin=AdminConfig(bind="127.0.0.1:0"))


async def _get(monitor: Monitor, path: str, **headers: str) -> httpx.Response:
    async with httpx.AsyncClient(trust_env=False) as client:
        return await client.get(f"{monitor.admin_address}{path}", headers=headers)


async def test_pages_answer_on_the_address_that_is_handed_out() -> None:
    async with open_monitor(CONFIG) as monitor:
        ledger = Ledger()
        with ledger.open(2) as entry:
            entry.close(Counts(delivered=2))
        monitor.watch("ledger", ledger.statistics)
        metrics = await _get(monitor, "/metrics")
        assert metrics.status_code == 200
        assert 'collector_events_total{outcome="delivered"} 2.0' in metrics.text
        page = await _get(monitor, "/")
        assert page.headers["content-type"] == "text/html; charset=utf-8"
        assert "default-src 'none'" in page.headers["content-security-policy"]
        assert "https://" not in page.text.replace("https://www.w3.org", "")
        tasks = await _get(monitor, "/debug/tasks")
        assert "monitor: lag probe" in tasks.text
        assert tasks.headers["content-type"].startswith("text/plain")
        as_json = await _get(monitor, "/debug/tasks", accept="application/json")
        assert as_json.json()["tasks"] > 5
        whole = await _get(monitor, "/debug/tasks?frames=1&fold=0")
        assert "sleep_until" in whole.text
        health = await _get(monitor, "/healthz")
        assert (health.status_code, health.text) == (200, "ok\n")
        missing = await _get(monitor, "/nowhere")
        assert missing.status_code == 404
        assert "/debug/tasks" in missing.text


async def test_readyz_says_the_word_of_who_knows() -> None:
    async with open_monitor(CONFIG) as monitor:
        early = await _get(monitor, "/readyz")
        assert (early.status_code, early.text) == (503, "starting\n")
        monitor.watch_readiness(lambda: (True, "ready"))
        ready = await _get(monitor, "/readyz")
        assert (ready.status_code, ready.text) == (200, "ready\n")
        assert repr(monitor).startswith("<Monitor ready, 0 sources")


async def test_stats_give_only_samples_after_since() -> None:
    async with open_monitor(CONFIG) as monitor:
        monitor.watch("broken", lambda: 1 / 0)
        everything = (await _get(monitor, "/debug/stats")).json()
        assert everything["sources"]["broken"] == {"error": "ZeroDivisionError: see the log"}
        assert len(everything["samples"]) == len(monitor.samples) > 0
        last = everything["samples"][-1]["at"]
        assert (await _get(monitor, f"/debug/stats?since={last + 60}")).json()["samples"] == []
        wrong = await _get(monitor, "/debug/stats?since=yesterday")
        assert wrong.status_code == 400


async def test_ledgers_are_kept_over_time_and_given_after_since() -> None:
    async with open_monitor(CONFIG) as monitor:
        ledger = Ledger()
        monitor.watch("ledger", ledger.statistics)
        with ledger.open(2) as entry:
            entry.close(Counts(delivered=2))
        await trio.sleep(1.1)
        found = (await _get(monitor, "/debug/ledgers")).json()
        at, *values = found["readings"][-1]
        last = dict(zip(found["columns"], values, strict=True))
        assert (last["received"], last["delivered"], last["in_work"], last["difference"]) == (2, 2, 0, 0)
        assert last["rows_in"] is None
        assert (await _get(monitor, f"/debug/ledgers?since={at + 60}")).json()["readings"] == []
        assert (await _get(monitor, "/debug/ledgers?since=yesterday")).status_code == 400


async def test_metrics_have_a_listener_of_their_own_where_one_is_configured() -> None:
    config = replace(CONFIG, metrics=MetricsConfig(bind="127.0.0.1:0"))
    async with open_monitor(config) as monitor, httpx.AsyncClient(trust_env=False) as client:
        assert monitor.metrics_address not in (None, monitor.admin_address)
        assert (await client.get(f"{monitor.metrics_address}/metrics")).status_code == 200
        assert (await client.get(f"{monitor.metrics_address}/debug/tasks")).status_code == 404


async def test_a_taken_address_is_said_with_its_key() -> None:
    await trio.lowlevel.checkpoint()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        bind = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(OSError, match=rf"admin\.bind: cannot listen on {bind}: Address already in use") as caught:
            async with open_monitor(Config(admin=AdminConfig(bind=bind))):
                raise AssertionError("never entered")
        assert caught.value.errno == errno.EADDRINUSE


@pytest.mark.parametrize("bind", ["127.0.0.1:x", "nowhere.invalid:1"])
def test_an_address_that_is_none_is_said_with_its_key(bind: str) -> None:
    with pytest.raises(OSError, match=rf"^admin\.bind: cannot listen on {bind}: "):
        bind_listener("admin.bind", bind)


def test_a_wildcard_is_shown_as_loopback() -> None:
    with bind_listener("admin.bind", "0.0.0.0:0") as listener:
        assert address_of(listener) == f"http://127.0.0.1:{listener.getsockname()[1]}"


async def test_a_body_that_nobody_reads_leaves_no_connection_behind() -> None:
    """Hypercorn leaks a connection whose request has more than ten unread events when it is answered (design §7)."""
    arrived = trio.Event()

    async def answer_late(_request: Request) -> Response:
        await arrived.wait()
        return Response()

    app = Starlette(routes=[Route("/", answer_late, methods=["POST"])])
    with bind_listener("admin.bind", "127.0.0.1:0") as listener:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve_app, app, listener)
            port = listener.getsockname()[1]
            async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
                await stream.send_all(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 20000000\r\n\r\n")
                with trio.move_on_after(0.5):
                    await stream.send_all(bytes(20_000_000))
                arrived.set()
                with trio.fail_after(10):
                    assert (await stream.receive_some()).startswith(b"HTTP/1.1 200 ")
            with trio.fail_after(10):
                await trio.testing.wait_all_tasks_blocked(0.1)
            assert not [task.name for task in all_tasks() if "_run_handler" in task.name]
            nursery.cancel_scope.cancel(reason="the test is over")


async def test_the_blocks_exception_passes_ungrouped() -> None:
    with pytest.raises(ZeroDivisionError):
        async with open_monitor(CONFIG):
            raise ZeroDivisionError


async def test_nothing_is_left_when_the_block_ends(autojump_clock: trio.testing.MockClock) -> None:
    root = trio.lowlevel.current_root_task()
    assert root is not None
    before = sum(1 for _ in root.child_nurseries[-1].child_tasks)
    async with open_monitor(listen=False) as monitor:
        await trio.sleep(3.5)
        assert monitor.admin_address is None
        assert len(monitor.samples) == 4
        assert monitor.samples[-1].tasks > 2
    assert sum(1 for _ in root.child_nurseries[-1].child_tasks) == before


async def test_a_failing_task_of_the_monitor_is_counted_and_started_again(
    autojump_clock: trio.testing.MockClock, capsys: pytest.CaptureFixture[str]
) -> None:
    monitor, runs = Monitor(), 0

    async def fails_twice() -> None:
        nonlocal runs
        runs += 1
        await trio.lowlevel.checkpoint()
        if runs < 3:
            raise RuntimeError("probe")

    began = trio.current_time()
    await kept_alive(monitor.error, "probe", fails_twice)
    assert runs == 3
    assert trio.current_time() - began == 2 * RESTART_S
    assert monitor.errors.counts == {"probe": 2}
    assert "a monitor task failed and is started again" in capsys.readouterr().err


async def test_live_latencies_are_those_of_the_last_seconds(autojump_clock: trio.testing.MockClock) -> None:
    monitor = Monitor()
    sampler = Sampler(monitor)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(sampler.run)
        monitor.stage("parse", 0.9)
        await trio.sleep(30)
        for _ in range(99):
            monitor.stage("parse", 0.002)
        live = sampler.live_stages()["parse"]
        assert live == {"count": 99, "total": 100, "p50_s": 0.0025, "p99_s": 0.0025, "highest_s": 0.9}
        nursery.cancel_scope.cancel()


async def test_samples_draw_the_curves_of_the_rooms(autojump_clock: trio.testing.MockClock) -> None:
    await trio.lowlevel.checkpoint()
    monitor, ledger = Monitor(), Ledger()
    monitor.watch("ledger", ledger.statistics)
    monitor.watch("broken", lambda: 1 / 0)
    ledger.open(4)
    sample = Sampler(monitor).take()
    assert sample.values["received"] == 4
    assert sample.values["in_work"] == 4
    assert sample.values["difference"] == 0
    assert monitor.errors.counts == {"statistics of broken": 1}
