"""The stage of one row: a Kafka of its own, nginx, one server behind it, and loads.

Owns: what is opened, in which order, where it listens, and the reading of what is left afterwards. Refuses to know:
which fault is played on it.

Invariant: when `open_stage`'s block is left, every process that was started has ended.

The brokers advertise the address of a link of our proxy, where the row wants one, so that every client of theirs passes
it. The load is pinned to the first core; everything else goes where the kernel puts it.
"""

import json
import sys
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import msgspec
import trio
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from collector.config import Config, NginxConfig, PrivacyConfig
from collector.devtools.children import ChildFailed, bare_error, open_child
from collector.devtools.kafka import KafkaCluster, open_kafka
from collector.devtools.kafka_properties import claim_port
from collector.devtools.nginx import Nginx, open_nginx
from collector.devtools.proxy import Link, Proxy, open_proxy
from collector.devtools.topic_log import Stored, read_topic
from tests.faults.account import Copies, Found
from tests.faults.entries import Entry, owner_of, read_entries
from tests.faults.load import PATIENCE_S, Spec
from tests.faults.server import Collector, Peer, Restartable
from tests.faults.spooled import ids_in_spool

__all__ = ["BOUNDS_BYTES", "PARTITIONS", "TOPIC", "Load", "Setup", "Stage", "open_stage"]

TOPIC, BAD_TOPIC = "events", "events-bad"
PARTITIONS = 6
MIB = 1024 * 1024

#: Tighter than the defaults, so that the bound of memory means something.
BOUNDS: Mapping[str, Mapping[str, int]] = {
    "limits": {
        "in_work_bytes": 16 * MIB,
        "queue_bytes": 16 * MIB,
        "waiting_bytes": 16 * MIB,
        "in_flight_bytes": 16 * MIB,
    },
    "spool": {"replay_bytes": 4 * MIB},
    "retry_memory": {"max_bytes": 8 * MIB},
}
BOUNDS_BYTES = sum(size for keys in BOUNDS.values() for size in keys.values())

#: For more connections than there can be.
WORKER_CONNECTIONS = 8192


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """What a row needs on its stage."""

    nodes: int = 1
    proxied: bool = False
    """The way to the brokers leads through our proxy."""
    hold_s: float = 0.0
    """See `tests.faults.wrapped_collector`."""
    settings: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    spool_mount: int = 0
    """The spool is on a file system of so many bytes."""


@dataclass(slots=True)
class Load:
    """A load that runs."""

    spec: Spec
    _stop: trio.Event = field(default_factory=trio.Event)
    _ended: trio.Event = field(default_factory=trio.Event)

    async def stop(self) -> list[Entry]:
        """Let it end, and return its log. On cancellation: it is ending."""
        self._stop.set()
        await self._ended.wait()
        return await trio.to_thread.run_sync(lambda: list(read_entries(Path(self.spec.log))))


@dataclass(slots=True, kw_only=True)
class Stage:
    """What a fault acts on."""

    directory: Path
    kafka: KafkaCluster
    links: list[Link]
    """One a broker, where the row is proxied."""
    server: Collector | Peer
    nginx: Restartable[Nginx]
    address: str
    """nginx's."""
    direct: str
    """The server's own."""
    load_core: int
    nursery: trio.Nursery
    spool: Path
    clock: Path

    async def start_load(self, spec: Spec) -> Load:
        """Start a load; the names of the file, the addresses and the core are filled in.

        On cancellation: it is ended.
        """
        spec = msgspec.structs.replace(
            spec,
            log=str(self.directory / f"load-{spec.run}.log"),
            address=self.address,
            direct=self.direct,
            core=self.load_core,
        )
        load = Load(spec)
        await self.nursery.start(partial(_run_load, load, self.directory))
        return load

    async def found(self, run: str) -> Found:
        """Where the events of one load are now. The server may have ended, the brokers may not."""
        servers = self.kafka.bootstrap_servers
        stored = await trio.to_thread.run_sync(read_topic, servers, TOPIC)
        bad = await trio.to_thread.run_sync(read_topic, servers, BAD_TOPIC)
        spooled = await trio.to_thread.run_sync(ids_in_spool, self.spool)
        return Found(
            topic=copies_of(run, stored),
            bad_topic={name for record in bad if (name := _bad_id(record.value)) is not None},
            spool={name for name in spooled if owner_of(run, name) is not None},
        )


class _Value(msgspec.Struct):
    id: str


class _Bad(msgspec.Struct):
    original: str | None


def copies_of(run: str, stored: Iterable[Stored]) -> dict[str, Copies]:
    """The events of one load among the records of a topic."""
    decoder = msgspec.json.Decoder(_Value)
    found: dict[str, Copies] = {}
    for record in stored:
        name = decoder.decode(record.value).id
        if owner_of(run, name) is not None:
            each = found.setdefault(name, Copies())
            each.copies += 1
            each.marked += record.headers.get("maybe-duplicate") == b"1"
    return found


