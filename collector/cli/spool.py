"""``collector spool``: what is on this disk and not in Kafka, and what is to be done with it.

Owns: the command line, the choice of files, how they look on a terminal. Refuses to know: what a file holds
(`collector.spool.inspection`), how it is changed (`.spool_orders`).

Every subcommand works on the file of a running collector and on one that a dead process left behind. Reading never
needs the lock; changing asks the owner to do it, or takes the lock where there is no owner.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from .main import Mendable
from .settings import add_config_argument, load

if TYPE_CHECKING:
    from collector.config import Config
    from collector.spool.inspection import Contents

__all__ = ["SpoolFile", "add_arguments", "run"]

EXIT_FAULTS: Final = 1

_WHAT: Final = {
    "ls": "the files: whose they are, and what is in them",
    "verify": "read every file through: structure, every row, ledger B; exit 1 where something is wrong",
    "export": "print the rows, one line of JSON each; exit 1 where one cannot be read",
    "replay": "have the rows sent to Kafka now",
    "drop": "delete rows for good",
}


@dataclass(frozen=True, slots=True)
class SpoolFile:
    """One file, and who has it."""

    path: Path
    holder: dict[str, object] | None
    """What its lock says; None: no process has it."""

    @property
    def owner(self) -> str:
        """For people."""
        return "none" if self.holder is None else f"pid {self.holder.get('pid', '?')}"

    @property
    def admin(self) -> str | None:
        """The owner's admin listener."""
        admin = (self.holder or {}).get("admin")
        return admin if isinstance(admin, str) else None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    subparsers = parser.add_subparsers(dest="what", metavar="WHAT", required=True)
    parsers = {}
    for name, purpose in _WHAT.items():
        sub = parsers[name] = subparsers.add_parser(
            name, help=purpose, description=purpose[0].upper() + purpose[1:] + "."
        )
        add_config_argument(sub)
        sub.add_argument("--path", metavar="DIRECTORY", help="instead of [spool] path")
        sub.add_argument("files", metavar="FILE", nargs="*", help="these files only, by their names in the directory")
    for name in ("ls", "verify"):
        parsers[name].add_argument("--json", action="store_true", help="one line of JSON for each file")
    parsers["export"].add_argument("--dead", action="store_true", help="the dead rows instead of those that wait")
    parsers["export"].add_argument("--out", metavar="FILE", type=Path, help="into a new file instead of stdout")
    parsers["replay"].add_argument("--dead", action="store_true", help="the dead rows too")
    drop = parsers["drop"]
    which = drop.add_mutually_exclusive_group(required=True)
    which.add_argument("--dead", action="store_true", help="every dead row")
    which.add_argument("--all", action="store_true", help="every row, dead or waiting")
    which.add_argument("--ids", metavar="ID,ID", type=_ids, help="these rows of one file, dead or waiting")
    drop.add_argument("--yes", action="store_true", help="do not ask")


