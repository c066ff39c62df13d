"""The composition root: start, leave, drain, exit codes, and the last line of the log. Real time, with bounds."""

import os
import signal
import socket
from dataclasses import replace

import msgspec
import pytest
import trio
import trio_websocket

from collector.config import (
    AdminConfig,
    Config,
    HttpConfig,
    KafkaConfig,
    KeysConfig,
    LogConfig,
    ShutdownConfig,
    SpoolConfig,
)
from collector.deadlines import CLOSE_LEAST_S
from collector.devtools.conservation import assert_conserved
from collector.devtools.raw_http import open_http
from collector.lifecycle import Lifecycle, Phase
from collector.log import configure_logging
from collector.run import EXIT_DRAINED, EXIT_UNKNOWN, ExitReport, Started, producer_config, run
from kafka_client.testing import FakeCluster, open_fake_cluster

CONFIG = Config(
    http=HttpConfig(bind="127.0.0.1:0"),
    admin=AdminConfig(bind="127.0.0.1:0"),
    kafka=KafkaConfig(),
    keys=KeysConfig(open=True),
    shutdown=ShutdownConfig(delay_s=0.3, drain_s=2.0),
    spool=SpoolConfig(path=None),
)
EVENT = b'{"app_id":"a","identity":"u","event":"e"}'


class Running:
    """A collector in a task of the test's."""

    def __init__(self, cluster: FakeCluster) -> None:
        self.cluster = cluster
        self.stop = trio.Event()
        self.ended = trio.Event()
        self.report: ExitReport | None = None
        self.started: Started | None = None

    async def __call__(self, config: Config, *, signals: bool, task_status: trio.TaskStatus[Started]) -> None:  # noqa: ASYNC128
        config = replace(config, kafka=replace(config.kafka, bootstrap_servers=tuple(self.cluster.bootstrap_servers)))
        self.report = await run(
            config, connector=self.cluster.connector, stop=self.stop, signals=signals, task_status=task_status
        )
        assert_conserved(self.report.ledger, self.report.spool)
        self.ended.set()

    @classmethod
    async def start(
        cls, nursery: trio.Nursery, cluster: FakeCluster, config: Config = CONFIG, *, signals: bool = False
    ) -> "Running":
        running = cls(cluster)

        async def task(task_status: trio.TaskStatus[Started]) -> None:  # noqa: ASYNC128
            await running(config, signals=signals, task_status=task_status)

        running.started = await nursery.start(task)
        return running


@pytest.fixture
async def cluster():
    async with open_fake_cluster(topics={"events": 12, "events-bad": 1}) as cluster:
        yield cluster


@pytest.fixture
def lines(capsys):
    """The log's lines so far, as JSON objects."""
    configure_logging(LogConfig(format="json"))
    yield lambda: [msgspec.json.decode(line) for line in capsys.readouterr().err.splitlines() if line[:1] == "{"]
    configure_logging(LogConfig(format="console"))


async def test_from_start_to_exit_0(cluster, nursery, lines) -> None:
    running = await Running.start(nursery, cluster)
    assert running.started.ws == running.started.http.replace("http", "ws") + "/v1/ws"
    async with open_http(running.started.http) as http:
        assert (await http.request("POST", "/api/track", EVENT)).status == 200
        assert (await http.request("GET", "/readyz")).body == b"ready\n"
        async with open_http(running.started.admin) as admin:
            metrics = (await admin.request("GET", "/metrics")).body
            assert b"collector_ledger_difference_events 0.0" in metrics
            assert (await admin.request("GET", "/readyz")).status == 200
        running.stop.set()
        await trio.sleep(0.05)
        async with open_http(running.started.http) as late:
            reply = await late.request("POST", "/api/track", EVENT)
            assert (reply.status, reply.headers["connection"]) == (200, "close")
        reply = await http.request("GET", "/readyz")
        assert (reply.status, reply.body, reply.headers["connection"]) == (503, b"draining\n", "close")
    with trio.fail_after(3):
        await running.ended.wait()
    assert running.report.code == EXIT_DRAINED
    assert len(cluster.values("events")) == 2
    last = lines()[-1]
    assert last["event"] == "stopped"
    assert (last["code"], last["received"], last["delivered"], last["unknown"], last["difference"]) == (0, 2, 2, 0, 0)


async def test_signal_leaves_and_a_second_one_skips_the_delay(cluster, nursery) -> None:
    config = replace(CONFIG, shutdown=ShutdownConfig(delay_s=60.0, drain_s=2.0))
    running = await Running.start(nursery, cluster, config, signals=True)
    os.kill(os.getpid(), signal.SIGTERM)
    await trio.sleep(0.1)
    assert running.started.services.lifecycle.phase is Phase.LEAVING
    os.kill(os.getpid(), signal.SIGINT)
    with trio.fail_after(2):
        await running.ended.wait()
    assert running.report.code == EXIT_DRAINED


