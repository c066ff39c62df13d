"""The supervisor without processes: what it decides by itself."""

from contextlib import closing

import trio

from collector.config import Config, HttpConfig, WorkersConfig
from collector.workers.settings import Refused, Settings
from collector.workers.sockets import open_sockets
from collector.workers.supervisor import Supervisor

HTTP = HttpConfig(bind="127.0.0.1:0")


def settings_of(count: int) -> Settings:
    return Settings.of(Config(http=HTTP, workers=WorkersConfig(count=count)))


async def test_signal_while_a_reload_adds_workers_starts_none_and_the_supervisor_ends() -> None:
    with closing(await open_sockets(HTTP, 1)) as sockets:

        async def read_anew(running: Settings) -> Settings:
            await trio.lowlevel.checkpoint()
            supervisor.slots.clear()  # as if each had been replaced
            return settings_of(3)

        supervisor = Supervisor(settings_of(1), sockets, read_anew)
        grow = sockets.grow

        async def grow_and_leave(count: int) -> None:
            await grow(count)
            supervisor.leave()

        sockets.grow = grow_and_leave  # type: ignore[method-assign]
        async with trio.open_nursery() as nursery:
            supervisor._nursery = nursery
            with trio.fail_after(5):
                assert await supervisor._reload() == "done"
    assert (supervisor.slots, supervisor.processes) == ([], set())


async def test_refused_configuration_is_a_result_and_changes_nothing() -> None:
    with closing(await open_sockets(HTTP, 1)) as sockets:

        async def read_anew(running: Settings) -> Settings:
            await trio.lowlevel.checkpoint()
            raise Refused("http.bind: is another one")

        running = settings_of(1)
        supervisor = Supervisor(running, sockets, read_anew)
        assert await supervisor._reload() == "refused"
        assert supervisor.settings is running
        statistics = supervisor.statistics()
        assert (statistics.workers, statistics.word, statistics.ready) == ((), "starting", False)
        supervisor.leave()
        assert (supervisor.statistics().word, repr(supervisor)) == ("draining", "<Supervisor []>")
