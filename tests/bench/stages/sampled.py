"""``collector`` with a sampler in its process: it begins to count at one SIGUSR1, and writes what it found at the next.

The file is named by the environment: `FILE_KEY`.
"""

import os
import signal
import sys
from pathlib import Path
from types import FrameType

from collector.cli import main
from tests.bench.kafka.sampling import Sampler
from tests.bench.stages.rooms import stage_of_stack

__all__ = ["FILE_KEY"]

FILE_KEY = "COLLECTOR_BENCH_STAGES_FILE"


class Switch:
    """Turns samplers on and off."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._sampler: Sampler | None = None

    def turn(self, number: int, frame: FrameType | None) -> None:
        """As a handler of a signal."""
        if self._sampler is None:
            self._sampler = Sampler(stage_of_stack)
            self._sampler.enable()
            return
        self._sampler.disable()
        # Whole, or not there.
        part = self._file.with_suffix(".part")
        self._sampler.dump_stats(str(part))
        part.replace(self._file)
        self._sampler = None


if __name__ == "__main__":
    signal.signal(signal.SIGUSR1, Switch(Path(os.environ[FILE_KEY])).turn)
    sys.exit(main())
