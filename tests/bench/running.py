"""What the programs have in common: their command line, the order of the runs, the report at the end.

Owns: rounds that interleave, a failure that does not stop the others and is not forgotten. Refuses to know: what a run
is.

Invariant: a contender that failed is named in the report, has no part in a ratio from then on, and fails the command.
"""

import argparse
import json
import os
import platform
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Protocol, TypeVar

import trio

from collector.devtools.children import ChildFailed, bare_error
from collector.devtools.kafka_install import KafkaUnavailable
from tests.bench.machine import Cores
from tests.bench.printed import put_into
from tests.bench.report import Measured, Report, as_json, as_markdown

__all__ = ["Named", "Rounds", "RunFailed", "about_machine", "command_line", "finish", "interleave", "say", "words"]


class RunFailed(Exception):
    """A run ended without figures; the message says how."""


class Named(Protocol):
    """A contender."""

    @property
    def name(self) -> str: ...

    @property
    def settings(self) -> str: ...


C = TypeVar("C", bound=Named)


class Rounds:
    """How often, and what has failed so far."""

    def __init__(self, count: int, say: Callable[[str], None]) -> None:
        self.count = count
        self.say = say
        """Is told of each run as it ends."""
        self.failures: list[str] = []

    def failed(self, label: str, name: str, error: Exception) -> None:
        """Note it, and say it."""
        self.failures.append(f"{label} {name}: {error}")
        self.say(f"FAILED {label} {name}: {error}")


async def interleave(
    rounds: Rounds,
    label: str,
    contenders: Sequence[C],
    measure: Callable[[C], Awaitable[Mapping[str, float]]],
    describe: Callable[[Mapping[str, float]], str],
) -> dict[str, Measured]:
    """Run every contender once a round, so that each round sees them all in the same state of the machine.

    On cancellation: as ``measure``.
    """
    await trio.lowlevel.checkpoint()
    measured = {each.name: Measured(name=each.name, settings=each.settings) for each in contenders}
    lost: set[str] = set()
    for number in range(rounds.count):
        for each in contenders:
            if each.name in lost:
                continue
            try:
                figures = await measure(each)
            except (RunFailed, ChildFailed, OSError) as error:
                rounds.failed(label, each.name, error)
                lost.add(each.name)
                measured[each.name].runs.clear()  # its rounds would be held against other ones
                continue
            measured[each.name].runs.append(figures)
            rounds.say(f"{label} round {number + 1}/{rounds.count} {each.name}: {describe(figures)}")
    return measured


def command_line(what: str, doc: str | None, rows: Sequence[str]) -> argparse.ArgumentParser:
    """The options that every program has."""
    parser = argparse.ArgumentParser(
        prog=f"just bench {what}", description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="one short run each: a look, not a measurement")
    parser.add_argument(
        "--rows", type=partial(words, rows), default=rows, metavar=",".join(rows[:2]), help="only these rows"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every run and verdict there")
    parser.add_argument(
        "--markdown", type=Path, metavar="FILE", help="write the tables there; between their lines where it has them"
    )
    parser.set_defaults(program=f"just bench {what}")
    return parser


def words(allowed: Sequence[str], text: str) -> Sequence[str]:
    """A list with commas, of these words only."""
    found = [word.strip() for word in text.split(",") if word.strip()]
    for word in found:
        if word not in allowed:
            raise argparse.ArgumentTypeError(f"{word!r} is not one of {', '.join(allowed)}")
    return found


def finish(arguments: argparse.Namespace, run: Callable[[argparse.Namespace], Awaitable[Report | None]]) -> None:
    """Run to the end, print and write the report.

    Raises:
        SystemExit: 1 where a part cannot start, or where a contender failed, after the report; 130 on Ctrl-C.
    """
    try:
        with bare_error():
            report = trio.run(run, arguments)
    except (RunFailed, ChildFailed, KafkaUnavailable) as error:
        raise SystemExit(str(error)) from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    if report is None:
        return
    text = as_markdown(report)
    print(text)
    if arguments.markdown is not None:
        put_into(arguments.markdown, arguments.program, text)
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(as_json(report), indent=1) + "\n")
    if report.failures:
        raise SystemExit("failed:\n" + "\n".join(report.failures))


def about_machine(cores: Cores, subject: str, rest: str, packages: Sequence[str]) -> dict[str, str]:
    """Lines of the report's head."""
    return {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
        "pinned": f"{rest} to core {cores.rest}, {subject} to core {cores.subject}"
        if cores.apart
        else f"nothing: there is one core for both sides, so the work of {rest} is in every rate",
        "versions": ", ".join(f"{name} {_version(name)}" for name in packages),
    }


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "(not installed)"


def say(line: str) -> None:
    """Progress, beside the report."""
    print(line, file=sys.stderr, flush=True)
