"""The terminal of ``collector dev``: events as they arrive, and how many.

Owns: the picture. Refuses to know: where the addresses come from.

Invariant: it never holds the collector up. It reads the topic as anybody would; what comes faster than it is drawn is
counted and not shown.
"""

from collections import deque

import trio
from rich.console import Group
from rich.live import Live
from rich.text import Text

from collector.config import Config
from collector.log import get_logger
from kafka_client.admin import FetchedRecord
from kafka_client.errors import BrokerError, ConnectionLost

from .reading import open_reading
from .tail import event_line

__all__ = ["show_events"]

SHOWN = 12
DRAW_S = 0.25

log = get_logger("live")


async def show_events(config: Config) -> None:
    """Draw until cancelled. On cancellation: the last picture stays."""
    lines: deque[str] = deque(maxlen=SHOWN)
    with Live(_picture(lines, 0, 0.0), auto_refresh=False, transient=False) as live:
        while True:
            try:
                async with open_reading(config, config.kafka.topic) as records:
                    await _draw(live, lines, records)
            except* (ConnectionLost, BrokerError) as group:
                log.warning("the live view cannot read the topic; it tries again", error=str(group.exceptions[0]))
            await trio.sleep(5)


async def _draw(live: Live, lines: "deque[str]", records: "trio.MemoryReceiveChannel[list[FetchedRecord]]") -> None:
    total = 0
    rate = 0.0
    while True:
        came = 0
        fresh: list[str] = []
        with trio.move_on_after(DRAW_S):
            while True:
                batch = await records.receive()
                came += len(batch)
                fresh += [event_line(one.partition, one.offset, one.value or b"") for one in batch[-SHOWN:]]
        lines.extend(sorted(fresh)[-SHOWN:])  # a line begins with its time; partitions answer in any order
        total += came
        rate += (came / DRAW_S - rate) * 0.3
        live.update(_picture(lines, total, rate), refresh=True)


def _picture(lines: "deque[str]", total: int, rate: float) -> Group:
    head = Text(f"{total} events, {rate:.0f}/s" if total else "waiting for events …", style="bold")
    return Group(head, *(Text(line, no_wrap=True, overflow="ellipsis", style="dim") for line in lines))
