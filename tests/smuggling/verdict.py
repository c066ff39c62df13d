"""Whether nginx and the lane agree on where the requests of one connection end.

They agree where both read the same requests, or where one read a part of what the other read and then ended the
connection: who refuses is never wrong about where a request ends. Nothing else is agreement; in particular not a side
that waits for more of a request while the other has seen it end.

Methods, targets and bodies must be the same. nginx speaks for a target in absolute form by its path.
"""

import re
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from collector.config import Config
from collector.web.lane.parser import RequestParser
from tests.smuggling.case import Read

__all__ = ["Ending", "LaneView", "NginxView", "disagreement", "lane_view"]

_ABSOLUTE = re.compile(rb"https?://[^/?#]*", re.IGNORECASE)

#: Refused, or closed because a request said so; waiting for more of a request; between two requests.
Ending: TypeAlias = Literal["closed", "waiting", "between"]


@dataclass
class LaneView:
    """What the lane made of a connection's bytes."""

    reads: list[Read]
    ending: Ending
    reason: str = ""


@dataclass
class NginxView:
    """What nginx made of them: None for a request that it answered by itself, without a word to anybody behind it."""

    reads: list[Read | None] = field(default_factory=list)
    ending: Ending = "closed"


def lane_view(raw: bytes) -> LaneView:
    """The lane's parser, fed with the whole of ``raw``."""
    parser = RequestParser(Config().limits)
    parser.feed(raw)
    while parser.held:
        raise AssertionError("a generated connection has fewer requests")
    reads = [
        Read(request.method, _path(request.target), request.take()) for request in parser.requests if request.complete
    ]
    open_body = bool(parser.requests) and not parser.requests[-1].complete
    if parser.refusal is not None:
        return LaneView(reads, "closed", str(parser.refusal))
    if parser.started or open_body:
        return LaneView(reads, "waiting")
    closed = bool(parser.requests) and not parser.requests[-1].keep_alive
    return LaneView(reads, "closed" if closed else "between")


def _path(target: bytes) -> bytes:
    """Path and query of a target. The authority ends at the first of three characters (RFC 3986, 3.2)."""
    absolute = _ABSOLUTE.match(target)
    if absolute is None:
        return target
    rest = target[absolute.end() :]
    return rest if rest.startswith(b"/") else b"/" + rest


def disagreement(lane: LaneView, nginx: NginxView) -> str:
    """In which way they differ; empty where they agree."""
    for number, (ours, theirs) in enumerate(zip(lane.reads, nginx.reads, strict=False)):
        if theirs is not None and ours != theirs:
            return f"request {number}: the lane read {ours}, nginx {theirs}"
    if len(lane.reads) < len(nginx.reads) and lane.ending != "closed":
        return f"the lane is {lane.ending} after {len(lane.reads)} requests, nginx read {len(nginx.reads)}"
    if len(nginx.reads) < len(lane.reads) and nginx.ending != "closed":
        return f"nginx is {nginx.ending} after {len(nginx.reads)} requests, the lane read {len(lane.reads)}"
    return ""