async def test_third_signal_cuts_what_is_in_work(cluster, nursery) -> None:
    cluster.pause_broker(1)
    running = await Running.start(nursery, cluster, signals=True)
    async with open_http(running.started.http) as http:
        await http.stream.send_all(b"POST /api/track HTTP/1.1\r\nhost: x\r\ncontent-length: 41\r\n\r\n" + EVENT)
        await trio.sleep(0.2)
        for _ in range(3):
            os.kill(os.getpid(), signal.SIGTERM)
            await trio.sleep(0.05)
        with trio.fail_after(3):
            await running.ended.wait()
    assert running.report.ledger.refused_total == 1
    assert running.report.ledger.difference == 0


async def test_signal_while_the_producer_closes_ends_its_grace_and_the_books_are_right(cluster, nursery, lines) -> None:
    config = replace(CONFIG, shutdown=ShutdownConfig(delay_s=0.0, drain_s=60.0))
    running = await Running.start(nursery, cluster, config, signals=True)
    async with open_http(running.started.http) as http:
        await http.request("POST", "/api/track", EVENT)
        cluster.faults.stall()
        await http.request("POST", "/api/track", EVENT, {"X-Collector-Timeout-Ms": "200"})
    os.kill(os.getpid(), signal.SIGTERM)
    producer = running.started.services.ingest.producer
    with trio.fail_after(2):  # noqa: ASYNC912  # the loop waits
        while not repr(producer).startswith("<Producer closing"):  # noqa: ASYNC110  # it has no event for that
            await trio.sleep(0.02)
    os.kill(os.getpid(), signal.SIGINT)
    with trio.fail_after(2):
        await running.ended.wait()
    assert running.report.code == EXIT_UNKNOWN
    last = lines()[-1]
    assert (last["event"], last["code"], last["unresolved"], last["difference"]) == ("stopped", 3, 1, 0)


async def test_request_in_work_is_answered_within_the_drain(cluster, nursery) -> None:
    running = await Running.start(nursery, cluster)
    async with open_http(running.started.http) as http:
        await http.request("POST", "/api/track", EVENT)
        cluster.faults.delay(1.0)
        await http.stream.send_all(b"POST /api/track HTTP/1.1\r\nhost: x\r\ncontent-length: 41\r\n\r\n" + EVENT)
        running.stop.set()
        with trio.fail_after(3):
            reply = await http.read_reply()
    assert (reply.status, reply.headers["connection"]) == (200, "close")
    with trio.fail_after(3):
        await running.ended.wait()
    assert running.report.code == EXIT_DRAINED


async def test_outcome_that_stays_unknown_is_exit_3(cluster, nursery, lines) -> None:
    running = await Running.start(nursery, cluster)
    async with open_http(running.started.http) as http:
        await http.request("POST", "/api/track", EVENT)
        cluster.faults.stall()
        reply = await http.request("POST", "/api/track", EVENT, {"X-Collector-Timeout-Ms": "200"})
        assert reply.headers["x-collector-outcome"].endswith("unknown=1")
    running.stop.set()
    with trio.fail_after(6):
        await running.ended.wait()
    assert running.report.code == EXIT_UNKNOWN
    last = lines()[-1]
    assert (last["event"], last["code"], last["unknown"], last["unresolved"]) == ("stopped", 3, 1, 1)


@pytest.mark.parametrize("path", ["spool", ":memory:"])
async def test_what_is_safe_in_the_spool_is_no_error_and_what_is_in_memory_is(
    cluster, nursery, lines, tmp_path, path: str
) -> None:
    place = path if path == ":memory:" else str(tmp_path / path)
    running = await Running.start(nursery, cluster, replace(CONFIG, spool=SpoolConfig(path=place)))
    async with open_http(running.started.http) as http:
        await http.request("POST", "/api/track", EVENT)
        cluster.faults.stall()
        reply = await http.request("POST", "/api/track", EVENT, {"X-Collector-Timeout-Ms": "1000"})
        assert (reply.status, "spooled=1" in reply.headers["x-collector-outcome"]) == (200, True)
        async with open_http(running.started.admin) as admin:
            metrics = (await admin.request("GET", "/metrics")).body
            assert b"collector_spool_held_rows 1.0" in metrics
            assert b"collector_diversion_diverted_partitions" in metrics
    running.stop.set()
    with trio.fail_after(8):
        await running.ended.wait()
    last = lines()[-1]
    assert (last["event"], last["spooled"], last["unknown"], last["unresolved"]) == ("stopped", 1, 0, 0)
    names = ("in", "replayed", "resolved", "dead", "dropped", "lost", "difference")
    assert {name: last[f"spool_{name}"] for name in names} == dict.fromkeys(names, 0) | {"in": 1}
    assert last["in_spool"] == 1
    if path == ":memory:":
        assert running.report.code == EXIT_UNKNOWN
        return
    assert running.report.code == EXIT_DRAINED
    cluster.faults.clear()
    again = await Running.start(nursery, cluster, replace(CONFIG, spool=SpoolConfig(path=place)))
    with trio.fail_after(5):  # noqa: ASYNC912  # the loop waits
        while len(cluster.values("events")) < 3:  # noqa: ASYNC110  # it has no event
            await trio.sleep(0.05)
    again.stop.set()
    with trio.fail_after(8):
        await again.ended.wait()
    first, second, replayed = cluster.records("events")
    assert first.value != second.value == replayed.value, "the producer's end left it in doubt"
    marks = [("maybe-duplicate", b"1") in list(record.headers) for record in (second, replayed)]
    assert marks == [False, True]
    last = lines()[-1]
    assert (again.report.code, last["in_spool"], last["spool_in"], last["spool_replayed"]) == (EXIT_DRAINED, 0, 1, 1)


