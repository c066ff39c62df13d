"""`collector send`: one event, or a file of them, over HTTP or websocket.

Owns: the command's arguments, its progress, its words and exit codes. Refuses to know: requests and frames
(`collector.client`), reading files (`send_source`).

It ends when every event has its final word, or when nothing was accepted for ``--patience`` seconds; then it says what
became of each part. Exit codes: 0 all accepted, 2 nothing that can be sent or nowhere to send it, 3 some may or may not
be in the log, 4 some were refused or not accepted in time.
"""

import argparse
import signal
import time
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import trio
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, DownloadColumn, Progress, ProgressColumn, TextColumn, TimeRemainingColumn

from collector.client import (
    ApiName,
    EventError,
    Refused,
    RetryDetails,
    SubmittedMessage,
    Unreachable,
    open_track_client,
    open_websocket_track_client,
)

from .send_source import Batch, Source, SourceError, guess_api, open_source
from .settings import DEV_DIRECTORY, DevInfo, read_dev_info

__all__ = ["add_arguments", "run"]

EXIT_OK, EXIT_USAGE, EXIT_UNKNOWN, EXIT_REFUSED = 0, 2, 3, 4
HTTP_BATCH = 100
TOLD_REFUSALS = 5


class _Fault(Exception):
    """Nothing can be sent: said in one line, exit code 2."""


@dataclass(slots=True)
class _Tally:
    """What has become of the events so far."""

    read: int = 0
    accepted: int = 0
    refused: int = 0
    unknown: int = 0
    retries: int = 0
    refusals: list[str] = field(default_factory=list)

    @property
    def not_accepted(self) -> int:
        return self.read - self.accepted - self.refused - self.unknown

    def refuse(self, number: int, where: str, why: str) -> None:
        self.refused += number
        if len(self.refusals) < TOLD_REFUSALS:
            self.refusals.append(f"{where}: {why}")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Target:
    url: str
    transport: Literal["http", "websocket"]
    key: str


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command line of `collector send`."""
    parser.description = "Send events and wait until each is accepted: in Kafka, or on the collector's disk."
    parser.epilog = (
        "exit codes: 0 all accepted; 2 nothing to send or nowhere to send it; 3 some may or may not be in the log; "
        "4 some were refused or not accepted in time"
    )
    parser.add_argument(
        "events",
        nargs="?",
        metavar="EVENT|FILE|-",
        help="one event as JSON, a file with one JSON object a line, or - for stdin (the default in a pipe)",
    )
    parser.add_argument("--url", help="http://host:port or ws://host:port/v1/ws; default: the running `collector dev`")
    parser.add_argument("--websocket", action="store_true", help="over the websocket of the running `collector dev`")
    parser.add_argument("--api", choices=["segment", "heap"], help="the dialect; default: by the first event's members")
    parser.add_argument("--key", help="write key or app id; default: dev with the running `collector dev`")
    parser.add_argument(
        "--batch", type=int, metavar="N", help=f"events a request; default {HTTP_BATCH} over HTTP, 1 over websocket"
    )
    parser.add_argument(
        "--patience", type=float, default=60.0, metavar="S", help="give up when nothing was accepted for S seconds (60)"
    )
    parser.add_argument("--quiet", action="store_true", help="no progress, no summary; only what went wrong")


def run(arguments: argparse.Namespace) -> int:
    """The command: returns its exit code; one clear line on stderr for everything that is the caller's to correct."""
    errors = Console(stderr=True, highlight=False, soft_wrap=True)
    try:
        target = _target(arguments)
        if arguments.batch is not None and arguments.batch < 1:
            raise _Fault("--batch: expected at least 1")
        with open_source(arguments.events) as source:
            return trio.run(_Sending(arguments, target, source, errors).run)
    except (_Fault, SourceError, EventError, Unreachable) as error:
        errors.print(f"[red]collector send:[/] {escape(str(error))}")
        return EXIT_USAGE


