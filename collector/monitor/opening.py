"""The nursery [M]: where measuring and showing live.

Owns: the monitor's tasks and their rim. Refuses to know: what they measure.

Invariant: a task of ours that fails is logged here and started again, and nothing of it reaches the rest of the
process. Only a listener that cannot be bound is raised, at the start, where an operator reads it. The listeners are
bound, and accept, before the block begins: an address that was handed out answers.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from functools import partial

import trio

from collector.config import Config
from collector.log import get_logger

from .admin import make_admin_app, make_metrics_app
from .listeners import address_of, bind_listener, serve_app
from .monitor import Monitor
from .sampler import Sampler

__all__ = ["kept_alive", "open_monitor"]

RESTART_S = 1.0
"""Pause before a failed task of ours starts again."""

log = get_logger("monitor")


@asynccontextmanager
async def open_monitor(config: Config | None = None, *, listen: bool = True) -> AsyncIterator[Monitor]:
    """The nursery [M]: lag probe, sampler and the admin listeners, until the block ends.

    Args:
        config: ``[admin]`` and ``[metrics]`` say where to listen; port 0 is any, and ``monitor.admin_address`` tells.
        listen: False measures without listening (tests on virtual time).

    Raises:
        OSError: a listener cannot be bound; the message names the key and the address.

    On cancellation: our tasks are cancelled; the block's own exception passes unchanged.
    """
    monitor = Monitor(config)
    sampler = Sampler(monitor)
    with ExitStack() as stack:
        tasks: dict[str, Callable[[], Awaitable[object]]] = {"lag probe": monitor.lag.run, "sampler": sampler.run}
        if listen:
            admin = stack.enter_context(bind_listener("admin.bind", monitor.config.admin.bind))
            monitor.admin_address = address_of(admin)
            tasks["admin server"] = partial(serve_app, make_admin_app(monitor, sampler), admin)
            if monitor.config.metrics.bind is not None:
                metrics = stack.enter_context(bind_listener("metrics.bind", monitor.config.metrics.bind))
                monitor.metrics_address = address_of(metrics)
                tasks["metrics server"] = partial(serve_app, make_metrics_app(monitor), metrics)
        stack.enter_context(monitor.gc.measuring())
        stack.enter_context(_block_exception_unwrapped())
        async with trio.open_nursery() as nursery:
            for name, run in tasks.items():
                nursery.start_soon(kept_alive, monitor.error, name, run, name=f"monitor: {name}")
            try:
                yield monitor
            finally:
                nursery.cancel_scope.cancel(reason="the monitor closes")


@contextmanager
def _block_exception_unwrapped() -> Iterator[None]:
    """Take the nursery's group off the block's own exception: our tasks do not raise, so there is only that one."""
    sole: BaseException | None = None
    try:
        yield
    except BaseExceptionGroup as group:
        if len(group.exceptions) != 1:
            raise
        (sole,) = group.exceptions
    if sole is not None:
        raise sole


async def kept_alive(failed: Callable[[str], object], name: str, run: Callable[[], Awaitable[object]]) -> None:
    """One task that watches: started again after a failure, which is logged here, and of which ``failed`` is told.

    On cancellation: so is the task.
    """
    while True:
        try:
            await run()
            return
        except Exception:  # the monitor's rim: watching must never end what is watched
            failed(name)
            log.exception("a monitor task failed and is started again", task=name, after_s=RESTART_S)
            await trio.sleep(RESTART_S)
