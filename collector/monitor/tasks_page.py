"""`/debug/tasks`: the nursery tree for people, as text, and the same for programs, as JSON.

Owns: folding, the order of what is shown, the words. Refuses to know: trio; it renders `TaskNode`.

What an operator must see first comes first: what is wrong, then a table of what everything waits for, then the tree.
Ten thousand idle connections are one line: siblings that differ in numbers only are folded into the one that has been
still for longest.
"""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from .statistics import JsonValue
from .tasks import NurseryNode, TaskNode

__all__ = ["Headline", "render_json", "render_text"]

FOLD_FROM = 3
LISTED = 10
MANY_RUNNABLE = 100
"""More tasks than this waiting for their turn at one moment: the loop is the bottleneck."""
LATE_S = 0.25
"""A deadline this far past while its task still waits: the loop could not deliver it."""

_DIGITS = re.compile(r"\d+([.,:/]\d+)*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Headline:
    """The process in one line, above the tree."""

    pid: int
    up_s: float
    at: str
    ready: bool
    word: str
    lag_s: float
    recent_highest_lag_s: float
    max_lag_s: float
    gc_share: float


def render_text(top: TaskNode, headline: Headline, *, fold: bool = True, frames: bool = False) -> str:
    """The page as plain text.

    Args:
        top: the captured tree.
        headline: the process in one line.
        fold: show siblings alike as one.
        frames: show every task's whole chain of awaits.
    """
    every = list(_walk(top))
    lines = [
        f"collector · pid {headline.pid} · up {span(headline.up_s)} · {headline.at} · {headline.word}"
        + ("" if headline.ready else "  (not ready)"),
        f"{len(every):,} tasks · loop lag {_ms(headline.lag_s)} now, {_ms(headline.recent_highest_lag_s)} highest in "
        f"the last minute · garbage collection {headline.gc_share:.1%} of CPU",
        "",
        "Look here first",
        *(f"  {line}" for line in _attention(every, headline) or ["nothing stands out"]),
        "",
        "What tasks wait for",
        *_waits(every),
        "",
        "Tree: each task, and after the dash what it waits for"
        + ("   (?fold=0: every task; ?frames=1: whole chains of awaits; ?format=json)" if fold else ""),
    ]
    _task_lines(top, lines, "", "", fold=fold, frames=frames, alike=1)
    return "\n".join(lines) + "\n"


def render_json(top: TaskNode, headline: Headline) -> JsonValue:
    """The whole tree, unfolded, and what stands out."""
    every = list(_walk(top))
    return {
        "pid": headline.pid,
        "up_s": headline.up_s,
        "at": headline.at,
        "ready": headline.ready,
        "word": headline.word,
        "tasks": len(every),
        "attention": list(_attention(every, headline)),
        "waits": dict(Counter(node.wait.kind for node in every).most_common()),
        "tree": _json(top),
    }


def span(seconds: float) -> str:
    """``12 s``, ``3 min 20 s``, ``5 h 12 min``, ``9 d 4 h``."""
    whole = int(seconds)
    for size, name, smaller, smaller_name in (
        (86400, "d", 3600, "h"),
        (3600, "h", 60, "min"),
        (60, "min", 1, "s"),
    ):
        if whole >= size:
            return f"{whole // size} {name} {whole % size // smaller} {smaller_name}"
    return f"{whole} s"


def _walk(top: TaskNode) -> Iterator[TaskNode]:
    pending = [top]
    while pending:
        node = pending.pop()
        yield node
        for nursery in node.nurseries:
            pending.extend(nursery.children)


def _attention(every: Sequence[TaskNode], headline: Headline) -> list[str]:
    found: list[str] = []
    if not headline.ready:
        found.append(f"! not ready: {headline.word}")
    if headline.recent_highest_lag_s > headline.max_lag_s / 2:
        found.append(
            f"! the loop was late by {_ms(headline.recent_highest_lag_s)} within the last minute; above "
            f"{_ms(headline.max_lag_s)} requests are shed"
        )
    runnable = sum(node.runnable for node in every)
    if runnable > MANY_RUNNABLE:
        found.append(f"! {runnable:,} tasks wait for their turn: the CPU is the bottleneck")
    late = [node for node in every if node.deadline_s is not None and node.deadline_s < -LATE_S]
    found += _listed("past a deadline that the loop could not deliver yet", late)
    # A cancelled task that waits for its children is not the culprit: one of them is.
    undead = [
        node for node in every if node.cancelled and node.wait.kind not in ("children", "running") and not node.runnable
    ]
    found += _listed("cancelled and not ended", undead)
    slow = [node for node in every if node.wait.kind == "slow peer"]
    found += _listed("writing to a peer that does not read", slow)
    locks = [node for node in every if node.wait.kind == "lock" and (node.still_s or 0) > 1]
    found += _listed("waiting for a lock for more than a second", locks)
    return found


def _listed(what: str, nodes: Sequence[TaskNode]) -> list[str]:
    if not nodes:
        return []
    lines = [f"! {len(nodes):,} {'task is' if len(nodes) == 1 else 'tasks are'} {what}:"]
    for node in sorted(nodes, key=lambda each: -(each.still_s or 0))[:LISTED]:
        why = f"; cancelled: {node.cancelled}{' (behind a shield)' if node.shielded else ''}" if node.cancelled else ""
        still = f", still for {span(node.still_s)}" if node.still_s is not None and node.still_s >= 1 else ""
        lines.append(
            f"    {node.name}: waits for {node.wait.text}{still}{why}{f'  @ {node.place}' if node.place else ''}"
        )
    if len(nodes) > LISTED:
        lines.append(f"    … and {len(nodes) - LISTED:,} more")
    return lines


def _waits(every: Sequence[TaskNode]) -> list[str]:
    counts: Counter[tuple[str, str]] = Counter()
    for node in every:
        if node.wait.kind not in ("children", "running", "trio"):
            counts[(_DIGITS.sub("#", node.wait.text), node.place or _DIGITS.sub("#", node.name))] += 1
    lines = [f"  {number:>7,}  {text:<44} {place}" for (text, place), number in counts.most_common(LISTED)]
    if len(counts) > LISTED:
        lines.append(f"           … and {len(counts) - LISTED:,} other kinds")
    return lines


def _task_lines(
    node: TaskNode, lines: list[str], lead: str, below: str, *, fold: bool, frames: bool, alike: int
) -> None:
    marks = []
    if node.deadline_s is not None:
        marks.append(f"{node.deadline_s:.2f} s to its deadline")
    if node.still_s is not None and node.still_s >= 1:
        marks.append(f"still for {span(node.still_s)}")
    if node.cancelled:
        marks.append(f"CANCELLED: {node.cancelled}{' (behind a shield)' if node.shielded else ''}")
    times = f"  × {alike:,}" if alike > 1 else ""
    lines.append(f"{lead}{node.name}{times} — {node.wait.text}{''.join(f' · {mark}' for mark in marks)}")
    continued = below + ("│   " if any(nursery.children for nursery in node.nurseries) else "    ")
    if node.place is not None:
        lines.append(f"{continued}@ {node.place}{f'  {node.subject}' if node.subject else ''}")
    if frames:
        lines.extend(f"{continued}  · {frame}" for frame in node.frames)
    _nursery_lines(node.nurseries, lines, below, fold=fold, frames=frames)


def _nursery_lines(nurseries: Sequence[NurseryNode], lines: list[str], below: str, *, fold: bool, frames: bool) -> None:
    rows: list[tuple[TaskNode, int]] = []
    for nursery in nurseries:
        rows += _folded(nursery.children) if fold else [(child, 1) for child in nursery.children]
    for index, (child, alike) in enumerate(rows):
        last = index == len(rows) - 1
        lead, under = (below + "└─ ", below + "   ") if last else (below + "├─ ", below + "│  ")
        _task_lines(child, lines, lead, under, fold=fold, frames=frames, alike=alike)


def _folded(children: Sequence[TaskNode]) -> list[tuple[TaskNode, int]]:
    groups: dict[object, list[TaskNode]] = {}
    for child in children:
        groups.setdefault(_likeness(child), []).append(child)
    rows: list[tuple[TaskNode, int]] = []
    for group in groups.values():
        if len(group) < FOLD_FROM:
            rows.extend((child, 1) for child in group)
        else:
            rows.append((max(group, key=lambda child: child.still_s or 0), len(group)))
    return rows


def _likeness(node: TaskNode) -> object:
    """What makes two siblings one line: all but the numbers."""
    return (
        _DIGITS.sub("#", node.name),
        _DIGITS.sub("#", node.wait.text),
        node.place,
        bool(node.cancelled),
        tuple(
            (nursery.cancelled, tuple(sorted(str(_likeness(child)) for child in nursery.children)))
            for nursery in node.nurseries
        ),
    )


def _json(node: TaskNode) -> JsonValue:
    return {
        "name": node.name,
        "waits_for": node.wait.text,
        "kind": node.wait.kind,
        "at": node.place,
        "subject": node.subject,
        "deadline_s": node.deadline_s,
        "cancelled": node.cancelled,
        "shielded": node.shielded,
        "runnable": node.runnable,
        "still_s": node.still_s,
        "frames": list(node.frames),
        "nurseries": [
            {
                "deadline_s": nursery.deadline_s,
                "cancelled": nursery.cancelled,
                "closed": nursery.closed,
                "children": [_json(child) for child in nursery.children],
            }
            for nursery in node.nurseries
        ],
    }


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.1f} ms"
