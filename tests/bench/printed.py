"""The place of what a program printed, in a file that has more: between two lines of its own.

Owns: the lines. Refuses to know: what is between them.
"""

import os
import re
from pathlib import Path

__all__ = ["END", "begin_of", "printed_in", "put_into"]

END = "<!-- until here -->"


def begin_of(program: str) -> str:
    """The line behind which ``program``, such as ``just faults``, puts what it printed."""
    return f"<!-- what `{program}` printed -->"


def printed_in(file: Path, program: str) -> str:
    """What it printed there before: all of the file where that has no such lines, empty where there is none."""
    old = file.read_text() if file.exists() else ""
    begin = begin_of(program)
    return old.partition(begin)[2].partition(END)[0] if begin in old else old


def put_into(file: Path, program: str, text: str) -> None:
    """Write ``text`` to a file: between its lines where it has them, else as all of it. Whole or not at all.

    Between lines its headings go down by two levels: the file has headings of its own.

    Raises:
        ValueError: The file has one of the lines without the other, so it has more that would be lost.
    """
    old = file.read_text() if file.exists() else ""
    begin = begin_of(program)
    if begin in old or END in old:
        before, found, rest = old.partition(begin)
        _, end, after = rest.partition(END)
        if not found or not end:
            raise ValueError(f"{file} has not both of {begin!r} and {END!r}, in this order")
        text = re.sub(r"^#", "###", text, flags=re.MULTILINE)
        text = f"{before}{begin}\n\n{text}\n{END}{after}"
    part = file.with_name(file.name + ".part")
    part.write_text(text)
    os.replace(part, file)