def _ids(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        words = f"expected ids such as 17,18 (`collector spool export` shows them), got {text!r}"
        raise argparse.ArgumentTypeError(words) from None


def run(arguments: argparse.Namespace) -> int:
    config = load(arguments)
    files = _files(config, arguments)
    match arguments.what:
        case "ls":
            return _ls(files, as_json=arguments.json)
        case "verify":
            return _verify(files, as_json=arguments.json)
        case "export":
            return _export(files, dead=arguments.dead, out=arguments.out)
        case "replay":
            from .spool_orders import replay

            return replay(config, files, dead=arguments.dead)
        case _:
            from .spool_orders import drop

            return drop(
                files, dead=arguments.dead, everything=arguments.all, ids=arguments.ids or (), yes=arguments.yes
            )


def _files(config: "Config", arguments: argparse.Namespace) -> list[SpoolFile]:
    """The files that the command line means."""
    from collector.spool.files import holder_of, spools_in

    path = arguments.path or config.spool.path
    if path is None:
        raise Mendable("spool.path is empty: there is no spool")
    if path == ":memory:":
        raise Mendable('spool.path is ":memory:": that spool ends with its process')
    directory = Path(path)
    if not directory.is_dir():
        raise Mendable(f"{directory}: no such directory; it is [spool] path, and a collector makes it when it starts")
    found = spools_in(directory)
    if arguments.files:
        found = [_named(directory, found, name) for name in arguments.files]
    return [SpoolFile(file, holder_of(file)) for file in found]


def _named(directory: Path, found: Sequence[Path], name: str) -> Path:
    for file in (directory / name, directory / f"{name}.sqlite3", Path(name)):
        if file.is_file():
            return file
    there = ", ".join(file.name for file in found) or "none"
    raise Mendable(f"{name}: no such file in {directory}; there is: {there}")


# Reading.


def _ls(files: Sequence[SpoolFile], *, as_json: bool) -> int:
    if as_json:
        for file in files:
            print(json.dumps(_described(file)))
        return 0
    rows: list[tuple[str, ...]] = [("FILE", "OWNER", "STATE", "ROWS", "HELD", "ATTEMPTED", "DEAD", "BYTES", "OLDEST")]
    for file in files:
        told = _described(file)
        age = told["oldest_age_s"]
        numbers = (str(told[name]) for name in ("rows", "held", "attempted", "dead", "bytes"))
        oldest = "" if not isinstance(age, float) else _age(age)
        rows.append((file.path.name, file.owner, str(told["state"]), *numbers, oldest))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = [
            cell.ljust(width) if number < 3 else cell.rjust(width)
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        print("  ".join(cells).rstrip())
    if not files:
        print("no file: nothing was ever spooled here")
    return 0


def _described(file: SpoolFile) -> dict[str, object]:
    """One file for `ls`. A file that cannot be read has no numbers."""
    from collector.spool.inspection import Unreadable, contents_of

    told: dict[str, object] = {
        "file": str(file.path),
        "owner": None if file.holder is None else file.holder.get("pid"),
        "admin": file.admin,
    }
    try:
        contents = contents_of(file.path)
    except Unreadable as error:
        empty = dict.fromkeys(("rows", "held", "attempted", "dead", "bytes", "oldest_age_s"), "")
        return told | {"state": "unreadable", "why": str(error)} | empty
    return told | {
        "state": _state(file, contents),
        "rows": contents.rows,
        "held": contents.held,
        "attempted": contents.attempted,
        "dead": contents.dead,
        "bytes": contents.bytes,
        "oldest_age_s": contents.oldest_age_s,
    }


def _state(file: SpoolFile, contents: "Contents") -> str:
    if file.holder is not None:
        return "live"
    if contents.moved_to is not None:
        return f"moving to {Path(contents.moved_to).name}"
    return "left behind" if contents.rows or contents.dead else "empty"


def _age(seconds: float) -> str:
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"


def _verify(files: Sequence[SpoolFile], *, as_json: bool) -> int:
    from collector.spool.inspection import Unreadable, contents_of, faults_of

    wrong = False
    for file in files:
        faults = faults_of(file.path)
        wrong = wrong or bool(faults)
        if as_json:
            print(json.dumps({"file": str(file.path), "ok": not faults, "faults": faults}))
        elif faults:
            print(f"FAIL {file.path.name}")
            for fault in faults:
                print(f"     {fault}")
        else:
            try:
                contents = contents_of(file.path)
            except Unreadable as error:  # it was readable a moment ago
                raise Mendable(str(error)) from error
            account = contents.account
            print(
                f"ok   {file.path.name}: {account.rows_in} rows in = {account.replayed} replayed"
                f" + {account.resolved} resolved + {account.dead} dead + {account.dropped} dropped"
                f" + {account.lost} lost + {contents.rows} here"
            )
    return EXIT_FAULTS if wrong else 0


def _export(files: Sequence[SpoolFile], *, dead: bool, out: Path | None) -> int:
    problems: list[str] = []
    if out is None:
        for line in _lines(files, dead, problems, escaped=sys.stdout.isatty()):
            sys.stdout.write(line + "\n")
        sys.stdout.flush()
    else:
        try:
            with out.open("x", encoding="utf-8") as stream:
                for line in _lines(files, dead, problems, escaped=False):
                    stream.write(line + "\n")
        except OSError as error:
            raise Mendable(f"{out}: {error.strerror}") from error
    for problem in problems:
        print(f"collector spool: {problem}", file=sys.stderr)
    return EXIT_FAULTS if problems else 0


def _lines(files: Sequence[SpoolFile], dead: bool, problems: list[str], *, escaped: bool) -> Iterator[str]:
    """``escaped``: clients write events; what would steer a terminal must not reach one."""
    import msgspec

    from collector.spool.inspection import Unreadable, exported

    for file in files:
        damaged: list[int] = []
        try:
            for row in exported(file.path, dead=dead, damaged=damaged.append):
                yield json.dumps({"file": file.path.name, **msgspec.to_builtins(row)}, ensure_ascii=escaped)
        except Unreadable as error:
            problems.append(str(error))
        if damaged:
            named = ", ".join(map(str, damaged[:5])) + (", …" if len(damaged) > 5 else "")
            problems.append(f"{file.path}: {len(damaged)} rows cannot be read: {named}")
