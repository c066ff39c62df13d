"""Reading other rooms' ``statistics()``: frozen dataclasses into flat numbers and into plain JSON values.

Owns: the reading rules, in one place for the metrics and the dashboard alike. Refuses to know: any particular
dataclass; a new field appears in both without a change here.

The rules: a number, a bool or None is a value; a mapping's keys and a sequence's identifying fields become labels;
nested dataclasses prefix their name. Text is a label inside a sequence and information at the top.
"""

import dataclasses
import enum
import math
from collections.abc import Iterator, Mapping, Sequence, Set
from typing import NamedTuple, TypeAlias

__all__ = ["JsonValue", "Number", "numbers_of", "plain"]

JsonValue: TypeAlias = "bool | int | float | str | list[JsonValue] | dict[str, JsonValue] | None"

MAX_ELEMENTS = 2000
"""Elements of one sequence (partitions, brokers) that become series; more are counted as omitted, not shown."""

# Integer fields that say *which*, not *how much*.
_IDENTIFYING = frozenset({"partition", "broker", "broker_id", "node", "node_id", "code", "status", "generation"})
# Text that varies within one thing's life: as a label it would make a new series each time.
_PROSE = frozenset({"advice", "message", "reason", "closed_reason", "error", "last_error"})


class Number(NamedTuple):
    """One value: ``name`` joined with ``_``, and labels in a fixed order."""

    name: str
    labels: tuple[tuple[str, str], ...]
    value: float


def plain(value: object, *, limit: int = MAX_ELEMENTS) -> JsonValue:
    """``value`` as JSON can hold it: dataclasses as objects, enums by value, infinities as None."""
    match value:
        case enum.Enum():
            return plain(value.value)
        case None | bool() | int() | str():
            return value
        case float():
            return value if math.isfinite(value) else None
        case Mapping():
            return {_word(key): plain(item) for key, item in list(value.items())[:limit]}
        case Sequence() | Set() if not isinstance(value, (bytes, bytearray, memoryview)):
            return [plain(item) for item in list(value)[:limit]]
        case _ if dataclasses.is_dataclass(value):
            return {item.name: plain(getattr(value, item.name)) for item in dataclasses.fields(value)}
        case _:
            return str(value)


def numbers_of(value: object, name: str = "", labels: tuple[tuple[str, str], ...] = ()) -> Iterator[Number]:
    """Every number inside ``value``, with the name and labels that lead to it."""
    match value:
        case enum.Enum() | None | str() | bytes():
            return
        case bool() | int() | float():
            yield Number(name, labels, float(value))
        case Mapping():
            label = "kind" if not labels else f"kind{len(labels)}"
            for key, item in list(value.items())[:MAX_ELEMENTS]:
                yield from numbers_of(item, name, (*labels, (label, _word(key))))
            yield from _omitted(len(value), name)
        case Sequence() | Set():
            for item in list(value)[:MAX_ELEMENTS]:
                if dataclasses.is_dataclass(item):
                    yield from _fields(item, name, (*labels, *_identity(item)))
            yield from _omitted(len(value), name)
        case _ if dataclasses.is_dataclass(value):
            yield from _fields(value, name, labels)
        case _:
            return


def _fields(value: object, name: str, labels: tuple[tuple[str, str], ...]) -> Iterator[Number]:
    taken = {label for label, _ in labels}
    assert dataclasses.is_dataclass(value)
    for item in dataclasses.fields(value):
        if item.name not in taken:
            yield from numbers_of(getattr(value, item.name), f"{name}_{item.name}" if name else item.name, labels)


def _identity(value: object) -> Iterator[tuple[str, str]]:
    assert dataclasses.is_dataclass(value)
    for item in dataclasses.fields(value):
        member: object = getattr(value, item.name)
        if item.name in _IDENTIFYING and isinstance(member, int):
            yield item.name, str(member)
        elif isinstance(member, (str, enum.Enum)) and item.name not in _PROSE:
            yield item.name, _word(member)
        elif dataclasses.is_dataclass(member) and item.name in ("topic_partition", "tp", "partition"):
            yield from _identity(member)


def _omitted(number: int, name: str) -> Iterator[Number]:
    if number > MAX_ELEMENTS:
        yield Number(f"{name}_omitted", (), float(number - MAX_ELEMENTS))


def _word(key: object) -> str:
    if isinstance(key, enum.Enum):
        return str(key.value)
    if isinstance(key, tuple):
        return ",".join(_word(part) for part in key)
    return str(key)
