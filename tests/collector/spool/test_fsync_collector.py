"""The whole collector while Kafka is away: between a request and its 200 the log is synchronised, as strace saw it."""

import json
import socket
import sys
from pathlib import Path

import trio

from collector.devtools.collector_child import open_collector
from collector.devtools.raw_http import open_http
from tests.collector.spool.traced import calls_of

RECEIVING = ("read", "recvfrom", "recvmsg")
SENDING = ("write", "sendto", "sendmsg")

EVENT = {"app_id": "11", "identity": "ada@example.com", "event": "stored before it is answered"}


def closed_address() -> str:
    """Where nobody listens: a port that was free a moment ago."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{bound.getsockname()[1]}"


async def test_a_200_during_an_outage_comes_after_the_log_is_synchronised(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    traced = "trace=" + ",".join(("fdatasync", "fsync", "pwrite64", *RECEIVING, *SENDING))
    # -D: the collector is our child, and strace its; a signal for one does not reach the other.
    strace = ["strace", "-D", "-f", "-y", "-s", "400", "-e", traced, "-o", str(trace)]
    settings = {"kafka": {"bootstrap_servers": closed_address(), "topic": "events"}}
    program = (*strace, sys.executable, "-m", "collector")
    with trio.fail_after(60):
        async with open_collector(tmp_path / "collector", settings, program=program) as collector:
            async with open_http(collector.http) as http:
                reply = await http.request(
                    "POST", "/api/track", json.dumps(EVENT).encode(), {"Content-Type": "application/json"}
                )
                assert reply.status == 200, reply
            spool = (await collector.stats())["sources"]["spool"]
            assert spool["rows"] == 1
    calls = calls_of(trace.read_text())
    received = next(index for index, call in enumerate(calls) if "stored before it is answered" in call[2])
    answered = next(index for index, call in enumerate(calls) if call[0] in SENDING and "HTTP/1.1 200" in call[2])
    between = [(call, path, result) for call, path, _, result in calls[received:answered]]
    synchronised = [
        index
        for index, (call, path, result) in enumerate(between)
        if call in ("fdatasync", "fsync") and path.endswith("-wal") and result == 0
    ]
    assert calls[received][0] in RECEIVING
    assert synchronised, between
    assert any(call == "pwrite64" and path.endswith("-wal") for call, path, _ in between[: synchronised[0]]), between
