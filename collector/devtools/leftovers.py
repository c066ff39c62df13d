"""The question that every test of cancellation ends with: is anything left?

Owns: what "anything" is: tasks, bytes on either account, waiters, due times, admissions, events in work, rows on their
way to the spool or out of it. Refuses to know: what was done before.

Invariant: what belongs to a running producer, monitor or fake broker for its whole life (a sender per broker, a reader
per connection) is not called left; everything else that was not there when the watch began is.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields

import trio

from collector.monitor.tasks import all_tasks
from collector.web.services import Services
from kafka_client.observe import ProducerStatistics
from kafka_client.testing import FakeCluster

__all__ = ["AssertNothingLeft"]

POLL_S = 0.01

#: Tasks that live as long as a producer, a monitor, a fake broker or one of their connections does; trio's own and
#: pytest-trio's are in angle brackets.
AT_HOME = ("kafka ", "read from ", "monitor: ", "kafka_client.testing.", "<")

#: Gauges of `kafka_client.observe.ProducerStatistics` that are 0 when nobody wants anything.
PRODUCER_GAUGES = (
    "queue_bytes",
    "queued_records",
    "waiting_bytes",
    "waiting_deliveries",
    "waiters",
    "in_flight_bytes",
    "in_flight_batches",
    "detached_batches",
    "detached_records",
    "detached_bytes",
    "due_times",
)
ADMISSION_GAUGES = ("in_work_bytes", "reservations", "keys")
LEDGER_GAUGES = ("in_work", "difference")
#: Of the sources that the monitor watches, where there is a spool. What waits in it for Kafka is not left behind.
SPOOL_GAUGES = {"spool": ("pending_rows", "difference"), "replay": ("in_work_rows", "unresolved_rows", "probing")}


class AssertNothingLeft:
    """Made when the test begins; call it whenever nothing should be left.

    Args:
        producers: The ``statistics`` methods of the producers.
        services: The collector's rooms.
        broker: The fake cluster: what it calls a violation of the protocol is reported too.
        at_home: More beginnings of names of tasks that may stay, such as a server's for its open connections.
    """

    def __init__(
        self,
        *,
        producers: Sequence[Callable[[], ProducerStatistics]] = (),
        services: Services | None = None,
        broker: FakeCluster | None = None,
        at_home: Sequence[str] = (),
    ) -> None:
        self._producers = producers
        self._services = services
        self._broker = broker
        self._at_home = (*AT_HOME, *at_home)
        self._tasks: set[trio.lowlevel.Task] = set()
        self.start_over()

    def __repr__(self) -> str:
        return f"<AssertNothingLeft {self.leftovers() or 'nothing'}>"

    async def __call__(self, *, within_s: float = 0.0, connections: int | None = None) -> None:
        """Raise AssertionError naming everything that is left.

        Args:
            within_s: How long to wait for it to go, on Trio's clock: a batch that was sealed lives until its answer.
            connections: How many connections the producers may have opened since they started, exactly; None does not
                ask.

        On cancellation: nothing was asserted.
        """
        await trio.testing.wait_all_tasks_blocked()
        with trio.move_on_after(within_s):
            await trio.lowlevel.checkpoint()
            while self.leftovers():  # noqa: ASYNC110  # what was forgotten has no event
                await trio.sleep(POLL_S)
        left = self.leftovers()
        if connections is not None and (opened := self.connections_opened_total) != connections:
            left.append(f"{opened} connections were opened, not {connections}")
        assert not left, "left behind: " + "; ".join(left)

    def start_over(self) -> None:
        """Take the tasks that run now as given, such as those of a server that the test has opened by itself."""
        self._tasks = set(all_tasks())

    @property
    def connections_opened_total(self) -> int:
        """Connections that the producers have opened since they started."""
        return sum(statistics().connections_opened_total for statistics in self._producers)

    def leftovers(self) -> list[str]:
        """What is left at this moment, one line each."""
        left = [f"task {task.name}" for task in all_tasks() if task not in self._tasks and not self._may_stay(task)]
        for statistics in self._producers:
            left += _nonzero("producer", statistics(), PRODUCER_GAUGES)
        if self._services is not None:
            left += _nonzero("admission", self._services.admission.statistics(), ADMISSION_GAUGES)
            left += _nonzero("ledger", self._services.ledger.statistics(), LEDGER_GAUGES)
            sources = self._services.monitor.sources
            for source, gauges in SPOOL_GAUGES.items():
                if source in sources:
                    left += _nonzero(source, sources[source](), gauges)
        if self._broker is not None:
            left += [f"violation: {violation}" for violation in self._broker.seen.violations]
        return left

    def _may_stay(self, task: trio.lowlevel.Task) -> bool:
        return task.name.startswith(self._at_home)


def _nonzero(what: str, statistics: object, names: Sequence[str]) -> Iterator[str]:
    known = {field.name for field in fields(statistics)}  # type: ignore[arg-type]  # all statistics are dataclasses
    for name in names:
        if name in known and (value := getattr(statistics, name)):
            yield f"{what}: {name} is {value}"
