"""The servers that take part: ours as a user runs it, and the peers, each in a process of its own on the measured core.

Owns: how each is started, when it is ready, its addresses. Refuses to know: the load, and who is compared with whom.

Invariant: when the block of an opener is left, the process has ended.
"""

import shutil
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TypeAlias

import msgspec
import trio

from collector.devtools.children import Child, open_child
from collector.devtools.collector_child import CollectorChild, open_collector
from collector.devtools.kafka_properties import claim_port
from tests.bench.broker import BAD_TOPIC, TOPIC, Broker
from tests.bench.machine import Cores, pinned
from tests.bench.peers.spec import PeerSpec
from tests.bench.running import RunFailed

__all__ = ["BULK", "TRACK", "Opener", "Running", "Stage", "go_peer", "module", "ours", "peer"]

ROOT = Path(__file__).parents[2]
#: Where one event goes, and where some do; ours takes both at the first.
TRACK, BULK = "/api/track", "/bulk"
_START_WITHIN_S = 30.0
_BUILD_WITHIN_S = 300.0

Settings: TypeAlias = Mapping[str, Mapping[str, object]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """What the servers of one run have in common."""

    directory: Path
    cores: Cores
    broker: Broker


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """A server that runs."""

    child: Child
    http: str
    ws: str
    bulk_path: str = BULK
    collector: CollectorChild | None = None
    """Where it is ours, with its own figures."""


Opener: TypeAlias = Callable[[Stage, str], AbstractAsyncContextManager[Running]]
"""Takes a name for its files."""


def ours(
    settings: Settings | None = None, *, mtls: bool = False, tls: bool = False, program: str = "collector"
) -> Opener:
    """``collector serve`` in its default configuration, any key open, but for ``settings``.

    Args:
        mtls: TLS to Kafka, with a certificate of its own.
        tls: TLS on its listener.
        program: the module to run in place of ``collector``.
    """
    return partial(_open_ours, settings=settings or {}, mtls=mtls, tls=tls, program=program)


def peer(spec: PeerSpec) -> Opener:
    """An application under uvicorn; port, brokers and topic are filled in."""
    return partial(_open_peer, spec=spec)


def go_peer() -> Opener:
    """Net/http with franz-go, built here."""
    return _open_go


def module(name: str, *words: str) -> Opener:
    """``python -m NAME PORT WORDS``."""
    return partial(_open_module, module_name=name, words=words)


@asynccontextmanager
async def _open_ours(
    stage: Stage, name: str, *, settings: Settings, mtls: bool, tls: bool, program: str
) -> AsyncIterator[Running]:
    certificates = stage.broker.certificates
    servers = stage.broker.tls_bootstrap_servers if mtls else stage.broker.bootstrap_servers
    kafka: dict[str, object] = {
        "bootstrap_servers": servers.split(","),
        "topic": TOPIC,
        "bad_topic": BAD_TOPIC,
    }
    if mtls:
        kafka |= {
            "security_protocol": "SSL",
            "ssl_cafile": str(certificates.ca_file),
            "ssl_certfile": str(certificates.client),
            "ssl_keyfile": str(certificates.client_key),
        }
    http: dict[str, object] = {}
    if tls:
        http |= {"ssl_certfile": str(certificates.server), "ssl_keyfile": str(certificates.server_key)}
    tables: dict[str, dict[str, object]] = {"kafka": kafka, "http": http}
    for table, keys in settings.items():
        tables[table] = {**tables.get(table, {}), **keys}
    argv = pinned(stage.cores.subject, [sys.executable, "-m", program])
    async with open_collector(stage.directory / name, tables, program=argv) as collector:
        address = collector.http.partition("://")[2]
        yield Running(
            child=collector.child,
            http=f"https://{address}" if tls else f"http://{address}",
            ws=collector.ws,
            bulk_path=TRACK,
            collector=collector,
        )


@asynccontextmanager
async def _open_peer(stage: Stage, name: str, *, spec: PeerSpec) -> AsyncIterator[Running]:
    port = claim_port(0)
    told = msgspec.structs.replace(spec, port=port, bootstrap_servers=stage.broker.bootstrap_servers, topic=TOPIC)
    argv = [sys.executable, "-m", "tests.bench.peers.serve", msgspec.json.encode(told).decode()]
    async with _open_listening(stage, name, argv, port) as running:
        yield running


@asynccontextmanager
async def _open_module(stage: Stage, name: str, *, module_name: str, words: Sequence[str]) -> AsyncIterator[Running]:
    port = claim_port(0)
    argv = [sys.executable, "-m", module_name, str(port), *words]
    async with _open_listening(stage, name, argv, port) as running:
        yield replace(running, bulk_path=TRACK)


@asynccontextmanager
async def _open_go(stage: Stage, name: str) -> AsyncIterator[Running]:
    program = await _build_go(stage.directory)
    port = claim_port(0)
    argv = [str(program), str(port), stage.broker.bootstrap_servers, TOPIC]
    async with _open_listening(stage, name, argv, port) as running:
        yield running


async def _build_go(directory: Path) -> Path:
    await trio.lowlevel.checkpoint()
    program = directory / "go-franz"
    go = shutil.which("go")
    if go is None:
        raise RunFailed("there is no go on this machine")
    if not program.exists():
        argv = [go, "build", "-o", str(program), "."]
        async with open_child(argv, name="go build", cwd=ROOT / "tests/bench/peers/go_franz") as child:
            with trio.move_on_after(_BUILD_WITHIN_S):
                await child.wait_ended()
            if child.process.returncode != 0:
                raise RunFailed("go build: " + " | ".join(list(child.tail)[-3:]))
    return program


@asynccontextmanager
async def _open_listening(stage: Stage, name: str, argv: Sequence[str], port: int) -> AsyncIterator[Running]:
    log = stage.directory / f"{name}.log"
    async with open_child(pinned(stage.cores.subject, argv), name=name, log=log, cwd=ROOT, grace_s=5.0) as child:
        until = trio.current_time() + _START_WITHIN_S
        while not await _listens(port):
            if not child.running or trio.current_time() > until:
                raise child.failure(f"did not start: {' | '.join(list(child.tail)[-3:])}")
            await trio.sleep(0.05)
        yield Running(child=child, http=f"http://127.0.0.1:{port}", ws=f"ws://127.0.0.1:{port}/v1/ws")


async def _listens(port: int) -> bool:
    try:
        await (await trio.open_tcp_stream("127.0.0.1", port)).aclose()
        return True
    except OSError:
        await trio.lowlevel.checkpoint()
        return False
