"""What the commands share: the ``--config`` option, and the address of a ``collector dev`` that runs here.

Owns: reading configuration for a command, and ``dev.json``. Refuses to know: what a configuration may hold.
"""

import argparse
import json
import os
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from collector.config import Config
from collector.config_load import load_config

__all__ = ["DEV_DIRECTORY", "DevInfo", "add_config_argument", "load", "load_for_topic", "read_dev_info"]

DEV_DIRECTORY = Path(".collector")


@dataclass(frozen=True, slots=True, kw_only=True)
class DevInfo:
    """``.collector/dev.json``: where a running ``collector dev`` is."""

    http: str
    admin: str
    ws: str
    bootstrap_servers: str
    topic: str
    pid: int

    def write(self, directory: Path) -> None:
        """Put the file in its place whole."""
        partial = directory / f"dev.json.{os.getpid()}"
        partial.write_text(json.dumps(asdict(self), indent=2) + "\n")
        partial.replace(directory / "dev.json")


def read_dev_info(directory: Path = DEV_DIRECTORY) -> DevInfo | None:
    """Return where the ``collector dev`` of this directory is, or None where none runs."""
    try:
        info = DevInfo(**json.loads((directory / "dev.json").read_text()))
        os.kill(info.pid, 0)
    except (OSError, ValueError, TypeError):
        return None
    return info


def add_config_argument(parser: argparse.ArgumentParser, *, required: bool = False) -> None:
    """Add ``--config``."""
    parser.add_argument(
        "--config",
        metavar="FILE",
        required=required,
        help="the configuration, TOML; COLLECTOR__SECTION__KEY in the environment overrides it",
    )


def load(arguments: argparse.Namespace) -> Config:
    """Load what ``--config`` and the environment say. Raises ConfigFault."""
    return load_config(arguments.config, os.environ)


def load_for_topic(arguments: argparse.Namespace) -> Config:
    """Load the configuration of a command that reads a topic; without ``--config``, a running ``collector dev``'s."""
    config = load(arguments)
    dev = read_dev_info() if arguments.config is None else None
    servers = arguments.bootstrap_servers or (dev.bootstrap_servers if dev is not None else None)
    kafka = config.kafka
    if servers is not None:
        kafka = replace(kafka, bootstrap_servers=tuple(part.strip() for part in servers.split(",")))
    topic = arguments.topic or (dev.topic if dev is not None else None)
    return replace(config, kafka=replace(kafka, topic=topic or kafka.topic))
