"""``collector dev``: everything on this machine: a broker, the collector, the dashboard, with ``--nginx`` a proxy too.

Owns: what is started in which order and shown to the developer, ``.collector/dev.json``, one run a directory. Refuses
to know: how any of the parts works.

Invariant: ``dev.json`` is there exactly while all of it answers; and nothing that was started here is left when it
ends, however it ends.

Order: broker, topics, collector, nginx, ``dev.json``; the end goes the other way, so that what the collector still
has in work reaches a broker.
"""

import argparse
import fcntl
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import trio

from collector.config import Config, KeysConfig, SpoolConfig
from collector.devtools.children import ChildFailed, bare_error

from .main import Mendable
from .settings import DEV_DIRECTORY, DevInfo, add_config_argument, load

if TYPE_CHECKING:
    from collector.run import Started

__all__ = ["add_arguments", "run"]

PARTITIONS = 12
BAD_PARTITIONS = 3

#: Waits until the broker has ended, and returns the error that says so.
WaitEnded: TypeAlias = Callable[[], Awaitable[ChildFailed]]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_config_argument(parser)
    parser.add_argument(
        "--broker",
        choices=["kafka", "mock"],
        default="kafka",
        help="kafka: Apache Kafka as a child process, its data kept; mock: librdkafka's mock cluster, volatile",
    )
    parser.add_argument("--nginx", action="store_true", help="put nginx in front; it then listens on --http")
    parser.add_argument("--http", metavar="ADDR", help="where clients connect; port 0 takes any free one")
    parser.add_argument("--admin", metavar="ADDR", help="metrics, /debug, dashboard; port 0 takes any free one")
    parser.add_argument("--kafka-port", metavar="PORT", type=int, default=0, help="Kafka's own port; by default any")
    parser.add_argument("--dir", metavar="DIR", type=Path, default=DEV_DIRECTORY, help="by default .collector")
    parser.add_argument("--quiet", action="store_true", help="do not show arriving events")


def run(arguments: argparse.Namespace) -> int:
    from collector.log import configure_logging

    config = _dev_config(load(arguments), arguments)
    configure_logging(config.log)
    with _only_one(arguments.dir):
        return trio.run(_dev, config, arguments)


def _dev_config(config: Config, arguments: argparse.Namespace) -> Config:
    """What `dev` changes: any key is taken, there is no delay before draining, and addresses are as asked for."""
    http, nginx = config.http, config.nginx
    if arguments.nginx:
        # Clients connect to nginx; the collector takes any port behind it.
        nginx = replace(nginx, listen=arguments.http or nginx.listen)
        http = replace(http, bind="127.0.0.1:0")
    elif arguments.http is not None:
        http = replace(http, bind=arguments.http)
    return replace(
        config,
        http=http,
        nginx=nginx,
        admin=replace(config.admin, bind=arguments.admin or config.admin.bind),
        keys=KeysConfig(open=True, apps=config.keys.apps),
        shutdown=replace(config.shutdown, delay_s=0.0),
        spool=_beside_the_broker(config, arguments.dir),
    )


def _beside_the_broker(config: Config, directory: Path) -> SpoolConfig:
    """The spool of this directory's collector, unless the configuration names another."""
    spool = config.spool
    return replace(spool, path=str(directory / "spool")) if spool.path == SpoolConfig().path else spool


@contextmanager
def _only_one(directory: Path) -> Iterator[None]:
    """One `collector dev` a directory: two would share a broker's data."""
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / "lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise Mendable(
                f"another `collector dev` runs in {directory}: stop it, or give this one its own --dir"
            ) from error
        (directory / "dev.json").unlink(missing_ok=True)
        yield


async def _dev(config: Config, arguments: argparse.Namespace) -> int:
    """Run it all; returns the exit code. On cancellation: everything ends, the broker last."""
    from collector.run import EXIT_DRAINED

    codes = [EXIT_DRAINED]  # the last one counts; until the collector starts there is nothing to lose
    stop = trio.Event()
    with bare_error():
        async with trio.open_nursery() as nursery:
            await nursery.start(_take_signals, nursery.cancel_scope, stop)
            async with AsyncExitStack() as stack:
                config, broker_ended = await _open_broker(stack, config, arguments)
                async with trio.open_nursery() as beside:
                    beside.start_soon(_raise_when, broker_ended, name="is the broker alive")
                    await _collect(config, arguments, stop, codes)
                    beside.cancel_scope.cancel(reason="the broker may end now")
            nursery.cancel_scope.cancel(reason="the collector has ended")
    return codes[-1]


