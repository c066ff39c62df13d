"""Where `collector send` reads events from: an argument, a file, stdin.

Owns: reading lines without holding up the loop, and saying which line is wrong. Refuses to know: where events go.

The stream is read in a thread: a terminal or a pipe may take for ever to give the next line.
"""

import io
import os
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import cast

import msgspec
import trio

from collector.client import ApiName, EventError
from collector.client.events import api_of, encode_event

__all__ = ["Batch", "Source", "SourceError", "guess_api", "open_source"]

LINE_BYTES = 4 * 1024 * 1024
"""A longer line is no event that any collector takes."""
READ_BYTES = 256 * 1024


class SourceError(Exception):
    """The events cannot be read; the message says which file or line, and what would be right."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Some lines, and where they stand."""

    source: str
    lines: Sequence[bytes]
    numbers: Sequence[int]

    @property
    def where(self) -> str:
        """``events.jsonl, lines 1-100``."""
        if self.source == "the event":
            return self.source
        first, last = self.numbers[0], self.numbers[-1]
        return f"{self.source}, line {first}" if first == last else f"{self.source}, lines {first}-{last}"

    def check(self, api: ApiName) -> list[bytes]:
        """The events with ids; raises `SourceError` that names the line."""
        events = []
        for line, number in zip(self.lines, self.numbers, strict=True):
            try:
                events.append(encode_event(line, api_of(api)))
            except EventError as error:
                where = self.source if self.source == "the event" else f"{self.source}, line {number}"
                raise SourceError(f"{where}: {error}") from error
        return events


class Source:
    """Lines of one stream.

    Reading goes ahead by what one read of the stream gives, and a batch of a pipe is what has come: whoever writes an
    event into a pipe and waits is not held up until a batch is full.
    """

    def __init__(self, name: str, stream: io.BufferedIOBase, size_bytes: int | None) -> None:
        self.name = name
        self.size_bytes = size_bytes
        self.read_bytes = 0
        self._stream = stream
        self._ahead: deque[tuple[int, bytes]] = deque()
        self._rest = b""
        self._line = 0
        self._ended = False

    async def next_batch(self, number: int) -> Batch:
        """Up to ``number`` events; none at the end. Empty lines are passed over.

        On cancellation: a thread may go on waiting for a terminal's next line; it holds nothing.
        """
        await trio.lowlevel.checkpoint()
        patient = self.size_bytes is not None
        while not self._ended and (not self._ahead or (patient and len(self._ahead) < number)):
            self._take(await trio.to_thread.run_sync(self._read, abandon_on_cancel=True))
        taken = [self._ahead.popleft() for _ in range(min(number, len(self._ahead)))]
        return Batch(self.name, [line for _, line in taken], [at for at, _ in taken])

    def _read(self) -> bytes:
        try:
            return self._stream.read1(READ_BYTES)
        except OSError as error:
            raise SourceError(f"{self.name}: {error.strerror}") from error

    def _take(self, chunk: bytes) -> None:
        self._ended = not chunk
        self.read_bytes += len(chunk)
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        if self._ended and self._rest:
            lines.append(self._rest)
        if len(self._rest) > LINE_BYTES:
            raise SourceError(f"{self.name}, line {self._line + len(lines) + 1}: longer than {LINE_BYTES} bytes")
        for line in lines:
            self._line += 1
            if stripped := line.removeprefix(b"\xef\xbb\xbf").strip():
                self._ahead.append((self._line, stripped))


@contextmanager
def open_source(argument: str | None) -> Iterator[Source]:
    """The source that the argument names; raises `SourceError`."""
    if argument is None and sys.stdin.isatty():
        raise SourceError("nothing to send: give one event as JSON, a file with one JSON object a line, or - for stdin")
    if argument is None or argument == "-":
        yield Source("stdin", cast("io.BufferedIOBase", sys.stdin.buffer), None)
        return
    if argument.lstrip().startswith("{"):
        raw = argument.encode()
        # One event, however many lines it was typed in.
        yield Source("the event", io.BytesIO(b" ".join(raw.splitlines())), len(raw))
        return
    try:
        stream = open(argument, "rb")  # noqa: SIM115  # closed below; the errors of opening are told apart from ours
    except OSError as error:
        raise SourceError(f"{argument}: {error.strerror}") from error
    with stream:
        try:
            size = os.fstat(stream.fileno()).st_size or None
        except OSError:
            size = None
        yield Source(argument, stream, size)


def guess_api(line: bytes) -> ApiName:
    """The dialect of an event by its members; raises `EventError` where they say nothing."""
    try:
        fields = msgspec.json.decode(line, type=dict[str, msgspec.Raw])
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise EventError(f"the first event is not a JSON object: {error}") from error
    if "type" in fields:
        return "segment"
    if "identity" in fields or "user_id" in fields:
        return "heap"
    raise EventError(
        'the first event has neither "type" (segment) nor "identity" or "user_id" (heap): say --api segment or heap'
    )
