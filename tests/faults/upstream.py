"""What nginx saw, before it mapped anything for its clients.

Owns: reading its access log (one JSON object a request) and its error log. Refuses to know: what of it is allowed.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

__all__ = ["Upstream", "read_error_log", "read_upstream"]

#: ``2026/11/22 22:37:51 [error] 12#12: *7 connect() failed (111: Connection refused) while connecting to upstream, …``
_COMPLAINT = re.compile(r"^\S+ \S+ \[(?P<level>\w+)\] \d+#\d+: (?:\*\d+ )?(?P<words>.*?)(?: while |, client|$)")

#: Of sockets, requests, processes.
_NUMBER = re.compile(r"#?\d+")

NO_CONNECTION = "no connection"

#: What nginx says of every body that is larger than its buffer.
_HARMLESS = ("a client request body is buffered to a temporary file",)


class _Line(msgspec.Struct):
    path: str
    status: str | int
    sent: str | int
    upstream_status: str = ""
    upstream_connect_s: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Upstream:
    """Of one row."""

    answers: Counter[str]
    """What the servers behind it answered, try by try; ``-`` where a try ended without an answer."""
    meant: Counter[str]
    """What nginx itself made of each request, before its error pages. A 504 because no connection came about, and
    nothing was sent, is ``no connection``: what a listener that closes looks like."""
    complaints: Mapping[str, int] = field(default_factory=dict)
    """What the error log says, by its words, and how often."""

    @property
    def errors(self) -> dict[str, int]:
        """5xx but 503: 502 where the server could not be reached or hung up, 504 where it was too late, 500."""
        return {
            words: count for words, count in sorted(self.meant.items()) if words[0] not in "1234" and words != "503"
        }

    @property
    def timeouts(self) -> int:
        """504: a server had the request and did not answer in time."""
        return self.meant["504"]


def read_upstream(access_log: Path, error_log: Path) -> Upstream:
    """Read both logs; one that was never written is empty.

    Raises:
        msgspec.DecodeError: A line of the access log is not what the rendered configuration writes.
    """
    decoder = msgspec.json.Decoder(_Line)
    answers: Counter[str] = Counter()
    meant: Counter[str] = Counter()
    for raw in _lines(access_log):
        line = decoder.decode(raw)
        connected = [part.strip() for part in line.upstream_connect_s.replace(":", ",").split(",") if part.strip()]
        words = str(line.status)
        meant[NO_CONNECTION if words == "504" and connected and set(connected) == {"-"} else words] += 1
        # "502, 200" are tries within one group of servers, "502 : 200" are groups.
        answers.update(part.strip() for part in line.upstream_status.replace(":", ",").split(",") if part.strip())
    return Upstream(answers=answers, meant=meant, complaints=read_error_log(error_log))


def read_error_log(error_log: Path) -> Counter[str]:
    """How often it complains of what. Its lines carry a time, ids and addresses, so they are told by their words."""
    found: Counter[str] = Counter()
    for raw in _lines(error_log):
        line = raw.decode("utf-8", "replace")
        match = _COMPLAINT.match(line)
        if match is None:
            found[_NUMBER.sub("#", line)] += 1
        elif not match["words"].startswith(_HARMLESS):
            found[f"{match['level']}: {_NUMBER.sub('#', match['words'])}"] += 1
    return found


def _lines(file: Path) -> Iterable[bytes]:
    return file.read_bytes().splitlines() if file.exists() else ()
