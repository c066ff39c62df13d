"""``collector replay FILE``: what nginx kept while no collector could be reached goes on its way to Kafka.

Owns: the command line, the producer, signals, what is printed, the exit code: 0 all is done, 3 something is left or may
be lost, 2 the configuration, the file or the place of the cursor. Refuses to know: the lines of the file
(`collector.last_resort`).

The first SIGINT or SIGTERM ends it after the chunk that is on its way, a second one at once.
"""

import argparse
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from .main import Mendable
from .settings import add_config_argument, load

if TYPE_CHECKING:
    import trio

    from collector.config import Config
    from collector.last_resort.lines import KeptFile
    from collector.last_resort.report import Report

__all__ = ["add_arguments", "run"]

EXIT_DONE, EXIT_LEFT = 0, 3

#: Of what was given up, in the end: an answer that is on its way still counts for the broker, not for us.
CLOSE_S = 1.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "file", metavar="FILE", type=Path, help="[nginx] last_resort_file, or what a rotation made of it"
    )
    add_config_argument(parser, required=True)
    parser.add_argument(
        "--wait",
        metavar="SECONDS",
        type=float,
        default=30.0,
        help="how long some hundred lines may take to be acknowledged; by default 30",
    )
    parser.add_argument(
        "--cursors",
        metavar="DIRECTORY",
        type=Path,
        help="where it remembers how far it came; by default beside FILE. Give the same one each time",
    )


def run(arguments: argparse.Namespace) -> int:
    from dataclasses import replace

    import trio

    from collector.config_load import check_servable
    from collector.last_resort.lines import KeptFile
    from collector.log import configure_logging

    config = load(arguments)
    check_servable(config)
    if not arguments.wait > 0:
        raise Mendable(f"--wait: expected more than 0 seconds, got {arguments.wait:g}")
    level = "warning" if config.log.level == "info" else config.log.level
    configure_logging(replace(config.log, level=level))
    try:
        file = KeptFile(arguments.file)
    except OSError as error:
        raise Mendable(f"{error.filename or arguments.file}: {error.strerror}") from error
    with file:
        report = trio.run(_replay, config, file, arguments.wait, arguments.cursors)
    print(arguments.file)
    if report is None:
        print("  cut off: what was on its way is fed back again by the next replay, marked")
        return EXIT_LEFT
    for line in report.lines():
        print(f"  {line}")
    sys.stdout.flush()
    return EXIT_DONE if report.lossless else EXIT_LEFT


async def _replay(config: "Config", file: "KeptFile", patience_s: float, cursors: Path | None) -> "Report | None":
    import trio

    from collector.brokers import producer_config
    from collector.last_resort.feed import Feeder
    from collector.last_resort.replay import replay
    from collector.monitor import open_monitor
    from collector.producer_log import ProducerLog
    from collector.rooms import make_services
    from kafka_client.producer import open_producer

    def say(text: str) -> None:
        print(f"{file.path}, {text}", file=sys.stderr)

    report: Report | None = None
    async with (
        open_monitor(config, listen=False) as monitor,
        open_producer(producer_config(config), observer=ProducerLog()) as producer,
    ):
        feeder = Feeder(make_services(config, monitor, producer))
        async with trio.open_nursery() as nursery:
            stopping: Callable[[], bool] = await nursery.start(_signals, nursery.cancel_scope)
            report = await replay(file, feeder, patience_s=patience_s, say=say, stopping=stopping, cursors=cursors)
            nursery.cancel_scope.cancel(reason="the replay has ended")
        await producer.close(CLOSE_S)
    return report


async def _signals(  # noqa: ASYNC910  # the signals never end
    work: "trio.CancelScope", *, task_status: "trio.TaskStatus[Callable[[], bool]]"
) -> None:
    # The scope is a parameter because a second signal ends what is in it.
    import trio

    asked = 0
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as received:
        task_status.started(lambda: asked > 0)
        async for _ in received:
            asked += 1
            if asked > 1:
                work.cancel(reason="a second signal")