async def test_clients_and_producer_share_one_time_to_drain(cluster, nursery) -> None:
    running = await Running.start(nursery, cluster, replace(CONFIG, shutdown=ShutdownConfig(delay_s=0.0, drain_s=2.0)))
    async with open_http(running.started.http) as http, open_http(running.started.http) as halfway:
        await http.request("POST", "/api/track", EVENT)
        cluster.faults.stall()
        await http.request("POST", "/api/track", EVENT, {"X-Collector-Timeout-Ms": "200"})
        await halfway.stream.send_all(b"POST /api/track HTTP/1.1\r\nhost: x\r\ncontent-length: 41\r\n\r\n{")
        await trio.sleep(0.1)
        started = trio.current_time()
        running.stop.set()
        with trio.fail_after(5):
            await running.ended.wait()
    took = trio.current_time() - started
    assert 2.0 + CLOSE_LEAST_S - 0.1 < took < 2.0 + CLOSE_LEAST_S + 0.5


async def test_websocket_is_told_to_go_when_the_delay_is_over(cluster, nursery) -> None:
    running = await Running.start(nursery, cluster)
    async with trio_websocket.open_websocket_url(running.started.ws) as connection:
        assert b"hello" in (await connection.get_message()).encode()
        running.stop.set()
        started = trio.current_time()
        assert b"drain" in (await connection.get_message()).encode()
        assert trio.current_time() - started >= 0.29
        with pytest.raises(trio_websocket.ConnectionClosed) as closed:
            await connection.get_message()
        assert closed.value.reason.code == 1012
        await connection._stream.aclose()
    with trio.fail_after(2):
        await running.ended.wait()


async def test_address_that_is_taken_is_one_clear_error(cluster) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(OSError, match=f"http.bind: {address}: Address already in use"):
            await run(replace(CONFIG, http=HttpConfig(bind=address)), connector=cluster.connector, signals=False)


async def test_bug_in_the_producer_ends_the_run_with_its_traceback(cluster, lines) -> None:
    with pytest.raises(BaseExceptionGroup) as raised:  # noqa: ASYNC401  # of several depths
        async with trio.open_nursery() as nursery:
            running = await Running.start(nursery, cluster)
            async with open_http(running.started.http) as http:
                await http.request("POST", "/api/track", EVENT)
                producer = running.started.services.ingest.producer

                def broken(*_: object) -> None:
                    raise RuntimeError("a bug in the producer")

                producer._nursery.start_soon(trio.to_thread.run_sync, broken)
                await trio.sleep(2)
    assert raised.value.subgroup(lambda error: "a bug in the producer" in str(error)) is not None
    assert any(line["event"] == "stopped by an error" for line in lines())


def test_producer_waits_for_sealed_batches_for_ever() -> None:
    config = producer_config(replace(CONFIG, kafka=KafkaConfig(bootstrap_servers=("b:9092",), linger_s=0.01)))
    assert config.batch_timeout_s == float("inf")
    assert (config.linger_s, config.close_grace_s, tuple(config.bootstrap_servers)) == (0.01, 2.0, ("b:9092",))


async def test_lifecycle_moves_forward_only_and_says_so() -> None:
    lag = [0.0]
    lifecycle = Lifecycle(max_lag_s=0.3, lag=lambda: lag[0])
    assert (lifecycle.status(), lifecycle.keep_alive) == ("starting", True)
    lifecycle.advance(Phase.SERVING)
    assert lifecycle.status() == "ready"
    lag[0] = 0.4
    assert (lifecycle.status(), lifecycle.lag_s) == ("lagging", 0.4)
    lifecycle.advance(Phase.DRAINING)
    await lifecycle.wait_reached(Phase.LEAVING)
    lifecycle.advance(Phase.SERVING)
    assert (lifecycle.phase, lifecycle.status(), lifecycle.keep_alive) == (Phase.DRAINING, "draining", False)
    assert repr(lifecycle) == "<Lifecycle draining, draining>"


def test_spool_that_is_nearly_full_is_not_ready_until_there_is_room() -> None:
    filled = [0.89]
    lifecycle = Lifecycle(max_lag_s=0.3, lag=lambda: 0.0, spool_filled=lambda: filled[0])
    lifecycle.advance(Phase.SERVING)
    said = []
    for share in (0.89, 0.91, 0.89, 0.71, 0.69, 0.89):
        filled[0] = share
        said.append(lifecycle.status())
    assert said == ["ready", "spool_full", "spool_full", "spool_full", "ready", "ready"]
