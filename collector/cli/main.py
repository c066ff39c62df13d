"""``collector``: which command, and the rim where errors become one line and an exit code.

Owns: the list of commands, the exit codes of design §2 (0 drained, 3 some outcomes unknown, 2 configuration, 1 a bug).
Refuses to know: what a command does; its module is imported when it is called, so that ``--help`` costs nothing.

Invariant: what an operator can mend is one line on stderr and exit 2; anything else is a traceback and exit 1.
"""

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from importlib.metadata import version
from typing import Protocol, cast

__all__ = ["COMMANDS", "Command", "Mendable", "main"]

#: Name of the command (and of its module here) -> what it is for.
COMMANDS = {
    "dev": "everything on this machine: a broker, the collector, the dashboard",
    "serve": "the collector, as configured by a file",
    "check": "print the chain of deadlines with its numbers and verify the topic",
    "tail": "print events from the topic as they come",
    "send": "send events to a collector, over HTTP or websocket",
    "report": "what became of every event: the ledgers over time",
    "replay": "feed back what nginx kept while no collector could be reached",
    "spool": "what waits on this disk: list, verify, export, replay, drop",
    "render": "write configuration for others: nginx",
}


class Command(Protocol):
    """What the module of a command has."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Describe the command line."""
        ...

    def run(self, arguments: argparse.Namespace) -> int:
        """Do it and return the exit code."""
        ...


class Mendable(Exception):
    """Something that the operator can mend; the message is one line that says how. Exit code 2."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``collector``; returns the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    parser = argparse.ArgumentParser(
        prog="collector", description="Track events over HTTP and websocket into Apache Kafka, every one accounted for."
    )
    parser.add_argument("--version", action="version", version=f"collector {version('collector')}")
    called = words[0] if words and words[0] in COMMANDS else None
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    module: Command | None = None
    for name, purpose in COMMANDS.items():
        subparser = subparsers.add_parser(name, help=purpose, description=purpose[0].upper() + purpose[1:] + ".")
        if name == called:
            module = cast("Command", importlib.import_module(f"collector.cli.{name}"))
            module.add_arguments(subparser)
    arguments = parser.parse_args(words)
    assert module is not None
    try:
        return module.run(arguments)
    except KeyboardInterrupt:
        return 130
    except Exception as error:  # the rim of the command line: one line for what can be mended, else the traceback
        if isinstance(_lone(error), BrokenPipeError):
            # Whoever read our output has had enough. Nothing of it may be flushed at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 0
        line = _mendable_line(_lone(error))
        if line is None:
            raise
        print(f"collector {called}: {line}", file=sys.stderr)
        return 2


def _lone(error: BaseException) -> BaseException:
    """What a nursery wrapped, where it is one exception."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


def _mendable_line(error: BaseException) -> str | None:
    """The one line of an error that the operator can mend; None for a bug."""
    # By name: a command that failed has imported the class already, and no other need be.
    names = {f"{kind.__module__}.{kind.__name__}" for kind in type(error).__mro__}
    return str(error) if names & _MENDABLE else None


_MENDABLE = {
    "collector.cli.main.Mendable",
    "collector.config_load.ConfigFault",
    "collector.devtools.children.ChildFailed",
    "collector.devtools.kafka_install.KafkaUnavailable",
    "collector.devtools.nginx.NginxUnavailable",
    "collector.last_resort.cursor.CursorFault",
    "collector.last_resort.lines.Unusable",
    "kafka_client.errors.ConfigError",
}