class _Sending:
    """One run of the command."""

    def __init__(self, arguments: argparse.Namespace, target: _Target, source: Source, errors: Console) -> None:
        self._target = target
        self._source = source
        self._errors = errors
        self._quiet: bool = arguments.quiet
        self._patience_s: float = arguments.patience
        self._api: ApiName | None = arguments.api
        self._batch: int = arguments.batch or (HTTP_BATCH if target.transport == "http" else 1)
        self._tally = _Tally()
        self._scope = trio.CancelScope()
        self._started = time.monotonic()
        self._last_trouble: str | None = None
        self._interrupted_by: str | None = None
        self._show: Callable[[str], None] = lambda _state: None

    async def run(self) -> int:
        failure: Exception | None = None
        with self._progress():
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._watch_signals, name="send: signals")
                self._accepted_something()
                with self._scope:
                    try:
                        await self._send()
                    except (EventError, SourceError, Unreachable) as error:
                        failure = error
                nursery.cancel_scope.cancel(reason="everything is sent")
        return self._conclude(failure)

    async def _send(self) -> None:
        first = await self._source.next_batch(self._batch)
        if not first.lines:
            raise _Nothing(f"{self._source.name}: no event in it")
        api = self._api if self._api is not None else guess_api(first.lines[0])
        self._api = api
        if self._target.transport == "http":
            await self._send_http(first, api)
        else:
            await self._send_websocket(first, api)

    async def _send_http(self, first: Batch, api: ApiName) -> None:
        async with open_track_client(
            self._target.url, key=self._target.key, api=api, on_retry=self._retrying
        ) as client:
            batch = first
            while batch.lines:
                self._tally.read += len(batch.lines)
                events = batch.check(api)
                try:
                    accepted = await client.batch(events)
                    self._tally.accepted += len(events) - accepted.rejected
                    if accepted.rejected:
                        self._tally.refuse(
                            accepted.rejected, batch.where, f"{accepted.rejected} of them, see the bad topic"
                        )
                except Refused as error:
                    self._tally.refuse(len(events), batch.where, str(error))
                finally:
                    # Not 0 only where this call was cut short.
                    self._tally.unknown = client.uncertain_events
                self._accepted_something()
                batch = await self._source.next_batch(self._batch)

    async def _send_websocket(self, first: Batch, api: ApiName) -> None:
        sent: deque[tuple[Batch, SubmittedMessage]] = deque()
        try:
            async with open_websocket_track_client(
                self._target.url, key=self._target.key, api=api, on_retry=self._retrying
            ) as client:
                batch = first
                while batch.lines:
                    self._tally.read += len(batch.lines)
                    events = batch.check(api)
                    message = await (client.submit(events[0]) if len(events) == 1 else client.submit_batch(events))
                    sent.append((batch, message))
                    self._count_settled(sent)
                    batch = await self._source.next_batch(self._batch)
                while sent:
                    await sent[0][1].wait()
                    self._count_settled(sent)
        finally:
            self._tally.unknown += sum(len(batch.lines) for batch, message in sent if message.may_be_sent)

    def _count_settled(self, sent: deque[tuple[Batch, SubmittedMessage]]) -> None:
        while sent and (ack := sent[0][1].ack) is not None:
            batch, _ = sent.popleft()
            accepted = (
                len(batch.lines) if ack.accepted else sum(ack.counts.get(word, 0) for word in ("delivered", "spooled"))
            )
            self._tally.accepted += accepted
            if accepted < len(batch.lines):
                self._tally.refuse(
                    len(batch.lines) - accepted, batch.where, f"{ack.code or ack.status}: {ack.message or ''}"
                )
            self._accepted_something()

    # Progress

    def _progress(self) -> AbstractContextManager[object]:
        if self._quiet or not self._errors.is_terminal:
            return nullcontext()
        columns: list[ProgressColumn] = [TextColumn("{task.description}"), BarColumn()]
        if self._source.size_bytes is not None:
            columns += [DownloadColumn(binary_units=True), TimeRemainingColumn()]
        columns.append(TextColumn("{task.fields[state]}"))
        progress = Progress(*columns, console=self._errors, transient=True)
        task = progress.add_task("sending", total=self._source.size_bytes, state="")

        def show(state: str) -> None:
            progress.update(task, completed=self._source.read_bytes, state=escape(state))

        self._show = show
        return progress

    def _accepted_something(self) -> None:
        self._scope.deadline = trio.current_time() + self._patience_s
        self._show(f"{self._tally.accepted:,} accepted")

    def _retrying(self, details: RetryDetails) -> None:
        self._tally.retries += 1
        self._show(f"{self._tally.accepted:,} accepted · again in {details.wait_s:.1f} s: {details.reason}")
        if not self._errors.is_terminal and not self._quiet and details.attempt == 1:
            self._errors.print(
                f"collector send: again in {details.wait_s:.1f} s: {escape(details.reason)}", markup=False
            )
        self._last_trouble = details.reason

    async def _watch_signals(self) -> None:
        with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            async for number in signals:
                self._interrupted_by = f"interrupted by {signal.Signals(number).name}"
                self._scope.cancel(reason=self._interrupted_by)

    # The end

    def _conclude(self, failure: Exception | None) -> int:
        tally, took = self._tally, time.monotonic() - self._started
        for refusal in tally.refusals:
            self._errors.print(f"[red]refused[/] {escape(refusal)}")
        if tally.refused > 0 and len(tally.refusals) == TOLD_REFUSALS:
            self._errors.print("[dim]further refusals are counted, not shown[/]")
        if failure is not None:
            self._errors.print(f"[red]collector send:[/] {escape(str(failure))}")
        elif self._scope.cancelled_caught:
            why = self._interrupted_by or f"nothing was accepted for {self._patience_s:g} s"
            last = f"; last trouble: {self._last_trouble}" if self._last_trouble else ""
            self._errors.print(f"[red]collector send:[/] gave up: {why}{escape(last)}")
        if not self._quiet and (tally.read or failure is None):
            print(self._summary(took))
        if tally.unknown:
            return EXIT_UNKNOWN
        if failure is not None:
            return EXIT_USAGE
        return EXIT_REFUSED if tally.accepted < tally.read else EXIT_OK

    def _summary(self, took: float) -> str:
        tally = self._tally
        parts = [f"{tally.accepted:,} of {tally.read:,} events accepted" if tally.accepted < tally.read else ""]
        if not parts[0]:
            parts = [f"{tally.accepted:,} event{'s' if tally.accepted != 1 else ''} accepted"]
        if tally.refused:
            parts.append(f"{tally.refused:,} refused")
        if tally.unknown:
            parts.append(f"{tally.unknown:,} unknown (they may be in the log)")
        if tally.not_accepted:
            parts.append(f"{tally.not_accepted:,} not accepted")
        if tally.retries:
            parts.append(f"{tally.retries:,} {'retry' if tally.retries == 1 else 'retries'}")
        rate = f", {tally.accepted / took:,.0f} events/s" if tally.accepted > 1 and took > 0 else ""
        return f"{', '.join(parts)} in {took:.2f} s{rate} ({self._api} to {self._target.url})"


