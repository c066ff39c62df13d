"""A file of kept requests, fed back: chunk by chunk, and resumed where the last replay ended.

Owns: the chunks, what the cursor says before and after each. Refuses to know: dialects, Kafka, who runs it.

Invariants: a line is on the disk as perhaps sent before its first record goes to the producer, and done only when
every event of it is delivered or rejected for good; a line that cannot be read never stops the others; memory is
bounded by one chunk and one request.

Theory. A chunk is a few hundred lines in order. It is prepared, the cursor names its lines as perhaps sent (one fsync),
it is sent, and what of it is done leaves the cursor with the next chunk's fsync. So a crash repeats one chunk, and the
repeated records say ``maybe-duplicate: 1``. Where something of a chunk was not delivered in time the replay ends after
it: whatever holds it up would hold up the rest. The next one begins with those lines. It ends too where the cursor
cannot be written: nothing goes out that the disk does not know of.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import trio

from collector.dialects.base import ClientFault
from collector.ingest.verdict import Kind, Verdict
from collector.last_resort.cursor import (
    Cursor,
    CursorFault,
    OpenLine,
    check_place,
    cursor_path,
    read_cursor,
    write_cursor,
)
from collector.last_resort.feed import Feeder, Prepared
from collector.last_resort.kept import LINE_START, BrokenLine, read_kept
from collector.last_resort.lines import KeptFile, RawLine
from collector.last_resort.report import Report
from collector.log import get_logger

__all__ = ["replay"]

log = get_logger("replay")

#: A chunk ends when it has so many lines, or so many bytes of bodies (inflated).
CHUNK_LINES = 500
CHUNK_BYTES = 4 * 1024 * 1024

#: Lines that are told one by one; the others are counted.
TOLD_LINES = 100

#: nginx writes a line at once: half a one that is older will not be completed.
STILL_WRITTEN_S = 60.0


@dataclass(frozen=True, slots=True)
class _Item:
    """One request of a chunk, and the line that it is in."""

    line: OpenLine
    prepared: Prepared


async def replay(
    file: KeptFile,
    feeder: Feeder,
    *,
    patience_s: float,
    say: Callable[[str], object],
    stopping: Callable[[], bool] = lambda: False,
    cursors: Path | None = None,
) -> Report:
    """Feed back what of ``file`` is not done.

    Args:
        patience_s: How long a chunk may take to be acknowledged.
        say: Told about each line that is no good, the first `TOLD_LINES`.
        stopping: Asked after each chunk.
        cursors: The directory of the cursor; None: the file's.

    Raises:
        CursorFault: The file is not the one that its cursor is of, or there is no place for one. Nothing was sent.
        Unusable: The file cannot be read.

    On cancellation: the lines of the chunk that is on its way are fed back again by the next replay, marked.
    """
    run = _Run(file, feeder, patience_s, say)
    directory = cursors or file.path.parent
    identity = file.identity()
    check_place(cursor_path(directory, identity or "none"))
    if identity is not None:
        run.resume(cursor_path(directory, identity))
        chunk: Sequence[_Item] | None = await run.prepare_open()
        while chunk is not None and await run.send(chunk):
            if stopping():
                run.stop()
                break
            chunk = await run.prepare_next()
    return await run.end()


class _Run:
    """One replay of one file."""

    def __init__(self, file: KeptFile, feeder: Feeder, patience_s: float, say: Callable[[str], object]) -> None:
        self._file = file
        self._feeder = feeder
        self._patience_s = patience_s
        self._say = say
        self._told = 0
        self._path = Path()
        self._failed: list[OpenLine] = []
        self._cursor = self._written = Cursor()
        self.report = Report()

    def resume(self, path: Path) -> None:
        """Find out how far the last replay came."""
        self._path = path
        self._cursor = self._written = cursor = read_cursor(path)
        if cursor.offset > self._file.size_bytes:
            raise CursorFault(
                f"{self._file.path} has {self._file.size_bytes} bytes, and {cursor.offset} of it were replayed: it was "
                f"cut. {self._path} is its cursor"
            )
        self.report.before = cursor.lines - len(cursor.open)

    def _behind(self) -> bool:
        """Whether there are whole lines that nobody has looked at."""
        return next(self._file.lines(self._cursor.offset, 1), None) is not None

    def stop(self) -> None:
        """Somebody asked for it."""
        self.report.stopped = self._behind()

    async def prepare_open(self) -> list[_Item]:
        """Prepare the lines that the last replay has left."""
        await trio.lowlevel.checkpoint()
        chunk: list[_Item] = []
        for line in self._cursor.open:
            for raw in self._file.lines(line.offset, line.number):
                item = await self._prepare(raw.data, line)
                if item is not None:
                    chunk.append(item)
                break
        return chunk

    async def prepare_next(self) -> list[_Item] | None:
        """Prepare the next lines and move the cursor behind them; None at the end of the file."""
        await trio.lowlevel.checkpoint()
        chunk: list[_Item] = []
        size = 0
        last: RawLine | None = None
        for count, raw in enumerate(self._file.lines(self._cursor.offset, self._cursor.lines + 1), 1):
            last = raw
            found = self._whole(raw)
            if found is not None:
                data, offset = found
                item = await self._prepare(data, OpenLine(offset, raw.number, maybe_duplicate=False))
                if item is not None:
                    chunk.append(item)
                    size += item.prepared.body_bytes
            if count >= CHUNK_LINES or size >= CHUNK_BYTES:
                break
        if last is None:
            return None
        self._cursor = Cursor(offset=last.end, lines=last.number, open=self._cursor.open)
        return chunk

    def _whole(self, raw: RawLine) -> tuple[bytes, int] | None:
        """The request in this line and where it begins: a disk that was full leaves half a line before the next."""
        at = raw.data.rfind(LINE_START)
        if at:
            if raw.data:
                self.report.broken.add(raw.number)
                self._tell(f"line {raw.number}: broken: {'half a line' if at > 0 else 'not a kept request'}")
            if at < 0:
                return None
        return raw.data[at:], raw.offset + at

    async def _prepare(self, data: bytes, line: OpenLine) -> _Item | None:
        try:
            kept = read_kept(data)
            prepared = await self._feeder.prepare(kept, maybe_duplicate=line.maybe_duplicate)
        except BrokenLine as broken:
            self.report.broken.add(line.number)
            self._tell(f"line {line.number}: broken: {broken}")
            return None  # noqa: ASYNC910  # nothing was waited for
        except ClientFault as fault:
            self._refuse(line, fault)
            return None  # noqa: ASYNC910  # the same
        except Exception:  # the rim of one request: a bug in it leaves its line, and stops no other
            log.exception("a kept request failed", file=str(self._file.path), line=line.number)
            self.report.reason = self.report.reason or "internal error"
            self._failed.append(line)
            return None  # noqa: ASYNC910  # the same
        return _Item(line, prepared)

    def _refuse(self, line: OpenLine, fault: ClientFault | None) -> None:
        self.report.refused.add(line.number)
        self._tell(f"line {line.number}: refused: {fault}")

    def _tell(self, text: str) -> None:
        self._told += 1
        if self._told <= TOLD_LINES:
            self._say(text)
        elif self._told == TOLD_LINES + 1:
            self._say("more lines are no good: they are counted")

    async def send(self, chunk: Sequence[_Item]) -> bool:
        """Send a chunk; whether every line of it is done and the next one may follow."""
        self._move(OpenLine(item.line.offset, item.line.number, maybe_duplicate=True) for item in chunk)
        if not chunk:
            return True  # noqa: ASYNC910  # nothing to send
        if not await self._write():
            return False
        verdicts = await self._feeder.deliver([item.prepared for item in chunk], self._patience_s)
        left = list(self._left(chunk, verdicts))
        self._move(left)
        return not left and len(self._failed) < CHUNK_LINES

    def _left(self, chunk: Sequence[_Item], verdicts: Sequence[Verdict]) -> Iterator[OpenLine]:
        """Count what became of the events; what is not done is open."""
        for item, verdict in zip(chunk, verdicts, strict=True):
            counts = verdict.counts
            self.report.events.update(asdict(counts))
            if counts.not_sent or counts.unknown:
                self.report.reason = self.report.reason or f"not acknowledged in time: {verdict.reason}"
                maybe = item.line.maybe_duplicate or bool(counts.delivered or counts.unknown)
                yield OpenLine(item.line.offset, item.line.number, maybe)
            elif verdict.kind is Kind.REFUSED:
                self._refuse(item.line, verdict.fault)
            else:
                self.report.fed += 1

    def _move(self, open_lines: Iterable[OpenLine]) -> None:
        still_open = (*self._failed, *open_lines)
        self._cursor = Cursor(offset=self._cursor.offset, lines=self._cursor.lines, open=still_open)

    async def _write(self) -> bool:
        """Have the cursor on the disk, where it is not yet; whether it is. What failed once is not tried again."""
        await trio.lowlevel.checkpoint()
        if self.report.cursor_fault:
            return False
        if self._cursor != self._written:
            try:
                await trio.to_thread.run_sync(write_cursor, self._path, self._cursor)
            except OSError as error:
                self.report.cursor_fault = f"{self._path} cannot be written: {error.strerror}"
                return False
            self._written = self._cursor
        return True

    async def end(self) -> Report:
        """Write down how far it came, and close the report."""
        report = self.report
        if not await self._write():
            self._cursor = self._written
        report.left = self._cursor.open
        report.next_line = self._cursor.lines + 1
        report.behind_bytes = behind_bytes = self._file.size_bytes - self._cursor.offset
        if behind_bytes and report.done and self._file.age_s > STILL_WRITTEN_S and not self._behind():
            report.broken.add(report.next_line)
            self._tell(f"line {report.next_line}: broken: it has {behind_bytes} bytes and no end")
        return report
