"""What `dev` and `serve` share: the checks before the collector starts, and beside it the look at its topic.

Owns: refusing to start with a broken chain of deadlines or an address that is taken. Refuses to know: the nursery trees
(`collector.run`, `collector.workers.supervisor`).
"""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import trio

from collector.config import Config
from collector.deadlines import DeadlineChain
from collector.garbage import spare_the_collector
from collector.log import get_logger
from collector.topic_check import check_topics

from .main import Mendable

if TYPE_CHECKING:
    from collector.run import Started

__all__ = ["collect", "supervise_workers"]

log = get_logger("start")

T = TypeVar("T")


async def collect(
    config: Config,
    *,
    stop: trio.Event | None = None,
    task_status: "trio.TaskStatus[Started]" = trio.TASK_STATUS_IGNORED,
) -> int:
    """Run the collector until it has drained; returns its exit code.

    Raises:
        Mendable: The chain of deadlines is broken, or an address cannot be had.

    On cancellation: as `collector.run.run`.
    """
    from collector.run import run

    async def collected(*, task_status: "trio.TaskStatus[Started]") -> int:  # noqa: ASYNC128  # run() reports
        return (await run(config, stop=stop, task_status=task_status)).code

    def ready(started: "Started") -> None:
        spare_the_collector()
        log.info("listening", http=started.http, ws=started.ws, admin=started.admin)
        task_status.started(started)

    return await _checked(config, collected, ready)


async def supervise_workers(config: Config, path: str) -> int:
    """Run the workers until they have drained; returns their exit code.

    Args:
        path: the configuration's file, for a reload.

    Raises:
        Mendable: as `collect`.

    On cancellation: the workers see that we are gone, and drain.
    """
    from collector.workers.settings import Settings, read_anew
    from collector.workers.supervisor import supervise

    log.info("several processes", workers=config.workers.processes)
    return await _checked(
        config, partial(supervise, Settings.of(config), partial(read_anew, path)), lambda running: None
    )


async def _checked(config: Config, run: "Callable[..., Awaitable[int]]", ready: "Callable[[T], object]") -> int:
    """Run it with the checks before and the look beside; returns what it returns."""
    chain = DeadlineChain.from_config(config)
    for problem in chain.problems():
        raise Mendable(problem)
    log.info("the chain of deadlines holds", links=[str(link) for link in chain.links])
    listening = False
    codes: list[int] = []

    async def running(*, task_status: "trio.TaskStatus[T]") -> None:  # noqa: ASYNC128  # run() reports
        codes.append(await run(task_status=task_status))
        nursery.cancel_scope.cancel(reason="the collector has ended")

    try:
        async with trio.open_nursery() as nursery:
            started: T = await nursery.start(running)
            listening = True
            ready(started)
            nursery.start_soon(_look_at_topics, config, name="topic check")
    except* OSError as group:
        if listening:
            raise
        raise Mendable(str(_first(group))) from group
    return codes[0]


def _first(group: BaseExceptionGroup[OSError]) -> BaseException:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


async def _look_at_topics(config: Config) -> None:
    """Say what is wrong with the topics, once. It never ends anything: liveness does not depend on Kafka."""
    for finding in await check_topics(config):
        match finding.level:
            case "error":
                log.error("topic check", found=finding.text)
            case "warning":
                log.warning("topic check", found=finding.text)
            case _:
                log.info("topic check", found=finding.text)
