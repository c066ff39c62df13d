"""Many connections through nginx and through the lane's parser, and where they disagree."""

import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

import trio

from tests.smuggling.stage import FORWARDED_AND_REFUSED, Stage
from tests.smuggling.verdict import disagreement, lane_view

__all__ = ["Comparison", "compare"]

AT_ONCE = 16


@dataclass
class Comparison:
    """What was compared, and every disagreement: what it is, and the bytes of the connection."""

    connections: int = 0
    requests: int = 0
    """Generated."""
    read_by_lane: int = 0
    read_by_nginx: int = 0
    too_slow: int = 0
    """Connections that were asked twice, since nothing came back on them."""
    forwarded: int = 0
    """Requests that nginx passed on, each of them read by the lane's parser as well."""
    refused_behind: int = 0
    """Of these, what the lane refuses for what it says, not for where it ends: `FORWARDED_AND_REFUSED`."""
    refusals: Counter[str] = field(default_factory=Counter)
    """The lane's, by their reasons without the client's bytes."""
    disagreements: list[tuple[str, bytes]] = field(default_factory=list)
    seconds: float = 0.0

    def __str__(self) -> str:
        return (
            f"{self.requests} requests on {self.connections} connections in {self.seconds:.0f} s: "
            f"nginx read {self.read_by_nginx}, the lane {self.read_by_lane} and refused {self.refusals.total()}; "
            f"{self.forwarded} forwarded, {self.refused_behind} of them to be refused; "
            f"{self.too_slow} asked twice; {len(self.disagreements)} disagreements"
        )


async def compare(stage: Stage, work: Iterable[tuple[bytes, int]], requests: int) -> Comparison:
    """Send connections until ``requests`` requests were generated, or ``work`` is at its end.

    Args:
        work: the bytes of a connection, and the number of its requests.
    """
    result = Comparison()
    started = time.monotonic()
    waiting = iter(work)

    async def one_after_the_other() -> None:
        await trio.lowlevel.checkpoint()
        while result.requests < requests:
            raw, count = next(waiting, (b"", 0))
            if not raw:
                break
            result.connections += 1
            result.requests += count
            await _compare_one(stage, raw, result)

    async with trio.open_nursery() as nursery:
        for _ in range(AT_ONCE):
            nursery.start_soon(one_after_the_other)
    result.seconds = time.monotonic() - started
    result.forwarded = stage.forwarded
    for reason, request in stage.refused:
        if FORWARDED_AND_REFUSED.search(reason):
            result.refused_behind += 1
        else:
            result.disagreements.append((f"forwarded by nginx and refused by the lane: {reason}", request))
    for request in stage.differing:
        result.disagreements.append(("forwarded by nginx and read otherwise by the lane", request))
    return result


async def _compare_one(stage: Stage, raw: bytes, result: Comparison) -> None:
    lane = lane_view(raw)
    try:
        nginx = await stage.ask(raw)
    except trio.TooSlowError:
        result.too_slow += 1
        # Nothing in the bytes, where a second time is quicker.
        nginx = await stage.ask(raw)
    result.read_by_lane += len(lane.reads)
    result.read_by_nginx += len(nginx.reads)
    if lane.reason:
        result.refusals[lane.reason.partition(": b'")[0].partition(': b"')[0]] += 1
    found = disagreement(lane, nginx)
    if found:
        result.disagreements.append(
            (f"{found}; the lane ended by {lane.reason or lane.ending}, nginx {nginx.ending}", raw)
        )
