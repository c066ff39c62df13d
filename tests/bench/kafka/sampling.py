"""Where a producing process spends its CPU time, by stages of a record's way; told by samples of its stack.

Owns: the timer, the stages. Refuses to know: which client produces, and what a stage should cost.

Theory. A profiler that hears of every call makes small functions look dear: here they are most of it. A sample is taken
at a tick of the process's own CPU time (ITIMER_PROF; the kernel's tick, 4 ms, is the least) and costs nothing between.
Python runs the handler between two instructions, after a call into C that was under way; so the innermost frame of one
of the rooms below is where the time went, within a function or so: enough for stages, not for lines.

Invariant: every sample counts for exactly one stage, so the shares add up to the whole.
"""

import json
import signal
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import CodeType, FrameType
from typing import Protocol

__all__ = ["STAGES", "Profiler", "Sampler", "as_table", "stage_of"]

#: What a file's path contains -> the stage; the first that fits.
_ROOMS = (
    ("/trio/_socket.py", "sockets: Trio's layers and the kernel"),
    ("/trio/_highlevel_socket.py", "sockets: Trio's layers and the kernel"),
    ("/trio/_ssl.py", "sockets: Trio's layers and the kernel"),
    ("/trio/_core/_io_epoll.py", "sockets: Trio's layers and the kernel"),
    ("/trio/", "Trio: tasks, clock"),
    ("/outcome/", "Trio: tasks, clock"),
    ("<attrs generated", "Trio: tasks, clock"),  # the constructors of its messages
    ("/tests/bench/", "the caller: its loop, the records, a look at each outcome"),
    ("/kafka_client/wire/compression.py", "compression"),
    ("/kafka_client/wire/record_batch.py", "a batch's bytes, CRC"),
    ("/kafka_client/sending/intake.py", "queueing"),
    ("/kafka_client/producer.py", "queueing"),
    ("/kafka_client/sending/topic.py", "queueing"),
    ("/kafka_client/buffer/delivery.py", "deliveries: waiting, ending, outcomes"),
    ("/kafka_client/buffer/bulk.py", "deliveries: waiting, ending, outcomes"),
    ("/kafka_client/buffer/run.py", "deliveries: waiting, ending, outcomes"),
    ("/kafka_client/buffer/", "queueing"),
    ("/kafka_client/", "requests and answers"),
)
_ELSEWHERE = "elsewhere"
STAGES = (*dict.fromkeys(stage for _, stage in reversed(_ROOMS)), _ELSEWHERE)
_EVERY_S = 0.001


class Profiler(Protocol):
    """As `cProfile.Profile`."""

    def enable(self) -> None:
        """Begin."""
        ...

    def disable(self) -> None:
        """End."""
        ...

    def dump_stats(self, file: str) -> None:
        """Write what was found."""
        ...


class Sampler:
    """Counts samples by stage.

    Args:
        stage_of: Of the code of a stack, innermost first; by default that of its files, as `stage_of` has it.
    """

    def __init__(self, stage_of: Callable[[Sequence[CodeType]], str] | None = None) -> None:
        self.samples: Counter[str] = Counter()
        self._stage_of = _stage_of_files if stage_of is None else stage_of

    def enable(self) -> None:
        """Begin."""
        signal.signal(signal.SIGPROF, self._sample)
        signal.setitimer(signal.ITIMER_PROF, _EVERY_S, _EVERY_S)

    def disable(self) -> None:
        """End."""
        signal.setitimer(signal.ITIMER_PROF, 0)

    def dump_stats(self, file: str) -> None:
        """Write the counts as JSON."""
        Path(file).write_text(json.dumps(self.samples))

    def _sample(self, number: int, frame: FrameType | None) -> None:
        stack = []
        while frame is not None:
            stack.append(frame.f_code)
            frame = frame.f_back
        self.samples[self._stage_of(stack)] += 1


def _stage_of_files(stack: Sequence[CodeType]) -> str:
    return stage_of([code.co_filename for code in stack])


def stage_of(files: Sequence[str]) -> str:
    """The stage of a stack, its files innermost first: that of the first one in a room that has a name."""
    for file in files:
        for part, stage in _ROOMS:
            if part in file:
                return stage
    return _ELSEWHERE


def as_table(found: Mapping[str, tuple[Mapping[str, int], float]]) -> str:
    """Markdown: CPU-µs a record by stage and contender. ``found``: its samples and its CPU-µs a record, by its name."""
    lines = [f"| CPU-µs a record | {' | '.join(found)} |", "| --- " * (len(found) + 1) + "|"]
    for stage in STAGES:
        shares = [(samples.get(stage, 0) / max(1, sum(samples.values())), cpu_us) for samples, cpu_us in found.values()]
        if any(share for share, _ in shares):
            cells = [f"{share * cpu_us:.2f} ({share:.0%})" for share, cpu_us in shares]
            lines.append(f"| {stage} | {' | '.join(cells)} |")
    lines.append(f"| together | {' | '.join(f'{cpu_us:.2f}' for _, cpu_us in found.values())} |")
    lines.append(f"| samples | {' | '.join(str(sum(samples.values())) for samples, _ in found.values())} |")
    return "\n".join(lines)
