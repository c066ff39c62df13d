"""The first download of Kafka, shown: a bar on a terminal, else a line now and then.

Owns: how it looks. Refuses to know: what is fetched.
"""

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from collector.devtools.kafka_install import DownloadStep, ShowStep, find_kafka
from collector.devtools.kafka_release import DEFAULT_RELEASE

__all__ = ["show_download"]

MB = 1_000_000
#: Without a terminal, one line for so much.
LINE_BYTES = 10 * MB


@contextmanager
def show_download() -> Iterator[ShowStep | None]:
    """Give what `install_kafka` calls as it proceeds; None where nothing has to be fetched."""
    if find_kafka() is not None:
        yield None
        return
    text = f"fetching Apache Kafka, once: about {DEFAULT_RELEASE.expected_bytes // MB} MB in 46 files"
    print(text, flush=True)
    if sys.stdout.isatty():
        with _bar() as show:
            yield show
    else:
        yield _lines()


def _lines() -> ShowStep:
    lock = threading.Lock()
    shown = 0

    def show(step: DownloadStep) -> None:
        nonlocal shown
        with lock:
            if step.done_bytes < shown + LINE_BYTES:
                return
            shown = step.done_bytes
        print(f"  {step.done_bytes // MB} of {step.total_bytes // MB} MB", flush=True)

    return show


@contextmanager
def _bar() -> Iterator[ShowStep]:
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn(), TextColumn("{task.description}"))
    with Progress(*columns, transient=True) as progress:
        task = progress.add_task("", total=DEFAULT_RELEASE.expected_bytes)

        def show(step: DownloadStep) -> None:
            progress.update(task, completed=step.done_bytes, total=step.total_bytes, description=step.name)

        yield show
