"""nginx's configuration language: quoting, units, blocks.

Owns: how a value and a block are written. Refuses to know: which.

Invariant: what `quoted` returns is one argument to nginx, and means the text that was given.
"""

from collections.abc import Iterable

__all__ = ["indented", "location", "milliseconds", "quoted", "seconds"]


def indented(blocks: Iterable[str]) -> list[str]:
    """Move whole blocks one level in."""
    return ["\n".join(f"    {line}" if line else "" for line in block.split("\n")) for block in blocks]


def location(name: str, lines: Iterable[str]) -> list[str]:
    """Return a location of the server block, with an empty line before it."""
    return ["", f"    location {name} {{", *(f"        {line}" if line else "" for line in lines), "    }"]


def seconds(value: float) -> str:
    """Write a duration in seconds, or in milliseconds where it has a fraction."""
    return f"{value:g}s" if value == int(value) else milliseconds(value)


def milliseconds(value: float) -> str:
    """Write a duration of ``value`` seconds in milliseconds."""
    return f"{round(value * 1000)}ms"


def quoted(text: str) -> str:
    """Put ``text`` into single quotes.

    Raises:
        ValueError: It has a dollar sign, which would name a variable and cannot be escaped.
    """
    if "$" in text:
        raise ValueError(f"cannot stand in nginx's configuration: {text!r}")
    for plain_text, escaped in (("\\", "\\\\"), ("'", "\\'"), ("\r", "\\r"), ("\n", "\\n")):
        text = text.replace(plain_text, escaped)
    return f"'{text}'"