async def _take_signals(
    scope: trio.CancelScope, stop: trio.Event, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    """While starting there is nothing to drain: a signal ends everything at once. The collector takes them over then.

    What still comes here is a terminal that goes away, and what arrives when the collector has ended.
    """
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as received:
        task_status.started()
        async for number in received:
            if number == signal.SIGHUP and not stop.is_set():
                stop.set()
            else:
                scope.cancel(reason="a signal")


async def _raise_when(broker_ended: WaitEnded) -> None:
    raise await broker_ended()


async def _open_broker(
    stack: AsyncExitStack, config: Config, arguments: argparse.Namespace
) -> tuple[Config, WaitEnded]:
    """Start the broker that was asked for; returns the configuration that leads there."""
    topics = {config.kafka.topic: PARTITIONS}
    if config.kafka.bad_topic is not None:
        topics[config.kafka.bad_topic] = BAD_PARTITIONS
    if arguments.broker == "mock":
        from collector.devtools.mock import open_mock

        mock = await stack.enter_async_context(open_mock(topics))
        return _at(config, mock.bootstrap_servers), mock.wait_ended
    from collector.devtools.kafka import open_kafka

    from .progress import show_download

    _say("starting Apache Kafka …")
    with show_download() as show:
        cluster = await stack.enter_async_context(
            open_kafka(arguments.dir / "kafka", ports=[arguments.kafka_port], show_download=show)
        )
    config = _at(config, cluster.bootstrap_servers)
    await _make_topics(config, topics)
    return config, cluster.wait_ended


def _at(config: Config, bootstrap_servers: str) -> Config:
    servers = tuple(bootstrap_servers.split(","))
    return replace(config, kafka=replace(config.kafka, bootstrap_servers=servers, security_protocol="PLAINTEXT"))


async def _make_topics(config: Config, topics: Mapping[str, int]) -> None:
    from collector.brokers import producer_config
    from kafka_client.admin import NewTopic, open_admin

    wanted = [NewTopic(name=name, partitions=partitions) for name, partitions in topics.items()]
    async with open_admin(producer_config(config)) as admin:
        await admin.create_topics(wanted, exist_ok=True)


async def _collect(config: Config, arguments: argparse.Namespace, stop: trio.Event, codes: list[int]) -> None:
    """The collector, and nginx in front of it where wanted, until it has drained; its exit code goes into ``codes``."""
    from collector.run import EXIT_UNKNOWN

    from .collect import collect

    ended = trio.Event()

    async def collected(*, task_status: "trio.TaskStatus[Started]") -> None:  # noqa: ASYNC128  # collect() reports
        codes.append(EXIT_UNKNOWN)  # if it is cut off now, nobody knows what became of its events
        codes.append(await collect(config, stop=stop, task_status=task_status))
        ended.set()

    async with trio.open_nursery() as nursery:
        started: Started = await nursery.start(collected)
        async with AsyncExitStack() as stack:
            info = _info(config, started)
            if arguments.nginx:
                from collector.devtools.nginx import open_nginx

                behind = info.http.removeprefix("http://")
                nginx = await stack.enter_async_context(open_nginx(config, arguments.dir / "nginx", upstreams=[behind]))
                info = replace(info, http=f"http://{nginx.address}", ws=info.ws.replace(behind, nginx.address, 1))
            info.write(arguments.dir)
            stack.callback((arguments.dir / "dev.json").unlink, missing_ok=True)
            _announce(info, arguments)
            if sys.stdout.isatty() and not arguments.quiet:
                from .live import show_events

                nursery.start_soon(show_events, config, name="live view")
            await ended.wait()
        nursery.cancel_scope.cancel(reason="the collector has ended")


def _info(config: Config, started: "Started") -> DevInfo:
    admin = started.admin or ""
    return DevInfo(
        http=started.http,
        admin=admin if "://" in admin else f"http://{admin}",
        ws=started.ws,
        bootstrap_servers=",".join(config.kafka.bootstrap_servers),
        topic=config.kafka.topic,
        pid=os.getpid(),
    )


def _announce(info: DevInfo, arguments: argparse.Namespace) -> None:
    mock = " (mock: nothing is kept)" if arguments.broker == "mock" else ""
    event = '{"userId":"ann","event":"Hello"}'
    _say(
        f"""
collector   {info.http}{"  (nginx)" if arguments.nginx else ""}
websocket   {info.ws}
dashboard   {info.admin}/
Kafka       {info.bootstrap_servers}, topic {info.topic}{mock}

try         curl -i {info.http}/v1/track -u dev: -d '{event}'
look        collector tail
"""
    )


def _say(text: str) -> None:
    print(text, flush=True)
