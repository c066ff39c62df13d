"""The configuration that workers run with: accepted once, given to each of them as it was accepted.

Owns: reading it, judging it, its way into a worker. Refuses to know: what stands in it.

Non-obvious: a reload may bring new code, whose configuration may have keys that this process does not know. So a
process of the new code reads and judges the file (``python -m collector.workers.settings FILE``), and hands it back
whole; this one understands of it what it needs. And a worker that is replaced at night gets what was accepted, not what
somebody has begun to write into the file since.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from typing import IO

import msgspec
import trio

from collector.config import Config
from collector.config_load import ConfigFault, check_servable, load_config
from collector.deadlines import DeadlineChain

__all__ = ["Refused", "Settings", "check_fixed", "read_anew", "read_config", "safe_path"]

READ_WITHIN_S = 30.0

FIXED = ("http", "admin", "metrics")
"""Tables whose ``bind`` needs a restart: their sockets are the supervisor's, and others know their addresses."""


class Refused(Exception):
    """A configuration is not taken over; the message is one line that says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """One accepted configuration."""

    config: Config
    """What this process understands of it."""
    encoded: bytes
    """The whole, as JSON, secrets included: it goes from process to process, never to a disk."""

    @classmethod
    def of(cls, config: Config) -> "Settings":
        return cls(config=config, encoded=msgspec.json.encode(config))

    @classmethod
    def decode(cls, encoded: bytes) -> "Settings":
        """What another process encoded. Raises `msgspec.MsgspecError`."""
        return cls(config=msgspec.json.decode(encoded, type=Config), encoded=encoded)

    def as_file(self) -> IO[bytes]:
        """An open file with the whole, at its start, for a worker's standard input; in memory where that can be."""
        if sys.platform == "linux":
            file: IO[bytes] = os.fdopen(os.memfd_create("collector settings"), "w+b")
        else:
            file = tempfile.TemporaryFile()  # noqa: SIM115  # the caller closes it
        file.write(self.encoded)
        file.seek(0)
        return file


def read_config(path: str) -> Config:
    """Read the file and the environment as `collector serve` does, and judge the whole.

    Raises:
        ConfigFault: it cannot work.
    """
    config = load_config(path, os.environ)
    check_servable(config)
    for problem in DeadlineChain.from_config(config).problems():
        raise ConfigFault("", problem)
    return config


async def read_anew(path: str, running: Settings) -> Settings:
    """Have a process of the code that is installed now read the file.

    Raises:
        Refused: it cannot work, or cannot work here: an address is another one.

    On cancellation: nothing has changed.
    """
    argv = [sys.executable, *safe_path(), "-m", "collector.workers.settings", path]
    done: subprocess.CompletedProcess[bytes] | None = None
    with trio.move_on_after(READ_WITHIN_S):
        done = await trio.run_process(argv, capture_stdout=True, capture_stderr=True, check=False)
    if done is None:
        raise Refused(f"reading {path} took longer than {READ_WITHIN_S:g} s")
    if done.returncode != 0:
        lines = done.stderr.decode("utf-8", "replace").strip().splitlines()
        raise Refused(lines[-1] if lines else f"reading {path} ended with {done.returncode}")
    try:
        settings = Settings.decode(done.stdout)
    except msgspec.MsgspecError as error:
        raise Refused(f"this supervisor does not understand the new configuration, start it anew: {error}") from error
    check_fixed(running, settings)
    return settings


def check_fixed(running: Settings, wanted: Settings) -> None:
    """Raise Refused where an address would have to change."""
    for table in FIXED:
        was, now = getattr(running.config, table).bind, getattr(wanted.config, table).bind
        if was != now:
            raise Refused(f"{table}.bind: is {was} for as long as this supervisor runs; start it anew for {now}")


def safe_path() -> Sequence[str]:
    """The option that has a child look for modules where we do: ``-m`` would put the working directory first."""
    return () if sys.path[:1] in ([""], [os.getcwd()]) else ("-P",)


def main(path: str) -> int:
    """Print the configuration, whole; 2 and one line where it is refused."""
    try:
        config = read_config(path)
    except ConfigFault as fault:
        print(fault, file=sys.stderr)
        return 2
    sys.stdout.buffer.write(Settings.of(config).encoded)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