def _bad_id(value: bytes) -> str | None:
    original = msgspec.json.decode(value, type=_Bad).original
    try:
        return str(json.loads(original or "{}").get("messageId"))
    except ValueError:
        return None


async def _run_load(load: Load, directory: Path, *, task_status: trio.TaskStatus[None]) -> None:
    file = directory / f"load-{load.spec.run}.json"
    await trio.Path(file).write_bytes(msgspec.json.encode(load.spec))
    loading = trio.Event()

    def on_line(line: str) -> None:
        if line == "loading":
            loading.set()

    argv = [sys.executable, "-m", "tests.faults.load", str(file)]
    async with open_child(argv, name="load", on_line=on_line, grace_s=PATIENCE_S + 15) as child:
        with trio.move_on_after(15):
            await loading.wait()
        if not loading.is_set():
            raise child.failure(f"does not load: {' | '.join(list(child.tail)[-5:])}")
        task_status.started()
        await load._stop.wait()
    if child.process.returncode != 0 or child.tail[-1] != "ended":
        raise ChildFailed(f"the load failed: {' | '.join(list(child.tail)[-5:])}", child.tail)
    load._ended.set()


def _make_topics(bootstrap_servers: str, nodes: int) -> None:
    admin = AdminClient({"bootstrap.servers": bootstrap_servers, "log_level": 0})
    copies = min(3, nodes)
    topics = [
        NewTopic(TOPIC, num_partitions=PARTITIONS, replication_factor=copies),
        NewTopic(BAD_TOPIC, num_partitions=1, replication_factor=copies),
    ]
    for made in admin.create_topics(topics).values():
        made.result(30)


@asynccontextmanager
async def open_stage(
    setup: Setup, directory: Path, load_core: int, *, environ: Mapping[str, str], baseline: bool
) -> AsyncIterator[Stage]:
    """Open everything for one row, and close it again; the spool's directory is there already.

    ``environ`` is more of the server's environment.

    Raises:
        KafkaUnavailable, NginxUnavailable, ChildFailed: a part does not start.

    On cancellation: as at the end of the block.
    """
    async with AsyncExitStack() as stack:
        ports = [claim_port(0) for _ in range(setup.nodes)]
        proxy: Proxy | None = None
        if setup.proxied:
            proxy = await stack.enter_async_context(open_proxy([f"127.0.0.1:{port}" for port in ports]))
        links = list(proxy.links.values()) if proxy is not None else []
        advertised = [link.port for link in links] or ports
        kafka = await stack.enter_async_context(
            open_kafka(
                directory / "kafka",
                nodes=setup.nodes,
                ports=ports,
                properties=lambda number: {"advertised.listeners": f"PLAINTEXT://127.0.0.1:{advertised[number - 1]}"},
                grace_s=3.0,
            )
        )
        servers = ",".join(f"127.0.0.1:{port}" for port in advertised)
        await trio.to_thread.run_sync(_make_topics, kafka.bootstrap_servers, setup.nodes)
        spool = directory / "spool"
        stack.enter_context(bare_error())
        nursery = await stack.enter_async_context(trio.open_nursery())
        direct = f"127.0.0.1:{claim_port(0)}"
        address = f"127.0.0.1:{claim_port(0)}"
        clock = directory / "clock"
        held = {"FAULTS_HOLD_S": str(setup.hold_s), "FAULTS_CLOCK": str(clock)}
        server: Collector | Peer
        if baseline:
            server = Peer(nursery, direct, (servers, TOPIC), {**held, **environ}, directory / "peer.log")
        else:
            settings = _settings(setup, servers, direct, spool)
            server = Collector(nursery, directory / "collector", settings, {**held, **environ})
        config = Config(privacy=PrivacyConfig(ip="full"), nginx=NginxConfig(worker_connections=WORKER_CONNECTIONS))
        nginx: Restartable[Nginx] = Restartable(
            nursery, lambda: open_nginx(config, directory / "nginx", upstreams=[direct], listen=address)
        )
        await server.start()
        await nginx.start()
        yield Stage(
            directory=directory,
            kafka=kafka,
            links=links,
            server=server,
            nginx=nginx,
            address=address,
            direct=direct,
            load_core=load_core,
            nursery=nursery,
            spool=spool,
            clock=clock,
        )
        nursery.cancel_scope.cancel(reason="the row is over")


def _settings(setup: Setup, servers: str, direct: str, spool: Path) -> dict[str, dict[str, object]]:
    settings: dict[str, dict[str, object]] = {
        "http": {"bind": direct},
        "kafka": {"bootstrap_servers": servers.split(","), "topic": TOPIC, "bad_topic": BAD_TOPIC},
        "spool": {"path": str(spool)},
        "shutdown": {"delay_s": 1.0, "drain_s": 10.0},
    }
    for tables in (BOUNDS, setup.settings):
        for table, keys in tables.items():
            settings[table] = {**settings.get(table, {}), **keys}
    return settings