class _Nothing(SourceError):
    """There is nothing to send."""


def _target(arguments: argparse.Namespace) -> _Target:
    """Where to send: the address given, or the running `collector dev`."""
    if arguments.url is not None:
        url = str(arguments.url)
        transport: Literal["http", "websocket"] = "websocket" if url.startswith(("ws://", "wss://")) else "http"
        if arguments.websocket and transport == "http":
            raise _Fault("--websocket with --url: give the whole websocket address, ws://host:port/v1/ws")
        if arguments.key is None:
            raise _Fault("--url needs --key: the write key (segment) or app id (heap) to send with")
        return _Target(url=url, transport=transport, key=arguments.key)
    dev = _running_dev(Path.cwd())
    return _Target(
        url=dev.ws if arguments.websocket else dev.http,
        transport="websocket" if arguments.websocket else "http",
        key=arguments.key or "dev",
    )


def _running_dev(start: Path) -> DevInfo:
    """The `collector dev` of this directory, or of the nearest one above it."""
    for folder in (start, *start.parents):
        file = folder / DEV_DIRECTORY / "dev.json"
        if file.is_file():
            info = read_dev_info(file.parent)
            if info is None:
                raise _Fault(f"{file} is left over, `collector dev` does not run: start it, or give --url and --key")
            return info
    raise _Fault(f"no {DEV_DIRECTORY}/dev.json here or above: start `collector dev`, or give --url and --key")
